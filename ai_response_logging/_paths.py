"""Paths: open only regular files, make them with exact modes for the right owner, and the time as names carry it."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from typing import TYPE_CHECKING, Final

from .errors import LogPathError

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.platform != "win32":  # there the handler says that it cannot record
    from fcntl import F_DUPFD_CLOEXEC, fcntl

__all__ = [
    "OwnFile",
    "create_file",
    "describe_file_type",
    "describe_owner",
    "describe_refusal",
    "make_directory",
    "open_regular",
    "sync_directory",
    "utc_suffix",
    "why_refused",
]


# Some file systems cannot sync a directory, and some directories may be searched but not read.
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF})
_TRIES: Final = 5
_HIGH: Final = 512  # descriptors from here on: half of the usual limit, which is 1024


class OwnFile(FileIO):
    """
    A file that we have opened, and close only while its descriptor is still ours.

    An application that closes all descriptors (a daemoniser, ``os.closerange``) closes ours, too, and what it opens
    next may get their numbers.
    """

    # Made by _own alone, and so without an __init__ of its own: a descriptor is never without its owner then.
    _identity: tuple[int, int] | None = None

    def is_ours(self) -> bool:
        """Say whether it is open, and its descriptor still leads to the file that we opened; if not, never again."""
        try:
            info = os.fstat(self.fileno())
        except ValueError:  # closed by us
            return False
        except OSError as error:
            if error.errno != errno.EBADF:  # EIO of an xfs that was shut down says nothing about whose it is
                return True
        else:
            if self._identity is None:  # the first look, behind the call that opened it
                self._identity = info.st_dev, info.st_ino
            if (info.st_dev, info.st_ino) == self._identity:
                return True
        super().close()  # closes no descriptor; ours of the same file may get this number next, and is not this one
        return False

    def is_at(self, info: os.stat_result) -> bool:
        """Say whether what we opened is what *info* tells of."""
        return (info.st_dev, info.st_ino) == self._identity

    def leave(self) -> None:
        """Let its descriptor be, whosever it is."""
        super().close()  # as above

    def close(self) -> None:
        """
        Close it, unless somebody else has.

        Raises:
            OSError: As close(2) has it; its descriptor is closed then.
        """
        # Without a `finally`: what an exception from outside leaves open, the next close or the collector closes.
        if self.is_ours():
            os.close(self.fileno())
        super().close()

    def after_fork_in_child(self) -> None:
        """Let go of the child's copy, where that is asked for: see forget_in_child."""
        with suppress(OSError):
            self.close()


def _own(mode: str, call: Callable[..., int], *arguments: object) -> OwnFile:
    """
    Return the file to the descriptor that *call* of *arguments*, a function in C, returns.

    An exception from outside comes behind a call into C, never in it: from open(2) to the file in the list it is one,
    so that none leaves a descriptor that nobody closes.
    """
    files: list[OwnFile] = []
    files.extend(map(OwnFile, map(call, *([one] for one in arguments)), [mode], [False]))
    files[0].is_ours()
    return files[0]


