"""
What one line of a log is: a whole record, or which kind of damage.

Pure: bytes in, a finding out. The bytes decide, not what the writing side says of itself.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Final, NamedTuple

import orjson

from .._parse import STARTS, objects_in, parse_line
from .._shapes import has_older_shape
from .._typed import ResponseFields
from ..reader import MAX_LINE_BYTES, is_unfinished
from ..record import CHECKSUM_MARK, OWN_FIELDS, checksum

__all__ = ["Finding", "claims_in", "judge_line"]

_LISTED: Final = 5  # places named in a detail
_CLAIMS_A_LINE: Final = 10_000
_MARK_AT: Final = -(len(CHECKSUM_MARK) + 8 + 2)  # ,"checksum":"89abcdef"}
_TAIL: Final = re.compile(rb',"writer_id":("(?:[^"\\]|\\.)*"),"seq":(\d{1,18}),"checksum":"[0-9a-f]{8}"\}')
# A quote inside a text is escaped, so these can only be keys: what lacks them all is no piece of a record.
_KNOWN_KEY: Final = re.compile(
    b'(?<!\\\\)"(?:' + "|".join(sorted({*OWN_FIELDS, *ResponseFields.__annotations__})).encode() + b')"\\s*:'
)
_ZEROS: Final = re.compile(rb'("unix_timestamp":\d+\.\d+?)0+(?=[,}])')
_EXACTLY_ONCE: Final = (b'{"schema_version":', b'"writer_id":', b'"seq":', CHECKSUM_MARK)


class Finding(NamedTuple):
    """One line judged: whole when there is no kind; `record` is there when the line can be counted."""

    kind: str = ""
    detail: str = ""
    record: dict[str, Any] | None = None
    is_older: bool = False


def judge_line(line: bytes, at: int) -> Finding:
    """Judge one line; *at* is its offset, for the details."""
    if line.endswith(b"\n"):
        return _judge(line[:-1], at)
    if not is_unfinished(line):
        return Finding("foreign", f"longer than {MAX_LINE_BYTES:,} bytes, and not looked into")
    found = _judge(line, at)
    if found.kind in {"", "duplicate", "checksum"}:
        return Finding("torn", "a record without its newline: whoever appends next would be glued to it")
    if b"\0" in line or found.kind == "glued":
        return found
    return Finding("torn", f"the file ends in the middle of this line, after {len(line):,} bytes of it")


def _judge(body: bytes, at: int) -> Finding:
    try:
        record = parse_line(body)
    except ValueError as error:
        return _judge_broken(body, at, str(error))
    return _judge_object(record, body)


def _judge_object(record: dict[str, Any], body: bytes) -> Finding:
    is_older = not _is_ours(record, body)
    if is_older:
        if not has_older_shape(record):
            return Finding("foreign", "an object, but without the fields of a record")
    elif fault := _checksum_fault(body):
        return Finding("checksum", fault)
    if (key := _doubled_key(record, body)) is not None:
        return Finding("duplicate", f"the key {key!a} stands twice in this line", record, is_older)
    return Finding("", "", record, is_older)


def _is_ours(record: dict[str, Any], body: bytes) -> bool:
    # Any one of the three: a line must not pass as an older one because damage hit the first of them.
    return "schema_version" in record or "writer_id" in record or body[_MARK_AT:-10] == CHECKSUM_MARK


def _checksum_fault(body: bytes) -> str:
    """Say how the line's bytes contradict its checksum; empty if they agree."""
    if body[_MARK_AT:-10] != CHECKSUM_MARK or body[-2:] != b'"}':
        return "no checksum at its end: altered, or not written by us"
    counted = checksum(body[:_MARK_AT])
    if counted == body[-10:-2]:
        return ""
    said = body[-10:-2].decode("ascii", "backslashreplace")
    return f"its bytes give {counted.decode()}, it says {said}: altered, or two pieces that happen to parse"


class _DoubledKeyError(Exception):
    """Carries the key out of the parser."""


