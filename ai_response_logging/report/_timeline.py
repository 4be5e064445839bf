"""Calls over time, in buckets that grow with the span; pure."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Timeline"]

_MINUTE_S: Final = 60
_HOUR_S: Final = 60 * _MINUTE_S
_DAY_S: Final = 24 * _HOUR_S
_SIZES_S: Final = (
    1, 5, 15, _MINUTE_S, 5 * _MINUTE_S, 15 * _MINUTE_S, _HOUR_S, 3 * _HOUR_S, 6 * _HOUR_S, _DAY_S, 7 * _DAY_S,
    28 * _DAY_S, 84 * _DAY_S, 364 * _DAY_S, 3_640 * _DAY_S, 364_000 * _DAY_S,
)  # fmt: skip
"""Each is a whole multiple of the one before, so that buckets can be put together."""

_MOST_HELD: Final = 2_000  # buckets while reading
_MOST_SHOWN: Final = 72  # bars that can still be told apart on paper

_Counts = list[int]  # succeeded, failed, tokens


class Timeline:
    """
    Counts calls by when they ended.

    Args:
        offset_s: Of the zone in which days begin, in seconds east of UTC.

    Memory: 2,000 buckets, however long the log.
    """

    def __init__(self, offset_s: int = 0) -> None:
        self._offset_s = offset_s
        self._step = 0
        self._buckets: dict[int, _Counts] = {}
        self.without_time = 0

    def add(self, unix_s: float | None, *, succeeded: bool, tokens: int) -> None:
        """Count one call; None: its record says no time."""
        if unix_s is None:
            self.without_time += 1
            return
        counts = self._buckets.setdefault(int((unix_s + self._offset_s) // _SIZES_S[self._step]), [0, 0, 0])
        counts[0 if succeeded else 1] += 1
        counts[2] += tokens
        if len(self._buckets) > _MOST_HELD:
            self._coarsen()

    def _coarsen(self) -> None:
        factor = _SIZES_S[self._step + 1] // _SIZES_S[self._step]
        self._step += 1
        merged: dict[int, _Counts] = {}
        for number, counts in self._buckets.items():
            kept = merged.setdefault(number // factor, [0, 0, 0])
            kept[:] = [one + other for one, other in zip(kept, counts, strict=True)]
        self._buckets = merged

    def buckets(self) -> dict[str, Any]:
        """
        Return ``{"bucket_s", "first_s", "succeeded", "failed", "tokens", "without_time"}``.

        The lists have one number a bucket, empty ones included; the first begins at *first_s*, seconds since 1970.
        """
        while self._buckets and max(self._buckets) - min(self._buckets) >= _MOST_SHOWN:
            self._coarsen()
        size_s = _SIZES_S[self._step]
        first = min(self._buckets, default=0)
        rows = [self._buckets.get(at, [0, 0, 0]) for at in range(first, max(self._buckets, default=-1) + 1)]
        return {
            "bucket_s": size_s,
            "first_s": first * size_s - self._offset_s,
            "succeeded": [row[0] for row in rows],
            "failed": [row[1] for row in rows],
            "tokens": [row[2] for row in rows],
            "without_time": self.without_time,
        }
