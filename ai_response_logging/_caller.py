"""
What a log call writes itself: nobody listens, the queue is full, or no journal makes its record durable.

What :class:`~.writer.BatchFileHandler` inherits; its own module has the one way by which lines get into the log.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from . import _lock
from ._journalling import FAULTS, JournallingFileHandler
from .errors import RefusedError, WriteError

if TYPE_CHECKING:
    from ._prepared import PreparedRecord

__all__ = ["CallerFileHandler"]


class CallerFileHandler(JournallingFileHandler):
    """
    A log file that a call may write to itself, in its turn and in bounded time.

    Threads: any.
    """

    if TYPE_CHECKING:  # what the writer has
        turn: _lock.Turn

        def _append_waiting(self, until: int, deadline_s: float) -> None: ...

    @_lock.takes_turn
    def write_now(self, record: PreparedRecord, timeout: float, *, outcome: str, may_wait: bool = False) -> None:
        """
        Write what waits and then *record*, in the caller: one attempt, no pause. The record says what became of it.

        Args:
            record: What to write.
            timeout: Seconds that the attempt may wait for its turn and for the lock.
            outcome: Its status if it is in the file then, ``written_sync`` or ``written``.
            may_wait: Leave it in the queue, if there is room, when the file refuses it.
        """
        if self.turn.is_mine():  # we interrupt our own append: rather one record over the limit than one lost
            self.queue.put(record.body, force=True, may_exceed=True, replaced=record.replaced, record=record)
            return
        deadline_s = time.monotonic() + timeout
        try:
            if self.turn.acquire(timeout):
                self._write_in_turn(record, deadline_s, outcome, may_wait=may_wait)
            else:
                busy = _lock.busy((self.stream_lock, self.stream), timeout, self.baseFilename)
                # To the queue also where there is no journal (any more): whoever ends the process sees to it then.
                if may_wait and self.queue.put(record.body, replaced=record.replaced, record=record) is not None:
                    self._note(busy)
                    return
                self._spill_or_refuse(record, f"the queue is full and the log was busy for {timeout:g} s: {busy}")
        finally:
            try:  # noqa: SIM105  a frame of Python before the call is where an exception from outside could fall
                self.turn.free()
            except RuntimeError:  # it did not come
                pass

    @_lock.takes_turn
    def write_through(self, record: PreparedRecord, timeout: float, reason: str) -> None:
        """
        Write what waits, *record* included, in the caller, once; what the log refuses is withdrawn and has failed.

        For ``durability: power``, where the log is synced before a line leaves the queue.

        Args:
            record: What the queue has taken.
            timeout: Seconds that the attempt may wait for the lock, once whoever writes has come back: from the disk,
                or, within ``lock_timeout``, from a lock. What is being written cannot be taken back, and a call must
                not return as if it were safe.
            reason: Why its journal does not do.
        """
        if self.turn.is_mine():  # we interrupt our own append, and would wait for ourselves
            what = f"{self.baseFilename}: a record waits, and may not survive loss of power: {reason}"
            record.error = WriteError(f"{what}; its call interrupts a write")
            return
        # Whoever writes may wait for the lock that a signal handler has interrupted us with.
        is_amid = self.queue.is_held_here()
        try:
            if not self.turn.acquire(0.0 if is_amid else threading.TIMEOUT_MAX):  # else only while the interpreter ends
                what = f"{self.baseFilename}: a record waits, and may not survive loss of power: {reason}"
                why = (
                    "its call interrupts another one"
                    if is_amid
                    else "the interpreter has stopped the thread that writes"
                )
                record.error = WriteError(f"{what}; {why}")
                return
            try:
                self._append_waiting(self.queue.position, time.monotonic() + timeout)
            except FAULTS as error:
                intent = self.queue.intent  # as in _write_in_turn: what may be in the file cannot be refused
                if intent is not None and record.line in self.queue.first(intent.lines):
                    record.error = error
                    self._note(error)
                    return
                if self.queue.withdraw(record, from_journal=True):
                    self.refuse(record, f"it may not survive loss of power: {reason}; {error}", is_counted=True)
                    return
            self.queue.count_as(record, "written_sync")
        finally:
            try:  # noqa: SIM105  a frame of Python before the call is where an exception from outside could fall
                self.turn.free()
            except RuntimeError:  # it did not come
                pass

    def _write_in_turn(self, record: PreparedRecord, deadline_s: float, outcome: str, *, may_wait: bool) -> None:
        has_room = self.queue.has_room(len(record.body))
        self.queue.put(record.body, force=True, replaced=record.replaced, record=record)
        try:
            self._append_waiting(self.queue.position, deadline_s)
        except FAULTS as error:
            # While it is not settled what has arrived, it may be in the file, and then it cannot be refused any more.
            # One behind the block in question is not: a log that cannot even be read must not fill the memory.
            intent = self.queue.intent
            if (may_wait and has_room) or (intent is not None and record.line in self.queue.first(intent.lines)):
                self._note(error)
                return
            if self.queue.is_stashed(record):  # where each line is kept, or if another thread has closed meanwhile
                self.queue.count_as(record, "spilled")
                self._note(error)
                return
            if self.queue.withdraw(record):
                self.refuse(record, f"nothing more can wait and the log refuses: {error}", is_counted=True)
                return
        self.queue.count_as(record, outcome)

    def _spill_or_refuse(self, record: PreparedRecord, reason: str) -> None:
        """Leave *record* in the journal, from where it comes home by itself, or refuse it."""
        keeper = self.queue.keeper
        if keeper is None or not keeper.has_room(len(record.body)):
            self.refuse(record, reason)
            return
        self.queue.put(record.body, force=True, replaced=record.replaced, record=record)
        # Not if the journal has just failed, or if it is in the file already: then it is queued, as any other.
        if self.queue.is_stashed(record):
            self.queue.count_as(record, "spilled")
        self._note(WriteError(f"{self.baseFilename}: {reason}"))

    def refuse(self, record: PreparedRecord, reason: str, *, is_counted: bool = False) -> None:
        """Say of *record* that it is nowhere: in its status, in the counters, and through logging's error handling."""
        if not is_counted:
            self.queue.count_as(record, "failed")
        record.error = RefusedError(self.baseFilename, reason, record.id)
        self._note(record.error)
