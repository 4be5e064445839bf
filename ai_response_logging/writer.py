"""
Append batches of lines to one file that many processes share.

What a batch goes through, always in this order, and only this way::

    turn (threads) -> lock (processes) -> settle what was interrupted -> the path is still our file
      -> repair a torn tail -> rotate if due -> note the intent -> append -> take off the queue -> unlock

An attempt that fails leaves every line either whole in the file and off the queue, or still on the queue.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from . import _append, _lock
from ._caller import CallerFileHandler
from ._cleaning import cleaner_for
from ._fork import forget_in_child, notice_fork
from ._journal_format import Intent, seq_of
from ._journalling import FAULTS
from ._options import Options
from ._prepared import PreparedRecord
from ._queue import MAX_BLOCK_BYTES, LineQueue
from ._retry import pauses
from .errors import AppendError, LockTimeoutError, WriteError
from .formatter import AIResponseFormatter, cleaned_by
from .record import default_log_path
from .stats import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._adopt import Orphan
    from ._typed import Snapshot

__all__ = ["BatchFileHandler"]

# Of what others left: more of long lines, since each block costs a mark and a write, and whoever is killed at one of
# them leaves the rest to the next. In memory a block is there twice.
_HOME_BYTES, _MOST_HOME_BYTES = 4 << 20, 12 << 20
_HOME_LINES = 160

_LEAST_STANDSTILL_S = 0.05  # a write that takes less is on its way: a fault that came before it says more
_LEAST_PAUSE_S = 0.005  # in a flush, which tries until its time is over, also where no pause is set


class BatchFileHandler(CallerFileHandler):
    """
    Writes records as lines of JSON to a file that any number of threads and processes share.

    It works alone behind a stock :class:`logging.handlers.QueueListener`, and as the last piece of
    :class:`~ai_response_logging.AIResponseHandler`. Lines wait in :attr:`queue` until they stand in the file: when
    a write fails it is tried again, and what still fails goes out with the next record, ``flush`` or ``close``.

    Args:
        filename: The log; see :func:`~ai_response_logging.record.default_log_path` for None.
        options: The options of :class:`~ai_response_logging.AIResponseHandler` that concern writing.

    Raises:
        ConfigError: An option is wrong.
        LogPathError: Something that is no regular file stands at *filename*.

    Durability: What stands in the file survives the death of any process, not loss of power. What the file refuses is
    in a journal when the call returns, unless ``durability`` is ``memory``.
    Threads: Any, in any number of processes; a forked child begins with nothing waiting.
    """

    is_owned = True  # until it is made: another thread's dictConfig may meet it before, and flush and close it
    """Whether a pipeline decides when to flush and close; `logging.shutdown` then asks that one, not us."""

    def __init__(self, filename: str | os.PathLike[str] | None = None, **options: Any) -> None:
        super().__init__(default_log_path(filename), Options.checked(options))
        self.setFormatter(AIResponseFormatter())
        self.queue = LineQueue()
        self.is_owned = False
        self.cleaner = cleaner_for(self.baseFilename, self.options)
        self.report: Callable[[Exception], None] = partial(tell, self)
        self._batching = False
        self.configure(self.options)
        forget_in_child(self)
        self._open_early()

    @classmethod
    def with_options(cls, filename: str, options: Options) -> BatchFileHandler:
        """Return a handler on *filename* with *options* that are checked already."""
        return cls(filename, **vars(options))

    def configure(self, options: Options) -> None:
        """Take *options* from the next write on."""
        self.options = options
        self.cleaner.become(cleaner_for(self.baseFilename, options))
        self.maxBytes, self.backupCount = options.max_bytes, options.backup_count
        self.queue.max_size, self.queue.max_bytes = options.queue_max_size, options.queue_max_bytes
        self.queue.batch_size = options.batch_size if options.flush_interval else 1
        self.queue.is_synced = self.is_synced
        if self.queue.journal is not None:
            self.queue.journal.set_synced(self.is_synced)

    def _begin(self) -> None:
        super()._begin()
        self.turn = _lock.Turn()
        self.retried = 0
        self._writes_since_s: float | None = None

    # -- logging's side

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, with what waits before it; never raises."""
        try:
            notice_fork()
            self.queue.outlive_threads()
            prepared = record if isinstance(record, PreparedRecord) else self.prepare(record)
            if self.queue.put(prepared.body, replaced=prepared.replaced, record=prepared) is None:
                self.write_now(prepared, self.options.caller_timeout, outcome="written_sync")
            elif not self._batching:
                self._drain_alone()
        except Exception:  # noqa: BLE001  a handler never raises into the application
            self.handleError(record)

    def prepare(self, record: logging.LogRecord) -> PreparedRecord:
        """Return *record* with its line encoded."""
        formatter = self.formatter if isinstance(self.formatter, AIResponseFormatter) else AIResponseFormatter()
        return PreparedRecord.of(record.__dict__, cleaned_by(formatter, self.cleaner).encode(record))

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Let the records that are emitted inside go out together, at the end."""
        self._batching = True
        try:
            yield
        finally:
            self._batching = False
            self._drain_alone()

    def _drain_alone(self) -> None:
        if not self.drain() and not self.is_owned:
            self.open_journal()
        if not self.is_owned:  # else the listener tidies up when it has nothing better to do
            self.tidy_up(lambda: False)

    def flush(self) -> None:
        """Write what waits, within ``close_timeout`` seconds; what is left then stays and is reported."""
        notice_fork()
        if not self.is_owned and self.has_waiting():
            self.drain(budget_s=self.options.close_timeout)

    def close(self) -> None:
        """Write what waits and close the descriptors; a later record opens them again."""
        if not self.is_owned:
            self.flush()
            if self.queue.qsize() and (lost := self.stash()):
                self.report(WriteError(f"{self.baseFilename}: {lost} records are lost when this process ends"))
            self.close_files(self.options.close_timeout)
            logging.Handler.close(self)

    def has_waiting(self) -> bool:
        """Say whether anything is left to write or to settle."""
        return not self.queue.empty() or self.queue.intent is not None

    @_lock.takes_turn
    def close_files(self, timeout: float) -> None:
        """Close the descriptors, unless somebody writes for longer than *timeout* seconds."""
        # Never in the middle of an append: the parent's close would free the lock under it.
        if self.turn.is_mine():
            return
        try:
            # Nor before it is settled what an interrupted append left: only this descriptor still leads to it.
            if self.turn.acquire(timeout) and self.queue.intent is None:
                self.queue.drop_journal()
                self._drop_chores()
                # Not the parent's close(): it needs logging's own lock, and whoever holds that one may wait for us.
                self._drop_descriptors()
        finally:
            try:  # noqa: SIM105  a frame of Python before the call is where an exception from outside could fall
                self.turn.free()
            except RuntimeError:  # it did not come
                pass

    def get_stats(self) -> Snapshot:
        """Return the counters, all of one instant."""
        queue, faults = self.queue, self.faults
        with queue.lock:
            arrived, pending, counted = queue.consumed, queue.qsize(), dict(queue.counted)
            encode_errors = queue.encode_errors
        not_queued = counted["written"] + counted["written_sync"] + counted["spilled"]
        # What is counted is only what cannot be derived, so that no interruption can make the sum wrong.
        return {
            "accepted": arrived + pending + counted["failed"], "written": arrived - counted["written_sync"],
            "written_sync": counted["written_sync"], "failed": counted["failed"], "pending": pending,
            "queue_size": pending, "queued": arrived + pending - not_queued, "spilled": counted["spilled"],
            "replayed": self.replayed, "retried": self.retried, "encode_errors": encode_errors,
            "rotations": self.rotations, "durability": self._durability(),
            "worker_alive": queue.listening, "last_error": faults.last_error, "last_error_time": faults.last_error_time,
        }  # fmt: skip

    def _durability(self) -> str:
        """Return what holds now. Without a journal a call at ``power`` returns only when the log itself is synced."""
        if self.options.durability == "crash" and self.queue.journal_error:
            return "memory"
        return self.options.durability

    # -- attempts

    def drain(self, *, budget_s: float | None = None, pause: Callable[[float], object] = time.sleep) -> bool:
        """
        Write what waits, trying again as the options say; return whether all of it is written.

        Args:
            budget_s: Seconds for all attempts together; without one, ``max_retries`` sets the end.
            pause: Waits so many seconds between two attempts; an event's ``wait`` can be ended early.
        """
        until = self.queue.position
        deadline_s = None if budget_s is None else time.monotonic() + budget_s
        waits = pauses(self.options.max_retries if budget_s is None else 1_000_000, self.options.retry_delay)
        while True:
            try:
                self.attempt(_left(deadline_s, self.options.lock_timeout), until=until)
            except FAULTS as error:
                fault = error
                self._tell_of_journal()
                self.faults.remember(str(error))
            else:
                return True
            wait_s = next(waits, None)
            # Whoever interrupts its own append and flushes would wait for itself; whoever flushes while the interpreter
            # ends, for threads that it has stopped.
            if wait_s is None or _left(deadline_s, 1.0) <= 0 or self.turn.is_mine() or sys.is_finalizing():
                self._note(fault)
                return False
            self.retried += 1
            pause(_left(deadline_s, wait_s if deadline_s is None else max(wait_s, _LEAST_PAUSE_S)))

    @_lock.takes_turn
    def attempt(self, timeout: float, *, until: int | None = None, source: LineQueue | Orphan | None = None) -> None:
        """
        Write what waits (up to position *until* in the queue), once, waiting at most *timeout* seconds for the lock.

        *source* is somebody else's journal instead of our queue.

        Raises:
            WriteError: The file did not take all of it; the rest waits on.
            OSError: The same, from the kernel.
        """
        deadline_s = time.monotonic() + timeout
        if self.turn.is_mine():
            raise LockTimeoutError(self.baseFilename, 0.0, "the write that this call interrupts")
        try:
            if not self.turn.acquire(timeout):
                raise _lock.busy((self.stream_lock, self.stream), timeout, self.baseFilename)
            self._append_waiting(self.queue.position if until is None else until, deadline_s, source)
            self._tell_of_journal()
        finally:
            try:  # noqa: SIM105  a frame of Python before the call is where an exception from outside could fall
                self.turn.free()
            except RuntimeError:  # it did not come
                pass

    def _append_waiting(self, until: int, deadline_s: float, source: LineQueue | Orphan | None = None) -> None:
        # One lock for each block, so that a long backlog does not keep other processes from theirs.
        source = source or self.queue
        while source.intent is not None or (source.consumed < until and not source.empty()):
            try:
                self._acquire_lock(deadline_s)
                self._settle_intent(source)
                if source is self.queue and self.queue.is_synced:  # what waits is synced before the intent is noted
                    self.queue.settle_journal()
                    self._settle_intent(source)
                if lines := source.first(1):
                    self._append_or_settle(source, lines[0], deadline_s)
            finally:
                # Each in a single call into C, which nothing can interrupt half-way; the parent's books follow.
                is_free = False
                try:
                    if self.stream is not None and not self.stream.closed:
                        _lock.flock(self.stream, _lock.LOCK_UN)
                    if self.stream_lock is not None and not self.stream_lock.closed:
                        _lock.flock(self.stream_lock, _lock.LOCK_UN)
                    is_free = True
                except OSError:  # the kernel cannot even unlock (ENOLCK): closing frees them as well
                    self._drop_descriptors()
                finally:
                    # Only where an exception from outside fell in between: a lock that is free needs no second call.
                    if not is_free and self.stream_lock is not None and not self.stream_lock.closed:
                        _lock.flock(self.stream_lock, _lock.LOCK_UN)
                    self._note_unlocked()
            if self._has_surplus:
                self._remove_surplus()
            self._prepare_segment()

    def _append_or_settle(self, source: LineQueue | Orphan, line: bytes, deadline_s: float) -> None:
        """Append what *source* holds, *line* first; or, where its lock was closed under it, take our journal back."""
        try:
            self._append_head(source, *self._ready_stream(deadline_s, line))
        except OSError:
            # Noting the intent asks for that lock, and nothing is appended without it: no other look is needed before.
            if source is not self.queue or not self.queue.settle_journal():
                raise
            self._settle_intent(source)

    def _append_head(self, source: LineQueue | Orphan, descriptor: int, info: os.stat_result) -> None:
        start = info.st_size
        # What others left comes home in few, large writes: nobody waits behind it but writers of other processes.
        most = MAX_BLOCK_BYTES if source is self.queue else _most_home_bytes(source.first(1))
        room = max(self.maxBytes - start, 1) if self.maxBytes else most
        lines = self._fitting(descriptor, start, source.head(min(room, most)))
        writer_id = self.queue.writer_id
        self._writes_since_s = time.monotonic()
        if source.is_synced:
            source.make_durable(lines[-1])
            self._sync_before(descriptor, start)
        source.note(Intent(info.st_dev, info.st_ino, start, len(lines), seq_of(lines[0])))
        try:
            block = b"".join(lines)
            _append.append_block(descriptor, block, path=self.baseFilename)
            self._sync_appended(source, descriptor, start, start + len(block))
        except AppendError as error:
            self._must_be(writer_id)
            whole, whole_bytes = _whole(lines, error.written_bytes)
            if _append.cut_back(descriptor, start + whole_bytes, expected=start + error.written_bytes):
                self._sync_appended(source, descriptor, start, start + whole_bytes)
                source.consume(whole)
            else:  # the file is not as told: a TimeoutError from a signal handler is an OSError too, behind the write
                self._settle_intent(source)
            raise
        finally:
            self._writes_since_s = None
        self._must_be(writer_id)
        self._left = (info.st_dev, info.st_ino, start + len(block))
        source.consume(len(lines), is_ours=True)

    def _sync_appended(self, source: LineQueue | Orphan, descriptor: int, start: int, end: int) -> None:
        try:
            if source.is_synced and start != end:
                self._sync_log(descriptor, start, end)
        except WriteError:
            # Nobody may look for it and sync it once more. Where the log can be neither cut back nor renamed it may
            # stand there twice: rather than nowhere.
            source.consume(0)
            raise

    def _must_be(self, writer_id: str) -> None:
        if self.queue.writer_id != writer_id:
            raise WriteError(f"{self.baseFilename}: the process was forked in mid-append; the block is its parent's")

    def _settle_intent(self, source: LineQueue | Orphan) -> None:
        """Find out how much of an interrupted append has arrived: the intent says where, the bytes decide."""
        intent = source.intent
        if intent is None:
            return
        try:
            arrived = self._arrived(intent, source.first(intent.lines), is_synced=source.is_synced)
        except WriteError:  # they stand there, but may not after loss of power; as in _sync_appended
            source.consume(0)
            raise
        source.consume(arrived)

    def after_fork_in_child(self) -> None:
        """Forget the parent's lines, descriptors and locks."""
        self._at_fork_reinit()
        # Closed, not unlocked: the lock belongs to the open file that parent and child share.
        if self.turn.is_taken_here():
            # A signal handler has forked in the middle of our append, and may go on there: what it still writes must
            # go nowhere, least of all into a file of the application's that gets the number next.
            _append.blind(self.stream, self.stream_lock)
            self.stream = self.stream_lock = None
        self._drop_descriptors()
        self._creation_pid = os.getpid()
        self._batching = False
        self.queue.renew()
        self._begin()

    # -- faults

    def standstill_s(self) -> float:
        """Return for how many seconds a thread has been in a write that has not returned; 0.0 if none is."""
        since_s = self._writes_since_s
        return 0.0 if since_s is None else max(time.monotonic() - since_s, _LEAST_PAUSE_S)

    def note_standstill(self, waited_s: float) -> None:
        """Note what keeps the thread that writes from its answer, if it is the disk or a lock of another process's."""
        if standstill_s := self.standstill_s():
            if standstill_s >= _LEAST_STANDSTILL_S or not self.faults.has_recent():
                self._note(WriteError(f"{self.baseFilename}: a write has not returned for {standstill_s:.2f} s"))
        elif held := _lock.held_elsewhere((self.stream_lock, self.stream), waited_s, self.baseFilename):
            self._note(held)

    def _note(self, error: Exception) -> None:
        """Remember a fault and tell it, each kind at most once a minute."""
        count = self.faults.note(f"{type(error).__name__} {getattr(error, 'errno', '')}", str(error))
        if count:
            waiting = self.queue.qsize()
            self.report(WriteError(f"{error} [{count} such since the last message; {waiting} records wait, kept]"))


def _left(deadline_s: float | None, most_s: float) -> float:
    return most_s if deadline_s is None else max(0.0, min(most_s, deadline_s - time.monotonic()))


def _most_home_bytes(first: list[bytes]) -> int:
    """Return how much to bring home at once where the *first* line is of that length."""
    return max(_HOME_BYTES, min(_MOST_HOME_BYTES, _HOME_LINES * sum(map(len, first))))


def _whole(lines: list[bytes], written_bytes: int) -> tuple[int, int]:
    """Return how many of *lines* lie whole within the first *written_bytes* of the block, and their bytes."""
    whole_bytes = 0
    for count, line in enumerate(lines):
        if whole_bytes + len(line) > written_bytes:
            return count, whole_bytes
        whole_bytes += len(line)
    return len(lines), whole_bytes
