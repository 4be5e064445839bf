"""
Append whole blocks to the log, and put right what a killed writer left.

Raw ``write`` on an O_APPEND descriptor, always under the cross-process lock. After a short write the rest of the
same block follows, never the block again: whoever writes a block twice after half of it arrived makes one torn
line and one duplicate. When the kernel refuses in the middle, whole lines that arrived have arrived; only the
piece of a line behind them is cut off.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from ._paths import OwnFile, create_file, utc_suffix
from .errors import AppendError

if sys.platform == "darwin":  # its fsync stops at the disk's own cache
    from fcntl import F_FULLFSYNC, fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "STRANGERS_BYTES",
    "append_block",
    "arrived_lines",
    "blind",
    "cut_back",
    "fill_holes",
    "holed_lines",
    "is_whole",
    "piece_bytes",
    "repair_tail",
    "run_of",
    "sync_file",
]

STRANGERS_BYTES = 1 << 20
"""So many that a stranger has appended between our look at the file and our write are looked through for our lines."""

_CHUNK = 1 << 16


def append_block(descriptor: int, block: bytes, *, path: str) -> None:
    """
    Append *block* whole, or say how much of it got there.

    Args:
        descriptor: Open with O_APPEND, under the cross-process lock.
        block: Whole UTF-8 lines, each with its newline.
        path: Named in errors only.

    Raises:
        AppendError: The kernel refused; ``written_bytes`` stand in the file.

    Durability: Survives kill -9 on return; loss of power only after a sync.
    Threads: Any, one at a time; the lock is the caller's.
    Source: POSIX write(2), short writes on regular files.
    """
    written, size = 0, len(block)
    rest = memoryview(block)
    while written < size:
        try:
            count = os.write(descriptor, rest[written:])
        except OSError as error:  # ENOSPC, EDQUOT, EIO, EFBIG, EAGAIN, EROFS, ...: the same for us, the rest waits
            raise AppendError(path, error.errno or 0, written, size) from error
        if count == 0:  # POSIX lets a file system say "nothing, and no error"; asking for ever would hang
            raise AppendError(path, 0, written, size)
        written += count


def sync_file(descriptor: int) -> None:
    """
    Return when what was written to the file before this call is on the disk, as far as the disk tells the truth.

    Raises:
        OSError: It may not be, and no later call can make it so: the kernel has given the bytes up (fsync(2), NOTES).

    Threads: any.
    """
    if sys.platform == "darwin":
        fcntl(descriptor, F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def arrived_lines(descriptor: int, start: int, lines: Sequence[bytes]) -> int:
    """Return how many of *lines* stand whole and in order in the file from byte *start* on, or a bit behind it."""
    return run_of(lines, os.pread(descriptor, STRANGERS_BYTES + sum(map(len, lines)), start)) if lines else 0


def run_of(lines: Sequence[bytes], data: bytes) -> int:
    """
    Return how many of *lines* stand whole and in order in *data*, wherever the first of them begins.

    That is seldom the very start, but whoever appends without our lock (an `echo >>`) may have come in between.
    """
    start, found = data.find(lines[0]), 0
    if start < 0:
        return 0
    for line in lines:
        if not data.startswith(line, start):
            break
        start, found = start + len(line), found + 1
    return found


def holed_lines(descriptor: int, start: int, lines: Sequence[bytes]) -> int:
    """
    Return how many of *lines*, a block begun at byte *start*, stand there with holes in them; 0 if there is no hole.

    Loss of power may leave the end of a block and take what stands before it, which then is zeros. Nothing but the
    block's own bytes and zeros may stand in those lines; others may have appended theirs behind them.
    """
    found = os.pread(descriptor, sum(map(len, lines)), start)
    count = place = 0
    if b"\0" not in found:
        return 0
    for line in lines:
        here = found[place : place + len(line)]
        if not here or any(is_there not in (0, ours) for is_there, ours in zip(here, line, strict=False)):
            break
        count, place = count + 1, place + len(line)
    return count if b"\0" in found[:place] else 0


def fill_holes(descriptor: int, start: int, lines: Sequence[bytes]) -> None:
    """
    Write *lines* over their own remains, from byte *start* on, and sync them.

    Raises:
        OSError: They may not all be there; what is missing are zeros, as before.

    Threads: As :func:`append_block`; the descriptor is open without O_APPEND, which would put them at the end.
    """
    rest = memoryview(b"".join(lines))
    while rest:
        written = os.pwrite(descriptor, rest, start)
        rest, start = rest[written:], start + written
    sync_file(descriptor)


def piece_bytes(descriptor: int, start: int, lines: Sequence[bytes]) -> int:
    """Return how many bytes of the first of *lines*, but not all of it, end the file from byte *start* on; else 0."""
    if not lines:
        return 0
    found = os.pread(descriptor, len(lines[0]), start)
    return len(found) if len(found) < len(lines[0]) and lines[0].startswith(found) else 0


def cut_back(descriptor: int, size: int, *, expected: int) -> bool:
    """
    Cut the file back from *expected* bytes to *size* after a failed append; False if that cannot be done.

    A piece of a line that stays is left to :func:`repair_tail`: whoever appends next finds it. A file that is not
    as long as expected has bytes of somebody who takes no lock, and those are not ours to cut.
    """
    try:
        if os.fstat(descriptor).st_size != expected:
            return False
        if size != expected:
            os.ftruncate(descriptor, size)
    except OSError:
        return False
    return True


def is_whole(descriptor: int, size: int) -> bool:
    """Say whether the last line of a file of *size* bytes has its end."""
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def repair_tail(descriptor: int, path: str, file_mode: int) -> str:
    """
    Move a torn last line aside into ``<path>.torn-<UTC>``, so that the next record is not glued to it.

    Returns:
        The name of the file that now holds it; empty if the last line is whole.

    Raises:
        OSError: Neither could it be moved nor could the line be closed.

    Durability: The torn bytes are copied and synced before they are cut off. Killed in between, the next writer
    copies them once more: a torn file may stand twice, a record never.
    """
    size = os.fstat(descriptor).st_size
    if is_whole(descriptor, size):
        return ""
    start = _last_line_start(descriptor, size)
    torn = ""
    try:
        torn = _copy_aside(descriptor, start, size, path, file_mode)
        os.ftruncate(descriptor, start)
    except OSError:
        # No room or no right for a new file, or no cutting. The log must go on: end the torn line where it is.
        # Readers skip it and verify names it; its bytes are still there.
        append_block(descriptor, b"\n", path=path)
        if torn:
            os.unlink(torn)
        return ""
    return torn


_blinded: list[OwnFile] = []


def blind(*files: OwnFile | None) -> None:
    """Let the descriptors of *files* lead nowhere, and keep their numbers taken for as long as the process lives."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for file in files:
        if file is not None and file.is_ours():
            os.dup2(null, file.fileno(), inheritable=False)
            _blinded.append(file)
    os.close(null)


def _last_line_start(descriptor: int, size: int) -> int:
    """Return where the last line begins: behind the last newline, or at 0."""
    end = size
    while end > 0:
        begin = max(0, end - _CHUNK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _copy_aside(descriptor: int, start: int, end: int, path: str, file_mode: int) -> str:
    torn = first = f"{path}.torn-{utc_suffix()}"
    for number in count(1):
        if not os.path.lexists(torn):
            break
        torn = f"{first}-{number}"  # a clock that was set back, or stands still
    target = create_file(torn, os.O_WRONLY, file_mode, like=path)
    try:
        while start < end:
            piece = os.pread(descriptor, min(_CHUNK, end - start), start)
            if not piece:
                break
            append_block(target.fileno(), piece, path=torn)
            start += len(piece)
        os.fsync(target.fileno())
    except (OSError, AppendError) as error:
        with suppress(OSError):
            os.unlink(torn)
        raise OSError(getattr(error, "errno", 0) or 0, "cannot set the torn line aside") from error
    finally:
        target.close()
    return torn
