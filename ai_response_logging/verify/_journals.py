"""
What is in the journals of a log: which numbers of which writers, which calls, and which texts beside the log.

What a kill cut off at the end of a journal is no damage: its call had not returned.
"""

from __future__ import annotations

from contextlib import suppress

from .._journal_read import journal_lines
from .._numbers import Numbers, Place
from ..blobs import named_in
from ..reader import parse_line
from ._tally import Calls

__all__ = ["Journals"]


class Journals:
    """
    The journals of the log at *path*, read when this is made: before the log is opened, so that nothing is missed.

    Memory: 40 bytes for each unbroken run of numbers, 8 for each ``call_id``.
    """

    def __init__(self, path: str) -> None:
        self.files: list[str] = []
        self.unread: list[tuple[str, str]] = []
        """What may not be read, and why."""
        self.numbers: dict[str, Numbers] = {}
        self.calls = Calls()
        self.blobs: dict[str, Place] = {}
        for found in journal_lines(path, lambda file, reason: self.unread.append((file, reason))):
            if found.file not in self.files[-1:]:
                self.files.append(found.file)
            place = Place(len(self.files) - 1, found.number, found.offset)
            self.numbers.setdefault(found.writer_id, Numbers()).add(found.seq, place)
            with suppress(ValueError):
                record = parse_line(found.line)
                self.calls.note(record)
                for digest in named_in(record):
                    self.blobs.setdefault(digest, place)
