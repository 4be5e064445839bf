"""
What a process holds, told from inside: what is alive in it, apart from what its allocator keeps for the next time.

A process's resident memory says how much glibc has not given back, not how much is in use: a thread's arena keeps what
compressing a file took.  Needs glibc 2.33 or later, for mallinfo2(3).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

_LINE_BYTES: Final = 64
_EVERY_S: Final = 2.0
_FIELDS: Final = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallocInfo(ctypes.Structure):
    """The structure of mallinfo2(3); its figures are those of all arenas together."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS.split())


class Held(NamedTuple):
    """What is in use, and what is not."""

    blocks: int
    """Of Python's own allocator: every object up to 512 bytes is one."""
    used_bytes: int
    """Of malloc: everything larger, and what C code took."""
    free_bytes: int
    """What malloc keeps for the next time."""


class Teller:
    """Writes into a small file, now and then, what this process holds."""

    def __init__(self, path: str) -> None:
        # Opened once: there may be no descriptor later.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._malloc_info = ctypes.CDLL(None).mallinfo2
        self._malloc_info.restype = _MallocInfo
        self._due_s = 0.0
        self.tell()

    def tell(self) -> None:
        """Write it, if the last time was a while ago."""
        if (now_s := time.monotonic()) < self._due_s:
            return
        self._due_s = now_s + _EVERY_S
        gc.collect()  # what only waits for the collector is not held; a full round may be an hour away
        # The interpreter's cache of attributes holds the names that were looked up last, up to some hundred that C code
        # made for one look (strftime does).
        sys._clear_type_cache()  # noqa: SLF001  there is no public name for it
        info = self._malloc_info()
        held = f"{sys.getallocatedblocks()} {info.uordblks + info.hblkhd} {info.fordblks}"
        os.pwrite(self._descriptor, held.ljust(_LINE_BYTES - 1).encode() + b"\n", 0)


def held_as_told(path: Path) -> Held:
    """Return what the process last wrote there."""
    return Held(*map(int, path.read_text("ascii").split()))
