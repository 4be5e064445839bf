"""The cells of a run: which there are, who asks which, and which of them a log holds already; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ..errors import ConfigError
from .grid import Cell, Column, Grid, answer_weight
from .plan import Plan

_SHOWN_CHARS: Final = 60
_LABEL_CHARS: Final = 120


class CellIndex(NamedTuple):
    """Which question of which model; both count from 1."""

    question_index: int
    model_index: int


class Logged(NamedTuple):
    """The record of a cell that counts."""

    success: bool
    record_id: str
    unix_timestamp: float
    error_type: str | None = None

    @property
    def weight(self) -> tuple[bool, float]:
        """What decides between two records of a cell."""
        return answer_weight(self.error_type, self.unix_timestamp)


def cells_of(plan: Plan) -> list[CellIndex]:
    """Return every cell of *plan*, question by question, so that a run spreads its calls over all models."""
    return [CellIndex(q, m) for q in range(1, len(plan.questions) + 1) for m in range(1, len(plan.models) + 1)]


def deal(cells: Sequence[CellIndex], processes: int) -> list[list[CellIndex]]:
    """
    Deal *cells* to at most *processes* workers, one each in turn; none gets an empty hand.

    Each round begins one worker further on. Otherwise, where the number of models is a multiple of that of the
    workers, the same worker would ask the slow model every time.
    """
    hands: list[list[CellIndex]] = [[] for _ in range(min(processes, len(cells)))]
    for at, cell in enumerate(cells):
        hands[(at + at // len(hands)) % len(hands)].append(cell)
    return hands


def logged_cells(records: Iterable[Mapping[str, Any]], plan: Plan, execution_id: str) -> dict[CellIndex, Logged]:
    """
    Return the newest record of each cell of *execution_id* that *records* hold.

    Raises:
        ConfigError: They are the records of another plan: another number of cells, other questions or models.
    """
    found: dict[CellIndex, Logged] = {}
    for record in records:
        if record.get("execution_id") != execution_id or record.get("event", "response") != "response":
            continue
        cell = _cell_of(record, plan)
        if cell is None:
            continue
        _check_fits(record, cell, plan, execution_id)
        unix_s = record.get("unix_timestamp")
        logged = Logged(
            record.get("success") is True,
            str(record.get("record_id", "")),
            float(unix_s) if isinstance(unix_s, int | float) else 0.0,
            record.get("error_type"),
        )
        if cell not in found or logged.weight >= found[cell].weight:
            found[cell] = logged
    return found


def cells_to_run(plan: Plan, logged: Mapping[CellIndex, Logged], *, retry_failed: bool) -> list[CellIndex]:
    """Return the cells that *logged* lacks and, with *retry_failed*, those whose newest record is a failure."""
    return [
        cell for cell in cells_of(plan) if cell not in logged or (retry_failed and not logged[cell].success)
    ]  # fmt: skip


def filled_grid(grid: Grid, plan: Plan) -> Grid:
    """
    Return *grid* with every cell of *plan* and no other, question by question.

    What a log alone cannot know, since nothing of it was ever logged, the plan does: whole models and questions that
    are missing, and all of a run that has no record at all.
    """
    by_index = {(cell.question_index, cell.model_index): cell for cell in grid.cells}
    by_name = {
        (cell.question_index, cell.platform, cell.model): cell for cell in grid.cells if cell.model_index is None
    }

    def cell_at(at: CellIndex) -> Cell:
        spec = plan.models[at.model_index - 1]
        found = by_index.get(at) or by_name.get((at.question_index, spec.platform, spec.model))
        known = found or Cell(at.question_index, spec.platform, spec.model, "missing")
        return replace(known, model_index=at.model_index)

    cells = tuple(map(cell_at, cells_of(plan)))
    statuses = Counter(cell.status for cell in cells)
    return replace(
        grid,
        expected=len(cells),
        done=statuses["done"],
        failed=statuses["failed"],
        missing=statuses["missing"],
        cells=cells,
        columns=tuple(Column(at, spec.platform, spec.model) for at, spec in enumerate(plan.models, start=1)),
        labels={at: plan.question(at).text[:_LABEL_CHARS] for at in range(1, len(plan.questions) + 1)},
    )


def _cell_of(record: Mapping[str, Any], plan: Plan) -> CellIndex | None:
    """Return the cell of *record*; None if it is in none, as a call somebody else logged under this id."""
    question_index, model_index = record.get("question_index"), record.get("model_index")
    if not isinstance(question_index, int):
        return None
    if isinstance(model_index, int):
        return CellIndex(question_index, model_index)
    # Other writers count no models: then platform and model say which it is.
    for at, spec in enumerate(plan.models, start=1):
        if (spec.platform, spec.model) == (record.get("platform"), record.get("model")):
            return CellIndex(question_index, at)
    return None


def _check_fits(record: Mapping[str, Any], cell: CellIndex, plan: Plan, execution_id: str) -> None:
    expected = record.get("total_questions")
    if isinstance(expected, int) and expected != plan.cell_count:
        _refuse(execution_id, f"its records speak of {expected} cells, the plan has {plan.cell_count}")
    if not (1 <= cell.question_index <= len(plan.questions) and 1 <= cell.model_index <= len(plan.models)):
        _refuse(execution_id, f"the log has a record for question {cell.question_index} of model {cell.model_index}")
    spec = plan.models[cell.model_index - 1]
    if (record.get("platform"), record.get("model")) != (spec.platform, spec.model):
        in_log = f"{record.get('platform')} {record.get('model')}"
        _refuse(
            execution_id, f"model {cell.model_index} is {in_log} in the log, {spec.platform} {spec.model} in the plan"
        )
    # A redacted or repaired text cannot be compared with the one that was asked.
    if record.get("redacted") or record.get("encode_errors"):
        return
    asked, planned = record.get("question"), plan.question(cell.question_index).text
    if asked != planned:
        _refuse(
            execution_id,
            f"question {cell.question_index} is {_shown(asked)} in the log, {_shown(planned)} in the plan",
        )


def _refuse(execution_id: str, difference: str) -> None:
    raise ConfigError(
        f"the plan is not the one execution {execution_id} was started with: {difference}; nothing was asked. "
        "Resume with that plan, or start a new execution with this one"
    )


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."
