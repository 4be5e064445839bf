"""
Read the journals of a log: the lines whose calls have returned and that may not be in the log yet.

For readers. Reading takes no lock, opens files for reading only, and never makes a writer wait.

Lines move from a journal to the log, and never back: a line is in the log before the mark says so, and its space is
used again only after that. So whoever reads the journals first, and opens the log's files only then, misses none: what
is no longer in a journal when it is read is in the log when that is opened. What is found in both has arrived.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ._journal_find import content, journal_directories, names_in, why_not
from ._journal_format import find_mark, mark_name, segments_among, whole_lines, writers_among
from ._numbers import Numbers, Place
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._journal_format import StoredLine

__all__ = ["JournalLine", "Journalled", "journal_lines", "lines_of_writer"]

_HELD_BYTES: Final = 16 << 20  # of lines that are to be shown behind the log
_ENTRY_BYTES: Final = 256  # that holding a line takes beside it
_NOWHERE: Final = Place(0, 0, 0)


class JournalLine(NamedTuple):
    """A whole line of a journal, which no mark says has arrived; *number* counts from 1 in its *file*."""

    writer_id: str
    seq: int
    line: bytes
    file: str
    number: int
    offset: int


def journal_lines(path: str, on_unread: Callable[[str, str], object]) -> Iterator[JournalLine]:
    """
    Yield the lines in the journals of the log at *path*, of living writers and of those that are gone.

    Each writer's come in their order. One whose store was interrupted may come twice; one that is in the log already
    may come, too. Memory: one segment, of 1 MiB or one larger line, twice.

    Args:
        path: The log.
        on_unread: Called with the path of what may not be read, and why.
    """
    for directory in journal_directories(path, on_unread=on_unread):
        try:
            names = names_in(directory)
        except OSError as error:
            on_unread(directory, why_not(directory, error))
            continue
        for writer_id in writers_among(names):
            yield from lines_of_writer(directory, writer_id, names, on_unread)


def lines_of_writer(
    directory: str, writer_id: str, names: list[str], on_unread: Callable[[str, str], object]
) -> Iterator[JournalLine]:
    """Yield the lines of one writer's journal, its files being among the *names* of *directory*."""
    mark = _read(os.path.join(directory, mark_name(writer_id)), on_unread)
    consumed = find_mark(mark).consumed
    for first_seq, name in segments_among(names, writer_id):
        file = os.path.join(directory, name)
        for number, (seq, offset, line) in enumerate(_lines_at_once(file, writer_id, first_seq, on_unread), 1):
            if seq >= consumed:
                yield JournalLine(writer_id, seq, line, file, number, offset)


def _lines_at_once(
    file: str, writer_id: str, first_seq: int, on_unread: Callable[[str, str], object]
) -> list[StoredLine]:
    """Return the lines of a segment, with each line all that were stored before it."""
    lines = list(whole_lines(_read(file, on_unread), writer_id, first_seq))
    if not lines or lines[-1].seq - first_seq < len(lines):
        return lines
    # A read is not of one moment: it has passed a page before the lines there were stored, and found later ones behind
    # it. By now all before those stand there, or in the log, if the space was used again. What is missing still, is.
    last_seq = lines[-1].seq
    return [one for one in whole_lines(_read(file, on_unread), writer_id, first_seq) if one.seq <= last_seq]


class Journalled:
    """What was in journals before the log was opened, so that each record is shown once, behind the log if it can."""

    def __init__(self) -> None:
        self.noted: dict[str, Numbers] = {}
        self._met: dict[str, Numbers] = {}
        self._held: dict[tuple[str, int], bytes] = {}
        self._held_bytes = 0

    def holds(self, found: JournalLine) -> bool:
        """Note a line and hold it for later; False if it is to be shown now, since no more may be held."""
        writer_id, seq, line, *_ = found
        if not self.noted.setdefault(writer_id, Numbers()).add(seq, _NOWHERE):
            return True  # it stands in two segments
        size = len(line) + _ENTRY_BYTES
        if self._held_bytes + size > _HELD_BYTES:
            return False
        self._held_bytes += size
        self._held[writer_id, seq] = line
        return True

    def shows(self, record: dict[str, Any]) -> bool:
        """Say whether a record of the log is to be shown: not if the journal's copy was. Doubled ones are shown."""
        writer_id, seq = record.get("writer_id"), record.get("seq")
        if type(writer_id) is not str or type(seq) is not int or seq not in self.noted.get(writer_id, ()):
            return True
        is_first = self._met.setdefault(writer_id, Numbers()).add(seq, _NOWHERE)
        return not is_first or self._held.pop((writer_id, seq), None) is not None

    def left(self) -> Iterator[bytes]:
        """Yield the lines that are held and were not met in the log."""
        return iter(self._held.values())


def _read(path: str, on_unread: Callable[[str, str], object]) -> bytes:
    try:
        return content(path)
    except FileNotFoundError:  # its lines have arrived since, and so are in the log
        return b""
    except (OSError, LogPathError) as error:
        on_unread(path, why_not(path, error))
        return b""
