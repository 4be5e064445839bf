"""
One writer at a time: across processes by concurrent-log-handler's lock file, across threads by a turn.

This is the only module of the core that locks: with flock(2), as concurrent-log-handler's locking package does on
POSIX, so that its writers and ours keep each other out. Both waits are bounded; what is past the bound is told with
whoever holds the lock, as far as the machine says.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from io import FileIO
from types import CodeType, FrameType
from typing import Final, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from ._retry import naps
from .errors import LockTimeoutError

P = ParamSpec("P")
R = TypeVar("R")

if sys.platform != "win32":  # there the import works, and the handler says that it cannot record
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

    _NOW: Final = LOCK_EX | LOCK_NB

__all__ = [
    "LOCK_UN",
    "Turn",
    "acquire",
    "busy",
    "flock",
    "held_elsewhere",
    "identity",
    "is_replaced",
    "lock_file_of",
    "outlived",
    "standing",
    "takes_turn",
    "try_acquire",
]

_HELD: Final = {errno.EAGAIN, errno.EACCES}
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
        # Not to be taken over, unlike a lock (see outlived): its holder may have a write under way that nobody awaits.
        timeout = 0.0 if sys.is_finalizing() else timeout
        return self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def is_taken_here(self) -> bool:
        """Say whether this thread has the turn, also in a child that it forked."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001  as below

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


def outlived(lock: threading.RLock) -> threading.RLock:
    """
    Return *lock*, or a new one if a thread holds it that is no more: for the interpreter's last moments.

    Its end stops daemon threads wherever they are, with what they hold, and only then do the last objects go, whose
    ``__del__`` may log. Nobody else runs any more: a lock that is not ours and not free never will be.
    """
    if lock.acquire(blocking=False):
        lock.release()
        return lock
    return threading.RLock()


# When the attempts on a file began that have all been refused; whoever closes the file forgets it.
_refused_since_s: WeakKeyDictionary[FileIO, float] = WeakKeyDictionary()


def acquire(lock_file: FileIO, timeout: float, log_path: str) -> None:
    """
    Lock *lock_file* for this process, waiting at most *timeout* seconds.

    Raises:
        LockTimeoutError: Another process holds it; the error says for how long, over all attempts since the last
            that got it.
        OSError: The kernel cannot lock (ENOLCK and its like).
    """
    started_s = time.monotonic()
    waits = naps(timeout)
    while True:
        try:
            flock(lock_file, _NOW)
        except OSError as error:
            if error.errno not in _HELD:
                raise
        else:
            if _refused_since_s:
                _refused_since_s.pop(lock_file, None)
            return
        nap = next(waits, None)
        # The clock is asked as well: on a busy machine each nap is longer than it was to be.
        if nap is None or time.monotonic() - started_s >= timeout:
            since_s = _refused_since_s.setdefault(lock_file, started_s)
            raise LockTimeoutError(log_path, time.monotonic() - since_s, *_diagnosis(_holders(lock_file)))
        time.sleep(nap)


def busy(lock_files: Iterable[FileIO | None], waited_s: float, log_path: str) -> LockTimeoutError:
    """Return the error for a thread whose turn did not come within *waited_s* seconds."""
    others = LockTimeoutError(log_path, waited_s, "another thread of this process")
    return held_elsewhere(lock_files, waited_s, log_path) or others


def held_elsewhere(lock_files: Iterable[FileIO | None], waited_s: float, log_path: str) -> LockTimeoutError | None:
    """
    Return the error that names another process which holds one of *lock_files*, if there is one.

    It holds up the thread that has the turn, and so is the one to name.
    """
    for lock_file in lock_files:
        strangers = [] if lock_file is None else [one for one in _holders(lock_file) if one.pid != os.getpid()]
        if lock_file is not None and strangers:
            now_s = time.monotonic()
            since_s = _refused_since_s.get(lock_file, now_s)
            return LockTimeoutError(log_path, max(waited_s, now_s - since_s), *_diagnosis(strangers))
    return None


def try_acquire(lock_file: FileIO) -> bool:
    """Lock *lock_file* for this process if nobody has it; say whether that is so."""
    try:
        flock(lock_file, _NOW)
    except OSError:
        return False
    return True


def lock_file_of(log: str) -> str:
    """Return the path of the lock file of the *log*, as concurrent-log-handler names it."""
    from concurrent_log_handler import ConcurrentRotatingFileHandler  # what only reads does not need it

    return os.path.join(*ConcurrentRotatingFileHandler.baseLockFilename(log))


def identity(file: int | str) -> tuple[int, int]:
    """Return device and inode of a descriptor or path, which a rename does not change."""
    info = os.fstat(file) if isinstance(file, int) else os.stat(file)
    return info.st_dev, info.st_ino


