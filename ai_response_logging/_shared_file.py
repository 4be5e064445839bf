"""
The log as one file that many processes share: opened, locked, begun anew, tidied up.

concurrent-log-handler's lock file, its check for a stale file and its hooks for rotation are what this builds on. How
it appends and how it waits are not used: see :mod:`._append` and :mod:`._lock`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

from concurrent_log_handler import ConcurrentRotatingFileHandler

from . import _append, _lock, _rotate
from ._arrived import arrived_in_files
from ._compress import compress_steps
from ._journal_format import journal_directory
from ._paths import OwnFile, make_directory, open_regular, sync_directory
from .errors import LockTimeoutError, LogPathError, WriteError
from .record import logged_at
from .stats import FaultLog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ._journal_format import Intent
    from ._options import Options

__all__ = ["SharedFileHandler"]

# Faults at set-up that no waiting cures; a full disk or a full descriptor table may.
_NEVER = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_DAY_S = 86_400
_HEAD_BYTES = 1024  # of a line, in which it says its time


class SharedFileHandler(ConcurrentRotatingFileHandler):
    """
    One log file and its lock file, for :class:`~ai_response_logging.BatchFileHandler`.

    Threads: One at a time, which the writer's turn sees to.
    """

    stream: OwnFile | None  # type: ignore[assignment]  # raw: a buffered stream keeps bytes after a failed write
    stream_lock: OwnFile | None  # type: ignore[assignment]  # the same

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(path, "a", maxBytes=options.max_bytes, backupCount=options.backup_count, encoding="utf-8")
        self.maxLockAttempts = 1  # our waiting is in _lock_stream_lock, with a deadline
        self.options = options
        self._begin()

    def _begin(self) -> None:
        """Set up what belongs to one process alone."""
        self.faults = FaultLog()
        self.rotations = 0
        self._put_aside = ""  # the name of the last file that we rotated
        self._lock_budget_s = self.options.lock_timeout
        self._lock_error: Exception | None = None
        self._synced: tuple[int, int, int] | None = None
        self._left: tuple[int, int, int] | None = None  # device, inode and size of the log behind our last block
        self._period: tuple[bytes, float, float] | None = None
        self._has_surplus, self._is_untidy = True, False  # what another process, or other options, left
        self._chores: Any = self._do_chores()  # a generator; the type checker does not know its gi_running

    @property
    def is_synced(self) -> bool:
        """Whether what is written is to hold after loss of power, too."""
        return self.options.durability == "power"

    def _open_early(self) -> None:
        """Open all descriptors now, so that a full descriptor table later does not matter; other faults can wait."""
        try:
            self._make_directory(os.path.dirname(self.baseFilename))
            self._open_stream()
            self._open_lockfile()
        except LogPathError:
            self._drop_descriptors()
            raise
        except OSError as error:
            if error.errno in _NEVER:
                self._drop_descriptors()
                raise
            self.faults.remember(str(error))

    def _drop_descriptors(self) -> None:
        for stream in (self.stream, self.stream_lock):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.stream = self.stream_lock = None

    def _note(self, error: Exception) -> None:
        """Remember a fault."""
        self.faults.remember(str(error))

    # -- the file, under the lock

    def _open_stream(self) -> int:
        if self.stream is None or not self.stream.is_ours():  # closed, by us or by a daemoniser
            self._synced = self._left = None  # a new file may have the number of one that was removed
            self.stream = self._open_file(self.baseFilename, os.O_RDWR | os.O_APPEND)
        return self.stream.fileno()

    def _open_file(self, path: str, flags: int) -> OwnFile:
        try:
            return open_regular(path, flags, self.options.file_mode, like=self._owned_like())
        except FileNotFoundError:  # somebody removed the directory
            self._make_directory(os.path.dirname(path))
            return open_regular(path, flags, self.options.file_mode)

    def _make_directory(self, directory: str) -> None:
        made = make_directory(directory, self.options.directory_mode)
        for one in (made or [directory]) if self.is_synced else ():  # whoever made it before us may not have synced it
            sync_directory(one)

    def _owned_like(self) -> str:
        """Return the file whose owner gets what root makes anew: the log, or where it was renamed the last of it."""
        if os.geteuid() or os.path.lexists(self.baseFilename):
            return self.baseFilename
        if os.path.lexists(self._put_aside):
            return self._put_aside
        with contextlib.suppress(OSError):
            # Whoever writes the log has to open its lock file first: one that a single user may write tells whose log
            # it is, however many old files there are.
            if not os.lstat(self.lockFilename).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return self.lockFilename
        with contextlib.suppress(OSError):
            # Where there is no old file either, whoever kept a journal for it.
            return next(iter(_rotate.files_of(self.baseFilename)), journal_directory(self.baseFilename))
        return ""  # a new log: whoever makes it owns it

    def _ready_stream(self, deadline_s: float, line: bytes) -> tuple[int, os.stat_result]:
        """
        Open the log if it is not, with a whole last line and fit for *line*; return its descriptor and state.

        Nobody who keeps to the locks changes that state before our write, so whoever appends asks for it no more.
        """
        descriptor, info = self._open_locked(deadline_s)
        # As long as our last block left it: nobody has appended since (who did and was cut back, was at that newline),
        # and the number is no other file's, since we have had it open ever since.
        is_as_left = self._left == (info.st_dev, info.st_ino, info.st_size)
        if not is_as_left and not _append.is_whole(descriptor, info.st_size):
            if _append.repair_tail(descriptor, self.baseFilename, self.options.file_mode):
                self.faults.note("torn", f"{self.baseFilename}: a torn last line was set aside")
            info = os.fstat(descriptor)
        if self._is_over(descriptor, info.st_size, line):
            try:
                self.doRollover()
            except OSError as error:  # a file that grows past its limit is better than a record that waits for it
                self._note(error)
            descriptor, info = self._open_locked(deadline_s)
        return descriptor, info

    def _open_locked(self, deadline_s: float) -> tuple[int, os.stat_result]:
        """
        Open and lock the file that stands at our path now; return its descriptor, and its state under the lock.

        The log is locked beside the lock file: whoever deletes that one while we append lets another process in, and
        it would take our half-written block for a torn tail.
        """
        was_replaced = False
        while True:
            descriptor = self._open_stream()
            if self.stream is None:  # for the type checker: it is open
                raise WriteError(self.baseFilename)
            _lock.acquire(self.stream, max(0.0, deadline_s - time.monotonic()), self.baseFilename)
            info = _lock.standing(self.stream, self.baseFilename)
            if info is not None:
                if was_replaced:
                    self._look_for_journal()  # where the whole directory was, nobody would find it any more
                return descriptor, info
            was_replaced = True
            self.stream.close()  # somebody renamed or removed the log: the next lines go where it is to be
            _rotate.await_successor(self.baseFilename)
            if time.monotonic() > deadline_s:
                raise LockTimeoutError(self.baseFilename, 0.0, "nobody, but the log is replaced again and again")

    def _look_for_journal(self) -> None:
        """See that our journal is where the log is to be."""

    # -- durability power, under the lock

    def _sync_before(self, descriptor: int, start: int) -> None:
        """
        Make durable the log's name, and what others have appended since our last block: ours is not behind a hole.

        Raises:
            WriteError: The log could not be synced; it is left as it is for good.
            OSError: Its name could not be, or there is no descriptor for that now.
        """
        info = os.fstat(descriptor)
        if self._synced is None or self._synced[:2] != (info.st_dev, info.st_ino):
            sync_directory(self.baseFilename)
        if start and self._synced != (info.st_dev, info.st_ino, start):
            self._sync_log(descriptor, start, start)
        self._synced = (info.st_dev, info.st_ino, start)

    def _sync_log(self, descriptor: int, start: int, end: int) -> None:
        """
        Make the log durable up to *end*; where that fails, seal it without what stands behind *start*.

        Raises:
            WriteError: It could not be synced. What is sealed is never written nor synced again.
        """
        info = os.fstat(descriptor)
        try:
            _append.sync_file(descriptor)
        except OSError as error:
            sealed = self._seal(descriptor, start, end)
            raise WriteError(
                f"{self.baseFilename} could not be synced ({error}), so what was just written may not be on the disk: "
                f"{sealed}; the records that wait go to a new file"
            ) from error
        self._synced = (info.st_dev, info.st_ino, end)

    def _seal(self, descriptor: int, start: int, end: int) -> str:
        """Give the log another name, without the block from *start* to *end*; say what became of it."""
        if not _append.cut_back(descriptor, start, expected=end):
            return "it cannot even be cut back"
        if not start:  # what comes is new to the kernel: there is nothing in it that could seem to be durable
            return "it is empty again"
        try:
            sealed = _rotate.rotate(self.baseFilename, "sealed", self.stream_lock)
            sync_directory(sealed)
        except OSError as error:
            return f"it cannot even be renamed ({error})"
        self._close_log()
        return f"it was sealed as {sealed}"

    def _close_log(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = self._synced = None

    def _arrived(self, intent: Intent, lines: list[bytes], *, is_synced: bool) -> int:
        """Return how many of *lines* stand where *intent* says, synced if wanted; raises as `arrived_in_files`."""
        # The place and the bytes decide, not the file's number: a container that starts again has another device, and
        # the next log soon has the inode of one that was compressed.
        if not lines:
            return 0
        stream = self.stream
        # EIO of a file system that died; on the repaired one a path leads to the file.
        with contextlib.suppress(OSError):
            if stream and not stream.closed and (found := _append.arrived_lines(stream.fileno(), intent.start, lines)):
                if is_synced:
                    size, end = os.fstat(stream.fileno()).st_size, intent.start + sum(map(len, lines[:found]))
                    self._sync_log(stream.fileno(), intent.start if size == end else size, size)
                if found == len(lines) or not _append.holed_lines(stream.fileno(), intent.start, lines):
                    return found
        return arrived_in_files(self.baseFilename, intent, lines, self.faults, is_synced=is_synced)

    # -- a new file, under the lock

    def _is_over(self, descriptor: int, size: int, line: bytes) -> bool:
        """Say whether *line* belongs into a new file: this one is full, or its time is over."""
        if not size:
            return False
        if self.maxBytes and size + len(line) > self.maxBytes:
            return True
        if not self.options.when:
            return False
        began_s, over_s = self._period_of(descriptor)
        now_s = time.time()
        logged_s = logged_at(line[:_HEAD_BYTES])
        # A late line of the period before stays with this one. A file that begins further in the future than it is
        # long was begun under a wrong clock: waiting for its end could take years.
        return (now_s if logged_s is None else logged_s) >= over_s or began_s - now_s > max(over_s - began_s, _DAY_S)

    def _period_of(self, descriptor: int) -> tuple[float, float]:
        # Read anew each time: somebody may have emptied the file, or another one may have got its number.
        first = os.pread(descriptor, _HEAD_BYTES, 0)
        if self._period is None or self._period[0] != first:
            # Where the first line says no time, the file's last change must do.
            began_s = logged_at(first) or os.fstat(descriptor).st_mtime
            self._period = (first, *_rotate.period(began_s, self.options))
        return self._period[1:]

    def _fitting(self, descriptor: int, start: int, lines: list[bytes]) -> list[bytes]:
        """Return those of *lines*, the first at least, that belong into the file when *start* bytes are in it."""
        if not self.options.when:
            return lines
        began_s = logged_at(lines[0][:_HEAD_BYTES]) or time.time()
        over_s = self._period_of(descriptor)[1] if start else _rotate.period(began_s, self.options)[1]
        for count, line in enumerate(lines):
            if count and (logged_at(line[:_HEAD_BYTES]) or 0.0) >= over_s:
                return lines[:count]
        return lines

    def shouldRollover(self, record: logging.LogRecord | None = None) -> bool:  # noqa: ARG002, N802  the parent's signature
        """Say whether the file is full, or its time over, for a line that is logged now."""
        descriptor = self._open_stream()
        return self._is_over(descriptor, os.fstat(descriptor).st_size, b"\n")

    def doRollover(self) -> None:  # noqa: N802  the parent's name
        """Start a new file; the old one keeps every line under a new name. Under the lock."""
        self._put_aside = _rotate.rotate(self.baseFilename, lock_file=self.stream_lock)
        self._close_log()
        self.rotations += 1
        self._has_surplus = self._is_untidy = True

    # -- old files, outside the lock

    def _remove_surplus(self) -> None:
        self._has_surplus = False
        try:
            _rotate.remove_surplus(self.baseFilename, self.options)
        except OSError as error:
            self._note(error)

    def tidy_up(self, is_needed: Callable[[], bool]) -> bool:
        """
        Compress and delete old files as the options say, until *is_needed* elsewhere; say whether all is done.

        One step, of milliseconds, is always made: under a load that never ends old files must not pile up.
        """
        while not self._chores.gi_running:  # else we have interrupted it, or another thread is at it
            try:
                next(self._chores)
            except StopIteration:
                if not self._is_untidy:
                    return True
                self._is_untidy, self._chores = False, self._do_chores()
                continue
            except ValueError:  # the same, between our look and our step
                return False
            if is_needed():
                return False
        return False

    def _do_chores(self) -> Generator[None, None, None]:
        try:
            for file in _rotate.uncompressed_files(self.baseFilename) if self.options.compress else ():
                yield from self._compress(file)
        except OSError as error:  # the directory cannot be listed now
            self._note(error)
        self._remove_surplus()

    def _compress(self, file: str) -> Generator[None, None, None]:
        try:
            yield from compress_steps(file, self.options.file_mode)
        except (WriteError, OSError) as error:  # no room for a compressed file, say: the plain one is as good
            self._note(error)

    def _drop_chores(self) -> None:
        """Undo what is half done; the next one to tidy up begins it anew."""
        if not self._chores.gi_running:
            self._is_untidy = self._is_untidy or self._chores.gi_frame is not None
            with contextlib.suppress(ValueError):  # another thread has taken it up just now
                self._chores.close()

    # -- the lock: concurrent-log-handler's hooks

    def _open_lockfile(self) -> None:
        if self.stream_lock is None or not self.stream_lock.is_ours():
            self.stream_lock = self._open_file(self.lockFilename, os.O_RDWR)

    def _lock_stream_lock(self, stream_lock: OwnFile) -> None:  # type: ignore[override]  # we open it
        try:
            _lock.acquire(stream_lock, self._lock_budget_s, self.baseFilename)
        except Exception as error:
            self._lock_error = error  # the parent swallows it and raises one of its own
            raise

    def _note_unlocked(self) -> None:
        """Bring the parent's books in line, where we have given the lock back ourselves; see :meth:`_do_lock` there."""
        self.is_locked = False
        with contextlib.suppress(Exception):  # it was not taken, or thrown in from outside: the next one makes it anew
            self._thread_lock.release()

    def _acquire_lock(self, deadline_s: float) -> None:
        # We have the turn, so nobody else can be inside the parent's locking: what is marked there as held was left
        # by an exception from outside. Waiting for it would be waiting for ever.
        self._thread_lock, self.is_locked = threading.RLock(), False
        while True:
            self._lock_budget_s, self._lock_error = max(0.0, deadline_s - time.monotonic()), None
            try:
                self._do_lock()
            except RuntimeError:
                lock_error: Exception | None = self._lock_error  # its type anew: _do_lock sets it
                # Without an error of ours, the parent has swallowed one that was thrown in from outside.
                raise lock_error or WriteError(
                    f"{self.baseFilename}: the waiting for its lock was interrupted"
                ) from None
            if self.stream_lock is not None and not _lock.is_replaced(self.stream_lock, self.lockFilename):
                return
            # Somebody removed the lock file: others will lock a new one, so this one protects nothing.
            self._do_unlock()
            if self.stream_lock is not None:
                self.stream_lock.close()
            if time.monotonic() > deadline_s:
                raise LockTimeoutError(self.baseFilename, 0.0, "nobody, but the lock file is replaced again and again")
