"""Paths: what stands at one, directories with exact modes, and the time as file names carry it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime

__all__ = ["describe_file_type", "make_directory", "utc_suffix"]


def describe_file_type(path: str) -> str:
    """Return what stands at *path* if it is there and not a regular file, as in "a symbolic link"; else nothing."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    for is_kind, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if is_kind(mode):
            return name
    return ""


def make_directory(path: str, mode: int) -> None:
    """Make the directory *path* and its missing parents, each with exactly *mode*; others stay as they are."""
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:  # another process was quicker, or it is no directory: then opening the log says so
            continue
        with suppress(OSError):  # a file system without modes
            os.chmod(directory, mode)


def utc_suffix() -> str:
    """Return now in UTC as file names carry it, as in ``20261123T190541.000123Z``; lexical order is time order."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
