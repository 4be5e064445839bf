"""
Which numbers of a writer are there, in little memory.

Pure: no files. A Python set would take 100 bytes a record; this takes 40 for each unbroken run.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Numbers", "Place"]


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

    def __iter__(self) -> Iterator[tuple[int, Place]]:
        """Yield each number, the lowest first, with the place of the first of its run."""
        for first, last, *place in zip(self._firsts, self._lasts, *self._places, strict=True):
            for number in range(first, last + 1):
                yield number, Place(*place)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield first and last number of each unbroken run, the lowest first."""
        return zip(self._firsts, self._lasts, strict=True)

    def gaps(self) -> Iterator[tuple[int, int, Place]]:
        """Yield what is missing from 0 on: first and last number of each gap, and the place of the number behind it."""
        expected = 0
        for first, last, *place in zip(self._firsts, self._lasts, *self._places, strict=True):
            if first > expected:
                yield expected, first - 1, Place(*place)
            expected = last + 1
