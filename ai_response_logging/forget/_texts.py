"""
The texts beside a log that only forgotten records named.

Which those are is noted beside the log before the first record goes: a run that is killed in between, or that leaves
one because it was in use, is completed by the next one. Other texts are nobody's business here: a record that names
one may be in a file that was moved elsewhere.

A writer keeps a text first and names it in a record afterwards, under no lock. So each use sets the file's time, and
what was used lately stays, whoever names it; the look and the removal cannot be parted by a use, since the file is
taken out of its place in between.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from .._journal_read import journal_lines
from .._paths import open_regular, sync_directory
from ..blobs import MARK, blob_path
from ..errors import LogReadError
from ..reader import LogSnapshot, lines_of

__all__ = ["IN_USE_S", "named_still", "note", "noted", "remove", "settle"]

IN_USE_S: Final = 600.0
"""Seconds after its last use for which a text stays: far more than from its keeping to its record's arrival."""

_MARK: Final = MARK.encode()
_NAMED: Final = re.compile(_MARK + rb"([0-9a-f]{64})")
_NOTED: Final = re.compile(rb"^([0-9a-f]{64})$", re.MULTILINE)
_ASIDE: Final = ".forgetting"
_NOTE_BYTES: Final = 64 << 20


def _note_of(log: str) -> str:
    return f"{log}.forgetting-texts"


def noted(log: str) -> set[str]:
    """Return the SHA-256 of each text that an earlier run has left to be removed."""
    with suppress(FileNotFoundError), open_regular(_note_of(log), os.O_RDONLY, 0, create=False) as file:
        return {found.decode() for found in _NOTED.findall(file.read(_NOTE_BYTES) or b"")}
    return set()


def note(log: str, digests: Iterable[str]) -> None:
    """
    Note that these texts are to go.

    Durability: Synced, its name included, on return; torn by a kill, its last line counts for nothing.
    """
    with open_regular(_note_of(log), os.O_RDWR, 0o600, like=log) as file:
        os.lseek(file.fileno(), 0, os.SEEK_END)
        file.write(b"\n" + b"".join(b"%b\n" % digest.encode() for digest in sorted(digests)))
        os.fsync(file.fileno())
    sync_directory(_note_of(log))


def settle(log: str) -> None:
    """Remove the note: nothing is left to be done."""
    with suppress(FileNotFoundError):
        os.unlink(_note_of(log))


def named_still(
    log: str,
    wanted: set[str],
    is_going: Callable[[bytes], bool],
    beside: Iterable[str],
    complain: Callable[[str], object],
) -> set[str]:
    """
    Return those of *wanted* that some line still names, whole or damaged, in the log, its journals or *beside* it.

    Args:
        log: The log's base name.
        wanted: SHA-256 of texts.
        is_going: Says of a line that it does not count.
        beside: Other files that may name some.
        complain: Told what could not be read; then nothing is known of any text.
    """
    found: set[str] = set()
    for line in _lines(log, beside, complain):
        if _MARK in line and not is_going(line):
            found.update(wanted.intersection(one.decode() for one in _NAMED.findall(line)))
    return found


def _lines(log: str, beside: Iterable[str], complain: Callable[[str], object]) -> Iterator[bytes]:
    # Journals first: what leaves one meanwhile is in the log that is opened afterwards.
    for journalled in journal_lines(log, lambda file, why: complain(f"{file}: {why}")):
        yield journalled.line
    for name in beside:
        with open_regular(name, os.O_RDONLY, 0, create=False) as file:
            yield file.readall() or b""
    with LogSnapshot(log, missing_ok=True) as snapshot:
        for part in snapshot.files:
            tail = b""
            try:
                with snapshot.open(part) as stream:
                    for _, line in lines_of(stream, part.end):
                        yield tail + line
                        tail = b"" if line.endswith(b"\n") else line[-len(_MARK) - 64 :]
            except (EOFError, OSError, zlib.error) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise LogReadError(part.path, error.strerror or str(error)) from error
                complain(f"{part.path} is damaged ({error}): nothing behind that place was looked at")


def remove(log: str, digest: str, used_before_s: float) -> bool | None:
    """
    Remove the text *digest* unless it was used since; return whether it was removed, None if it is not there.

    Killed in between, it is out of its place, and the next run puts it back and looks again.
    """
    path = blob_path(log, digest)
    aside = f"{path}{_ASIDE}"
    if os.path.lexists(aside):
        # Left by a kill. Whoever used the text since has written it anew.
        os.unlink(aside) if os.path.lexists(path) else os.rename(aside, path)
    try:
        if os.lstat(path).st_mtime >= used_before_s:
            return False
        os.rename(path, aside)
    except FileNotFoundError:
        return None
    if os.lstat(aside).st_mtime >= used_before_s:
        os.rename(aside, path)
        return False
    os.unlink(aside)
    sync_directory(path)
    return True
