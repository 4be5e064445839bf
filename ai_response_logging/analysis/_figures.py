"""
The figures of ``ai-responses stats``, and how they are counted record by record; pure.

The same for both ways to count: DuckDB's aggregates and the streaming reader's tallies end here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .._shapes import FIELDS

__all__ = ["ENDS", "QUANTILES", "Group", "Tally", "figures", "key_of"]

ENDS: Final = ("response", "tombstone")
"""The events that end a call, and so count."""

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_DIGITS: Final = 3
_INT64: Final = 2**63


class Group(NamedTuple):
    """Calls that have the same values in the fields asked for."""

    key: tuple[Any, ...]
    records: int
    succeeded: int
    quantiles: Sequence[float | None] | None
    """Of ``latency_ms``, in the order of :data:`QUANTILES`; None where no call has one."""
    tokens: int


def figures(by: Sequence[str], groups: Iterable[Group], bad_lines: int) -> dict[str, Any]:
    """Return the figures as ``ai-responses stats --json`` prints them, the largest group first."""
    found = sorted(groups, key=lambda group: (-group.records, [_order(value) for value in group.key]))
    records, succeeded = sum(group.records for group in found), sum(group.succeeded for group in found)
    return {
        "records": records,
        "succeeded": succeeded,
        "failed": records - succeeded,
        "bad_lines": bad_lines,
        "groups": [_figures_of(by, group) for group in found],
    }


def _order(value: Any) -> tuple[bool, str, Any]:
    return (value is not None, type(value).__name__, value)


def _figures_of(by: Sequence[str], group: Group) -> dict[str, Any]:
    quantiles = group.quantiles or [None] * len(QUANTILES)
    return {
        **dict(zip(by, group.key, strict=True)),
        "records": group.records,
        "succeeded": group.succeeded,
        "failed": group.records - group.succeeded,
        "success_rate": round(group.succeeded / group.records, 6),
        "latency_ms": {
            name: None if value is None else round(value, _DIGITS)
            for name, value in zip(QUANTILES, quantiles, strict=True)
        },
        "tokens": group.tokens,
    }


class Tally:
    """
    Counts records one by one.

    Memory: 8 bytes a call for its latency, so that percentiles are exact.
    """

    def __init__(self, by: Sequence[str]) -> None:
        self._by = tuple(by)
        self._groups: dict[tuple[Any, ...], _Counts] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Count *record*, if it ends a call."""
        if record.get("event") not in ENDS:
            return
        key = key_of(record, self._by)
        counts = self._groups.get(key)
        if counts is None:
            counts = self._groups[key] = _Counts()
        counts.add(record)

    def groups(self) -> Iterable[Group]:
        """Return what was counted."""
        return [counts.group(key) for key, counts in self._groups.items()]


class _Counts:
    def __init__(self) -> None:
        self.records = self.succeeded = self.tokens = 0
        self.latencies = array("d")

    def add(self, record: Mapping[str, Any]) -> None:
        self.records += 1
        self.succeeded += record.get("success") is True
        tokens, latency = record.get("tokens_used"), record.get("latency_ms")
        if type(tokens) is int and -_INT64 <= tokens < _INT64:
            self.tokens += tokens
        if type(latency) is float or type(latency) is int:
            self.latencies.append(latency)

    def group(self, key: tuple[Any, ...]) -> Group:
        ordered = sorted(self.latencies)
        quantiles = [_quantile(ordered, share) for share in QUANTILES.values()] if ordered else None
        return Group(key, self.records, self.succeeded, quantiles, self.tokens)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate between the two nearest: Hyndman and Fan's definition 7, as DuckDB's quantile_cont."""
    place = (len(ordered) - 1) * share
    below = int(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low + (high - low) * (place - below)


def key_of(record: Mapping[str, Any], by: Sequence[str]) -> tuple[Any, ...]:
    """Return the record's values of the fields in *by*, None where it has another type."""
    return tuple(_value_of(name, record.get(name)) for name in by)


def _value_of(name: str, value: Any) -> Any:
    if name in FIELDS and not FIELDS[name](value):
        return None
    if FIELDS.get(name) is FIELDS["question_index"]:
        return int(value)
    # Half an emoji is in no UTF-8, and so in no table.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
