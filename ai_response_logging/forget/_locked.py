"""The log's locks, as its writers take them: first the lock file, then the log itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .. import _lock
from .._paths import OwnFile, open_regular
from ..errors import LockTimeoutError

__all__ = ["locked"]


@contextmanager
def locked(path: str, timeout: float) -> Iterator[OwnFile | None]:
    """
    Hold the locks of the log at *path* for the length of the block; give it the log, None if there is none.

    Raises:
        LockTimeoutError: Somebody holds one for longer than *timeout* seconds.
        LogPathError: Something stands in the place of one of the files.
        OSError: One cannot be opened or locked.
    """
    deadline_s = time.monotonic() + timeout
    guard = _acquired(_lock.lock_file_of(path), path, deadline_s, create=True)
    try:
        log = None
        with suppress(FileNotFoundError):
            log = _acquired(path, path, deadline_s, create=False)
        try:
            yield log
        finally:
            if log is not None:
                log.close()
    finally:
        if guard is not None:
            guard.close()


def _acquired(name: str, path: str, deadline_s: float, *, create: bool) -> OwnFile:
    """Return the file that stands at *name* now, locked."""
    while True:
        mode = 0o600
        with suppress(OSError):
            mode = os.stat(path).st_mode & 0o777
        file = open_regular(name, os.O_RDWR, mode, create=create, like=path)
        try:
            _lock.acquire(file, max(0.0, deadline_s - time.monotonic()), path)
            if not _lock.is_replaced(file, name):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # somebody renamed or removed it: others lock the one that stands there now
        if time.monotonic() > deadline_s:
            raise LockTimeoutError(path, 0.0, "nobody, but it is replaced again and again")
