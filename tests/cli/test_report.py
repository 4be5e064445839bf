"""``ai-responses report``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .conftest import Cli

RECORD = {"schema_version": "1.0", "record_id": "r1", "writer_id": "w", "seq": 0, "event": "response", "success": True}


def test_a_page_is_made(cli: Cli, log_path: Path, tmp_path: Path) -> None:
    """
    One line says where it is, of how many calls, and how large.
    """
    log_path.write_text(json.dumps(RECORD | {"question": "why", "unix_timestamp": 1.0}) + "\n")
    out = tmp_path / "report.html"

    ended = cli("report", "--file", log_path, "-o", out, "--title", "Last night", "--utc")

    assert ended.code == 0
    assert re.fullmatch(rf"{re.escape(str(out))}: 1 calls, 1 of them with their texts, 0\.\d MB\n", ended.out)
    page = out.read_text("utf-8")
    assert "<title>Last night</title>" in page
    assert '"offset_s":0,' in page


def test_a_page_that_is_there_is_wrong_use(cli: Cli, log_path: Path, tmp_path: Path) -> None:
    """
    Without --force it is kept, and the message names the way out.
    """
    log_path.write_text(json.dumps(RECORD) + "\n")
    out = tmp_path / "report.html"
    out.touch()

    refused = cli("report", "--file", log_path, "-o", out)
    forced = cli("report", "--file", log_path, "-o", out, "--force")

    assert (refused.code, forced.code) == (2, 0)
    assert "--force" in refused.err


def test_bad_lines_are_told_on_the_screen_and_on_the_page(cli: Cli, log_path: Path, tmp_path: Path) -> None:
    """
    What could not be read is not hidden.
    """
    log_path.write_text(json.dumps(RECORD) + "\n{torn\n")
    out = tmp_path / "report.html"

    ended = cli("report", "--file", log_path, "-o", out)

    assert "1 line could not be read" in ended.err
    assert '"bad_lines":1' in out.read_text("utf-8")


def test_no_log_is_no_page(cli: Cli, tmp_path: Path) -> None:
    """
    Exit code 3, and nothing is left behind.
    """
    ended = cli("report", "--file", tmp_path / "none.jsonl", "-o", tmp_path / "report.html")

    assert ended.code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(cli: Cli, log_path: Path, tmp_path: Path) -> None:
    """
    A folder that is not there is one line, no traceback.
    """
    log_path.write_text(json.dumps(RECORD) + "\n")

    ended = cli("report", "--file", log_path, "-o", tmp_path / "none" / "report.html")

    assert ended.code == 2
    assert f"there is no directory {tmp_path / 'none'} to write report.html into" in ended.err
