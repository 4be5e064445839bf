"""
One writer at a time: across processes by concurrent-log-handler's lock file, across threads by a turn.

This is the only module of the core that knows the locking package. Both waits are bounded; what is past the
bound is told with whoever holds the lock, as far as the machine says.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

from portalocker import LOCK_EX, LOCK_NB
from portalocker import exceptions as portalocker_exceptions
from portalocker import lock as _portalocker_lock

from ._retry import naps
from .errors import LockTimeoutError

__all__ = ["Turn", "acquire", "is_replaced"]


class Turn:
    """
    Whose turn it is to write, among the threads of one process.

    The lock is reentrant only so that its holder can be known: when code of the application interrupts the writing
    thread (a signal handler, a ``__del__``) and logs, :meth:`is_mine` says so, and it must not write: it would stand
    in the middle of the block that it interrupted. ::

        if turn.is_mine():
            ...  # we have interrupted ourselves
        try:
            if not turn.acquire(timeout):
                ...  # another thread writes
        finally:
            turn.release()

    The acquiring stands inside the ``try``: an exception thrown in from outside may fall between the lock's being
    taken and our knowing it, and :meth:`release` asks the lock itself.

    Threads: any. After a fork the child makes a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds for the turn, and say whether it came."""
        return self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def is_mine(self) -> bool:
        """Say whether this very thread has the turn, so that whatever asks has interrupted it."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001  as threading.Condition asks it

    def release(self) -> None:
        """End the turn, if this thread has it."""
        while self.is_mine():
            self._lock.release()


def acquire(lock_file: FileIO, timeout: float, log_path: str) -> None:
    """
    Lock *lock_file* for this process, waiting at most *timeout* seconds.

    Raises:
        LockTimeoutError: Another process holds it.
        OSError: The kernel cannot lock (ENOLCK and its like).
    """
    started_s = time.monotonic()
    waits = naps(timeout)
    while True:
        try:
            _portalocker_lock(lock_file, LOCK_EX | LOCK_NB)
        except portalocker_exceptions.AlreadyLocked:
            pass
        except portalocker_exceptions.LockException as error:
            raise _os_error_of(error) from error
        else:
            return
        nap = next(waits, None)
        if nap is None:
            raise LockTimeoutError(log_path, time.monotonic() - started_s, holder_of(lock_file))
        time.sleep(nap)


def is_replaced(lock_file: FileIO, path: str) -> bool:
    """Say whether the file at *path* is no longer *lock_file*: then others lock another, and ours protects nothing."""
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    ours = os.fstat(lock_file.fileno())
    return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev)


def holder_of(lock_file: FileIO) -> str:
    """Return who holds *lock_file*, as in ``pid 4711``; empty where the machine does not tell."""
    with suppress(OSError, ValueError, IndexError):
        inode = os.fstat(lock_file.fileno()).st_ino
        for row in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = row.split()
            if "->" not in words and int(words[5].rsplit(":", 1)[1]) == inode:
                return f"pid {words[4]}"
    return ""


def _os_error_of(error: Exception) -> OSError:
    """Return the kernel's error inside one of the locking package's."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError):
        return cause
    found = [arg for arg in error.args if isinstance(arg, OSError)]
    return found[0] if found else OSError(0, str(error))
