"""
Rewrite a log: older lines as records of today, and the way back, with a proof that nothing is lost.

What is written is read again before it gets its name, converted back, and compared with what was read: object by
object in one hash over canonical JSON.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, tzinfo
from enum import IntEnum
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from ._journal_read import Journalled, journal_lines
from ._nested import native_of, to_nested
from ._parse import parse_line
from ._shapes import has_older_shape, to_original, to_today
from ._whole_file import Output
from .errors import ConfigError
from .reader import BadLine, LogSnapshot, StrPath, is_unfinished, lines_of, records_of
from .record import default_log_path, new_writer_id, seal, tail_of

__all__ = ["Conversion", "convert_log"]

_BIG_NUMBER: Final = re.compile(rb"\d{19}")  # from so many digits on the fast parser may round


@dataclass(frozen=True, slots=True)
class Conversion:
    """
    What :func:`convert_log` did.

    Attributes:
        out: The file that was written.
        to: ``1.0`` or ``2.0``.
        records: Objects read, and lines written.
        converted: How many of them have another shape now; the others were copied byte for byte.
        equal: How many are equal to what was read, once converted back.
        sha256_read: Of the canonical JSON of all objects read, a line each.
        sha256_back: The same of what was written, read again and converted back.
        bad_lines: Lines that cannot be read.
        bad_file: Where they are kept, byte for byte; empty where there are none.
        bad: Their places, at most 1,000.
    """

    out: str
    to: str
    records: int
    converted: int
    equal: int
    sha256_read: str
    sha256_back: str
    bad_lines: int
    bad_file: str
    bad: tuple[BadLine, ...]

    @property
    def is_proven(self) -> bool:
        """Whether every object came back equal."""
        return self.records == self.equal and self.sha256_read == self.sha256_back

    def to_dict(self) -> dict[str, Any]:
        """Return it as ``ai-responses convert --json`` prints it."""
        return {**asdict(self), "proven": self.is_proven, "bad": [one._asdict() for one in self.bad]}


def convert_log(
    path: StrPath | None,
    out: StrPath,
    *,
    to: str = "1.0",
    assume_timezone: tzinfo | None = None,
    force: bool = False,
) -> Conversion:
    """
    Write the log at *path*, with its rotated files and what is only in journals, as one file of one shape.

    To ``1.0``, the record of today, older lines get a writer and numbers of their own, a checksum, and a
    ``source_format``; lines of today, and objects of somebody else's, are copied byte for byte. To ``2.0``, lines that
    came from an older shape become what they were (v1 and 3.0 as well), records of today become 2.0 lines with a
    ``source_format`` from which they come back, and older lines are copied. The log itself is not touched.

    Args:
        path: The log's base name; None for ``AI_RESPONSES_FILE``, then the default place.
        out: The new file; compressed if its name ends in ``.gz``. It appears whole or not at all.
        to: ``1.0`` or ``2.0``.
        assume_timezone: Of local times in older lines that have no ``unix_timestamp``.
        force: Replace a file at *out*; never one of the log's own.

    Raises:
        ConfigError: *out* is there, is the log or cannot be made, or a line needs a time zone; nothing was written.
        LogReadError: There is no such log, or it cannot be read.
        OutputError: The disk is full, or refuses; *out* is as it was.

    Durability: Survives loss of power on return.

    .. versionadded:: 0.1.0
    """
    if to not in {"1.0", "2.0"}:
        raise ConfigError(f"to must be 1.0 or 2.0, got {to!r}", "--to")
    return _Run(default_log_path(path), os.path.abspath(os.fspath(out)), to, assume_timezone, force=force).convert()


class _Way(IntEnum):
    """How a line was written, and so how it goes back."""

    COPIED = 0
    TO_TODAY = 1  # by to_today; back by to_original
    TO_NATIVE = 2  # by native_of; back by to_nested
    TO_ORIGINAL = 3  # by to_original; back by to_today
    TO_NESTED = 4  # by to_nested; back by native_of


class _Object(NamedTuple):
    """An object of the log with its line, if that is whole, and where it stood."""

    value: dict[str, Any]
    data: bytes | None
    file: str
    line: int


class _Run:
    def __init__(self, path: str, out: str, to: str, assume_timezone: tzinfo | None, *, force: bool) -> None:
        self._path, self._out, self._to, self._force = path, out, to, force
        self._assume_timezone = assume_timezone
        self._bad_file = f"{out}.bad"
        self._bad: list[BadLine] = []
        self._ways = array("B")
        self._hashes = array("Q")
        self._tail, self._seqs = tail_of(new_writer_id()), count()

    def convert(self) -> Conversion:
        """Write, prove, and give the file its name."""
        self._refuse_to_overwrite()
        journalled = Journalled()
        found = journal_lines(self._path, lambda file, reason: self._bad.append(BadLine(file, 0, 0, reason)))
        early = [line.line for line in found if not journalled.holds(line)]
        with LogSnapshot(self._path, missing_ok=bool(journalled.noted)) as snapshot:
            self._refuse_the_log_itself(snapshot)
            with (
                Output(self._out, replace=self._force) as out,
                Output(self._bad_file, replace=self._force) as bad,
            ):
                read = self._write(out, self._objects(snapshot, journalled, early))
                equal, back = self._prove(out)
                kept = self._keep_bad(bad, snapshot)
                if kept:
                    bad.take_name()
                out.take_name()
        return Conversion(
            self._out, self._to, len(self._ways), sum(map(bool, self._ways)), equal, read, back,
            sum(one.line > 0 for one in self._bad), kept, tuple(self._bad[:1000]),
        )  # fmt: skip

    # --- what may not be written ----------------------------------------------------------------------------------

    def _refuse_to_overwrite(self) -> None:
        for file in (self._out, self._bad_file):
            if os.path.lexists(file) and not self._force:
                raise ConfigError(f"{file} is there already; nothing was written: name another, or --force", "-o")

    def _refuse_the_log_itself(self, snapshot: LogSnapshot) -> None:
        own = {file.identity for file in snapshot.files}
        for name in (self._out, self._bad_file):
            with suppress(OSError):
                status = os.stat(name)
                if (status.st_dev, status.st_ino) in own:
                    raise ConfigError(f"{name} is a file of the log itself; nothing was written", "-o")
        if self._out == self._path:
            raise ConfigError(f"{self._out} is where the log's writers write; nothing was written", "-o")

    # --- one pass over the log ------------------------------------------------------------------------------------

    def _objects(self, snapshot: LogSnapshot, journalled: Journalled, early: list[bytes]) -> Iterator[_Object]:
        for line in early:
            yield _Object(_exactly(line), line, "journal", 0)
        for file in snapshot.files:
            for place, record in records_of(snapshot, file, self._bad.append):
                if not journalled.shows(record):
                    continue
                is_damaged = bool(self._bad) and self._bad[-1][:2] == (file.path, place.line)
                if is_damaged:
                    yield _Object(record, None, file.path, place.line)
                else:
                    yield _Object(_exactly(place.data), place.data, file.path, place.line)
        for line in journalled.left():
            yield _Object(_exactly(line), line, "journal", 0)

    def _write(self, out: Output, objects: Iterator[_Object]) -> str:
        digest = hashlib.sha256()
        for one in objects:
            way, line = self._line_of(one)
            canonical = _canonical(_essence(one.value) if way == _Way.TO_ORIGINAL else one.value)
            digest.update(canonical)
            self._hashes.append(_hash(canonical))
            self._ways.append(way)
            out.write(line)
        out.finish()
        return digest.hexdigest()

    def _line_of(self, one: _Object) -> tuple[_Way, bytes]:
        if self._to == "1.0":
            if has_older_shape(one.value):
                return self._as_today(one)
        elif _came_from_before(one.value):
            return _Way.TO_ORIGINAL, _dumped(to_original(one.value)) + b"\n"
        elif "schema_version" in one.value:
            return _Way.TO_NESTED, _dumped(to_nested(one.value)) + b"\n"
        return _Way.COPIED, (one.data or _dumped(one.value)).rstrip(b"\r\n") + b"\n"

    def _as_today(self, one: _Object) -> tuple[_Way, bytes]:
        native = native_of(one.value)
        if native is not None:
            return _Way.TO_NATIVE, _dumped(native) + b"\n"
        record = to_today(one.value, line=one.line, assume_timezone=self._assume_timezone)
        if "timestamp" not in record and "timestamp" in to_today(one.value, assume_timezone=UTC):
            raise ConfigError(
                f"line {one.line} of {one.file} has local time and no unix_timestamp: say which zone is meant, as in "
                "--assume-timezone +08:00; nothing was written"
            )
        return _Way.TO_TODAY, seal(_dumped(record)[:-1], self._tail, next(self._seqs))

    # --- the proof ------------------------------------------------------------------------------------------------

    def _prove(self, out: Output) -> tuple[int, str]:
        """Read what was written, convert it back, and hash that; count what is equal."""
        digest, equal = hashlib.sha256(), 0
        with out.reading() as file:
            for (_, line), way, expected in zip(lines_of(file), self._ways, self._hashes, strict=True):
                canonical = _canonical(_back(_exactly(line), way))
                digest.update(canonical)
                equal += _hash(canonical) == expected
        return equal, digest.hexdigest()

    # --- what cannot be read --------------------------------------------------------------------------------------

    def _keep_bad(self, out: Output, snapshot: LogSnapshot) -> str:
        """Copy bad lines as they are into a file of their own, and return its name; none where there are none."""
        wanted: dict[str, set[int]] = {}
        for bad in self._bad:
            if bad.line:
                wanted.setdefault(bad.file, set()).add(bad.line)
        if not wanted:
            return ""
        for file in snapshot.files:
            if file.path not in wanted:
                continue
            with suppress(EOFError, gzip.BadGzipFile), snapshot.open(file) as stream:
                for number, (_, line) in enumerate(lines_of(stream, file.end), 1):
                    if number in wanted[file.path]:
                        out.write(line + b"\n" if is_unfinished(line) else line)
        out.finish()
        return out.path


def _came_from_before(record: dict[str, Any]) -> bool:
    source = record.get("source_format")
    return "schema_version" in record and isinstance(source, dict) and isinstance(source.get("version"), str)


def _back(value: dict[str, Any], way: int) -> dict[str, Any]:
    """Return what a line that was written *way* was made of."""
    if way == _Way.TO_TODAY:
        return to_original(value)
    if way == _Way.TO_NATIVE:
        return to_nested(value)
    if way == _Way.TO_NESTED:
        return native_of(value) or {}
    return _essence(to_today(value)) if way == _Way.TO_ORIGINAL else value


def _essence(record: dict[str, Any]) -> dict[str, Any]:
    """Return a converted record without what its original does not decide: writer, number, line, assumed time."""
    made = record["source_format"].get("made", ())
    left = {"source_format", "writer_id", "seq", "checksum", "timestamp"}
    left.update({"unix_timestamp"} & set(made))
    return {name: value for name, value in record.items() if name not in left}


def _hash(canonical: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(canonical, digest_size=8).digest())


def _exactly(line: bytes) -> dict[str, Any]:
    """Parse a line without rounding numbers of more than 64 bits."""
    if _BIG_NUMBER.search(line):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return parse_line(line)


def _dumped(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # half an emoji, or a number of more than 64 bits
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _canonical(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"
