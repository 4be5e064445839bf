"""``ai-responses matrix``: how complete each run is, and which cell of a run is done, failed or missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..filters import Filters
from ._complete import run_ids
from ._console import (
    EXIT_NOT_WELL,
    FileOption,
    JsonOption,
    UtcOption,
    console,
    plain,
    print_json,
    print_line,
    print_wrapped,
)
from ._filters import with_filters
from ._reading import records_of
from ._shown import shown_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..matrix.grid import Cell, Column, Grid

__all__ = ["matrix", "print_grid"]

_SHOWN: Final = {"done": ("ok", "green"), "failed": ("FAIL", "bold red"), "missing": ("-", "yellow")}
_CELL_WIDTH: Final = max(len(text) for text, _ in _SHOWN.values())
_GAP: Final = 2  # between two columns
_LABEL_WIDTH: Final = 24  # of a question, at least, before names of models give way to numbers
_MOST_ROWS: Final = 100  # of a longer run only the rows that are not well are shown
_MOST_FAILURES: Final = 10
_WIDE: Final = 90  # a run's UUID and its time side by side

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="EXECUTION_ID",
        help="One run; the beginning of its id is enough where it is unique.",
        show_default=False,
        autocompletion=run_ids,
    ),
]


@with_filters
def matrix(
    run_id: Run = None,
    *,
    filters: Filters,
    file: FileOption = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table in GitHub's Markdown, for a pull request or an issue.")
    ] = False,
    utc: UtcOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Show how complete a run is, cell by cell.

    Questions down, models across. Without an id, all runs of the log and how complete each is. The options that
    choose records choose a part of each run: --platform and --model its models, the others its questions, and
    figures and exit code are those of that part. Exit code 1 if a cell failed or is missing.

    Example: ai-responses matrix exec_2026 --markdown
    """
    from ..matrix.grid import grids_of
    from ..record import default_log_path
    from ._markdown import markdown_of_grid, markdown_of_runs

    if markdown and as_json:
        raise typer.BadParameter("give --markdown or --json, not both", param_hint="--markdown")
    path = default_log_path(file)
    grids = grids_of(records_of(path, "matrix"), filters)
    if run_id is None:
        chosen = list(grids.values())
        if markdown:
            print_line(markdown_of_runs(chosen, utc=utc))
        else:
            _print_runs(chosen, path, as_json=as_json, utc=utc)
    else:
        grid = grids[_whole_id(run_id, grids, path, is_filtered=bool(filters))]
        chosen = [grid]
        if markdown:
            print_line(markdown_of_grid(grid, _names_of(grid.columns), _rows_of(grid)))
        elif as_json:
            print_json(grid.to_dict())
        else:
            print_grid(grid)
    if not all(grid.is_complete for grid in chosen):
        raise typer.Exit(EXIT_NOT_WELL)


