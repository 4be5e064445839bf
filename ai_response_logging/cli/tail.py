"""``ai-responses tail``: the newest records, and then those that come."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import LogReadError
from ..filters import Filters
from ._console import (
    FileOption,
    UtcOption,
    print_error,
    print_json_line,
    progress_bar,
    reader_is_gone,
)
from ._filters import with_filters
from ._reading import bad_lines_noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..follow import Follower

__all__ = ["tail"]

# Between two looks: soon after something came, seldomer while nothing does.
_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 0.5
_SLOWER: Final = 1.3
_REFUSED_LOOKS: Final = 10  # in a row, before a log counts as one that cannot be read

JsonLines = Annotated[bool, typer.Option("--json", help="Print each record as one line of JSON.")]


@with_filters
def tail(
    *,
    filters: Filters,
    count: Annotated[int, typer.Option("-n", "--lines", metavar="N", min=0, help="How many of the newest.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with those that come, until Ctrl-C.")] = False,
    file: FileOption = None,
    utc: UtcOption = False,
    as_json: JsonLines = False,
) -> None:
    """
    Show the newest records, and follow the log.

    A block of a few lines each on a terminal, elsewhere one line each. What is still in a journal is shown, once.
    With --json, texts that are too large for a line are in their places, too.
    Following goes on over rotation, compression, a log that is emptied, removed and made anew, and waits for one
    that does not exist yet; it ends with Ctrl-C (exit code 130), or when nobody reads its output any more (0).

    Example: ai-responses tail -f --failed --since 2h
    """
    from ..blobs import bring_back
    from ..follow import Follower
    from ..reader import BadLine, LogSnapshot
    from ..record import default_log_path
    from ._shown import print_block

    path = default_log_path(file)

    def note(name: str, offset: int, why: str) -> None:
        if follow or (not offset and ".journal" in name):
            print_error(f"{name} byte {offset}: {why}")
        else:
            note_bad(BadLine(name, 1, offset, why))

    def show(record: dict[str, Any]) -> None:
        if as_json:
            print_json_line(bring_back(record, path, print_error))
        else:
            print_block(record, utc=utc)

    with bad_lines_noted(path) as note_bad, Follower(path, note) as follower:
        with progress_bar("tail") as on_progress:
            newest = follower.newest(count, filters.match, on_progress)
        if not newest and not follow:
            LogSnapshot(path, missing_ok=follower.has_journals).close()  # says so if there is no such log
        for record in newest:
            show(record)
        if not newest and not follow:
            print_error(f"no record {'that matches ' if filters else ''}in {path}")
        if follow:
            _go_on(follower, filters.match, show)


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Let a signal come behind the block, not within it."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _go_on(
    follower: Follower, match: Callable[[dict[str, Any]], bool], show: Callable[[dict[str, Any]], object]
) -> None:
    """Show what comes, until nobody reads it any more."""
    pause_s, refused = _SHORTEST_S, 0
    while True:
        # A Ctrl-C waits for the pause: one that came between the kernel's taking what was shown and our noticing it
        # would have that shown a second time, when the output is flushed at the end.
        with _held_back(signal.SIGINT):
            sys.stdout.flush()
        if reader_is_gone():
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * _SLOWER, _LONGEST_S)
        try:
            for record in filter(match, follower.look()):
                show(record)
                pause_s = _SHORTEST_S
            refused = 0
        except LogReadError:  # somebody may be in the middle of moving it, or of setting its rights
            refused += 1
            if refused == _REFUSED_LOOKS:
                raise
