"""
The functions: for code that calls a function instead of a logger, and the names that existing callers use.

None of them raises because of logging, and none waits for the disk, save as long as ``caller_timeout`` says when
the queue is full.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any, TypedDict

from . import config
from ._context import context_fields
from ._pipeline import warn_of_disabled_logger
from .handler import AIResponseHandler
from .record import LOGGER_NAME, default_log_path
from .stats import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from ._prepared import PreparedRecord
    from ._typed import ResponseFields, Snapshot

__all__ = [
    "AsyncAIResponseLogger",
    "LogResult",
    "alog_ai_response",
    "get_async_logger",
    "log_ai_response",
    "log_ai_response_async",
    "log_ai_response_enhanced",
]


class _LogResult(TypedDict):
    record_id: str
    status: str
    queue_size: int


class LogResult(_LogResult, total=False):
    """What became of one record; ``error`` says why, where it failed."""

    error: str


def log_ai_response(**fields: Unpack[ResponseFields]) -> LogResult:
    """
    Record one answer.

    It goes to the handler of the logger ``ai_responses``, whose level and filters apply (the logger's do not); if
    there is none, the default is configured. Any keyword is accepted and kept; None means "unknown" and is left out.

    Returns:
        ``record_id``; ``status``: ``queued``, ``written``, ``written_sync``, ``spilled``, ``failed``, or ``filtered``
        if the handler's level or filters do not want it; ``queue_size``; and ``error`` where it failed.

    Durability: As the handler says.
    Threads: Any; also in a forked child, in a signal handler, and in an event loop.

    .. versionadded:: 0.1.0
    """
    return record_fields(_in_context(fields))


def record_fields(fields: Mapping[str, Any]) -> LogResult:
    """Record *fields* as they are, without those of the blocks around: the hooks took them when the call began."""
    try:
        handler = _default_handler()
        wanted, result = _wanted(handler, fields)
        return result or _result_of(handler.submit_fields(wanted), handler)
    except Exception as error:  # noqa: BLE001  a function that records must not break what it records
        return LogResult(record_id="", status="failed", queue_size=0, error=f"{type(error).__name__}: {text_of(error)}")


async def alog_ai_response(**fields: Unpack[ResponseFields]) -> LogResult:
    """
    Record one answer as :func:`log_ai_response` does, and await what that one waits for.

    The fields are taken as they are when it is called. The event loop goes on while a sync (``durability: power``) or
    a full queue takes its time; all coroutines of a loop share syncs. A task that is cancelled meanwhile does not
    learn what became of its record, which is recorded all the same.

    Returns:
        The same.

    Durability: As the handler says, when it returns.
    Threads: Any event loop, asyncio's or one with its interface.

    .. versionadded:: 0.1.0
    """
    return await arecord_fields(_in_context(fields))


async def arecord_fields(fields: Mapping[str, Any]) -> LogResult:
    """Record *fields* as :func:`record_fields` does, and await what that one waits for."""
    try:
        handler = _default_handler()
        wanted, result = _wanted(handler, fields)
        return result or _result_of(await handler.submit_fields_async(wanted), handler)
    except Exception as error:  # noqa: BLE001  a function that records must not break what it records
        return LogResult(record_id="", status="failed", queue_size=0, error=f"{type(error).__name__}: {text_of(error)}")


log_ai_response_enhanced = log_ai_response


def log_ai_response_async(**fields: Unpack[ResponseFields]) -> LogResult:
    """
    Record one answer: :func:`log_ai_response` under another name that existing callers use.

    It is not awaitable. "Async" says that the file is written later, by another thread; call it without ``await``.

    .. versionadded:: 0.1.0
    """
    return log_ai_response(**fields)


class AsyncAIResponseLogger:
    """
    A recorder as an object, for existing callers.

    Args:
        log_file: The log; None for the handler of the logger ``ai_responses``.

    Threads: Any.

    .. versionadded:: 0.1.0
    """

    def __init__(self, log_file: str | os.PathLike[str] | None = None) -> None:
        self._own = None if log_file is None else AIResponseHandler(log_file)

    @property
    def _handler(self) -> AIResponseHandler:
        return self._own or _default_handler()  # looked up anew: the application may configure it later

    def log_response(self, /, **fields: Unpack[ResponseFields]) -> LogResult:
        """Record one answer; see :func:`log_ai_response`."""
        try:
            wanted, result = _wanted(handler := self._handler, _in_context(fields))
            return result or _result_of(handler.submit_fields(wanted), handler)
        except Exception as error:  # noqa: BLE001  as above
            return LogResult(
                record_id="", status="failed", queue_size=0, error=f"{type(error).__name__}: {text_of(error)}"
            )

    def flush(self, timeout: float | None = None) -> bool:
        """Bring what was accepted into the file; see :meth:`AIResponseHandler.flush`."""
        return self._handler.flush(timeout)

    def get_stats(self) -> Snapshot:
        """Return the counters; see :meth:`AIResponseHandler.get_stats`."""
        return self._handler.get_stats()

    def close(self) -> None:
        """Flush and end the thread; a later record starts it again."""
        self._handler.close()


def get_async_logger(log_file: str | os.PathLike[str] | None = None) -> AsyncAIResponseLogger:
    """Return the recorder for *log_file*, the same one for the same file; None for the default handler's."""
    if log_file is None:
        return AsyncAIResponseLogger()
    path = os.path.realpath(default_log_path(log_file))
    known = _loggers.get(path)
    if known is not None:
        return known
    # No lock: somebody's dictConfig, which holds that of `logging` while it makes what it was told to, may come here.
    made = AsyncAIResponseLogger(path)
    known = _loggers.setdefault(path, made)
    if known is not made:  # another thread was quicker
        made.close()
    return known


_loggers: dict[str, AsyncAIResponseLogger] = {}


def refuse(error: Exception) -> None:
    """Count and report a record that *error* kept from being made; never raises."""
    with contextlib.suppress(Exception):
        _default_handler().refuse(error)


def _in_context(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    around = context_fields()
    return {**around, **fields} if around else fields


def _default_handler() -> AIResponseHandler:
    # Not getLogger() where the logger is there: it takes logging's own lock for each call.
    logger = logging.Logger.manager.loggerDict.get(LOGGER_NAME)
    if not isinstance(logger, logging.Logger):
        logger = logging.getLogger(LOGGER_NAME)
    if logger.disabled:
        warn_of_disabled_logger()
    handler = _handler_reached_from(logger)
    if handler is not None:
        return handler
    name, made = config.make_default()
    with logging._lock:  # type: ignore[attr-defined]  # noqa: SLF001  as in _pipeline: no lock of ours, no disk under it
        handler = _handler_reached_from(logger) or config.attach_default(name, made)
    if handler is not made:  # another thread was quicker
        made.close()
    return handler


def _handler_reached_from(logger: logging.Logger | None) -> AIResponseHandler | None:
    """Return the handler of ours that a record logged through *logger* would come to."""
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, AIResponseHandler):
                return handler
        logger = logger.parent if logger.propagate else None
    return None


def _wanted(handler: AIResponseHandler, fields: Any) -> tuple[dict[str, Any], LogResult | None]:
    """Return what of *fields*, a call's own dict, is to be recorded, or what has become of a record that is not."""
    if handler.level <= logging.INFO and not handler.filters:
        return fields, None
    try:
        passed = None if handler.level > logging.INFO else _filtered(handler, fields)
    except Exception as error:  # noqa: BLE001  a filter is foreign code; what it might have taken out is not kept
        return {}, _result_of(handler.refuse(error), handler)
    if passed is None:
        return {}, LogResult(record_id="", status="filtered", queue_size=handler.queue_size)
    return passed, None


def _result_of(done: PreparedRecord, handler: AIResponseHandler) -> LogResult:
    result: LogResult = {"record_id": done.id, "status": done.status, "queue_size": handler.queue_size}
    if done.error is not None:
        result["error"] = str(done.error)
    return result


def _filtered(handler: AIResponseHandler, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return *fields* as the handler's filters leave them; None if they reject the record."""
    record = logging.LogRecord(LOGGER_NAME, logging.INFO, __file__, 0, "ai_response", None, None)
    own = set(record.__dict__)
    record.__dict__.update({key: value for key, value in fields.items() if key not in own})
    passed: object = handler.filter(record)
    if not passed:
        return None
    seen = passed if isinstance(passed, logging.LogRecord) else record
    # What a filter cannot see because `logging` has an attribute of that name is kept as it was given.
    kept = {key: value for key, value in fields.items() if key in own}
    return {**kept, **{key: value for key, value in seen.__dict__.items() if key not in own}}
