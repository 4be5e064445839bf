"""
Calls that a library announces and ends by callbacks, or ends without a word.

What such a library never says is seen from outside: a task that is done while its call is open was cancelled or has
let go of it, and so has whoever drops an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from typing import Any, Final

from .._context import context_fields
from .._fork import forget_in_child
from ..api import record_fields
from ..record import uuid7
from ._outcome import error_fields

__all__ = ["OpenCalls"]

_CANCELLED: Final = "the call was cancelled while it was in flight"
_LEFT: Final = "the application let go of the call before its end was reported"


class _OpenCall:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields, self.call_id, self.pid = fields, uuid7(), os.getpid()
        self.started_s = time.monotonic()
        self.first_s: float | None = None
        self.is_read = False
        self.pieces: list[str] = []


class OpenCalls:
    """
    The calls that have begun and not ended, by the library's own key for them.

    Threads: Any. Whoever ends a call first has ended it; in a forked child, its parent's calls are not there.
    """

    def __init__(self) -> None:
        self._open: dict[object, _OpenCall] = {}
        forget_in_child(self)

    def after_fork_in_child(self) -> None:
        """Forget the parent's calls: it ends them itself."""
        self._open = {}

    def begin(self, key: object, fields: dict[str, Any], *, start: bool = True) -> None:
        """Announce a call; one of the same key that is still open is over (a library's own further try has its)."""
        call = _OpenCall({**fields, **context_fields()})
        before = self._open.get(key)
        if before is not None:
            call.call_id, call.started_s = before.call_id, before.started_s
        self._open[key] = call
        if start and before is None:
            record_fields({**call.fields, "event": "start", "call_id": call.call_id})
        self._watch_task(key)

    def is_open(self, key: object) -> bool:
        """Say whether the call has begun, and not ended."""
        return key in self._open

    def note_piece(self, key: object, text: str) -> None:
        """Keep the next piece of an answer that is streamed."""
        call = self._open.get(key)
        if call is None:
            return
        call.fields["stream"] = call.is_read = True  # some libraries do not say before that it is one
        if text:
            call.first_s = call.first_s or time.monotonic()
            call.pieces.append(text)

    def end(self, key: object, outcome: dict[str, Any]) -> None:
        """Record the answer, or the failure, of the call."""
        self._finish(key, "response", outcome)

    def fail(self, key: object, error: BaseException, *, error_type: str | None = None) -> None:
        """
        Record that the call has failed with *error*, or was left by one that is no failure.

        *error_type* is what the error comes to, where its own class does not say so.
        """
        if isinstance(error, GeneratorExit):
            self.leave(key)
            return
        event = "response" if isinstance(error, Exception) else "tombstone"
        outcome = error_fields(error, when_cancelled=_CANCELLED)
        outcome["error_type"] = error_type or outcome["error_type"]
        self._finish(key, event, outcome, how="cut" if isinstance(error, Exception) else "cancelled")

    def leave(self, key: object, *, cancelled: bool = False, how: str | None = None) -> None:
        """Record that nobody waits for the call any more, if its end has not been said; *how* a stream was left."""
        if cancelled:
            self.fail(key, asyncio.CancelledError())
        else:
            outcome: dict[str, Any] = {"response": "", "error_type": "cancelled", "error_message": _LEFT}
            call = self._open.get(key)
            if call is not None and not call.fields.get("stream"):
                outcome["success"] = False  # of a stream, the application may have had all that it wanted
            self._finish(key, "tombstone", outcome, how=how)

    def leave_with(self, holder: object, key: object) -> None:
        """Record the same as soon as *holder* is no more."""
        weakref.finalize(holder, self.leave, key, how="abandoned")

    def _finish(self, key: object, event: str, outcome: dict[str, Any], how: str | None = "complete") -> None:
        call = self._open.pop(key, None)
        if call is None or call.pid != os.getpid():
            return
        text = "".join(call.pieces)
        came = {"response": outcome.get("response") or text}
        if call.fields.get("stream"):
            came["stream_end"] = how or ("closed" if call.is_read else "abandoned")
        if call.first_s is not None:
            came["ttft_ms"] = _ms(call.first_s - call.started_s)
        took = {"latency_ms": _ms(time.monotonic() - call.started_s)}
        record_fields({**call.fields, **outcome, **came, **took, "event": event, "call_id": call.call_id})

    def _watch_task(self, key: object) -> None:
        with contextlib.suppress(RuntimeError):  # no event loop runs here
            task = asyncio.current_task()
            if task is not None:
                task.add_done_callback(lambda done: self._leave_with_task(done, key))

    def _leave_with_task(self, task: asyncio.Task[Any], key: object) -> None:
        call = self._open.get(key)
        # A stream may be handed on and read elsewhere; what was cancelled is over in any case.
        if call is not None and (task.cancelled() or not call.fields.get("stream")):
            self.leave(key, cancelled=task.cancelled())


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
