"""
One writer's lines on disk until they have arrived in the log, and the journals of writers that are gone.

See :mod:`._journal_format` for the files. A journal belongs to whoever holds its liveness lock: its writer, or, when
the kernel has freed the lock because that one died, the first process that takes it. Nothing is ever told by a pid:
in containers all are 1.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from . import _append, _lock
from ._fork import forget_in_child
from ._journal_format import (
    MARK_BYTES,
    SYNCED,
    Intent,
    Mark,
    directory_names,
    find_mark,
    journal_directory,
    location_file,
    lock_name,
    mark_name,
    own_directory,
    segment_name,
    segments_among,
    seq_of,
    whole_lines,
    writers_among,
)
from ._journal_read import content, journal_directories
from ._paths import OwnFile, describe_file_type, make_directory, open_regular, sync_directory
from ._pwrite import pwrite_error, pwrite_holding
from ._retry import naps
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from ._options import Options

__all__ = ["Journal", "Left", "Orphan", "has_journals", "note_location", "orphans"]

SEGMENT_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 300  # at most, of a line behind its body: writer, number, checksum
_SPARE_SEGMENTS: Final = 2
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SLOW_S: Final = 0.001
_OUTSIDE_S: Final = 0.1
_LOCK_BUDGET_S: Final = 1.0  # an adopter that came first sees in far less that there is nothing in it yet


class _Files:
    """A journal's files, its lock held; what its writer and its adopter share."""

    _marks: OwnFile | None

    def __init__(
        self, directory: str, names: list[str], writer_id: str, lock: OwnFile, file_mode: int, *, is_synced: bool
    ) -> None:
        self.directory = directory
        self.writer_id = writer_id
        self.is_synced = is_synced
        """Whether what is noted, and what is removed, is to hold after loss of power, too."""
        self._lock, self._marks = lock, None
        self._file_mode = file_mode
        self._is_closed = self._marks_are_bad = False
        self._using = threading.RLock()
        forget_in_child(self)
        # In a new journal, too: what could not be removed of an earlier one of this writer must not outrank it.
        self._segments = segments_among(names, writer_id)
        self._mark = Mark(-1, 0, None)
        with suppress(FileNotFoundError):
            self._mark = find_mark(content(self._path(mark_name(writer_id))))

    def after_fork_in_child(self) -> None:
        """Let go of the child's copy: its lock is the parent's, and would stay held for as long as the child lives."""
        self.close()

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def mark(self, consumed: int, intent: Intent | None) -> None:
        """
        Note that the lines below *consumed* have arrived, and what is about to be appended.

        Raises:
            OSError: It could not be noted, or not to the end; the mark before it holds, or this one.
        """
        with self._using:
            if consumed < self._mark.consumed:  # somebody was quicker to note more
                return
            mark = Mark(self._mark.number + 1, consumed, intent)
            start, slot = mark.slot()
            if os.pwrite(self._open_marks(), slot, start) != MARK_BYTES:  # half a mark holds nobody back
                raise OSError(errno.ENOSPC, "a mark was not written to its end", self._path(mark_name(self.writer_id)))
            # The intent before its block, what is consumed before its lines are removed: else what power leaves of
            # the files could tell of lines as waiting that stand in the log.
            if self.is_synced and (intent is not None or self._has_surplus(consumed)):
                self._sync_marks(mark)
            self._mark = mark
            self._remove_segments(consumed)

    def _sync_marks(self, mark: Mark) -> None:
        """Make *mark*, just written, durable; a mark file that could not be synced is never asked again."""
        try:
            _append.sync_file(self._open_marks())
        except OSError:
            self._marks_are_bad = True
            if self._marks is not None:
                self._marks.close()
            self._marks = None
            self._open_marks(mark)

    def _open_marks(self, newest: Mark | None = None) -> int:
        if self._is_closed or not self._lock.is_ours():  # without its lock another process may bring it home
            raise OSError(errno.EBADF, "this journal is closed", self.directory)
        if self._marks is None or not self._marks.is_ours():
            name = self._path(mark_name(self.writer_id))
            if self._marks_are_bad:
                self._replace_marks(name, newest or self._mark)
            self._marks = open_regular(name, os.O_RDWR, self._file_mode, like=self.directory)
        return self._marks.fileno()

    def _replace_marks(self, name: str, newest: Mark) -> None:
        """Put a new mark file, with the *newest* mark in it, in the place of one that could not be synced."""
        _unlink(f"{name}.new")
        with open_regular(f"{name}.new", os.O_RDWR, self._file_mode, like=self.directory) as file:
            start, slot = newest.slot()
            if os.pwrite(file.fileno(), bytes(start) + slot, 0) != start + MARK_BYTES:
                raise OSError(errno.ENOSPC, "a mark was not written to its end", name)
            _append.sync_file(file.fileno())
        os.rename(f"{name}.new", name)
        sync_directory(name)
        self._marks_are_bad = False

    def _has_surplus(self, consumed: int) -> bool:
        """Say whether the lines of a segment have all arrived, and others follow."""
        return len(self._segments) > 1 and self._segments[1][0] <= consumed

    def _remove_segments(self, consumed: int) -> None:
        """Remove the segments whose lines have all arrived."""
        while self._has_surplus(consumed):
            try:
                self._discard(self._segments[0][1])
            except OSError:  # the mark holds without it; remove() tries again
                return
            self._segments.pop(0)

    def _discard(self, name: str) -> None:
        _unlink(self._path(name))

    def remove(self) -> None:
        """Remove the journal: all its lines have arrived."""
        # The lock last: what is killed half-way is an orphan with nothing in it.
        with self._using:
            # What stands there counts, not what we know of: an interrupted store may have made one more.
            there = [*self._segments, *segments_among(directory_names(self.directory), self.writer_id)]
            for _, name in there:
                _unlink(self._path(name))
            marks = mark_name(self.writer_id)
            if self.is_synced:  # no line may outlive the mark that says that it has arrived
                sync_directory(self._path(marks))
            for name in (marks, f"{marks}.new", lock_name(self.writer_id)):
                _unlink(self._path(name))
            self.close()
        with suppress(OSError):  # others have theirs there
            os.rmdir(self.directory)

    def close(self) -> None:
        """Let go of it; whoever comes next may bring home what is in it."""
        self._is_closed = True
        _let_go(self._marks, self._lock)


