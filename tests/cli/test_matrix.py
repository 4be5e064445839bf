"""``ai-responses matrix``: runs, cells, widths and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import run_child

if TYPE_CHECKING:
    from .conftest import Cli

MAIN = "from ai_response_logging.cli import main; main()"
QUESTIONS = (
    "3000元左右拍照好看的手机推荐哪个牌子的，请以专业顾问的身份客观回答",
    "Which phone takes the best photos at night?",
    "空调\u202e哪个\x1b[31m牌子\n省电",
)
MODELS = (
    ("豆包", "doubao-1-5-pro-32k-250115"), ("DeepSeek", "deepseek-chat"), ("DeepSeek", "deepseek-reasoner"),
    ("通义千问", "qwen-max-latest"), ("智谱AI", "glm-4-plus"), ("Kimi", "moonshot-v1-128k"),
    ("文心一言", "文心4.5-8k"), ("openai", "gpt-5-mini"),
)  # fmt: skip


def record(question: int, model: int, run: str = "exec_1", /, **fields: Any) -> dict[str, Any]:
    """Return the record of one cell."""
    platform, name = MODELS[(model - 1) % len(MODELS)]
    return {
        "execution_id": run, "question_index": question, "model_index": model, "platform": platform, "model": name,
        "question": QUESTIONS[(question - 1) % len(QUESTIONS)], "success": True, "record_id": f"{question}-{model}",
        "unix_timestamp": 1_700_000_000.5 + question, "event": "response", **fields,
    }  # fmt: skip


def write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write *records* as a log."""
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")


def run_of(questions: int, models: int, **fields: Any) -> list[dict[str, Any]]:
    """Return all records of a run."""
    return [record(q, m, **fields) for q in range(1, questions + 1) for m in range(1, models + 1)]


def columns_of(text: str) -> int:
    """Return how many columns *text* takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def test_complete_run_ends_with_0(cli: Cli, log_path: Path):
    """
    Every cell done: the table says so, and so does the exit code.
    """
    write(log_path, run_of(3, 2, total_questions=6))
    ended = cli("matrix", "exec_1", "--file", log_path)

    assert ended.code == 0
    assert ended.out.splitlines()[0] == "exec_1: 6 of 6 done, 0 failed, 0 missing"
    assert ended.out.count(" ok") == 6
    assert "FAIL" not in ended.out


@pytest.mark.parametrize("hole", ["failed", "missing"])
def test_hole_is_shown_and_ends_with_1(cli: Cli, log_path: Path, hole: str):
    """
    One failed or missing cell is seen in the table, and in the exit code.
    """
    records = run_of(2, 2, total_questions=4)
    records[3:] = [{**records[3], "success": False, "error_type": "rate_limit"}] if hole == "failed" else []
    write(log_path, records)
    ended = cli("matrix", "exec_1", "--file", log_path)

    assert ended.code == 1
    assert f"3 of 4 done, {int(hole == 'failed')} failed, {int(hole == 'missing')} missing" in ended.out
    if hole == "failed":
        assert "FAIL question 2, DeepSeek deepseek-chat: rate_limit (2-2)" in ended.out
    else:
        assert " -" in ended.out


def test_missing_cells_nobody_named_are_counted(cli: Cli, log_path: Path):
    """
    Cells without coordinates cannot stand in the table: a line says how many there are.
    """
    write(log_path, run_of(1, 2, total_questions=40))

    assert (
        "38 missing cells of questions or models that no record names"
        in cli("matrix", "exec_1", "--file", log_path).out
    )


def test_run_is_found_by_the_beginning_of_its_id(cli: Cli, log_path: Path):
    """
    A prefix that is unique is enough; a whole id wins over longer ones.
    """
    write(log_path, [record(1, 1, run) for run in ("exec_1", "exec_12", "other")])

    assert cli("matrix", "oth", "--file", log_path).out.startswith("other: 1 of 1")
    assert cli("matrix", "exec_1", "--file", log_path).out.startswith("exec_1: 1 of 1")


@pytest.mark.parametrize(
    ("wanted", "words"), [("exec", "begins 2 runs: exec_a, exec_b"), ("nobody", "no run 'nobody'")]
)
def test_id_that_is_not_one_run_is_used_wrongly(cli: Cli, log_path: Path, wanted: str, words: str):
    """
    Ambiguous or unknown: exit code 2, and one line that says which.
    """
    write(log_path, [record(1, 1, run) for run in ("exec_a", "exec_b")])
    ended = cli("matrix", wanted, "--file", log_path)

    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert ended.err.count("\n") == 1


def test_all_runs_are_listed_without_an_id(cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Without an id, one row a run; exit code 1 while one of them has holes.
    """
    monkeypatch.setenv("COLUMNS", "120")
    write(log_path, [*run_of(2, 2, execution_id="exec_a"), *run_of(1, 1, execution_id="exec_b", total_questions=9)])
    ended = cli("matrix", "--file", log_path)
    rows = [one.split() for one in ended.out.splitlines()]

    assert ended.code == 1
    assert [row[0] for row in rows] == ["run", "exec_a", "exec_b"]
    assert [row[-3:] for row in rows[1:]] == [["4/4", "0", "0"], ["1/9", "0", "8"]]


