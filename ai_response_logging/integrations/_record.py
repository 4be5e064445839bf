"""One call to anything, recorded by hand: a block or a decorated function, whose failure is recorded as well."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from .._context import context_fields
from ..api import arecord_fields, record_fields, refuse
from ..record import uuid7
from ._outcome import error_fields, known

__all__ = ["Recording", "record"]

P = ParamSpec("P")
R = TypeVar("R")

_CANCELLED: Final = "the block was left before there was an answer"
_OWN: Final = frozenset({"event", "call_id"})


class Recording:
    """
    One call in progress: every attribute that is set becomes a field of its record.

    ``response`` is the answer; `add` takes one that comes in pieces. `call_id` joins the records of the call.

    .. versionadded:: 0.1.0
    """

    __slots__ = ("_fields", "_first_s", "_pieces", "_started_s", "call_id")

    call_id: str

    def __init__(self, fields: dict[str, Any]) -> None:
        put = object.__setattr__
        put(self, "call_id", str(fields.pop("call_id", None) or uuid7()))
        put(self, "_fields", fields)
        put(self, "_pieces", [])
        put(self, "_first_s", None)
        put(self, "_started_s", time.monotonic())

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            raise AttributeError(f"{name} is not to be changed; give it to record(...) if it is known before")
        self._fields[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"this recording has no {name} yet") from None

    def add(self, piece: str) -> None:
        """Take in the next piece of an answer that is streamed."""
        if self._first_s is None and (type(piece) is not str or piece):  # an array's truth may be an error
            object.__setattr__(self, "_first_s", time.monotonic())
        self._pieces.append(piece)

    def _start(self) -> dict[str, Any]:
        return {**self._fields, "event": "start", "call_id": self.call_id}

    def _end(self, error: BaseException | None) -> dict[str, Any]:
        is_stream = bool(self._pieces)
        came = {"response": "".join(map(_text_of, self._pieces)), "stream": True} if is_stream else {}
        fields = {"response": "", **came, **self._fields}
        end_s = time.monotonic()
        first_s = self._first_s
        took = {
            "latency_ms": _ms(end_s - self._started_s),
            **({} if first_s is None else {"ttft_ms": _ms(first_s - self._started_s)}),
        }
        if error is None:
            fields = {"success": True, **took, **fields}
            return {**fields, **_stream_end(is_stream, "complete"), "event": "response", "call_id": self.call_id}
        said = error_fields(error, when_cancelled=_CANCELLED)
        how = "cut" if isinstance(error, Exception) else "closed" if isinstance(error, GeneratorExit) else "cancelled"
        event = "response" if isinstance(error, Exception) else "tombstone"
        said |= {"response": fields["response"], **_stream_end(is_stream, how)}
        return {**took, **fields, **said, "event": event, "call_id": self.call_id}


class record:  # noqa: N801  # used as a block, like contextlib.suppress
    """
    Record one call to anything: ``with record(question=..., platform=..., model=...) as r: r.response = ask()``.

    The record is written when the block ends: with ``latency_ms``, ``success`` and whatever was set on ``r``. If the
    block raises, it is the record of the failure, with what had come of the answer, and the exception goes on as it
    is; left by a cancellation it is a ``tombstone``. ``async with`` lets the event loop go on while a record is
    synced.

    Also a decorator, of functions, coroutine functions and generators of either kind: an argument named ``question``
    is the question, and a text that is returned, or the texts that are yielded, the answer; any other result is kept
    as ``raw_response``.

    Args:
        start: Whether the call is announced by a ``start`` record, so that a killed process leaves a trace of it.
        fields: What is known before, as for `log_ai_response`; they count more than those of `ai_context`.

    Threads: Any; one object is for one block at a time, as a decorator for any number of calls.

    .. versionadded:: 0.1.0
    """

    def __init__(self, *, start: bool = False, **fields: Any) -> None:
        self._is_announced, self._given = start, fields
        self._open: list[Recording] = []

    def __enter__(self) -> Recording:
        recording = self._begin()
        if self._is_announced:
            record_fields(recording._start())  # noqa: SLF001  # two halves of one thing
        return recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fields = self._finish(error)
        if fields is not None:
            record_fields(fields)

    async def __aenter__(self) -> Recording:
        recording = self._begin()
        if self._is_announced:
            await arecord_fields(recording._start())  # noqa: SLF001  # the same
        return recording

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fields = self._finish(error)
        if fields is None:
            return
        if error is None or isinstance(error, Exception):
            await arecord_fields(fields)
        else:  # whoever cancels does not want to wait
            record_fields(fields)

    def _begin(self) -> Recording:
        recording = Recording({**context_fields(), **known(self._given)})
        self._open.append(recording)
        return recording

    def _finish(self, error: BaseException | None) -> dict[str, Any] | None:
        try:
            return self._open.pop()._end(error)  # noqa: SLF001  # the same
        except Exception as broken:  # noqa: BLE001  # what records must not break what it records
            refuse(broken)
            return None

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Record every call of *function*."""
        signature = _signature_of(function)

        def block(args: tuple[Any, ...], kwargs: dict[str, Any]) -> record:
            return record(start=self._is_announced, **{**_question_in(signature, args, kwargs), **self._given})

        return cast("Callable[P, R]", _recorded(function, block))


