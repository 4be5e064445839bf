"""
Read a log by its base name: every file that belongs to it, oldest first, record by record.

A log is one live file, what was rotated away from it, and what is still in journals. Reading takes no lock and writes
nothing, so it never waits for a writer nor makes one wait; what is renamed or moves to the log meanwhile is read once.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from datetime import tzinfo
from typing import Any, BinaryIO, Final, NamedTuple

from ._journal_read import Journalled, journal_lines
from ._nested import flat_record
from ._parse import parse_line, records_in
from ._shapes import has_older_shape
from ._snapshot import LogFile, LogSnapshot, StrPath, log_files
from .errors import LogReadError
from .filters import Filters
from .record import default_log_path

__all__ = [
    "MAX_LINE_BYTES",
    "BadLine",
    "LogFile",
    "LogSnapshot",
    "RawLine",
    "StrPath",
    "is_unfinished",
    "lines_of",
    "log_files",
    "parse_line",
    "read_log",
    "records_of",
]

MAX_LINE_BYTES: Final = 256 * 1024 * 1024
"""A longer line is not looked into (bytes): a hole of a terabyte must not fill the memory."""

_SKIPPED_BYTES: Final = 1024 * 1024  # at once, of a line that is longer than that


class BadLine(NamedTuple):
    """A *line*, from 1, that :func:`read_log` left out, and its first byte (uncompressed); 0 is a whole journal."""

    file: str
    line: int
    offset: int
    reason: str


class RawLine(NamedTuple):
    """A line as it stands in a file: its number from 1, its first byte from 0 (uncompressed), and its bytes."""

    line: int
    offset: int
    data: bytes


def lines_of(stream: BinaryIO, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """
    Yield each line with the offset of its first byte; only the last may lack its newline.

    Of a line longer than :data:`MAX_LINE_BYTES` only so many bytes are given, without a newline.

    Args:
        stream: At its first byte.
        end: Begin no line at or behind this offset.
    """
    offset = 0
    while end is None or offset < end:
        line = stream.readline(MAX_LINE_BYTES)
        if not line:
            return
        yield offset, line
        offset += len(line)
        rest = line if len(line) == MAX_LINE_BYTES else b""
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(_SKIPPED_BYTES)
            offset += len(rest)


def is_unfinished(line: bytes) -> bool:
    """Whether a line of :func:`lines_of` lacks its newline, and not only because it is too long to be looked into."""
    return not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES


def read_log(
    path: StrPath | None = None,
    *,
    on_bad: Callable[[BadLine], object] | None = None,
    missing_ok: bool = False,
    filters: Filters | None = None,
    assume_timezone: tzinfo | None = None,
) -> Iterator[dict[str, Any]]:
    """
    Yield the records of the log at *path*, oldest file first, each as a flat record of today.

    What is only in journals, of living writers and of those that were killed, comes behind the log, each once; where
    that is more than 16 MiB, the rest of it comes before the log. Lines that stand twice in the log are given twice.

    Lines of the older shapes (v1, 2.0, 3.0-enhanced) come as today's, with a ``source_format`` that keeps what they
    were; see :func:`~ai_response_logging._shapes.to_today`. Any other object is passed through as it is. A line that
    cannot be read is given to *on_bad*, and so is a journal that may not be read; whole records that are glued to a
    damaged piece are still found. A last line that a writer has not finished yet is no bad line.
    Checksums are not looked at: that is what :func:`~ai_response_logging.verify.verify_log` is for. Memory: one line
    and its buffer, and 16 MiB at most of what is in journals, with 40 bytes for each unbroken run of numbers.

    Args:
        path: The log's base name; without it ``AI_RESPONSES_FILE``, then the default place.
        on_bad: Called with each :class:`BadLine`.
        missing_ok: Yield nothing where there is no log, instead of raising.
        filters: Only these records.
        assume_timezone: Of the local times in older lines that have no ``unix_timestamp``; without it such records
            have no time.

    Raises:
        LogReadError: At the first record asked for: there is no such log, or it may not be read.

    .. versionadded:: 0.1.0
    """
    path, tell = default_log_path(path), on_bad or _ignore
    is_wanted = filters.match if filters else _anything
    journalled = Journalled()
    for found in journal_lines(path, lambda file, reason: tell(BadLine(file, 0, 0, reason))):
        if not journalled.holds(found) and is_wanted(record := parse_line(found.line)):
            yield record
    # Only now, never before: what has left its journal meanwhile is in the log that is opened here.
    with LogSnapshot(path, missing_ok=missing_ok or bool(journalled.noted)) as snapshot:
        for file in snapshot.files:
            for place, record in records_of(snapshot, file, tell):
                if journalled.shows(record):
                    if has_older_shape(record):
                        record = flat_record(record, line=place.line, assume_timezone=assume_timezone)  # noqa: PLW2901  the same one
                    if is_wanted(record):
                        yield record
    yield from filter(is_wanted, map(parse_line, journalled.left()))


def _ignore(_bad: BadLine) -> None:
    """Leave a bad line out without a word."""


def _anything(_record: object) -> bool:
    return True


def records_of(
    snapshot: LogSnapshot, file: LogFile, on_bad: Callable[[BadLine], object]
) -> Iterator[tuple[RawLine, dict[str, Any]]]:
    """Yield each object in one of the snapshot's files as its line has it, with the line; *on_bad* hears of damage."""
    number = offset = 0
    try:
        with snapshot.open(file) as stream:
            for number, (offset, line) in enumerate(lines_of(stream, file.end), 1):
                place = RawLine(number, offset, line)
                try:
                    record = parse_line(line)
                except ValueError as error:
                    if not (file.is_live and is_unfinished(line)):
                        on_bad(BadLine(file.path, number, offset, str(error)))
                    for record in records_in(line):
                        yield place, record
                    continue
                yield place, record
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        on_bad(BadLine(file.path, number + 1, offset, f"the compressed file is damaged here: {error}"))
    except OSError as error:
        raise LogReadError(file.path, error.strerror or str(error)) from error
