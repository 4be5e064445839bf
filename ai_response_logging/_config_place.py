"""What a log's place on the disk allows: whether it can be written there, and what each durability will really be."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ._config_check import Complaint
from ._journal_format import own_directory
from ._options import Options
from ._paths import describe_file_type, describe_refusal

if sys.platform != "win32":  # there the handler says that it cannot record
    from fcntl import LOCK_EX, LOCK_NB, flock

__all__ = ["Place", "complaints_at", "durability_at", "file_system_of", "nearest_directory"]

_MOUNTS: Final = "/proc/self/mountinfo"
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ceph|glusterfs|lustre|afs|9p|virtiofs|beegfs|gpfs|ocfs2|gfs2|fuse\.(?!fuse-overlayfs).+"
)
_LAYERS: Final = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
_LYING: Final = ("nobarrier", "barrier=0")
_PROBE_BYTES: Final = 4096
_SYNCS: Final = 5


class Place(NamedTuple):
    """A file system, as the machine shows it; *kind* is empty where it does not."""

    mount: str
    kind: str
    options: str

    @property
    def is_memory(self) -> bool:
        """Whether it is gone when the machine stops."""
        return self.kind in _MEMORY

    @property
    def is_network(self) -> bool:
        """Whether another machine, or a program, keeps the bytes."""
        return bool(_NETWORK.fullmatch(self.kind))

    def __str__(self) -> str:
        return f"{self.kind or 'a file system of a kind that is not told'} at {self.mount or '?'}"


def file_system_of(path: str, mounts: str = _MOUNTS) -> Place:
    """Return the file system on which *path* is, or will be; proc_pid_mountinfo(5)."""
    real, found = os.path.realpath(path), Place("", "", "")
    with suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as rows:
        for row in rows:
            words, _, rest = row.rstrip("\n").partition(" - ")
            fields, kinds = words.split(" "), rest.split(" ")
            if len(fields) < 6 or len(kinds) < 3:  # noqa: PLR2004  as the page has them
                continue
            mount = re.sub(r"\\(\d{3})", lambda one: chr(int(one[1], 8)), fields[4])
            # Later ones are mounted over earlier ones.
            if len(mount) >= len(found.mount) and (real + "/").startswith(mount.rstrip("/") + "/"):
                found = Place(mount, kinds[0], f"{fields[5]},{kinds[2]}")
    return found


def nearest_directory(path: str) -> str:
    """Return the directory of *path*, or the nearest one above it that there is."""
    directory = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    return directory


def complaints_at(where: str, filename: str, options: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield why a log cannot be written at *filename*, or its journal not be kept."""
    if kind := describe_file_type(filename):
        yield Complaint(f"{where}.filename", f"{filename} is {kind}, not a regular file: nothing is written to it")
        return
    if refusal := _refusal(filename):
        yield Complaint(f"{where}.filename", f"{filename} cannot be written{refusal}")
    if options.get("durability", "crash") == "memory":
        return
    elsewhere = options.get("journal_directory")
    key = f"{where}.journal_directory" if elsewhere else f"{where}.durability"
    directory = own_directory(filename, elsewhere if isinstance(elsewhere, str) else None)
    if os.path.lexists(directory) and (kind := describe_file_type(directory) or "a file") != "a directory":
        yield Complaint(key, f"there can be no journal in {directory}, which is {kind}: a killed process loses records")
    elif elsewhere and (refusal := _refusal(os.path.join(directory, "journal"))):
        yield Complaint(key, f"there can be no journal in {directory}{refusal}")


def _refusal(path: str) -> str:
    nearest = nearest_directory(path)
    target = path if nearest == os.path.dirname(os.path.abspath(path)) else os.path.join(nearest, "new")
    if refusal := describe_refusal(target):
        return refusal
    above = os.path.dirname(os.path.abspath(path))
    while above != nearest:
        if os.path.lexists(above):
            return f": {above} is {describe_file_type(above) or 'no directory'}, and should be a directory"
        above = os.path.dirname(above)
    try:
        if os.statvfs(nearest).f_flag & os.ST_RDONLY:
            return f": the file system of {nearest} is mounted read-only"
    except (OSError, AttributeError):
        pass
    return ""


