"""
The writer, the listener and the queue of one file in one process: made once, started late, ended in time.

All handlers on one real path share one pipeline, so that a process is one writer for each file. The thread is
started by the first record and by no import; it ends when the last handler closes, at the interpreter's end, and
in a forked child it is not there.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from ._exit import AtExit
from ._fork import forget_in_child, may_have_threads, notice_fork
from ._paths import describe_refusal
from ._prepared import PreparedRecord
from .errors import ConfigError, ConfigWarning, LogPathError, WriteError
from .listener import BatchQueueListener, call_in_time
from .record import LOGGER_NAME, Encoded
from .stats import tell, text_of
from .writer import BatchFileHandler

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from ._options import Options
    from ._typed import Snapshot

__all__ = ["Pipeline", "pipeline_on"]

_BUDGET_IS_SHARED_S = 1.0
_LEAST_STASH_S = 0.5


class Pipeline:
    """
    One writer for one file.

    Threads: any.
    """

    def __init__(self, path: str, options: Options) -> None:
        self._real_path = os.path.realpath(path)
        self.writer = BatchFileHandler.with_options(path, options)
        self.queue = self.writer.queue
        """The lines on their way."""
        self.writer.report, self.writer.is_owned = self._report, True
        self.listener = BatchQueueListener(self.queue, self.writer)
        self.listener.is_wanted, self.listener.after_end = self._is_used, self._end_unused
        self.users: weakref.WeakSet[logging.Handler] = weakref.WeakSet()
        self.configure(options)
        self._spent: tuple[int, float, float] = (-1, 0.0, 0.0)
        self._told = (0, 0)
        self._loop_syncs: weakref.WeakKeyDictionary[AbstractEventLoop, Future[None]] = weakref.WeakKeyDictionary()

    def configure(self, options: Options) -> None:
        """Take *options* from now on."""
        self.options = options
        self.writer.configure(options)
        self.listener.flush_interval = options.flush_interval

    def join(self, user: logging.Handler) -> None:
        """Take *user*; when it is dropped without a close, and nobody else is there, the thread ends by itself."""
        self.users.add(user)
        weakref.finalize(user, self.queue.wake).atexit = False

    def _is_used(self) -> bool:
        return bool(self.users)

    def _end_unused(self) -> None:
        """Close the files: the thread has written what waited, and nobody is left who could log more."""
        if self.is_over():
            self.writer.close_files(0.0)
            _exit.forget(self)

    @property
    def place(self) -> tuple[str, str]:
        """This process and its log; all pipelines that it ever has on that one say the same."""
        return _exit.process_id, self._real_path

    def listen(self) -> bool:
        """Start the listener if it does not run; False if there is no thread to be had."""
        if _exit.begun:
            return False
        _exit.watch(self)  # also if there is no thread: what then waits must be seen to at the end all the same
        self.writer.open_journal()  # in a forked child, and after a close
        if not may_have_threads():
            return False
        try:
            self.listener.start()
        except RuntimeError:  # the system gives no thread, or the interpreter is ending
            return False
        return True

    def accept(self, record: PreparedRecord) -> None:
        """Take one record, and return when it is held as the durability says."""
        queue = self.queue
        self._take(record)
        if queue.keeper is None:
            self.writer.miss_journal()
        if queue.is_synced and record.status in {"queued", "spilled"}:
            self._make_durable(record)

    async def accept_async(self, record: PreparedRecord) -> None:
        """As :meth:`accept`, for an event loop, which goes on while a full queue or a sync takes its time."""
        import asyncio  # whoever runs a loop has it already

        if not self.queue.listening or not self.queue.has_room(len(record.body)):
            await asyncio.to_thread(self.accept, record)
            return
        self._take(record)
        if self.queue.keeper is None:
            self.writer.miss_journal()
        if not self.queue.is_synced or record.status not in {"queued", "spilled"}:
            return
        loop = asyncio.get_running_loop()
        # One thread for all coroutines of a loop that wait: the others look what its sync was worth to them.
        while (under_way := self._loop_syncs.get(loop)) is not None:
            await asyncio.wait([under_way])
            if self.queue.is_durable(record):
                return
        mine = self._loop_syncs[loop] = asyncio.ensure_future(asyncio.to_thread(self._make_durable, record))
        mine.add_done_callback(lambda _: self._loop_syncs.pop(loop, None))
        await asyncio.shield(mine)  # whoever cancels the call does not cancel what others wait for

    def _take(self, record: PreparedRecord) -> None:
        """Take *record* on the queue if somebody listens and there is room, else to the file here and now."""
        queue = self.queue
        if _exit.begun:
            self._outlive_threads()
        if not queue.listening and not self.listen():
            self.writer.write_now(record, self.options.caller_timeout, outcome="written", may_wait=True)
            self._see_to_the_last(record)
        elif queue.put(record.body, replaced=record.replaced, record=record) is None:
            # The caller pays for one write of all that waits, itself included. Its line may overtake others, so
            # readers order by seq, never by position in the file.
            self.writer.write_now(record, self.options.caller_timeout, outcome="written_sync")
        elif not queue.listening and not self.listen():  # the listener ended between the two looks
            self._write_unheard(record)
        elif _exit.begun:  # a thread that listens, but has not come to its end in time, may never write it
            self._see_to_the_last(record)

    def _outlive_threads(self) -> None:
        self.queue.outlive_threads()
        _exit.outlive_threads()

    def _make_durable(self, record: PreparedRecord) -> None:
        """Return when *record*, which is taken, survives loss of power; where nothing can make it so, it has failed."""
        try:
            if self.queue.await_sync(record):
                return
            reason = f"there is no journal for it ({self.queue.journal_error or 'it is full'})"
        except OSError as error:
            reason = f"its journal cannot be synced ({error})"
        # What the journal cannot promise the log itself may.
        self.writer.write_through(record, self.options.caller_timeout, reason)

    def _write_unheard(self, record: PreparedRecord) -> None:
        """Write *record*, which waits already, because nobody else will."""
        if self.flush(self.options.caller_timeout):
            self.queue.count_as(record, "written")
        else:
            self._see_to_the_last(record)

    def _see_to_the_last(self, record: PreparedRecord) -> None:
        """Put *record* where it outlives the process, if that one ends and it still waits."""
        if not _exit.begun or record.status != "queued":
            return
        if not self.writer.stash():
            self.queue.count_as(record, "spilled")
        elif self.queue.withdraw(record):
            self.writer.refuse(
                record, f"the process ends and the log refuses: {self.writer.faults.last_error}", is_counted=True
            )

    def get_stats(self) -> Snapshot:
        """Return the counters, all of one instant."""
        notice_fork()
        self._outlive_threads()
        return {**self.writer.get_stats(), "worker_alive": self.listener.is_alive}

    def refuse(self, error: Exception, record_id: str = "") -> PreparedRecord:
        """Count a record that could not even be encoded as failed; return what became of it."""
        record = PreparedRecord.of({}, Encoded(b"", record_id, replaced=False))
        self._outlive_threads()
        try:
            self.writer.refuse(record, f"it could not be encoded or stored ({type(error).__name__}: {text_of(error)})")
        except Exception:  # noqa: BLE001  the stack or the memory is full: count it, and tell it another time
            if record.status != "failed":  # there was no room for the frame that counts
                with self.writer.queue.lock:
                    self.writer.queue.counted["failed"] += 1
            record.status, record.error = "failed", error
        return record

    def flush(self, timeout: float | None = None) -> bool:
        """Bring what waits into the file, in at most *timeout* seconds, or what is left of ``close_timeout``."""
        notice_fork()
        self._outlive_threads()
        budget_s = self._close_budget_s() if timeout is None else timeout
        deadline_s = time.monotonic() + budget_s
        done = self._flush_own(budget_s)
        if done and self.writer.has_journals():
            self.writer.replay(lambda: time.monotonic() >= deadline_s, max(0.0, deadline_s - time.monotonic()))
        return done

    def _flush_own(self, budget_s: float) -> bool:
        if not self.writer.has_waiting():
            return True
        started_s, position, spent_s = time.monotonic(), self.queue.position, self._spent_s()
        done = None if self.writer.turn.is_mine() or self.queue.is_held_here() else self.listener.drain(budget_s)
        if done is None:  # nobody else is there, or he would wait for us
            done = self.writer.drain(budget_s=max(0.0, started_s + budget_s - time.monotonic()))
        elif not done:
            self.writer.note_standstill(time.monotonic() - started_s)
        ended_s = time.monotonic()
        self._spent = (position, ended_s, spent_s + ended_s - started_s)
        return done

    def close(self, user: logging.Handler, budget_s: float | None = None) -> None:
        """End for *user*: bring home what waits, and end the thread if nobody else uses it."""
        notice_fork()
        self._outlive_threads()
        if self.writer.turn.is_mine():  # a signal handler closes in the middle of our write: waiting would be for us
            budget_s = 0.0
        deadline_s = time.monotonic() + (self._close_budget_s() if budget_s is None else budget_s)
        until = self.queue.position
        self.flush(deadline_s - time.monotonic())
        self.users.discard(user)
        if self.users:
            return
        self.listener.stop(max(0.0, deadline_s - time.monotonic()))
        if not self.listener.is_alive:
            # What the thread was in the middle of, too: whoever opens a log only for a moment brings all home.
            left_s = max(0.0, deadline_s - time.monotonic())
            self.writer.tidy_up(lambda: time.monotonic() >= deadline_s, left_s)
        # What other threads log meanwhile they see to themselves, or start the thread once more for it.
        if (waiting := min(self.queue.qsize(), until - self.queue.consumed)) > 0:
            self._tell_what_is_left(user, waiting, min(self._stash(deadline_s), waiting))
        self.writer.close_files(max(0.0, deadline_s - time.monotonic()))
        _exit.forget(self)

    def _stash(self, deadline_s: float) -> int:
        """Keep what waits in a journal; return how many are not in it. On a disk that stands still, for a while."""
        if not self.writer.standstill_s():
            return self.writer.stash()
        try:
            lost = call_in_time(self.writer.stash, max(_LEAST_STASH_S, deadline_s - time.monotonic()))
        except RuntimeError:  # the interpreter is ending: rather late than lost
            return self.writer.stash()
        return self.queue.qsize() if lost is None else lost

    def is_over(self) -> bool:
        """Say whether nobody uses it any more and nothing waits in it: then a new handler begins a new writer."""
        return not self.users and not self.writer.has_waiting()

    def end(self, deadline_s: float) -> None:
        """Close for all users, because the process ends."""
        for user in [*self.users] or [self.writer]:
            self.close(user, budget_s=min(self._close_budget_s(), max(0.0, deadline_s - time.monotonic())))

    def _tell_what_is_left(self, user: logging.Handler, waiting: int, lost: int) -> None:
        """Say to *user*, the last one, and once, what becomes of the records that could not be written in time."""
        if self._told == (waiting, lost):
            return
        self._told = (waiting, lost)
        path, fault = self.writer.baseFilename, self.writer.faults.last_error
        kept = (
            f"{waiting - lost} are kept in {self.writer.journal_directory} and come home when a program opens this "
            "log again"
        )
        told = [kept] * (waiting > lost) + [f"{lost} are lost when this process ends"] * (lost > 0)
        error = WriteError(f"{path}: {waiting} records could not be written in time ({fault}); {'; '.join(told)}")
        tell(user, error)

    def _close_budget_s(self) -> float:
        left_s = max(0.0, self.options.close_timeout - self._spent_s())
        # logging.shutdown comes behind our end, and flushes and closes each handler once more.
        return left_s if _exit.deadline_s is None else max(0.0, min(left_s, _exit.deadline_s - time.monotonic()))

    def _spent_s(self) -> float:
        """Return what a flush of the same records took a moment ago: a close right behind it shares its budget."""
        position, ended_s, spent_s = self._spent
        is_shared = position == self.queue.position and time.monotonic() - ended_s < _BUDGET_IS_SHARED_S
        return spent_s if is_shared else 0.0

    def _report(self, error: Exception) -> None:
        """Tell *error* through the error handling of one of the handlers, as `logging` tells its own."""
        tell(next(iter(self.users), None) or self.writer, error)


# -- one pipeline for each path

_pipelines: weakref.WeakValueDictionary[str, Pipeline] = weakref.WeakValueDictionary()


def pipeline_on(path: str, options: Options, user: logging.Handler) -> Pipeline:
    """
    Return this process's pipeline on *path*, used by *user* from now on.

    Raises:
        ConfigError: The log cannot stand there.
    """
    notice_fork()
    key = os.path.realpath(path)
    made: Pipeline | None = None
    while True:
        # The lock of `logging`, no other: every handler that is made takes it, and so does each one's end. A dictConfig
        # in another thread holds it while it makes and closes handlers of ours, and would wait for a lock of our own.
        with logging._lock:  # type: ignore[attr-defined]  # noqa: SLF001  _acquireLock is gone in 3.13
            found = _pipelines.get(key)
            if found is not None and found.is_over():
                found = None
            if pipeline := found or made:
                _pipelines[key] = pipeline
                differs = bool(found and found.users and found.options != options)
                if not differs:
                    pipeline.configure(options)
                pipeline.join(user)
                break
        made = _new(path, options)  # not under that lock: this disk may stand still, and other threads log elsewhere
    _exit.register()
    if made is not None and made is not pipeline:  # another thread was quicker
        made.writer.close_files(0.0)
    if differs:
        warnings.warn(
            f"a second handler on {path} shares the first one's writer, and with it the first one's options",
            ConfigWarning,
            stacklevel=4,
        )
    if pipeline.writer.has_journals():  # somebody may be gone: our thread sees to it, also if nothing is ever logged
        pipeline.listen()
    return pipeline


def _new(path: str, options: Options) -> Pipeline:
    try:
        pipeline = Pipeline(path, options)
    except PermissionError as error:
        refusal = describe_refusal(error.filename or path)
        raise ConfigError(f"the log cannot be written: {error}{refusal}", "filename") from error
    except (LogPathError, OSError) as error:
        raise ConfigError(f"the log cannot be written: {error}", "filename") from error
    pipeline.writer.open_journal()
    return pipeline


# -- what others do to our logger


def warn_of_disabled_logger() -> None:
    """Warn once in a process, at the line outside of us that led here, that somebody has disabled our logger."""
    if _exit.has_warned:
        return
    _exit.has_warned = True
    level, frame = 1, sys._getframe()  # noqa: SLF001  as `warnings` itself finds the line; no other way before 3.12
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        level, frame = level + 1, frame.f_back
    with suppress(Warning):  # where warnings are errors: none of them into the application
        warnings.warn(
            f"the logger {LOGGER_NAME!r} is disabled, so `logging` itself drops what is logged through it; somebody's "
            "configuration did that, and `disable_existing_loggers: false` in it keeps the logger at work",
            ConfigWarning,
            stacklevel=level,
        )


def _look_at_logger() -> None:
    logger = logging.getLogger(LOGGER_NAME)
    # Somebody's dictConfig has closed the handler, so it is no user any more.
    if logger.disabled and any(isinstance(getattr(one, "_pipeline", None), Pipeline) for one in logger.handlers):
        warn_of_disabled_logger()


# -- the interpreter's end

_exit = AtExit(_look_at_logger)
forget_in_child(_exit)
