"""
The byte-level proof that a log is whole, or where it is not.

``verify_log`` reads every byte of every file once, and a second time only when something stands there twice.
``_lines`` says what one line is, ``_tally`` what many lines add up to, ``_journals`` what is still on its way; this
file brings them together.
"""

from __future__ import annotations

import gzip
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

from .._numbers import Numbers, Place
from ..blobs import fault_of, named_in
from ..errors import LogReadError
from ..reader import MAX_LINE_BYTES, LogSnapshot, StrPath, is_unfinished, lines_of, read_log
from ..record import default_log_path
from ._journals import Journals
from ._lines import Finding, claims_in, judge_line
from ._receipts import Receipts
from ._tally import Hashes, Repeats

__all__ = ["KINDS", "Problem", "Report", "WriterReport", "verify_log"]

KINDS: Final = ("torn", "glued", "foreign", "checksum", "duplicate", "forgotten", "gap", "blob", "unread")
"""
What a problem can be.

- ``torn``: a line without its newline, or a piece of a record.
- ``glued``: two records, or pieces of several, on one line; the detail locates whole ones among them.
- ``foreign``: no record: not JSON, no object, NUL bytes, bad UTF-8, a blank line, some other object.
- ``checksum``: it parses, but is not what was written: altered, or glued so that it still parses.
- ``duplicate``: its ``record_id``, or its number within its writer, stood before; or a key stands twice in the line.
- ``forgotten``: a receipt of `ai-responses forget` that contradicts itself, or a record that is there although a
  receipt says that it was forgotten.
- ``gap``: numbers of a writer are missing before this line; what is in a journal, or was forgotten with a receipt, is
  not missing.
- ``blob``: a text that was too large for this line, the first that names it, is not in its file beside the log, may
  not be read, or is another than was kept.
- ``unread``: a journal, or a directory of journals, may not be read, so nothing is proven of what is in it; line 0.
"""

_PROBLEMS_KEPT: Final = 1000  # of each kind; more are only counted
_RANGES_KEPT: Final = 1000  # of missing numbers, for each writer
_CLAIMS_KEPT: Final = 100_000
_MAX_NUMBER: Final = 2**62
_PROGRESS_LINES: Final = 512
# Before an unfinished last line is looked at again: a write takes microseconds, on a slow disk milliseconds.
_PAUSES_S: Final = (0.0, 0.02, 0.1)
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is not as it should be.

    Attributes:
        kind: One of :data:`KINDS`.
        file: The file's path.
        line: Counted from 1.
        offset: The line's first byte in the file, counted from 0; in a ``.gz`` after decompression.
        detail: What exactly, for people.
    """

    kind: str
    file: str
    line: int
    offset: int
    detail: str


@dataclass(frozen=True, slots=True)
class WriterReport:
    """
    What the log and its journals hold of one writer.

    Attributes:
        writer_id: Which.
        first: The lowest number there; a writer begins at 0.
        last: The highest number there. Whether more were written nobody can tell from the log.
        missing: Ranges of missing numbers below *last*, as (first, last); the lowest 1,000 of them.
        missing_count: How many numbers are missing in all.
    """

    writer_id: str
    first: int
    last: int
    missing: tuple[tuple[int, int], ...]
    missing_count: int


@dataclass(frozen=True, slots=True)
class Report:
    """
    What :func:`verify_log` found.

    Attributes:
        whole: There is no problem of any kind.
        files: The files read, oldest first.
        records: Whole lines of the files, those of older shapes and doubled ones included.
        older: How many of them have an older shape, which has no checksum and no number to prove.
        bytes: Read in all, after decompression.
        in_journals: Records that are only in journals, on their way to the log; not among ``records``.
        writers: In the order in which they appear; what is in journals counts here.
        problems: At most 1,000 of each kind, by place.
        problem_counts: How many of each kind there are in all; kinds without any are left out.
        open_calls: Calls with a ``start`` and neither ``response`` nor ``tombstone``; no damage.
        forgotten: Numbers that are missing because they were forgotten, as receipts in the log say.
        blobs: Different texts beside the log that its records name.
    """

    whole: bool
    files: tuple[str, ...]
    records: int
    older: int
    bytes: int
    in_journals: int
    writers: tuple[WriterReport, ...]
    problems: tuple[Problem, ...]
    problem_counts: dict[str, int]
    open_calls: int
    forgotten: int = 0
    blobs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as ``ai-responses verify --json`` prints it; ``missing`` is a list of [first, last]."""
        return asdict(self)


