"""
One writer at a time: across processes by concurrent-log-handler's lock file, across threads by a turn.

This is the only module of the core that knows the locking package. Both waits are bounded; what is past the
bound is told with whoever holds the lock, as far as the machine says.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

from portalocker import LOCK_EX, LOCK_NB
from portalocker import exceptions as portalocker_exceptions
from portalocker import lock as _portalocker_lock

from ._retry import naps
from .errors import LockTimeoutError

P = ParamSpec("P")
R = TypeVar("R")

if sys.platform != "win32":  # there the import works, and the handler says that it cannot record
    from fcntl import LOCK_UN, flock

__all__ = ["LOCK_UN", "Turn", "acquire", "flock", "is_replaced", "takes_turn"]


_HOLDERS: set[CodeType] = set()


def takes_turn(function: Callable[P, R]) -> Callable[P, R]:
    """Mark *function* as one that takes the turn, so that :meth:`Turn.is_mine` knows it on the stack."""
    _HOLDERS.add(function.__code__)
    return function


class Turn:
    """
    Whose turn it is to write, among the threads of one process.

    The lock is reentrant only so that its holder can be known: when code of the application interrupts the writing
    thread (a signal handler, a ``__del__``) and logs, :meth:`is_mine` says so, and it must not write: it would stand
    in the middle of the block that it interrupted. ::

        @takes_turn
        def write(self):
            if turn.is_mine():
                ...  # we have interrupted ourselves
            try:
                if not turn.acquire(timeout):
                    ...  # another thread writes
            finally:
                try:
                    turn.free()
                except RuntimeError:
                    pass

    The acquiring stands inside the ``try``, and :attr:`free` is one call into C that gives the lock back (RuntimeError
    if this thread has not got it): an exception thrown in from outside falls before or behind it.

    Threads: any. After a fork the child makes a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Not RLock._release_save, which frees it however often it was taken: that one does not ask whose it is.
        self.free: Callable[[], object] = self._lock.release

    def acquire(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds for the turn, and say whether it came."""
        return self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def is_mine(self) -> bool:
        """Say whether whoever asks has interrupted its own turn; a turn that nobody on this stack took is given up."""
        if not self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  as threading.Condition asks it
            return False
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  the one who asks is not the one interrupted
        while frame is not None:
            if frame.f_code in _HOLDERS:
                return True
            frame = frame.f_back
        while self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  as above
            self._lock.release()
        return False


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
        with open("/proc/locks", "rb") as locks:
            rows = [row.split() for row in locks]
        for words in rows:
            if b"->" not in words and int(words[5].rpartition(b":")[2]) == inode:
                return f"pid {int(words[4])}"
    return ""


def _os_error_of(error: Exception) -> OSError:
    """Return the kernel's error inside one of the locking package's."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError):
        return cause
    found = [arg for arg in error.args if isinstance(arg, OSError)]
    return found[0] if found else OSError(0, str(error))