def _whole_id(beginning: str, grids: Mapping[str, Grid], path: str, *, is_filtered: bool) -> str:
    found = [beginning] if beginning in grids else [name for name in grids if name.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")  # noqa: PLR2004  as above
        raise typer.BadParameter(f"{beginning!r} begins {len(found)} runs: {some}", param_hint="EXECUTION_ID")
    raise typer.BadParameter(
        f"{path} has no run {beginning!r}{' with what was asked for' if is_filtered else ''}; without an id all are "
        "listed",
        param_hint="EXECUTION_ID",
    )


def _print_runs(grids: Sequence[Grid], path: str, *, as_json: bool, utc: bool) -> None:
    if as_json:
        print_json([grid.to_dict(with_cells=False) for grid in grids])
        return
    if not grids:
        print_line(f"no run in {plain(path)}: no record of a call has an execution_id")
        return
    from rich.table import Table

    # No frame: 60 columns are few, and what is copied out of it stays clean.
    table = Table(box=None, pad_edge=False)
    screen = console()
    table.add_column("run", overflow="fold")
    table.add_column("begun", no_wrap=True)
    for heading in ("done", "failed", "missing"):
        table.add_column(heading, justify="right", no_wrap=True)
    for grid in grids:
        table.add_row(
            plain(grid.execution_id),
            shown_time(grid.first_s, utc=utc, timespec="minutes").replace(" ", " " if screen.width >= _WIDE else "\n"),
            f"{grid.done:,}/{grid.expected:,}",
            _figure(grid.failed, "failed"),
            _figure(grid.missing, "missing"),
        )
    screen.print(table)


def _figure(count: int, status: str) -> Text:
    from rich.text import Text

    return Text(f"{count:,}", style=_SHOWN[status][1] if count else "")


def print_grid(grid: Grid) -> None:
    """Print one run to standard output, as wide as the terminal allows."""
    print_line(
        f"{plain(grid.execution_id)}: {grid.done:,} of {grid.expected:,} done, "
        f"{grid.failed:,} failed, {grid.missing:,} missing"
    )
    rows = _rows_of(grid)
    if len(rows) > _MOST_ROWS:
        rows = {key: cells for key, cells in rows.items() if any(cell.status != "done" for cell in cells.values())}
        first = f", the first {_MOST_ROWS} of {len(rows):,}" if len(rows) > _MOST_ROWS else ""
        print_line(f"only questions with a failed or missing cell{first}:")
        rows = dict(list(rows.items())[:_MOST_ROWS])
    _print_tables(console(), grid, rows)
    _print_failures(grid)


_Row = tuple[int | None, int]  # the question's index, or a count of its own where it has none


def _rows_of(grid: Grid) -> dict[_Row, dict[Column, Cell]]:
    """Return the cells by question, then by column."""
    from ..matrix.grid import Column

    rows: dict[_Row, dict[Column, Cell]] = {}
    nameless = 0
    for cell in grid.cells:
        column = Column(cell.model_index, cell.platform, cell.model)
        if cell.question_index is None and column in rows.get((None, nameless), {}):
            nameless += 1  # cells come question by question, so a column seen again is the next one
        rows.setdefault((cell.question_index, nameless if cell.question_index is None else 0), {})[column] = cell
    return rows


def _names_of(columns: Sequence[Column]) -> list[str]:
    """Return short names: the model's, with its platform and number only where that is not enough."""
    names = [column.model or column.platform or "?" for column in columns]
    for parts in (("platform", "model"), ("model_index", "platform", "model")):
        longer = [" ".join(str(part) for key in parts if (part := getattr(column, key))) for column in columns]
        seen = Counter(names)
        names = [long if seen[name] > 1 else name for name, long in zip(names, longer, strict=True)]
    return [plain(name) for name in names]


def _print_tables(screen: Console, grid: Grid, rows: Mapping[_Row, Mapping[Column, Cell]]) -> None:
    """Print one table under the models' names or, where they leave too little room, tables under numbers."""
    from rich.cells import cell_len

    names = _names_of(grid.columns)
    room = screen.width - _LABEL_WIDTH
    if sum(max(cell_len(name), _CELL_WIDTH) + _GAP for name in names) <= room:
        _print_table(screen, grid, rows, dict(enumerate(names)))
        return
    most = max(1, room // (_CELL_WIDTH + _GAP))
    for first in range(0, len(names), most):
        numbers = range(first, min(first + most, len(names)))
        _print_table(screen, grid, rows, {at: str(at + 1) for at in numbers})
    for number, (name, column) in enumerate(zip(names, grid.columns, strict=True), 1):
        answers = Counter(cells[column].status for cells in _rows_of(grid).values() if column in cells)
        counts = ", ".join(f"{answers[status]:,} {status}" for status in _SHOWN if answers[status])
        print_line(f"{number:>4}  {name}: {counts}")


def _print_table(
    screen: Console, grid: Grid, rows: Mapping[_Row, Mapping[Column, Cell]], headings: Mapping[int, str]
) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    indices = ["" if index is None else str(index) for index, _ in rows]
    taken = max(map(len, indices), default=0) + _GAP
    taken += sum(max(cell_len(heading), _CELL_WIDTH) + _GAP for heading in headings.values())
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("question", no_wrap=True, overflow="ellipsis", max_width=max(screen.width - taken, 8))
    for heading in headings.values():
        table.add_column(heading, no_wrap=True, min_width=_CELL_WIDTH)
    for text, ((index, _), cells) in zip(indices, rows.items(), strict=True):
        shown = (cells.get(grid.columns[at]) for at in headings)
        marks = (_SHOWN[cell.status] if cell else ("", "") for cell in shown)
        label = " ".join(plain(grid.labels.get(index, "") if index else "?").split())
        table.add_row(text, label, *(Text(mark, style=style) for mark, style in marks))
    screen.print(table)


def _print_failures(grid: Grid) -> None:
    failed = [cell for cell in grid.cells if cell.status == "failed"]
    if failed:
        print_line()
    for cell in failed[:_MOST_FAILURES]:
        what = f"question {cell.question_index}, {cell.platform or '?'} {cell.model or '?'}"
        print_wrapped(plain(f"FAIL {what}: {cell.error_type or 'no error_type'} ({cell.record_id})"))
    if len(failed) > _MOST_FAILURES:
        print_line(f"and {len(failed) - _MOST_FAILURES:,} more failed")
    unseen = grid.missing - sum(cell.status == "missing" for cell in grid.cells)
    if unseen:
        print_line(f"and {unseen:,} missing cells of questions or models that no record names")
