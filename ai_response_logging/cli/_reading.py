"""A log read from its beginning to its end by a command: what it reads is counted, and what it cannot is said."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ._console import counter_line, print_error

__all__ = ["records_of", "say_bad"]


def records_of(path: str, label: str) -> Iterator[dict[str, Any]]:
    """
    Yield the records of the log at *path*; at the end, say on standard error what was left out.

    On a terminal a line that counts appears once it takes more than a second.

    Raises:
        LogReadError: There is no such log, or it may not be read.
    """
    from ..reader import BadLine, read_log

    bad: Counter[str] = Counter()

    def note(line: BadLine) -> None:
        if line.line:
            bad[line.file] += 1
        else:
            print_error(f"{line.file}: {line.reason}")

    with counter_line(label, "records") as count:
        for record in read_log(path, on_bad=note):
            count()
            yield record
    say_bad(bad, path)


def say_bad(bad: Counter[str], path: str) -> None:
    """Say how many lines of which file were left out, and how to see which."""
    for name, count in bad.items():
        what = "1 line could not be read and is" if count == 1 else f"{count:,} lines could not be read and are"
        print_error(f"{name}: {what} left out; to see which: ai-responses verify --file {shlex.quote(path)}")
