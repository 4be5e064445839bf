"""
The three older shapes of a line as the flat record of today, and the exact way back; pure.

``source_format`` in a record says where it came from, and keeps whatever has no field today::

    {"version": "2.0",             "v1" for a line that has none
     "line": 17,                   where it stood in its file, from 1, if that is known
     "timestamp_raw": "...",       as it was: local time without a zone
     "made": ["provider", ...],    fields that the line did not have
     "moved": {"latency_ms": "performance.latency_ms", ...},   fields that were not where the shape has them
     "rest": {...}}                everything else, where it was

So a field is taken out of the old object only if it has today's type; what is odd stays in ``rest``.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Any, Final

import orjson

from .record import SCHEMA_VERSION, provider_of, timestamp

__all__ = [
    "COPIED",
    "FIELDS",
    "NESTED",
    "V1_CONTENT",
    "V1_NAMESPACE",
    "has_older_shape",
    "to_original",
    "to_today",
]

V1_NAMESPACE: Final = uuid.UUID("5a0d3cf0-3f57-5b0e-9a3b-0c7c5a1e6d21")
V1_CONTENT: Final = (
    "timestamp", "question", "response", "platform", "model", "success", "brand", "competitor", "latency_ms",
    "tokens_used", "metadata",
)  # fmt: skip
"""What the id of a line that has none is made of: UUIDv5 of these values as one JSON list, null where absent."""

_Test = Callable[[object], bool]
_INT64: Final = 2**63
_INDEX_DIGITS: Final = 15
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT64


def _is_index(value: object) -> bool:
    """Whether it can count questions; callers also write such numbers as text or with a point."""
    if isinstance(value, str):
        return len(value) <= _INDEX_DIGITS and value.isascii() and value.isdigit()
    return _is_count(value) or (isinstance(value, float) and value.is_integer() and abs(value) < _INT64)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_given(value: object) -> bool:
    return value is not None


def _is_moment(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= _LAST_SECOND
    )


_TEXTS: Final = (
    "record_id", "call_id", "event", "level", "logger", "message", "provider", "platform", "model", "response_model",
    "api_version", "operation", "question", "response", "system", "response_id", "request_id", "stream_end",
    "error_type", "error_class", "error_message", "brand", "competitor", "industry", "question_category",
    "execution_id", "session_id", "user_id", "trace_id", "span_id", "host", "thread",
)  # fmt: skip
_COUNTS: Final = (
    "tokens_used", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "http_status_code",
    "retry_count", "max_tokens", "seed", "pid",
)  # fmt: skip
FIELDS: Final[Mapping[str, _Test]] = MappingProxyType({
    **dict.fromkeys(_TEXTS, _is_text),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(("latency_ms", "ttft_ms", "temperature", "top_p", "timeout_seconds"), _is_number),
    "response_quality_score": _is_number,
    **dict.fromkeys(("question_index", "total_questions", "model_index", "total_models"), _is_index),
    **dict.fromkeys(("success", "stream", "circuit_breaker_open"), _is_flag),
    **dict.fromkeys(("messages", "tools", "tool_calls", "choices", "finish_reasons", "attempts", "tags"), _is_list),
    **dict.fromkeys(("stop", "raw_request", "raw_response"), _is_given),
    "metadata": _is_object,
    "unix_timestamp": _is_moment,
})  # fmt: skip
"""The fields that an older line may fill, and what each asks of a value; one that does not fit stays in ``rest``."""

NESTED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "question": ("question", "text"),
        "response": ("response", "text"),
        "platform": ("platform", "name"),
        "model": ("platform", "model"),
        "api_version": ("platform", "api_version"),
        **{name: ("business", name) for name in ("brand", "competitor", "industry", "question_category")},
        "latency_ms": ("performance", "latency_ms"),
        "tokens_used": ("performance", "tokens", "total"),
        "prompt_tokens": ("performance", "tokens", "prompt"),
        "completion_tokens": ("performance", "tokens", "completion"),
        **{name: ("status", name) for name in ("success", "error_message", "error_type", "http_status_code")},
        **{name: ("reliability", name) for name in ("retry_count", "circuit_breaker_open")},
        **{
            name: ("request_config", name)
            for name in ("temperature", "top_p", "max_tokens", "seed", "stop", "timeout_seconds")
        },
        **{
            name: ("context", name)
            for name in ("execution_id", "session_id", "user_id", "question_index", "total_questions")
        },
        "host": ("system", "hostname"),
        "response_quality_score": ("quality", "score"),
        "raw_request": ("raw", "request"),
        "raw_response": ("raw", "response"),
    }
)
"""Where a 2.0 line keeps a field of today."""

COPIED: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "execution_id": (("context", "task_id"), ("metadata", "execution_id"), ("metadata", "task_id")),
        **{name: (("metadata", name),) for name in ("session_id", "user_id", "question_index", "total_questions")},
    }
)
"""Where else some lines have it. What is found there is copied: the caller's own object stays as it was."""

