"""``ai-responses report``: the log as one page to look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Annotated, Final

import typer

from ..filters import Filters
from ._console import FileOption, plain, print_line
from ._filters import with_filters
from ._reading import bad_lines_noted
from .convert import ZoneOption, zone_of

__all__ = ["report"]

_PATIENCE_S: Final = 1.0
_MB: Final = 1_000_000

Out = Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The page, as in report.html.")]
Title = Annotated[str | None, typer.Option(help="Its heading.", show_default=False)]


@with_filters
def report(
    *,
    out: Out,
    filters: Filters,
    title: Title = None,
    utc: Annotated[bool, typer.Option("--utc", help="Show times in UTC, not in local time.")] = False,
    assume_timezone: ZoneOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    file: FileOption = None,
) -> None:
    """
    Write one HTML page that shows the log, and opens offline.

    The matrix of each run, success and latency by model, a time line, errors, slowest and failed calls with their
    texts, and a search. Figures are of all records; of a long log, texts are sampled, failed and slowest ones first.

    Example: ai-responses report -o report.html --since 24h
    """
    from ..record import default_log_path
    from ..report import report as write

    path = default_log_path(file)
    with bad_lines_noted(path) as note, _records_counted() as count:
        made = write(
            path,
            out,
            title=title,
            filters=filters,
            assume_timezone=zone_of(assume_timezone),
            zone=UTC if utc else None,
            force=force,
            on_bad=note,
            on_progress=count,
        )
    print_line(
        f"{plain(made.path)}: {made.records:,} calls, {made.shown:,} of them with their texts, "
        f"{made.bytes / _MB:.1f} MB"
    )


@contextmanager
def _records_counted() -> Iterator[Callable[[int], None]]:
    """Give the block a function to report records to; on a terminal a count is shown once it takes long."""
    due_s = time.monotonic() + _PATIENCE_S
    is_shown = False

    def show(count: int) -> None:
        nonlocal due_s, is_shown
        if sys.stderr.isatty() and time.monotonic() >= due_s:
            due_s, is_shown = time.monotonic() + 0.2, True
            sys.stderr.write(f"\r{count:,} records read")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if is_shown:
            sys.stderr.write("\r\033[K")
