"""
Start a new file when one is full or its time is over, and keep as many old ones as the user wants.

One rename under the lock: whatever moment a process is killed at, every record stands in a file whose name readers
know. The cost does not depend on how many files there are, since the new name is the time, not a number to shift.
Names must sort as the files were put aside, whatever somebody does to the clock: the lock file keeps the last one, and
no later file gets one before it. Old files are deleted outside the lock, and only when the user says how much to keep.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ._paths import utc_suffix
from ._retry import naps

if TYPE_CHECKING:
    from io import FileIO

    from ._options import Options

__all__ = [
    "ROTATED",
    "await_successor",
    "files_of",
    "next_rollover",
    "numbered",
    "period",
    "remove_surplus",
    "rotate",
    "rotated_files",
    "uncompressed_files",
]

# Texts: `re` compiles each for who first looks for such files, and remembers it.
ROTATED: Final = r"\d{8}T\d{6}\.\d{6}Z(\.gz)?\Z"
_WAS_LOG: Final = r"(\.(sealed-)?[\d.-]*\d(T\d{6}\.\d{6}Z)?|-\d[\d-]*(\.backup)?)(\.gz)?\Z"
_SECONDS: Final = {"S": 1, "M": 60, "H": 3600, "D": 86_400}
_DAY_S: Final = 86_400
_NEVER: Final = float("inf")
_MOMENT: Final = r"\d{8}T\d{6}\.\d{6}Z"
_MOMENT_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"
_MOMENT_BYTES: Final = len("20261123T190541.000123Z")
_JUMP_S: Final = 60.0  # less is a clock that is being put right
_SUCCESSOR_S: Final = 0.02
_TICK: Final = timedelta(microseconds=1)


def rotate(path: str, why: str = "", lock_file: FileIO | None = None) -> str:
    """
    Rename *path* to ``<path>.<UTC>``, or ``<path>.<why>-<UTC>``, and return the new name.

    It is the time, unless that is not behind the last name in *lock_file*, or, where none is noted, behind those that
    stand there: a clock may have been set back, or was ahead. Then it is the next one behind that.

    Raises:
        OSError: It could not be renamed; nothing has changed.

    Durability: Atomic; the name survives loss of power only after a sync of the directory.
    Threads: Under the cross-process lock, so that no two processes choose one name.
    """
    moment, noted = utc_suffix(), _noted(lock_file)
    last = noted or _newest(path)
    if moment <= last:
        moment = _behind(last) or moment
    while _is_taken(target := f"{path}.{why}-{moment}" if why else f"{path}.{moment}"):
        moment = _behind(moment) or utc_suffix()
    if lock_file is not None and noted is not None:
        # Before the rename: killed in between, we have skipped a name; the other way round it would be given twice.
        with suppress(OSError):  # no room for it: then the names themselves are looked at
            os.pwrite(lock_file.fileno(), moment.encode(), 0)
    os.rename(path, target)
    return target


def await_successor(log: str) -> None:
    """
    Give whoever renamed the *log* a moment to make the next one.

    logrotate's `create` does so right behind its rename. It moves a log that we have made meanwhile out of its way,
    under a name that it uses again, and so overwrites, within the hour.
    """
    for nap in naps(_SUCCESSOR_S):
        if os.path.lexists(log):
            return
        time.sleep(nap)


def _is_taken(target: str) -> bool:
    return os.path.lexists(target) or os.path.lexists(f"{target}.gz")


def _noted(lock_file: FileIO | None) -> str | None:
    """Return the time in the last name that was given, empty if there was none yet; None if nobody can note it."""
    if lock_file is None:
        return None
    with suppress(OSError, UnicodeDecodeError):
        text = os.pread(lock_file.fileno(), _MOMENT_BYTES + 1, 0).decode("ascii")
        if not text or (re.fullmatch(_MOMENT, text) and _behind(text)):
            return text
    return None  # somebody else's file stands there: not a byte of it is ours to write


def _newest(path: str) -> str:
    """Return the latest time in the names of files that were the log at *path*; empty if there is none."""
    moments: list[str] = []
    with suppress(OSError):  # it may be searched but not listed: then the clock must do
        names = filter(re.compile(_WAS_LOG).match, _names_behind(path))
        moments = sorted(found[0] for name in names if (found := re.search(_MOMENT, name)))
    return next((moment for moment in reversed(moments) if _behind(moment)), "")


def _behind(moment: str) -> str:
    """Return the time that follows *moment*, as names have it; empty if no calendar has one of them."""
    try:
        return (datetime.fromisoformat(moment) + _TICK).strftime(_MOMENT_FORMAT)
    except (ValueError, OverflowError):
        return ""


def next_rollover(start_s: float, when: str, interval: int, *, utc: bool) -> float:
    """
    Return the Unix time at which a file begun at *start_s* is over; infinity where *when* is empty.

    ``S``, ``M``, ``H``, ``D``: *interval* seconds, minutes, hours, days after its first record. ``midnight``: the
    *interval*-th midnight after it, local or UTC; ``W0`` (Monday) to ``W6``: the *interval*-th midnight that ends
    such a day, as :class:`logging.handlers.TimedRotatingFileHandler` counts.
    """
    if not when:
        return _NEVER
    if when in _SECONDS:
        return start_s + interval * _SECONDS[when]
    day = time.gmtime(start_s) if utc else time.localtime(start_s)
    days = interval
    if when != "midnight":
        days = (int(when[1]) - day.tm_wday) % 7 + 1 + 7 * (interval - 1)
    if utc:
        return start_s // _DAY_S * _DAY_S + days * _DAY_S
    end = date(day.tm_year, day.tm_mon, day.tm_mday) + timedelta(days)
    # Not mktime, whose answer for a midnight that the clocks skip or strike twice depends on what it was asked before.
    # fold=0 is the first instant of the new day in both cases (PEP 495). Where the clocks go back over midnight
    # (St. John's, at 0:01), that may lie behind us already.
    midnights = (datetime(end.year, end.month, end.day, fold=fold).timestamp() for fold in (0, 1))  # noqa: DTZ001  local
    return next((at_s for at_s in midnights if at_s > start_s), _NEVER)


def period(began_s: float, options: Options) -> tuple[float, float]:
    """
    Return when the period of a file begun at *began_s* begins and when it is over, as Unix times.

    A file's period is that of its first record, so that all processes agree on it, whenever they were started and
    whatever has become of the file's own times.
    """
    try:
        return began_s, next_rollover(began_s, options.when, options.interval, utc=options.utc)
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return began_s, _NEVER


def rotated_files(path: str) -> list[str]:
    """Return the rotated files of *path*, oldest first."""
    return [path + name for name in _names_behind(path) if name[:1] == "." and re.match(ROTATED, name[1:])]


def uncompressed_files(path: str) -> list[str]:
    """Return the rotated files of *path* that are not compressed, or not to the end, oldest first."""
    stems = {name.removesuffix(".gz.part") for name in _names_behind(path) if not name.endswith(".gz")}
    return [path + stem for stem in sorted(stems) if stem[:1] == "." and re.match(ROTATED, stem[1:])]


def files_of(path: str) -> list[str]:
    """Return the files that were the log at *path*, under our names or one that logrotate gives, newest first."""
    return [path + name for name in reversed(_names_behind(path)) if re.match(_WAS_LOG, name)]


def numbered(path: str) -> list[tuple[str, int]]:
    """Return :func:`files_of` *path*, each with its inode: two lists are equal if nothing was renamed in between."""
    files: list[tuple[str, int]] = []
    for file in files_of(path):
        with suppress(FileNotFoundError):
            files.append((file, os.lstat(file).st_ino))
    return files


def _names_behind(path: str) -> list[str]:
    """Return what follows *path* in the names of the regular files in its directory, sorted."""
    directory, name = os.path.split(path)
    with os.scandir(directory or ".") as entries:
        return sorted(
            entry.name[len(name) :]
            for entry in entries
            if entry.name.startswith(name) and entry.is_file(follow_symlinks=False)
        )


class _Calendar:
    """
    The time by which files are too old: the clock's, but a jump ahead counts only once it has lasted for a day.

    Whoever sets the clock to 2040 by mistake must not find all files deleted when he sets it back.
    """

    def __init__(self) -> None:
        self._lead_s = time.time() - time.monotonic()
        self._ahead_since_s: float | None = None

    def now_s(self) -> float:
        """Return the Unix time, in seconds."""
        clock_s, steady_s = time.time(), time.monotonic()
        if clock_s - steady_s <= self._lead_s + _JUMP_S:
            self._ahead_since_s = None
            return clock_s
        if self._ahead_since_s is None:
            self._ahead_since_s = steady_s
        if steady_s - self._ahead_since_s >= _DAY_S:
            self._lead_s = clock_s - steady_s
            return clock_s
        return steady_s + self._lead_s


_calendar: Final = _Calendar()


def remove_surplus(path: str, options: Options) -> list[str]:
    """
    Delete the rotated files of *path* that *options* does not want kept, the oldest first; return their names.

    Kept are ``backup_count`` files, those that were rotated within ``retain_days``, and what fits into
    ``max_total_bytes`` together with the live file; each is off at 0. A name ahead of the clock does not say when a
    file was rotated; then its last change does.

    Raises:
        OSError: The directory could not be listed, or a file not deleted; all others are.
    """
    if not (options.backup_count or options.retain_days or options.max_total_bytes):
        return []
    # While one is compressed, and after a kill in the middle of that, it stands twice, and counts once.
    forms: dict[str, list[str]] = {}
    for file in rotated_files(path):
        forms.setdefault(file.removesuffix(".gz"), []).append(file)
    # Only where sizes count is each file asked for its own.
    counted = {stem: sum(map(_size_of, files)) if options.max_total_bytes else 0 for stem, files in forms.items()}
    surplus = _surplus(path, counted, options)
    doomed = [file for stem in surplus for file in forms[stem]]
    fault: OSError | None = None
    for file in doomed:
        try:
            os.unlink(file)
        except FileNotFoundError:  # another process, or a person, was quicker
            pass
        except OSError as error:  # one that nobody may delete must not keep all the others on the disk
            fault = error
    if fault is not None:
        raise fault
    return doomed


def _surplus(path: str, sizes: dict[str, int], options: Options) -> list[str]:
    """Return which of the rotated files with these *sizes* (bytes) are not to be kept, oldest first."""
    now_s, begin, oldest_first = _calendar.now_s(), len(path) + 1, sorted(sizes)
    doomed = set(oldest_first[: -options.backup_count] if options.backup_count else [])
    if options.retain_days:
        oldest = utc_suffix(now_s - options.retain_days * _DAY_S)
        now = utc_suffix(now_s)
        doomed.update(stem for stem in sizes if (_changed(stem) if stem[begin:] > now else stem[begin:]) < oldest)
    if options.max_total_bytes:
        # The live file has just been begun, and will grow.
        total = max(_size_of(path), options.max_bytes) + sum(sizes.values())
        for stem in oldest_first:
            if total <= options.max_total_bytes:
                break
            doomed.add(stem)
            total -= sizes[stem]
    return [stem for stem in oldest_first if stem in doomed]


def _changed(stem: str) -> str:
    """Return when the rotated file *stem*, compressed or not, was last changed, as names have it."""
    for file in (stem, f"{stem}.gz"):
        with suppress(OSError):
            return utc_suffix(os.stat(file).st_mtime)
    return utc_suffix()


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
