"""
Texts too large for a line: kept beside the log, once each, under the hash of what is in them.

A picture in base64 or a book in a prompt would make one line of many megabytes, which nothing reads well. In the line
stands ``blob:sha256:<hash>`` in its place, and ``blobs`` says which of the line's values these are; the text itself is
the file ``<filename>.blobs/sha256/<first two digits>/<hash>``, UTF-8, exactly as it was given. The same text given a
thousand times is one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BufferedReader
from typing import Any, Final

from ._append import sync_file
from ._paths import make_directory, open_regular, sync_directory
from ._whole_file import WholeFile
from .errors import LogPathError, LogReadError

__all__ = ["MARK", "BlobStore", "blob_path", "bring_back", "directory_of", "fault_of", "named_in", "set_apart"]

MARK: Final = "blob:sha256:"
_SMALLEST: Final = 32 * 1024  # bytes of a text that is worth a file of its own
_CHUNK_BYTES: Final = 1 << 20
_DIGITS: Final = frozenset("0123456789abcdef")
_DIGEST_DIGITS: Final = 64
_OTHER: Final = "it is not the text that was kept here: its SHA-256 is another one"

Path = tuple[str | int, ...]


def directory_of(log: str) -> str:
    """Return where the texts of *log* are."""
    return f"{log}.blobs"


def blob_path(log: str, digest: str) -> str:
    """Return the file of the text whose SHA-256 is *digest*."""
    return os.path.join(directory_of(log), "sha256", digest[:2], digest)


class BlobStore:
    """
    Writes texts beside one log.

    Args:
        log: The log's base name.
        file_mode: Permissions of the files.
        directory_mode: The same of the directories.
        is_synced: Whether a text is on the disk when :meth:`keep` returns, its name included. Without that it
            survives the end of the process, however it ends, and not a loss of power.

    Threads and processes: any; who is second finds the file there.
    """

    def __init__(self, log: str, *, file_mode: int, directory_mode: int, is_synced: bool) -> None:
        self._log, self._file_mode, self._directory_mode = log, file_mode, directory_mode
        self._is_synced = is_synced

    def keep(self, text: bytes) -> str:
        """
        Keep *text*; return its SHA-256 in hexadecimal digits.

        Raises:
            OSError: It could not be kept; nothing half-written stands under its name.
        """
        digest = _digest_of(text)
        path = blob_path(self._log, digest)
        make_directory(os.path.dirname(path), self._directory_mode, self._log)
        if not self._is_used_again(path, text):
            self._write(path, text)
        if self._is_synced:
            # Also where another process made it: that one may not have synced it yet, and this call's caller will
            # take its record for durable.
            self._sync(path)
        return digest

    def _is_used_again(self, path: str, text: bytes) -> bool:
        """
        Say whether *text* stands there whole, and note in its time that a record is about to name it.

        After a loss of power a file may be empty, short or full of zeros. And `forget` leaves alone what was used a
        moment ago: this record is nowhere yet where it could see that the text is still needed.
        """
        # Also where the time may not be set: then it is written anew.
        with suppress(OSError, LogPathError), open_regular(path, os.O_RDONLY, 0, create=False) as file:
            if os.fstat(file.fileno()).st_size == len(text) and _holds(file.fileno(), text):
                os.utime(path, follow_symlinks=False)
                return True
        return False

    def _write(self, path: str, text: bytes) -> None:
        with WholeFile(path, mode=self._file_mode, like=self._log) as file:
            file.write(text)
            if self._is_synced:
                file.sync()
            file.take_name()

    def _sync(self, path: str) -> None:
        with open_regular(path, os.O_RDONLY, 0, create=False) as file:
            sync_file(file.fileno())
        name = path
        while name != self._log and len(name) > len(self._log):  # its name, and those of the directories above it
            sync_directory(name)
            name = os.path.dirname(name)


def _digest_of(text: bytes) -> str:
    import hashlib  # milliseconds that only those pay who have large texts

    return hashlib.sha256(text).hexdigest()


def _holds(descriptor: int, text: bytes) -> bool:
    """Say whether the file holds *text*: reading it is quicker than writing it once more."""
    left = memoryview(text)
    while left:
        found = os.read(descriptor, min(len(left), _CHUNK_BYTES))
        if not found or found != left[: len(found)]:
            return False
        left = left[len(found) :]
    return True


def set_apart(fields: dict[str, Any], most_bytes: int, size: int, keep: Callable[[bytes], str]) -> list[dict[str, Any]]:
    """
    Put the largest texts of *fields* elsewhere until what stays has at most *most_bytes*; return which these are.

    Args:
        fields: Plain JSON values that nobody else has; texts in it are replaced.
        most_bytes: Of the line.
        size: What the line has now.
        keep: Called with each text that goes, in UTF-8; returns its SHA-256. What it raises leaves that text in its
            place: a line that is too large is better than none.

    Returns:
        One entry for each text that went: ``path`` (its keys and indices), ``sha256`` and ``bytes``.
    """
    entries: list[dict[str, Any]] = []
    for length, path, container, key in sorted(_texts(fields), key=lambda found: found[0], reverse=True):
        if size <= most_bytes:
            break
        with suppress(Exception):
            digest = keep(container[key].encode())
            container[key] = f"{MARK}{digest}"
            entries.append({"path": list(path), "sha256": digest, "bytes": length})
            size -= length
    return entries


def _texts(fields: dict[str, Any]) -> Iterator[tuple[int, Path, Any, Any]]:
    """Yield each large text: its bytes, its path, and where it stands; no recursion: the stack may be full."""
    waiting: list[tuple[Any, Path]] = [(fields, ())]
    while waiting:
        container, path = waiting.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, (dict, list)):
                waiting.append((value, (*path, key)))
            elif isinstance(value, str) and len(value) * 4 >= _SMALLEST:
                length = len(value.encode())
                if length >= _SMALLEST:
                    yield length, (*path, key), container, key


def named_in(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the SHA-256 of each text that *record*, of any shape, has beside its log."""
    entries = record.get("blobs")
    for entry in entries if isinstance(entries, list) else ():
        place: Any = record
        with suppress(TypeError, KeyError, IndexError, AttributeError):  # not written by us, or changed since
            for key in (path := entry["path"]):
                place = place[key]
            digest = entry["sha256"]
            if path and _is_digest(digest) and place == f"{MARK}{digest}":
                yield digest


