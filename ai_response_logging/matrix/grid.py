"""
How complete a run is: questions down, models across, one cell for each call that was to be made.

Pure: records in, grids out. Memory grows with the cells, not with the records or their texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from ..filters import Filters
from ..record import provider_of

__all__ = ["Cell", "Column", "Grid", "grid_of", "grids_of", "runs_of"]

_LABEL_CHARS: Final = 120
_MOST_EXPECTED: Final = 10_000_000  # more is no run but a slip
_MOST_LISTED: Final = 1_000_000  # cells of questions that no line names; a slip must not fill the memory with them


class Column(NamedTuple):
    """One model of a run; *model_index* is None where the lines do not say."""

    model_index: int | None
    platform: str | None
    model: str | None


class _Row(NamedTuple):
    """One question: by its index or, where lines have none, by its text."""

    question_index: int | None
    text_hash: int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """
    One call of a run.

    Attributes:
        question_index: From 1, or None where the lines have none.
        platform: As logged.
        model: As logged.
        status: ``done``, ``failed`` or ``missing``; the newest answer counts, and a cancelled call only without one.
        record_id: Of that answer; None while missing.
        model_index: From 1, where known.
        error_type: Why it failed, as far as the answer says.
    """

    question_index: int | None
    platform: str | None
    model: str | None
    status: str
    record_id: str | None = None
    model_index: int | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """
    One run.

    Attributes:
        execution_id: Which run.
        expected: How many cells it has to have: ``total_questions`` where lines say it, else questions x models seen.
        done: Cells whose newest answer succeeded.
        failed: Cells whose newest answer did not.
        missing: Cells without an answer.
        cells: By question, then by model. Missing ones stand here as far as both their coordinates are known.
        columns: The models, by index where known, else in the order seen.
        labels: The beginning of each question's text, by its index.
        first_s: When its first record was logged, in seconds since 1970; None where no line says.
        last_s: The same for its last record.
    """

    execution_id: str
    expected: int
    done: int
    failed: int
    missing: int
    cells: tuple[Cell, ...] = ()
    columns: tuple[Column, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    first_s: float | None = None
    last_s: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every cell is there and succeeded."""
        return self.failed == 0 and self.missing == 0

    def to_dict(self, *, with_cells: bool = True) -> dict[str, Any]:
        """Return the grid as ``ai-responses matrix --json`` prints it."""
        figures: dict[str, Any] = {
            "execution_id": self.execution_id,
            "expected": self.expected,
            "done": self.done,
            "failed": self.failed,
            "missing": self.missing,
            "first_unix_timestamp": self.first_s,
            "last_unix_timestamp": self.last_s,
        }
        if with_cells:
            figures["cells"] = [asdict(cell) for cell in self.cells]
        return figures


def grid_of(records: Iterable[Mapping[str, Any]], execution_id: str) -> Grid:
    """
    Return the grid of one run; nothing expected and no cells when no record belongs to it.

    Args:
        records: Flat records, as :func:`~ai_response_logging.reader.read_log` yields them; read once.
        execution_id: The whole id.

    .. versionadded:: 0.1.0
    """
    run = _Run(execution_id)
    for record in records:
        if record.get("execution_id") == execution_id:
            run.add(record)
    return run.grid()


def grids_of(records: Iterable[Mapping[str, Any]], filters: Filters | None = None) -> dict[str, Grid]:
    """
    Return the grids of all runs by their execution_id, in the order in which they begin.

    Args:
        records: Flat records; read once.
        filters: Which part of each run: ``platform`` and ``model`` choose models, the others questions, namely those
            of which a record matches (``failed``: of which a cell is failed in the end). A hole within that part
            stays one, and a run of which nothing is chosen is left out.

    .. versionadded:: 0.1.0
    """
    choice = _Choice(filters or Filters())
    runs: dict[str, _Run] = {}
    for record in records:
        execution_id = record.get("execution_id")
        if isinstance(execution_id, str) and execution_id and choice.wants_run(execution_id):
            run = runs.setdefault(execution_id, _Run(execution_id))
            run.add(record)
            if choice.by_record is not None and choice.by_record.match(record):
                run.choose(record)
    grids = {execution_id: run.grid(choice) for execution_id, run in runs.items()}
    return {name: grid for name, grid in grids.items() if grid.cells or not filters}


