"""
The bytes of a journal, as writers store them and readers find them; pure.

A journal is one writer's lines on their way to the log, in ``<filename>.journal/``::

    <writer_id>.lock                 locked for as long as the writer lives, so that an orphan can be told; empty, or
                                     at durability power the word "power"
    <writer_id>.mark                 two slots of a line each: what is consumed, and what was about to be appended
    <writer_id>.<first seq>.jsonl    segments: whole lines as they go to the log, seq after seq
    location                         other directories in which journals of this log are, a path each line

A line counts while it is whole, of this writer, and numbered behind the line before it: what an earlier use left in
the same space has smaller numbers, so a checksum alone would not do.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from ._fast_json import dumps_plain, loads_plain
from .record import CHECKSUM_MARK, tail_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MARK_BYTES",
    "SYNCED",
    "Intent",
    "Mark",
    "StoredLine",
    "directory_names",
    "find_mark",
    "journal_directory",
    "location_file",
    "lock_name",
    "mark_name",
    "own_directory",
    "segment_name",
    "segments_among",
    "seq_of",
    "whole_lines",
    "writers_among",
]

MARK_BYTES: Final = 512
"""The size of one slot of a mark file."""

SYNCED: Final = b"power\n"
"""What stands in the lock file of a journal whose lines are to survive loss of power, wherever they are brought."""

_SEGMENT: Final = re.compile(r"(?P<writer>.+)\.(?P<seq>\d{12,})\.jsonl\Z")
_END: Final = len(b'00000000"}\n')


class Intent(NamedTuple):
    """A block that is about to be appended: *lines* lines from number *first_seq* on, from byte *start* of a file."""

    device: int
    inode: int
    start: int
    lines: int
    first_seq: int


class Mark(NamedTuple):
    """How far a journal has been brought home."""

    number: int
    """Of this mark; the slot with the higher one counts."""
    consumed: int
    """Lines with a smaller seq have arrived in the log."""
    intent: Intent | None
    """What may have arrived beyond that: the bytes in the file decide."""

    def slot(self) -> tuple[int, bytes]:
        """Return where in the mark file it belongs, and its bytes."""
        body = dumps_plain([self.number, self.consumed, self.intent and list(self.intent)], is_small=True)
        text = b"%b %08x" % (body, zlib.crc32(body))
        return self.number % 2 * MARK_BYTES, text.ljust(MARK_BYTES - 1) + b"\n"


def find_mark(data: bytes) -> Mark:
    """Return the newest whole mark in *data*, a mark file; where there is none, nothing has been brought home."""
    found = [Mark(-1, 0, None)]
    for start in (0, MARK_BYTES):
        body, _, check = data[start : start + MARK_BYTES].rstrip().rpartition(b" ")
        if body and check == b"%08x" % zlib.crc32(body):
            number, consumed, intent = loads_plain(body)
            found.append(Mark(number, consumed, intent and Intent(*intent)))
    return max(found)


# -- names


def journal_directory(path: str) -> str:
    """Return where the journals of the log at *path* are."""
    return f"{path}.journal"


def own_directory(path: str, elsewhere: str | None) -> str:
    """Return where a writer of the log at *path* keeps its journal when the option *elsewhere* names a directory."""
    if elsewhere is None:
        return journal_directory(path)
    # One directory may serve many logs, and a replay must never bring home those of another.
    from hashlib import blake2b  # only those pay for it who use the option

    mark = blake2b(os.fsencode(os.path.realpath(path)), digest_size=8).hexdigest()
    return os.path.join(os.path.abspath(elsewhere), f"{os.path.basename(path)}-{mark}.journal")


def location_file(path: str) -> str:
    """Return the file beside the log at *path* that says where else its journals are."""
    return os.path.join(journal_directory(path), "location")


def lock_name(writer_id: str) -> str:
    """Return the name of a writer's liveness lock."""
    return f"{writer_id}.lock"


def mark_name(writer_id: str) -> str:
    """Return the name of a writer's mark file."""
    return f"{writer_id}.mark"


def segment_name(writer_id: str, first_seq: int) -> str:
    """Return the name of the segment that begins with line *first_seq*."""
    return f"{writer_id}.{first_seq:012d}.jsonl"


def writers_among(names: list[str]) -> list[str]:
    """Return the writers that have a journal among the *names* of a directory."""
    return sorted(name.removesuffix(".lock") for name in names if name.endswith(".lock"))


def segments_among(names: list[str], writer_id: str) -> list[tuple[int, str]]:
    """Return the first seq and the name of each of the writer's segments among *names*, in order."""
    found = ((match, name) for name in names if (match := _SEGMENT.fullmatch(name)))
    return sorted((int(match["seq"]), name) for match, name in found if match["writer"] == writer_id)


# -- lines


def seq_of(line: bytes) -> int:
    """Return the number of a finished *line*."""
    body = line[: line.rindex(CHECKSUM_MARK)]
    return int(body[body.rindex(b":") + 1 :])


class StoredLine(NamedTuple):
    """A line that counts, as it stands in a segment."""

    seq: int
    offset: int
    line: bytes


def whole_lines(data: bytes, writer_id: str, first_seq: int) -> Iterator[StoredLine]:
    """Yield the lines of a segment's *data* that count, from *first_seq* on."""
    tail, start, seq = tail_of(writer_id), 0, first_seq
    while (end := data.find(b"\n", start) + 1) > 0:
        line, offset, number = data[start:end], start, seq
        start = end
        if not _is_whole(line, tail, seq):
            # Somebody has cut the file, or a part of it is gone: what was stored behind that place, and behind the
            # zeros that no line has, still counts; what an earlier use has left there has smaller numbers.
            line = line[line.rfind(b"\0") + 1 :]
            offset, number = end - len(line), _number_in(line)
            if number < seq or not _is_whole(line, tail, number):
                continue
        yield StoredLine(number, offset, line)
        seq = number + 1


def _is_whole(line: bytes, tail: bytes, seq: int) -> bool:
    ending = b"%b%d%b" % (tail, seq, CHECKSUM_MARK)
    return line[:-_END].endswith(ending) and line[-_END:] == b'%08x"}\n' % zlib.crc32(
        line[: -_END - len(CHECKSUM_MARK)]
    )


def _number_in(line: bytes) -> int:
    """Return the number that *line* bears, which may be no line at all; then -1."""
    try:
        return seq_of(line)
    except ValueError:
        return -1


def directory_names(directory: str) -> list[str]:
    """Return the names in *directory*; none if it is not there, may not be read, or is a link to another."""
    try:
        return [] if os.path.islink(directory) else os.listdir(directory)
    except OSError:
        return []
