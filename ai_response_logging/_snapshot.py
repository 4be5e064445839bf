"""
The files of a log, oldest first, and all of them at one moment, each byte once.

No lock is taken: what a rotation or a compression renames meanwhile is known by its inode while it is open, and by the
time in its name when it is not, for an inode that nobody holds is soon another file's.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Self, cast

from ._paths import describe_file_type, why_refused
from .errors import LogReadError

__all__ = ["LogFile", "LogSnapshot", "StrPath", "is_unpacked", "log_files"]

# Held open from the start, so that a rotation cannot take them away; logs of more files open the oldest late.
_HELD_FILES: Final = 128
_SNAPSHOT_TRIES: Final = 50
_BUFFER_BYTES: Final = 1024 * 1024
_STAMP: Final = r"\d{8}T\d{6}\.\d{6}Z"
# What a rotation or a compression at just this moment looks like; anything else is an error to report.
_MOVED: Final = frozenset({errno.ENOENT, errno.ESTALE})

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class LogFile:
    """
    One file of a log as a snapshot found it.

    Attributes:
        path: Its name then; a rotation may have given it another since.
        identity: Device and inode, which a rename does not change.
        size: Bytes on the disk, compressed ones where it is compressed.
        changed_ns: When it was last written to, in nanoseconds since 1970.
        is_live: Whether writers append to it.
    """

    path: str
    identity: tuple[int, int]
    size: int
    changed_ns: int
    is_live: bool

    @property
    def is_compressed(self) -> bool:
        """Whether the file is read through gzip."""
        return self.path.endswith(".gz")

    @property
    def end(self) -> int | None:
        """Where the snapshot ends in a file that grows; None where all of it counts."""
        return self.size if self.is_live and not self.is_compressed else None


def log_files(path: StrPath) -> list[str]:
    """
    Return the files of the log at *path*, oldest first, the live one last; empty when there is none.

    Read are ``<name>.<UTC>`` (rotated), ``<name>.sealed-<UTC>`` and logrotate's ``<name>-<date>`` (``.backup`` too),
    ordered by their time, before them the numbered files of concurrent-log-handler and logrotate, ``<name>.N``, the
    highest number first, each plain or as ``.gz``. Where a file
    stands both plain and compressed, compression was cut short and the plain one is read. Torn tails that were set
    aside, lock files and journals are no part of it.

    Raises:
        LogReadError: The directory cannot be listed, so older files might be overlooked.
    """
    path = os.fspath(path)
    directory, base = os.path.split(path)
    ours, logrotates = rf"\.(?:sealed-)?(?P<stamp>{_STAMP})", r"-(?P<date>\d{8}[\d-]*)(?:\.backup)?"
    shape = re.compile(rf"{re.escape(base)}(?:\.(?P<number>\d+)|{ours}|{logrotates})?(?P<gz>\.gz)?")
    found: dict[str, tuple[tuple[int, int, str], str]] = {}
    for name in _names_in(directory or os.curdir, path):
        match = shape.fullmatch(name)
        if not match or name == f"{base}.gz":
            continue
        stem = name.removesuffix(".gz") if match["gz"] else name
        if stem not in found or not match["gz"]:
            found[stem] = (_age_of(match), os.path.join(directory, name))
    return [file for _, file in sorted(found.values())]


def _age_of(match: re.Match[str]) -> tuple[int, int, str]:
    """Return what sorts files from the oldest to the live one."""
    if match["number"]:
        return (0, -int(match["number"]), "")
    moment = match["stamp"] or match["date"]
    return (1, 0, moment) if moment else (2, 0, "")


def _names_in(directory: str, path: str) -> list[str]:
    """Return the names of the regular files in *directory* (links to files count, as they do for a writer)."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LogReadError(path, f"its directory cannot be listed ({error.strerror})") from error


