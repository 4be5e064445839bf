from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import ModelSpec, Plan
from ai_response_logging.matrix.cells import CellIndex, Logged, cells_of, cells_to_run, deal, filled_grid, logged_cells
from ai_response_logging.matrix.grid import grid_of

PLAN = Plan(["why?", "how?"], [ModelSpec("p", "a"), ModelSpec("p", "b")])


def record(cell: tuple[int, int] = (1, 1), **changes: Any) -> dict[str, Any]:
    """Return a record of that cell of PLAN."""
    question_index, model_index = cell
    fields = {
        "event": "response", "execution_id": "run", "record_id": f"id-{question_index}-{model_index}",
        "question_index": question_index, "model_index": model_index, "total_questions": 4,
        "question": ("why?", "how?")[question_index - 1], "platform": "p", "model": "ab"[model_index - 1],
        "success": True, "unix_timestamp": 100.0,
    }  # fmt: skip
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
def test_dealing_gives_each_cell_to_one_worker_and_shares_evenly(questions: int, models: int, processes: int):
    """No cell is dealt twice or forgotten, and no worker has more than one cell above another."""
    cells = [CellIndex(q, m) for q in range(1, questions + 1) for m in range(1, models + 1)]

    hands = deal(cells, processes)

    assert sorted(cell for hand in hands for cell in hand) == cells
    assert len(hands) == min(processes, len(cells))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_dealing_spreads_a_slow_model_over_the_workers():
    """With as many workers as models, no worker asks one model alone."""
    cells = [CellIndex(q, m) for q in range(1, 5) for m in range(1, 5)]

    assert all({cell.model_index for cell in hand} == {1, 2, 3, 4} for hand in deal(cells, 4))


def test_log_tells_which_cells_are_left():
    """Cells with a record are not asked again, unless failed ones are wanted."""
    logged = logged_cells(
        [
            record((1, 1)),
            record((1, 2), success=False),
            record((2, 1), execution_id="another"),
            record((2, 1), event="start", success=None),
            record((2, 1), event="attempt", success=False),
        ],
        PLAN,
        "run",
    )

    assert cells_to_run(PLAN, logged, retry_failed=False) == [(2, 1), (2, 2)]
    assert cells_to_run(PLAN, logged, retry_failed=True) == [(1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("newest_first", [True, False])
def test_newest_record_of_a_cell_counts_wherever_it_stands(newest_first: bool):
    """Time decides, not the position in the file."""
    records = [
        record(success=False, record_id="old", unix_timestamp=1.0),
        record(success=True, record_id="new", unix_timestamp=2.0),
    ]

    logged = logged_cells(reversed(records) if newest_first else records, PLAN, "run")

    assert logged == {CellIndex(1, 1): Logged(True, "new", 2.0)}


@pytest.mark.parametrize("late_first", [True, False])
def test_cancelled_call_never_counts_against_an_answer(late_first: bool):
    """What a killed run's process logs late does not undo the answer that a resumed run has had meanwhile."""
    records = [
        record(success=True, record_id="answer", unix_timestamp=1.0),
        record(success=False, error_type="cancelled", record_id="late", unix_timestamp=2.0),
    ]
    ordered = list(reversed(records) if late_first else records)

    logged = logged_cells(ordered, PLAN, "run")
    [cell, *_] = filled_grid(grid_of(ordered, "run"), PLAN).cells

    assert logged[CellIndex(1, 1)].record_id == "answer"
    assert (1, 1) not in cells_to_run(PLAN, logged, retry_failed=True)
    assert (cell.status, cell.record_id) == ("done", "answer")


def test_record_without_a_model_index_is_found_by_its_model():
    """Writers that count no models are understood."""
    logged = logged_cells([record((2, 2), model_index=None)], PLAN, "run")

    assert list(logged) == [(2, 2)]


@pytest.mark.parametrize("other", [record(question_index=None), record(model_index=None, model="unknown")])
def test_record_in_no_cell_is_passed_over(other: dict[str, Any]):
    """A call that somebody logged under the same id, outside the grid, changes nothing."""
    assert logged_cells([other], PLAN, "run") == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"total_questions": 6}, "6 cells, the plan has 4"),
        ({"question": "who?"}, "question 1 is 'who?' in the log, 'why?' in the plan"),
        ({"question": "x" * 100}, "x... in the log"),
        ({"model": "c"}, "model 1 is p c in the log, p a in the plan"),
        ({"platform": "q"}, "model 1 is q a in the log, p a in the plan"),
        ({"question_index": 3}, "question 3 of model 1"),
        ({"model_index": 0}, "question 1 of model 0"),
    ],
)
def test_log_of_another_plan_is_refused(changes: dict[str, Any], says: str):
    """Nothing is asked when the answers would stand in the wrong cells; the difference is named."""
    with pytest.raises(ConfigError) as caught:
        logged_cells([record(**changes)], PLAN, "run")

    assert says in str(caught.value)


@pytest.mark.parametrize("mark", ["redacted", "encode_errors"])
def test_changed_text_is_not_compared(mark: str):
    """A question that was redacted or repaired on its way into the log still belongs to its cell."""
    changed = record(question="[gone]", **{mark: [{"path": "question"}]})

    assert list(logged_cells([changed], PLAN, "run")) == [(1, 1)]


def test_grid_of_a_run_is_filled_with_what_only_the_plan_knows():
    """Every cell of the plan is there, whatever was never logged as missing, and nothing else."""
    other = record((1, 1), model="stray", model_index=9)
    records = [record((1, 1)), record((2, 1), success=False), other, record((2, 2), model_index=None)]

    grid = filled_grid(grid_of(records, "run"), PLAN)

    assert [(cell.question_index, cell.model_index) for cell in grid.cells] == cells_of(PLAN)
    assert [cell.status for cell in grid.cells] == ["done", "missing", "failed", "done"]
    assert [cell.record_id for cell in grid.cells] == ["id-1-1", None, "id-2-1", "id-2-2"]
    assert (grid.expected, grid.done, grid.failed, grid.missing) == (4, 2, 1, 1)
    assert [column.model for column in grid.columns] == ["a", "b"]
    assert grid.labels == {1: "why?", 2: "how?"}


def test_grid_of_a_run_without_a_record_is_all_missing():
    """A run that never came to write is not complete, but missing."""
    grid = filled_grid(grid_of([], "run"), PLAN)

    assert (grid.expected, grid.missing, grid.is_complete) == (4, 4, False)
    assert {cell.status for cell in grid.cells} == {"missing"}
