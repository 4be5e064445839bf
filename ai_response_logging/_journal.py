"""
One writer's lines on disk until they have arrived in the log, and the journals of writers that are gone.

See :mod:`._journal_format` for the files. A journal belongs to whoever holds its liveness lock: its writer, or, when
the kernel has freed the lock because that one died, the first process that takes it. Nothing is ever told by a pid:
in containers all are 1.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from . import _append, _lock
from ._fork import forget_in_child
from ._journal_format import (
    MARK_BYTES,
    Intent,
    Mark,
    directory_names,
    find_mark,
    lock_name,
    mark_name,
    segment_name,
    segments_among,
    seq_of,
    whole_lines,
    writers_among,
)
from ._paths import create_file, describe_file_type, make_directory, open_regular
from ._retry import naps
from .errors import AppendError, LogPathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO

    from ._options import Options

__all__ = ["Journal", "Orphan", "has_journals", "orphans"]

SEGMENT_BYTES: Final = 1 << 20
_LOCK_BUDGET_S: Final = 1.0  # an adopter that came first sees in far less that there is nothing in it yet


class _Files:
    """A journal's files, its lock held; what its writer and its adopter share."""

    _marks: FileIO | None

    def __init__(self, directory: str, writer_id: str, lock: FileIO, file_mode: int) -> None:
        self.directory = directory
        self.writer_id = writer_id
        self._lock, self._marks = lock, None
        self._file_mode = file_mode
        self._is_closed = False
        self._using = threading.RLock()
        forget_in_child(self)
        # In a new journal, too: what could not be removed of an earlier one of this writer must not outrank it.
        self._segments = segments_among(directory_names(directory), writer_id)
        self._mark = Mark(-1, 0, None)
        with suppress(FileNotFoundError):
            self._mark = find_mark(_content(self._path(mark_name(writer_id))))

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
            self._mark = mark
            self._remove_segments(consumed)

    def _open_marks(self) -> int:
        if self._is_closed:
            raise OSError(errno.EBADF, "this journal is closed", self.directory)
        if self._marks is None:
            self._marks = open_regular(self._path(mark_name(self.writer_id)), os.O_RDWR, self._file_mode)
        return self._marks.fileno()

    def _remove_segments(self, consumed: int) -> None:
        """Remove the segments whose lines have all arrived."""
        while len(self._segments) > 1 and self._segments[1][0] <= consumed:
            try:
                _unlink(self._path(self._segments[0][1]))
            except OSError:  # the mark holds without it; remove() tries again
                return
            self._segments.pop(0)

    def remove(self) -> None:
        """Remove the journal: all its lines have arrived."""
        # The lock last: what is killed half-way is an orphan with nothing in it.
        with self._using:
            names = [name for _, name in self._segments]
            for name in (*names, mark_name(self.writer_id), lock_name(self.writer_id)):
                _unlink(self._path(name))
            self.close()
        with suppress(OSError):  # others have theirs there
            os.rmdir(self.directory)

    def close(self) -> None:
        """Let go of it; whoever comes next may bring home what is in it."""
        self._is_closed = True
        for file in (self._marks, self._lock):
            if file is not None:
                with suppress(OSError):
                    file.close()


class Journal(_Files):
    """
    This writer's journal.

    Raises:
        OSError: It cannot be made.

    Durability: What is stored survives the death of the process, not loss of power.
    Threads: :meth:`mark` any; :meth:`store` one at a time.
    """

    def __init__(self, directory: str, writer_id: str, options: Options) -> None:
        super().__init__(directory, writer_id, _new_lock(directory, writer_id, options), options.file_mode)
        self.next_seq = 0
        """The number from which on nothing has been stored."""

    def store(self, lines: Sequence[bytes]) -> int:
        """Store *lines*, in the order of their numbers, and return how many; fewer where the disk takes no more."""
        stored = 0
        while stored < len(lines):
            count = self._store_segment(_run(lines[stored:]))
            if not count:
                break
            stored += count
        return stored

    def _store_segment(self, lines: Sequence[bytes]) -> int:
        first_seq = seq_of(lines[0])
        name = segment_name(self.writer_id, first_seq)
        with self._using:
            if self._is_closed:  # what is stored in one that has been removed nobody would find
                return 0
            try:
                _unlink(self._path(name))  # of an attempt that stored nothing, or was interrupted
                descriptor = create_file(self._path(name), os.O_WRONLY | os.O_APPEND, self._file_mode)
            except OSError:
                return 0
            self._segments = [one for one in self._segments if one[1] != name] + [(first_seq, name)]
            try:
                count = _stored(descriptor, lines, name)
            finally:
                os.close(descriptor)
            self.next_seq = first_seq + count
        return count


