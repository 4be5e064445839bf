"""How complete a run is, from its records alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.matrix.grid import Grid, grid_of, grids_of, runs_of


def answer(
    index: object, column: int, /, *, success: bool | None = True, at: float | None = 1.0, **fields: Any
) -> dict[str, Any]:
    """Return the record of one cell; None among the fields leaves one out."""
    record = {
        "execution_id": "run",
        "event": "response",
        "question_index": index,
        "question": f"text {index}",
        "platform": f"platform{column}",
        "model": f"model{column}",
        "model_index": column,
        "success": success,
        "unix_timestamp": at,
        "record_id": f"{index}/{column}@{at}",
        **fields,
    }
    return {key: value for key, value in record.items() if value is not None}


def figures(grid: Grid) -> tuple[int, int, int, int]:
    """Return the four figures of a grid."""
    return grid.expected, grid.done, grid.failed, grid.missing


def cells(grid: Grid) -> list[tuple[int | None, str | None, str]]:
    """Return what stands where."""
    return [(cell.question_index, cell.model, cell.status) for cell in grid.cells]


def test_complete_run_is_complete():
    """
    Every cell answered well: all done, nothing failed or missing.
    """
    grid = grid_of([answer(q, m, total_questions=6) for q in (1, 2) for m in (1, 2, 3)], "run")

    assert figures(grid) == (6, 6, 0, 0)
    assert grid.is_complete
    assert len(grid.cells) == 6


def test_expected_is_what_the_lines_say():
    """
    total_questions holds N x M; what is not there is missing, whether its coordinates are known or not.
    """
    grid = grid_of([answer(1, 1, total_questions=40)], "run")

    assert figures(grid) == (40, 1, 0, 39)
    assert cells(grid) == [(1, "model1", "done")]
    assert not grid.is_complete


def test_expected_without_a_total_is_questions_times_models_seen():
    """
    Where no line says how many calls there were to be, the rows and columns seen do.
    """
    grid = grid_of([answer(1, 1), answer(2, 2, success=False), answer(3, 1)], "run")

    assert figures(grid) == (6, 2, 1, 3)
    assert cells(grid) == [
        (1, "model1", "done"), (1, "model2", "missing"),
        (2, "model1", "missing"), (2, "model2", "failed"),
        (3, "model1", "done"), (3, "model2", "missing"),
    ]  # fmt: skip


def test_questions_nobody_asked_are_listed_where_the_lines_say_how_many_there_are():
    """
    With total_questions and total_models, cells of questions that no line names have known coordinates.
    """
    grid = grid_of([answer(1, 1, total_questions=6, total_models=2), answer(2, 2)], "run")

    assert [cell for cell in cells(grid) if cell[2] == "missing"] == [
        (1, "model2", "missing"), (2, "model1", "missing"), (3, "model1", "missing"), (3, "model2", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then", "status"), [(False, True, "done"), (True, False, "failed"), (False, False, "failed")]
)
@pytest.mark.parametrize("in_order", [True, False])
def test_newest_answer_of_a_cell_counts(first: bool, then: bool, status: str, in_order: bool):
    """
    A failed cell that was answered later is done; the time decides, not the place in the file.
    """
    records = [answer(1, 1, success=first, at=1.0), answer(1, 1, success=then, at=2.0)]
    grid = grid_of(records if in_order else records[::-1], "run")

    assert cells(grid) == [(1, "model1", status)]
    assert grid.cells[0].record_id == "1/1@2.0"


def test_answers_without_a_time_count_by_their_place():
    """
    Where no line has a time, what stands later in the log is newer.
    """
    grid = grid_of([answer(1, 1, success=False, at=None), answer(1, 1, at=None, record_id="later")], "run")

    assert grid.cells[0].record_id == "later"
    assert (grid.done, grid.first_s) == (1, None)


@pytest.mark.parametrize("event", ["start", "attempt"])
def test_call_that_only_began_is_missing(event: str):
    """
    A call that began or was tried has coordinates, but no outcome.
    """
    grid = grid_of([answer(1, 1), answer(1, 2, event=event)], "run")

    assert cells(grid) == [(1, "model1", "done"), (1, "model2", "missing")]


def test_tombstone_is_a_failed_cell():
    """
    A call that is known to have died failed, whatever else its record says.
    """
    assert cells(grid_of([answer(1, 1, event="tombstone")], "run")) == [(1, "model1", "failed")]


def test_record_without_success_failed():
    """
    Only success true is success.
    """
    grid = grid_of([answer(1, 1, success=None), {**answer(1, 2), "success": "yes"}], "run")

    assert (grid.done, grid.failed) == (0, 2)


def test_failed_cell_carries_its_error_type():
    """
    Why a cell failed is told beside it.
    """
    grid = grid_of([answer(1, 1, success=False, error_type="rate_limit"), answer(1, 2, error_type="odd")], "run")

    assert [cell.error_type for cell in grid.cells] == ["rate_limit", None]


def test_records_of_an_older_writer_without_event_or_model_index_count():
    """
    What existing callers write is a run too: no event, no model_index, an index as text.
    """
    record = answer("3", 1, event=None, model_index=None, total_questions="2", version="3.0-enhanced")
    grid = grid_of([record], "run")

    assert figures(grid) == (2, 1, 0, 1)
    assert grid.cells[0].question_index == 3


def test_questions_without_an_index_are_told_apart_by_their_text():
    """
    Five different questions are five rows, even where nobody counted them.
    """
    records = [answer(None, model, question=f"q{number}") for number in range(5) for model in (1, 2)]
    grid = grid_of(records, "run")

    assert figures(grid) == (10, 10, 0, 0)
    assert {cell.question_index for cell in grid.cells} == {None}


def test_columns_stand_by_their_index():
    """
    model_index orders the columns, whichever answered first; models without one come last, in the order seen.
    """
    records = [answer(1, 9, model_index=None), answer(1, 3), answer(1, 8, model_index=None), answer(1, 1)]

    assert [column.model for column in grid_of(records, "run").columns] == ["model1", "model3", "model9", "model8"]


def test_same_model_in_two_columns_is_two_columns():
    """
    One model asked with two temperatures stands twice; model_index tells them apart.
    """
    records = [answer(1, index, platform="p", model="m") for index in (1, 2)]

    assert figures(grid_of(records, "run")) == (2, 2, 0, 0)


def test_more_cells_than_announced_are_all_expected():
    """
    A total that is too small (the number of questions only) never makes a negative number of missing cells.
    """
    grid = grid_of([answer(q, m, total_questions=2) for q in (1, 2) for m in (1, 2)], "run")

    assert figures(grid) == (4, 4, 0, 0)


def test_contradicting_figures_list_no_more_holes_than_there_are():
    """
    Rows and columns seen may span more cells than the run was to have: the figures and the list agree.
    """
    grid = grid_of([answer(number, number, total_questions=4) for number in (1, 2, 3)], "run")

    assert figures(grid) == (4, 3, 0, 1)
    assert sum(cell.status == "missing" for cell in grid.cells) == 1


@pytest.mark.parametrize("total", [10**9, -1, 0, True, "many", 1.5, None, [40]])
def test_total_that_cannot_be_is_not_believed(total: object):
    """
    A slip in one line neither fails nor fills the memory.
    """
    assert figures(grid_of([answer(1, 1, total_questions=total, total_models=total)], "run")) == (1, 1, 0, 0)


def test_large_total_lists_no_cells_that_nobody_named():
    """
    Ten million missing cells are a figure, not a list.
    """
    grid = grid_of([answer(1, 1, total_questions=10_000_000, total_models=1)], "run")

    assert grid.missing == 9_999_999
    assert len(grid.cells) == 1


def test_remark_about_a_run_is_no_cell():
    """
    A record under the run's id that names no model is no call.
    """
    grid = grid_of([answer(1, 1), {"execution_id": "run", "message": "begun"}], "run")

    assert figures(grid) == (1, 1, 0, 0)


def test_other_runs_and_records_without_a_run_are_left_out():
    """
    One log holds many runs, and single calls beside them.
    """
    records = [answer(1, 1), answer(1, 2, execution_id="other"), answer(1, 3, execution_id=None), {}]

    assert figures(grid_of(records, "run")) == (1, 1, 0, 0)
    assert list(grids_of(records)) == ["run", "other"]


def test_run_nobody_logged_has_nothing():
    """
    An unknown id is an empty grid, for the caller to complain about.
    """
    assert figures(grid_of([answer(1, 1)], "nobody")) == (0, 0, 0, 0)


def test_runs_stand_in_the_order_in_which_they_begin():
    """
    All runs at once are the same grids as one by one.
    """
    records = [answer(q, m, execution_id=run, at=q) for q in (1, 2) for m in (1, 2) for run in ("b", "a")]

    assert runs_of(records) == [grid_of(records, "b"), grid_of(records, "a")]
    assert (runs_of(records)[0].first_s, runs_of(records)[0].last_s) == (1, 2)


def test_json_has_what_the_contract_names():
    """
    Programs find the keys of the contract; a missing cell has null for its record.
    """
    grid = grid_of([answer(1, 1, total_questions=2), answer(1, 2, event="start")], "run")
    document = json.loads(json.dumps(grid.to_dict()))

    assert {key: document[key] for key in ("execution_id", "expected", "done", "failed", "missing")} == {
        "execution_id": "run", "expected": 2, "done": 1, "failed": 0, "missing": 1,
    }  # fmt: skip
    assert document["cells"][1]["record_id"] is None
    assert document["cells"][0].items() >= {
        "question_index": 1, "platform": "platform1", "model": "model1", "status": "done", "record_id": "1/1@1.0",
    }.items()  # fmt: skip
    assert "cells" not in grid.to_dict(with_cells=False)


def test_label_is_the_beginning_of_the_question():
    """
    The table needs a few words of each question, not the whole text.
    """
    grid = grid_of([answer(1, 1, question="x" * 10_000)], "run")

    assert len(grid.labels[1]) < 200


_RECORDS = st.lists(
    st.builds(
        answer,
        st.one_of(st.integers(-1, 4), st.none(), st.text(max_size=2)),
        st.integers(1, 3),
        success=st.booleans(),
        at=st.one_of(st.none(), st.floats(), st.integers(0, 5)),
        event=st.sampled_from(["response", "start", "attempt", "tombstone", None, "other"]),
        total_questions=st.one_of(st.none(), st.integers(-1, 20)),
        total_models=st.one_of(st.none(), st.integers(-1, 5)),
        question=st.one_of(st.none(), st.text(max_size=3)),
    )
)


@given(_RECORDS)
def test_figures_always_add_up(records: list[dict[str, Any]]):
    """
    The three states sum up to what is expected, and the cells listed agree with them, whatever the records hold.
    """
    grid = grid_of(records, "run")
    statuses = [cell.status for cell in grid.cells]

    assert grid.done + grid.failed + grid.missing == grid.expected
    assert (statuses.count("done"), statuses.count("failed")) == (grid.done, grid.failed)
    assert statuses.count("missing") <= grid.missing
