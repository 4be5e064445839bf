"""The journals of writers that are gone, for whoever brings home what is in them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from . import _append, _lock
from ._journal_files import JournalFiles, let_go, open_lock
from ._journal_find import content
from ._journal_format import SYNCED, Intent, directory_names, lock_name, seq_of, whole_lines, writers_among
from ._paths import OwnFile, open_regular, sync_directory
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Left", "Orphan", "has_journals", "orphans"]


class Orphan(JournalFiles):
    """
    A journal whose writer is gone, ours to bring home; the writer takes its lines as it takes those of its queue.

    A context manager. Threads: one.
    """

    def __init__(self, directory: str, writer_id: str, lock: OwnFile, file_mode: int, *, is_synced: bool) -> None:
        # Not directory_names: where the list cannot be had (no descriptor left, EIO) that one says that nothing is
        # there, and a journal with nothing in it is removed.
        super().__init__(directory, os.listdir(directory), writer_id, lock, file_mode, is_synced=is_synced)
        ends = [first_seq for first_seq, _ in self._segments[1:]] + [sys.maxsize]
        self._unread = iter(list(zip(self._segments, ends, strict=False)))  # each leaves _segments when it is home
        self._early: list[tuple[int, bytes]] = []
        self._next_seq = self._home_seq = self._mark.consumed
        self._lines: list[bytes] = []
        self.intent: Intent | None = self._mark.intent
        """What its writer, or an adopter before us, or we were about to append."""
        self.consumed = 0
        """How many lines have come home by us."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever comes next would find our last block by the intent, and count it as brought home by him as well.
        if self.intent is None and self._home_seq > self._mark.consumed:
            with suppress(OSError, LogPathError):
                self.mark(self._home_seq, None)
        self.close()

    def note(self, intent: Intent) -> None:
        """Note what is about to be appended, and what has arrived before."""
        self.mark(self._home_seq, intent)
        self.intent = intent

    def first(self, count: int) -> list[bytes]:
        """Return the first *count* lines that have not come home; fewer if there are no more."""
        while len(self._lines) < count and (segment := next(self._unread, None)):
            (first_seq, name), end_seq = segment
            if self.is_synced:
                self._sync(self._path(name))
            for seq, _, line in whole_lines(content(self._path(name)), self.writer_id, first_seq):
                # Loss of power may take the name that used space was given and leave what was stored there since: such
                # lines belong behind those of all other segments, which would else pass for lines that came home.
                if seq >= end_seq:
                    self._early.append((seq, line))
                else:
                    self._take(seq, line)
        if len(self._lines) < count:
            early, self._early = self._early, []
            for seq, line in sorted(early):
                self._take(seq, line)
        return self._lines[:count]

    def _take(self, seq: int, line: bytes) -> None:
        if seq >= self._next_seq:  # a store that was interrupted may stand in two segments
            self._lines.append(line)
            self._next_seq = seq + 1

    def _sync(self, segment: str) -> None:
        # A process that was killed may have stored lines in it that it had not synced yet; see LineQueue.make_durable.
        with open_regular(segment, os.O_RDONLY, self._file_mode, create=False) as file:
            _append.sync_file(file.fileno())
        sync_directory(segment)

    def make_durable(self, line: bytes) -> None:
        """Do nothing: *line* and all others of a segment are durable since that one was read."""

    def head(self, max_bytes: int) -> list[bytes]:
        """Return the lines that are next, up to *max_bytes* but at least one."""
        loaded = 0
        while self.first(loaded + 1)[loaded:] and sum(map(len, self._lines)) < max_bytes:  # a segment at a time
            loaded = len(self._lines)
        size = 0
        for count, line in enumerate(self._lines):
            size += len(line)
            if count and size > max_bytes:
                return self._lines[:count]
        return self._lines[:]

    def consume(self, count: int, *, is_ours: bool = False) -> None:
        """Forget the first *count* lines: they have arrived. Ends the intent. For *is_ours* see :meth:`mark`."""
        self._home_seq = seq_of(self._lines[count - 1]) + 1 if count else self._home_seq
        self._lines, self.consumed, self.intent = self._lines[count:], self.consumed + count, None
        # Else the next intent notes it as well; until then the one before leads to the bytes in the log.
        if self.empty():
            self.mark(self._home_seq, None, is_ours=is_ours)

    @property
    def segments(self) -> int:
        """How many of its files hold lines that have not all come home, as far as that is noted."""
        return len(self._segments)

    def give_up(self) -> int:
        """
        Return how many lines have not come home; none can be taken any more.

        Raises:
            OSError: They cannot be read.
        """
        count = 0
        while self.first(1):
            count, self._lines = count + len(self._lines), []
        return count

    def empty(self) -> bool:
        """Say whether all its lines have come home."""
        return not self.first(1)


class Left(NamedTuple):
    """A journal that is not ours to bring home: its lock is held, or it may not be opened."""

    directory: str
    writer_id: str
    holder: str
    """Who holds the lock, as far as the machine tells: its writer, or another process that brings it home."""
    error: OSError | LogPathError | None
    """Why it may not be opened; None if somebody holds it."""


def orphans(
    directory: str,
    file_mode: int,
    tell: Callable[[Left], object] | None = None,
    but: str = "",
    *,
    is_synced: bool = False,
) -> Iterator[Orphan]:
    """
    Yield the journals in *directory* whose writers are gone, each locked by us.

    Args:
        directory: Where they are.
        file_mode: Of what is made there.
        tell: Called with each that stays.
        but: A writer who is not gone, even if his lock has been closed under him: ourselves.
        is_synced: Whether all are brought home as at durability power; those of that durability always are.
    """
    for writer_id in writers_among(directory_names(directory)):
        if writer_id == but:
            continue
        path = os.path.join(directory, lock_name(writer_id))
        lock = None
        try:
            lock = open_lock(path, file_mode, create=False)
            if not _lock.try_acquire(lock):
                if tell is not None:
                    tell(Left(directory, writer_id, _lock.holder_of(lock), None))
                let_go(lock)
                continue
            if _lock.is_replaced(lock, path):
                let_go(lock)
                continue
            is_durable = is_synced or lock.read(len(SYNCED)) == SYNCED
            orphan = Orphan(directory, writer_id, lock, file_mode, is_synced=is_durable)
        except (OSError, LogPathError) as error:
            let_go(lock)
            if tell is not None and not isinstance(error, FileNotFoundError):
                tell(Left(directory, writer_id, "", error))
            continue
        with orphan:
            yield orphan


def has_journals(directory: str, but: str = "") -> bool:
    """Say whether there is any journal *but* that of one writer, of a living one or not."""
    return any(writer_id != but for writer_id in writers_among(directory_names(directory)))
