"""
The receipt that stays where records were forgotten: which numbers of which writers, and nothing of what they said.

Pure. A receipt is a line of the log like any other, with a writer and a number of its own. It explains the numbers
that it names and no others; one whose figures contradict each other explains none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from ._fast_json import dumps_plain
from ._numbers import Numbers, Place
from .record import SCHEMA_VERSION, host_name, seal, tail_of, timestamp, uuid7

__all__ = ["EVENT", "LOGGER", "Forgotten", "forgotten_in", "receipt_line"]

EVENT: Final = "forgotten"
LOGGER: Final = "ai_response_logging.forget"
"""A caller may log an event of any name, but not under a logger's name that is not his."""

_NOWHERE: Final = Place(0, 0, 0)
_MAX_NUMBER: Final = 1 << 62


@dataclass(slots=True)
class Forgotten:
    """
    What was taken out of one file.

    Attributes:
        numbers: The numbers of whole records, by writer.
        older: Records of an older shape, which have no number.
        damaged: Lines that were not whole, whose numbers are not to be believed.
    """

    numbers: dict[str, Numbers] = field(default_factory=dict)
    older: int = 0
    damaged: int = 0
    records: int = 0

    def add(self, writer_id: str, seq: int) -> None:
        """Count a whole record; one that stands twice counts twice, and its number once."""
        self.records += 1
        self.numbers.setdefault(writer_id, Numbers()).add(seq, _NOWHERE)

    @property
    def total(self) -> int:
        """All lines."""
        return self.records + self.older + self.damaged


def receipt_line(forgotten: Forgotten, by: Sequence[str], writer_id: str, seq: int) -> bytes:
    """Return the line that says what was *forgotten*, by which fields it was chosen; never by which values."""
    now_us = time.time_ns() // 1_000
    count = forgotten.total
    record = {
        "schema_version": SCHEMA_VERSION,
        "record_id": uuid7(now_us // 1_000),
        "timestamp": timestamp(now_us),
        "unix_timestamp": now_us / 1e6,
        "event": EVENT,
        "level": "INFO",
        "logger": LOGGER,
        "message": f"{count:,} record{'s were' if count != 1 else ' was'} forgotten here on request",
        "host": host_name(),
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
        "forgotten": {
            "by": list(by),
            "records": forgotten.records,
            "numbers": sum(last - first + 1 for one in forgotten.numbers.values() for first, last in one.runs()),
            "older": forgotten.older,
            "damaged": forgotten.damaged,
            "ranges": {name: list(numbers.runs()) for name, numbers in forgotten.numbers.items()},
        },
    }
    return seal(dumps_plain(record)[:-1], tail_of(writer_id), seq)


def forgotten_in(record: Mapping[str, Any]) -> dict[str, list[tuple[int, int]]] | None:
    """
    Return which numbers of which writers *record* says were forgotten; None if it is no receipt.

    Raises:
        ValueError: It is one, but its figures contradict each other, so it explains nothing.
    """
    if record.get("event") != EVENT or record.get("logger") != LOGGER:
        return None
    said = record.get("forgotten")
    if not isinstance(said, dict) or not isinstance(said.get("ranges"), dict):
        raise ValueError("it has no ranges")  # noqa: TRY004  one error for every bad receipt
    found = {name: [_range(one) for one in ranges] for name, ranges in said["ranges"].items()}
    for ranges in found.values():
        if any(later[0] <= earlier[1] for earlier, later in pairwise(ranges)):
            raise ValueError("its ranges overlap")
    count = sum(last - first + 1 for ranges in found.values() for first, last in ranges)
    records = said.get("records")
    if count != said.get("numbers") or not isinstance(records, int) or count > records:
        raise ValueError(f"its ranges hold {count:,} numbers, and it says {said.get('numbers')!r}")
    return found


def _range(value: object) -> tuple[int, int]:
    match value:
        case [int() as first, int() as last] if 0 <= first <= last < _MAX_NUMBER:
            return first, last
    raise ValueError(f"{value!r:.100} is no range of numbers")
