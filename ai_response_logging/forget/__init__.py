"""
Take a person's records out of a log, as a deletion request wants it, and leave receipts.

Every file of the log is looked through: the live one, rotated and sealed ones, plain or compressed, what killed writers
left in journals, and torn lines that were set aside. Living writers go on meanwhile, and lose nothing.

Where records were taken out, a receipt stays: a line that names the numbers that are gone, so that ``verify`` can tell
them from a loss, and nothing of what they said. It excuses those numbers and no others.

Killed at any step, each file is what it was or what it is to be; running it again completes it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from .. import _lock
from .._paths import open_regular
from .._receipt import Forgotten, receipt_line
from ..blobs import blob_path
from ..errors import LockTimeoutError, LogReadError, WriteError
from ..reader import LogSnapshot, StrPath, lines_of, parse_line
from ..record import CHECKSUM_MARK, checksum, default_log_path, logged_at, new_writer_id
from . import _texts
from ._journals import Residue, bring_home, residues, unsettled, waiting
from ._rewrite import PART, Changed, rewrite
from ._selector import Choice, Selector

__all__ = ["ForgetReport", "Selector", "forget"]

_ROUNDS: Final = 200
_PAUSE_S: Final = 0.1
_LOCK_TIMEOUT_S: Final = 10.0
_PROGRESS_LINES: Final = 512
_TORN_BYTES: Final = 64 << 20


@dataclass(slots=True)
class ForgetReport:
    """
    What :func:`forget` did, or would do.

    Attributes:
        is_dry_run: Nothing was changed.
        files: How many lines were taken out of which file of the log.
        in_journals: The same for journals, in a dry run; else what did not come home in time.
        torn: Torn lines that were set aside and belonged to such a record; removed.
        texts: Files of large texts that only such records named; removed.
        unknown_torn: Torn lines of which nobody can tell whose they are; they stay.
        mentions: How many lines that stay have the value somewhere in their texts, by file.
        damaged: Damaged lines that have the value in them, as file, line and offset; they stay.
        residues: Files of living writers' journals in which bytes of such records stand until they end.
        complaints: What kept something from being done or looked at.
    """

    is_dry_run: bool
    files: Counter[str] = field(default_factory=Counter)
    in_journals: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    unknown_torn: list[str] = field(default_factory=list)
    mentions: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[str, int, int]] = field(default_factory=list)
    residues: list[Residue] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def records(self) -> int:
        """How many lines in all, torn ones aside."""
        return sum(self.files.values()) + (sum(self.in_journals.values()) if self.is_dry_run else 0)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that a person has to see to."""
        if self.is_dry_run:
            return not self.damaged and not self.complaints
        return not (self.in_journals or self.damaged or self.residues or self.complaints)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as ``ai-responses forget --json`` prints it."""
        return {
            "dry_run": self.is_dry_run, "complete": self.is_complete, "records": self.records,
            "files": dict(self.files), "in_journals": dict(self.in_journals), "torn": self.torn,
            "texts": self.texts, "unknown_torn": self.unknown_torn, "mentions": dict(self.mentions),
            "damaged": [{"file": file, "line": line, "offset": offset} for file, line, offset in self.damaged],
            "residues": [one._asdict() for one in self.residues], "complaints": self.complaints,
        }  # fmt: skip


def forget(
    path: StrPath | None = None,
    selector: Selector | None = None,
    *,
    dry_run: bool = False,
    wait_s: float = 15.0,
    on_progress: Callable[[int, int], object] | None = None,
) -> ForgetReport:
    """
    Take the records that *selector* means, and other events of their calls, out of the log at *path*.

    What is logged while it runs may be taken out, too, or may stay.

    Args:
        path: The log's base name; without it ``AI_RESPONSES_FILE``, then the default place.
        selector: Which records.
        dry_run: Change nothing, and count.
        wait_s: Seconds to wait for records that living writers still have in their journals, and for files that
            others are changing.
        on_progress: Called now and then with the bytes read and the bytes there are.

    Raises:
        ConfigError: No selector.
        LogReadError: There is no such log, or one of its files cannot be read.
        WriteError: Another run is at work, or what killed processes left does not come home; nothing has been done.

    Durability: Each file and its name are synced before the next. What is freed is not overwritten.
    Threads: Any, in any number of processes; the second to come is refused. Writers are held up only while a finished
    copy is put in its place.

    .. versionadded:: 0.1.0
    """
    path, chosen = default_log_path(path), selector or Selector()
    job = _Job(path, Choice(chosen), ForgetReport(is_dry_run=dry_run), on_progress or _ignore)
    if dry_run:
        job.look()
        return job.report
    with _alone(path):
        job.run(time.monotonic() + wait_s)
    return job.report


def _is_whole(line: bytes) -> bool:
    """Say whether *line* is one object; most are told by their checksum, which is quicker than a parser."""
    body, mark, said = line.rpartition(CHECKSUM_MARK)
    if mark and said[:8] == checksum(body):
        return True
    try:
        parse_line(line)
    except ValueError:
        return False
    return True


def _ignore(*_: object) -> None:
    """Show no progress."""


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Be the only run on this log."""
    name = f"{path}.forgetting"
    with open_regular(name, os.O_RDWR, 0o600, like=path) as guard:
        if not _lock.try_acquire(guard) or _lock.is_replaced(guard, name):
            raise LockTimeoutError(path, 0.0, f"another forget, {_lock.holder_of(guard)}", "let it end")
        try:
            yield
        finally:
            os.unlink(name)


