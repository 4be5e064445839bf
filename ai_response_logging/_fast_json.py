"""
orjson, kept from ending the process where memory ends.

Where it cannot have what it asks for, and that is eight bytes for each byte of a text, it dies of a SIGSEGV (3.13.0).
Where memory can end (``ulimit -v``, strict overcommit), what orjson may need is asked for here first, in a way that
says MemoryError. Elsewhere the kernel ends the process, whoever asks; a journal survives that.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

if sys.platform != "win32":
    from resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, getrlimit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SMALL",
    "claim_stack",
    "dumps",
    "dumps_plain",
    "loads",
    "loads_plain",
    "look_again",
    "memory_can_end",
    "memory_could_end",
]

SMALL: Final = 4096
"""Characters: for so few it is enough to know whether memory could end a second ago; two system calls tell of now."""

_LEAST: Final = 8192  # a buffer of 4096 bytes at the beginning, the parser's the same
_PER_ITEM: Final = 160  # of a list, a key, a value: 144 were seen
_PER_TEXT_BYTE: Final = 9  # 8 were seen
_PER_PARSED_BYTE: Final = 80  # the parser's tree, and a dict of one key from its seven bytes
_STACK_BYTES: Final = 1 << 18
_MALLOCS_OWN: Final = 1 << 17  # glibc has larger pieces from the kernel
_MALLOCS_LEAST: Final = 1 << 20


def _is_overcommit_strict() -> bool:
    try:
        with open("/proc/sys/vm/overcommit_memory", "rb") as setting:
            return setting.read(1) == b"2"
    except OSError:
        return False


if sys.platform == "win32":

    def memory_can_end() -> bool:
        """Say no: nobody records there."""
        return False

elif _is_overcommit_strict():

    def memory_can_end() -> bool:
        """Say yes, at any time."""
        return True

else:

    def memory_can_end() -> bool:
        """Say whether an allocation may fail; a program may limit itself at any moment."""
        return getrlimit(RLIMIT_AS)[0] != RLIM_INFINITY or getrlimit(RLIMIT_DATA)[0] != RLIM_INFINITY


memory_could_end = memory_can_end()
"""Whether memory could end when somebody last looked."""


def look_again() -> None:
    """Note whether memory can end; for who comes by about once a second."""
    global memory_could_end  # noqa: PLW0603  a bool, the same for all
    memory_could_end = memory_can_end()


def dumps(value: Any, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    """
    Return *value* as `orjson.dumps` does.

    Args:
        value: Of plain lists, tuples and dicts, which nobody else has; anything else is small.
        default: As orjson's.
        option: As orjson's.

    Raises:
        MemoryError: orjson might not get its memory; or an `orjson.Fragment` is in it, whose size nobody knows.
        orjson.JSONEncodeError: As orjson's, a TypeError.
    """
    if memory_can_end():
        _take(_most_for(value))
    return orjson.dumps(value, default, option)


def dumps_plain(value: Any, default: Callable[[Any], Any] | None = None, *, is_small: bool = False) -> bytes:
    """
    Return *value* as `dumps` does, or slower where there is too little memory for it, or more levels than it writes.

    Args:
        value: Of JSON's own kinds alone.
        default: As orjson's.
        is_small: The texts in it have at most :data:`SMALL` characters.

    Raises:
        UnicodeEncodeError: Half an emoji is in it.
    """
    try:
        return orjson.dumps(value, default) if is_small and not memory_could_end else dumps(value, default)
    except (MemoryError, orjson.JSONEncodeError):
        return json.dumps(value, default=default, ensure_ascii=False, separators=(",", ":")).encode()


def loads(text: bytes | str) -> Any:
    """
    Return what *text* holds, as `orjson.loads` does.

    Raises:
        MemoryError: orjson might not get its memory.
        orjson.JSONDecodeError: As orjson's, a ValueError.
    """
    if memory_could_end if len(text) <= SMALL else memory_can_end():
        _take(len(text) * _PER_PARSED_BYTE)
    return orjson.loads(text)


def loads_plain(text: bytes) -> Any:
    """
    Return what *text* holds, as `loads` does, or slower where there is too little memory for it.

    Raises:
        ValueError: It is no JSON; the slower way lets NaN and Infinity pass.
    """
    try:
        return loads(text)
    except MemoryError:
        return json.loads(text)


def claim_stack() -> None:
    """
    Raise MemoryError if memory can end here and there is none for a hundred levels of Python calls more.

    CPython (3.11.7) may die of a SIGSEGV where the kernel has none for a frame.
    """
    if memory_can_end() and not _has_kernel(_STACK_BYTES):
        raise MemoryError


def _take(size: int) -> None:
    """Raise MemoryError if orjson might not get *size* bytes at this moment."""
    # malloc(3) keeps what it is given back, up to twice the largest piece: asked for a large one only to look, it would
    # have all the room there is, and frames none. It asks the kernel for a MiB at least.
    if size < _MALLOCS_OWN or not _has_kernel(size + 2 * _MALLOCS_LEAST):
        bytes(_LEAST + size)


def _has_kernel(size: int) -> bool:
    """Say whether the kernel has *size* bytes for this process alone."""
    try:
        from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap  # noqa: TID251  no page of it is touched

        mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS).close()
    except (ImportError, OSError, MemoryError):
        return False
    return True


def _most_for(value: Any) -> int:
    """Return how many bytes orjson may need at once for *value*."""
    texts, items = 0, 1
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is str:
            texts += len(one) if one.isascii() else 4 * len(one)
        elif kind is dict:
            left += one
            left += one.values()
            items += 2 * len(one)
        elif kind is list or kind is tuple:
            left += one
            items += len(one)
        elif kind is orjson.Fragment:
            raise MemoryError  # nobody can ask it how long it is
    # It doubles its buffer until that is large enough, and while it moves there are two; Python keeps a text's UTF-8.
    buffer = 1 << (_PER_TEXT_BYTE * texts + _PER_ITEM * items).bit_length()
    return buffer + buffer // 2 + texts
