"""
What became of each call: its tries, its end, and the records that say so.

A call is announced by a ``start`` record, a failed try is kept as ``attempt`` as soon as it is known, and one
``response`` or ``tombstone`` ends it; all have the same ``call_id``. This module decides; who calls it writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from ..record import uuid7
from ._body import Body
from ._outcome import (
    HTTP_ERROR,
    UnexpectedAnswerError,
    error_fields,
    error_type_of_status,
    error_type_of_wire,
    known,
)
from ._wire import Wire

__all__ = ["Call", "Ended", "Try"]

Record = dict[str, Any]

# What of a call its `start` and `attempt` records repeat; the rest is in the record that ends it.
_ANNOUNCED: Final = frozenset({"messages", "tools", "parameters", "raw_request"})
_ABANDONED: Final = "nobody read the answer, and it was dropped"
_CLOSED: Final = "the application closed the stream before its end"
_CANCELLED: Final = "the call was cancelled while it was in flight"
_BETWEEN: Final = "the call was cancelled while it waited for its next try"
_CUT: Final = "the stream ended without its terminal event"


class Ended:
    """How an answer's bytes ended."""

    EXHAUSTED: Final = "exhausted"
    CLOSED: Final = "closed"
    ABANDONED: Final = "abandoned"
    BROKEN: Final = "broken"


class Call:
    """One call of the application, with all its tries."""

    __slots__ = ("call_id", "deadline_s", "fields", "is_over", "last", "started_s", "tries")

    def __init__(self, fields: Record) -> None:
        self.call_id = str(fields.pop("call_id", None) or uuid7())
        self.fields = fields
        self.started_s = time.monotonic()
        self.tries: list[Record] = []
        self.last: Record = {}
        self.is_over = False
        self.deadline_s = 0.0

    def announcement(self, event: str) -> Record:
        """Return what every record of the call but the last begins with."""
        said = {name: value for name, value in self.fields.items() if name not in _ANNOUNCED}
        return {**said, "event": event, "call_id": self.call_id}

    def end(self, event: str, outcome: Record) -> Record:
        """Return the record that ends the call."""
        self.is_over = True
        several = {"attempts": self.tries} if len(self.tries) > 1 else {}
        retries = {"retry_count": max(0, len(self.tries) - 1)}
        return {**self.fields, "event": event, "call_id": self.call_id, **retries, **several, **outcome}

    def give_up(self) -> Record:
        """Return the record that ends a call of which only failed tries are known."""
        return self.end("response", self.last)

    def leave_off(self) -> Record:
        """Return the record that ends a call which was cancelled between two tries."""
        latency = {"latency_ms": _ms(time.monotonic() - self.started_s)}
        return self.end("tombstone", {**self.last, "error_type": "cancelled", "error_message": _BETWEEN, **latency})


