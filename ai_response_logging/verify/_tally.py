"""
What many lines add up to, in little memory: which numbers a writer has, and which ids stand twice.

Pure: no files. A Python set would take 100 bytes a record; these take 8, and 40 for each unbroken run of numbers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

__all__ = ["Hashes", "Numbers", "Place", "Repeats"]

_BUCKETS: Final = 256
_MASK: Final = 2**64 - 1
_FIRSTS_KEPT: Final = 10_000


class Place(NamedTuple):
    """Where a line stands: the file's place in the list of files, the line from 1, its first byte from 0."""

    file: int
    line: int
    offset: int


class Numbers:
    """The numbers of one writer as sorted, unbroken runs, each with the place of its first number."""

    __slots__ = ("_firsts", "_lasts", "_places")

    def __init__(self) -> None:
        self._firsts = array("q")
        self._lasts = array("q")
        self._places = (array("q"), array("q"), array("q"))

    @property
    def first(self) -> int:
        """The lowest number; an IndexError when there is none."""
        return self._firsts[0]

    @property
    def last(self) -> int:
        """The highest number; an IndexError when there is none."""
        return self._lasts[-1]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, number: int, place: Place) -> bool:
        """Add *number*, found at *place*; False if it was there already."""
        lasts = self._lasts
        if lasts and number == lasts[-1] + 1:  # nearly always: lines come in order
            lasts[-1] = number
            return True
        at = bisect_right(self._firsts, number)
        if at and number <= lasts[at - 1]:
            return False
        joins_before = at > 0 and lasts[at - 1] == number - 1
        joins_behind = at < len(lasts) and self._firsts[at] == number + 1
        if joins_before and joins_behind:
            lasts[at - 1] = lasts[at]
            for column in (self._firsts, lasts, *self._places):
                del column[at]
        elif joins_before:
            lasts[at - 1] = number
        elif joins_behind:
            self._firsts[at] = number
            for column, value in zip(self._places, place, strict=True):
                column[at] = value
        else:
            for column, value in zip((self._firsts, lasts, *self._places), (number, number, *place), strict=True):
                column.insert(at, value)
        return True

    def gaps(self) -> Iterator[tuple[int, int, Place]]:
        """Yield what is missing from 0 on: first and last number of each gap, and the place of the number behind it."""
        expected = 0
        for first, last, *place in zip(self._firsts, self._lasts, *self._places, strict=True):
            if first > expected:
                yield expected, first - 1, Place(*place)
            expected = last + 1


class Hashes:
    """
    A bag of texts, kept as 64-bit hashes.

    Python's own keyed hash: fast, and nobody can choose texts that collide. Among 10 million texts the odds of any
    false match are 1 to 370,000.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets = tuple(array("Q") for _ in range(_BUCKETS))

    def add(self, text: str) -> None:
        """Put *text* in."""
        value = hash(text) & _MASK
        self._buckets[value % _BUCKETS].append(value)

    def repeated(self) -> array[int]:
        """Return the hashes that are there more than once, sorted."""
        found = array("Q")
        for bucket in self._buckets:
            if len(set(bucket)) != len(bucket):
                ordered = sorted(bucket)
                found.extend({one for one, other in pairwise(ordered) if one == other})
        return array("Q", sorted(found))

    def count_without(self, others: Hashes) -> int:
        """Return how many different texts are in here and not in *others*."""
        return sum(len(set(mine) - set(theirs)) for mine, theirs in zip(self._buckets, others._buckets, strict=True))


class Repeats:
    """Says of each text, shown in order, whether it stood before; told beforehand which hashes come twice."""

    __slots__ = ("_firsts", "_hashes", "_seen")

    def __init__(self, hashes: array[int]) -> None:
        self._hashes = hashes
        self._seen = bytearray(len(hashes))
        self._firsts: dict[int, tuple[str, Place]] = {}

    def look(self, text: str, place: Place) -> tuple[bool, Place | None]:
        """Return whether *text* stood before *place*, and where first, as far as that was kept."""
        value = hash(text) & _MASK
        at = bisect_left(self._hashes, value)
        if at == len(self._hashes) or self._hashes[at] != value:
            return False, None
        if not self._seen[at]:
            self._seen[at] = 1
            if len(self._firsts) < _FIRSTS_KEPT:
                self._firsts[value] = (text, place)
            return False, None
        first_text, first_place = self._firsts.get(value, (text, None))
        return first_text == text, first_place
