"""
The newest records of a log, and then those that come: each once, over rotation, compression and journals.

Nothing is locked, written or waited for. Whoever asks again, now and then, gets what has come since: one look at a log
that nobody writes to is one ``stat`` and the list of its journals.

Lines move from a journal to the log and never back, so the journals are read first, each time: what is no longer in
one is in the log that is read behind it. What was shown from a journal is passed over when it has arrived.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple, Self

from ._followed import FollowedFile, lines_backward, start_behind
from ._journal_find import journal_directories, names_in, why_not
from ._journal_format import mark_name, segments_among, writers_among
from ._journal_read import JournalLine, lines_of_writer
from ._nested import flat_record
from ._numbers import Numbers, Place
from ._shapes import has_older_shape
from ._snapshot import is_unpacked
from .errors import LogReadError
from .reader import LogFile, LogSnapshot, StrPath, is_unfinished, lines_of, parse_line

__all__ = ["Follower"]

_NOWHERE: Final = Place(0, 0, 0)
_STAMPED: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z\Z|-\d{8}[\d-]*(\.backup)?\Z")  # names that are never given twice
_IDLE_LOOKS: Final = 20  # at a file that was put aside: a writer may still be in the middle of its last append

Record = dict[str, Any]


class _Seen(NamedTuple):
    """A file as it was listed last: one with a number for a name gets another name, and stays itself."""

    identity: tuple[int, int]
    changed_ns: int


class Follower:
    """
    Gives the newest records of the log at *path*, and at each :meth:`look` those that have come since.

    What is in journals when this begins counts as there already. Lines that stand twice in the log are given twice. A
    context manager.

    Args:
        path: The log's base name; there need not be such a log yet.
        on_bad: Called with a file, the byte in it (uncompressed) and what cannot be read there.

    Raises:
        LogReadError: From any method: a file of the log may not be read, or is no regular file.

    Threads: one. Memory: 40 bytes for each unbroken run of numbers, 100 for each file.

    .. versionadded:: 0.1.0
    """

    def __init__(self, path: StrPath, on_bad: Callable[[str, int, str], object] | None = None) -> None:
        self.path = os.fspath(path)
        self._on_bad = on_bad or _ignore
        self._journals = _Journals(self.path, self._on_bad)
        self._logged: dict[str, Numbers] = {}
        self._noted: dict[str, Numbers] = {}
        self._open: list[FollowedFile] = []
        self._live: FollowedFile | None = None
        self._stems: set[str] = set()
        self._seen: set[_Seen] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def has_journals(self) -> bool:
        """Whether there was anything in a journal so far."""
        return bool(self._noted)

    def close(self) -> None:
        """Close what is open; may be called twice."""
        while self._open:
            self._open.pop().close()

    # -- the beginning

    def newest(
        self,
        count: int,
        match: Callable[[Record], bool],
        on_progress: Callable[[int, int], object] | None = None,
    ) -> list[Record]:
        """
        Return the *count* newest records that *match*, the newest last, and follow from there on.

        Read from the end: as much as it takes. Newest is what reached the log last, together with what is still in
        journals; among these the time of logging decides.

        Args:
            count: How many at most; 0 begins to follow without any.
            match: Says which are wanted.
            on_progress: Called now and then with the bytes read and the bytes there are.
        """
        waiting = [line for line in self._journals.news() if self._note(self._noted, line.writer_id, line.seq)]
        with LogSnapshot(self.path, missing_ok=True) as snapshot:
            self._begin(snapshot)
            found: deque[Record] = deque()
            for record in self._backward(snapshot, on_progress or _ignore) if count else ():
                self._met(record)
                if match(record):
                    found.appendleft(record)
                    if len(found) == count:
                        break
        there = [*found]
        for line in waiting:
            record = parse_line(line.line)
            if line.seq not in self._logged.get(line.writer_id, ()) and match(record):
                there.append(record)
        return _by_time(there)[-count:] if count else []

    def _begin(self, snapshot: LogSnapshot) -> None:
        for file in snapshot.files:
            self._remember(file)
            if file.is_live:
                with snapshot.open(file) as stream:
                    self._live = FollowedFile(file.path, stream)
                self._live.skip_to_end(file.size)
                self._open.append(self._live)

    def _backward(self, snapshot: LogSnapshot, on_progress: Callable[[int, int], object]) -> Iterator[Record]:
        """Yield the snapshot's records, the last one first."""
        done = 0
        for file in reversed(snapshot.files):
            with snapshot.open(file) as stream:
                if is_unpacked(stream):
                    # It can only be read from its beginning; lines take less memory than records.
                    lines: Iterator[tuple[int, bytes]] = reversed([*self._lines_of_gzip(stream, file)])
                else:
                    end = min(file.size, self._live.offset) if file.is_live and self._live else file.size
                    lines = lines_backward(stream.fileno(), end)
                for offset, line in lines:
                    on_progress(done + file.size - min(offset, file.size), snapshot.size)
                    yield from self._parsed(file.path, offset, line)
            done += file.size

    # -- what has come since

    def look(self) -> Iterator[Record]:
        """Yield what has come since the last look, in the order in which it stands in the log, then in journals."""
        waiting = self._journals.news()
        for file in self._open:
            yield from filter(self._met, self._grown(file))
        if self._has_moved():
            yield from filter(self._met, self._catch_up())
        for writer_id, seq, line, *_ in waiting:
            is_logged = seq in self._logged.get(writer_id, ())
            if self._note(self._noted, writer_id, seq) and not is_logged:
                yield parse_line(line)

    def _has_moved(self) -> bool:
        try:
            status = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            raise LogReadError(self.path, error.strerror or str(error)) from error
        return self._live is None or self._live.identity != (status.st_dev, status.st_ino)

    def _catch_up(self) -> Iterator[Record]:
        """Yield what is left of the file that was the log, then the files since then, then the log of now."""
        with LogSnapshot(self.path, missing_ok=True) as snapshot:
            fresh = self._fresh(snapshot)
            before, live_before = [*self._open], self._live
            for followed in before:
                yield from self._grown(followed)
            self._live = None
            for file in fresh:
                with snapshot.open(file) as stream:
                    if is_unpacked(stream):  # perhaps by now only
                        yield from self._unzipped(stream, file, before)
                    else:
                        yield from self._grown(self._opened(file, stream, live_before, snapshot))
            for followed in before:
                if followed.identity in {file.identity for file in snapshot.files if file.is_live}:
                    self._live = followed  # somebody renamed it away and back
        for followed in [one for one in self._open if one is not self._live and one.idle_looks > _IDLE_LOOKS]:
            self._open.remove(followed)
            followed.close()

    def _fresh(self, snapshot: LogSnapshot) -> list[LogFile]:
        """Return the snapshot's files that were not there at the last one, and remember all of them."""
        known = {file.identity for file in self._open}
        stems, seen = self._stems, self._seen
        self._stems, self._seen = set(), set()
        return [
            file
            for file in snapshot.files
            # Each is remembered, whatever it turns out to be.
            if not self._remember(file, stems, seen) and (file.identity not in known or file.is_compressed)
        ]

    def _remember(self, file: LogFile, stems: set[str] | frozenset[str] = frozenset(), seen: Any = ()) -> bool:
        """Note a file for the next time; say whether it was noted before, among *stems* and *seen*."""
        if file.is_live:
            return False
        stem = file.path.removesuffix(".gz")
        self._stems.add(stem)
        try:
            now = _Seen(file.identity, os.stat(file.path).st_mtime_ns)
        except OSError:  # it has just got its next name; it is looked at again then
            now = _Seen(file.identity, -1)
        self._seen.add(now)
        if _STAMPED.search(stem):
            return stem in stems
        # A number is given to another file every time. A compressed one was there before it was compressed.
        return now in seen or (file.is_compressed and bool(stems))

    def _opened(
        self, file: LogFile, stream: BinaryIO, live_before: FollowedFile | None, snapshot: LogSnapshot
    ) -> FollowedFile:
        followed = FollowedFile(file.path, stream)
        self._open.append(followed)
        if file.is_live:
            self._live = followed
            if live_before is not None and live_before.identity not in {one.identity for one in snapshot.files}:
                # It was not rotated but replaced: rewritten, as `forget` does, or removed and made anew.
                followed.offset = start_behind(live_before, followed)
        return followed

    def _grown(self, file: FollowedFile) -> Iterator[Record]:
        for offset, line in file.grown():
            yield from self._parsed(file.path, offset, line)

    def _unzipped(self, stream: BinaryIO, file: LogFile, before: list[FollowedFile]) -> Iterator[Record]:
        for number, (offset, line) in enumerate(self._lines_of_gzip(stream, file)):
            # Rotated and compressed between two looks: what we have followed under its first name.
            if not number and any(one.begins_with(line) for one in before):
                return
            yield from self._parsed(file.path, offset, line)

    def _lines_of_gzip(self, stream: Any, file: LogFile) -> Iterator[tuple[int, bytes]]:
        offset = 0
        try:
            for offset, line in lines_of(stream):
                yield offset, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self._on_bad(file.path, offset, f"the compressed file is damaged here: {error}")

    # -- lines

    def _parsed(self, file: str, offset: int, line: bytes) -> Iterator[Record]:
        try:
            record = parse_line(line)
        except ValueError as error:
            if not is_unfinished(line):
                self._on_bad(file, offset, str(error))
        else:
            yield flat_record(record) if has_older_shape(record) else record

    def _note(self, known: dict[str, Numbers], writer_id: str, seq: int) -> bool:
        return known.setdefault(writer_id, Numbers()).add(seq, _NOWHERE)

    def _met(self, record: Record) -> bool:
        """Note a record of the log; say whether it is to be shown: not if the journal's copy was."""
        writer_id, seq = record.get("writer_id"), record.get("seq")
        if type(writer_id) is not str or type(seq) is not int or not 0 <= seq < 1 << 62:
            return True
        is_first = self._note(self._logged, writer_id, seq)
        return not is_first or seq not in self._noted.get(writer_id, ())


