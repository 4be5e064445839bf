"""
One writer's lines on their way to the file, in order, bounded, counted.

This is not a ``queue.Queue``: that class's lock hangs forked children and deadlocks when a signal handler or a
``__del__`` logs. Here the one lock is reentrant, is held for a few instructions, and is made anew in a child.

Lines leave in two steps, because an append can fail or be interrupted half-way: the writer looks at the head,
appends it, and only then takes it off. What was to be appended, and where, is noted first (:class:`Intent`); if
an exception falls between the two steps, the bytes in the file decide what has arrived.
"""

from __future__ import annotations

import _thread
import logging
import queue
import sys
import threading
import time
from contextlib import suppress
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Final

from ._fast_json import loads_plain
from ._journal_format import seq_of
from ._kept import KeptLines
from ._prepared import PreparedRecord
from .record import Encoded, crc32_of, new_writer_id, seal, tail_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._journal import Journal
    from ._journal_format import Intent

__all__ = ["MAX_BLOCK_BYTES", "LineQueue"]

MAX_BLOCK_BYTES = 1 << 20
# The system's own or none, never what stands in its place: gevent's lets other greenlets run in the middle of a call
# and raises in its hub, and what a test of the application's has put there may do anything.
_sleep: Callable[[float], None] | None = time.sleep if isinstance(time.sleep, BuiltinFunctionType) else None
_LOOKS: Final = 20
_LOOK_S: Final = 50e-6
_LOOKING_S: Final = _LOOKS * _LOOK_S  # each look may take 5 ms and more where other threads do not log but compute
_BEHIND: Final = slice(sys.maxsize, None)  # the place behind the last of a list, however long that is