def bring_back(record: Mapping[str, Any], log: str, on_fault: Callable[[str], object] | None = None) -> dict[str, Any]:
    """
    Return *record* with its large texts in their places, as it was logged; what is not there any more stays a mark.

    Args:
        record: As a reader gives it; it is not changed.
        log: The log's base name.
        on_fault: Called with a sentence about each text that is missing, damaged or may not be read; then nothing is
            raised, and that one stays a mark.

    Raises:
        LogReadError: A text is there and may not be read, or is another than was kept.

    .. versionadded:: 0.1.0
    """
    entries = record.get("blobs")
    if not isinstance(entries, list):
        return dict(record)
    whole = {key: value for key, value in record.items() if key != "blobs"}
    missing = [entry for entry in entries if not _bring_one_back(whole, entry, log, on_fault)]
    if missing:
        whole["blobs"] = missing
    return whole


def _bring_one_back(record: dict[str, Any], entry: Any, log: str, on_fault: Callable[[str], object] | None) -> bool:
    try:
        path, digest = [*entry["path"]], entry["sha256"]
        if not _is_digest(digest) or not path:
            return False
        # What is changed on the way is copied first: the record is its owner's.
        place: Any = record
        for key in path[:-1]:
            place[key] = place[key].copy()
            place = place[key]
        if place[path[-1]] != f"{MARK}{digest}":
            return False
    except (TypeError, KeyError, IndexError, AttributeError):  # not written by us, or changed since
        return False
    file = blob_path(log, digest)
    try:
        text = _read(file, digest)
    except LogReadError as error:
        if on_fault is None:
            raise
        on_fault(f"the text of {_dotted(path)} stays a mark: {error}")
        return False
    if text is None:
        if on_fault is not None:
            on_fault(f"the text of {_dotted(path)} stays a mark: {file} is not there")
        return False
    place[path[-1]] = text
    return True


def _dotted(path: list[Any]) -> str:
    return ".".join(map(str, path))


def _is_digest(digest: Any) -> bool:
    return isinstance(digest, str) and len(digest) == _DIGEST_DIGITS and _DIGITS.issuperset(digest)


def _read(path: str, digest: str) -> str | None:
    try:
        with _opened(path) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogReadError(path, error.strerror or str(error)) from error
    if _digest_of(data) != digest:
        raise LogReadError(path, _OTHER)
    return data.decode()


def fault_of(log: str, digest: str) -> str:
    """Return what is wrong with the text beside *log* whose SHA-256 is *digest*; nothing if it is there and whole."""
    import hashlib

    path = blob_path(log, digest)
    try:
        with _opened(path) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return ""
    except FileNotFoundError:
        return f"{path} is not there"
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    return f"{path}: {_OTHER}"


def _opened(path: str) -> BufferedReader:
    # Whatever stands there: a pipe without a writer must not hold up who reads a log.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
