"""What commands that read a log say of lines that they had to leave out."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._console import print_error

if TYPE_CHECKING:
    from ..reader import BadLine

__all__ = ["bad_lines_noted"]


@contextmanager
def bad_lines_noted(path: str) -> Iterator[Callable[[BadLine], None]]:
    """Give the block a function to tell of bad lines of the log at *path*; behind it, say how many each file has."""
    counts: Counter[str] = Counter()

    def note(bad: BadLine) -> None:
        if bad.line:
            counts[bad.file] += 1
        else:
            print_error(f"{bad.file}: {bad.reason}")

    yield note
    for name, count in counts.items():
        print_error(
            f"{name}: {count:,} lines could not be read and are left out; to see which: "
            f"ai-responses verify --file {shlex.quote(path)}"
        )
