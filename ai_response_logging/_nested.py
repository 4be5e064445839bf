"""
A record of today as a line of 2.0, for readers that know nothing newer, and the exact way back; pure.

What 2.0 has a place for goes there, every other field stays at the top under its own name, and ``source_format`` says
``{"schema_version": "1.0", "keys": [all fields in order], "rest": {what 2.0 has no place for}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final

import orjson

from ._shapes import FIELDS, NESTED, to_today

__all__ = ["NESTED_VERSION", "flat_record", "native_of", "to_nested"]

NESTED_VERSION: Final = "2.0"

_GROUPS: Final = frozenset(path[0] for path in NESTED.values())
_OTHERS: Final = frozenset({
    "version", "source_format", "schema_version", "writer_id", "seq", "checksum", "encode_errors", "redacted",
})  # fmt: skip


def to_nested(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return *record*, which was never in an older shape, as the object of a 2.0 line.

    Its ``timestamp`` stays UTC and says so, unlike those of the older loggers.
    """
    nested: dict[str, Any] = {"version": NESTED_VERSION, "question": {}, "response": {}}
    rest: dict[str, Any] = {}
    for name, value in record.items():
        path = NESTED.get(name)
        if path and FIELDS[name](value):
            inner = nested
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
        elif name in _OTHERS or name in _GROUPS:
            rest[name] = value
        else:
            nested[name] = value
    source = {"schema_version": record.get("schema_version", ""), "keys": list(record), "rest": rest}
    return {**nested, "source_format": source}


def native_of(nested: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record that :func:`to_nested` made *nested* of; None if it made it of none."""
    source = nested.get("source_format")
    if not isinstance(source, dict) or "schema_version" not in source:
        return None
    keys, rest = source.get("keys"), source.get("rest")
    if not isinstance(keys, list) or not isinstance(rest, dict):
        return None
    try:
        record = {name: _value_of(name, nested, rest) for name in keys}
        is_exact = _canonical(to_nested(record)) == _canonical(nested)
    except (KeyError, TypeError):  # somebody else's field of that name
        return None
    return record if is_exact else None


def _value_of(name: str, nested: Mapping[str, Any], rest: Mapping[str, Any]) -> Any:
    if name in rest:
        return rest[name]
    value: Any = nested
    for key in NESTED.get(name, (name,)) if _is_placed(name, nested) else (name,):
        value = value[key]
    return value


def _is_placed(name: str, nested: Mapping[str, Any]) -> bool:
    """Whether the field stands where 2.0 has it, and not at the top because its type was odd."""
    value: Any = nested
    for key in NESTED.get(name, ()):
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def flat_record(original: Mapping[str, Any], *, line: int = 0, assume_timezone: tzinfo | None = None) -> dict[str, Any]:
    """Return an older line's object as a flat record: see :func:`~ai_response_logging._shapes.to_today`."""
    return native_of(original) or to_today(original, line=line, assume_timezone=assume_timezone)