def runs_of(records: Iterable[Mapping[str, Any]]) -> list[Grid]:
    """
    Return all runs, the earliest first.

    .. versionadded:: 0.1.0
    """
    return list(grids_of(records).values())


class _Choice:
    """What the filters of a reader mean for a run: some of its models, and some of its questions."""

    def __init__(self, filters: Filters) -> None:
        self._execution_id = filters.execution_id
        self._by_column = Filters(platform=filters.platform, model=filters.model)
        by_record = replace(filters, execution_id=None, failed=False)
        self.by_record = by_record if by_record != self._by_column else None
        """What a record of a question must be; None where that chooses no questions."""
        self.failed = filters.failed
        self.is_whole = filters in (Filters(), Filters(execution_id=filters.execution_id))
        """Whether a run is taken as it is."""

    def wants_run(self, execution_id: str) -> bool:
        """Say whether a run is wanted at all."""
        return self._execution_id in (None, execution_id)

    def wants_column(self, column: Column) -> bool:
        """Say whether a model is wanted."""
        provider = provider_of(column.platform) if column.platform else None
        return self._by_column.match({"platform": column.platform, "provider": provider, "model": column.model})


def answer_weight(error_type: object, unix_s: float) -> tuple[bool, float]:
    """
    Return what decides between two answers of a cell: the newest, but a call that was cancelled never against another.

    A killed run's processes log what they had in flight as cancelled when they notice, which can be after a resumed
    run has had its answer.
    """
    return (error_type != "cancelled", unix_s)


class _Answer(NamedTuple):
    unix_s: float
    status: str
    record_id: str | None
    error_type: str | None

    @property
    def weight(self) -> tuple[bool, float]:
        return answer_weight(self.error_type, self.unix_s)