def verify_log(path: StrPath | None = None, *, on_progress: Callable[[int, int], object] | None = None) -> Report:
    """
    Read the whole log at *path*, and what is still in journals, and say whether it is whole.

    Writers may go on meanwhile: what they append after the start is left to the next time, a last line in the
    middle of being written is looked at again before it counts as torn, and no lock is taken. A record that a full
    queue let overtake others may show as a gap, which the next run no longer finds.

    Memory: beside the buffers (some MB, and a few times the longest line) 8 bytes a record for its id and 8 for a
    ``call_id``, 40 for each unbroken run of numbers in the log or a journal, 250 for each text beside the log, whose
    file is read once: 250,000 records take 2 MB, 10 million in order 80 MB. Which ids stand twice is decided by 64-bit
    hashes; of the first 10,000 such ids the texts are compared too.

    Args:
        path: The log's base name; without it ``AI_RESPONSES_FILE``, then the default place.
        on_progress: Called now and then with the bytes read and the bytes there are to read, both on the disk.

    Raises:
        LogReadError: There is no such log, or one of its files cannot be read.

    .. versionadded:: 0.1.0
    """
    path = default_log_path(path)
    journals = Journals(path)
    # Only now, never before: what has left its journal meanwhile is in the log that is opened here.
    with LogSnapshot(path, missing_ok=bool(journals.numbers)) as snapshot:
        check = _Check(path, snapshot, journals, on_progress or _ignore)
        check.read_all()
        return check.report()


def _ignore(_done: int, _total: int) -> None:
    """Show no progress."""


