"""docs/reference/analysis.md: complete, with units, and its SQL runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ai_response_logging.analysis import COLUMNS, Log
from ai_response_logging.record import seal, tail_of

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_every_column_is_documented_with_its_unit() -> None:
    """Name, type, unit and meaning, in the order of the table."""
    page = (DOCS / "reference" / "analysis.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| (.*?) ?\| (.*) \|$", page, re.MULTILINE)

    assert rows == [tuple(column) for column in COLUMNS]


def test_every_question_is_documented() -> None:
    """Every public function and attribute of a log stands on the page."""
    page = (DOCS / "reference" / "analysis.md").read_text("utf-8")
    names = [name for name in vars(Log) if not name.startswith("_") and name != "close"]

    assert [name for name in names if f"| `{name}" not in page] == []


@pytest.mark.parametrize("name", ["what-failed-last-night", "compare-models"])
def test_queries_in_the_how_tos_run(name: str, log_path: Path) -> None:
    """What is to be pasted can be."""
    pytest.importorskip("duckdb")
    log_path.write_bytes(seal(b'{"schema_version":"1.0","event":"response"', tail_of("w"), 0))
    queries = re.findall(r'ai-responses sql "([^"]*)"', (DOCS / "how-to" / f"{name}.md").read_text("utf-8"))

    assert queries
    with Log(log_path) as log:
        for query in queries:
            log.sql(query).fetchall()
