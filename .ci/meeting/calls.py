"""Which calls two processes make, and which of them are about the same file."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

__all__ = ["Call", "calls_in", "close_calls", "edges"]

_CHANGES: Final = frozenset({"rename", "renameat2", "link", "unlink", "rmdir", "ftruncate", "flock"})
_MOMENT: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_MOST: Final = 200  # of the calls that are told of one meeting


class Call(NamedTuple):
    """A call of a *kind* on what lies at *path*, the folder's own part left out."""

    kind: str
    path: str

    @property
    def about(self) -> str:
        """What it is about: an old file in whatever form, a writer's journal, else the file."""
        directory, name = os.path.split(self.path.removesuffix(" (deleted)"))
        if found := _MOMENT.search(name):
            return found[0]
        return name.split(".")[0] if directory.endswith(".journal") and "." in name else self.path


def calls_in(trace: str) -> list[Call]:
    """Return the calls that a trace tells of."""
    return [Call(*line.split(" ", 1)) for line in trace.splitlines() if " " in line]


def edges(calls: list[Call]) -> set[int]:
    """Return before which calls, from 1, something of the log's names or locks is about to change, or just has."""
    changing = [number for number, call in enumerate(calls, 1) if call.kind in _CHANGES]
    return {number for change in changing for number in (change, change + 1) if number <= len(calls)}


def close_calls(first: list[Call], at: int, second: list[Call]) -> list[int]:
    """Return the calls of the *second*, and those behind them, about what the *first*'s calls around *at* are about."""
    around = first[max(0, at - 2) : at]
    about = {call.about for call in around} | {os.path.dirname(call.path) for call in around}
    found = {number for number, call in enumerate(second, 1) if call.about in about}
    return sorted(number for number in found | {number + 1 for number in found} if 1 < number <= len(second))[:_MOST]
