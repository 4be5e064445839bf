"""
What of a block that was about to be appended stands in the log already, or in one of its old files; made whole there.

The intent says where, the bytes decide: nothing is counted that they do not show.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from . import _append, _lock, _rotate
from ._compress import arrived_in_compressed
from ._paths import open_regular
from .errors import WriteError

if TYPE_CHECKING:
    from ._journal_format import Intent
    from .stats import FaultLog

__all__ = ["arrived_in_files"]


def arrived_in_files(log: str, intent: Intent, lines: list[bytes], faults: FaultLog, *, is_synced: bool) -> int:
    """
    Return how many of *lines* stand where *intent* says in the file at *log* or in an old one, synced if wanted.

    Raises:
        WriteError: They cannot be synced.
        OSError: The same.

    Threads: one, under the log's lock.
    """
    there: list[tuple[str, int]] | None = None
    # Others compress and rename old files without our lock: one that moves behind our back must not be missed.
    while there != (there := _rotate.numbered(log)):
        arrived = _arrived_in(log, [path for path, _ in there], intent, lines, faults, is_synced=is_synced)
        if arrived is not None:
            return arrived
    return 0


def _arrived_in(
    log: str, rotated: list[str], intent: Intent, lines: list[bytes], faults: FaultLog, *, is_synced: bool
) -> int | None:
    """Return how many of *lines* stand in the log or one of the *rotated* files; None if nothing of them does."""
    start = intent.start
    plain = [log, *(path for path in rotated if not path.endswith(".gz"))]
    for path in plain:
        with suppress(FileNotFoundError), open_regular(path, os.O_RDONLY, 0, create=False) as other:
            descriptor = other.fileno()
            found = _append.arrived_lines(descriptor, start, lines)
            if found < (holed := _append.holed_lines(descriptor, start, lines)):
                _fill_holes(path, start, lines[:holed], faults)
                return holed
            if found and is_synced:
                _sync_arrived(descriptor, path)
            end = start + sum(map(len, lines[:found]))
            if path != log and (found or os.fstat(descriptor).st_ino == intent.inode):
                _cut_torn(path, end, _append.piece_bytes(descriptor, end, lines[found:]), faults)
            if found:
                return found
    packed = (path for path in rotated if path.endswith(".gz"))
    return next(filter(None, (arrived_in_compressed(path, start, lines) for path in packed)), None)


def _sync_arrived(descriptor: int, path: str) -> None:
    try:
        _append.sync_file(descriptor)
    except OSError as error:
        raise WriteError(f"{path} could not be synced ({error}); what was just found in it is appended anew") from error


def _fill_holes(path: str, start: int, lines: list[bytes], faults: FaultLog) -> None:
    # Not cut off, to be appended once more: whoever came back before us may have appended behind them.
    with open_regular(path, os.O_RDWR, 0, create=False) as file:
        _append.fill_holes(file.fileno(), start, lines)
    faults.note("holed", f"{path}: {len(lines)} lines, of which loss of power had taken parts, are whole again")


def _cut_torn(path: str, end: int, size: int, faults: FaultLog) -> None:
    """
    Cut the file back to *end*: the *size* bytes behind it are a piece of a line that we have, and will append.

    Somebody renamed the log behind a writer that was killed in mid-append. Nobody appends there any more, so
    nobody would set the piece aside, as for the log itself, and readers would meet it for ever.
    """
    if not size:
        return
    # One that we may not write stays as it is: no reason not to append.
    with suppress(OSError), open_regular(path, os.O_RDWR, 0, create=False) as file:
        # Whoever still has it locked is in mid-append: somebody has deleted the lock file as well.
        if _lock.try_acquire(file) and _append.cut_back(file.fileno(), end, expected=end + size):
            faults.note("torn", f"{path}: a torn last line was cut off; the whole one follows in the log")
