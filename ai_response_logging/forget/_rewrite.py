"""
One file of a log written anew without the records that are to be forgotten.

The copy is made and synced beside the file while writers go on. Only its rename happens under their locks, behind a
look whether anything has changed since: of the log itself, which grows, what has come since is added there. Killed at
any instruction, the file is what it was or what it is to be, and a copy that is left over counts for nobody. Not a
:class:`.._whole_file.WholeFile`: it grows under the locks, and its one name lets the next run clear what a kill left.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from .. import _append, _lock
from .._libc import exchange_holding
from .._paths import OwnFile, open_regular, sync_directory
from .._receipt import Forgotten
from ..errors import WriteError
from ..reader import MAX_LINE_BYTES, lines_of
from ..verify._lines import judge_line
from ._locked import locked

if TYPE_CHECKING:
    from ._selector import Choice

__all__ = ["PART", "Changed", "Rewritten", "rewrite"]

PART: Final = ".forgetting-part"
"""Behind the name of a file whose copy is being made."""

_LEVEL: Final = 6
_BUFFER_BYTES: Final = 1 << 20
_LAST_BYTES: Final = 8 << 20  # more than any block that a writer may have cut back since
_PIECE_BYTES: Final = 1 << 18
_NO_EXCHANGE: Final = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}  # an old kernel, or such a file system


class Changed(Exception):  # noqa: N818  no error: it is to be done once more
    """The file was rotated, compressed, removed or written to by others meanwhile."""


class Rewritten:
    """
    A copy in the making.

    Attributes:
        forgotten: What it leaves out.
        output: Where it goes.
        size: Bytes of the source that are in it or left out.
    """

    def __init__(self, choice: Choice, output: BinaryIO) -> None:
        self.forgotten = Forgotten()
        self._choice = choice
        self.output = output
        self._checked = bytearray()
        self.size = 0

    def take(self, line: bytes) -> None:
        """Copy *line*, or leave it out."""
        record = self._choice.drops(line)
        if record is None:
            self.output.write(line)
        else:
            self._choice.take_texts(record)
            self._leave_out(line)
        self.size += len(line)
        self._checked += line
        if len(self._checked) > 2 * _LAST_BYTES:
            del self._checked[:-_LAST_BYTES]

    def _leave_out(self, line: bytes) -> None:
        finding = judge_line(line, 0)
        record = finding.record
        if record is None:
            # Whoever altered it may have altered its number, too: that of another record must not seem forgotten.
            self.forgotten.damaged += 1
            return
        writer_id, seq = record.get("writer_id"), record.get("seq")
        if finding.is_older or type(writer_id) is not str or type(seq) is not int or seq < 0:
            self.forgotten.older += 1
        else:
            self.forgotten.add(writer_id, seq)

    def add(self, line: bytes) -> None:
        """Write a line that the source does not have."""
        self.output.write(line)

    def last(self) -> bytes:
        """Return the last bytes of the source, as they were read."""
        return bytes(self._checked[-_LAST_BYTES:])


def rewrite(
    log: str,
    file: str,
    choice: Choice,
    receipt: Callable[[Forgotten], bytes],
    *,
    unsettled: Callable[[], str],
    lock_timeout: float,
) -> Forgotten:
    """
    Write *file* of the *log* anew without what *choice* drops, with a receipt for it; return what that was.

    Args:
        log: The log's base name.
        file: The log itself by that name, or one of its old files, plain or ``.gz``.
        choice: What is to be left out.
        receipt: Makes the line that says what was.
        unsettled: Asked under the locks: whose append is not settled, so that an intent leads to bytes at a place in
            a file; empty if there is none.
        lock_timeout: Seconds to wait for the locks.

    Raises:
        Changed: Somebody else has changed the file; nothing has been done.
        WriteError: The copy could not be written, the lock not be had, or the file is damaged so that it cannot be
            copied whole; the file is as it was.
        OSError: The same.

    Durability: The copy and its name are synced; the old bytes are freed, not overwritten.
    """
    with ExitStack() as held:
        is_live = file == log
        if not is_live:  # nobody compresses the log itself
            held.enter_context(_no_compression(file))
        source = held.enter_context(_opened(file))
        part = held.enter_context(_new_part(file, source))
        before = os.fstat(source.fileno())
        with _output(part, compressed=file.endswith(".gz")) as output:
            copy = Rewritten(choice, output)
            rest = _copy(source, file, copy, is_live=is_live)
            if not is_live:
                if not copy.forgotten.total:
                    raise Changed
                copy.add(receipt(copy.forgotten))
                copy.add(rest)
        os.fsync(part.fileno())
        with locked(log, lock_timeout) as live:
            if whose := unsettled():
                raise Changed(f"an append is not settled that {whose} notes")
            if _lock.is_replaced(source, file) or (is_live and live is None):
                raise Changed
            if is_live:
                _add_what_came(source, log, part, copy, receipt)
            elif _state(os.fstat(source.fileno())) != _state(before):
                raise Changed
            else:
                with suppress(OSError):  # `retain_days` may go by it
                    os.utime(part.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
            _take_place(source, file)
            sync_directory(file)
        return copy.forgotten


def _take_place(source: OwnFile, file: str) -> None:
    """
    Give the copy the name of *file*, the old bytes' last one.

    Whoever renames files without our locks, as logrotate does, may have put another one there just now: a log that has
    been begun, or, where names are numbers, one that holds what nobody else holds. So the two change names, and change
    back if it was not the *source* that stood there.
    """
    part, exchange = f"{file}{PART}", exchange_holding()
    failed = errno.ENOSYS if exchange is None else exchange(part, file)
    if failed == errno.ENOENT:
        raise Changed
    if exchange is None or failed in _NO_EXCHANGE:
        os.rename(part, file)
    elif failed:
        raise OSError(failed, os.strerror(failed), file)
    elif _lock.is_replaced(source, part):
        exchange(part, file)
        raise Changed
    else:
        os.unlink(part)


def _state(info: os.stat_result) -> tuple[int, int]:
    return info.st_size, info.st_mtime_ns


def _copy(source: OwnFile, file: str, copy: Rewritten, *, is_live: bool) -> bytes:
    """Copy the whole lines of *source*; return what is behind the last of them."""
    end = os.fstat(source.fileno()).st_size if is_live else None
    try:
        with _input(source, compressed=file.endswith(".gz")) as stream:
            for offset, line in lines_of(stream, end):
                if len(line) == MAX_LINE_BYTES:
                    raise WriteError(f"{file} has a line of {len(line):,} bytes or more at byte {offset}: it stays")
                if not line.endswith(b"\n"):
                    return b"" if is_live else line
                if end is not None and offset + len(line) > end:
                    return b""
                copy.take(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise WriteError(
            f"{file} is damaged ({error}), so it cannot be written anew: records that it holds stay; cut it to what "
            "can be read, or remove it, and run this again"
        ) from error
    return b""


def _add_what_came(
    source: OwnFile, log: str, part: OwnFile, copy: Rewritten, receipt: Callable[[Forgotten], bytes]
) -> None:
    """Under the locks: add to the copy of the log what has been appended since it was made."""
    _append.repair_tail(source.fileno(), log, stat.S_IMODE(os.fstat(source.fileno()).st_mode))
    last = copy.last()
    # Not only the size: a writer whose sync failed cuts its last block back, and another appends its own there.
    if os.pread(source.fileno(), len(last), copy.size - len(last)) != last:
        raise Changed
    os.lseek(source.fileno(), copy.size, os.SEEK_SET)
    with (
        _input(source, compressed=False, rewind=False) as stream,
        _output(part, compressed=False, append=True) as copy.output,
    ):
        for _, line in lines_of(stream):
            copy.take(line)
        if not copy.forgotten.total:
            raise Changed
        copy.add(receipt(copy.forgotten))
    os.fsync(part.fileno())


# -- files


@contextmanager
def _opened(file: str) -> Iterator[OwnFile]:
    try:
        # O_APPEND: what repairs the log's tail appends a newline where it can do nothing else.
        source = open_regular(file, os.O_RDWR | os.O_APPEND, 0, create=False)
    except FileNotFoundError:
        raise Changed from None
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _new_part(file: str, source: OwnFile) -> Iterator[OwnFile]:
    """Give a new, empty file beside *file*, with its owner and mode; removed at the end, unless it was renamed."""
    name = f"{file}{PART}"
    info = os.fstat(source.fileno())
    part = open_regular(name, os.O_RDWR, stat.S_IMODE(info.st_mode), like=file)
    try:
        with suppress(OSError):  # only root may give it to whoever the log belongs to
            os.fchown(part.fileno(), info.st_uid, info.st_gid)
        os.fchmod(part.fileno(), stat.S_IMODE(info.st_mode))
        os.ftruncate(part.fileno(), 0)
        yield part
    finally:
        if not _lock.is_replaced(part, name):
            os.unlink(name)
        part.close()


@contextmanager
def _no_compression(file: str) -> Iterator[None]:
    """
    Keep writers from compressing *file* meanwhile: their copy of the old bytes would take its place.

    A part file that nobody locks is left over from a kill, and holds what is to be forgotten.
    """
    name = f"{file.removesuffix('.gz')}.gz.part"
    part = open_regular(name, os.O_RDWR, 0o600, like=file)
    try:
        if not _lock.try_acquire(part) or _lock.is_replaced(part, name):
            raise Changed  # somebody is compressing it: the compressed file is the one to write anew
        os.ftruncate(part.fileno(), 0)
        _remove_twin(file)
        yield
    finally:
        if not _lock.is_replaced(part, name) and _lock.try_acquire(part):
            os.unlink(name)
        part.close()


def _remove_twin(file: str) -> None:
    """Remove the compressed file beside a plain one: a kill came between the two last steps of a compression."""
    twin = f"{file}.gz"
    if file.endswith(".gz") or not os.path.lexists(twin):
        return
    with (
        _opened(file) as plain,
        _opened(twin) as packed,
        _input(packed, compressed=True) as other,
        suppress(EOFError, zlib.error, gzip.BadGzipFile),
    ):
        # Whoever has just renamed his part file to it has it locked still, and is about to remove the plain one. When
        # he has let go of it, he has: then what looks like the second copy is the only one.
        if not _lock.try_acquire(packed) or _lock.is_replaced(packed, twin) or _lock.is_replaced(plain, file):
            raise Changed
        while (piece := plain.read(_PIECE_BYTES) or b"") == other.read(len(piece) or 1):
            if not piece:
                os.unlink(twin)
                return
    raise WriteError(
        f"{twin} differs from the plain file beside it, which is the one that counts: both stay as they are; remove "
        "the one that is wrong and run this again"
    )


@contextmanager
def _input(source: OwnFile, *, compressed: bool, rewind: bool = True) -> Iterator[BinaryIO]:
    if rewind:
        os.lseek(source.fileno(), 0, os.SEEK_SET)
    with io.FileIO(source.fileno(), "rb", closefd=False) as raw:
        if compressed:
            with gzip.GzipFile(fileobj=raw, mode="rb") as unzipped:
                yield cast("BinaryIO", unzipped)
        else:
            yield cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))


@contextmanager
def _output(part: OwnFile, *, compressed: bool, append: bool = False) -> Iterator[BinaryIO]:
    os.lseek(part.fileno(), 0, os.SEEK_END if append else os.SEEK_SET)
    with io.FileIO(part.fileno(), "wb", closefd=False) as raw, io.BufferedWriter(raw, _BUFFER_BYTES) as plain:
        if compressed:
            with gzip.GzipFile(fileobj=plain, mode="wb", filename="", compresslevel=_LEVEL) as zipped:
                yield cast("BinaryIO", zipped)
        else:
            yield cast("BinaryIO", plain)
