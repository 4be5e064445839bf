"""The compiled shim in this process: which calls of ours it counts, fails, or kills us at."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["CALLS", "Fault", "build", "is_loaded", "library"]

_ACTS: Final = {"before": 2, "after": 3, "half": 4, "short": 5, "part": 6}
_FAIL: Final = 1
_WRITE: Final = ("ENOSPC", "EDQUOT", "EIO", "EFBIG", "EINTR", "EAGAIN", "EROFS", "short", "part")
_NAME: Final = ("EACCES", "EIO", "ENOSPC", "EROFS")
_READ: Final = ("EIO", "EINTR", "EACCES")

# Which errnos a call can return to us, by its man page and the file systems that we know; `short` writes half and says
# so, `part` too, and lets the next one fail.
CALLS: Final[dict[str, tuple[str, ...]]] = {
    "open": ("EMFILE", "ENFILE", "EACCES", "ENOSPC", "EROFS", "EIO", "EINTR", "ENOMEM"),
    "read": _READ,
    "pread": ("EIO", "EINTR"),
    "write": _WRITE,
    "pwrite": _WRITE,
    "writev": _WRITE[:-2],
    "ftruncate": ("EIO", "EROFS", "EPERM", "ENOSPC", "EINTR"),
    "fallocate": ("ENOSPC", "EOPNOTSUPP", "EINTR", "EIO", "EFBIG"),
    "flock": ("ENOLCK", "EINTR", "EAGAIN"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO", "ENOSPC", "EDQUOT"),
    "close": ("EIO", "ENOSPC", "EINTR"),
    "fstat": ("EIO", "EOVERFLOW"),
    "stat": ("EIO", "EACCES"),
    "lstat": ("EIO", "EACCES"),
    "opendir": ("EMFILE", "EACCES", "EIO"),
    "rename": _NAME,
    "renameat2": (*_NAME, "EEXIST", "ENOENT", "EINVAL", "ENOSYS"),
    "link": (*_NAME, "EMLINK", "EPERM"),
    "unlink": _NAME,
    "mkdir": _NAME,
    "rmdir": _NAME,
    "chmod": ("EPERM", "EIO", "EROFS"),
    "chown": ("EPERM", "EIO", "EROFS"),
}
# The interpreter itself asks again after EINTR: for good, that would be for ever.
ONCE_ONLY: Final = frozenset({"EINTR", "short", "part"})


class Fault(NamedTuple):
    """What happens at which of our calls."""

    call: str
    what: str
    """``before``, ``after``, ``half``: killed there. An errno's name, ``short``, ``part``: it fails."""
    at: int
    for_good: bool = False

    @property
    def is_kill(self) -> bool:
        """Whether it kills."""
        return self.what in {"before", "after", "half"}

    def begin(self, folder: str) -> None:
        """Have it happen in this process, to calls on what lies in *folder*."""
        act = _ACTS.get(self.what, _FAIL)
        number = errno.ENOSPC if act != _FAIL else getattr(errno, self.what)
        library().shim_begin(os.fsencode(folder), self.call.encode(), act, self.at, number, int(self.for_good))


def build(folder: str) -> str:
    """Compile the shim into *folder* and return the library's path."""
    target = os.path.join(folder, "shim.so")
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", target, str(source), "-ldl"], check=True)
    return target


def is_loaded() -> bool:
    """Say whether this process was started with it."""
    return hasattr(ctypes.CDLL(None), "shim_begin")


def library() -> ctypes.CDLL:
    """Return the loaded shim, its functions with their types."""
    found = ctypes.CDLL(None)
    found.shim_begin.argtypes = [
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int
    ]  # fmt: skip
    found.shim_count.argtypes = [ctypes.c_char_p]
    found.shim_count.restype = found.shim_fired.restype = ctypes.c_long
    found.shim_where.restype = ctypes.c_char_p
    found.shim_refuse.argtypes = [ctypes.c_char_p, ctypes.c_int]
    found.shim_hold.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_char_p]
    found.shim_held.restype, found.shim_held_at.restype = ctypes.c_long, ctypes.c_char_p
    return found
