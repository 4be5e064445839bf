"""What receipts say of records that were forgotten: those numbers are no gap, and no others are excused."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from .._numbers import Numbers, Place
from .._receipt import forgotten_in

__all__ = ["Receipts"]

_Range = tuple[int, int, Place]


class Receipts:
    """
    The receipts of a log.

    Memory: 16 bytes, and what Python takes for two numbers, for each range that they name.
    """

    def __init__(self) -> None:
        self._ranges: dict[str, list[_Range]] = {}
        self.count = 0
        """How many numbers are missing since they were forgotten, once :meth:`contradictions` has looked."""

    def take(self, record: Mapping[str, Any], place: Place) -> str | None:
        """Take in *record* if it is a receipt; say what is wrong with it, if anything is."""
        try:
            found = forgotten_in(record)
        except ValueError as error:
            return f"a receipt that explains nothing: {error}"
        for writer_id, ranges in (found or {}).items():
            self._ranges.setdefault(writer_id, []).extend((first, last, place) for first, last in ranges)
        return None

    def among(self, writer_id: str, numbers: Numbers) -> set[int]:
        """Return those of a writer's *numbers* that were forgotten, as receipts say."""
        ranges = [*_disjoint(self._ranges.get(writer_id, []))]
        firsts = [first for first, _, _ in ranges]
        found = ((number, bisect_right(firsts, number) - 1) for number, _ in numbers) if ranges else ()
        return {number for number, at in found if at >= 0 and number <= ranges[at][1]}

    def contradictions(self, writers: Mapping[str, Numbers]) -> Iterator[tuple[Place, str]]:
        """Yield the receipts by which records were forgotten that are there; count what is not."""
        for writer_id, ranges in self._ranges.items():
            present = [*writers[writer_id].runs()] if writer_id in writers else []
            at = 0
            for first, last, place in _disjoint(ranges):
                missing = last - first + 1
                while at < len(present) and present[at][1] < first:
                    at += 1
                for begin, end in present[at:]:
                    if begin > last:
                        break
                    there = max(first, begin), min(last, end)
                    missing -= there[1] - there[0] + 1
                    what = f"number {there[0]}" if there[0] == there[1] else f"numbers {there[0]} to {there[1]}"
                    whose = f"{what} of writer {writer_id!a}"
                    yield place, f"by this receipt {whose} should be forgotten, and is there: run forget again"
                self.count += missing

    def unexplained(self, writer_id: str, numbers: Numbers) -> Iterator[_Range]:
        """Yield the gaps in a writer's numbers, without what was forgotten."""
        ranges, at = [*_disjoint(self._ranges.get(writer_id, []))], 0
        for first, last, place in numbers.gaps():
            while at < len(ranges) and ranges[at][1] < first:
                at += 1
            here = at
            while here < len(ranges) and ranges[here][0] <= last:
                if ranges[here][0] > first:
                    yield first, ranges[here][0] - 1, place
                first, here = ranges[here][1] + 1, here + 1  # noqa: PLW2901  what is left of the gap
            if first <= last:
                yield first, last, place


def _disjoint(ranges: list[_Range]) -> Iterator[_Range]:
    """Yield *ranges* in order, without what one has of another: of a record that stood twice there are two receipts."""
    ranges.sort()
    covered = -1
    for first, last, place in ranges:
        if last > covered:
            yield max(first, covered + 1), last, place
            covered = last
