"""Where a writer's journal is made: its directory, its liveness lock, and the note beside the log that leads there."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from . import _append, _lock
from ._journal_files import open_lock
from ._journal_find import journal_directories
from ._journal_format import journal_directory, location_file, lock_name, own_directory
from ._paths import OwnFile, describe_file_type, make_directory, open_regular, sync_directory
from ._retry import naps
from .errors import LogPathError

if TYPE_CHECKING:
    from ._options import Options

__all__ = ["new_lock", "note_location"]

_LOCK_BUDGET_S: Final = 1.0  # an adopter that came first sees in far less that there is nothing in it yet


def note_location(path: str, options: Options) -> None:
    """
    Note beside the log at *path* where the options say that our journals are, so that others bring them home, too.

    Raises:
        OSError: It could not be noted: only who has the same ``journal_directory`` will find them.
    """
    place = own_directory(path, options.journal_directory)
    if place == journal_directory(path) or place in journal_directories(path)[1:]:
        return
    _make_directory(journal_directory(path), options, like=path)
    with open_regular(location_file(path), os.O_RDWR | os.O_APPEND, options.file_mode, like=path) as file:
        # A line of its own also behind one that a kill cut off; one write, so that others' do not come in between.
        os.write(file.fileno(), b"\n" + os.fsencode(place) + b"\n")
        if options.durability == "power":
            _append.sync_file(file.fileno())
            sync_directory(location_file(path))


def _make_directory(directory: str, options: Options, like: str) -> None:
    made = make_directory(directory, options.directory_mode, like)
    if options.durability == "power":
        for one in made or [directory]:  # whoever made it before us may not have synced it
            sync_directory(one)


def new_lock(directory: str, writer_id: str, options: Options, like: str) -> OwnFile:
    """Make and take a writer's liveness lock; a directory that is made for it belongs to the owner of *like*."""
    path = os.path.join(directory, lock_name(writer_id))
    for nap in naps(_LOCK_BUDGET_S):
        _make_directory(directory, options, like)
        if (kind := describe_file_type(directory)) not in {"a directory", ""}:
            raise LogPathError(directory, kind)
        # Somebody who took the last journal home may have removed the directory since.
        with suppress(FileNotFoundError):
            lock = open_lock(path, options.file_mode, create=True, like=directory)
            # Between its making and our locking it somebody may have taken it for an orphan, and remove it.
            if _lock.try_acquire(lock) and not _lock.is_replaced(lock, path):
                return lock
            lock.close()
        time.sleep(nap)
    raise OSError(errno.EAGAIN, "the journal was taken away again and again while it was made", path)