class Journal(_Files):
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
        self._segment: OwnFile | None = None
        lock = _new_lock(directory, writer_id, options, like)
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
        self._spare: list[str] = []
        self._most_spare = 0
        self._pwrite = pwrite_holding()
        self._was_slow, self._outside_until_s = False, 0.0
        self.set_synced(options.durability == "power")

    def begin(self, first_seq: int) -> None:
        """
        Have all that storing line *first_seq* and those behind it may need: later there may be no descriptor, no room.

        Raises:
            OSError: It cannot be had.
        """
        self._most_spare = _SPARE_SEGMENTS
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
        while not self._write(line, size):
            if not self._position:
                raise OSError(errno.ENOSPC, "the journal takes no more", self.directory)
            self._begin_segment(seq, size)  # the limit may be the file's own
        # No call from here on: whoever interrupts finds the line stored and counted, or neither.
        if seq >= self.next_seq:
            self._position, self._follows, self.next_seq = self._position + size, seq + 1, seq + 1

    def _write(self, line: bytes, size: int) -> bool:
        """Write *line* at our position; False if it did not fit."""
        began_s = time.perf_counter()
        try:
            # Descriptor and position are read in the call itself: a signal handler may change both before.
            if began_s < self._outside_until_s:
                return os.pwrite(self._descriptor, line, self._position) == size
            written = self._pwrite(self._descriptor, line, size, self._position)
            if written < 0 and (failed := pwrite_error()).errno != errno.EINTR:
                raise failed
            if written < 0:  # a signal came while a FUSE or NFS server kept it waiting; this call tries again by itself
                written = os.pwrite(self._descriptor, line, self._position)
        except OSError as error:
            if error.errno == errno.EBADF:  # somebody has closed all descriptors: go on in a segment with its own
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
        """Begin a segment with line *first_seq*, in space that is reserved: an old one's where there is one."""
        before, self._segment, self._descriptor, self._follows = self._segment, None, -1, -1
        if before is not None and self.is_synced and self.synced_seq < self.next_seq:
            self._unsynced.append(before)
        elif before is not None:  # first, for there may be no descriptor but this one
            before.close()
        if self._is_closed:  # what is stored in one that has been removed nobody would find
            raise OSError(errno.EBADF, "this journal is closed", self.directory)
        if not self._lock.is_ours():
            try:
                self.retake()
            except FileNotFoundError:
                raise OSError(errno.EBADF, "this journal has been brought home", self.directory) from None
        name = segment_name(self.writer_id, first_seq)
        self._use_spare(name)
        segment = open_regular(self._path(name), os.O_RDWR, self._file_mode, like=self.directory)
        reserved = max(size, SEGMENT_BYTES)
        with suppress(OSError, AttributeError):  # then a full disk shows with the line that has no room
            os.posix_fallocate(segment.fileno(), 0, reserved)
        if reserved > SEGMENT_BYTES:
            self._large[name] = reserved
        if (entry := (first_seq, name)) not in self._segments:
            self._segments.append(entry)
        self._names_made += 1
        descriptor = segment.fileno()
        self._segment, self._descriptor, self._position, self._follows = segment, descriptor, 0, first_seq

    def _use_spare(self, name: str) -> None:
        """Let an old segment be *name*; what stands in it has smaller numbers and does not count."""
        with suppress(IndexError, OSError):
            spare = self._path(self._spare.pop())
            try:
                # Not a rename: that one would replace a segment which a signal handler has made there meanwhile.
                os.link(spare, self._path(name))
            finally:
                os.unlink(spare)

    def _discard(self, name: str) -> None:
        if len(self._spare) < self._most_spare and name not in self._large and name not in self._bad:
            self._spare.append(name)
        else:
            super()._discard(name)
            self._large.pop(name, None)

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
        with lock:
            target, made, left = self.next_seq, self._names_made, self._unsynced[:]
            files = [*left, *([self._segment] if self._segment is not None else [])]
            end = (self._segments[-1][1], self._position) if self._segment is not None else self._synced_end
            if made != self._names_synced:
                files.append(self._lock)  # in which stands that it is synced
            try:  # copies, for others may begin a segment, or close us, meanwhile
                copies.extend(os.dup(file.fileno()) for file in files)
            except OSError:
                _close(copies)
                raise
        try:
            for copy in copies:
                _append.sync_file(copy)
        finally:
            _close(copies)
        if made != self._names_synced:
            sync_directory(self._path(""))
            self._names_synced = made
        with lock:
            for file in left:
                if file in self._unsynced:
                    self._unsynced.remove(file)
                _let_go(file)
            if target >= self.synced_seq:
                self.synced_seq, self._synced_end = target, end
            return self.synced_seq

    def begin_behind_synced(self) -> None:
        """
        Forget what is not durable; what is stored next goes to a new segment. Those before are never synced again.

        Raises:
            OSError: It could not all be forgotten.
        """
        _let_go(*self._unsynced, self._segment)
        self._unsynced, self._segment, self._descriptor, self._follows = [], None, -1, -1
        for first_seq, name in self._segments[:]:
            self._bad.add(name)
            if first_seq >= self.synced_seq:
                _unlink(self._path(name))
                self._segments.remove((first_seq, name))
            elif self._synced_end and name == self._synced_end[0]:  # a call that is refused must not come home
                os.truncate(self._path(name), self._synced_end[1])
        self.next_seq = self.synced_seq

    def has_room(self, size: int) -> bool:
        """Say whether a record of *size* bytes may still be kept, as ``journal_max_bytes`` says."""
        size += _TAIL_BYTES
        if self._position + size <= SEGMENT_BYTES or (self._spare and size <= SEGMENT_BYTES):
            return True
        return self.size + max(size, SEGMENT_BYTES) <= self.max_bytes

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        names = [name for _, name in self._segments] + self._spare
        return sum(self._large.get(name, SEGMENT_BYTES) for name in names)

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
            lock = _open_lock(self._path(lock_name(self.writer_id)), self._file_mode, create=False)
            try:
                mark = self._lock_anew(lock, settle)
            except BaseException:  # not left to the collector: the error may be kept, and with it the lock
                _let_go(lock)
                raise
            _let_go(self._lock, self._marks)
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
        _let_go(*self._unsynced, self._segment)

    def remove(self) -> None:
        """Remove the journal: all its lines have arrived."""
        with self._using:
            while self._spare:  # also if the directory cannot be listed now
                _unlink(self._path(self._spare.pop()))
            super().remove()


