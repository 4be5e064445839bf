"""
The files of one journal, as its writer and whoever adopts it have them: the liveness lock, the marks, the segments.

See :mod:`._journal_format` for their bytes. A journal belongs to whoever holds its liveness lock: its writer, or, when
the kernel has freed the lock because that one died, the first process that takes it. Nothing is ever told by a pid:
in containers all are 1.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress

from . import _append, _lock
from ._fork import forget_in_child
from ._journal_find import content
from ._journal_format import (
    MARK_BYTES,
    Intent,
    Mark,
    directory_names,
    find_mark,
    lock_name,
    mark_name,
    segments_among,
)
from ._paths import OwnFile, open_regular, sync_directory

__all__ = ["JournalFiles", "let_go", "open_lock", "unlink"]


class JournalFiles:
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

    def outlive_threads(self) -> None:
        """While the interpreter ends: free what a thread held that it has stopped."""
        self._using = _lock.outlived(self._using)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def mark(self, consumed: int, intent: Intent | None, *, is_ours: bool = False) -> None:
        """
        Note that the lines below *consumed* have arrived, and what is about to be appended.

        *is_ours* says that the intent to append them was noted since the log was locked, and with it that the liveness
        lock is ours. It is not asked for again: whoever has taken that one since waits for the log, having noted
        nothing, and what he notes first, when he has found those lines there, has this mark's number, slot and meaning.

        Raises:
            OSError: It could not be noted, or not to the end; the mark before it holds, or this one.
        """
        with self._using:
            if consumed < self._mark.consumed:  # somebody was quicker to note more
                return
            mark = Mark(self._mark.number + 1, consumed, intent)
            start, slot = mark.slot()
            # Without the interpreter lock, unlike a line: on a disk that stands still only this thread is to stand, and
            # whoever flushes or closes comes back in time.
            if os.pwrite(self._open_marks(is_ours=is_ours), slot, start) != MARK_BYTES:  # half holds nobody back
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

    def _open_marks(self, newest: Mark | None = None, *, is_ours: bool = False) -> int:
        # Without its lock another process may bring it home.
        if self._is_closed or not (is_ours or self._lock.is_ours()):
            raise OSError(errno.EBADF, "this journal is closed", self.directory)
        if self._marks is None or not self._marks.is_ours():
            name = self._path(mark_name(self.writer_id))
            if self._marks_are_bad:
                self._replace_marks(name, newest or self._mark)
            self._marks = open_regular(name, os.O_RDWR, self._file_mode, like=self.directory)
        return self._marks.fileno()

    def _replace_marks(self, name: str, newest: Mark) -> None:
        """
        Put a new mark file, with the *newest* mark in it, in the place of one that could not be synced.

        Not by a WholeFile: its one name is removed together with the journal, whoever was killed in between.
        """
        unlink(f"{name}.new")
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
        unlink(self._path(name))

    def remove(self) -> None:
        """Remove the journal: all its lines have arrived."""
        # The lock last: what is killed half-way is an orphan with nothing in it.
        with self._using:
            # What stands there counts, not what we know of: an interrupted store may have made one more.
            there = [*self._segments, *segments_among(directory_names(self.directory), self.writer_id)]
            for _, name in there:
                unlink(self._path(name))
            marks = mark_name(self.writer_id)
            if self.is_synced:  # no line may outlive the mark that says that it has arrived
                sync_directory(self._path(marks))
            for name in (marks, f"{marks}.new", lock_name(self.writer_id)):
                unlink(self._path(name))
            self.close()
        with suppress(OSError):  # others have theirs there
            os.rmdir(self.directory)

    def close(self) -> None:
        """Let go of it; whoever comes next may bring home what is in it."""
        self._is_closed = True
        let_go(self._marks, self._lock)


def open_lock(path: str, file_mode: int, *, create: bool, like: str = "") -> OwnFile:
    """Open a liveness lock at *path*, and make it if *create* says so; it is not locked yet."""
    lock = open_regular(path, os.O_RDWR, file_mode, create=create, like=like)
    forget_in_child(lock)  # before it is locked: a child forked by another thread must not hold it, too
    return lock


def let_go(*files: OwnFile | None) -> None:
    """Close *files*; whatever error they tell then, the kernel has closed them."""
    for file in files:
        if file is not None:
            with suppress(OSError):
                file.close()


def unlink(path: str) -> None:
    """Remove the file at *path* if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)