# Ours today, and nothing of an older line may pass for it.
_RESERVED: Final = frozenset({
    "schema_version", "source_format", "writer_id", "seq", "checksum", "encode_errors", "redacted",
})  # fmt: skip
_NOT_FROM_BEFORE: Final = _RESERVED | {"timestamp"}
_NAIVE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?P<zone>Z|[+-]\d{2}:\d{2})?")


def has_older_shape(record: Mapping[str, Any]) -> bool:
    """Whether the object of a line has one of the older shapes; any other object without our marks is foreign."""
    return (
        "schema_version" not in record
        and "writer_id" not in record
        and (record.get("question") is not None or record.get("response") is not None)
        and (record.get("timestamp") is not None or record.get("version") is not None)
    )


def to_today(original: Mapping[str, Any], *, line: int = 0, assume_timezone: tzinfo | None = None) -> dict[str, Any]:
    """
    Return the object of an older line as a flat record of today.

    ``timestamp`` is UTC, from ``unix_timestamp``, else from the line's own text where that has a zone or one may be
    assumed; where neither is so, the record has no time. A line without an id gets one of its content (UUIDv5). What
    a line cannot know (``level``, ``pid``, ...) is absent, and it has no ``writer_id``, ``seq`` and ``checksum``.

    Args:
        original: The object; it is not changed, but shares its inner values with the result.
        line: Where it stood in its file, from 1; 0 if that is not known.
        assume_timezone: Of a ``timestamp`` that says none.
    """
    return _Reading(original, line, assume_timezone).record()


class _Reading:
    """One older line on its way to today."""

    def __init__(self, original: Mapping[str, Any], line: int, assume_timezone: tzinfo | None) -> None:
        self._original = original
        version = original.get("version")
        has_version = isinstance(version, str) and version != "v1"
        self._source: dict[str, Any] = {"version": version if has_version else "v1"}
        if line:
            self._source["line"] = line
        if "timestamp" in original:
            self._source["timestamp_raw"] = original["timestamp"]
        self._assume_timezone = assume_timezone
        self._is_nested = _is_nested(self._source["version"])
        self._moved: dict[str, str] = {}
        self._fields: dict[str, Any] = {}
        self._rest = {
            key: _copy_of(value) if key in _GROUPS and isinstance(value, dict) else value
            for key, value in original.items()
            if key != "timestamp" and not (has_version and key == "version")
        }

    def record(self) -> dict[str, Any]:
        if any(isinstance(self._rest.get(name), dict) for name in _GROUPS):
            for name, path in NESTED.items():
                self._take_nested(name, path)
            self._rest = _pruned(self._rest, self._original)
        for name, value in tuple(self._rest.items()):
            self._take_top(name, value)
        made = self._make_up()
        names = [name for name in made if name != "timestamp"]
        optional = (("made", names), ("moved", self._moved), ("rest", self._rest))
        self._source.update((key, value) for key, value in optional if value)
        fields = {**made, **self._fields}
        head = {"schema_version": SCHEMA_VERSION}
        for name in ("record_id", "timestamp", "unix_timestamp", "event"):
            if name in fields:
                head[name] = fields.pop(name)
        return {**head, **fields, "source_format": self._source}

    def _take_nested(self, name: str, path: tuple[str, ...]) -> None:
        group = _found_at(self._rest, path[:-1])
        if isinstance(group, dict) and path[-1] in group and FIELDS[name](group[path[-1]]):
            self._fields[name] = group.pop(path[-1])
            if not self._is_nested:
                self._moved[name] = ".".join(path)

    def _take_top(self, name: str, value: object) -> None:
        fits = FIELDS.get(name, _is_given)
        if name in _RESERVED or name in self._fields or not fits(value):
            return
        if isinstance(value, dict) and name in _GROUPS:  # what a group has left over
            return
        self._fields[name] = value
        del self._rest[name]
        if self._is_nested and name in NESTED:
            self._moved[name] = name

    def _make_up(self) -> dict[str, Any]:
        """Return what the line does not have itself, but what follows from it."""
        made: dict[str, Any] = {}
        fields = self._fields
        if "record_id" not in fields:
            made["record_id"] = _id_of(self._original)
        if "unix_timestamp" not in fields:
            moment = _moment_of(self._original.get("timestamp"), self._assume_timezone)
            if moment is not None:
                made["unix_timestamp"] = moment
        if "event" not in fields:
            made["event"] = "response"
        if "provider" not in fields and "platform" in fields:
            made["provider"] = provider_of(fields["platform"])
        for name, paths in COPIED.items():
            if name not in fields:
                found = (_found_at(self._original, path) for path in paths)
                fitting = next((value for value in found if value is not _ABSENT and FIELDS[name](value)), _ABSENT)
                if fitting is not _ABSENT:
                    made[name] = fitting
        unix_s = fields.get("unix_timestamp", made.get("unix_timestamp"))
        if unix_s is not None:
            made["timestamp"] = timestamp(round(unix_s * 1_000_000))
        return made