class LogSnapshot:
    """
    The files of one log at one moment, each byte once.

    All files are opened before the first is read, and again if a rotation happened in between. What is appended to
    the live file after that moment does not belong to the snapshot. A context manager; the newest 128 files stay open
    until it ends, older ones are opened when they are read.

    Args:
        path: The log's base name.
        missing_ok: Where there is no log, have no files instead of raising.

    Raises:
        LogReadError: There is no such log, or one of its files cannot be opened.

    Threads: One at a time; files share one position.
    """

    def __init__(self, path: StrPath, *, missing_ok: bool = False) -> None:
        self.path = os.fspath(path)
        self._missing_ok = missing_ok
        self._held: dict[tuple[int, int], int] = {}
        self.files: tuple[LogFile, ...] = ()
        for _ in range(_SNAPSHOT_TRIES):
            files = self._try_once()
            if files is not None:
                self.files = files
                return
            self.close()
        raise LogReadError(self.path, "its files were renamed faster than they could be opened; try again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes on the disk of all files together."""
        return sum(file.size for file in self.files)

    def close(self) -> None:
        """Close what is still open; may be called twice."""
        while self._held:
            os.close(self._held.popitem()[1])

    def _try_once(self) -> tuple[LogFile, ...] | None:
        """Return the files, or None when they moved while they were opened."""
        names = log_files(self.path)
        if not names and os.path.isfile(self.path):
            return None  # it was made just now
        if not names and not (self._missing_ok and not os.path.lexists(self.path)):
            raise LogReadError(self.path, _why_nothing(self.path))
        try:
            found = [
                self._look_at(name, hold=left <= _HELD_FILES)
                for left, name in zip(range(len(names), 0, -1), names, strict=True)
            ]
            # Each of them: an inode that one has left may by now be another's, and both would pass for one file.
            still_there = all(_identity(os.stat(file.path)) == file.identity for file in found)
        except OSError as error:
            if error.errno in _MOVED:
                return None
            raise LogReadError(error.filename or self.path, why_refused(error)) from error
        if not still_there or log_files(self.path) != names:
            return None
        files: dict[tuple[int, int], LogFile] = {}
        for file in found:
            # One file under two names, as in the middle of a rotation: its newest name counts.
            files.pop(file.identity, None)
            files[file.identity] = file
        return tuple(files.values())

    def _look_at(self, name: str, *, hold: bool) -> LogFile:
        if hold:
            descriptor = _open_for_reading(name)
            status = os.fstat(descriptor)
            known = self._held.setdefault(_identity(status), descriptor)
            if known != descriptor:
                os.close(descriptor)
        else:
            status = os.stat(name)
        is_live = os.path.basename(name) == os.path.basename(self.path)
        return LogFile(name, _identity(status), status.st_size, status.st_mtime_ns, is_live)

    @contextlib.contextmanager
    def open(self, file: LogFile) -> Iterator[BinaryIO]:
        """Open one of the snapshot's files at its first byte, decompressed where it is compressed."""
        descriptor = self._held.get(file.identity)
        if descriptor is not None:
            os.lseek(descriptor, 0, os.SEEK_SET)
            with _stream(descriptor, compressed=file.is_compressed) as stream:
                yield stream
            return
        descriptor, name = self._find_again(file)
        try:
            with _stream(descriptor, compressed=name.endswith(".gz")) as stream:
                yield stream
        finally:
            os.close(descriptor)

    def _find_again(self, file: LogFile) -> tuple[int, str]:
        """Open a file that was not held: under its name, its new name, or compressed since."""
        if re.search(_STAMP, os.path.basename(file.path)):
            # A name with a time in it is never another file's; what is in it now counts, also if it was written anew.
            for name in (file.path, f"{file.path}.gz"):
                try:
                    return _open_for_reading(name), name
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise LogReadError(name, why_refused(error)) from error
        for name in (file.path, *log_files(self.path)):
            with contextlib.suppress(OSError):
                if _is_same(os.stat(name), file):
                    descriptor = _open_for_reading(name)
                    if _is_same(os.fstat(descriptor), file):
                        return descriptor, name
                    os.close(descriptor)
        raise LogReadError(file.path, "it was removed or renamed while the log was read; try again")


def _why_nothing(path: str) -> str:
    if os.path.lexists(path):
        found = describe_file_type(path) or "something else"
        return f"it is {found}, not a regular file; name the log itself with --file or AI_RESPONSES_FILE"
    return "there is no such file, nor a rotated one beside it; name the log with --file or AI_RESPONSES_FILE"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _is_same(status: os.stat_result, file: LogFile) -> bool:
    """Say whether *status* is that of *file*: its inode alone may be another's, since nobody has held it."""
    return (_identity(status), status.st_size, status.st_mtime_ns) == (file.identity, file.size, file.changed_ns)


def _open_for_reading(name: str) -> int:
    # O_NONBLOCK: a FIFO that somebody put in the file's place must not make us wait for a writer.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LogReadError(name, "it is not a regular file")
    return descriptor


def is_unpacked(stream: object) -> bool:
    """Say whether *stream*, opened by a snapshot, decompresses: a file that was plain then may be no more."""
    return isinstance(stream, gzip.GzipFile)


@contextlib.contextmanager
def _stream(descriptor: int, *, compressed: bool) -> Iterator[BinaryIO]:
    with io.FileIO(descriptor, "rb", closefd=False) as raw:
        if not compressed:
            # Behind its C buffer, reading by lines costs half a microsecond each.
            yield cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))
            return
        # Not wrapped in a second buffer: that one would drop good bytes that come just before a damaged place.
        with gzip.GzipFile(fileobj=raw, mode="rb") as unzipped:
            yield cast("BinaryIO", unzipped)
