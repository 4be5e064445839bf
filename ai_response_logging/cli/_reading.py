"""A log read by a command: what it reads is counted, and what it had to leave out is said at the end."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._console import counter_line, print_error

if TYPE_CHECKING:
    from ..reader import BadLine

__all__ = ["bad_lines_noted", "left_out", "records_of"]


@contextmanager
def bad_lines_noted(path: str) -> Iterator[Callable[[BadLine], None]]:
    """
    Give the block a function to tell of bad lines of the log at *path*; behind it, say how many each file has.

    What has no line, such as a journal that may not be read, is said at once. Nothing is added to a failure.
    """
    counts: Counter[str] = Counter()

    def note(bad: BadLine) -> None:
        if bad.line:
            counts[bad.file] += 1
        else:
            print_error(f"{bad.file}: {bad.reason}")

    yield note
    for name, count in counts.items():
        print_error(left_out(name, count, path))


def left_out(name: str, count: int, path: str) -> str:
    """Say that so many lines of *name*, of the log at *path*, could not be read, and how to see which."""
    what = "1 line could not be read and is" if count == 1 else f"{count:,} lines could not be read and are"
    return f"{name}: {what} left out; to see which: ai-responses verify --file {shlex.quote(path)}"


def records_of(path: str, label: str) -> Iterator[dict[str, Any]]:
    """
    Yield the records of the log at *path*; at the end, say on standard error what was left out.

    On a terminal a line that counts appears once it takes more than a second.

    Raises:
        LogReadError: There is no such log, or it may not be read.
    """
    from ..reader import read_log

    with bad_lines_noted(path) as note, counter_line(label, "records") as count:
        for record in read_log(path, on_bad=note):
            count()
            yield record
