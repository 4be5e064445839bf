"""
Functions of the C library, called without giving up the interpreter lock.

Python's own wrappers give it up around each call and, beside a busy thread, wait 5 ms to get it back: a thousand times
what these calls take.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["exchange_holding", "noise", "pwrite_error", "pwrite_holding", "rename_holding"]

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_GRND_NONBLOCK: Final = 1


@cache
def pwrite_holding() -> Callable[[int, bytes, int, int], int]:
    """
    Return a function that writes the bytes, of which it is told the number, at a place of a descriptor.

    It returns how many were written, -1 for an error that :func:`pwrite_error` then tells. Number and place must be
    below 2 GiB: see :func:`_function`.

    Source: POSIX pwrite(2).
    """
    return _function("pwrite") or _pwrite


def pwrite_error() -> OSError:
    """Return why the last call in this thread failed."""
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


@cache
def rename_holding() -> Callable[[str, str], int] | None:
    """
    Return a function that renames a file and never replaces another; None where there is none.

    It returns 0, or the errno that says why not: EEXIST where something stands.

    Source: Linux renameat2(2).
    """
    return _renaming(_RENAME_NOREPLACE)


@cache
def exchange_holding() -> Callable[[str, str], int] | None:
    """
    Return a function that lets two names change their files, in one step; None where there is none.

    It returns 0, or the errno that says why not: ENOENT where one of them is not there, EINVAL where the file system
    cannot do it.

    Source: Linux renameat2(2).
    """
    return _renaming(_RENAME_EXCHANGE)


def _renaming(flag: int) -> Callable[[str, str], int] | None:
    renameat2 = _function("renameat2")
    if renameat2 is None:
        return None
    import ctypes

    renameat2.restype = ctypes.c_int

    def rename(old: str, new: str) -> int:
        paths = os.fsencode(old), os.fsencode(new)
        return ctypes.get_errno() if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], flag) else 0

    return rename


def noise(size: int) -> bytes:
    """
    Return *size* random bytes, at most 256, from the kernel.

    Source: Linux getrandom(2); elsewhere as :func:`os.urandom`.
    """
    made = _noise_of(size)
    if made is None:
        return os.urandom(size)
    getrandom, kind = made
    buffer = kind()
    # Not ready only while the machine starts: os.urandom waits for that, and lets others run meanwhile.
    return bytes(buffer) if getrandom(buffer, size, _GRND_NONBLOCK) == size else os.urandom(size)


@cache
def _noise_of(size: int) -> tuple[Callable[[Any, int, int], int], Callable[[], Any]] | None:
    function = _function("getrandom")
    if function is None:
        return None
    import ctypes

    return function, ctypes.c_char * size


def _function(name: str) -> Any | None:
    """
    Return the C library's function *name*, which returns a ``ssize_t``; None where it cannot be called in this way.

    Its parameters are not declared, for that would cost more than the call itself. A whole number then goes as an
    ``int``, which libffi widens wherever a parameter of 64 bits is one register; bytes go as a pointer to them.
    """
    try:
        import ctypes  # 2 ms that only those pay who log

        function = ctypes.PyDLL(None, use_errno=True)[name]
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    if ctypes.sizeof(ctypes.c_void_p) < ctypes.sizeof(ctypes.c_int64):
        return None
    function.restype = ctypes.c_ssize_t
    return function


def _pwrite(descriptor: int, data: bytes, _size: int, position: int) -> int:
    return os.pwrite(descriptor, data, position)  # noqa: TID251  for _journal.py
