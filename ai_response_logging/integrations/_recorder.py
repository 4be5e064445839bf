"""
The calls of one client that wait for a further try, and what each request and answer means for them.

The official SDKs try again by themselves, each try a request of its own. They say how many tries came before
(``x-stainless-retry-count``) but not which call a request belongs to: it is told by its idempotency key where there is
one, else by the thread or task that sends it and by its text.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import parse_qsl

from .._context import context_fields
from .._fast_json import loads_plain
from .._fork import forget_in_child
from ..api import record_fields, refuse
from ._body import Body
from ._calls import Call, Record, Try
from ._endpoints import platform_of, wire_of
from ._outcome import known
from ._retries import is_retried, retries_of_caller, retry_count_of
from ._wire import Wire

__all__ = ["Recorder", "RequestView", "quietly"]

P = ParamSpec("P")
R = TypeVar("R")

# How long a call waits for a further try. The SDKs wait 8 s at most of their own accord, 60 s if an endpoint says so.
_NEXT_TRY_S: Final = 75.0
_SECRET_HEADERS: Final = ("authorization", "api-key", "x-api-key", "proxy-authorization", "cookie")
_SHORTEST_SECRET: Final = 8
_SHORTEST_LOOK_S: Final = 0.05


def quietly(function: Callable[P, R]) -> Callable[P, R | None]:
    """Let no error of ours reach the application: it is counted and reported as a record that was refused."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # what records must not break what it records
            refuse(error)
            return None

    return guarded


@dataclass(frozen=True, slots=True)
class RequestView:
    """What of a request is looked at; ``headers`` are read for names that say nothing secret, and never recorded."""

    method: str
    host: str
    path: str
    query: str
    userinfo: str
    headers: Mapping[str, str]
    read_content: Callable[[], bytes]
    timeout_s: float | None
    max_retries: int | None = None
    """Of this call, where it is known."""


