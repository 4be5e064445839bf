"""What the local model server is to answer, and what it was asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

_LONGEST_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """
    How the server treats one request; every field has a default, and the default is a good answer.

    Args:
        text: The answer; for a *status* of 400 and more the error's message. None: an echo of model and question.
        finish_reason: As in the API, ``stop`` unless said.
        usage: The token counts as the API's ``usage`` object; None: counted from the texts; ``{}``: left out.
        status: HTTP status; 400 and more answers with an error object.
        error_code: The error object's ``code``; None: the usual one for *status*.
        retry_after_s: Seconds, sent as ``Retry-After``.
        malformed: Answer 200 with a body (in a stream: an event) that is not JSON.
        delay_s: Seconds to wait before the answer (after *hold*).
        hold: Wait for this event; it is yours to set. Closing the server ends the wait by cutting the connection.
        hold_after_chunks: Hold only after so many chunks of a stream; 0: before anything is sent.
        cut_after_bytes: Drop the connection after so many bytes of the body; 0: without any answer.
        cut_after_chunks: Drop it after so many chunks of a stream (a plain answer is one chunk); 0: without any answer.
        chunk_chars: Characters of the text in each chunk of a stream, from 1.
        chunk_delay_s: Seconds to wait before each further chunk of a stream.
        tool_calls: Calls the model asks for, each with ``name`` and ``arguments`` (JSON as text); streamed in pieces.
        html: Answer 200 with a web page, as a wrong address does.
        headers: Further headers of the answer.
        end_marker: Whether a stream sends its terminal event.
        stream_error: Send an error object in the middle of a stream, in the place of its end; the error's message.
        encoding: ``gzip``: compress the body.

    Raises:
        ValueError: A number is out of its range.

    Threads: Frozen; one reply may serve many requests.

    .. versionadded:: 0.1.0
    """

    text: str | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = None
    status: int = 200
    error_code: str | None = None
    retry_after_s: float | None = None
    malformed: bool = False
    delay_s: float = 0.0
    hold: threading.Event | None = None
    hold_after_chunks: int = 0
    cut_after_bytes: int | None = None
    cut_after_chunks: int | None = None
    chunk_chars: int = 16
    chunk_delay_s: float = 0.0
    tool_calls: Sequence[Mapping[str, str]] = ()
    html: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    end_marker: bool = True
    stream_error: str | None = None
    encoding: Literal["", "gzip"] = ""

    def __post_init__(self) -> None:
        for name, least in (
            ("status", 200),
            ("retry_after_s", 0),
            ("delay_s", 0),
            ("hold_after_chunks", 0),
            ("cut_after_bytes", 0),
            ("cut_after_chunks", 0),
            ("chunk_chars", 1),
            ("chunk_delay_s", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Reply({name}=...) must be {least} or more, got {value}")


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """
    One request as it came; *body* is the whole JSON object, and {} where there was none.

    ``headers`` has lower-case names; the values of those that carry keys are replaced by ``(hidden)``.
    ``received_at`` is Unix time in seconds.

    .. versionadded:: 0.1.0
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    received_at: float = field(default_factory=time.time)

    @property
    def model(self) -> str | None:
        """The model asked for; None where the request named none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat request, the input of a response; empty where they are a text."""
        messages = self.body.get("messages", self.body.get("input"))
        return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return bool(self.body.get("stream"))

    @property
    def question(self) -> str:
        """The text of the last user message, of the prompt or of the input; empty if there is none."""
        asked = self.body.get("input", self.body.get("prompt"))
        if isinstance(asked, str):
            return asked
        texts = [text_of(message) for message in self.messages if message.get("role") == "user"]
        return texts[-1] if texts else ""


class Script:
    """
    The replies that are still to be given, and the requests that came: what all connections share.

    Threads: Any, at the same time.
    """

    def __init__(self, respond: Callable[[SeenRequest], Reply | None] | None) -> None:
        self.closing = threading.Event()
        self._respond = respond
        self._changed = threading.Condition()
        self._requests: list[SeenRequest] = []
        self._next: dict[str | None, deque[Reply]] = {}
        self._always: dict[str | None, Reply] = {}

    def requests(self) -> list[SeenRequest]:
        """Return a copy of all requests so far, oldest first."""
        with self._changed:
            return list(self._requests)

    def note(self, request: SeenRequest) -> int:
        """Keep *request*; return its number, from 1."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests)

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait for *count* requests in all; False if *timeout_s* passes first."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout_s)

    def add(self, replies: tuple[Reply, ...], model: str | None) -> None:
        """Give each of *replies* once."""
        with self._changed:
            self._next.setdefault(model, deque()).extend(replies)

    def set_standing(self, reply: Reply, model: str | None) -> None:
        """Give *reply* whenever there is no other."""
        with self._changed:
            self._always[model] = reply

    def reply_to(self, request: SeenRequest) -> Reply:
        """Choose in the order that `LocalModelServer` documents."""
        reply = self._take(request.model) or self._take(None)
        if reply is None and self._respond is not None:
            reply = self._respond(request)  # the user's code: never under our lock
        if reply is None:
            with self._changed:
                reply = self._always.get(request.model) or self._always.get(None)
        return reply or Reply()

    def wait_as_scripted(self, hold: threading.Event | None, delay_s: float = 0) -> bool:
        """Wait for *hold*, then *delay_s* seconds; False if the server closes meanwhile."""
        look_s = 0.02  # ever longer: a thousand calls that are held and look each 20 ms leave no time for any other
        while hold is not None and not hold.wait(look_s):
            if self.closing.is_set():
                return False
            look_s = min(2 * look_s, _LONGEST_LOOK_S)
        return not self.closing.wait(delay_s)

    def _take(self, model: str | None) -> Reply | None:
        with self._changed:
            waiting = self._next.get(model)
            return waiting.popleft() if waiting else None


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
