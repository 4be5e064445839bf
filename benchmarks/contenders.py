"""Who is compared: ours, the limit, and what people use instead, each set up as its own documentation says."""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

Log = Callable[[dict[str, Any]], object]


class Contender(NamedTuple):
    """One that is set up and can log."""

    log: Log
    flush: Callable[[], object]
    close: Callable[[], object]


def _nothing() -> None:
    pass


def _through_logging(handler: logging.Handler) -> Log:
    logger = logging.getLogger("ai_responses")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    info = logger.info

    def log(record: dict[str, Any]) -> None:
        info("ai_response", extra=record)

    return log


def _with_json(handler: logging.Handler) -> logging.Handler:
    from pythonjsonlogger.orjson import OrjsonFormatter

    handler.setFormatter(OrjsonFormatter())
    return handler


def _ours_logger(path: str, **options: Any) -> Contender:
    from ai_response_logging import AIResponseHandler

    handler = AIResponseHandler(path, **options)
    return Contender(_through_logging(handler), handler.flush, handler.close)


def _ours_function(path: str, **options: Any) -> Contender:
    from ai_response_logging import log_ai_response

    ours = _ours_logger(path, **options)
    return ours._replace(log=lambda record: log_ai_response(**record))


def _limit_write(path: str) -> Contender:
    """Encode, lock against other processes, write: nobody who keeps one whole line a record does less by himself."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    among_threads = threading.Lock()  # flock holds nobody off who has the same descriptor

    def log(record: dict[str, Any]) -> None:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        with among_threads:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                os.write(fd, line)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)

    return Contender(log, _nothing, lambda: os.close(fd))


def _limit_logger(_: str) -> Contender:
    return Contender(_through_logging(logging.NullHandler()), _nothing, _nothing)


def _file_handler(path: str) -> Contender:
    handler = _with_json(logging.FileHandler(path, encoding="utf-8"))
    return Contender(_through_logging(handler), handler.flush, handler.close)


def _concurrent(path: str) -> Contender:
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    handler = _with_json(ConcurrentRotatingFileHandler(path, encoding="utf-8"))
    return Contender(_through_logging(handler), handler.flush, handler.close)


def _stock_queue(path: str) -> Contender:
    handler = _with_json(logging.FileHandler(path, encoding="utf-8"))
    records: queue.Queue[Any] = queue.Queue(-1)
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()

    def close() -> None:
        listener.stop()
        handler.close()

    return Contender(_through_logging(logging.handlers.QueueHandler(records)), records.join, close)


def _loguru(path: str) -> Contender:
    from loguru import logger

    def line(message: Any) -> str:
        message["extra"]["line"] = orjson.dumps(message["extra"]["record"]).decode()
        return "{extra[line]}\n"

    logger.remove()
    logger.add(path, format=line, catch=False)
    return Contender(lambda record: logger.bind(record=record).info("ai_response"), logger.complete, logger.remove)


def _structlog(path: str) -> Contender:
    import structlog

    file = open(path, "ab")  # noqa: SIM115  open until close()
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=file),
    )
    info = structlog.get_logger().info
    return Contender(lambda record: info("ai_response", **record), file.flush, file.close)


class Entry(NamedTuple):
    """One contender as the tables know it."""

    make: Callable[..., Contender]
    options: dict[str, Any]
    writes: bool = True
    """Whether it writes a log at all."""
    share: float = 1.0
    """How much of the usual number of records it gets: the rest would only cost time."""


LIMIT_WRITE: Final = "limit: orjson, flock, write"
LIMIT_LOGGER: Final = "limit: Logger into nothing"
RIVAL: Final = "concurrent-log-handler"
ENTRIES: Final = {
    LIMIT_WRITE: Entry(_limit_write, {}),
    LIMIT_LOGGER: Entry(_limit_logger, {}, writes=False),
    "ours crash Logger": Entry(_ours_logger, {"durability": "crash"}),
    "ours crash function": Entry(_ours_function, {"durability": "crash"}),
    "ours memory Logger": Entry(_ours_logger, {"durability": "memory"}),
    "ours memory function": Entry(_ours_function, {"durability": "memory"}),
    "ours power Logger": Entry(_ours_logger, {"durability": "power"}, share=0.1),
    "ours power function": Entry(_ours_function, {"durability": "power"}, share=0.1),
    "FileHandler": Entry(_file_handler, {}),
    RIVAL: Entry(_concurrent, {}),
    "loguru": Entry(_loguru, {}),
    "structlog": Entry(_structlog, {}),
    "stock QueueHandler": Entry(_stock_queue, {}),
}


def contender(name: str, path: str, **options: Any) -> Contender:
    """Set *name* up on the log *path*; *options* are for ours."""
    entry = ENTRIES[name]
    return entry.make(path, **{**entry.options, **options})
