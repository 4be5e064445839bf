"""
Which records a reader wants: by run, model, brand, failure, time or text.

Pure: flat records in, yes or no out; the clock is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

__all__ = ["Filters", "parse_time"]

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAY: Final = re.compile(r"\d{4}-?\d{2}-?\d{2}")
_ENDS: Final = frozenset({"response", "tombstone"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """
    What a record must be to be shown; what is None asks nothing.

    Attributes:
        execution_id: The run, whole.
        platform: As logged, or the provider's name; capital and small letters are one.
        model: As logged; capital and small letters are one.
        brand: As logged.
        failed: Only calls that ended without success.
        since: Logged at this moment or later (seconds since 1970).
        until: Logged before this moment (seconds since 1970).
        grep: Found in one of the record's texts, however deep.

    Threads: Immutable.
    """

    execution_id: str | None = None
    platform: str | None = None
    model: str | None = None
    brand: str | None = None
    failed: bool = False
    since: float | None = None
    until: float | None = None
    grep: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked at all."""
        return self != _ANYTHING

    def match(self, record: Mapping[str, Any]) -> bool:
        """Say whether *record*, a flat one, is wanted; one without a time is not where a time is asked for."""
        return (
            (self.execution_id is None or record.get("execution_id") == self.execution_id)
            and (self.platform is None or _same(self.platform, record.get("platform"), record.get("provider")))
            and (self.model is None or _same(self.model, record.get("model")))
            and (self.brand is None or record.get("brand") == self.brand)
            and (not self.failed or _is_failed(record))
            and (self.since is None or self.since <= _moment(record, default=float("-inf")))
            and (self.until is None or _moment(record, default=float("inf")) < self.until)
            and (self.grep is None or any(self.grep.search(text) for text in _texts(record)))
        )


_ANYTHING: Final = Filters()


def _same(wanted: str, *found: object) -> bool:
    return wanted.casefold() in (text.casefold() for text in found if isinstance(text, str))


def _is_failed(record: Mapping[str, Any]) -> bool:
    """Lines of the older shapes have no event: each is the end of a call."""
    return record.get("event", "response") in _ENDS and record.get("success") is not True


def _moment(record: Mapping[str, Any], *, default: float) -> float:
    moment = record.get("unix_timestamp")
    return float(moment) if isinstance(moment, int | float) and not isinstance(moment, bool) else default


def _texts(value: object) -> Iterator[str]:
    """Yield every string within *value*; no recursion, for records may be nested as deep as they like."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def parse_time(text: str, now: datetime, *, end: bool = False) -> float:
    """
    Return the moment that *text* names, in seconds since 1970.

    Args:
        text: ``2h`` or ``3d`` (that long before *now*; s, m, h, d, w), a date, ``today``, ``yesterday``, or a date and
            time as in RFC 3339. Where no offset is given, it is local time.
        now: An aware datetime; its zone is not looked at.
        end: A date alone means the end of that day, not its beginning.

    Raises:
        ValueError: *text* is none of these; the message says what would be.
    """
    text = text.strip()
    span = _SPAN.fullmatch(text.lower())
    try:
        if span:
            return (now - timedelta(seconds=float(span[1]) * _UNITS_S[span[2]])).timestamp()
        if text.lower() in {"today", "yesterday"}:
            text = (now.astimezone() - timedelta(days=text.lower() == "yesterday")).date().isoformat()
        moment = datetime.fromisoformat(text)
        if end and _DAY.fullmatch(text):
            # Not 24 hours: a day on which clocks change has 23 or 25.
            moment += timedelta(days=1)
        return moment.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no time: give a span before now (90s, 15m, 2h, 3d, 1w), a date (2026-01-31), today, "
            "yesterday, or a date with a time (2026-01-31T08:00, with +08:00 or Z where it is not local time)"
        ) from None