class Orphan(_Files):
    """
    A journal whose writer is gone, ours to bring home; the writer takes its lines as it takes those of its queue.

    A context manager. Threads: one.
    """

    def __init__(self, directory: str, writer_id: str, lock: FileIO, file_mode: int) -> None:
        super().__init__(directory, writer_id, lock, file_mode)
        self._unread = iter(self._segments[:])  # a copy: each segment leaves the list when its lines are home
        self._next_seq = self._mark.consumed
        self._lines: list[bytes] = []
        self.consumed = 0
        """How many lines have come home by us."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def intent(self) -> Intent | None:
        """What its writer, or an adopter before us, was about to append."""
        return self._mark.intent

    def note(self, intent: Intent) -> None:
        """Note what is about to be appended."""
        self.mark(self._mark.consumed, intent)

    def first(self, count: int) -> list[bytes]:
        """Return the first *count* lines that have not come home; fewer if there are no more."""
        while len(self._lines) < count and (segment := next(self._unread, None)):
            first_seq, name = segment
            for seq, line in enumerate(whole_lines(_content(self._path(name)), self.writer_id, first_seq), first_seq):
                if seq >= self._next_seq:  # a store that was interrupted may stand in two segments
                    self._lines.append(line)
                    self._next_seq = seq + 1
        return self._lines[:count]

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
        consumed = seq_of(self._lines[count - 1]) + 1 if count else self._mark.consumed
        self._lines, self.consumed = self._lines[count:], self.consumed + count
        self.mark(consumed, None)

    def empty(self) -> bool:
        """Say whether all its lines have come home."""
        return not self.first(1)


def orphans(directory: str, file_mode: int) -> Iterator[Orphan]:
    """Yield the journals in *directory* whose writers are gone, each locked by us; those that we may not open stay."""
    for writer_id in writers_among(directory_names(directory)):
        path = os.path.join(directory, lock_name(writer_id))
        try:
            lock = open_regular(path, os.O_RDWR, file_mode, create=False)
        except (OSError, LogPathError):
            continue
        try:
            if not _lock.try_acquire(lock) or _lock.is_replaced(lock, path):
                lock.close()
                continue
            orphan = Orphan(directory, writer_id, lock, file_mode)
        except (OSError, LogPathError):
            lock.close()
            continue
        with orphan:
            yield orphan


def has_journals(directory: str) -> bool:
    """Say whether there is any journal, of a living writer or not."""
    return bool(writers_among(directory_names(directory)))


def _new_lock(directory: str, writer_id: str, options: Options) -> FileIO:
    """Make and take a writer's liveness lock."""
    path = os.path.join(directory, lock_name(writer_id))
    for nap in naps(_LOCK_BUDGET_S):
        make_directory(directory, options.directory_mode)
        if (kind := describe_file_type(directory)) not in {"a directory", ""}:
            raise LogPathError(directory, kind)
        # Somebody who took the last journal home may have removed the directory since.
        with suppress(FileNotFoundError):
            lock = open_regular(path, os.O_RDWR, options.file_mode)
            # Between its making and our locking it somebody may have taken it for an orphan, and remove it.
            if _lock.try_acquire(lock) and not _lock.is_replaced(lock, path):
                return lock
            lock.close()
        time.sleep(nap)
    raise OSError(errno.EAGAIN, "the journal was taken away again and again while it was made", path)


def _stored(descriptor: int, lines: Sequence[bytes], name: str) -> int:
    """Append *lines* and return how many stand whole in the file: that many count, the limit may be the file's own."""
    try:
        _append.append_block(descriptor, b"".join(lines), path=name)
    except AppendError as error:
        ends = itertools.accumulate(map(len, lines))
        return sum(end <= error.written_bytes for end in ends)
    return len(lines)


def _run(lines: Sequence[bytes]) -> Sequence[bytes]:
    """Return the first of *lines* that may share a segment: numbered without a gap, and not too large."""
    size, seq = 0, seq_of(lines[0])
    for count, line in enumerate(lines):
        size += len(line)
        if count and (size > SEGMENT_BYTES or seq_of(line) != seq + count):
            return lines[:count]
    return lines


def _content(path: str) -> bytes:
    with open_regular(path, os.O_RDONLY, 0, create=False) as file:
        return file.readall()


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