def describe_file_type(path: str) -> str:
    """Return what stands at *path* if it is there and not a regular file, as in "a symbolic link"; else nothing."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    for is_kind, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if is_kind(mode):
            return name
    return ""


def describe_refusal(path: str) -> str:
    """Return whose file or directory keeps this process from *path*, and with which mode; nothing if none does."""
    above = [path]
    while (parent := os.path.dirname(above[0])) not in ("", above[0]):
        above.insert(0, parent)
    for place in above:
        if not os.path.lexists(place):  # then it cannot be made where it is to stand
            place = os.path.dirname(place)  # noqa: PLW2901
            needed = os.W_OK | os.X_OK
        else:
            needed = os.X_OK if place != path else os.R_OK | os.W_OK
        if not os.access(place, needed, effective_ids=os.access in os.supports_effective_ids):
            return (
                f"; {describe_owner(place)}: let it write there, or set another filename; a log for "
                "several users needs file_mode and directory_mode for all of them"
            )
    return ""


def why_refused(error: OSError) -> str:
    """Say why something cannot be read, and of whom it is: whoever may not read a log needs its owner."""
    owner = describe_owner(error.filename) if isinstance(error, PermissionError) and error.filename else ""
    return f"{error.strerror or error}" + (f" ({owner}): run this as its owner" if owner else "")


def describe_owner(path: str) -> str:
    """Return who owns what stands at *path*, with which mode, and as whom we run; nothing if it cannot be told."""
    try:
        info = os.stat(path)
    except OSError:
        return ""
    return (
        f"{path} is owned by {_user_name(info.st_uid)} with mode {stat.S_IMODE(info.st_mode):04o}, and this "
        f"process runs as {_user_name(os.geteuid())}"
    )


def _user_name(user_id: int) -> str:
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"


def create_file(path: str, flags: int, mode: int, like: str = "") -> OwnFile:
    """
    Make *path* with exactly *mode* and open it with *flags*; FileExistsError if it is there already.

    Made by root, it belongs to the owner of the file *like*: a tool that root runs once must not lock a service out.
    """
    # With no more rights than asked for from the first instant on; fchmod then undoes the umask.
    file = _open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o700)
    with suppress(OSError):  # a file system without modes
        os.fchmod(file.fileno(), mode)
    _give_away(file.fileno(), like)
    return file


def _give_away(made: int | str, like: str) -> None:
    """As root, give what we have just *made* to the owner of the file *like*."""
    if like and not os.geteuid():
        with suppress(OSError):  # it is gone, or the file system knows no owners
            info = os.lstat(like)
            os.chown(made, info.st_uid, info.st_gid, follow_symlinks=isinstance(made, int))


def open_regular(path: str, flags: int, mode: int, *, create: bool = True, like: str = "") -> OwnFile:
    """
    Open the regular file at *path* with *flags*; unless *create* is false, make it if need be, see create_file.

    Raises:
        LogPathError: A symbolic link, directory, FIFO or device stands there.
        OSError: It cannot be opened.
    """
    # O_NOFOLLOW: a link that somebody put in the file's place must not lead us into another one.
    # O_NONBLOCK: opening a FIFO would wait for a reader; on a regular file it changes nothing.
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_TRIES):
        try:
            file = _open_or_create(path, flags, mode, like) if create else _open(path, flags)
        except OSError as error:
            if kind := describe_file_type(path):
                raise LogPathError(path, kind) from error
            raise
        if not flags & os.O_RDWR:  # it is only read, and closed in a moment
            _must_be_regular(file, os.fstat(file.fileno()), path)
            return file
        if (found := _found_at(path, file)) is not None:
            return found
    raise OSError(errno.EBUSY, "something else is put in its place again and again", path)


def _found_at(path: str, file: OwnFile) -> OwnFile | None:
    """Return *file* to be written to, if it is what stands at *path*; else None, and it is no longer open."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        file.close()
        return None
    if file.is_at(info):
        _must_be_regular(file, info, path)
        found = _out_of_the_way(file)
        if found.is_at(info) and not found.closed:
            return found
        found.close()
    # Another one has come to its path. Or another thread of the application's has closed all descriptors since, and
    # what has this number now is a file of its own, which is neither to be written to nor to be closed.
    file.leave()
    return None


def _must_be_regular(file: OwnFile, info: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        file.close()
        raise LogPathError(path, describe_file_type(path) or "something else")


def _out_of_the_way(file: OwnFile) -> OwnFile:
    """
    Return *file* under a high number: an application that closes low ones opens its own files there next.

    Our pwrite would go into one of those. With a high number it fails (EBADF), and we notice.
    """
    try:
        high = _own("r+", fcntl, file.fileno(), F_DUPFD_CLOEXEC, min(_HIGH, os.sysconf("SC_OPEN_MAX") // 2))
    except (OSError, ValueError):  # EMFILE, EINVAL: none is free up there; else it is not open any more
        file.is_ours()
        return file
    file.close()
    return high


def _open_or_create(path: str, flags: int, mode: int, like: str) -> OwnFile:
    try:
        return _open(path, flags)
    except FileNotFoundError:
        try:
            return create_file(path, flags, mode, like)
        except FileExistsError:  # another process was quicker
            return _open(path, flags)


def _open(path: str, flags: int, mode: int = 0) -> OwnFile:
    # A directory that is only read could be opened, but FileIO refuses it, and leaves the descriptor open.
    if not flags & os.O_ACCMODE and os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    how = {os.O_RDONLY: "r", os.O_WRONLY: "w"}.get(flags & os.O_ACCMODE, "r+")
    return _own(how, os.open, path, flags, mode)


def make_directory(path: str, mode: int, like: str = "") -> list[str]:
    """
    Make the directory *path* and its missing parents, each with exactly *mode*, *like* as for create_file.

    Returns:
        Those that were made, the outermost first.
    """
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, mode)
        except FileExistsError:  # another process was quicker, or it is no directory: then opening the log says so
            continue
        with suppress(OSError):  # a file system without modes
            os.chmod(directory, mode)
        _give_away(directory, like)
    return missing[::-1]


def sync_directory(path: str) -> None:
    """
    Let the names in the directory of *path* survive loss of power.

    Raises:
        OSError: They may not.
    """
    opened: list[int] = []
    try:
        try:
            # Into the list in the call that opens it: an exception from outside comes before that or behind it.
            opened.extend(map(os.open, [os.path.dirname(path) or "."], [os.O_RDONLY | os.O_CLOEXEC]))
            os.fsync(opened[0])
        finally:
            for descriptor in opened:
                os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


def utc_suffix(time_s: float | None = None) -> str:
    """Return *time_s*, else now, in UTC as file names carry it (``20261123T190541.000123Z``); they sort by time."""
    moment = datetime.now(UTC) if time_s is None else datetime.fromtimestamp(time_s, UTC)
    return moment.strftime("%Y%m%dT%H%M%S.%fZ")
