"""
Turn a rotated file into a ``.gz`` outside the log's lock, so that a kill at any step loses nothing.

``<file>.gz.part`` is written, synced and renamed to ``<file>.gz`` before the plain file goes. A part file is locked by
whoever writes it; one that nobody locks is an orphan and is begun anew. Where both the plain and the compressed file
stand, somebody was killed between the last two steps: the plain one goes only after the other has proved to hold the
same bytes. Not a :class:`._whole_file.WholeFile`: its part file has one name, which keeps others from the same work.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from . import _append, _lock
from ._fork import forget_in_child
from ._paths import open_regular, sync_directory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from io import FileIO

__all__ = ["arrived_in_compressed", "compress_steps"]

_PIECE_BYTES: Final = 256 << 10
_LEVEL: Final = 6
_NEVER_READ: Final = {errno.ENOENT, errno.EACCES, errno.EPERM}  # it is gone, or another user's for good
_GZIP_FRAME: Final = 16 + zlib.MAX_WBITS  # deflate with gzip's own head and tail


class _InWork:
    """
    The files that are being compressed.

    A child forked in the middle of a step cannot end its copy of the generator, which another thread was in. It would
    keep the lock of the part file, and the room of the plain one on the disk, for as long as it lives.
    """

    def __init__(self) -> None:
        self.files: set[FileIO] = set()

    @contextmanager
    def holding(self, file: FileIO) -> Iterator[FileIO]:
        """Know *file* for the length of the block, and close it then."""
        self.files.add(file)
        try:
            with file:
                yield file
        finally:
            self.files.discard(file)

    def after_fork_in_child(self) -> None:
        """Close them all; what the parent has locked stays locked."""
        while self.files:
            with suppress(OSError):
                self.files.pop().close()


_in_work: Final = _InWork()
forget_in_child(_in_work)


def compress_steps(file: str, file_mode: int) -> Generator[None, None, None]:
    """
    Compress the rotated *file*, a few milliseconds of work a step; a generator that is closed early undoes its.

    Raises:
        OSError: It could not be done (no room, no right); the plain file stands as before.

    Durability: The plain file goes only when the compressed one and its name are synced.
    Threads: Any, in any number of processes: the second to come finds the part file locked and leaves.
    """
    target, part_name, mine = f"{file}.gz", f"{file}.gz.part", os.getpid()
    with _in_work.holding(open_regular(part_name, os.O_RDWR, file_mode)) as part:
        if not _lock.try_acquire(part) or _lock.is_replaced(part, part_name):
            return
        try:
            with _in_work.holding(open_regular(file, os.O_RDONLY, file_mode, create=False)) as plain:
                if not os.path.lexists(target):
                    yield from _write(plain, part, part_name)
                    if _lock.is_replaced(plain, file):  # deleted meanwhile: it must not come back compressed
                        return
                    os.rename(part_name, target)
                    sync_directory(target)
                elif not (yield from _holds_the_same(plain, target)):
                    raise FileExistsError(errno.EEXIST, "it differs from the plain file beside it; both stay", target)
            os.unlink(file)
            sync_directory(file)
        except FileNotFoundError:  # another process, or a person, was quicker
            pass
        finally:
            # A forked child that drops its copy of this generator must leave its parent's file alone.
            if os.getpid() == mine and not _lock.is_replaced(part, part_name):
                os.unlink(part_name)


def _write(plain: FileIO, part: FileIO, part_name: str) -> Iterator[None]:
    """Write *plain* compressed to *part*, and sync it."""
    info = os.fstat(plain.fileno())
    with suppress(OSError):  # only root may give it to whoever the log belongs to
        os.fchown(part.fileno(), info.st_uid, info.st_gid)
    with suppress(OSError):  # a file system without modes
        os.fchmod(part.fileno(), stat.S_IMODE(info.st_mode))
    os.ftruncate(part.fileno(), 0)
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_FRAME)
    while piece := plain.read(_PIECE_BYTES):
        _append.append_block(part.fileno(), squeezer.compress(piece), path=part_name)
        yield
    _append.append_block(part.fileno(), squeezer.flush(), path=part_name)
    os.fsync(part.fileno())


def _holds_the_same(plain: FileIO, compressed: str) -> Generator[None, None, bool]:
    """Say whether *compressed* holds exactly the bytes of *plain*."""
    try:
        # Not gzip.open: on a FIFO that somebody put there it would wait for ever.
        with open_regular(compressed, os.O_RDONLY, 0, create=False) as file, gzip.GzipFile(fileobj=file) as other:
            while piece := plain.read(_PIECE_BYTES):
                if other.read(len(piece)) != piece:
                    return False
                yield
            return not other.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False


def arrived_in_compressed(file: str, start: int, lines: Sequence[bytes]) -> int:
    """
    Return how many of *lines* stand whole and in order in the compressed *file*, as :func:`._append.arrived_lines`.

    Raises:
        OSError: It cannot be read now (no descriptor, no memory, an I/O error), so nobody can say.
    """
    try:
        with gzip.open(file) as plain:
            plain.seek(start)
            return _append.run_of(lines, plain.read(_append.STRANGERS_BYTES + sum(map(len, lines))))
    except (EOFError, zlib.error, gzip.BadGzipFile):  # it is damaged
        return 0
    except OSError as error:
        if error.errno not in _NEVER_READ:
            raise
        return 0
