"""``ai-responses stats``: success, latency and tokens, by platform and model unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from ..filters import Filters
from ._console import FileOption, JsonOption, console, plain, print_json, print_line
from ._filters import with_filters
from ._reading import bad_lines_noted

__all__ = ["stats"]

_MOST_GROUPS: Final = 200
_PERCENT: Final = 100

ByOption = Annotated[
    str,
    typer.Option(
        metavar="FIELDS", help="Fields to group by, with commas between them: provider, brand, error_type, ..."
    ),
]


@with_filters
def stats(
    *, by: ByOption = "platform,model", file: FileOption = None, as_json: JsonOption = False, filters: Filters
) -> None:
    """
    Show how many calls succeeded, how long they took and what they used.

    Calls that ended count, with or without an answer; percentiles are exact. Lines of all shapes, rotated files and
    journals are read; with the extra `analysis` in a fraction of the time, with the same figures.

    Example: ai-responses stats --by model --since 24h
    """
    from ..analysis import stats as figures_of
    from ..record import default_log_path

    path = default_log_path(file)
    fields = [name.strip() for name in by.split(",") if name.strip()]
    try:
        with bad_lines_noted(path) as note:
            figures = figures_of(path, by=fields, filters=filters, on_bad=note)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--by") from None
    if as_json:
        print_json(figures)
    else:
        _print(figures, fields)


def _print(figures: Mapping[str, Any], fields: list[str]) -> None:
    from rich.table import Table

    groups = figures["groups"]
    print_line(
        f"{figures['records']:,} calls: {figures['succeeded']:,} succeeded, {figures['failed']:,} failed"
        + (f"; {figures['bad_lines']:,} bad line{'s' * (figures['bad_lines'] != 1)}" if figures["bad_lines"] else "")
    )
    if not groups:
        return
    table = Table(box=None, pad_edge=False)
    for name in fields:
        table.add_column(name, overflow="fold")
    for heading in ("calls", "failed", "success", "p50 ms", "p95 ms", "p99 ms", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in groups[:_MOST_GROUPS]:
        table.add_row(
            *("-" if group[name] is None else plain(str(group[name])) for name in fields),
            f"{group['records']:,}",
            f"{group['failed']:,}",
            f"{_PERCENT * group['success_rate']:.1f} %",
            *("-" if value is None else f"{value:,.0f}" for value in group["latency_ms"].values()),
            f"{group['tokens']:,}",
        )
    console().print(table)
    if len(groups) > _MOST_GROUPS:
        print_line(f"and {len(groups) - _MOST_GROUPS:,} more: --json has all")
