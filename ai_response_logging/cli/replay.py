"""``ai-responses replay``: bring home what killed processes left in their journals."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import typer

from ._console import EXIT_NOT_WELL, FileOption, JsonOption, plain, print_json, print_line, print_wrapped, progress_bar

if TYPE_CHECKING:
    from .._adopt import Left, Orphan
    from ..writer import BatchFileHandler

__all__ = ["replay"]

_SEGMENT_BYTES: Final = 1 << 20  # as what the bar counts each file of a journal
_SHOWN: Final = 20
_SAFE: Final = "they are safe there; run this again when that is mended"


def replay(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """
    Bring the records of killed processes home now.

    What a process had accepted when it was killed is in its journal, and comes home when a program opens the log
    again; this does it now, each record once. Safe beside living writers, whose journals are theirs, beside another
    replay, and if it is killed itself. Exit code 1 if a journal stayed that is nobody's, or may not be opened.

    Example: ai-responses replay --file data/ai_responses/ai_responses.jsonl
    """
    from ..record import default_log_path

    with progress_bar("replay") as on_progress:
        run = _Replay(default_log_path(file), on_progress)
        run.bring_home()
    if as_json:
        print_json(run.to_dict())
    else:
        run.print()
    if any(one.why != "held" for one in run.stayed):
        raise typer.Exit(EXIT_NOT_WELL)


@dataclass(frozen=True, slots=True)
class _Stayed:
    """
    A journal, or a place where journals may be, that is as it was.

    *why*: ``held`` by its writer or another replay, ``unread`` because it may not be, ``refused`` by the log.
    """

    path: str
    why: str
    records: int | None
    detail: str


class _Replay:
    """One look at all journals of one log."""

    def __init__(self, path: str, on_progress: Callable[[int, int], None]) -> None:
        self.path = path
        self._on_progress = on_progress
        self._done = self._total = 0  # files of journals
        self.records: Counter[str] = Counter()  # that came home, by directory
        self.writers = 0
        self.stayed: list[_Stayed] = []
        self._log: BatchFileHandler | None = None
        self._refusal: Exception | None = None

    def bring_home(self) -> None:
        """
        Bring home what is orphaned.

        Raises:
            LogReadError: There is no such log.
        """
        from .._adopt import orphans
        from .._journal_find import journal_directories, names_in, why_not
        from .._journal_format import segments_among, writers_among
        from ..reader import LogSnapshot

        places: list[str] = []
        for directory in journal_directories(self.path, on_unread=self._not_read):
            try:
                writer_ids = writers_among(names := names_in(directory))
            except OSError as error:
                self._not_read(directory, why_not(directory, error))
                continue
            places += [directory] if writer_ids else []
            self._total += sum(len(segments_among(names, writer_id)) for writer_id in writer_ids)
        if not places and not self.stayed:
            LogSnapshot(self.path).close()  # says so if there is no such log
        try:
            for directory in places:
                for orphan in orphans(directory, self._file_mode(), self._leave):
                    self._take(orphan)
        finally:
            if self._log is not None:
                self._log.close()

    def _file_mode(self) -> int:
        """Return the mode of files that must be made anew: the log's."""
        try:
            return stat.S_IMODE(os.stat(self.path).st_mode) & 0o666 | 0o600
        except OSError:
            return 0o600

    def _take(self, orphan: Orphan) -> None:
        """Bring one journal home, or say why it stays."""
        from ..errors import LogPathError, WriteError

        begun = orphan.segments

        def is_over() -> bool:
            self._on_progress((self._done + begun - orphan.segments) * _SEGMENT_BYTES, self._total * _SEGMENT_BYTES)
            return False

        error: Exception | None = self._refusal
        try:
            if error is None:
                log = self._opened()
                log.bring_home(orphan, is_over, log.options.lock_timeout)
        except (LogPathError, OSError) as fault:  # of this journal, or so quick that the next may try, too
            error = fault
        except WriteError as fault:
            error = self._refusal = fault
        self._done += begun
        self.records[orphan.directory] += orphan.consumed
        self.writers += orphan.consumed > 0
        if error is not None:
            self._keep(orphan, error)

    def _opened(self) -> BatchFileHandler:
        """Return what writes to the log; made for the first orphan, so that who finds none needs no rights."""
        from .._paths import describe_refusal
        from ..errors import WriteError
        from ..writer import BatchFileHandler

        if self._log is None:
            try:
                # What it holds in memory are lines of journals, so it needs none of its own.
                self._log = BatchFileHandler(self.path, durability="memory", file_mode=self._file_mode())
            except OSError as error:
                raise WriteError(f"{error}{describe_refusal(self.path)}") from error
            self._log.report = lambda _error: None  # we say it ourselves
        return self._log

    def _keep(self, orphan: Orphan, error: Exception) -> None:
        """Note that a journal stays because of *error*."""
        from .._journal_find import why_not
        from ..errors import LogPathError

        path = os.path.join(orphan.directory, orphan.writer_id)
        place = getattr(error, "filename", None) or getattr(error, "path", "")
        if isinstance(error, LogPathError | OSError) and isinstance(place, str) and place.startswith(path):
            self.stayed.append(_Stayed(path, "unread", None, f"{place}: {why_not(place, error)}"))
            return
        try:
            records = orphan.give_up()
        except (LogPathError, OSError):
            records = None
        self.stayed.append(_Stayed(path, "refused", records, str(error)))

    def _leave(self, left: Left) -> None:
        """Note a journal that somebody holds, or that may not be opened."""
        from .._journal_find import why_not
        from .._journal_format import lock_name

        path = os.path.join(left.directory, left.writer_id)
        if left.error is None:
            self.stayed.append(_Stayed(path, "held", None, left.holder))
        else:
            self._not_read(path, why_not(os.path.join(left.directory, lock_name(left.writer_id)), left.error))

    def _not_read(self, path: str, reason: str) -> None:
        self.stayed.append(_Stayed(path, "unread", None, reason))

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "log": self.path,
            "records": self.records.total(),
            "writers": self.writers,
            "directories": dict(+self.records),
            "stayed": [asdict(one) for one in self.stayed],
        }

    def print(self) -> None:
        """Print what came home, and what stayed and why."""
        if self.records.total():
            print_line(f"{_many(self.records.total(), 'record')} of {_many(self.writers, 'writer')} came home, from")
            for directory in +self.records:
                print_line(f"  {plain(directory)}")
        elif all(one.why == "held" for one in self.stayed):
            print_line(f"nothing to bring home: no journal of {plain(self.path)} is orphaned")
        for one in self.stayed[:_SHOWN]:
            print_wrapped(plain(_told(one)))
        if len(self.stayed) > _SHOWN:
            print_line(f"and {len(self.stayed) - _SHOWN:,} more stayed: --json lists them")


def _told(one: _Stayed) -> str:
    if one.why == "held":
        return f"left alone: {one.path} is held by {one.detail or 'a process'}: its writer, or another replay"
    if one.why == "unread":
        return f"STAYED: {one.path}: {one.detail}"
    what = "its records stay" if one.records is None else f"{_many(one.records, 'record')} stay"
    return f"STAYED: {one.path}: {what}, since the log refuses: {one.detail}; {_SAFE}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
