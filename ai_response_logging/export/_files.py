"""What an export writes: files of rows, a directory that is there whole or not at all, and the manifest beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .._paths import sync_directory
from .._whole_file import Output
from ..errors import ConfigError, OutputError

__all__ = ["Manifest", "OutputFile", "RowFile", "directory_in_the_making", "hashed", "refuse_existing"]


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


class RowFile(Output):
    """
    An output of rows.

    Attributes:
        rows: Written so far.
    """

    def __init__(self, path: str, *, replace: bool) -> None:
        super().__init__(path, replace=replace)
        self.rows = 0

    def write_row(self, row: object) -> None:
        """Append *row* as one line of JSON."""
        self.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")
        self.rows += 1

    def described(self) -> OutputFile:
        """Say what it is, once it is finished."""
        return OutputFile(self.path, self.rows, self.size, self.sha256())


@contextlib.contextmanager
def directory_in_the_making(path: str) -> Iterator[str]:
    """
    Give a directory that gets the name *path* when the block ends well, in the place of one that was there.

    Killed in the instant between the two renames that this takes, what was there has the name ``<path>.<...>.old``.

    Raises:
        ConfigError: It cannot be made in that place.
        OutputError: The disk refused; what was at *path* is as it was.

    Durability: All that is in it, and its name, survive loss of power.
    """
    unique = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    making, before = f"{unique}.new", f"{unique}.old"
    try:
        os.mkdir(making, 0o700)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield making
        _sync_tree(making)
        try:
            if os.path.lexists(path):
                os.rename(path, before)
            os.rename(making, path)
        finally:
            if os.path.lexists(before) and not os.path.lexists(path):
                os.rename(before, path)
        sync_directory(path)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
        if os.path.isdir(before) and not os.path.islink(before):
            shutil.rmtree(before, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(before)


def _sync_tree(directory: str) -> None:
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(os.path.join(folder, "any"))


def hashed(path: str) -> OutputFile:
    """Describe a file that somebody else wrote."""
    with open(path, "rb") as file:
        return OutputFile(path, None, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())