def durability_at(where: str, filename: str, options: Mapping[str, Any]) -> tuple[list[str], list[Complaint]]:
    """
    Return what holds for a log at *filename*, for people, and where that is less than what is asked.

    It is tried out with a small file in the nearest directory that there is, which is removed at once.
    """
    asked = options.get("durability", Options.durability)
    elsewhere = options.get("journal_directory")
    journal = own_directory(filename, elsewhere if isinstance(elsewhere, str) else None)
    places = dict.fromkeys((file_system_of(filename), file_system_of(journal)))
    notes = [f"{filename}: on {next(iter(places))}"]
    if elsewhere:
        notes.append(f"journal in {journal}: on {[*places][-1]}")
    notes += [f"{place} is a container's own layer, and goes with it: put the log on a volume" for place in places
              if place.kind in _LAYERS]  # fmt: skip
    problems = [(f"{where}.filename", what) for place in places for what in _limits_of(place)]
    faults, sync_ms = _tried(nearest_directory(filename))
    problems += [(f"{where}.filename", fault) for fault in faults]
    if asked == "power":
        problems += [(f"{where}.durability", what) for place in places for what in _power_at(place)]
        if sync_ms is not None and not any(place.is_memory for place in places):
            notes.append(f"a sync took {sync_ms:.1f} ms here just now (median of {_SYNCS}): each call waits for one")
    if asked in _MEANING and not faults:
        notes.append(f"durability {asked} is here: {_meaning(asked, [*places])}")
    return notes, [Complaint(at, what) for at, what in problems]


def _meaning(asked: str, places: list[Place]) -> str:
    if asked == "power" and any(place.is_memory for place in places):
        return f"{_MEANING['crash']}; a restart of the machine takes all"
    if asked == "power" and any(place.is_network for place in places):
        return "kept over loss of power here; over that of the server as far as its own syncs are true"
    return _MEANING[asked]


_MEANING: Final = {
    "memory": "kept over a normal end; a process that is killed loses what it had queued",
    "crash": "kept over the death of the process, by kill -9, too, not over loss of power",
    "power": "kept over loss of power, where the disk tells the truth",
}


def _limits_of(place: Place) -> Iterator[str]:
    if place.is_memory:
        yield f"{place} keeps its files in memory: all of it is gone when the machine, or the container, stops"
    elif place.is_network:
        yield (
            f"{place} is kept by another machine or a program: one file may be shared by the processes of one machine "
            "only, give each machine its own; a server that stops makes every write wait"
        )


def _power_at(place: Place) -> Iterator[str]:
    if place.is_memory:
        yield f"durability is power, and {place} survives no loss of it: there is no disk to sync to"
    elif place.is_network:
        yield f"durability is power, and a sync on {place} is true only as far as its server's is"
    elif any(one in place.options.split(",") for one in _LYING):
        yield f"durability is power, and {place} is mounted with its barriers off, so a sync does not reach the disk"


def _tried(directory: str) -> tuple[list[str], float | None]:
    """Try what a writer needs in *directory*; return what failed, and how long a sync takes (ms, median)."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".__ai_responses.probe-", dir=directory)
    except PermissionError:  # said already, with whose it is
        return [], None
    except OSError as error:
        return [f"nothing can be made in {directory} ({error.strerror}), so no log either"], None
    faults: list[str] = []
    times: list[float] = []
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except OSError as error:
            faults.append(f"{directory} has no locks ({error.strerror}): several processes cannot share a log there")
        os.pwrite(descriptor, bytes(_PROBE_BYTES), 0)
        for _ in range(_SYNCS):
            began_s = time.perf_counter()
            os.pwrite(descriptor, b"x", 0)
            os.fsync(descriptor)
            times.append((time.perf_counter() - began_s) * 1e3)
    except OSError as error:
        what = "is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"refuses ({error.strerror})"
        faults.append(f"{directory} {what}: there can be no journal there now")
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(name)
    return faults, sorted(times)[len(times) // 2] if times else None