def _recorded(function: Callable[..., Any], block: Callable[[tuple[Any, ...], dict[str, Any]], record]) -> Any:
    if inspect.isasyncgenfunction(function):
        return functools.wraps(function)(_async_generator(function, block))
    if inspect.isgeneratorfunction(function):
        return functools.wraps(function)(_generator(function, block))
    if _is_awaited(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            async with block(args, kwargs) as recording:
                return _kept(recording, await function(*args, **kwargs))

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with block(args, kwargs) as recording:
            return _kept(recording, function(*args, **kwargs))

    return called


def _is_awaited(function: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    # An object with such a method; a class is called to make one.
    return not inspect.isclass(function) and inspect.iscoroutinefunction(type(function).__call__)


def _generator(function: Callable[..., Any], block: Callable[..., record]) -> Callable[..., Generator[Any, Any, Any]]:
    def pieces(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with block(args, kwargs) as recording:
            return (yield from _Noted(function(*args, **kwargs), recording))

    return pieces


class _Noted(Generator[Any, Any, Any]):
    """A generator whose pieces are recorded; what is sent and thrown into it arrives there, and its result here."""

    def __init__(self, inner: Generator[Any, Any, Any], recording: Recording) -> None:
        self._inner, self._recording = inner, recording

    def send(self, value: Any) -> Any:
        """Pass *value* on; return the next piece."""
        return self._noted(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        """Pass *error* on; return the next piece, if there is one."""
        return self._noted(self._inner.throw(*error))

    def close(self) -> None:
        """Close the generator within."""
        self._inner.close()

    def _noted(self, piece: Any) -> Any:
        self._recording.add(piece)
        return piece


def _async_generator(function: Callable[..., Any], block: Callable[..., record]) -> Callable[..., AsyncIterator[Any]]:
    async def pieces(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with block(args, kwargs) as recording:
            inner = function(*args, **kwargs)
            following = inner.asend(None)
            while True:
                try:
                    piece = await following
                except StopAsyncIteration:
                    return
                recording.add(piece)
                try:
                    following = inner.asend((yield piece))
                except GeneratorExit:  # what it holds is let go of now, as without us, and not when it is collected
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown in: it is for the one within
                    following = inner.athrow(error)

    return pieces


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some that are built in have none
        return None


def _question_in(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if signature is None:
        return {}
    try:
        question = signature.bind(*args, **kwargs).arguments.get("question")
    except TypeError:  # wrong arguments: the call itself will say so
        return {}
    return {"question": question} if isinstance(question, str) else {}


def _kept(recording: Recording, result: Any) -> Any:
    if isinstance(result, str):
        recording.response = result
    elif result is not None:
        recording.raw_response = result
    return result


def _stream_end(is_stream: bool, how: str) -> dict[str, str]:  # noqa: FBT001  # a fact, not an option
    return {"stream_end": how} if is_stream else {}


def _text_of(piece: object) -> str:
    try:
        return str(piece)
    except Exception:  # noqa: BLE001  # somebody's __str__; the rest of the answer counts
        return f"<{type(piece).__qualname__}>"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
