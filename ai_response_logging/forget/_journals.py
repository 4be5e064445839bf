"""
The journals of a log, as far as they hold what is to be forgotten.

Those of writers that are gone are brought home first. That of a living writer is his: its lines come home by
themselves within his ``flush_interval``, and are waited for. What has arrived stays as bytes in space that he uses
again, which no reader shows and nobody else may touch; it goes when he ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from .. import _lock
from .._adopt import has_journals
from .._journal_files import let_go, open_lock
from .._journal_find import content, journal_directories, names_in
from .._journal_format import find_mark, lock_name, mark_name, writers_among
from .._journal_read import journal_lines
from ..errors import LogPathError, WriteError
from ..record import logged_at
from ..writer import BatchFileHandler
from ._selector import Choice

__all__ = ["Residue", "bring_home", "residues", "unsettled", "waiting"]


class Residue(NamedTuple):
    """A file of a living writer's journal in which bytes of forgotten records stand, though no reader shows them."""

    file: str
    holder: str
    records: int


def bring_home(path: str, lock_timeout: float) -> None:
    """
    Bring home what killed processes left in journals of the log at *path*.

    Raises:
        WriteError: The log refused, so what is to be forgotten may still be in a journal.
        OSError: The same.
    """
    if not any(map(has_journals, journal_directories(path))):
        return  # nor is a log made where there is none
    file_mode = 0o600
    with suppress(OSError):
        file_mode |= os.stat(path).st_mode & 0o666
    log = BatchFileHandler(path, durability="memory", lock_timeout=lock_timeout, file_mode=file_mode)
    faults: list[Exception] = []
    log.report = faults.append
    try:
        log.replay(lambda: False, lock_timeout)
    finally:
        log.close()
    if faults:
        raise WriteError(f"what killed processes left in journals does not come home, so nothing was done: {faults[0]}")


def _places(path: str, complain: Callable[[str], object]) -> Iterator[tuple[str, list[str], str]]:
    """Yield the directory, its names and the writer of each journal."""
    for directory in journal_directories(path, on_unread=lambda file, why: complain(f"{file}: {why}")):
        try:
            names = names_in(directory)
        except OSError as error:
            complain(f"{directory}: {error.strerror or error}")
            continue
        for writer_id in writers_among(names):
            yield directory, names, writer_id


def unsettled(path: str) -> str:
    """
    Return which journal notes an append that is not settled, and whose it is; nothing if none does.

    Asked under the log's locks: then no append is at work, and an intent that stands there is one of a writer that was
    killed or interrupted in the middle. Where its bytes stand in the log is all that tells which of its lines have
    arrived, so until it is settled no byte of the log may move.
    """
    complaints: list[str] = []
    for directory, _, writer_id in _places(path, complaints.append):
        mark = os.path.join(directory, mark_name(writer_id))
        try:
            if find_mark(content(mark)).intent is not None:
                return f"{mark} ({_holder(directory, writer_id) or 'of a process that is gone'})"
        except FileNotFoundError:
            continue
        except (OSError, LogPathError) as error:
            return f"{mark} ({error})"
    return complaints[0] if complaints else ""


def waiting(
    path: str, choice: Choice, complain: Callable[[str], object], before_s: float
) -> dict[tuple[str, int], str]:
    """Return which records to be forgotten are in journals, of those logged before: writer and number, and the file."""
    found: dict[tuple[str, int], str] = {}
    for line in journal_lines(path, lambda file, why: complain(f"{file}: {why}")):
        record = choice.drops(line.line)
        if record is not None and (logged_at(line.line) or 0.0) < before_s:
            choice.take_in(record)
            found[line.writer_id, line.seq] = line.file
    return found


def residues(path: str, choice: Choice, complain: Callable[[str], object]) -> list[Residue]:
    """Return the files of journals in which bytes of records that are to be forgotten stand, whoever shows them."""
    found: list[Residue] = []
    for directory, names, writer_id in _places(path, complain):
        holder = ""
        for name in sorted(one for one in names if one.startswith(f"{writer_id}.") and one.endswith(".jsonl")):
            file = os.path.join(directory, name)
            try:
                pieces = content(file).replace(b"\0", b"\n").split(b"\n")
            except FileNotFoundError:
                continue
            except (OSError, LogPathError) as error:
                complain(f"{file}: {error}")
                continue
            count = sum(bool(piece) and (choice.names(piece) or choice.drops(piece) is not None) for piece in pieces)
            if count:
                holder = holder or _holder(directory, writer_id)
                found.append(Residue(file, holder or "a process that has just ended", count))
    return found


def _holder(directory: str, writer_id: str) -> str:
    """Return who holds a journal, as far as the machine tells; nothing if nobody does."""
    lock = None
    with suppress(OSError, LogPathError):
        lock = open_lock(os.path.join(directory, lock_name(writer_id)), 0o600, create=False)
        if not _lock.try_acquire(lock):
            who = _lock.holder_of(lock) or "a process"
            let_go(lock)
            return who
    let_go(lock)
    return ""