class Recorder:
    """
    What a recording client knows of its calls.

    Args:
        max_retries: How many further tries the SDK makes.
        starts: Which calls are announced by a ``start`` record: ``streams``, ``all`` or ``none``.
        platform: As the records name it; None: by the host.
        keep_raw: Whether ``raw_request`` and ``raw_response`` are recorded as well.
        longest_pause_s: A longer ``Retry-After`` is not waited for.
        decode: Undoes a content encoding.

    Threads: Any. A forked child has no calls of its parent's.
    """

    def __init__(
        self,
        *,
        max_retries: int,
        starts: str,
        platform: str | None,
        keep_raw: bool,
        longest_pause_s: float,
        decode: Callable[[bytes, str], bytes],
    ) -> None:
        self._max_retries, self._starts, self._platform = max_retries, starts, platform
        self._keep_raw, self._longest_pause_s, self._decode = keep_raw, longest_pause_s, decode
        # Each step on it is one operation of a dict, so it needs no lock, which a fork could leave held.
        self._waiting: dict[object, Call] = {}
        self._keeper: threading.Thread | None = None
        self._wake = threading.Event()
        forget_in_child(self)
        atexit.register(_end_all, weakref.ref(self))

    def begin(self, request: RequestView) -> tuple[Try | None, list[Record]]:
        """Return the try that *request* is, None if it asks no model, and what is to be recorded before it is sent."""
        wire = wire_of(request.method, request.path)
        if wire is None:
            return None, []
        number = retry_count_of(request.headers)
        content = request.read_content()
        key = _key_of(request, content)
        earlier = self._waiting.pop(key, None) or self._changed(key, number)
        if earlier is not None and not self._waiting:
            self._wake.set()  # nobody to wait for any more
        records = [earlier.give_up()] if earlier and not earlier.is_over and not number else []
        call = earlier if earlier and number else None
        if call is None:
            call = Call(self._request_fields(wire, request, content))
            if self._starts == "all" or (self._starts == "streams" and call.fields.get("stream")):
                records.append(call.announcement("start"))
        attempt = Try(
            call,
            is_last=number is None or number >= self._most_tries(request, number),
            secrets=_secrets_in(request),
            key=key,
            wire=wire,
        )
        # A body that the application reads itself is not asked for again when it breaks off.
        attempt.is_retriable_when_cut = request.headers.get("x-stainless-raw-response") != "stream"
        return attempt, records

    def _changed(self, key: object, number: int | None) -> Call | None:
        """Return the call of which *key* is try *number*, where the SDK's hooks have changed its text meanwhile."""
        if not number or not isinstance(key, tuple):
            return None
        for other, call in reversed(list(self._waiting.items())):
            if isinstance(other, tuple) and other[:-1] == key[:-1] and len(call.tries) == number:
                return self._waiting.pop(other, None)
        return None

    def _most_tries(self, request: RequestView, number: int) -> int:
        """Return how many further tries the SDK makes; *number* came before."""
        if request.max_retries is not None:
            return request.max_retries
        if number < self._max_retries:
            return self._max_retries
        # The last one as far as we were told; what is ended here must not be answered by yet another.
        return max(self._max_retries, retries_of_caller() or 0)

    def answered(self, attempt: Try, status: int, headers: Mapping[str, str]) -> Body:
        """Note that an answer has begun; return what takes its bytes."""
        encoding = headers.get("content-encoding", "").lower()
        body = Body(
            attempt.wire,
            is_events=headers.get("content-type", "").lower().startswith("text/event-stream"),
            encoding="" if encoding == "identity" else encoding,
            decode=self._decode,
            keep_raw=self._keep_raw,
        )
        request_id = headers.get("x-request-id") or headers.get("request-id")
        again = is_retried(status, headers, self._longest_pause_s)
        attempt.answered(status, request_id, body, is_retried=again)
        return body

    def await_next(self, attempt: Try) -> None:
        """Keep the call of a failed try until the next one comes, or until none has come for too long."""
        call = attempt.call
        call.deadline_s = time.monotonic() + _NEXT_TRY_S
        self._waiting[attempt.key] = call
        self._see_to_it()
        task = _task()
        if task is not None:  # cancelled between two tries, it never comes back here
            task.add_done_callback(functools.partial(self._end_with_task, attempt.key, call))

    def _end_with_task(self, key: object, call: Call, task: asyncio.Task[Any]) -> None:
        if self._waiting.get(key) is call and self._waiting.pop(key, None) is call:
            quietly(record_fields)(call.leave_off() if task.cancelled() else call.give_up())

    def close(self) -> None:
        """Record the end of all calls that wait for a further try."""
        self.end_waiting()
        self._wake.set()

    def end_waiting(self, *, due_only: bool = False) -> None:
        """Record the end of calls that wait for a further try: of all, or of those for which none will come."""
        now_s = time.monotonic()
        for key, call in list(self._waiting.items()):
            if (not due_only or call.deadline_s <= now_s) and self._waiting.pop(key, None) is call and not call.is_over:
                record_fields(call.give_up())

    def after_fork_in_child(self) -> None:
        """Forget the parent's calls: it ends them itself."""
        self._waiting, self._keeper, self._wake = {}, None, threading.Event()

    def _see_to_it(self) -> None:
        keeper = self._keeper
        if keeper is None or not keeper.is_alive():
            keeper = threading.Thread(target=_keep, args=(weakref.ref(self),), name="ai-response-calls", daemon=True)
            self._keeper = keeper
            keeper.start()

    def look(self) -> tuple[float, threading.Event] | None:
        """End what is due; return for how long nothing will be, and what ends that time early; None to go home."""
        self._wake.clear()  # before the look: what is set after it is not missed
        self.end_waiting(due_only=True)
        if not self._waiting:
            self._keeper = None  # first, so that a call that comes now finds nobody and starts another
            if not self._waiting:
                return None
            self._keeper = threading.current_thread()
        due_s = min(call.deadline_s for call in list(self._waiting.values()))
        return max(_SHORTEST_LOOK_S, due_s - time.monotonic()), self._wake

    def _request_fields(self, wire: Wire, request: RequestView, content: bytes) -> Record:
        try:
            body = loads_plain(content)
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        version = dict(parse_qsl(request.query)).get("api-version")
        return {
            "operation": wire.operation,
            "platform": self._platform or platform_of(request.host),
            **known({"api_version": version, "timeout_seconds": request.timeout_s}),
            **_asked(wire, body),
            **({"raw_request": body} if self._keep_raw else {}),
            **context_fields(),
        }


def _asked(wire: Wire, body: Record) -> Record:
    try:
        return wire.request_fields(body)
    except (TypeError, ValueError, AttributeError, LookupError):  # of another shape: the endpoint will say so
        return {"raw_request": body}


def _key_of(request: RequestView, content: bytes) -> object:
    said = request.headers.get("idempotency-key")
    if said:
        return said
    return (_sender(), request.host, request.path, content)


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None


def _sender() -> object:
    task = _task()
    return threading.get_ident() if task is None else id(task)


def _secrets_in(request: RequestView) -> tuple[str, ...]:
    """Return what a record must not have: an endpoint may repeat it when it complains, and so may an error's text."""
    said = [request.headers.get(name, "").split(" ")[-1] for name in _SECRET_HEADERS]
    said += [value for _, value in parse_qsl(request.query)] + request.userinfo.split(":")
    return tuple(one for one in said if len(one) >= _SHORTEST_SECRET)


def _keep(reference: weakref.ref[Recorder]) -> None:
    """End the calls of a client for which no further try comes, while there are any. While it waits it holds none."""
    while True:
        recorder = reference()
        seen = None if recorder is None else recorder.look()
        del recorder
        if seen is None:
            return
        pause_s, wake = seen
        wake.wait(pause_s)


def _end_all(reference: weakref.ref[Recorder]) -> None:
    recorder = reference()
    if recorder is not None:
        quietly(recorder.end_waiting)()
