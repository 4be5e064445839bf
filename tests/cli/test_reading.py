"""``ai-responses stats``, ``sql`` and ``convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

pytestmark = pytest.mark.timeout(120)


def write(path: Path, *records: dict[str, Any]) -> None:
    """Write lines of 3.0, one for each change."""
    fixed = {"version": "3.0-enhanced", "timestamp": "2026-01-02T03:04:05", "unix_timestamp": 1767294245.0}
    usual = {"question": "q", "response": "r", "platform": "kimi", "model": "m", "success": True, "latency_ms": 100}
    lines = [{**fixed, **usual, "record_id": f"id-{number}", **one} for number, one in enumerate(records)]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.mark.parametrize("has_duckdb", [True, False])
def test_stats_are_what_the_page_says(
    cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch, has_duckdb: bool
) -> None:
    """The JSON's keys and figures, with and without the extra, and exit code 0 beside bad lines."""
    if has_duckdb:
        pytest.importorskip("duckdb")
    else:
        monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    write(
        log_path,
        {"tokens_used": 5},
        {"latency_ms": 300, "tokens_used": 7},
        {"success": False, "model": "n", "latency_ms": None},
    )
    with log_path.open("ab") as file:
        file.write(b"torn{\n\xff\n")

    ended = cli("stats", "--file", log_path, "--json")

    assert ended.code == 0
    assert json.loads(ended.out) == {
        "records": 3,
        "succeeded": 2,
        "failed": 1,
        "bad_lines": 2,
        "groups": [
            {
                "platform": "kimi",
                "model": "m",
                "records": 2,
                "succeeded": 2,
                "failed": 0,
                "success_rate": 1.0,
                "latency_ms": {"p50": 200.0, "p95": 290.0, "p99": 298.0},
                "tokens": 12,
            },
            {
                "platform": "kimi",
                "model": "n",
                "records": 1,
                "succeeded": 0,
                "failed": 1,
                "success_rate": 0.0,
                "latency_ms": {"p50": None, "p95": None, "p99": None},
                "tokens": 0,
            },
        ],
    }
    assert "2 lines could not be read" in ended.err


@pytest.mark.slow
def test_stats_by_other_fields_and_with_filters(cli: Cli, log_path: Path) -> None:
    """Fields with commas between them; filters as everywhere."""
    write(log_path, {"brand": "a"}, {"brand": "b"}, {"brand": "b", "success": False})

    ended = cli("stats", "--file", log_path, "--by", "brand, success", "--brand", "b")
    assert ended.code == 0
    assert "2 calls: 1 succeeded, 1 failed" in ended.out
    assert cli("stats", "--file", log_path, "--grep", "^q$", "--json", "--by", "").out.count('"records": 3') == 2
    wrong = cli("stats", "--file", log_path, "--by", "response")
    assert (wrong.code, "no field to group by" in wrong.err) == (2, True)
    assert cli("stats", "--file", log_path.with_name("none")).code == 3


@pytest.mark.slow
def test_sql_as_a_table_json_and_csv(cli: Cli, log_path: Path) -> None:
    """The same rows, for people and for programs."""
    pytest.importorskip("duckdb")
    write(log_path, {"model": 'a,"b"'}, {"model": "c", "mine": {"x": 1}})
    query = 'SELECT model, "timestamp", latency_ms FROM records ORDER BY model'

    assert "2026-01-01T19:04:05" in cli("sql", "--file", log_path, query).out
    assert json.loads(cli("sql", "--file", log_path, "--json", query).out)[0] == {
        "model": 'a,"b"',
        "timestamp": "2026-01-01T19:04:05",
        "latency_ms": 100.0,
    }
    assert cli("sql", "--file", log_path, "--csv", query).out.splitlines()[1] == '"a,""b""",2026-01-01T19:04:05,100.0'
    mine = cli(
        "sql", "--file", log_path, "--json", "--column", "mine", "SELECT mine FROM records WHERE mine IS NOT NULL"
    )
    assert json.loads(mine.out) == [{"mine": '{"x":1}'}]


@pytest.mark.slow
def test_sql_that_cannot_be_run_shows_where(cli: Cli, log_path: Path) -> None:
    """Exit code 2, the place below the query's line; what would write is refused; a late error is no traceback."""
    pytest.importorskip("duckdb")
    write(log_path, {})

    wrong = cli("sql", "--file", log_path, "SELECT modle FROM records")
    assert wrong.code == 2
    *_, shown, caret = wrong.err.rstrip().splitlines()
    assert shown[caret.index("^") :].startswith("modle")
    assert cli("sql", "--file", log_path, "DROP VIEW records").code == 2
    assert cli("sql", "--file", log_path, "SELECT CAST(model AS INTEGER) FROM records").code == 2
    assert cli("sql", "--file", log_path, "--json", "--csv", "SELECT 1").code == 2


def test_sql_without_the_extra_says_how_to_get_it(cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4 and the command."""
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    write(log_path, {})

    ended = cli("sql", "--file", log_path, "SELECT 1")

    assert ended.code == 4
    assert "pip install 'ai-response-logging[analysis]'" in ended.err


def test_convert_prints_its_proof(cli: Cli, log_path: Path, tmp_path: Path) -> None:
    """Counts and hashes; exit code 1 beside bad lines, 2 for a file that is there or a zone that is none."""
    write(log_path, {}, {})
    out = tmp_path / "out.jsonl"

    ended = cli("convert", "--file", log_path, "-o", out)
    assert ended.code == 0
    assert "2 of 2 equal" in ended.out
    assert len({line.split()[-1] for line in ended.out.splitlines() if "sha256" in line}) == 1
    assert cli("convert", "--file", log_path, "-o", out).code == 2
    back = cli("convert", "--file", out, "-o", tmp_path / "back.jsonl", "--to", "2.0", "--json")
    assert json.loads(back.out)["proven"] is True
    assert (tmp_path / "back.jsonl").read_text().count('"3.0-enhanced"') == 2
    with log_path.open("a") as file:
        file.write("bad\n")
    assert cli("convert", "--file", log_path, "-o", out, "--force").code == 1
    assert (tmp_path / "out.jsonl.bad").read_text() == "bad\n"
    assert cli("convert", "--file", log_path, "-o", out, "--assume-timezone", "+8").code == 2


def test_export_says_of_which_log_the_lines_are_that_it_left_out(cli: Cli, log_path: Path):
    """What is to be run next names this log, not the default one, and counts as people do."""
    log_path.write_text(json.dumps({"record_id": "1", "response": "r", "success": True}) + "\nno record\n")
    ended = cli("export", "--format", "csv", "--out", log_path.with_suffix(".csv"), "--file", log_path)

    assert ended.code == 0
    said = " ".join(ended.err.split())
    assert "1 line could not be read and is left out" in said
    assert f"ai-responses verify --file {log_path}".replace(" ", "") in said.replace(" ", "")


def test_directory_in_the_place_of_a_log_is_said(cli: Cli, tmp_path: Path):
    """What stands there, and what now; exit code 3."""
    ended = cli("stats", "--file", tmp_path)

    assert ended.code == 3
    assert "it is a directory, not a regular file; name the log itself with --file" in " ".join(ended.err.split())
