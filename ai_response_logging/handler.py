"""
What `logging` calls: one record's way from the application to the queue.

::

    Logger.info(extra=...) -> AIResponseHandler -> ResponseQueueHandler.prepare -> .enqueue
      ~ queue ~ -> BatchQueueListener -> BatchFileHandler -> the file

The caller pays for encoding and storing. Only when the queue is full, or no thread can be had to empty it, does it
pay for one write as well: latency comes back, a lost response does not.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from ._fast_json import loads_plain
from ._fork import notice_fork
from ._options import Options
from ._pipeline import Pipeline, pipeline_on
from ._prepared import PreparedRecord
from .errors import ConfigError, ConfigWarning, DurabilityWarning
from .formatter import STATUS_ATTRIBUTE, AIResponseFormatter, Status, cleaned_by, current_head
from .record import LOGGER_NAME, Encoded, default_log_path

if TYPE_CHECKING:
    from ._typed import Snapshot

__all__ = ["AIResponseHandler", "ResponseQueueHandler"]

_MESSAGE = "ai_response"


class ResponseQueueHandler(logging.handlers.QueueHandler):
    """
    Encodes a record in the caller and puts it on a queue.

    Works on any queue that the stock handler takes. On a :class:`BatchFileHandler`'s own queue, and with the
    *pipeline* behind it, it never drops a record because the queue is full.
    """

    def __init__(self, queue: Any, pipeline: Pipeline | None = None) -> None:
        super().__init__(queue)
        self._pipeline = pipeline
        self.setFormatter(AIResponseFormatter())

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802  the parent's name
        """Set the formatter; any but an :class:`AIResponseFormatter` is not used, since it makes no record."""
        if fmt is not None and not isinstance(fmt, AIResponseFormatter):
            warnings.warn(
                f"{type(fmt).__name__} is not used: the log's lines are made by AIResponseFormatter; "
                "name ai_response_logging.AIResponseFormatter in the configuration to set its options",
                ConfigWarning,
                stacklevel=3,
            )
            fmt = None
        self._encoder = fmt or AIResponseFormatter()
        if self._pipeline is not None:
            self._encoder = cleaned_by(self._encoder, self._pipeline.writer.cleaner)
        super().setFormatter(self._encoder)

    def prepare(self, record: logging.LogRecord) -> PreparedRecord:
        """Return *record* with its line encoded: what is changed in its values after this call does not show."""
        notice_fork(record.process)
        encoded = self._encoder.encode(record)
        return PreparedRecord.of(record.__dict__ if self._pipeline else _portable(record, encoded), encoded)

    def prepare_fields(self, fields: dict[str, Any]) -> PreparedRecord:
        """Return *fields* as a prepared record, without a LogRecord."""
        head = current_head(_MESSAGE, "INFO", LOGGER_NAME)
        notice_fork(head.pid)
        return PreparedRecord.of({}, self._encoder.encode_fields(fields, head))

    def enqueue(self, record: PreparedRecord) -> None:  # type: ignore[override]  # prepare() made it one
        """Hand *record* to the listener; write it here if the queue is full or nobody listens."""
        if self._pipeline is None:
            self.queue.put_nowait(record)
        else:
            self._pipeline.accept(record)


class AIResponseHandler(logging.Handler):
    """
    Records every answer as one line of JSON, from any number of threads and processes into one file.

    Args:
        filename: The log; else ``AI_RESPONSES_FILE``, else ``data/ai_responses/ai_responses.jsonl``.
        level: Records below it are not recorded.
        options: ``queue_max_size`` (records, 1000), ``queue_max_bytes`` (64 MiB), ``batch_size`` (records, 10),
            ``flush_interval`` (s, 5), ``max_retries`` (3), ``retry_delay`` (s, 0.5; the n-th waits n times as long),
            ``durability`` (``memory``, ``crash``, ``power``), ``lock_timeout`` (s, 10), ``caller_timeout`` (s, 1),
            ``close_timeout`` (s, 10), ``max_bytes`` and ``when`` (0 and "": never rotate), ``interval`` (1), ``utc``
            (False), ``compress`` (False), ``backup_count``, ``retain_days`` and ``max_total_bytes`` (0: keep all
            that was rotated), ``file_mode`` (0600), ``directory_mode`` (0700), ``journal_directory`` (None: beside the
            log), ``journal_max_bytes`` (64 MiB), ``max_inline_bytes`` (1 MiB: of a longer line the largest texts go to
            ``<filename>.blobs/``; 0 for never), ``redact`` (``["secrets"]``; false takes nothing out).

    Raises:
        ConfigError: An option is wrong, or the log cannot stand where it is to.

    Durability: A record whose call has returned is in the file after a normal end, an exception or ``sys.exit``. At
    ``crash``, the default, it survives the death of the process at any moment: it is in a journal beside the log, and
    whoever opens the log next brings it home. Where no journal can be had a :class:`DurabilityWarning` says so, and
    ``get_stats()["durability"]`` is ``memory``, where a killed process loses what it had queued. At ``power`` it
    survives loss of power, too: each call waits for one sync of the disk, which all calls of that moment share.
    Threads: Any, in any number of processes. A forked child is a writer of its own. Never raises into the caller.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self, filename: str | os.PathLike[str] | None = None, *, level: int | str = logging.NOTSET, **options: Any
    ) -> None:
        if not hasattr(os, "pread"):
            raise ConfigError(f"recording needs a POSIX system, and {sys.platform} is none: it has no pread(2)")
        self._options = Options.checked(options)
        self._pipeline = pipeline = pipeline_on(default_log_path(filename), self._options, self)
        # After the pieces: logging.shutdown closes the newest handler first, and that must be this one.
        super().__init__(level)
        self._queue_handler = ResponseQueueHandler(pipeline.queue, pipeline)
        if complaint := pipeline.writer.journal_complaint():
            try:
                warnings.warn(complaint, DurabilityWarning, stacklevel=2)
            except Warning:  # where warnings are errors
                self.close()
                raise

    def createLock(self) -> None:  # noqa: N802  the parent's name
        """
        Have no lock of `logging`'s own: what is behind us has its own, held for moments.

        `logging.shutdown` holds it while it flushes and closes, which takes `logging`'s module lock at its end; a
        dictConfig in another thread holds that one, and would wait for this.
        """
        self.lock = None

    @property
    def filename(self) -> str:
        """The absolute path of the log."""
        return self._pipeline.writer.baseFilename

    @property
    def queue_size(self) -> int:
        """How many records wait."""
        return self._pipeline.queue.qsize()

    def handle(self, record: logging.LogRecord) -> Any:
        """Record *record* if the filters let it pass. Takes no lock: nobody's slow disk holds a thread up here."""
        try:
            passed: object = self.filter(record)
        except Exception as error:  # noqa: BLE001  a filter is foreign code; what it might have taken out is not kept
            self._mark(record, self.refuse(error).status)
            return False
        if passed:
            recorded = passed if isinstance(passed, logging.LogRecord) else record
            self.emit(recorded)
            if recorded is not record:  # a filter put another in its place; whoever logged looks at the first
                record.__dict__.update({key: recorded.__dict__.get(key) for key in ("record_id", STATUS_ATTRIBUTE)})
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Record *record*; see :meth:`submit`."""
        self.submit(record)

    def submit(self, record: logging.LogRecord) -> str:
        """
        Record *record* and return its status; the record then carries ``record_id`` and ``ai_status``.

        Returns:
            ``queued``: accepted, on its way. ``written``, ``written_sync``: in the file. ``failed``: nowhere.
        """
        attributes = record.__dict__
        before = attributes.get(STATUS_ATTRIBUTE)
        # Two handlers on one file, or one on the logger and one on the root that it propagates to: still one record.
        if type(before) is Status and before.taken == self._taken(record):
            return before
        done = self._record(record=record)
        attributes["record_id"] = done.id
        return self._mark(record, done.status)

    def _mark(self, record: logging.LogRecord, status: str) -> str:
        attributes = record.__dict__
        before = attributes.get(STATUS_ATTRIBUTE)
        marked = attributes[STATUS_ATTRIBUTE] = Status.of(status, self._taken(record), before)
        return marked

    def _taken(self, record: logging.LogRecord) -> object:
        # The log, not the writer: one that somebody has closed and left attached has another than the next handler.
        # And the time, which copies share: `extra` may bring the status of another record along.
        return self._pipeline.place, record.created

    def submit_fields(self, fields: dict[str, Any]) -> PreparedRecord:
        """Record *fields* without a LogRecord, for the functions; the dict is taken over."""
        return self._record(fields=fields)

    def refuse(self, error: Exception) -> PreparedRecord:
        """Count and report a record that *error* kept from being recorded."""
        return self._pipeline.refuse(error)

    def _record(self, record: logging.LogRecord | None = None, fields: dict[str, Any] | None = None) -> PreparedRecord:
        prepared: PreparedRecord | None = None
        try:
            front = self._queue_handler
            prepared = front.prepare(record) if record is not None else front.prepare_fields(fields or {})
            front.enqueue(prepared)
        except Exception as error:  # noqa: BLE001  RecursionError and MemoryError too: never into the application
            return self._after_fault(prepared, error)
        return prepared

    async def submit_fields_async(self, fields: dict[str, Any]) -> PreparedRecord:
        """As :meth:`submit_fields`, for an event loop, which goes on while a full queue or a sync takes its time."""
        prepared: PreparedRecord | None = None
        try:
            prepared = self._queue_handler.prepare_fields(fields)
            await self._pipeline.accept_async(prepared)
        except Exception as error:  # noqa: BLE001  as above
            return self._after_fault(prepared, error)
        return prepared

    def _after_fault(self, prepared: PreparedRecord | None, error: Exception) -> PreparedRecord:
        # What the queue has taken is on its way, and what has failed is counted, whatever went wrong behind it.
        if prepared is None or (prepared.line is None and prepared.status != "failed"):
            return self.refuse(error)
        if prepared.status == "failed" or self._pipeline.queue.is_synced:  # it waits, and may not be synced yet
            prepared.error = prepared.error or error
        return prepared

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802  the parent's name
        """Set an :class:`AIResponseFormatter`, for its python-json-logger options."""
        self._queue_handler.setFormatter(fmt)
        self.formatter = self._queue_handler.formatter

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]  # says more than the parent
        """
        Bring all that was accepted so far into the file.

        Args:
            timeout: Seconds it may take; None for ``close_timeout``.

        Returns:
            Whether all of it is there; if not, the rest waits on and one message says how much.
        """
        return self._pipeline.flush(timeout)

    def close(self) -> None:
        """Flush and end the thread, in at most ``close_timeout`` seconds; a later record starts it again."""
        self._pipeline.close(self)
        super().close()

    def get_stats(self) -> Snapshot:
        """Return the counters of this process's writer on this file, all of one instant."""
        return self._pipeline.get_stats()


def _portable(record: logging.LogRecord, encoded: Encoded) -> dict[str, Any]:
    """
    Return *record*'s attributes fit for any queue: the message merged, the fields as they stand in the line.

    A queue between processes pickles them; a lock or a socket in a field must not cost the record.
    """
    fields = loads_plain(encoded.body + b"}")
    own = logging.makeLogRecord({"msg": fields["message"], "message": fields["message"], "args": None})
    for name in own.__dict__.keys() & record.__dict__.keys() - {"msg", "message", "args", "exc_info", "exc_text"}:
        own.__dict__[name] = record.__dict__[name]
    return {**{key: value for key, value in fields.items() if key not in own.__dict__}, **own.__dict__}