class _Journals:
    """The journals of a log, read again only when something has been stored in them."""

    def __init__(self, path: str, on_bad: Callable[[str, int, str], object]) -> None:
        self._path = path
        self._on_bad = on_bad
        self._told: set[str] = set()
        self._states: dict[tuple[str, str], object] = {}

    def news(self) -> list[JournalLine]:
        """Return the lines of every journal that has changed since the last time."""
        states: dict[tuple[str, str], object] = {}
        lines: list[JournalLine] = []
        for directory in journal_directories(self._path, on_unread=self._tell):
            try:
                names = names_in(directory)
            except OSError as error:
                self._tell(directory, why_not(directory, error))
                continue
            for writer_id in writers_among(names):
                key = (directory, writer_id)
                states[key] = _state_of(directory, writer_id, names)
                if states[key] != self._states.get(key):
                    lines += lines_of_writer(directory, writer_id, names, self._tell)
        self._states = states
        return lines

    def _tell(self, file: str, why: str) -> None:
        if file not in self._told:
            self._told.add(file)
            self._on_bad(file, 0, why)


def _state_of(directory: str, writer_id: str, names: list[str]) -> list[tuple[str, int, int]]:
    """Return what changes when a line is stored in a writer's journal, or has arrived."""
    state = []
    for name in (mark_name(writer_id), *(name for _, name in segments_among(names, writer_id))):
        try:
            status = os.stat(os.path.join(directory, name))
        except OSError:
            continue
        state.append((name, status.st_mtime_ns, status.st_size))
    return state


def _by_time(records: list[Record]) -> list[Record]:
    """Return *records* by the time of logging; one without a time stays behind the one before it."""
    moments, moment = [], 0.0
    for record in records:
        stamp = record.get("unix_timestamp")
        moment = float(stamp) if isinstance(stamp, int | float) and not isinstance(stamp, bool) else moment
        moments.append(moment)
    return [records[at] for at in sorted(range(len(records)), key=moments.__getitem__)]


def _ignore(*_: object) -> None:
    """Say nothing."""
