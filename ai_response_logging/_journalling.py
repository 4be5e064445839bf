"""
The journals of one log: this writer's, and those of writers that are gone, whose lines are brought home.

What :class:`~.writer.BatchFileHandler` inherits; its own module has the one way by which lines get into the log.
"""

from __future__ import annotations

import errno
import itertools
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ._adopt import Orphan, has_journals, orphans
from ._fork import has_forked
from ._journal import Journal
from ._journal_find import journal_directories
from ._journal_format import own_directory
from ._journal_place import note_location
from ._kept import without_frames
from ._shared_file import SharedFileHandler
from .errors import LogPathError, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._queue import LineQueue

__all__ = ["FAULTS", "JournallingFileHandler"]

FAULTS = (WriteError, OSError)
_LOOK_EVERY_S = 30.0  # for journals whose writers are gone
_LOOK_FOR_CHILDREN_S = 1.0  # at most so often in a process that has forked
_NEARLY_FULL = 0.7  # of journal_max_bytes


class JournallingFileHandler(SharedFileHandler):
    """
    A log file together with its journals.

    Threads: any.
    """

    if TYPE_CHECKING:  # what the writer has
        queue: LineQueue
        is_owned: bool
        report: Callable[[Exception], None]

        def attempt(
            self, timeout: float, *, until: int | None = None, source: LineQueue | Orphan | None = None
        ) -> None:
            """Write what waits, or what *source* holds, once."""

    def _begin(self) -> None:
        super()._begin()
        self.replayed = 0
        self._opens_journal = 0  # the thread that does
        self._has_told_of_journal = False
        self._looked_s = -_LOOK_EVERY_S

    # -- this writer's

    def stash(self) -> int:
        """
        Put what waits into a journal, because the process ends and the log refuses; return how many are not in it.

        Whoever opens the log next brings it home. Never raises.
        """
        try:
            return self.queue.stash(self._make_journal)
        except FAULTS as error:
            self.faults.remember(str(error))
            return self.queue.qsize()

    def open_journal(self) -> bool:
        """Keep each line in a journal from now on, if the options say so; say whether what they say holds."""
        keeper = self.queue.keeper
        if self.options.durability == "memory":
            return True
        directory = self.journal_directory  # another one, once a link above the log leads elsewhere
        if keeper is not None and keeper.directory == directory and not keeper.is_gone():
            return True
        if self._is_interrupted():
            return False
        self._opens_journal = threading.get_ident()
        try:
            self.queue.keep_each(self._make_journal, directory)
        except FAULTS as error:
            self.queue.keeper, self.queue.journal_error = None, without_frames(error)
            self.faults.remember(str(error))
            return False
        finally:
            self._opens_journal = 0
        self._has_told_of_journal = False
        return True

    def _is_interrupted(self) -> bool:
        """
        Say whether a signal handler logs in the middle of the opening, or of a change of the queue.

        Whoever opens the journal in another thread waits for the end of that change, and we would wait for him.
        """
        return self._opens_journal == threading.get_ident() or self.queue.is_held_here()

    def miss_journal(self) -> None:
        """
        Open the journal again, and store what waits, when a record was not kept and no fault of the disk says why.

        A close in another thread has taken it away in mid-call, or an exception from outside (a soft time limit, a
        full stack) fell into the store. Where the disk refuses, only the listener tries again, now and then.
        """
        error = self.queue.journal_error
        if isinstance(error, LogPathError) or getattr(error, "errno", None) not in {None, errno.EBADF}:
            return
        if not self.open_journal() and self._is_interrupted():
            # And may never go on (os._exit, a kill): what the signal handler logs goes to the log at once.
            with suppress(*FAULTS):
                self.attempt(self.options.caller_timeout)

    def _prepare_segment(self) -> None:
        """Behind a block, when nobody waits for the log's lock: have the journal's next segment ready."""
        if (keeper := self.queue.keeper) is not None:
            keeper.prepare()

    def _look_for_journal(self) -> None:
        if self.queue.keeper is not None:
            self.open_journal()

    def _make_journal(self, writer_id: str) -> Journal:
        try:
            note_location(self.baseFilename, self.options)
        except FAULTS as error:  # who has the same option finds it all the same
            self.faults.remember(str(error))
        return Journal(self.journal_directory, writer_id, self.options, like=self.baseFilename)

    def journal_complaint(self) -> str:
        """Return what it means that no journal can be had: once, until there was one again; else nothing."""
        error = self.queue.journal_error
        if error is None or self._has_told_of_journal:
            return ""
        self._has_told_of_journal = True
        now = (
            "so each call writes its record to the log and syncs it, and one for which that fails is refused"
            if self.is_synced
            else "so a process that is killed loses what it had queued; one that ends normally loses nothing"
        )
        what = "without a journal" if self.is_synced else "acts as 'memory'"
        why = getattr(error, "strerror", None) or error  # without the file's name, which is new each time
        return (
            f"durability={self.options.durability!r} {what} for {self.baseFilename}: there can be none in "
            f"{self.journal_directory} ({why}), {now}"
        )

    def _tell_of_journal(self) -> None:
        if complaint := self.journal_complaint():
            self.faults.remember(complaint)
            self.report(WriteError(complaint))
        keeper, waiting, most = self.queue.keeper, self.queue.qsize(), self.options.journal_max_bytes
        if keeper is not None and waiting and (filled := keeper.filled) > most * _NEARLY_FULL:
            told = (
                f"{self.baseFilename}: {waiting} records wait, and their journal has {filled} of the "
                f"{most} bytes that journal_max_bytes gives it; once it is full, calls write their records themselves"
            )
            if self.faults.note("journal nearly full", told):
                self.report(WriteError(told))

    @property
    def journal_directory(self) -> str:
        """Where our journal is, or would be."""
        return own_directory(self.baseFilename, self.options.journal_directory)

    # -- those of writers that are gone

    def has_journals(self) -> bool:
        """Say whether another writer of this log, living or gone, has a journal."""
        directories = journal_directories(self.baseFilename, self.options.journal_directory)
        return any(has_journals(directory, but=self.queue.writer_id) for directory in directories)

    def tidy_up(self, is_needed: Callable[[], bool], lock_timeout: float | None = None) -> bool:
        """
        See to old files, and now and then to the journals of writers that are gone; see the parent's.

        A process that has forked looks each time, once a second at most: its children's records come home soon after
        they were killed.

        With a *lock_timeout* the journals are looked for at once, and the log's lock is not waited for any longer.
        """
        quiet_s = time.monotonic() - self._looked_s
        is_due = quiet_s >= _LOOK_EVERY_S
        if self.is_owned and lock_timeout is None and (is_due or not (self.queue.keeper or self.queue.journal_error)):
            self.open_journal()  # somebody may have removed or closed it, or the disk has room again
        # The kernel frees a child's lock when it dies, and tells nobody. Waiting for our children, or handling SIGCHLD,
        # would take from the application what is its own.
        if lock_timeout is not None or is_due or (has_forked() and quiet_s >= _LOOK_FOR_CHILDREN_S):
            self._looked_s = time.monotonic()
            self.replay(is_needed, self.options.lock_timeout if lock_timeout is None else lock_timeout)
        return super().tidy_up(is_needed)

    def replay(self, is_over: Callable[[], bool], lock_timeout: float) -> None:
        """
        Bring home the lines of writers that are gone, until *is_over*; what the log refuses stays in their journals.

        Exactly once, also when this process is killed in between, or another one comes for the same journal.
        """
        directories = journal_directories(self.baseFilename, self.options.journal_directory)
        for orphan in itertools.chain.from_iterable(map(self._orphans, directories)):
            try:
                self.bring_home(orphan, is_over, lock_timeout)
                if is_over():
                    return
            except (LogPathError, OSError) as error:  # of this journal, or so quick that the next may try, too
                self._note(error)
            except WriteError as error:
                self._note(error)
                return

    def bring_home(self, orphan: Orphan, is_over: Callable[[], bool], lock_timeout: float) -> None:
        """
        Append what *orphan* holds, a block at a time, until *is_over*, and remove it.

        Raises:
            WriteError: The log did not take all of it; the rest stays in the journal.
            OSError: The same, from the kernel, of the log or of the journal.
        """
        try:
            while orphan.intent is not None or not orphan.empty():
                self.attempt(lock_timeout, until=orphan.consumed + 1, source=orphan)
                if is_over():
                    return
            orphan.remove()
        finally:
            self.replayed += orphan.consumed

    def _orphans(self, directory: str) -> Iterator[Orphan]:
        own = self.queue.journal
        is_here = own is not None and own.directory == directory
        but = self.queue.writer_id if is_here else ""
        return orphans(directory, self.options.file_mode, but=but, is_synced=self.is_synced)
