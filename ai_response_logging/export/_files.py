"""Output that is there whole or not at all, and the manifest beside it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, cast

from .._paths import sync_directory
from ..errors import ConfigError

__all__ = ["Manifest", "Output", "OutputFile", "directory_in_the_making", "hashed", "refuse_existing"]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that was written: its name, its rows (None where only all files together have a number), size and hash."""

    path: str
    rows: int | None
    bytes: int
    sha256: str


@dataclass(slots=True)
class Manifest:
    """
    What became of every record that was read.

    ``read`` is the sum of ``used`` and of all in ``left_out``.

    Attributes:
        format: What was written.
        log: Where from.
        read: Records, as far as the filters wanted them.
        used: Of those, how many are in the output.
        left_out: Of those, how many are not, by reason.
        bad_lines: Lines that could not be read, besides.
        rows: In the output; a pair of answers is one row.
        validation_rows: Of those, in the validation set.
        files: What was written.
        options: How it was asked for.
    """

    format: str
    log: str
    read: int = 0
    used: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0
    rows: int = 0
    validation_rows: int = 0
    files: list[OutputFile] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count records that are not in the output."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in its file."""
        return asdict(self)


def refuse_existing(path: str, *, force: bool) -> None:
    """
    Make sure that nothing is written over by accident, and that there is a place for it.

    Raises:
        ConfigError: *path* is there, or its directory is not.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ConfigError(
            f"there is no directory {folder} to write {os.path.basename(path)} into; make it first", "out"
        )
    if not force and os.path.lexists(path):
        raise ConfigError(f"{path} is there already; choose another name, or --force to replace it")


class Output:
    """
    A file in the making; it gets its name when all of it is there, and goes when something goes wrong.

    Args:
        path: Its name; one that ends in ``.gz`` is compressed, always to the same bytes.

    Threads: One at a time.
    """

    def __init__(self, path: str) -> None:
        self.path, self.rows = path, 0
        self._making = f"{path}.{os.getpid()}.new"
        # What is in the log is for few eyes, and so is what is made of it.
        self._raw = os.fdopen(os.open(self._making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")
        self._stream: BinaryIO = self._raw
        if path.endswith(".gz"):
            self._stream = cast("BinaryIO", gzip.GzipFile("", "wb", 6, self._raw, mtime=0))

    def write(self, data: bytes) -> None:
        """Append *data*."""
        self._stream.write(data)

    def write_row(self, row: object) -> None:
        """Append *row* as one line of JSON."""
        self.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")
        self.rows += 1

    def close(self) -> OutputFile:
        """Bring all of it to the disk, give it its name, and say what it is."""
        if self._stream is not self._raw:
            self._stream.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.seek(0)
        digest = hashlib.file_digest(self._raw, "sha256").hexdigest()
        size = self._raw.tell()
        self._raw.close()
        os.replace(self._making, self.path)
        sync_directory(self.path)
        return OutputFile(self.path, self.rows, size, digest)

    def discard(self) -> None:
        """Leave nothing behind; fine after `close`, too."""
        with contextlib.suppress(OSError, ValueError):
            self._raw.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._making)


@contextlib.contextmanager
def directory_in_the_making(path: str) -> Iterator[str]:
    """Give a directory that gets the name *path* when the block ends well, in the place of one that was there."""
    making = f"{path}.{os.getpid()}.new"
    os.mkdir(making, 0o700)
    try:
        yield making
        if os.path.lexists(path):
            before = f"{path}.{os.getpid()}.old"
            os.rename(path, before)
            os.rename(making, path)
            shutil.rmtree(before)
        else:
            os.rename(making, path)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def hashed(path: str) -> OutputFile:
    """Describe a file that somebody else wrote."""
    with open(path, "rb") as file:
        return OutputFile(path, None, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())
