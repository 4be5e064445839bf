"""
Files that are there whole or not at all: for what is written in one go and never grows.

Such a file is made beside its place, as ``<path>.<pid>-<random>.new``, which nobody reads, and gets its name by one
step of the file system. Killed before that step, the place is as it was, and the ``.new`` file is left over: it counts
for nobody and may be removed. A failure or a Ctrl-C leaves none.

Not for what takes the place of a log's own files (`_compress.py`, `forget/_rewrite.py`, a journal's marks in
`_journal_files.py`). Their files in the making are found by name, locked and begun anew by whoever comes after a kill,
and they get their names under the locks of a log that others write to meanwhile.
"""

from __future__ import annotations

import errno
import gzip
import os
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from ._append import sync_file
from ._paths import create_file, sync_directory
from .errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Output", "WholeFile"]

_PIECE_BYTES: Final = 1 << 20
_GATHERED_BYTES: Final = 1 << 18
_LEVEL: Final = 6
_GZIP_FRAME: Final = 16 + zlib.MAX_WBITS  # deflate with gzip's own head, without a time, and tail
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class WholeFile:
    """
    A file in the making.

    Args:
        path: The name that it gets.
        mode: Its permissions, from the first instant on, whatever the umask.
        like: Made by root, it belongs to the owner of this file, see :func:`._paths.create_file`.

    Raises:
        OSError: It cannot be made.

    Durability: Survives the end of the process once it has its name. Loss of power: only what was synced, before.
    Threads: Each its own; any number, in any number of processes, may make the same file, and the last name counts.
    """

    def __init__(self, path: str, *, mode: int = 0o600, like: str = "") -> None:
        self.path = path
        self.making = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
        self._maker = os.getpid()
        try:
            self._file = create_file(self.making, os.O_RDWR | os.O_CLOEXEC, mode, like)
        except FileExistsError:  # somebody else's
            raise
        except BaseException:  # an exception from outside, behind the call that made it
            with suppress(OSError):
                os.unlink(self.making)
            raise

    def write(self, data: bytes) -> None:
        """Append all of *data*."""
        left = memoryview(data)
        while left:
            # In pieces: the kernel takes at most 2 GiB at once, and a signal may come between two.
            written = os.write(self._file.fileno(), left[:_PIECE_BYTES])
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            left = left[written:]

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        sync_file(self._file.fileno())

    def take_name(self, *, replace: bool = True) -> None:
        """
        Be the file at `path`.

        Raises:
            FileExistsError: One is there, and is not to be replaced.
            OSError: It cannot be.

        Durability: The name survives loss of power only after :func:`._paths.sync_directory`.
        """
        self._file.close()  # some file systems say only here that they have no room (close(2), NOTES)
        if not replace:
            try:
                os.link(self.making, self.path)  # fails where somebody has made such a file meanwhile
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # A file system such as vfat: between this look and the rename somebody may make one.
                if os.path.lexists(self.path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path) from error
            else:
                return  # `discard` removes the other name
        os.replace(self.making, self.path)

    def discard(self) -> None:
        """Let go of it: without its name nothing of it stays. To be called at every end, and fine twice."""
        # A forked child drops its copy of what another thread was in the middle of: the file is its parent's.
        if os.getpid() == self._maker:
            with suppress(OSError):
                os.unlink(self.making)
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def __del__(self) -> None:
        # An exception from outside may come between the call that makes it and the block that lets go of it.
        if hasattr(self, "_file"):
            self.discard()


class Output:
    """
    A file made of a log for people: for its owner alone, as the log is, and on the disk before it has its name.

    Args:
        path: Its name; one that ends in ``.gz`` is compressed, always to the same bytes.
        replace: Take the place of a file that is there.

    Attributes:
        size: Bytes that were written so far; of the whole file, once `finish` has returned.

    Raises:
        ConfigError: It cannot be made in that place, or, from `take_name`, one is there by now.
        OutputError: From every method: the disk refused; what was at *path* is as it was.

    Durability: Survives loss of power once `take_name` has returned.
    Threads: One at a time.
    """

    def __init__(self, path: str, *, replace: bool) -> None:
        self.path, self._replaces = path, replace
        try:
            self._file = WholeFile(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        self._squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_FRAME) if path.endswith(".gz") else None
        self._gathered = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append *data*."""
        self._gathered += data if self._squeezer is None else self._squeezer.compress(data)
        if len(self._gathered) >= _GATHERED_BYTES:
            self._write_gathered()

    def finish(self) -> None:
        """Bring all of it to the disk; nothing can be written behind that."""
        if self._squeezer is not None:
            self._gathered += self._squeezer.flush()
        self._write_gathered()
        with self._refusal_named():
            self._file.sync()

    def _write_gathered(self) -> None:
        with self._refusal_named():
            self._file.write(bytes(self._gathered))
        self.size += len(self._gathered)
        self._gathered.clear()

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Give what was finished to be read again, as it was given to `write`."""
        with self._refusal_named(), open(self._file.making, "rb") as file:
            if self._squeezer is None:
                yield file
            else:
                with gzip.GzipFile(fileobj=file) as plain:
                    yield cast("BinaryIO", plain)

    def sha256(self) -> str:
        """Return the SHA-256 of the file that was finished, as it lies on the disk, in hexadecimal digits."""
        import hashlib  # milliseconds that the core, which writes no such file, does not pay

        with self._refusal_named(), open(self._file.making, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def take_name(self) -> None:
        """Be the file at `path`."""
        with self._refusal_named():
            try:
                self._file.take_name(replace=self._replaces)
            except FileExistsError:
                raise ConfigError(f"{self.path} was made by somebody else meanwhile, and is not replaced") from None
            sync_directory(self.path)

    def discard(self) -> None:
        """Leave nothing behind but a file that has its name; to be called at every end, and fine twice."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    @contextmanager
    def _refusal_named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:  # the last two: it is not what was written
            raise OutputError(self.path, getattr(error, "strerror", None) or str(error)) from error
