"""
The space that a journal's lines go to: the segment that is ready for when this one is full, and those that are spare.

What :class:`~._journal.Journal` inherits; its own module has the way of a line into a segment.

A call that stores a line makes no segment where it can be helped: that takes a dozen system calls of which each gives
up the interpreter lock, and beside a busy thread gets it back 5 ms later. Whoever writes to the log has one ready,
open and reserved; the call gives it its name, in one system call that keeps that lock.

Until then it is a segment under another name, for whoever finds it when this process was killed, and right as such: a
spare one's, whose lines have all arrived; or a number that no line has, and no line in it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._journal_files import JournalFiles, let_go, unlink
from ._journal_format import segment_name
from ._libc import rename_holding
from ._paths import OwnFile, open_regular
from .errors import LogPathError

__all__ = ["SEGMENT_BYTES", "JournalSpace", "reserve"]

SEGMENT_BYTES: Final = 1 << 20
_NO_LINE: Final = 10**15  # numbers from here on are no line's: a million lines a second take 30 years to get there
_LITTLE_BYTES: Final = SEGMENT_BYTES >> 4  # whoever stores no more than that will never need a second segment
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})  # this file system, kernel, sandbox


class JournalSpace(JournalFiles):
    """
    The segments of a journal that hold no lines, or no longer.

    Threads: :meth:`prepare` any; all else as :class:`~._journal.Journal` says.
    """

    _ready: tuple[OwnFile, str] | None = None
    """A segment that is open and reserved, and its name: one call takes it out of here, and has it for itself."""

    if TYPE_CHECKING:  # what the journal has
        max_bytes: int
        _segment: OwnFile | None
        _position: int
        _left: list[OwnFile]
        _spare: list[str]
        _bad: set[str]
        _large: dict[str, int]

        @property
        def size(self) -> int:
            """Bytes that it takes on the disk."""

        def is_gone(self) -> bool:
            """Say whether somebody has removed it."""

    def _begin_space(self) -> None:
        self._most_spare = self._made = 0
        self._rename = rename_holding()

    def prepare(self) -> None:
        """
        Have a segment ready for when this one is full, and let go of those that calls have left.

        For whoever has just written to the log. Never raises for want of anything: then the call makes it itself.
        """
        left, self._left = self._left, []
        let_go(*left)
        if self._rename is None or self._segment is None:
            return
        if self._spare or self._position >= _LITTLE_BYTES:
            with self._using, suppress(OSError, LogPathError):  # not beside remove()
                if self._ready is None:
                    self._make_ready()

    def _make_ready(self) -> None:
        if self.is_gone():  # nobody would remove it
            return
        try:
            name = self._spare.pop()
        except IndexError:
            if self.size + SEGMENT_BYTES > self.max_bytes >> 1:  # the room is for what waits
                return
            self._made += 1
            name = segment_name(self.writer_id, _NO_LINE + self._made)
        try:
            file = open_regular(self._path(name), os.O_RDWR, self._file_mode, like=self.directory)
        except BaseException:
            self._spare.append(name)
            raise
        reserve(file, SEGMENT_BYTES)
        self._ready = file, name
        if self._is_closed:  # meanwhile, by another thread: one of us sees the other's
            self._drop_ready()

    def _take_ready(self, name: str) -> OwnFile | None:
        """Return the segment that is ready, which is *name* now; None if there is none, or it cannot be that."""
        ready, self._ready = self._ready, None
        if ready is None or self._rename is None:
            return None
        file, before = ready
        # Never in the place of another one, which a signal handler may have made there meanwhile.
        failed = self._rename(self._path(before), self._path(name))
        if not failed:
            return file
        if failed in _CANNOT:
            self._rename = None
        self._left.append(file)
        self._spare.append(before)
        return None

    def _drop_ready(self) -> None:
        """Let what is ready be spare again: its descriptor may be anybody's by now, or is to be closed."""
        ready, self._ready = self._ready, None
        if ready is not None:
            let_go(ready[0])
            self._spare.append(ready[1])

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
        spare = len(self._spare) + (self._ready is not None)
        if spare < self._most_spare and name not in self._large and name not in self._bad:
            self._spare.append(name)
        else:
            super()._discard(name)
            self._large.pop(name, None)

    def _remove_spares(self) -> None:  # a function of its own: see _queue._beginning
        while self._spare:
            unlink(self._path(self._spare.pop()))


def reserve(file: OwnFile, size: int) -> None:
    """Have *size* bytes of the disk for *file*."""
    with suppress(OSError, AttributeError):  # then a full disk shows with the line that has no room
        os.posix_fallocate(file.fileno(), 0, size)