def _doubled_key(record: dict[str, Any], body: bytes) -> str | None:
    """Return a key that one of the line's objects has twice."""
    if _comes_out_as_it_went_in(record, body):
        return None  # the parser would have taken the last of two silently, and the line come out shorter
    try:
        _PAIRS.decode(body.decode("utf-8"))
    except _DoubledKeyError as found:
        return str(found)
    except RecursionError:
        return None  # nested deeper than the standard library reads: what cannot be judged is not accused
    return None


def _comes_out_as_it_went_in(record: dict[str, Any], body: bytes) -> bool:
    try:
        again = orjson.dumps(record)
    except orjson.JSONEncodeError:
        return False
    # One line in ten has a time whose last digits are zeros, which no number keeps.
    return again == body or again == _ZEROS.sub(rb"\1", body, count=1)


def _once_each(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DoubledKeyError(next(key for key in keys if keys.count(key) > 1))


_PAIRS: Final = json.JSONDecoder(object_pairs_hook=_once_each)


def _judge_broken(body: bytes, at: int, reason: str) -> Finding:
    """Judge a line that is not one JSON object."""
    starts = len(STARTS.findall(body))
    inside = _records_inside(body, at) if starts else []
    where = f"; whole records in it: {_listed(inside)}" if inside else ""
    if b"\0" in body:
        return Finding("foreign", f"{body.count(0):,} NUL bytes among its {len(body):,}{where}")
    if _is_json(body):
        return Finding("foreign", reason)
    if inside:
        return Finding("glued", f"{_listed(inside)} on one line with something else")
    if starts > 1:
        return Finding("glued", f"pieces of {starts} records on one line, none of them whole")
    if body.startswith(b"{") and _runs_out(body):
        return Finding("torn", f"it ends in the middle of a record, after {len(body):,} bytes of it")
    return _judge_piece(body, reason, is_headed=STARTS.match(body) is not None)


def _judge_piece(body: bytes, reason: str, *, is_headed: bool) -> Finding:
    if not is_headed:
        is_piece = _TAIL.search(body) or (_KNOWN_KEY.search(body) and not body.startswith(b"{"))
        if is_piece:
            return Finding("torn", "a piece of a record: its beginning is missing")
        return Finding("foreign", reason)
    # It begins like a record and breaks off inside. A record that was altered still has each of its own keys once;
    # two pieces lack one or have it twice.
    if body.startswith(_EXACTLY_ONCE[0]) and any(body.count(key) != 1 for key in _EXACTLY_ONCE):
        return Finding("glued", f"pieces of several records on one line, none of them whole ({reason})")
    return Finding("foreign", f"begins like a record, but is {reason}")


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _runs_out(body: bytes) -> bool:
    """Whether a parser finds nothing wrong but the end."""
    text = body.decode("latin-1")  # a cut may have gone through a character; the structure is ASCII anyway
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return error.pos >= len(text)
    return False


def _records_inside(body: bytes, at: int) -> list[tuple[int, int]]:
    """Return where in the file whole records stand within one broken line, as (first byte, byte behind)."""
    return [(at + start, at + end) for start, end in objects_in(body) if _is_whole(body[start:end])]


def _is_whole(body: bytes) -> bool:
    """Whether *body* is a whole record, without looking for others inside it."""
    try:
        return not _judge_object(parse_line(body), body).kind
    except ValueError:
        return False


def _listed(places: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"bytes {start} to {end - 1}" for start, end in places[:_LISTED])
    more = f" and {len(places) - _LISTED:,} more" if len(places) > _LISTED else ""
    return f"{len(places):,} whole record{'s' if len(places) > 1 else ''} ({shown}{more})"


def claims_in(line: bytes) -> list[tuple[str, int]]:
    """Return the (writer_id, seq) that a damaged line still shows: such a number is damaged, but it is not missing."""
    found: list[tuple[str, int]] = []
    for match in _TAIL.finditer(line):
        if len(found) == _CLAIMS_A_LINE:
            break
        with suppress(orjson.JSONDecodeError):
            found.append((orjson.loads(match[1]), int(match[2])))
    return found