def test_all_runs_complete_end_with_0(cli: Cli, log_path: Path):
    """
    Nothing to complain about in any run.
    """
    write(log_path, run_of(2, 2))

    assert cli("matrix", "--file", log_path).code == 0


@pytest.mark.slow
def test_time_of_a_run_is_local_with_its_offset(log_path: Path):
    """
    Times are shown as the reader's clock shows them, and say which clock that is.
    """
    write(log_path, run_of(1, 1))
    child = run_child(MAIN, "matrix", "--file", log_path, env={"TZ": "Asia/Shanghai", "COLUMNS": "120"})

    assert "2023-11-15 06:13+08:00" in child.stdout


def test_time_that_is_none_is_a_question_mark(cli: Cli, log_path: Path):
    """
    A number that is no time does not stop the list.
    """
    write(log_path, [record(1, 1, unix_timestamp=1e300)])

    assert "?" in cli("matrix", "--file", log_path).out


def test_log_without_runs_says_so(cli: Cli, log_path: Path):
    """
    Single calls are no run.
    """
    write(log_path, [{"record_id": "a", "platform": "p"}])

    assert cli("matrix", "--file", log_path).out.startswith("no run in ")
    assert json.loads(cli("matrix", "--file", log_path, "--json").out) == []


def test_json_of_a_run_has_its_cells_and_of_all_runs_has_none(cli: Cli, log_path: Path):
    """
    Programs get one document: the run with its cells, or a list of runs without.
    """
    write(log_path, run_of(2, 2, total_questions=5))
    one, every = cli("matrix", "exec", "--json", "--file", log_path), cli("matrix", "--json", "--file", log_path)

    assert (one.code, every.code) == (1, 1)
    assert len(json.loads(one.out)["cells"]) == 4
    [listed] = json.loads(every.out)
    assert "cells" not in listed
    assert listed.items() >= {"execution_id": "exec_1", "expected": 5, "done": 4, "failed": 0, "missing": 1}.items()


def test_bad_lines_are_mentioned_and_the_rest_is_shown(cli: Cli, log_path: Path):
    """
    A damaged log still has a matrix, and says that something was left out.
    """
    write(log_path, run_of(1, 2))
    with log_path.open("ab") as file:
        file.write(b"hello\nworld\n")
    ended = cli("matrix", "exec_1", "--file", log_path)

    assert ended.out.startswith("exec_1: 2 of 2 done")
    assert "2 lines could not be read" in ended.err
    assert f"ai-responses verify --file {log_path}" in ended.err  # not the log that stands where nobody said otherwise