def to_original(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the object that :func:`to_today` made *record* of.

    Equal as JSON; the order of its keys is the shape's own. Writer, number and checksum, which a record has got since,
    do not come along.

    Raises:
        ValueError: The record does not say that it came from an older line.
    """
    source = record.get("source_format")
    if not isinstance(source, dict) or not isinstance(version := source.get("version"), str):
        raise ValueError("the record has no source_format: it was never in an older shape")  # noqa: TRY004  a value
    moved, made = source.get("moved", {}), frozenset(source.get("made", ()))
    original: dict[str, Any] = {}
    if "timestamp_raw" in source:
        original["timestamp"] = source["timestamp_raw"]
    if version != "v1":
        original["version"] = version
    defaults = NESTED if _is_nested(version) else {}
    for name, value in record.items():
        if name in _NOT_FROM_BEFORE or name in made:
            continue
        path = tuple(moved[name].split(".")) if name in moved else defaults.get(name, (name,))
        _put(original, path, value)
    _merge(original, source.get("rest", {}))
    return original


_GROUPS: Final = frozenset(path[0] for path in NESTED.values())
_ABSENT: Final = object()


def _is_nested(version: str) -> bool:
    return version.startswith("2.")


def _found_at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _copy_of(group: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that may be taken apart as deep as any path of :data:`NESTED` goes."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in group.items()}


def _pruned(rest: dict[str, Any], original: Mapping[str, Any]) -> dict[str, Any]:
    """Return *rest* without the objects in its groups that have become empty; those that were so before stay."""
    kept: dict[str, Any] = {}
    for name, value in rest.items():
        if name in _GROUPS and isinstance(value, dict):
            before = original[name]
            inner = {key: one for key, one in value.items() if one != {} or before[key] == {}}
            if inner or not before:
                kept[name] = inner
        else:
            kept[name] = value
    return kept


def _put(value: dict[str, Any], path: tuple[str, ...], leaf: object) -> None:
    for key in path[:-1]:
        value = value.setdefault(key, {})
    value[path[-1]] = leaf


def _merge(into: dict[str, Any], rest: Mapping[str, Any]) -> None:
    """Put the *rest* beside what stands in *into*: objects on the way to a field that was taken out are in both."""
    for key, value in rest.items():
        if key in into and isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _id_of(original: Mapping[str, Any]) -> str:
    values = [original.get(name) for name in V1_CONTENT]
    try:
        content = orjson.dumps(values).decode()
    except orjson.JSONEncodeError:  # half an emoji, which is in no UTF-8, or a number of more than 64 bits
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(uuid.uuid5(V1_NAMESPACE, content))


def _moment_of(text: object, assume_timezone: tzinfo | None) -> float | None:
    found = _NAIVE.fullmatch(text) if isinstance(text, str) else None
    if not found or not (found["zone"] or assume_timezone):
        return None
    try:
        moment = datetime.fromisoformat(found[0])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=assume_timezone)
        unix_s = moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return unix_s if _is_moment(unix_s) else None