def is_replaced(lock_file: FileIO, path: str) -> bool:
    """
    Say whether the file at *path* is no longer *lock_file*: then others lock another, and ours protects nothing.

    Raises:
        OSError: The path cannot be looked at.
    """
    return standing(lock_file, path) is None


def standing(file: FileIO, path: str) -> os.stat_result | None:
    """
    Return what the kernel knows of *file* (its size, its number), asked now; None if it is not what stands at *path*.

    Raises:
        OSError: The path cannot be looked at.
    """
    try:
        there = identity(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        info = os.fstat(file.fileno())
    except OSError:  # EIO of an xfs that was shut down; what stands at the path is on a repaired one, mounted over it
        return None
    return info if there == (info.st_dev, info.st_ino) else None


# -- who holds it

_LOCKS: Final = "/proc/locks"
_ELSEWHERE: Final = "a process that this machine does not name (of another container or machine, or it let go just now)"
_STATES: Final = {
    "T": "stopped (SIGSTOP)",
    "t": "stopped by a debugger",
    "D": "waiting for a disk",
    "Z": "which has ended and left it to a child",
}
_NAMED = 3  # of several holders; a lock that many share is told by the first


class _Holder(NamedTuple):
    """A process as the machine shows it."""

    pid: int
    """0 or less if it is not of this container or machine."""
    name: str = ""
    """The program's; empty if the process has ended or is hidden from us."""
    state: str = ""
    """A letter, as in proc_pid_stat(5)."""

    def __str__(self) -> str:
        if self.pid <= 0:
            return _ELSEWHERE
        name = self.name or "it has ended and left the lock to a child, or it is hidden from us"
        whose = ", this process" if self.pid == os.getpid() else ""
        state = f", {_STATES[self.state]}" if self.state in _STATES else ""
        return f"pid {self.pid} ({name}){whose}{state}"

    def remedy(self) -> str:
        """Return what a person can do."""
        if self.pid <= 0:
            return "look for it in the other containers and on the other machines that share the directory"
        if self.state == "T":
            return f"kill -CONT {self.pid} lets it go on"
        if self.pid == os.getpid():
            return ""
        return "if it never lets go, end " + ("it" if self.name and self.state != "Z" else "the child")


def holder_of(lock_file: FileIO) -> str:
    """
    Return who holds *lock_file*, as in ``pid 4711 (python3), stopped (SIGSTOP)``; empty if nobody that we see does.

    Source: proc_locks(5), proc_pid_stat(5). Elsewhere than on Linux nobody is seen.
    """
    return _names(_holders(lock_file))


def _names(holders: list[_Holder]) -> str:
    more = f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
    return "; ".join(map(str, holders[:_NAMED])) + more


def _diagnosis(holders: list[_Holder]) -> tuple[str, str]:
    """Return who keeps us from a lock, as far as the machine tells, and what a person can do."""
    if not os.path.exists(_LOCKS):
        return "", ""
    # Inside a container the kernel leaves those out that are not of it.
    holders = holders or [_Holder(0)]
    return _names(holders), holders[0].remedy()


def _holders(lock_file: FileIO) -> list[_Holder]:
    try:
        info = os.fstat(lock_file.fileno())
        with open(_LOCKS, "rb") as locks:
            pids = _pids_on(info.st_dev, info.st_ino, locks)
    except (OSError, ValueError, IndexError):  # no such list here, or one that reads otherwise
        return []
    # The list has no order: whoever is stopped comes first, since he is the one who will not let go by himself.
    return sorted(map(_look_at, pids), key=lambda holder: holder.state != "T")


def _pids_on(device: int, inode: int, rows: Iterable[bytes]) -> list[int]:
    """Return who holds a file, by the *rows* of /proc/locks."""
    same_device: list[int] = []
    same_inode: list[int] = []
    for row in rows:
        words = row.split()
        # Only flock's locks keep us out: not fcntl's (POSIX, OFDLCK), no lease, and nobody who waits as we do ("->").
        if words[1:2] != [b"FLOCK"]:
            continue
        major, minor, number = words[5].split(b":")
        if int(number) == inode:
            is_same = os.makedev(int(major, 16), int(minor, 16)) == device
            (same_device if is_same else same_inode).append(int(words[4]))
    # btrfs and overlay give programs a device of their own making, without a driver: its major number is 0. The list
    # has the real one. Anywhere else a file with our number on another device is another file.
    return same_device or (same_inode if os.major(device) == 0 else [])


def _look_at(pid: int) -> _Holder:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            text = stat.read().decode("utf-8", "replace")
    except OSError:
        return _Holder(pid)
    # The name stands in brackets and may hold any character, brackets too.
    name, _, rest = text.partition("(")[2].rpartition(")")
    return _Holder(pid, "".join(one if one.isprintable() else "?" for one in name), rest[1:2])
