"""One writer's lines on disk until they have arrived in the log."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from . import _append, _lock
from ._journal_files import let_go, open_lock, unlink
from ._journal_find import content
from ._journal_format import (
    MARK_BYTES,
    SYNCED,
    Mark,
    directory_names,
    find_mark,
    lock_name,
    mark_name,
    segment_name,
    seq_of,
)
from ._journal_place import new_lock
from ._journal_space import SEGMENT_BYTES, JournalSpace, reserve
from ._libc import pwrite_error, pwrite_holding
from ._paths import OwnFile, open_regular, sync_directory
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from ._options import Options

__all__ = ["Journal"]

_TAIL_BYTES: Final = 300  # at most, of a line behind its body: writer, number, checksum
# Kept when their lines have arrived, so that a queue of answers may fill again and again and no segment is made or
# removed for it: removing one takes a millisecond, of the call that finds the queue full.
_SPARE_SEGMENTS: Final = 6
_LEAST_SPARE: Final = 2
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SLOW_S: Final = 0.001
_OUTSIDE_S: Final = 0.1


class Journal(JournalSpace):
    """
    This writer's journal.

    Lines are stored with a plain pwrite in space that is reserved beforehand and used again. Never through a memory
    map: a page that cannot be had would be a SIGBUS, which ends the application.

    Raises:
        OSError: It cannot be made.

    Durability: What is stored survives the death of the process, not loss of power.
    Threads: :meth:`mark` any; :meth:`begin`, :meth:`keep` and :meth:`store` one at a time.
    """

    def __init__(self, directory: str, writer_id: str, options: Options, like: str = "") -> None:
        # What close() lets go of, first: a process may fork from here on, or after a fault that leaves us half made.
        self._unsynced: list[OwnFile] = []
        """Segments that were left, for :meth:`sync` to see to."""
        self._left: list[OwnFile] = []
        """Others that were left, for :meth:`prepare` to close."""
        self._spare: list[str] = []
        self._segment: OwnFile | None = None
        lock = new_lock(directory, writer_id, options, like)
        super().__init__(directory, directory_names(directory), writer_id, lock, options.file_mode, is_synced=False)
        self.next_seq = 0
        """The number from which on nothing has been stored."""
        self.synced_seq = 0
        """The number below which all that was stored is durable."""
        self._bad: set[str] = set()
        self._synced_end: tuple[str, int] | None = None
        self._names_made, self._names_synced = 1, 0
        self.max_bytes = options.journal_max_bytes
        # Of the segment: its descriptor, where the next line stands in it, and which number that line must have.
        self._descriptor, self._position, self._follows = -1, 0, -1
        self._large: dict[str, int] = {}
        self._begin_space()
        self._pwrite = pwrite_holding()
        self._was_slow, self._outside_until_s = False, 0.0
        self.set_synced(options.durability == "power")

    def begin(self, first_seq: int) -> None:
        """
        Have all that storing line *first_seq* and those behind it may need: later there may be no descriptor, no room.

        Raises:
            OSError: It cannot be had.
        """
        self._most_spare = max(_LEAST_SPARE, min(_SPARE_SEGMENTS, self.max_bytes // SEGMENT_BYTES >> 3))
        marks = self._open_marks()
        size = os.fstat(marks).st_size
        if size < 2 * MARK_BYTES and os.pwrite(marks, bytes(2 * MARK_BYTES - size), size) != 2 * MARK_BYTES - size:
            raise OSError(errno.ENOSPC, "there is no room for marks", self._path(mark_name(self.writer_id)))
        if self._segment is None:
            self._begin_segment(first_seq, 0)

    def keep(self, line: bytes, seq: int) -> None:
        """
        Store *line*, number *seq*, behind those before it.

        An exception from outside may end this at any instruction, and a signal handler may come in between and store
        this line and others: the same bytes go to the same place once more, or to one where they do not count.

        Raises:
            OSError: It is not stored.
        """
        size = len(line)
        if seq != self._follows or self._position + size > SEGMENT_BYTES:
            self._begin_segment(seq, size)
            if seq < self.next_seq:  # a signal handler has stored it meanwhile
                return
        while not self._write(line, size):
            if not self._position:
                raise OSError(errno.ENOSPC, "the journal takes no more", self.directory)
            self._begin_segment(seq, size)  # the limit may be the file's own
        # No call from here on: whoever interrupts finds the line stored and counted, or neither.
        if seq >= self.next_seq:
            self._position, self._follows, self.next_seq = self._position + size, seq + 1, seq + 1

    def keep_flat(self, line: bytes, seq: int) -> bool:
        """
        Store *line*, number *seq*, where :meth:`keep` has failed for want of stack; say whether it is stored.

        Needs no more stack than numbering a line does, so that one which has its number is not left without.
        """
        if seq != self._follows or self._position + len(line) > SEGMENT_BYTES:
            return False
        try:
            if os.pwrite(self._descriptor, line, self._position) != len(line):
                return False
        except OSError:
            return False
        if seq >= self.next_seq:  # as in keep()
            self._position, self._follows, self.next_seq = self._position + len(line), seq + 1, seq + 1
        return True

    def _write(self, line: bytes, size: int) -> bool:
        """Write *line* at our position; False if it did not fit."""
        began_s = time.perf_counter()
        try:
            # Descriptor and position are read in the call itself: a signal handler may change both before.
            if began_s < self._outside_until_s or size > SEGMENT_BYTES:  # such a one would stop all others for long
                return os.pwrite(self._descriptor, line, self._position) == size
            written = self._pwrite(self._descriptor, line, size, self._position)
            if written < 0 and (failed := pwrite_error()).errno != errno.EINTR:
                raise failed
            if written < 0:  # a signal came while a FUSE or NFS server kept it waiting; this call tries again by itself
                written = os.pwrite(self._descriptor, line, self._position)
        except OSError as error:
            if error.errno == errno.EBADF:  # somebody has closed all descriptors: go on in a segment with its own
                self._drop_ready()
                self._position = SEGMENT_BYTES
            elif error.errno not in _FULL:
                raise
            return False
        # A disk that makes us wait must not make every thread wait. Once is no proof: another process may have had the
        # processor.
        is_slow = time.perf_counter() - began_s > _SLOW_S
        if is_slow and self._was_slow:
            self._outside_until_s = began_s + _OUTSIDE_S
        self._was_slow = is_slow
        return written == size

    def _begin_segment(self, first_seq: int, size: int) -> None:
        """Begin a segment with line *first_seq*: the one that is ready, if it can be had and is large enough."""
        before, self._segment, self._descriptor, self._follows = self._segment, None, -1, -1
        if before is not None:
            is_unsynced = self.is_synced and self.synced_seq < self.next_seq
            (self._unsynced if is_unsynced else self._left).append(before)
        if self._is_closed:  # what is stored in one that has been removed nobody would find
            raise OSError(errno.EBADF, "this journal is closed", self.directory)
        name = segment_name(self.writer_id, first_seq)
        # A disk that makes us wait must not make every thread wait, as in _write().
        is_quick = size <= SEGMENT_BYTES and time.perf_counter() >= self._outside_until_s
        segment = (self._take_ready(name) if is_quick else None) or self._open_segment(name, max(size, SEGMENT_BYTES))
        if self._descriptor >= 0:  # a signal handler has begun one meanwhile, and may have stored lines in it
            self._left.append(segment)
            return
        if (entry := (first_seq, name)) not in self._segments:
            self._segments.append(entry)
        self._names_made += 1
        descriptor = segment.fileno()
        self._segment, self._descriptor, self._position, self._follows = segment, descriptor, 0, first_seq

    def _open_segment(self, name: str, size: int) -> OwnFile:
        """Make segment *name* in space that is reserved: an old one's where there is one."""
        left, self._left = self._left, []
        let_go(*left)  # first, for there may be no descriptor but this one
        if not self._lock.is_ours():
            try:
                self.retake()
            except FileNotFoundError:
                raise OSError(errno.EBADF, "this journal has been brought home", self.directory) from None
        self._use_spare(name)
        segment = open_regular(self._path(name), os.O_RDWR, self._file_mode, like=self.directory)
        reserve(segment, size)
        if size > SEGMENT_BYTES:
            self._large[name] = size
        return segment

    # -- durability power

    def set_synced(self, is_synced: bool) -> None:  # noqa: FBT001  a state, told by the options
        """Say, also to whoever may adopt it, whether what is in it is to survive loss of power."""
        if is_synced != self.is_synced:
            os.pwrite(self._lock.fileno(), SYNCED if is_synced else b" " * len(SYNCED), 0)
            self._names_made += 1
            self.is_synced = is_synced

    def sync(self, lock: AbstractContextManager[object]) -> int:
        """
        Make what is stored durable, and return the number below which all is.

        *lock* is held while nobody may store; not for the sync itself.

        Raises:
            OSError: It may not be, now or ever: :meth:`begin_behind_synced` and store it once more.
        """
        copies: list[int] = []
        # An exception from outside comes behind a call into C, never in it: one makes and lists all copies, and one
        # closes what is listed by then.
        close_all = map(os.close, copies)
        try:
            with lock:
                target, made, left = self.next_seq, self._names_made, self._unsynced[:]
                files = [*left, *([self._segment] if self._segment is not None else [])]
                end = (self._segments[-1][1], self._position) if self._segment is not None else self._synced_end
                if made != self._names_synced:
                    files.append(self._lock)  # in which stands that it is synced
                numbers = [file.fileno() for file in files]
                copies.extend(map(os.dup, numbers))  # for others may begin a segment, or close us, meanwhile
            for copy in copies:
                _append.sync_file(copy)
        finally:
            deque(close_all, 0)
        if made != self._names_synced:
            sync_directory(self._path(""))
            self._names_synced = made
        with lock:
            for file in left:
                if file in self._unsynced:
                    self._unsynced.remove(file)
                let_go(file)
            if target >= self.synced_seq:
                self.synced_seq, self._synced_end = target, end
            return self.synced_seq

    def begin_behind_synced(self) -> None:
        """
        Forget what is not durable; what is stored next goes to a new segment. Those before are never synced again.

        Raises:
            OSError: It could not all be forgotten.
        """
        let_go(*self._unsynced, self._segment)
        self._drop_ready()
        self._unsynced, self._segment, self._descriptor, self._follows = [], None, -1, -1
        for first_seq, name in self._segments[:]:
            self._bad.add(name)
            if first_seq >= self.synced_seq:
                unlink(self._path(name))
                self._segments.remove((first_seq, name))
            elif self._synced_end and name == self._synced_end[0]:  # a call that is refused must not come home
                os.truncate(self._path(name), self._synced_end[1])
        self.next_seq = self.synced_seq

    def has_room(self, size: int) -> bool:
        """Say whether a record of *size* bytes may still be kept, as ``journal_max_bytes`` says."""
        size += _TAIL_BYTES
        if self._position + size <= SEGMENT_BYTES or ((self._ready or self._spare) and size <= SEGMENT_BYTES):
            return True
        return self.size + max(size, SEGMENT_BYTES) <= self.max_bytes

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return self.filled + SEGMENT_BYTES * (len(self._spare) + (self._ready is not None))

    @property
    def filled(self) -> int:
        """Of these, the bytes of segments in which lines may wait."""
        return sum(self._large.get(name, SEGMENT_BYTES) for _, name in self._segments)

    def has_lost_lock(self) -> bool:
        """Say whether somebody has closed its lock under us (a daemoniser does): then others may have taken it."""
        return not self._is_closed and not self._lock.is_ours()

    def retake(self, settle: Callable[[Mark], None] | None = None) -> None:
        """
        Lock it again when its lock was closed under us.

        If another process has had it meanwhile, *settle* is told what that one has noted, under the lock; without it
        such a journal is not taken.

        Raises:
            FileNotFoundError: Another process has brought home all that was in it, and removed it.
            OSError: Another process has it, or has had it and *settle* is not given.
        """
        with self._using:
            lock = open_lock(self._path(lock_name(self.writer_id)), self._file_mode, create=False)
            try:
                mark = self._lock_anew(lock, settle)
            except BaseException:  # not left to the collector: the error may be kept, and with it the lock
                let_go(lock)
                raise
            let_go(self._lock, self._marks)
            self._drop_ready()
            self._mark, self._marks, self._follows, self._lock = mark, None, -1, lock

    def _lock_anew(self, lock: OwnFile, settle: Callable[[Mark], None] | None) -> Mark:
        if not _lock.try_acquire(lock) or _lock.is_replaced(lock, self._path(lock_name(self.writer_id))):
            raise OSError(errno.EBUSY, "another process brings this journal home", self.directory)
        mark = self._noted()
        if mark.number != self._mark.number:
            if settle is None:
                raise OSError(errno.EBUSY, "another process has brought home some of this journal", self.directory)
            settle(mark)
        return mark

    def _noted(self) -> Mark:
        """Return what is noted in the mark file now."""
        try:
            return find_mark(content(self._path(mark_name(self.writer_id))))
        except FileNotFoundError:
            if self._mark.number >= 0:  # an adopter that was killed before it could remove the lock as well
                raise
            return self._mark

    def home_seq(self) -> int:
        """Return the number below which all was home when another process removed it."""
        if self._marks is not None and self._marks.is_ours():  # that one's last mark, in a file without a name by now
            return find_mark(os.pread(self._marks.fileno(), 2 * MARK_BYTES, 0)).consumed
        return self.next_seq  # closed as the segment was, so that nothing has been stored since

    def renounce(self) -> None:
        """
        Note that nothing in it is to be brought home, since another journal holds it now, and let go of it.

        By the descriptors alone: its directory was moved, and what stands at its path is not ours.
        """
        with self._using, suppress(OSError):
            if self._marks is not None and self._marks.is_ours() and not self.has_lost_lock():
                start, slot = Mark(self._mark.number + 1, self.next_seq, None).slot()
                os.pwrite(self._marks.fileno(), slot, start)
        self.close()

    def is_gone(self) -> bool:
        """Say whether somebody has removed it: then nobody would find what is stored in it."""
        try:
            return self._is_closed or _lock.is_replaced(self._lock, self._path(lock_name(self.writer_id)))
        except ValueError:  # another thread has closed it between the two looks
            return True
        except OSError:  # the process has given up its rights since: what is open still works
            return False

    def store(self, lines: Sequence[bytes]) -> int:
        """Store *lines*, in the order of their numbers, and return how many; fewer where the disk takes no more."""
        for count, line in enumerate(lines):
            try:
                with self._using:  # not beside remove()
                    if (seq := seq_of(line)) >= self.next_seq:  # else a signal handler has stored it meanwhile
                        self.keep(line, seq)
            except (OSError, LogPathError):
                return count
        return len(lines)

    def close(self) -> None:
        """Let go of it; whoever comes next may bring home what is in it."""
        self._descriptor, self._follows = -1, -1
        super().close()
        let_go(*self._unsynced, *self._left, self._segment)
        self._drop_ready()

    def remove(self) -> None:
        """Remove the journal: all its lines have arrived."""
        with self._using:
            self._drop_ready()
            self._remove_spares()  # also if the directory cannot be listed now
            super().remove()
