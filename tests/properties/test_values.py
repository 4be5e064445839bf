"""Whatever an application logs becomes exactly one line that any reader reads back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import logging
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from helpers import read_lines
from hypothesis import assume, given
from hypothesis import strategies as st

from ai_response_logging._plain import plain_fields
from ai_response_logging._typed import ResponseFields
from ai_response_logging.formatter import AIResponseFormatter, current_head
from ai_response_logging.record import OWN_FIELDS, seal, tail_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # 2,000 examples each in the long profile

TAIL = tail_of("writer-1")
LOGGING_REFUSES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "ai_status"}


class Colour(enum.Enum):
    RED = "red"
    NAN = math.nan


class Column(enum.Enum):
    SEQ = "seq"
    MODEL = "model"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Fields(dict):  # type: ignore[type-arg]
    pass


class Mute:
    def __str__(self) -> str:
        raise ValueError("no text")

    def __repr__(self) -> str:
        return "Mute()"  # for Hypothesis's reports


@dataclasses.dataclass
class Usage:
    tokens: Any
    _raw: Any = None


def ring(value: Any) -> Any:
    """Return a list that holds *value* and itself."""
    made = [value]
    made.append(made)
    return made


def well(value: Any) -> Any:
    """Return *value* under 300 levels."""
    for _ in range(300):
        value = [value]
    return value


BEFORE_RAILWAYS = datetime.timezone(datetime.timedelta(hours=8, minutes=5, seconds=43))

any_text = st.text(st.characters())  # lone surrogates too: a stream can be cut inside an emoji
clean_text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | clean_text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(clean_text, inner, max_size=4), max_leaves=15
)
# Values that orjson knows and JSON does not: both ways must write them alike.
known = (
    scalars
    | st.datetimes(timezones=st.none() | st.sampled_from([datetime.UTC, BEFORE_RAILWAYS]))
    | st.dates()
    | st.times()
    | st.uuids()
    | st.just(Colour.RED)
    | any_text.filter(str.isascii).map(Text)
    | st.integers(-100, 100).map(Whole)
)
known_values = st.recursive(
    known,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(clean_text, inner, max_size=3)
        | st.dictionaries(clean_text, inner, max_size=3).map(Fields)
        | st.builds(Usage, inner, inner)
    ),
    max_leaves=12,
)
hostile = (
    known
    | any_text
    | st.floats()
    | st.integers()
    | st.binary(max_size=20)
    | st.decimals()
    | st.complex_numbers()
    | st.sampled_from([Mute(), Colour.NAN, Usage, object(), ..., uuid, 10**4000, -(10**30), decimal.Decimal("sNaN")])
)
hostile_keys = (
    any_text | st.integers() | st.floats() | st.none() | st.booleans() | st.binary() | st.sampled_from(Column)
)
hostile_values = st.recursive(
    hostile,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(hostile_keys, inner, max_size=3)
        | st.builds(Usage, inner, inner)
        | inner.map(ring)
        | inner.map(well)
        | st.frozensets(hostile_keys, max_size=3)
    ),
    max_leaves=12,
)
our_names = st.sampled_from(sorted(OWN_FIELDS | set(ResponseFields.__annotations__)))
hostile_fields = st.dictionaries(our_names | hostile_keys, hostile_values, max_size=6)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], dict[str, Any]]:
    """Return what reads one line back as a strict reader does: whole, no key twice, no NaN, the right checksum."""
    file: Path = tmp_path_factory.mktemp("values") / "line.jsonl"

    def read_back(line: bytes) -> dict[str, Any]:
        file.write_bytes(line)
        (record,) = read_lines(file)
        return record

    return read_back


def line_of(fields: dict[Any, Any]) -> bytes:
    """Return the line of *fields*, as the functions make it."""
    given = {key: value for key, value in fields.items() if value is not None}
    return seal(AIResponseFormatter().encode_fields(given, current_head("m", "INFO", "ai_responses")).body, TAIL, 0)


@given(hostile_fields)
def test_any_fields_are_one_valid_line(read: Any, fields: dict[Any, Any]) -> None:
    """
    No field, whatever its name and its value, makes a record vanish or a line invalid.
    """
    record = read(line_of(fields))

    assert None not in record.values()
    assert (record["level"], record["logger"], record["seq"], record["writer_id"]) == (
        "INFO",
        "ai_responses",
        0,
        "writer-1",
    )
    assert all(isinstance(record[name], str) for name in ("record_id", "event", "timestamp", "message"))


@given(
    any_text | hostile_values,
    st.lists(hostile_values, max_size=2),
    hostile_fields,
    st.sampled_from(
        [{}, {"static_fields": {"app": "shop"}}, {"reserved_attrs": []}, {"rename_fields": {"model": "seq"}}]
    ),
)
def test_any_call_of_a_logger_is_one_valid_line(
    read: Any, msg: Any, args: list[Any], extra: dict[Any, Any], options: dict[str, Any]
) -> None:
    """
    Message, arguments and extra may be anything that `logging` itself lets through, whatever the formatter's options.
    """
    extra = {key: value for key, value in extra.items() if key not in LOGGING_REFUSES}
    record = logging.getLogger("app").makeRecord("app", 20, __file__, 1, msg, tuple(args), None, extra=extra)

    line = read(f"{AIResponseFormatter(**options).format(record)}\n".encode())

    assert None not in line.values()
    assert isinstance(line["message"], str)


@given(st.dictionaries(clean_text, json_values, max_size=5))
def test_what_json_can_hold_reads_back_equal(read: Any, metadata: dict[str, Any]) -> None:
    """
    Kept means equal to what was logged: nothing replaced, nothing named.
    """
    record = read(line_of({"metadata": metadata, "question": "why?"}))
    assume("redacted" not in record)  # a key such as APIKEY, which Hypothesis finds in our source, is no subject here

    assert record["metadata"] == metadata
    assert "encode_errors" not in record


@given(st.dictionaries(clean_text, known_values, max_size=4))
def test_both_ways_write_the_same(metadata: dict[str, Any]) -> None:
    """
    One bad value elsewhere in a record does not change how the good ones are written.
    """
    short = json.loads(line_of({"metadata": metadata}))
    careful = json.loads(line_of({"metadata": metadata, "bad": math.nan}))

    assert careful["metadata"] == short["metadata"]
    assert careful["encode_errors"] == [{"path": "bad", "type": "float"}]


@given(json_values.filter(lambda value: value is not None), st.sampled_from(["\ud83d", math.nan, -math.inf, 2**64]))
def test_what_is_replaced_is_named_and_nothing_else_changes(read: Any, good: Any, bad: Any) -> None:
    """
    Beside a bad value the good ones read back equal, and only the bad one is named, with its path.
    """
    record = read(line_of({"good": good, "metadata": {"list": [good, bad]}}))
    assume("redacted" not in record)  # as above

    assert record["good"] == record["metadata"]["list"][0] == good
    assert [one["path"] for one in record["encode_errors"]] == ["metadata.list[1]"]


@given(hostile_fields)
def test_the_careful_way_never_fails(fields: dict[Any, Any]) -> None:
    """
    Whatever goes in, plain values come out: orjson takes them, and each key once.
    """
    plain, named = plain_fields(fields)

    assert len(plain) == len(fields)
    assert isinstance(orjson.loads(orjson.dumps(plain)), dict)
    assert all(one.keys() == {"path", "type"} for one in named)