class _Run:
    """One run while its records come in."""

    def __init__(self, execution_id: str) -> None:
        self._execution_id = execution_id
        self._rows: dict[_Row, None] = {}
        self._columns: dict[Column, None] = {}
        self._answers: dict[tuple[_Row, Column], _Answer] = {}
        self._labels: dict[int, str] = {}
        self._total_cells = self._total_models = 0
        self._chosen: set[_Row] = set()
        self._first_s: float | None = None
        self._last_s: float | None = None

    def choose(self, record: Mapping[str, Any]) -> None:
        """Note that the question of *record* is wanted."""
        self._chosen.add(_row_of(record))

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record of this run."""
        row, column = _row_of(record), _column_of(record)
        if column.platform is None and column.model is None:
            return  # a remark about the run, no call to a model
        self._rows[row] = self._columns[column] = None
        self._total_cells = max(self._total_cells, _index(record.get("total_questions"), most=_MOST_EXPECTED) or 0)
        self._total_models = max(self._total_models, _index(record.get("total_models"), most=_MOST_EXPECTED) or 0)
        if row.question_index is not None and isinstance(text := record.get("question"), str):
            self._labels.setdefault(row.question_index, text[:_LABEL_CHARS])
        unix_s = self._note_time(record.get("unix_timestamp"))
        if record.get("event", "response") not in {"response", "tombstone"}:
            return  # a call that began or was tried: it has coordinates, but no outcome yet
        known, answer = self._answers.get((row, column)), _answer_of(record, unix_s)
        if known is None or answer.weight >= known.weight:
            self._answers[row, column] = answer

    def _note_time(self, unix_timestamp: object) -> float:
        if isinstance(unix_timestamp, bool) or not isinstance(unix_timestamp, int | float):
            return self._last_s or 0.0  # no time: what stands later in the log is newer
        unix_s = float(unix_timestamp)
        self._first_s = unix_s if self._first_s is None else min(self._first_s, unix_s)
        self._last_s = unix_s if self._last_s is None else max(self._last_s, unix_s)
        return unix_s

    def grid(self, choice: _Choice | None = None) -> Grid:
        """Return what the records add up to, or the part of it that *choice* wants."""
        whole = self._whole_grid()
        if choice is None or choice.is_whole:
            return whole
        columns = [column for column in whole.columns if choice.wants_column(column)]
        rows = sorted({*self._rows, *self._rows_unseen(whole.expected)}, key=_row_order)
        if choice.by_record is not None:
            rows = [row for row in rows if row in self._chosen]
        if choice.failed:
            rows = [row for row in rows if any(self._status(row, column) == "failed" for column in columns)]
        cells = tuple(self._cells(rows, columns, whole.expected))
        counts = Counter(cell.status for cell in cells)
        return replace(
            whole, expected=len(cells), done=counts["done"], failed=counts["failed"], missing=counts["missing"],
            cells=cells, columns=tuple(columns),
        )  # fmt: skip

    def _status(self, row: _Row, column: Column) -> str:
        return self._answers.get((row, column), _MISSING).status

    def _whole_grid(self) -> Grid:
        columns = sorted(self._columns, key=lambda column: column.model_index or len(self._columns) + _MOST_EXPECTED)
        expected = max(self._total_cells or len(self._rows) * len(columns), len(self._answers))
        statuses = Counter(answer.status for answer in self._answers.values())
        rows = sorted({*self._rows, *self._rows_unseen(expected)}, key=_row_order)
        return Grid(
            execution_id=self._execution_id,
            expected=expected,
            done=statuses["done"],
            failed=statuses["failed"],
            missing=expected - len(self._answers),
            cells=tuple(self._cells(rows, columns, expected)),
            columns=tuple(columns),
            labels=self._labels,
            first_s=self._first_s,
            last_s=self._last_s,
        )

    def _rows_unseen(self, expected: int) -> Iterable[_Row]:
        """Return every question of the run, where its lines say how many models share the expected cells."""
        if not self._total_models or expected % self._total_models or expected > _MOST_LISTED:
            return ()
        return (_Row(index, None) for index in range(1, expected // self._total_models + 1))

    def _cells(self, rows: list[_Row], columns: list[Column], expected: int) -> Iterable[Cell]:
        # Where coordinates and the expected number contradict each other, never list more holes than there are.
        holes = expected - len(self._answers)
        for row in rows:
            for column in columns:
                answer = self._answers.get((row, column))
                if answer is None:
                    if holes <= 0:
                        continue
                    holes -= 1
                    answer = _MISSING
                yield Cell(
                    row.question_index, column.platform, column.model, answer.status, answer.record_id,
                    column.model_index, answer.error_type,
                )  # fmt: skip


_MISSING: Final = _Answer(0.0, "missing", None, None)


def _answer_of(record: Mapping[str, Any], unix_s: float) -> _Answer:
    is_done = record.get("success") is True and record.get("event") != "tombstone"
    error_type = None if is_done else _text(record.get("error_type"))
    return _Answer(unix_s, "done" if is_done else "failed", _text(record.get("record_id")), error_type)


def _row_of(record: Mapping[str, Any]) -> _Row:
    index = _index(record.get("question_index"))
    return _Row(index, None if index else hash(_text(record.get("question"))))


def _row_order(row: _Row) -> tuple[bool, int]:
    return (row.question_index is None, row.question_index or 0)


def _column_of(record: Mapping[str, Any]) -> Column:
    return Column(_index(record.get("model_index")), _text(record.get("platform")), _text(record.get("model")))


def _index(value: object, most: int = 2**53) -> int | None:
    """Return a number from 1 to *most*, else None; existing callers also write it as text or with a point."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:  # noqa: PLR2004  2**53 has 16
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
