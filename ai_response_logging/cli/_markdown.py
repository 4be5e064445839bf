"""Runs as GitHub-flavoured Markdown, for a pull request, an issue or a summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ._console import plain
from ._shown import shown_time

if TYPE_CHECKING:
    from ..matrix.grid import Cell, Column, Grid

__all__ = ["markdown_of_grid", "markdown_of_runs"]

_MARKS: Final = {"done": "✅", "failed": "❌", "missing": "—"}
_MOST_ROWS: Final = 500  # GitHub cuts a comment at 65,536 characters
_LABEL_CHARS: Final = 80
# All that GitHub takes for more than itself within a line: emphasis, code, links, HTML, tables, mentions, issues.
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#|~&!$@^:])")
_WORDLESS: Final = re.compile(r"\s+")


def _text(text: object, most: int = 200) -> str:
    """Return *text* for a cell of a table: one line, nothing in it read as markup, a mention or a link."""
    one_line = _WORDLESS.sub(" ", plain(str(text))).strip()
    if len(one_line) > most:
        one_line = one_line[: most - 1].rstrip() + "…"
    escaped = _SPECIAL.sub(r"\\\1", one_line)
    # GitHub links bare addresses and names of people in spite of a backslash: an empty comment keeps them apart.
    return re.sub(r"(?i)\bwww\.", "www<!-- -->.", escaped).replace("\\@", "@<!-- -->").replace("\\:", ":<!-- -->")


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _figures(grid: Grid) -> tuple[str, str, str]:
    return f"{grid.done:,}/{grid.expected:,}", f"{grid.failed:,}", f"{grid.missing:,}"


def markdown_of_runs(grids: Sequence[Grid], *, utc: bool) -> str:
    """Return a table of runs: how complete each is."""
    if not grids:
        return "No run: no record of a call has an execution\\_id that was asked for."
    rows = [_row(("run", "begun", "", "done", "failed", "missing")), "|---|---|---|--:|--:|--:|"]
    for grid in grids:
        begun = shown_time(grid.first_s, utc=utc, timespec="minutes")
        mark = _MARKS["done" if grid.is_complete else "failed"]
        rows.append(_row((_text(grid.execution_id), begun, mark, *_figures(grid))))
    return "\n".join(rows)


def markdown_of_grid(
    grid: Grid, names: Sequence[str], rows: Mapping[tuple[int | None, int], Mapping[Column, Cell]]
) -> str:
    """
    Return one run: its figures, a table of questions by models, and each failed cell with its reason.

    Args:
        grid: The run.
        names: Of its columns.
        rows: Its cells by question (the index, or a count where it has none), then by column.
    """
    done, failed, missing = _figures(grid)
    mark = _MARKS["done" if grid.is_complete else "failed"]
    lines = [f"### {mark} Run {_text(grid.execution_id)}", "", f"{done} done, {failed} failed, {missing} missing", ""]
    shown = dict(list(rows.items())[:_MOST_ROWS])
    lines += [_row(("#", "question", *map(_text, names))), "|--:|---|" + ":-:|" * len(names)]
    for (index, _), cells in shown.items():
        label = _text(grid.labels.get(index, ""), _LABEL_CHARS) if index is not None else "?"
        marks = (_MARKS[cells[column].status] if column in cells else "" for column in grid.columns)
        lines.append(_row(("" if index is None else index, label, *marks)))
    if len(rows) > len(shown):
        lines += ["", f"and {len(rows) - len(shown):,} more questions"]
    return "\n".join([*lines, *_failures(grid)])


def _failures(grid: Grid) -> list[str]:
    failed = [cell for cell in grid.cells if cell.status == "failed"][:_MOST_ROWS]
    if not failed:
        return []
    lines = ["", f"<details><summary>{grid.failed:,} failed</summary>", ""]
    lines += [_row(("question", "platform", "model", "error", "record")), "|--:|---|---|---|---|"]
    for cell in failed:
        what = (cell.platform or "?", cell.model or "?", cell.error_type or "no error_type", cell.record_id or "")
        lines.append(_row((cell.question_index or "?", *map(_text, what))))
    if grid.failed > len(failed):
        lines += ["", f"and {grid.failed - len(failed):,} more failed"]
    return [*lines, "", "</details>"]