class Orphan(_Files):
    """
    A journal whose writer is gone, ours to bring home; the writer takes its lines as it takes those of its queue.

    A context manager. Threads: one.
    """

    def __init__(self, directory: str, writer_id: str, lock: OwnFile, file_mode: int, *, is_synced: bool) -> None:
        # Not directory_names: where the list cannot be had (no descriptor left, EIO) that one says that nothing is
        # there, and a journal with nothing in it is removed.
        super().__init__(directory, os.listdir(directory), writer_id, lock, file_mode, is_synced=is_synced)
        self._unread = iter(self._segments[:])  # a copy: each segment leaves the list when its lines are home
        self._next_seq = self._home_seq = self._mark.consumed
        self._lines: list[bytes] = []
        self.intent: Intent | None = self._mark.intent
        """What its writer, or an adopter before us, or we were about to append."""
        self.consumed = 0
        """How many lines have come home by us."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever comes next would find our last block by the intent, and count it as brought home by him as well.
        if self.intent is None and self._home_seq > self._mark.consumed:
            with suppress(OSError, LogPathError):
                self.mark(self._home_seq, None)
        self.close()

    def note(self, intent: Intent) -> None:
        """Note what is about to be appended, and what has arrived before."""
        self.mark(self._home_seq, intent)
        self.intent = intent

    def first(self, count: int) -> list[bytes]:
        """Return the first *count* lines that have not come home; fewer if there are no more."""
        while len(self._lines) < count and (segment := next(self._unread, None)):
            first_seq, name = segment
            if self.is_synced:
                self._sync(self._path(name))
            for seq, _, line in whole_lines(content(self._path(name)), self.writer_id, first_seq):
                if seq >= self._next_seq:  # a store that was interrupted may stand in two segments
                    self._lines.append(line)
                    self._next_seq = seq + 1
        return self._lines[:count]

    def _sync(self, segment: str) -> None:
        # A process that was killed may have stored lines in it that it had not synced yet; see LineQueue.make_durable.
        with open_regular(segment, os.O_RDONLY, self._file_mode, create=False) as file:
            _append.sync_file(file.fileno())
        sync_directory(segment)

    def make_durable(self, line: bytes) -> None:
        """Do nothing: *line* and all others of a segment are durable since that one was read."""

    def head(self, max_bytes: int) -> list[bytes]:
        """Return the lines that are next, up to *max_bytes* but at least one."""
        self.first(1)
        size = 0
        for count, line in enumerate(self._lines):
            size += len(line)
            if count and size > max_bytes:
                return self._lines[:count]
        return self._lines[:]

    def consume(self, count: int) -> None:
        """Forget the first *count* lines: they have arrived. Ends the intent."""
        self._home_seq = seq_of(self._lines[count - 1]) + 1 if count else self._home_seq
        self._lines, self.consumed, self.intent = self._lines[count:], self.consumed + count, None
        # Else the next intent notes it as well; until then the one before leads to the bytes in the log.
        if self.empty():
            self.mark(self._home_seq, None)

    @property
    def segments(self) -> int:
        """How many of its files hold lines that have not all come home, as far as that is noted."""
        return len(self._segments)

    def give_up(self) -> int:
        """
        Return how many lines have not come home; none can be taken any more.

        Raises:
            OSError: They cannot be read.
        """
        count = 0
        while self.first(1):
            count, self._lines = count + len(self._lines), []
        return count

    def empty(self) -> bool:
        """Say whether all its lines have come home."""
        return not self.first(1)


class Left(NamedTuple):
    """A journal that is not ours to bring home: its lock is held, or it may not be opened."""

    directory: str
    writer_id: str
    holder: str
    """Who holds the lock, as far as the machine tells: its writer, or another process that brings it home."""
    error: OSError | LogPathError | None
    """Why it may not be opened; None if somebody holds it."""


def orphans(
    directory: str,
    file_mode: int,
    tell: Callable[[Left], object] | None = None,
    but: str = "",
    *,
    is_synced: bool = False,
) -> Iterator[Orphan]:
    """
    Yield the journals in *directory* whose writers are gone, each locked by us.

    Args:
        directory: Where they are.
        file_mode: Of what is made there.
        tell: Called with each that stays.
        but: A writer who is not gone, even if his lock has been closed under him: ourselves.
        is_synced: Whether all are brought home as at durability power; those of that durability always are.
    """
    for writer_id in writers_among(directory_names(directory)):
        if writer_id == but:
            continue
        path = os.path.join(directory, lock_name(writer_id))
        lock = None
        try:
            lock = _open_lock(path, file_mode, create=False)
            if not _lock.try_acquire(lock):
                if tell is not None:
                    tell(Left(directory, writer_id, _lock.holder_of(lock), None))
                _let_go(lock)
                continue
            if _lock.is_replaced(lock, path):
                _let_go(lock)
                continue
            is_durable = is_synced or lock.read(len(SYNCED)) == SYNCED
            orphan = Orphan(directory, writer_id, lock, file_mode, is_synced=is_durable)
        except (OSError, LogPathError) as error:
            _let_go(lock)
            if tell is not None and not isinstance(error, FileNotFoundError):
                tell(Left(directory, writer_id, "", error))
            continue
        with orphan:
            yield orphan


def has_journals(directory: str, but: str = "") -> bool:
    """Say whether there is any journal *but* that of one writer, of a living one or not."""
    return any(writer_id != but for writer_id in writers_among(directory_names(directory)))


def note_location(path: str, options: Options) -> None:
    """
    Note beside the log at *path* where the options say that our journals are, so that others bring them home, too.

    Raises:
        OSError: It could not be noted: only who has the same ``journal_directory`` will find them.
    """
    place = own_directory(path, options.journal_directory)
    if place == journal_directory(path) or place in journal_directories(path)[1:]:
        return
    _make_directory(journal_directory(path), options, like=path)
    with open_regular(location_file(path), os.O_RDWR | os.O_APPEND, options.file_mode, like=path) as file:
        # A line of its own also behind one that a kill cut off; one write, so that others' do not come in between.
        os.write(file.fileno(), b"\n" + os.fsencode(place) + b"\n")
        if options.durability == "power":
            _append.sync_file(file.fileno())
            sync_directory(location_file(path))


def _make_directory(directory: str, options: Options, like: str) -> None:
    made = make_directory(directory, options.directory_mode, like)
    if options.durability == "power":
        for one in made or [directory]:  # whoever made it before us may not have synced it
            sync_directory(one)


def _new_lock(directory: str, writer_id: str, options: Options, like: str) -> OwnFile:
    """Make and take a writer's liveness lock; a directory that is made for it belongs to the owner of *like*."""
    path = os.path.join(directory, lock_name(writer_id))
    for nap in naps(_LOCK_BUDGET_S):
        _make_directory(directory, options, like)
        if (kind := describe_file_type(directory)) not in {"a directory", ""}:
            raise LogPathError(directory, kind)
        # Somebody who took the last journal home may have removed the directory since.
        with suppress(FileNotFoundError):
            lock = _open_lock(path, options.file_mode, create=True, like=directory)
            # Between its making and our locking it somebody may have taken it for an orphan, and remove it.
            if _lock.try_acquire(lock) and not _lock.is_replaced(lock, path):
                return lock
            lock.close()
        time.sleep(nap)
    raise OSError(errno.EAGAIN, "the journal was taken away again and again while it was made", path)


def _open_lock(path: str, file_mode: int, *, create: bool, like: str = "") -> OwnFile:
    lock = open_regular(path, os.O_RDWR, file_mode, create=create, like=like)
    forget_in_child(lock)  # before it is locked: a child forked by another thread must not hold it, too
    return lock


def _let_go(*files: OwnFile | None) -> None:
    """Close *files*; whatever error they tell then, the kernel has closed them."""
    for file in files:
        if file is not None:
            with suppress(OSError):
                file.close()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
