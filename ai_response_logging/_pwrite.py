"""pwrite(2) that keeps the interpreter lock."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pwrite_error", "pwrite_holding"]


@cache
def pwrite_holding() -> Callable[[int, bytes, int, int], int]:
    """
    Return a function that writes the bytes, of which it is told the number, at a place of a descriptor.

    It returns how many were written, -1 for an error that :func:`pwrite_error` then tells. :func:`os.pwrite` gives up
    the interpreter lock and, beside a busy thread, waits 5 ms to get it back: a thousand times what the write costs.

    Source: POSIX pwrite(2).
    """
    try:
        import ctypes  # 2 ms that only those pay who keep a journal

        function = ctypes.PyDLL(None, use_errno=True).pwrite
    except (ImportError, OSError, AttributeError):
        return _pwrite
    if ctypes.sizeof(ctypes.c_long) < ctypes.sizeof(ctypes.c_int64):  # there off_t may have 32 bits
        return _pwrite
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long)
    function.restype = ctypes.c_ssize_t
    return function


def pwrite_error() -> OSError:
    """Return why the last call in this thread failed."""
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _pwrite(descriptor: int, data: bytes, _size: int, position: int) -> int:
    return os.pwrite(descriptor, data, position)  # noqa: TID251  for _journal.py
