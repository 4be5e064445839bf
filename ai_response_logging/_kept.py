"""
The journal's side of the queue: lines that wait are on disk as well, and where they wait for the disk.

What :class:`~._queue.LineQueue` inherits; its own module has the way of a line through the memory.
"""

from __future__ import annotations

import errno
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._group_sync import GroupSync
from ._journal_format import Mark, seq_of
from ._lock import outlived
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._journal import Journal
    from ._journal_format import Intent
    from ._prepared import PreparedRecord

__all__ = ["KeptLines", "without_frames"]

_ROUNDS: Final = 20


class KeptLines:
    """
    Lines that wait, as far as the journal is concerned.

    Threads: any, where a method does not say otherwise.
    """

    is_synced = False
    """Whether lines are to survive loss of power: then one leaves only when it is durable in the log."""

    if TYPE_CHECKING:  # what the queue has
        lock: threading.RLock
        writer_id: str
        intent: Intent | None
        _lines: list[bytes]
        _seq: int

        def consume(self, count: int, *, is_ours: bool = False) -> None:
            """Forget the first *count* lines: they have arrived. Ends the intent."""

        def is_held_here(self) -> bool:
            """Say whether the calling thread is in the middle of a change: a signal handler has interrupted it."""

    def _renew_journal(self) -> None:
        """Begin without a journal: at the start, and in a forked child."""
        if (parents := getattr(self, "journal", None)) is not None:
            parents.close()  # our copy: its lock is the parent's
        self._stashing = threading.RLock()
        self._stashed_seq = 0
        self.journal: Journal | None = None
        """Where lines that wait are on disk as well; at ``memory`` only once :meth:`stash` has made it."""
        self.keeper: Journal | None = None
        """The journal, while :meth:`~._queue.LineQueue.put` stores each line in it; see :meth:`keep_each`."""
        self.journal_error: Exception | None = None
        """Why lines are not kept, where they were to be; without frames, which would keep their locals alive."""
        self._mark_error: Exception | None = None
        self._syncs = GroupSync(self._sync_journal)

    def outlive_threads(self) -> None:
        """While the interpreter ends: free what threads held that it has stopped; see :func:`~._lock.outlived`."""
        if not sys.is_finalizing():
            return
        self.lock, self._stashing = outlived(self.lock), outlived(self._stashing)
        syncs, self._syncs = self._syncs, GroupSync(self._sync_journal)
        self._syncs.durable_seq = syncs.durable_seq
        if self.journal is not None:
            self.journal.outlive_threads()

    # -- the journal

    def stash(self, make: Callable[[str], Journal]) -> int:
        """
        Store what waits in the journal, made by *make* for our writer id if need be; return how many are not in it.

        Raises:
            OSError: The journal cannot be made.

        Threads: any.
        """
        with self._stashing:
            self.journal = journal = self.journal or make(self.writer_id)
            self._note_late(journal)
            with self.lock:
                new = _from(journal.next_seq, self._lines)
                if self.keeper is not None:  # at most what was interrupted; nobody else may store now
                    return len(new) - journal.store(new)
                # Until it is known how many the disk takes, none of them may be refused any more.
                self._stashed_seq = seq_of(new[-1]) + 1 if new else journal.next_seq
            try:
                journal.store(new)
                if journal.is_synced:
                    with suppress(OSError):  # it is there all the same, for whoever outlives this process
                        journal.sync(self.lock)
            finally:
                self._stashed_seq = journal.next_seq
            with self.lock:
                last_seq = seq_of(new[-1]) if new else -1
                return sum(journal.next_seq <= seq_of(line) <= last_seq for line in self._lines)

    def _note_late(self, journal: Journal) -> None:
        """Note in a new journal what is about to be appended; a function of its own: see _queue._beginning."""
        while self.keeper is None and (intent := self.intent) is not None:  # else it is noted
            journal.mark(intent.first_seq, intent)
            if self.intent is intent:
                break

    def is_stashed(self, record: PreparedRecord) -> bool:
        """Say whether *record* waits and is in the journal as well, or may be."""
        line, journal = record.line, self.journal
        if journal is None or line not in self._lines:
            return False
        return seq_of(line) < max(self._stashed_seq, journal.next_seq)

    def keep_each(self, make: Callable[[str], Journal], directory: str = "") -> None:
        """
        Have :meth:`put` store each line in the journal from now on, and store what waits; *make* as in :meth:`stash`.

        With a *directory* it leaves a journal that is in another one.

        Raises:
            OSError: The journal cannot be had, or takes no more.

        Threads: any.
        """
        with self._stashing:
            before = self.journal
            if before is not None and (self._is_gone(before) or before.directory != (directory or before.directory)):
                # Made before the old one is left: where there can be none, what arrives is still noted there.
                self._take(make(self.writer_id))
            self._keep_all(make)
            if before is not None and before is not self.journal:
                before.renounce()

    def _keep_all(self, make: Callable[[str], Journal]) -> None:
        for _ in range(_ROUNDS):  # others log meanwhile
            if self.stash(make) or (journal := self.journal) is None:
                break
            journal.begin(self._seq)
            with self.lock:
                if not self._lines or seq_of(self._lines[-1]) < journal.next_seq:
                    self.keeper, self.journal_error = journal, None
                    return
        raise OSError(errno.ENOSPC, "the journal takes no more")

    def _is_gone(self, journal: Journal) -> bool:
        """Say whether *journal* is no longer where others look for it, or not ours any more and of no use."""
        if not journal.has_lost_lock():
            return journal.is_gone()
        try:
            journal.retake()
        except FileNotFoundError:
            if self._lines and seq_of(self._lines[0]) < journal.next_seq:  # it is home: settle_journal comes first
                raise
            return True
        return False

    def _take(self, journal: Journal | None) -> None:
        with self.lock:
            self.journal, self.keeper, self._stashed_seq = journal, None, 0

    def settle_journal(self) -> bool:
        """
        Take the journal back if its lock was closed under us, and forget what another process has brought home of it.

        That one may have been killed in the middle of it: then there is an intent to settle, as after our own append.

        Returns:
            Whether its lock was closed under us.

        Raises:
            OSError: Another process has it: what waits is neither ours nor home.

        Threads: the writer's turn, under the log's lock.
        """
        journal = self.journal
        if journal is None or not journal.has_lost_lock():
            return False
        with self.lock:
            try:
                journal.retake(self._forget_home)
            except FileNotFoundError:
                self._forget_home(Mark(0, journal.home_seq(), None))
                self._take(None)
                journal.close()
            self.journal_error = None  # so that the next record opens it again
        return True

    def _forget_home(self, mark: Mark) -> None:
        self.consume(len(self._lines) - len(_from(mark.consumed, self._lines)))
        self.intent = mark.intent

    def drop_journal(self, *, if_kept: bool = True) -> None:
        """Remove the journal if nothing waits; without *if_kept* only one that :meth:`put` does not use."""
        if self.is_held_here():  # by a signal handler; whoever stashes may wait for the lock, and may need the journal
            return
        with self._stashing:
            with self.lock:
                journal = self.journal
                if self._lines or self.intent is not None or journal is None or (self.keeper and not if_kept):
                    return
                self.journal = self.keeper = None
            try:
                journal.remove()
            except OSError:  # then the next to come finds that all has arrived
                journal.close()

    def _forget_in_journal(self, journal: Journal, consumed: int, *, is_ours: bool = False) -> None:
        # What cannot be noted is not lost: the intent that is noted there leads to the bytes in the file.
        with suppress(OSError):
            journal.mark(consumed, None, is_ours=is_ours)
            if self.keeper is None:
                self.drop_journal(if_kept=False)

    # -- the writer's side

    def note(self, intent: Intent) -> None:
        """
        Note what is about to be appended, in the journal too if there is one.

        Raises:
            OSError: The journal does not take it, so nothing may be appended: a kill in between could double it.
        """
        # In this order: stash() sets the journal and then looks for an intent, so one of the two sees the other's.
        self.intent = intent
        journal = self.journal
        if journal is None:
            return
        try:
            journal.mark(intent.first_seq, intent)
        except (OSError, LogPathError) as error:
            # One that another process may bring home by now is neither marked nor removed: see settle_journal.
            if journal.has_lost_lock():
                raise
            if journal.is_synced:
                # What waits is durable nowhere else, until the log has been synced: it goes only behind that.
                self._mark_error = without_frames(error)
                return
            if self.keeper is None and self.journal_error is None:
                raise
            self._give_up(journal, error)
            return
        self._mark_error = None

    def _give_up(self, journal: Journal, error: Exception) -> None:
        """Do without a journal that takes no marks, if it can be removed; what it may still tell would be doubled."""
        if self.is_held_here():  # as in drop_journal
            raise OSError(errno.EBUSY, "the journal takes no marks, and a signal handler cannot remove it here")
        with self._stashing:
            with self.lock:  # behind a store that is being made: its descriptor is about to be closed
                self.keeper, self.journal_error = None, without_frames(error)
            try:
                journal.remove()
            except OSError:
                # EIO, EROFS: its disk is dead, and the log must not wait for it. The next note tries again. Only if the
                # disk comes back when this process has ended, what waited while it died comes home once more.
                return
            with self.lock:
                if self.journal is journal:
                    self.journal, self._stashed_seq = None, 0

    # -- durability power

    def await_sync(self, record: PreparedRecord) -> bool:
        """
        Wait until *record*'s line is durable, for the sync that is under way and the next; say whether it is.

        Raises:
            OSError: The journal could not be synced.
        """
        # At `power` a line leaves the queue only behind a sync of the log.
        line = record.line
        return line is not None and (self._share_sync(seq_of(line)) or line not in self._lines)

    def make_durable(self, line: bytes) -> None:
        """
        Before *line* and those ahead of it go to the log: have them durable in the journal, as far as there is one.

        From there an adopter makes whole what loss of power leaves of them in the log; nobody else knows them.
        """
        if self.keeper is not None:
            with suppress(OSError):
                self._share_sync(seq_of(line))

    def _share_sync(self, seq: int) -> bool:
        if not self.is_held_here():
            return self._syncs.wait(seq)
        # A signal handler amid our own change makes a sync of its own: whoever leads may wait for our lock.
        return self._sync_journal() > seq

    def is_durable(self, record: PreparedRecord) -> bool:
        """Say whether *record*'s line, which the queue has taken, is durable already."""
        line = record.line
        return line is not None and (self._syncs.durable_seq > seq_of(line) or line not in self._lines)

    def _sync_journal(self) -> int:
        """Sync the journal; what a segment did not take goes to a new one, once, before the journal has failed."""
        journal = self.keeper
        if journal is None:
            return self._syncs.durable_seq
        try:
            return journal.sync(self.lock)
        except OSError:
            pass
        try:
            with self.lock:
                journal.begin_behind_synced()
                for line in _from(journal.next_seq, self._lines):
                    journal.keep(line, seq_of(line))
            return journal.sync(self.lock)
        except OSError as error:
            with self.lock:
                self.keeper, self.journal_error = None, OSError(*error.args)  # the one that goes on gets frames again
                with suppress(OSError):
                    journal.begin_behind_synced()
            raise


def without_frames(error: Exception) -> Exception:
    """Return *error* to be kept: without the frames that it came through, whose locals are to end with the call."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _from(seq: int, lines: list[bytes]) -> list[bytes]:
    """Return the *lines* from number *seq* on."""
    # A function of its own: since 3.12 a comprehension runs in its surroundings, and an exception that arrives between
    # two of its rounds leaves a `with` around it without giving back the lock (seen on 3.12.1).
    return [line for line in lines if seq_of(line) >= seq]