def test_missing_log_ends_with_3(cli: Cli, log_path: Path):
    """
    Nothing there: exit code 3 and one line.
    """
    ended = cli("matrix", "--file", log_path)

    assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("models", [1, 2, 8, 30])
def test_tables_fit_any_width_with_chinese_texts(
    cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, models: int
):
    """
    No row is wider than the screen or cut inside a cell, however many models there are, and all can be told apart.
    """
    records = run_of(3, models, total_questions=3 * models)
    records[0].update(success=False, error_type="timeout")
    write(log_path, records)
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("matrix", "exec_1", "--file", log_path).out

    table = [one for one in shown.splitlines() if one.startswith(("1  ", "2  ", "3  ", "   question"))]
    assert max(map(columns_of, table)) <= width
    assert sum(one.split().count("ok") for one in table) == 3 * models - 1
    assert sum(one.split().count("FAIL") for one in table) == 1
    assert all(name in shown for _, name in MODELS[:models])
    assert all(columns_of(one) == columns_of(table[0]) for one in table) or models == 30


@pytest.mark.slow
@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal_follow_no_color(log_path: Path, no_color: bool):
    """
    On a terminal done is green; NO_COLOR takes all colour away.
    """
    write(log_path, run_of(1, 1))
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "matrix", "exec_1", "--file", str(log_path)],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "80", **({"NO_COLOR": "1"} if no_color else {})},
    ) as child:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side has closed it
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)

    assert child.returncode == 0
    assert b" ok" in shown or b"mok" in shown
    assert (b"\x1b[32m" in shown) is not no_color
    assert not (no_color and b"\x1b[3" in shown)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_list_of_runs_fits_any_width(cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch, width: int):
    """
    Ids are folded, never cut: each can be put together again.
    """
    ids = [f"0197d0a2-7b1c-7c34-9d55-0123456789a{number}" for number in range(3)] + ["华为" * 30]
    write(log_path, [record(1, 1, run) for run in ids])
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli("matrix", "--file", log_path).out.splitlines()

    assert max(map(columns_of, lines)) <= width
    first_column = "".join(one.split()[0] for one in lines if one[:1].strip())
    assert all(one in first_column for one in ids)


def test_text_of_a_question_cannot_steer_the_terminal(cli: Cli, log_path: Path):
    """
    Questions are other people's texts: escape sequences and bidirectional marks do not reach the screen.
    """
    write(log_path, run_of(3, 1))
    shown = cli("matrix", "exec_1", "--file", log_path).out

    assert "省电" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_long_run_shows_only_what_is_not_well(cli: Cli, log_path: Path):
    """
    Of hundreds of questions only those with a hole are shown.
    """
    records = run_of(150, 2)
    records[7]["success"] = False
    write(log_path, records)
    lines = cli("matrix", "exec_1", "--file", log_path).out.splitlines()

    assert "only questions with a failed or missing cell" in lines[1]
    assert len(lines) < 12


def test_very_many_holes_are_cut_short(cli: Cli, log_path: Path):
    """
    A run that failed as a whole does not scroll for pages.
    """
    write(log_path, run_of(300, 1, success=False))
    shown = cli("matrix", "exec_1", "--file", log_path).out

    assert "the first 100 of 300" in shown
    assert "and 290 more failed" in shown
    assert len(shown.splitlines()) < 130


def test_questions_without_an_index_have_rows_of_their_own(cli: Cli, log_path: Path):
    """
    Older callers that count nothing still get a table.
    """
    records = [
        {**record(1, m, question_index=None, model_index=None), "question": text} for text in QUESTIONS for m in (1, 2)
    ]
    write(log_path, records)
    shown = cli("matrix", "exec_1", "--file", log_path).out

    assert "6 of 6 done" in shown
    assert shown.count(" ok") == 6


