"""
Start a new file, and keep as many old ones as the user wants.

One rename under the lock: whatever moment a process is killed at, every record stands in a file whose name readers
know. The cost does not depend on how many files there are, since the new name is the time, not a number to shift.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from ._paths import utc_suffix

__all__ = ["ROTATED", "remove_oldest", "rotate", "rotated_files"]

ROTATED: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z(\.gz)?\Z")


def rotate(path: str) -> str:
    """
    Rename *path* to ``<path>.<UTC>`` and return the new name.

    Raises:
        OSError: It could not be renamed; nothing has changed.

    Durability: Atomic; the name survives loss of power only after a sync of the directory.
    Threads: Under the cross-process lock, so that no two processes choose one name.
    """
    while True:
        target = f"{path}.{utc_suffix()}"
        if not os.path.lexists(target) and not os.path.lexists(f"{target}.gz"):
            break
    os.rename(path, target)
    return target


def rotated_files(path: str) -> list[str]:
    """Return the rotated files of *path*, oldest first."""
    directory, name = os.path.split(path)
    prefix = f"{name}."
    found = [entry for entry in os.listdir(directory or ".") if entry.startswith(prefix)]
    return [os.path.join(directory, entry) for entry in sorted(found) if ROTATED.match(entry[len(prefix) :])]


def remove_oldest(path: str, keep: int) -> list[str]:
    """Delete all but the newest *keep* rotated files of *path* (0 keeps all); return what was deleted."""
    if keep <= 0:
        return []
    doomed = rotated_files(path)[:-keep]
    for file in doomed:
        with suppress(FileNotFoundError):  # another process, or a person, was quicker
            os.unlink(file)
    return doomed
