"""
Find the journals of a log, and what stands in their files.

For writers that adopt them and for readers alike. It takes no lock and opens files for reading only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._journal_format import journal_directory, location_file, own_directory
from ._paths import describe_owner, open_regular
from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["content", "journal_directories", "names_in", "why_not"]

_LOCATIONS_BYTES: Final = 1 << 16


def journal_directories(
    path: str, elsewhere: str | None = None, on_unread: Callable[[str, str], object] | None = None
) -> list[str]:
    """Return all directories in which journals of the log at *path* may be: one's own, the log's, and those noted."""
    noted, location = b"", location_file(path)
    try:
        with open_regular(location, os.O_RDONLY, 0, create=False) as file:
            noted = file.read(_LOCATIONS_BYTES) or b""
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, LogPathError) as error:
        if on_unread is not None:
            on_unread(location, why_not(location, error))
    places = [os.fsdecode(line) for line in noted.splitlines()]
    own = [own_directory(path, elsewhere), journal_directory(path)]
    return list(dict.fromkeys(own + [place for place in places if os.path.isabs(place)]))


def names_in(directory: str) -> list[str]:
    """
    Return the names in *directory*; none if it is not there, or is a link to another.

    Raises:
        OSError: It may not be read.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        if not os.path.islink(directory):
            return os.listdir(directory)
    return []


def content(path: str) -> bytes:
    """Return what is in the regular file at *path*."""
    with open_regular(path, os.O_RDONLY, 0, create=False) as file:
        return file.readall()


def why_not(path: str, error: OSError | LogPathError) -> str:
    """Return why what stands at *path*, part of a journal, cannot be read, and what now."""
    if isinstance(error, LogPathError):
        return f"it is {error.found}, not a regular file; the records of this journal are not seen: move it away"
    owner = describe_owner(path)
    now = f" ({owner}): run this as its owner" if owner and isinstance(error, PermissionError) else ""
    return f"{error.strerror or error}, so records that may be in this journal are not seen{now}"