def test_models_of_one_name_are_told_apart(cli: Cli, log_path: Path):
    """
    The same model on two platforms, or twice on one, has its own column with a name of its own.
    """
    models = [("a", "m", 1), ("b", "m", 2), ("b", "m", 3), ("c", "other", 4), (None, "other", 5)]
    write(log_path, [record(1, index, platform=p, model=m) for p, m, index in models])
    heading = cli("matrix", "exec_1", "--file", log_path).out.splitlines()[1]

    assert heading.split() == ["question", "a", "m", "2", "b", "m", "3", "b", "m", "c", "other", "other"]


# --- a part of a run, and Markdown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        (["--model", "deepseek-chat"], (3, 1, 1, 1)),
        (["--platform", "deepseek"], (6, 4, 1, 1)),
        (["--failed"], (3, 2, 1, 0)),
        (["--grep", "best photos"], (3, 2, 1, 0)),
        (["--since", "2023-11-14T22:13:22.6Z"], (3, 2, 0, 1)),
        (["--execution-id", "exec_1"], (9, 7, 1, 1)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_filters_choose_a_part_and_its_holes_stay(
    cli: Cli, log_path: Path, options: list[str], figures: tuple[int, int, int, int]
):
    """
    Expected, done, failed and missing are those of the models and questions that are asked for.
    """
    records = [one for one in run_of(3, 3, total_questions=9, total_models=3) if one["record_id"] != "3-2"]
    records = [{**one, "success": False} if one["record_id"] == "2-2" else one for one in records]
    write(log_path, [*records, record(1, 1, "exec_2")])
    found = json.loads(cli("matrix", "exec_1", *options, "--json", "--file", log_path).out)

    assert (found["expected"], found["done"], found["failed"], found["missing"]) == figures


def test_runs_of_which_nothing_is_chosen_are_not_listed(cli: Cli, log_path: Path):
    """
    Without an id, only runs that have what was asked for; by their own id it is said.
    """
    write(log_path, [record(1, 1, "exec_1"), record(1, 2, "exec_2", brand="华为")])
    listed = json.loads(cli("matrix", "--brand", "华为", "--json", "--file", log_path).out)
    ended = cli("matrix", "exec_1", "--brand", "华为", "--file", log_path)

    assert [one["execution_id"] for one in listed] == ["exec_2"]
    assert (ended.code, "no run 'exec_1' with what was asked for" in ended.err) == (2, True)


def test_markdown_has_a_table_and_nothing_of_the_data_acts_in_it(cli: Cli, log_path: Path):
    """
    Pipes, newlines, HTML, mentions and emphasis are text; each row has as many cells as the head.
    """
    evil = "a|b\n<script>*x*</script> `c` @team #12 [l](http://h) www.example.com"
    write(log_path, [record(1, 1, question=evil), record(1, 2, question=evil, success=False, error_type="a|b")])
    ended = cli("matrix", "exec_1", "--markdown", "--file", log_path)
    rows = [one for one in ended.out.splitlines() if one.startswith("|")]
    cells = [one.replace("\\|", "").count("|") for one in rows]

    assert ended.code == 1
    assert cells == [5, 5, 5, 6, 6, 6]
    assert "✅ | ❌" in rows[2]
    assert "<script>" not in ended.out.replace("\\<", "")
    assert "@team" not in ended.out
    assert "http:/" not in ended.out
    assert "\\#12" in ended.out


def test_markdown_of_all_runs_is_one_table(cli: Cli, log_path: Path):
    """
    One row a run, with its figures; --json beside it is used wrongly.
    """
    write(log_path, [*run_of(2, 2, execution_id="exec|a"), record(1, 1, "b", success=False)])
    ended = cli("matrix", "--markdown", "--utc", "--file", log_path)

    assert ended.out.splitlines()[2:] == [
        "| exec\\|a | 2023-11-14 22:13+00:00 | ✅ | 4/4 | 0 | 0 |",
        "| b | 2023-11-14 22:13+00:00 | ❌ | 0/1 | 1 | 0 |",
    ]
    assert ended.code == 1
    assert cli("matrix", "--markdown", "--json", "--file", log_path).code == 2
