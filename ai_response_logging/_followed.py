"""One plain file that others append to, read as far as its lines are whole; what :mod:`.follow` is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Final

from .reader import MAX_LINE_BYTES

__all__ = ["FollowedFile", "lines_backward", "start_behind"]

_PIECE_BYTES: Final = 1 << 16
_READ_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 512  # a record's id and time stand in it: no two files begin alike
_REWRITTEN_BYTES: Final = (
    4 << 20
)  # of the end of a file that was replaced, in which its successor's lines are looked up


class FollowedFile:
    """
    A plain file of a log, open for as long as it is followed: so its inode is nobody else's.

    Args:
        path: Its name when it was met; it may get another.
        stream: It, open; what is followed is the file itself, whatever stands at its name by now.
    """

    def __init__(self, path: str, stream: BinaryIO) -> None:
        self.path = path
        self.offset = 0
        """Behind the last whole line that was given."""
        self.idle_looks = 0
        self._head = b""
        self._size = -1
        self._descriptor = os.dup(stream.fileno())
        status = os.fstat(self._descriptor)
        self.identity = status.st_dev, status.st_ino

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def skip_to_end(self, size: int) -> None:
        """Follow only what comes behind the last whole line within the first *size* bytes."""
        for offset, line in lines_backward(self._descriptor, size):
            self.offset = offset + len(line)
            break
        self._head = os.pread(self._descriptor, min(_HEAD_BYTES, self.offset), 0)

    def begins_with(self, line: bytes) -> bool:
        """Say whether *line* is its first."""
        return bool(line) and os.pread(self._descriptor, len(line), 0) == line

    def grown(self) -> Iterator[tuple[int, bytes]]:
        """Yield the whole lines that have come since, each with its offset."""
        size = os.fstat(self._descriptor).st_size
        if size == self._size:
            self.idle_looks += 1
            return
        self._size, self.idle_looks = size, 0
        # As much of its beginning as is still there: a small log that was cut back has less of it, and the same.
        if not self._head.startswith(os.pread(self._descriptor, len(self._head), 0)):
            self.offset = 0  # emptied and written anew, as logrotate's copytruncate does
        elif size < self.offset:
            self.offset = size  # a writer has cut back what it could not append whole
        yield from self._whole_lines()
        self._head = os.pread(self._descriptor, min(_HEAD_BYTES, self.offset), 0)

    def _whole_lines(self) -> Iterator[tuple[int, bytes]]:
        rest = b""
        while piece := os.pread(self._descriptor, _READ_BYTES, self.offset + len(rest)):
            # Where a line ends is looked for in the new piece only: a long line comes in many.
            if b"\n" not in piece:
                rest += piece
                if len(rest) > MAX_LINE_BYTES:
                    self.offset, rest = self.offset + len(rest), b""
                continue
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                start, self.offset = self.offset, self.offset + len(line) + 1
                yield start, line + b"\n"


def lines_backward(descriptor: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a file before byte *end*, the last one first; one without its newline is left out."""
    pieces: list[bytes] = []  # of the line whose beginning is still looked for, the last one first
    start, is_first = end, True
    while start > 0:
        begin = max(0, start - _PIECE_BYTES)
        data = os.pread(descriptor, start - begin, begin)
        *lines, last = data.split(b"\n")
        offset = begin + len(data) - len(last)
        pieces.append(last)
        for line in reversed(lines):
            if not is_first:
                yield offset, b"".join(reversed(pieces)) + b"\n"
            is_first = False
            pieces = [line]
            offset -= len(line) + 1
        start = begin
    if pieces and not is_first:
        yield 0, b"".join(reversed(pieces)) + b"\n"


def start_behind(before: FollowedFile, now: FollowedFile) -> int:
    """
    Return where in *now*, which has taken the place of *before*, stands what *before* did not hold.

    Behind the last of its lines that stood there, too; at 0 if none did, as in a new log.
    """
    known: set[bytes] = set()
    size = 0
    for _, line in lines_backward(before._descriptor, before.offset):  # noqa: SLF001  the same module
        known.add(line)
        size += len(line)
        if size > _REWRITTEN_BYTES:
            break
    end = os.fstat(now._descriptor).st_size  # noqa: SLF001  the same module
    return next(
        (offset + len(line) for offset, line in lines_backward(now._descriptor, end) if line in known),  # noqa: SLF001
        0,
    )