class Try:
    """
    One request of a call, from its sending to the last byte of its answer.

    Args:
        call: Its call.
        key: What tells that a later request is a try of the same call.
        wire: The API that it speaks.
        is_last: Whether the SDK would not try again, whatever comes.
        secrets: What stood in the request's headers and address that no record may have.

    Threads: Any, one after the other; what has ended stays so.
    """

    def __init__(self, call: Call, *, key: object, wire: Wire, is_last: bool, secrets: tuple[str, ...]) -> None:
        self.call, self.key, self.wire = call, key, wire
        self.body: Body | None = None
        self.is_retriable_when_cut = True
        self._is_last, self._secrets = is_last, secrets
        self._began_s = time.monotonic()
        self._status: int | None = None
        self._request_id: str | None = None
        self._is_retried_answer = False
        self._turn = [os.getpid()]

    def answered(self, status: int, request_id: str | None, body: Body, *, is_retried: bool) -> None:
        """Note that an answer has begun."""
        self._status, self._request_id, self.body, self._is_retried_answer = status, request_id, body, is_retried

    def failed(self, error: BaseException, *, is_retried: bool) -> list[Record]:
        """Return the records of a try that got no answer."""
        if not self._take_turn():
            return []
        if not isinstance(error, Exception):
            return [self._gone(error)]
        return self._failure(self._of_error(error), is_retried=is_retried)

    def ended(self, how: str, error: BaseException | None = None) -> list[Record]:
        """Return the records of an answer that is over; none if that has been said before."""
        body = self.body
        if body is None or not self._take_turn():
            return []
        if self._status is not None and self._status >= HTTP_ERROR:
            return self._failure(self._of_status(self._status, body), is_retried=self._is_retried_answer)
        if body.is_events:
            return self._stream_end(body, how, error)
        return self._plain_end(body, how, error)

    def _take_turn(self) -> bool:
        """Say whether it is for the caller to end this try: once, and not in a child forked meanwhile."""
        try:
            return self._turn.pop() == os.getpid()
        except IndexError:
            return False

    def _plain_end(self, body: Body, how: str, error: BaseException | None) -> list[Record]:
        if how == Ended.EXHAUSTED:
            try:
                outcome = body.fields_of_answer()
            except UnexpectedAnswerError as unexpected:
                outcome = {**self._of_error(unexpected), "raw_response": body.text()}
            return [self._end("response", outcome)]
        if isinstance(error, Exception):
            return self._failure(self._of_error(error), is_retried=self.is_retriable_when_cut)
        return [self._gone(error, how)]

    def _stream_end(self, body: Body, how: str, error: BaseException | None) -> list[Record]:
        fields = body.fields_of_events()
        said = fields.pop("error", None)
        first_s = body.first_token_s
        fields |= known({"ttft_ms": None if first_s is None else _ms(first_s - self.call.started_s)})
        if said:
            end = "complete" if body.is_complete else "cut"
            return [self._end("response", {**fields, **self._of_reported(said), "stream_end": end})]
        if body.is_complete:
            return [self._end("response", {**fields, "stream_end": "complete"})]
        text = {"response": fields.get("response", "")}
        if how == Ended.EXHAUSTED or body.has_bad_event or isinstance(error, Exception):
            cut = self._of_error(error or UnfinishedStreamError(_CUT))
            return [self._end("response", {**fields, **cut, **text, "stream_end": "cut"})]
        return [self._gone(error, how, fields)]

    def _gone(self, error: BaseException | None, how: str = Ended.BROKEN, fields: Record | None = None) -> Record:
        """Return the tombstone of a call that the application gave up."""
        came = fields or {"response": ""}
        if error is None or isinstance(error, GeneratorExit):
            end, why = (how, _ABANDONED) if how == Ended.ABANDONED else (Ended.CLOSED, _CLOSED)
            # Whether it got what it wanted, only the application knows.
            came.pop("success", None)
            outcome = {**came, "error_type": "cancelled", "error_message": why}
        else:
            end = "cancelled"
            outcome = {**came, **error_fields(error, when_cancelled=_CANCELLED), "response": came["response"]}
        is_stream = bool(self.call.fields.get("stream"))
        return self._end("tombstone", {**outcome, **({"stream_end": end} if is_stream else {})})

    def _failure(self, outcome: Record, *, is_retried: bool) -> list[Record]:
        """Return the records of a failed try: an ``attempt`` if another may follow, else the call's end."""
        if self._is_last or not is_retried:
            return [self._end("response", outcome)]
        self._note_try(outcome)
        call = self.call
        call.last = {**outcome, "latency_ms": _ms(time.monotonic() - call.started_s)}
        took = {"latency_ms": _ms(time.monotonic() - self._began_s), "retry_count": len(call.tries) - 1}
        return [{**call.announcement("attempt"), **outcome, **took}]

    def _end(self, event: str, outcome: Record) -> Record:
        self._note_try(outcome)
        body = self.body
        is_whole = event == "response" and body is not None and body.last_s is not None
        end_s = body.last_s if is_whole and body is not None and body.last_s is not None else time.monotonic()
        latency = {"latency_ms": _ms(end_s - self.call.started_s)}
        return self.call.end(event, {**known({"request_id": self._request_id}), **outcome, **latency})

    def _note_try(self, outcome: Record) -> None:
        self.call.tries.append(
            known(
                {
                    "t_ms": _ms(self._began_s - self.call.started_s),
                    "status": self._status,
                    "error_type": outcome.get("error_type"),
                    "request_id": self._request_id,
                }
            )
        )

    def _of_error(self, error: BaseException) -> Record:
        fields = error_fields(error, when_cancelled=_CANCELLED)
        return {**fields, "error_message": self._without_secrets(fields["error_message"])}

    def _of_status(self, status: int, body: Body) -> Record:
        error = body.error_of_answer()
        message = str(error.get("message") or f"the endpoint answered {status}")
        return {
            "response": "",
            "success": False,
            "error_type": error_type_of_status(status, error.get("code")),
            "error_class": "HTTPStatusError",
            "error_message": self._without_secrets(message),
            "http_status_code": status,
            **known({"request_id": self._request_id}),
        }

    def _of_reported(self, said: object) -> Record:
        error: Mapping[str, Any] = said if isinstance(said, Mapping) else {"message": said}
        return {
            "success": False,
            "error_type": error_type_of_wire(error),
            "error_class": str(error.get("type") or error.get("code") or "error"),
            "error_message": self._without_secrets(str(error.get("message") or error)),
        }

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "(hidden)")
        return text


class UnfinishedStreamError(ConnectionError):
    """A stream that ended without its terminal event: the connection was lost, or the endpoint gave up."""


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