class LineQueue(KeptLines):
    """
    Finished lines, first in, first out, with the counters that belong to them.

    Args:
        max_size: Records that may wait.
        max_bytes: Bytes that may wait.
        batch_size: Whoever waits in :meth:`wait` is woken when so many records wait.

    Threads: any. One thread at a time may use :meth:`head` and :meth:`consume`; the writer's turn sees to that.
    """

    def __init__(self, max_size: int = 1000, max_bytes: int = 64 << 20, batch_size: int = 10) -> None:
        self.max_size = max_size
        self.max_bytes = max_bytes
        self.batch_size = batch_size
        self.renew()

    def renew(self) -> None:
        """Begin as a new writer that has counted nothing: at the start, and in a forked child."""
        self._renew_journal()
        self.lock = threading.RLock()
        self.writer_id = new_writer_id()
        self._tail = tail_of(self.writer_id)
        self.listening = False
        self.is_gathering = False
        """Whether a batch is no reason to wake anybody, but a quarter of a queue; see the listener."""
        self.intent: Intent | None = None
        # How often a record had this status; those that are simply queued follow from what arrived and what waits.
        self.counted = {"written": 0, "written_sync": 0, "spilled": 0, "failed": 0}
        self.encode_errors = 0
        self._seq = 0
        self._lines: list[bytes] = []
        self._bytes = 0
        self._consumed = 0
        self._sentinels = 0
        self._arrived: PreparedRecord | None = None  # the newest that somebody has brought to the lock, until he has it
        # A bare lock used as a flag: locked = nothing to do. Releasing it is one call in C, which a signal
        # handler can interrupt neither before nor after its effect; a Condition would be neither.
        self._wake = _thread.allocate_lock()
        self._wake.acquire()

    # -- the caller's side

    def put(
        self,
        body: bytes,
        *,
        force: bool = False,
        may_exceed: bool = False,
        replaced: bool = False,
        record: PreparedRecord | None = None,
    ) -> bytes | None:
        """
        Number and take one record; return its line, or None when there is no room.

        *force* takes it also without room: for callers that are about to drain the queue themselves; with *may_exceed*
        for those that cannot, so that its journal takes it, too, beyond what that one may have. *record* gets its line
        in the same instant, so that whoever is interrupted can tell what was taken. With a :attr:`keeper` it is in the
        journal when this returns, unless there is no room for it there.
        """
        if record is None:
            record = PreparedRecord.of({}, Encoded(body, "", replaced))
        begun = crc32_of(body)  # before the lock: what takes time under it holds up every thread
        self._come(record)
        with self.lock:
            self._arrived = None if self._arrived is record else self._arrived
            if not force and not self.has_room(len(body)):
                return None
            while True:
                seq = self._seq
                line = seal(body, self._tail, seq, begun)
                new, waiting, size = (line,), len(self._lines), len(line)
                if seq == self._seq:  # no signal handler has logged meanwhile and taken the number
                    break
            # One statement, in which nothing is called, nothing is made that could set off a collection (a __del__
            # may log), and what may fail for want of memory comes first: an exception, a signal handler or a __del__
            # finds the record taken and numbered, or neither.
            self._lines[_BEHIND], self._seq, record.line = new, seq + 1, line
            self._bytes, self.encode_errors = (self._bytes if waiting else 0) + size, self.encode_errors + replaced
            if (keeper := self.keeper) is not None:
                try:
                    self._keep(keeper, line, seq, force=force and not may_exceed)
                except Exception as error:  # noqa: BLE001  a full stack too
                    # One that was taken is kept, however full the stack; else it waits in memory, as without a journal.
                    if isinstance(error, OSError) or not keeper.keep_flat(line, seq):
                        self.keeper, self.journal_error = None, error
                        error.__traceback__ = error.__context__ = None  # as without_frames, without a call
            if waiting + 1 == (self.max_size >> 2 if self.is_gathering else self.batch_size):
                # Not self.wake(): with the stack nearly full a call could raise, of a record that is taken already.
                try:  # noqa: SIM105  the same
                    self._wake.release()
                except RuntimeError:  # it is set already
                    pass
        return line

    def _come(self, record: PreparedRecord) -> None:
        """
        Let whoever waits for the lock have it first, and for a moment do something else than wait as well.

        A lock that is given back goes to a thread that waits for it, and that one cannot run, for it has no interpreter
        lock; whoever runs then soon waits, too, and from there on each record costs two changes of threads, which
        doubles its price. Of threads that look again in a moment the one goes on that has both locks. It is for speed
        alone: where an exception from outside has left the flag standing, or a signal handler logs amid all this, that
        record takes one millisecond more, or the one turn at the interpreter lock in which that is over.
        """
        looks, until = 0, 0.0
        while self._arrived is not None and looks < _LOOKS and not self.is_held_here():  # by a signal handler's frame
            if _sleep is None:
                break
            if not looks:
                until = time.monotonic() + _LOOKING_S
            elif time.monotonic() >= until:
                break
            _sleep(_LOOK_S)
            looks += 1
        self._arrived = record

    def _keep(self, journal: Journal, line: bytes, seq: int, *, force: bool = False) -> None:
        """Store *line*, number *seq*, and before it those that wait and of which an interruption kept us."""
        if force and not journal.has_room(len(line)):
            return
        if journal.next_seq < seq:
            for earlier in self._lines[:-1]:
                if journal.next_seq <= (number := seq_of(earlier)) < seq:
                    journal.keep(earlier, number)
        if journal.next_seq <= seq:  # else a signal handler that logged has stored it with its own
            journal.keep(line, seq)

    def put_nowait(self, record: logging.LogRecord | None) -> None:
        """
        Take a prepared record, as :class:`logging.handlers.QueueHandler` calls it, or a stock listener's None.

        Raises:
            queue.Full: There is no room.
        """
        if record is None:
            self._sentinels += 1
            self.wake()
            return
        if not isinstance(record, PreparedRecord):
            msg = "this queue holds finished lines: put records through ResponseQueueHandler"
            raise TypeError(msg)
        if self.put(record.body, replaced=record.replaced, record=record) is None:
            raise queue.Full

    def withdraw(self, record: PreparedRecord, *, from_journal: bool = False) -> bool:
        """
        Take *record*'s line back as ``failed``; False if it has left already. Only in the writer's turn.

        Not one that is in the journal as well, unless *from_journal*: there it stays until those behind it have
        arrived, and comes home if this process is killed before.
        """
        if self.is_stashed(record) and not from_journal:
            return False
        with self.lock:
            lines = self._lines
            if record.line is None or record.line not in lines:
                return False
            place, size = slice(at := lines.index(record.line), at + 1), len(record.line)
            # One statement, as in put().
            lines[place], self.counted["failed"], record.status = (), self.counted["failed"] + 1, "failed"
            self._bytes -= size
        return True

    def has_room(self, size: int) -> bool:
        """Say whether a record of *size* bytes may wait."""
        keeper = self.keeper
        return (
            len(self._lines) < self.max_size
            and self._bytes + size <= self.max_bytes
            and (keeper is None or keeper.has_room(size))
        )

    def count_as(self, record: PreparedRecord, status: str) -> None:
        """Say of *record* that it has *status*, and count it."""
        with self.lock:
            self.counted[status], record.status = self.counted[status] + 1, status

    # -- the writer's side

    def head(self, max_bytes: int = MAX_BLOCK_BYTES) -> list[bytes]:
        """Return the lines that wait longest, up to *max_bytes* but at least one; they stay until consumed."""
        with self.lock:
            return _beginning(self._lines, max_bytes)

    def first(self, count: int) -> list[bytes]:
        """Return the *count* lines that wait longest."""
        with self.lock:
            return self._lines[:count]

    def consume(self, count: int, *, is_ours: bool = False) -> None:
        """Forget the first *count* lines: they have arrived. Ends the intent. For *is_ours* see the journal's mark."""
        with self.lock:
            arrived, place = self._lines[:count], slice(count)
            self._bytes -= sum(map(len, arrived))
            # One statement, as in put(): whatever comes finds the lines still there or counted, never neither.
            self._lines[place], self._consumed, self.intent = (), self._consumed + count, None
        journal, mark_error = self.journal, self._mark_error
        if journal is None or not arrived:
            return
        if mark_error is None:
            self._forget_in_journal(journal, seq_of(arrived[-1]) + 1, is_ours=is_ours)
            return
        with self.lock:  # nobody may store in it behind our look
            if self._lines:
                return
            # All that it tells of has arrived, and it cannot note that.
            self.keeper, self.journal_error, self._mark_error = None, mark_error, None
        with suppress(OSError):
            self._give_up(journal, mark_error)

    # -- the listener's side

    def adapt_wake(self) -> None:
        """Before a thread begins to wait: if gevent has replaced the locks since, wait on one of its kind."""
        wake = _thread.allocate_lock()
        if type(wake) is not type(self._wake):
            wake.acquire()
            self._wake = wake

    def wake(self) -> None:
        """Let :meth:`wait` return; wakes that nobody waited for are kept, as one."""
        with suppress(RuntimeError):  # it is set already
            self._wake.release()

    def wait(self, timeout: float) -> bool:
        """Wait for :meth:`wake`, at most *timeout* seconds; say whether it came."""
        return self._wake.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def get(self, block: bool = True, timeout: float | None = None) -> logging.LogRecord | None:  # noqa: FBT001, FBT002  queue.Queue's signature
        """
        Take the oldest line as a LogRecord whose attributes are the line's fields, for a stock QueueListener.

        None once nothing waits before the sentinel that ends that listener.

        Raises:
            queue.Empty: Nothing waits, and *block* is false or *timeout* seconds are over.
        """
        while not (lines := self.head(max_bytes=1)):
            if self._sentinels:
                self._sentinels -= 1
                return None
            if not block or (not self.wait(60.0 if timeout is None else timeout) and timeout is not None):
                raise queue.Empty
        self.consume(1)
        return _record_of(lines[0])

    def get_nowait(self) -> logging.LogRecord | None:
        """Take the oldest line as a LogRecord, or raise ``queue.Empty``."""
        return self.get(block=False)

    # -- counting

    def is_held_here(self) -> bool:
        """Say whether the calling thread is in the middle of a change: a signal handler has interrupted it."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001  as threading.Condition

    def qsize(self) -> int:
        """Return how many records wait."""
        return len(self._lines)

    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not self._lines

    @property
    def consumed(self) -> int:
        """How many lines have arrived in all."""
        return self._consumed

    @property
    def position(self) -> int:
        """Where the next line will stand: once :attr:`consumed` has come so far, all before it have arrived."""
        with self.lock:
            return self._consumed + len(self._lines)


def _beginning(lines: list[bytes], max_bytes: int) -> list[bytes]:
    """Return the first of *lines*, up to *max_bytes* but at least one."""
    # A function of its own: on 3.13 an exception that arrives where a loop goes back leaves a `with` around it without
    # giving back the lock (see the test of loops under locks).
    size = 0
    for count, line in enumerate(lines):
        size += len(line)
        if count and size > max_bytes:
            return lines[:count]
    return lines[:]


def _record_of(line: bytes) -> logging.LogRecord:
    """Return a LogRecord for *line*; its message is the record's, its fields are attributes."""
    fields = loads_plain(line)
    record = logging.makeLogRecord({
        "name": fields.pop("logger", ""), "levelname": fields.pop("level", "INFO"), "msg": fields.pop("message", ""),
        "created": fields.get("unix_timestamp", 0.0), "process": fields.pop("pid", None),
        "threadName": fields.pop("thread", None),
    })  # fmt: skip
    record.levelno = (
        logging.getLevelName(record.levelname)
        if isinstance(logging.getLevelName(record.levelname), int)
        else logging.INFO
    )
    record.__dict__.update((key, value) for key, value in fields.items() if key not in record.__dict__)
    return record