class _Job:
    """One run."""

    def __init__(
        self, path: str, choice: Choice, report: ForgetReport, on_progress: Callable[[int, int], object]
    ) -> None:
        self.path = path
        self.choice = choice
        self.report = report
        self._on_progress = on_progress
        self._began_s = time.time()
        self._writer_id = new_writer_id()
        self._receipts = 0
        self._reasons: dict[str, str] = {}
        self._noted: set[str] = set()

    # -- looking

    def look(self) -> None:
        """Count what is there."""
        journalled = waiting(self.path, self.choice, self._complain, self._began_s)
        self.report.files = self._scan(is_journalled=bool(journalled))
        for file in journalled.values():
            self.report.in_journals[file] += 1
        for name in self._torn():
            self._judge_torn(name)
        going = self._unnamed(_texts.noted(self.path) | self.choice.texts, lambda line: bool(self.choice.drops(line)))
        paths = (blob_path(self.path, digest) for digest in sorted(going))
        self.report.texts = [path for path in paths if os.path.lexists(path)]

    def _complain(self, what: str) -> None:
        if what not in self.report.complaints:
            self.report.complaints.append(what)

    def _scan(self, *, is_journalled: bool, before_s: float = float("inf")) -> Counter[str]:
        """Return how many lines of which file are to go, of those that were logged before a moment."""
        while True:
            known = len(self.choice.call_ids)
            found: Counter[str] = Counter()
            self.report.mentions, self.report.damaged = Counter(), []
            with LogSnapshot(self.path, missing_ok=is_journalled) as snapshot:
                done = 0
                for file in snapshot.files:
                    with snapshot.open(file) as stream:
                        lines = self._told(lines_of(stream, file.end), done, file.size, snapshot.size)
                        self._scan_file(file.path, lines, found, before_s)
                    done += file.size
            # Of a call that is known by its response, the start came before it: then all is looked at once more.
            if len(self.choice.call_ids) == known:
                return +found

    def _told(
        self, lines: Iterator[tuple[int, bytes]], done: int, size: int, total: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield *lines*, and tell now and then how far they are."""
        for number, (offset, line) in enumerate(lines):
            if number % _PROGRESS_LINES == 0:
                self._on_progress(done + min(offset, size), total)
            yield offset, line

    def _scan_file(self, name: str, lines: Iterator[tuple[int, bytes]], found: Counter[str], before_s: float) -> None:
        try:
            for number, (offset, line) in enumerate(lines, 1):
                record = self.choice.drops(line)
                if record is not None:
                    self.choice.take_in(record)
                    found[name] += (logged_at(line) or 0.0) < before_s
                elif not _is_whole(line) and self.choice.names(line):
                    self.report.damaged.append((name, number, offset))
                elif self.choice.mentions(line):
                    self.report.mentions[name] += 1
        except (EOFError, OSError) as error:
            # A compressed file that is damaged, or a disk that is: what can be read of it has been.
            if isinstance(error, OSError) and error.errno is not None:
                raise LogReadError(name, error.strerror or str(error)) from error
            self._complain(f"{name} is damaged ({error}): nothing behind that place was looked at")

    # -- doing

    def run(self, deadline_s: float) -> None:
        """
        Take out what there is, and what comes home until *deadline_s*.

        Raises:
            WriteError: What killed processes left does not come home.
        """
        self._remove_parts()
        self._noted = _texts.noted(self.path)
        for _ in range(_ROUNDS):
            bring_home(self.path, _LOCK_TIMEOUT_S)
            journalled = waiting(self.path, self.choice, self._complain, self._began_s)
            found = self._scan(is_journalled=bool(journalled))
            for name in self._torn():
                self._judge_torn(name, remove=True)
            self._note_texts()
            tried = [self._take_out(file) for file in found]
            self.report.in_journals = Counter(journalled.values())
            if (all(tried) and not journalled) or time.monotonic() > deadline_s:
                break
            time.sleep(_PAUSE_S)
        for file, count in self._scan(is_journalled=bool(journalled), before_s=self._began_s).items():
            why = self._reasons.get(file) or "others kept changing the file"
            self._complain(f"{file}: {count:,} of them stay, since {why}; run this again")
        self._note_texts()  # those of lines that came in the middle
        self.report.residues = residues(self.path, self.choice, self._complain)
        self._remove_texts()

    def _take_out(self, file: str) -> bool:
        """Write one file anew; False if it is to be tried again."""
        try:
            taken = rewrite(
                self.path, file, self.choice, self._receipt,
                unsettled=lambda: unsettled(self.path), lock_timeout=_LOCK_TIMEOUT_S,
            )  # fmt: skip
        except Changed as changed:
            self._reasons[file] = str(changed)
            return False
        except (WriteError, OSError) as error:
            self._complain(f"{file}: {error}")
            return True
        self._receipts += 1
        self.report.files[file] += taken.total
        return True

    def _receipt(self, forgotten: Forgotten) -> bytes:
        return receipt_line(forgotten, list(self.choice.selector.wanted), self._writer_id, self._receipts)

    # -- large texts

    def _note_texts(self) -> None:
        """Note beside the log which texts may have to go, before the records go that say so."""
        if fresh := self.choice.texts - self._noted:
            _texts.note(self.path, fresh)
            self._noted |= fresh

    def _unnamed(self, wanted: set[str], is_going: Callable[[bytes], bool]) -> set[str]:
        """Return those of the texts that no record names any more; none where that cannot be told."""
        if not wanted:
            return set()
        unread: list[str] = []
        named = _texts.named_still(self.path, wanted, is_going, self._torn(), unread.append)
        for what in unread:
            self._complain(what)
        return set() if unread else wanted - named

    def _remove_texts(self) -> None:
        """Remove the files of the texts that only forgotten records named."""
        if not self._noted:
            return
        if self.report.complaints:  # of records that stay, or could not be read: nothing is sure
            return
        try:
            for digest in sorted(self._unnamed(self._noted, lambda _: False)):
                path = blob_path(self.path, digest)
                is_removed = _texts.remove(self.path, digest, self._began_s - _texts.IN_USE_S)
                if is_removed:
                    self.report.texts.append(path)
                elif is_removed is False:
                    minutes = int(_texts.IN_USE_S / 60)
                    self._complain(f"{path}: a text that was used in the last {minutes} minutes; run this again later")
        except (WriteError, OSError) as error:
            self._complain(f"the large texts: {error}")
        if not self.report.complaints:
            _texts.settle(self.path)

    # -- what lies beside the log

    def _beside(self) -> Iterator[str]:
        directory, base = os.path.split(self.path)
        for name in sorted(os.listdir(directory)):
            if name.startswith(f"{base}."):
                yield os.path.join(directory, name)

    def _remove_parts(self) -> None:
        """Remove copies that a killed run, or a killed compression, has left over; they count for nobody."""
        for file in self._beside():
            if file.endswith(PART):
                os.unlink(file)
            elif file.endswith(".gz.part"):
                # That compression may just have ended.
                with suppress(FileNotFoundError), open_regular(file, os.O_RDWR, 0, create=False) as part:
                    if _lock.try_acquire(part) and not _lock.is_replaced(part, file):
                        os.unlink(file)

    def _torn(self) -> list[str]:
        return [file for file in self._beside() if file.startswith(f"{self.path}.torn-")]

    def _judge_torn(self, file: str, *, remove: bool = False) -> None:
        """Remove a torn line that was set aside if it belongs to a record that goes; note one that nobody can tell."""
        try:
            with open_regular(file, os.O_RDONLY, 0, create=False) as torn:
                data = torn.read(_TORN_BYTES) or b""
            if not self.choice.names(data):
                if file not in self.report.unknown_torn and self._is_nameless(data):
                    self.report.unknown_torn.append(file)
                return
            if file not in self.report.torn:
                self.report.torn.append(file)
            if remove:
                os.unlink(file)
        except (WriteError, OSError) as error:
            self._complain(f"{file}: {error}")

    def _is_nameless(self, data: bytes) -> bool:
        """Say whether a piece of a line does not come so far that it would name whose it is."""
        return not any(b'"%b":' % name.encode() in data for name in self.choice.selector.wanted)
