"""Any line of an older shape becomes a record of today from which the very line comes back."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging._nested import flat_record, native_of, to_nested
from ai_response_logging._shapes import COPIED, FIELDS, NESTED, to_original, to_today

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(["1", "2026-01-02T03:04:05", "2026-01-02T03:04:05.25+08:00", "2.0", "v1"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
PATHS = [*NESTED.values(), *(path for paths in COPIED.values() for path in paths)]
GROUPS = sorted({path[0] for path in PATHS})
NAMES = st.sampled_from([
    *FIELDS, *GROUPS, "timestamp", "version", "schema_version", "source_format", "writer_id", "seq", "checksum", "odd",
])  # fmt: skip


@st.composite
def older_objects(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what an old logger might have written, and what none should have."""
    original: dict[str, Any] = draw(st.dictionaries(NAMES | TEXTS, VALUES, max_size=6))
    version = draw(st.sampled_from(["2.0", "2.1", "3.0-enhanced", "3.0-enhanced-sync", None, 2]) | TEXTS)
    if version is not None:
        original["version"] = version
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=8)):
        inner = original
        for key in path[:-1]:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[path[-1]] = draw(VALUES)
    return original


def canonical(value: object) -> bytes:
    """Return JSON that is equal for equal objects, and tells 1 from 1.0 and from true."""
    return json.dumps(value, sort_keys=True).encode()


@given(older_objects())
def test_any_older_object_comes_back_equal(original: dict[str, Any]) -> None:
    """
    Older -> today -> older is equal, through the bytes of a line, whatever stands in it.
    """
    before = canonical(original)
    record = orjson.loads(orjson.dumps(to_today(original, line=1)))

    assert canonical(to_original(record)) == before
    assert canonical(original) == before


@given(older_objects())
def test_any_older_object_is_flat_and_typed(original: dict[str, Any]) -> None:
    """
    A field of today has today's type, null stands only inside objects, and the time is UTC.
    """
    record = to_today(original)

    for name, value in record.items():
        assert value is not None
        assert name not in FIELDS or FIELDS[name](value), name
    assert ("timestamp" in record) == ("unix_timestamp" in record)
    assert record.get("timestamp", "Z").endswith("Z")


@given(st.dictionaries(NAMES | TEXTS, VALUES, max_size=10))
def test_any_record_of_today_goes_through_a_nested_line(record: dict[str, Any]) -> None:
    """
    Today -> 2.0 -> today is equal, keys in order.
    """
    nested = orjson.loads(orjson.dumps(to_nested(record)))
    back = native_of(nested)

    assert back is not None
    assert canonical(back) == canonical(record)
    assert list(back) == list(record)


@given(older_objects(), VALUES)
def test_a_strange_source_format_loses_nothing(original: dict[str, Any], source: object) -> None:
    """
    Whatever stands where a nested line says where it came from, the line can be made again.
    """
    original["source_format"] = source if not isinstance(source, dict) else {"schema_version": "1.0", **source}
    record = flat_record(original)
    again = to_nested(record) if native_of(original) is not None else to_original(record)

    assert canonical(again) == canonical(original)
