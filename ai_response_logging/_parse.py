"""
What the bytes of one line hold: an object, or damage in which whole records may stand; pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from ._fast_json import loads
from ._shapes import has_older_shape
from .record import CHECKSUM_MARK, checksum

__all__ = ["STARTS", "is_sealed", "objects_in", "parse_line", "records_in"]

STARTS: Final = re.compile(rb'\{"(?:schema_version|record_id|timestamp|version)"\s*:')
"""How a record begins, of today or of an older shape."""

_FAILED_STARTS: Final = 100  # of objects inside one line, before the search is given up
_MARK_AT: Final = -(len(CHECKSUM_MARK) + 8 + 2)  # ,"checksum":"89abcdef"}
_SCANNER: Final = json.JSONDecoder()
# Where a cut was made inside a literal, an escape or a string, the parser complains a few bytes before or behind it.
_BEFORE: Final = 6
_BEHIND: Final = 2


def parse_line(line: bytes) -> dict[str, Any]:
    """
    Return the object that *line* holds.

    Raises:
        ValueError: It is not UTF-8, not JSON (NaN and Infinity are not), or not an object; the text says which.
    """
    try:
        value = loads(line)
    except orjson.JSONDecodeError as error:
        value = _parse_slowly(line, error)
    except MemoryError:  # for the fast parser; the other does with less
        value = _parse_slowly(line)
    if not isinstance(value, dict):
        name = _JSON_NAMES.get(type(value), "null")
        raise ValueError(f"a JSON {name}, not an object")  # noqa: TRY004  one error for every bad line
    return value


_JSON_NAMES: Final = {list: "list", str: "string", int: "number", float: "number", bool: "boolean"}


def _parse_slowly(line: bytes, error: orjson.JSONDecodeError | None = None) -> object:
    """Take what the fast parser refuses although it is JSON: half an emoji as an escape, found in the oldest files."""
    if not line.strip():
        raise ValueError("a blank line")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise ValueError(f"not UTF-8 from byte {bad.start} of the line on") from None
    complaint = f"not JSON: {error.msg} (character {error.pos} of the line)" if error else "not JSON"
    if error and "\\u" not in text:
        raise ValueError(complaint)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(complaint) from None


def _refuse(name: str) -> None:
    raise ValueError(name)


def is_sealed(body: bytes) -> bool:
    """Whether *body*, a line without its newline, ends with the right checksum of what is before it."""
    return body[_MARK_AT:-10] == CHECKSUM_MARK and body[-2:] == b'"}' and checksum(body[:_MARK_AT]) == body[-10:-2]


def objects_in(body: bytes, position: int = 0) -> Iterator[tuple[int, int]]:
    """Yield where in *body* objects stand that begin as a record does, as (first byte, byte behind)."""
    text = body.decode("latin-1")  # one character a byte, so that positions are bytes
    failed = 0
    while failed < _FAILED_STARTS and (start := STARTS.search(body, position)):
        try:
            _, position = _SCANNER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            failed += 1
            position = start.end()
            continue
        yield start.start(), position


def records_in(line: bytes) -> list[dict[str, Any]]:
    """
    Return the whole records that stand in a damaged line, glued to the piece of another.

    Only those that can be no part of what is around them: one begins where a parser finds what stands before it broken
    off, and ends with the line or where another begins; and its checksum is right, if it has one. A record that
    somebody logged inside another is none of its own.
    """
    body = line.rstrip(b"\r\n")
    if STARTS.search(body) is None:
        return []
    found: list[dict[str, Any]] = []
    behind = 0  # the last record found
    for start, end in objects_in(body):
        ends_well = end == len(body) or body[end] in b"{\0"
        if not ends_well or not _begins_a_record(body, behind, start):
            continue
        record = _whole_record(body[start:end])
        if record is not None:
            found.append(record)
            behind = end
    return found


def _begins_a_record(body: bytes, behind: int, start: int) -> bool:
    """Whether what stands from *behind* on breaks off right before *start*."""
    if start == behind:
        return True
    piece = behind
    # Several pieces may stand there, one after the other: only the last of them has to break off here.
    for match in STARTS.finditer(body, behind, start):
        if match.start() > behind and _breaks_at(body[piece:], match.start() - piece):
            piece = match.start()
    return _breaks_at(body[piece:], start - piece)


def _breaks_at(body: bytes, at: int) -> bool:
    try:
        loads(body.decode("latin-1"))
    except orjson.JSONDecodeError as error:
        gap = body[error.pos : at]
        return error.pos <= at + _BEHIND and (len(gap) <= _BEFORE or not gap.strip(b"\0"))
    return False


def _whole_record(body: bytes) -> dict[str, Any] | None:
    try:
        record = parse_line(body)
    except ValueError:
        return None
    is_ours = "schema_version" in record or "writer_id" in record
    return record if (is_sealed(body) if is_ours else has_older_shape(record)) else None
