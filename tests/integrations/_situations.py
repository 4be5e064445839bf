"""What can become of a call to a model, and what its records then say; the same for every SDK."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ai_response_logging.testing import Reply

QUESTION = "Which phone is best?"
TEXT = "The one with the longest battery life, I would say: 为什么不?"
CALLS = (
    {"id": "call_1", "name": "look_up", "arguments": '{"city": "Köln", "days": 3}'},
    {"id": "call_2", "name": "sum_up", "arguments": '{"of": [1, 2, 3]}'},
)
JOINED_CALLS = [
    {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
    for one in CALLS
]
CHUNK = 8
GOOD = Reply(text=TEXT, chunk_chars=CHUNK)


class Gate(threading.Event):
    """Held by the server; says when it has been reached."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


@dataclass(frozen=True)
class Situation:
    """
    One case.

    Attributes:
        replies: Makes what the server answers, anew for each run.
        how: ``plain``, or what becomes of the stream: ``read``, ``break``, ``never``, ``cancel``.
        events: The records' events in order, without a stream's ``start``.
        expected: What the last record says.
        statuses: Of each try as ``attempts`` has them; None where there was no answer.
        text_starts: Whether ``response`` is only the beginning of the text, of at least one chunk.
    """

    name: str
    replies: Callable[[], tuple[Reply, ...]]
    how: str
    events: tuple[str, ...]
    expected: Mapping[str, Any]
    statuses: tuple[int | None, ...] = (200,)
    text_starts: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    is_refused: bool = False

    @property
    def is_stream(self) -> bool:
        return self.how not in {"plain", "cancel_plain"}

    @property
    def comes_before_gate(self) -> int:
        """How many events a stream sends before it is held."""
        return max(one.hold_after_chunks for one in self.replies())


def _of(*replies: Reply) -> Callable[[], tuple[Reply, ...]]:
    return lambda: replies


def _held(**reply: Any) -> Callable[[], tuple[Reply, ...]]:
    return lambda: (Reply(text=TEXT, chunk_chars=CHUNK, hold=Gate(), **reply),)


OK = {"success": True, "response": TEXT}
WHOLE = {**OK, "stream": True, "stream_end": "complete"}
BUSY = Reply(status=429, retry_after_s=0.01)
DOWN = Reply(status=500, retry_after_s=0.01)
ONCE = {"max_retries": 0}


def _failed(error_type: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "response": "", "error_type": error_type, **more}


SITUATIONS = [
    Situation("plain", _of(GOOD), "plain", ("response",), OK),
    Situation("compressed", _of(Reply(text=TEXT, encoding="gzip")), "plain", ("response",), OK),
    Situation(
        "tool_call",
        _of(Reply(tool_calls=CALLS, chunk_chars=CHUNK)),
        "plain",
        ("response",),
        {"success": True, "response": "", "tool_calls": JOINED_CALLS},
    ),
    Situation("429_then_ok", _of(BUSY, GOOD), "plain", ("attempt", "response"), {**OK, "retry_count": 1}, (429, 200)),
    Situation(
        "500_for_good",
        _of(DOWN, DOWN, DOWN),
        "plain",
        ("attempt", "attempt", "response"),
        _failed("server_error", http_status_code=500, retry_count=2),
        (500, 500, 500),
    ),
    Situation(
        "not_retried",
        _of(Reply(status=401)),
        "plain",
        ("response",),
        _failed("auth", http_status_code=401, retry_count=0),
        (401,),
    ),
    Situation(
        "told_not_to_retry",
        _of(Reply(status=429, headers={"x-should-retry": "false"})),
        "plain",
        ("response",),
        _failed("rate_limit", http_status_code=429),
        (429,),
    ),
    Situation(
        "timeout",
        _held(),
        "plain",
        ("response",),
        _failed("timeout", error_class="ReadTimeout"),
        (None,),
        options={**ONCE, "timeout": 0.3},
    ),
    Situation(
        "refused",
        _of(),
        "plain",
        ("attempt", "response"),
        _failed("connection", error_class="ConnectError", retry_count=1),
        (None, None),
        options={"max_retries": 1},
        is_refused=True,
    ),
    Situation(
        "cut",
        _of(Reply(text=TEXT, cut_after_bytes=40), GOOD),
        "plain",
        ("attempt", "response"),
        {**OK, "retry_count": 1},
        (200, 200),
    ),
    Situation("html", _of(Reply(html=True)), "plain", ("response",), _failed("exception")),
    Situation("malformed", _of(Reply(malformed=True)), "plain", ("response",), _failed("exception")),
    Situation(
        "cancelled_before_answer",
        _held(),
        "cancel_plain",
        ("tombstone",),
        _failed("cancelled"),
        (None,),
    ),
    Situation("stream_read", _of(GOOD), "read", ("response",), WHOLE),
    Situation("stream_without_marker", _of(Reply(text=TEXT, end_marker=False)), "read", ("response",), {}),
    Situation("stream_429_then_ok", _of(BUSY, GOOD), "read", ("attempt", "response"), WHOLE, (429, 200)),
    Situation(
        "stream_tool_call",
        _of(Reply(text=TEXT, tool_calls=CALLS, chunk_chars=CHUNK)),
        "read",
        ("response",),
        {**WHOLE, "tool_calls": JOINED_CALLS},
    ),
    Situation(
        "stream_broken_off",
        _held(hold_after_chunks=6),
        "break",
        ("tombstone",),
        {"stream_end": "closed"},
        text_starts=True,
    ),
    Situation("stream_never_read", _of(GOOD), "never", ("tombstone",), {"stream_end": "abandoned", "response": ""}),
    Situation(
        "stream_cancelled",
        _held(hold_after_chunks=6),
        "cancel",
        ("tombstone",),
        {"stream_end": "cancelled", "success": False, "error_type": "cancelled"},
        text_starts=True,
    ),
    Situation(
        "stream_cut",
        _of(Reply(text=TEXT, chunk_chars=CHUNK, cut_after_chunks=6)),
        "read",
        ("response",),
        {"stream_end": "cut", "success": False, "error_type": "connection"},
        text_starts=True,
    ),
    Situation(
        "stream_timeout",
        _held(hold_after_chunks=6),
        "read",
        ("response",),
        {"stream_end": "cut", "success": False, "error_type": "timeout"},
        text_starts=True,
        options={"timeout": 0.5},
    ),
    Situation(
        "stream_error",
        _of(Reply(text=TEXT, chunk_chars=CHUNK, stream_error="it is too much")),
        "read",
        ("response",),
        {"stream_end": "cut", "success": False, "error_type": "server_error", "error_message": "it is too much"},
        text_starts=True,
    ),
    Situation(
        "stream_malformed",
        _of(Reply(text=TEXT, malformed=True)),
        "read",
        ("response",),
        {"stream_end": "cut", "success": False},
    ),
    Situation("stream_html", _of(Reply(html=True)), "read", ("response",), _failed("exception")),
    Situation(
        "stream_500_for_good",
        _of(DOWN, DOWN, DOWN),
        "read",
        ("attempt", "attempt", "response"),
        _failed("server_error", http_status_code=500),
        (500, 500, 500),
    ),
]
