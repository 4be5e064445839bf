"""The matrices of runs as the page draws them: one letter a cell; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..matrix.grid import Cell, Column, Grid
from ._calls import size_of, text_of

__all__ = ["runs_shown"]

_LETTERS: Final = {"done": "d", "failed": "f", "missing": "m"}
_MOST_RUNS: Final = 500
_MOST_BYTES: Final = 1_000_000  # of all runs together, the newest first
_MOST_COLUMNS: Final = 200
_MOST_NAME_CHARS: Final = 120
_WELL: Final = frozenset("d ")


def runs_shown(
    grids: Sequence[Grid], calls: Sequence[Mapping[str, Any]], questions: Mapping[str, str]
) -> list[dict[str, Any]]:
    """
    Return the runs for the page, the newest first.

    ``{"execution_id", "expected", "done", "failed", "missing", "first_s", "last_s", "columns", "rows"}``; *columns* are
    ``[platform, model]``, *rows* ``{"index", "label", "cells": one letter a column: d, f, m, or a space for none,
    "calls": {column: place in calls}}``. Both are None for a run that has no room in the page any more; of one with too
    many questions some rows are left out, and *rows_in_all* says how many there are.

    Args:
        grids: In the order in which the runs begin.
        calls: Whose texts the page has.
        questions: By record_id, of those without a number.
    """
    places = {call["record_id"]: at for at, call in enumerate(calls) if "record_id" in call}
    shown, bytes_left = [], _MOST_BYTES
    for grid in reversed(grids[-_MOST_RUNS:]):
        run: dict[str, Any] = {
            "execution_id": text_of(grid.execution_id, _MOST_NAME_CHARS),
            "expected": grid.expected,
            "done": grid.done,
            "failed": grid.failed,
            "missing": grid.missing,
            "first_s": grid.first_s,
            "last_s": grid.last_s,
            "columns": None,
            "rows": None,
        }
        if bytes_left > 0:
            names = [(one.platform, one.model) for one in grid.columns[:_MOST_COLUMNS]]
            run["columns"] = [[text_of(name, _MOST_NAME_CHARS) for name in pair] for pair in names]
            run["columns_in_all"] = len(grid.columns)
            bytes_left -= size_of(run)
            rows = [_row(row, grid, places, questions) for row in _in_order(_rows_of(grid, questions), questions)]
            run["rows"] = _as_many_as_fit(rows, bytes_left)
            run["rows_in_all"] = len(rows)
            bytes_left -= size_of(run["rows"])
        shown.append(run)
    return shown


def _as_many_as_fit(rows: list[dict[str, Any]], most_bytes: int) -> list[dict[str, Any]]:
    """Return the rows that fit into *most_bytes*, in their order; those with a failed or missing cell go first."""
    order = sorted(range(len(rows)), key=lambda at: _WELL.issuperset(rows[at]["cells"]))
    taken = []
    for at in order:
        most_bytes -= size_of(rows[at])
        if most_bytes < 0:
            break
        taken.append(at)
    return [rows[at] for at in sorted(taken)]


def _in_order(rows: Iterable[dict[int, Cell]], questions: Mapping[str, str]) -> list[dict[int, Cell]]:
    """Return the rows by number; those without one, whose order in the grid means nothing, as they came in the log."""
    seen = {record_id: at for at, record_id in enumerate(questions)}

    def place(row: dict[int, Cell]) -> tuple[int, int]:
        index = next(iter(row.values())).question_index
        if index is not None:
            return (0, index)
        return (1, min((seen[cell.record_id] for cell in row.values() if cell.record_id in seen), default=len(seen)))

    return sorted(rows, key=place)


def _rows_of(grid: Grid, questions: Mapping[str, str]) -> Iterator[dict[int, Cell]]:
    """Yield the cells of each question by column; without a number, a row ends where the columns begin again."""
    order = {column: at for at, column in enumerate(grid.columns)}
    row: dict[int, Cell] = {}
    last: tuple[int | None, str | None] = (None, None)
    for cell in grid.cells:
        at = order[Column(cell.model_index, cell.platform, cell.model)]
        key = (cell.question_index, questions.get(cell.record_id or "") if cell.question_index is None else None)
        is_other_text = None not in {key[1], last[1]} and key[1] != last[1]
        if row and (key[0] != last[0] or at <= max(row) or is_other_text):
            yield row
            row, last = {}, (None, None)
        row[at] = cell
        last = (key[0], key[1] or last[1])
    if row:
        yield row


def _row(
    row: Mapping[int, Cell], grid: Grid, places: Mapping[str, int], questions: Mapping[str, str]
) -> dict[str, Any]:
    index = next(iter(row.values())).question_index
    texts = (questions.get(cell.record_id or "") for cell in row.values())
    label = grid.labels.get(index) if index is not None else next(filter(None, texts), None)
    columns = range(min(len(grid.columns), _MOST_COLUMNS))
    return {
        "index": index,
        "label": label,
        "cells": "".join(_LETTERS[row[at].status] if at in row else " " for at in columns),
        "calls": {
            at: places[cell.record_id]
            for at, cell in row.items()
            if cell.record_id is not None and cell.record_id in places
        },
    }
