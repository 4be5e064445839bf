"""What the page says, without a browser."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ai_response_logging.analysis import stats
from ai_response_logging.blobs import MARK, blob_path
from ai_response_logging.errors import ConfigError
from ai_response_logging.filters import Filters
from ai_response_logging.reader import read_log
from ai_response_logging.report import report
from ai_response_logging.report._calls import ChosenCalls
from ai_response_logging.report._gather import gather
from ai_response_logging.report._page import data_block
from ai_response_logging.report._timeline import Timeline

from .conftest import FIRST_S, call, run_of


def text_in(data: dict[str, Any], of: dict[str, Any], name: str) -> str:
    """Return a long text of one of the page's calls."""
    return data["calls"]["texts"][of[name]]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write *records* as a log."""
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


# --- figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_duckdb", [False, True])
def test_figures_are_those_of_stats(sample_path: Path, *, with_duckdb: bool) -> None:
    """
    The page and `ai-responses stats` never disagree, with DuckDB or without.
    """
    data = gather(read_log(sample_path))
    expected = stats(sample_path, with_duckdb=with_duckdb)

    assert {name: data[name] for name in ("records", "succeeded", "failed", "groups")} == {
        name: expected[name] for name in ("records", "succeeded", "failed", "groups")
    }
    assert sum(kind["calls"] for kind in data["errors"]) == expected["failed"]
    assert sum(data["timeline"]["succeeded"]) == expected["succeeded"]


def test_records_that_end_no_call_do_not_count() -> None:
    """
    A call that began or was tried is no call of its own.
    """
    data = gather([call(1), call(2, event="start"), call(3, event="attempt", success=False)])

    assert (data["records"], data["failed"], len(data["calls"]["calls"])) == (1, 0, 1)
    assert [one["record_id"] for one in data["calls"]["calls"]] == [call(1)["record_id"]]
    assert (data["calls"]["records"], data["calls"]["failed"]) == (1, 0)


def test_an_empty_log_makes_a_page(log_path: Path, tmp_path: Path) -> None:
    """
    No records are no error.
    """
    log_path.touch()

    made = report(log_path, tmp_path / "report.html")

    assert (made.records, made.shown) == (0, 0)


# --- the time line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span_s", "bucket_s"),
    [(1, 1), (3600, 60), (86_400, 3_600), (30 * 86_400, 86_400), (3 * 365 * 86_400, 28 * 86_400)],
)
def test_bars_are_few_enough_to_be_told_apart(span_s: int, bucket_s: int) -> None:
    """
    Buckets grow with the span, and what was counted stays counted.
    """
    timeline = Timeline()
    for step in range(5_001):
        timeline.add(FIRST_S + span_s * step / 5_000, succeeded=step % 5 > 0, tokens=2)

    told = timeline.buckets()

    assert told["bucket_s"] == bucket_s
    assert 1 <= len(told["succeeded"]) <= 72
    assert (sum(told["succeeded"]), sum(told["failed"]), sum(told["tokens"])) == (4_000, 1_001, 10_002)
    assert told["first_s"] <= FIRST_S < told["first_s"] + bucket_s


def test_days_begin_at_midnight_in_the_zone() -> None:
    """
    In China a day's bar begins at 16:00 UTC.
    """
    timeline = Timeline(8 * 3600)
    for day in range(40):
        timeline.add(FIRST_S + day * 86_400, succeeded=True, tokens=0)

    assert (timeline.buckets()["first_s"] + 8 * 3600) % 86_400 == 0


def test_calls_without_a_time_are_told() -> None:
    """
    What is in no bar is counted; a moment that is no moment has no bar either.
    """
    untimed = {name: value for name, value in call(1).items() if name != "unix_timestamp"}

    told = gather([untimed, call(2), call(3, unix_timestamp=1e300), call(4, unix_timestamp="now")])["timeline"]

    assert (told["without_time"], sum(told["succeeded"])) == (3, 1)


# --- which texts -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_failed_and_slowest_calls_come_first() -> None:
    """
    Where room is short, those calls are in the page that somebody will ask for.
    """
    chosen = ChosenCalls()
    for number in range(3_000):
        chosen.add(call(number, response="x" * 4_000 + str(number), latency_ms=float(number)))
    for number in range(3_000, 3_400):
        chosen.add(call(number, success=False, response="", latency_ms=1.0))

    calls = chosen.chosen()["calls"]

    shown = {one["record_id"] for one in calls}
    assert len(calls) < 1_500
    assert {call(number)["record_id"] for number in (*range(2_900, 3_400),)} <= shown


@pytest.mark.slow
def test_failed_calls_never_take_all_the_room() -> None:
    """
    However many failed, slow ones and some that went well are in the page, too.
    """
    chosen = ChosenCalls()
    for number in range(8_000):
        chosen.add(call(number, success=number % 2 == 0, response="x" * 2_000 + str(number)))

    told = chosen.chosen()

    assert 0 < told["failed_shown"] < told["failed"] == 4_000
    assert sum(one["success"] for one in told["calls"]) > 300


@pytest.mark.slow
def test_the_same_log_makes_the_same_choice() -> None:
    """
    The sample is drawn with dice that always fall alike.
    """

    def choice() -> dict[str, Any]:
        chosen = ChosenCalls()
        for number in range(5_000):
            chosen.add(call(number, response="x" * 3_000 + str(number)))
        return chosen.chosen()

    assert choice() == choice()


def test_a_text_stands_once_however_often_it_was_asked() -> None:
    """
    A question asked of fifty models takes its room once.
    """
    data = gather(run_of(2, 50))

    assert len(data["calls"]["calls"]) == 100
    assert sorted(text for text in data["calls"]["texts"] if text.startswith("question")) == [
        "question 1",
        "question 2",
    ]


def test_a_long_text_is_cut_and_says_so() -> None:
    """
    One book does not fill the page.
    """
    data = gather([call(1, response="x" * 10_000)])

    text = text_in(data, data["calls"]["calls"][0], "response")
    assert text == "x" * 8_000 + " [… 2,000 more characters]"


@pytest.mark.slow
def test_names_of_any_length_leave_the_page_small() -> None:
    """
    A caller that logs a book as a model's name, or as anything else, does not make a page that nobody can open.
    """
    long = "很长的名字<&>" * 500
    names = dict.fromkeys(("platform", "error_type", "error_class", "execution_id", "record_id", "brand"), long)

    data = gather(
        [call(n, **names | {"model": f"{n} {long}"}, success=n % 2 == 0, question_index=n) for n in range(250)]
    )

    assert len(data_block(data).encode()) < 4_200_000
    assert len(data["groups"]) == 200


def test_values_of_another_type_are_not_shown() -> None:
    """
    A record may hold anything; what is no text or no number where one belongs is left out, and the page is made.
    """
    odd = call(1, question=["a"], response={"b": 1}, latency_ms="slow", tokens_used=10**400, model=7, error_type=[])

    data = gather([odd])

    assert data["calls"]["calls"][0].keys().isdisjoint({"question", "response", "latency_ms", "tokens_used", "model"})


def test_texts_beside_the_log_are_brought_back(log_path: Path, tmp_path: Path) -> None:
    """
    An answer too large for its line is in the page; one whose file is gone is shown as its mark.
    """
    digest = "ab" * 32
    record = call(1, response=MARK + digest, blobs=[{"path": ["response"], "sha256": digest, "bytes": 5}])
    write(log_path, [record])

    report(log_path, tmp_path / "gone.html")
    assert MARK in (tmp_path / "gone.html").read_text("utf-8")

    import hashlib

    digest = hashlib.sha256(b"a very large answer").hexdigest()
    write(log_path, [call(1, response=MARK + digest, blobs=[{"path": ["response"], "sha256": digest, "bytes": 19}])])
    place = Path(blob_path(str(log_path), digest))
    place.parent.mkdir(parents=True)
    place.write_text("a very large answer")
    report(log_path, tmp_path / "there.html")

    assert "a very large answer" in (tmp_path / "there.html").read_text("utf-8")


# --- runs --------------------------------------------------------------------------------------------------------


def test_cells_lead_to_their_calls() -> None:
    """
    A row has one letter a model, and the place of each call that has its texts in the page.
    """
    records = run_of(2, 3)
    records[4] |= {"success": False}

    (run,) = gather(records[:5])["runs"]

    assert [row["cells"] for row in run["rows"]] == ["ddd", "dfm"]
    assert [sorted(row["calls"]) for row in run["rows"]] == [[0, 1, 2], [0, 1]]
    assert (run["done"], run["failed"], run["missing"]) == (4, 1, 1)


def test_questions_without_a_number_have_rows_and_names() -> None:
    """
    Older lines have no question_index: their rows are told apart by their texts.
    """
    records = [
        call(number, execution_id="old", question=question, model=model)
        for number, (question, model) in enumerate([("one", "a"), ("one", "b"), ("two", "b"), ("three", "a")])
    ]

    (run,) = gather(records)["runs"]

    assert [(row["label"], row["cells"].replace("m", " ")) for row in run["rows"]] == [
        ("one", "dd"), ("two", " d"), ("three", "d "),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_run_of_many_questions_keeps_the_rows_that_matter() -> None:
    """
    50,000 questions are too many for a page of 5 MB: rows with a failed cell are among those that it has.
    """
    records = run_of(50_000, 1)
    for record in records:
        record["question"] = f"问题 {record['seq']} " + "很长的问题" * 30
    for record in records[49_000:]:
        record["success"] = False

    data = gather(records)

    (run,) = data["runs"]
    assert len(data_block(data)) < len(data_block(data).encode()) < 4_200_000
    assert run["rows_in_all"] == 50_000
    assert 1_500 < len(run["rows"]) < 10_000
    assert sum(row["cells"] == "f" for row in run["rows"]) == 1_000


def test_the_newest_run_comes_first() -> None:
    """
    Who makes a page wants to see what ran last.
    """
    records = [call(number, execution_id=f"run {number}", question_index=1) for number in range(3)]

    assert [run["execution_id"] for run in gather(records)["runs"]] == ["run 2", "run 1", "run 0"]


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["</script>", "<!--", "\u2028\u2029", "]]>", "&lt;", "\ud83d", '\\"</'])
def test_nothing_ends_the_data_block(text: str) -> None:
    """
    The block is JSON that reads back equal, without a character that means something to HTML.
    """
    block = data_block({text: [text]})

    assert json.loads(block) == {text: [text]}
    assert not set(block) & set("<>&\u2028\u2029")
    block.encode()


def test_the_page_is_for_its_owner_and_whole(log_path: Path, tmp_path: Path) -> None:
    """
    What is in the log is for few eyes; one page is there afterwards, and nothing else.
    """
    write(log_path, [call(1)])
    out = tmp_path / "made" / "report.html"
    out.parent.mkdir()

    made = report(log_path, out)

    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    assert os.listdir(out.parent) == ["report.html"]
    assert made.bytes == out.stat().st_size


def test_a_page_that_is_there_is_kept(log_path: Path, tmp_path: Path) -> None:
    """
    Nothing is written over by accident; force says that it is none.
    """
    write(log_path, [call(1)])
    out = tmp_path / "report.html"
    out.write_text("mine")

    with pytest.raises(ConfigError, match="is there already"):
        report(log_path, out)
    assert out.read_text() == "mine"
    report(log_path, out, force=True)

    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_filters_choose_and_are_told(log_path: Path, tmp_path: Path) -> None:
    """
    A page of a part of the log says which part it is.
    """
    write(log_path, [call(1), call(2, success=False, model="elm")])

    made = report(log_path, tmp_path / "report.html", filters=Filters(failed=True, model="elm"))

    assert made.records == 1
    assert '"filters":{"model":"elm","failed":true}' in (tmp_path / "report.html").read_text("utf-8")