class _Check:
    """One verification of one snapshot."""

    def __init__(
        self, path: str, snapshot: LogSnapshot, journals: Journals, on_progress: Callable[[int, int], object]
    ) -> None:
        self._path = path
        self._snapshot = snapshot
        self._journals = journals
        # What a problem's place counts.
        self._names = [*(file.path for file in snapshot.files), *journals.files, *(file for file, _ in journals.unread)]
        self._on_progress = on_progress
        self._to_read = snapshot.size
        self._read = 0
        self._records = self._older = self._bytes = self._in_journals = 0
        self._writers: dict[str, Numbers] = {}
        self._ids, self._calls = Hashes(), journals.calls
        self._has_repeated_number = False
        self._claims: list[tuple[str, int, Place]] = []
        self._problems: list[tuple[Place, str, str]] = []
        self._counts: Counter[str] = Counter()
        self._receipts = Receipts()
        self._blobs: dict[str, Place] = {}

    def read_all(self) -> None:
        """Read every file, then once more if something stands twice, since only then it matters where it stood."""
        for place, line, finding in self._findings():
            self._bytes += len(line)
            if finding.kind:
                self._note(finding.kind, place, finding.detail)
            if finding.record is not None:
                self._count(finding.record, place, is_older=finding.is_older)
            elif len(self._claims) < _CLAIMS_KEPT:
                self._claims.extend((*claim, place) for claim in claims_in(line))
        repeated = self._ids.repeated()
        if repeated or self._has_repeated_number:
            self._to_read += self._snapshot.size
            self._locate_repeats(Repeats(repeated))
        self._add_journalled()
        self._add_claims()
        for place, detail in self._receipts.contradictions(self._writers):
            self._note("forgotten", place, detail)
        self._note_gaps()
        self._check_blobs()

    def report(self) -> Report:
        """Return what was found."""
        problems = [
            Problem(kind, self._names[at.file], at.line, at.offset, what) for at, kind, what in sorted(self._problems)
        ]
        return Report(
            whole=not self._counts,
            files=tuple(file.path for file in self._snapshot.files),
            records=self._records,
            older=self._older,
            bytes=self._bytes,
            in_journals=self._in_journals,
            writers=tuple(self._writer_report(name, numbers) for name, numbers in self._writers.items()),
            problems=tuple(problems),
            problem_counts={kind: self._counts[kind] for kind in KINDS if kind in self._counts},
            open_calls=self._calls.count_open(),
            forgotten=self._receipts.count,
            blobs=len(self._blobs),
        )

    def _findings(self) -> Iterator[tuple[Place, bytes, Finding]]:
        """Yield every line of every file, judged."""
        for index, file in enumerate(self._snapshot.files):
            before, place, end = self._read, Place(index, 0, 0), file.end
            try:
                with self._snapshot.open(file) as stream:
                    for number, (offset, line) in enumerate(lines_of(stream, end), 1):
                        place = Place(index, number, offset)
                        if number % _PROGRESS_LINES == 0:
                            self._on_progress(before + min(offset, file.size), self._to_read)
                        if end is not None and is_unfinished(line):
                            line = _look_again(stream, offset)  # noqa: PLW2901  the same line, a moment later
                        if line:
                            yield place, line, judge_line(line, offset)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                yield place._replace(line=place.line + 1), b"", _damaged_gzip(error)
            except OSError as error:
                raise LogReadError(file.path, error.strerror or str(error)) from error
            self._read = before + file.size
            self._on_progress(self._read, self._to_read)

    def _note(self, kind: str, place: Place, detail: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= _PROBLEMS_KEPT:
            self._problems.append((place, kind, detail))

    def _count(self, record: dict[str, Any], place: Place, *, is_older: bool) -> None:
        self._records += 1
        if isinstance(record_id := record.get("record_id"), str):
            self._ids.add(record_id)
        if is_older:
            self._older += 1
            return
        if not _add_number(self._writers, record, place):
            self._has_repeated_number = True
        self._calls.note(record)
        for digest in named_in(record):
            self._blobs.setdefault(digest, place)
        if (fault := self._receipts.take(record, place)) is not None:
            self._note("forgotten", place, fault)

    def _locate_repeats(self, repeats: Repeats) -> None:
        writers: dict[str, Numbers] = {}
        for place, _, finding in self._findings():
            record = finding.record
            if record is None:
                continue
            detail = ""
            if not finding.is_older and not _add_number(writers, record, place):
                detail = f"number {record['seq']} of writer {record['writer_id']!a} stood before"
            record_id = record.get("record_id")
            if isinstance(record_id, str):
                is_repeated, first = repeats.look(record_id, place)
                if is_repeated:
                    detail = f"record_id {record_id!a} stood before{self._where(first)}"
            if detail:
                self._note("duplicate", place, detail)

    def _where(self, first: Place | None) -> str:
        if first is None:
            return ""
        return f", in line {first.line} of {os.path.basename(self._snapshot.files[first.file].path)}"

    def _add_journalled(self) -> None:
        """Count what is in journals and not in the log; a copy of what has arrived is neither damage nor doubled."""
        files = len(self._snapshot.files)
        for writer_id, journalled in self._journals.numbers.items():
            forgotten = self._forgotten_since(writer_id, journalled)
            for number, place in ((number, place) for number, place in journalled if number not in forgotten):
                numbers = self._writers.setdefault(writer_id, Numbers())
                self._in_journals += numbers.add(number, place._replace(file=files + place.file))
        for digest, place in self._journals.blobs.items():
            self._blobs.setdefault(digest, place._replace(file=files + place.file))
        for at, (_, why) in enumerate(self._journals.unread, files + len(self._journals.files)):
            self._note("unread", Place(at, 0, 0), why)

    def _forgotten_since(self, writer_id: str, journalled: Numbers) -> set[int]:
        """Return which of a writer's lines were brought home and forgotten after we had read the journals."""
        named = self._receipts.among(writer_id, journalled)
        if named:
            named -= {number for number, _ in Journals(self._path).numbers.get(writer_id, ())}
        return named

    def _add_claims(self) -> None:
        """Let damaged lines account for their own numbers, where these fit: a problem is named once, not twice."""
        for writer_id, number, place in sorted(self._claims):
            numbers = self._writers.get(writer_id)
            if numbers is not None and number <= numbers.last + 1:
                numbers.add(number, place)

    def _note_gaps(self) -> None:
        for writer_id, numbers in self._writers.items():
            for first, last, place in self._receipts.unexplained(writer_id, numbers):
                what = f"number {first}" if first == last else f"numbers {first} to {last}"
                why = "; files removed by backup_count look the same" if first == 0 else ""
                self._note("gap", place, f"{what} of writer {writer_id!a} missing before this line's {last + 1}{why}")

    def _check_blobs(self) -> None:
        faults = {digest for digest in self._blobs if fault_of(self._path, digest)}
        if not faults:
            return
        # `forget` takes out records first and their texts then: what it has done since our files were opened is no
        # damage. Nor is that a text is out of its place for the moment in which it asks whether that is used.
        records = read_log(self._path, missing_ok=True)
        named = {digest for record in records for digest in named_in(record) if digest in faults}
        for digest, place in self._blobs.items():
            if digest in named and (fault := fault_of(self._path, digest)):
                self._note("blob", place, f"a text of this record: {fault}")

    def _writer_report(self, writer_id: str, numbers: Numbers) -> WriterReport:
        kept: list[tuple[int, int]] = []
        count = 0
        for first, last, _ in self._receipts.unexplained(writer_id, numbers):
            count += last - first + 1
            if len(kept) < _RANGES_KEPT:
                kept.append((first, last))
        return WriterReport(writer_id, numbers.first, numbers.last, tuple(kept), count)


def _add_number(writers: dict[str, Numbers], record: dict[str, Any], place: Place) -> bool:
    """Add the record's number to its writer's; False if it was there already. A record without one is let be."""
    writer_id, number = record.get("writer_id"), record.get("seq")
    if type(writer_id) is not str or type(number) is not int or not 0 <= number < _MAX_NUMBER:
        return True
    numbers = writers.get(writer_id)
    if numbers is None:
        numbers = writers[writer_id] = Numbers()
    return numbers.add(number, place)


def _look_again(stream: BinaryIO, offset: int) -> bytes:
    """
    Return the line at *offset* as it is now; empty if it has gone.

    A writer may be in the middle of it, or a repair may just have set it aside. Read past the buffer, which may hold
    what stood there before.
    """
    line = b""
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        line = _read_line_at(stream.fileno(), offset)
        if not line or line.endswith(b"\n"):
            break
    return line


def _read_line_at(descriptor: int, offset: int) -> bytes:
    line = b""
    while len(line) < MAX_LINE_BYTES and (piece := os.pread(descriptor, _PIECE_BYTES, offset + len(line))):
        end = piece.find(b"\n") + 1
        if end:
            return line + piece[:end]
        line += piece
    return line


def _damaged_gzip(error: Exception) -> Finding:
    if isinstance(error, EOFError):
        return Finding("torn", "the compressed file ends early; nothing behind this place can be read")
    kind = "checksum" if "crc" in str(error).lower() or "length" in str(error).lower() else "foreign"
    return Finding(kind, f"the compressed file is damaged: {error}; nothing behind this place can be read")
