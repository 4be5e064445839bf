"""``ai-responses tail`` and ``show``: what people and programs see, and how they end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import child_process, run_child

from ai_response_logging.blobs import MARK, BlobStore, blob_path, set_apart

if TYPE_CHECKING:
    from .conftest import Cli

MAIN = "from ai_response_logging.cli import main; main()"
EVIL = "\x1b[2J\x1b]0;title\x07\u202eевил\u2066\x9b31m\u200b\nnext"


def record(number: int, **fields: Any) -> dict[str, Any]:
    """Return a flat record."""
    return {
        "record_id": f"0199-{number:04d}", "unix_timestamp": 1_700_000_000.25 + number, "event": "response",
        "platform": "豆包", "model": "doubao-1-5-pro", "success": True, "latency_ms": 1234.5, "tokens_used": 512,
        "question": f"第{number}个问题：手机推荐哪个牌子？", "response": "华为的影像能力很好。" * 20, **fields,
    }  # fmt: skip


def write(path: Path, *records: dict[str, Any]) -> None:
    """Append *records* to a log."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in records)


def screen(columns: int, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Return what a command prints to a real terminal so wide."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", "TZ": "Asia/Shanghai", **(env or {})},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(ours)
        child.wait(20)
    return shown.decode().replace("\r\n", "\n")


def columns_of(text: str) -> int:
    """Return how many columns *text* takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


# --- tail ------------------------------------------------------------------------------------------------------


def test_newest_stand_last_one_a_line(cli: Cli, log_path: Path):
    """
    Away from a terminal a record is one line, so that grep and cut work.
    """
    write(log_path, *(record(number) for number in range(5)))
    ended = cli("tail", "-n", 2, "--utc", "--file", log_path)
    rows = ended.out.splitlines()

    assert ended.code == 0
    assert [row[:25] for row in rows] == ["2023-11-14 22:13:23+00:00", "2023-11-14 22:13:24+00:00"]
    assert "  ok  豆包 doubao-1-5-pro  1,234 ms  512 tokens  0199-0004  Q: 第4个问题" in rows[1]


def test_json_is_one_flat_record_a_line(cli: Cli, log_path: Path):
    """
    Programs get what is in the log.
    """
    write(log_path, *(record(number, response=EVIL) for number in range(3)))
    ended = cli("tail", "--json", "--file", log_path)

    assert [json.loads(row) for row in ended.out.splitlines()] == [record(n, response=EVIL) for n in range(3)]


def test_filters_choose_among_all(cli: Cli, log_path: Path):
    """
    N of those that match, however far back they are.
    """
    write(log_path, *(record(number, success=number % 5 != 0) for number in range(20)))
    ended = cli("tail", "-n", 2, "--failed", "--json", "--file", log_path)

    assert [json.loads(row)["record_id"] for row in ended.out.splitlines()] == ["0199-0010", "0199-0015"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"success": False, "error_type": "rate_limit", "error_message": "429"}, "  FAIL  rate_limit  "),
        ({"event": "start", "success": None}, "  start  "),
        ({"event": "attempt", "error_type": "timeout"}, "  try  timeout  "),
        ({"event": "tombstone"}, "  lost  tombstone  "),
        ({"execution_id": "exec_1", "question_index": 7}, "  exec_1 q7  "),
        ({"unix_timestamp": None}, "?  ok  "),
        ({"unix_timestamp": 1e30}, "?  ok  "),
    ],
)
def test_each_kind_of_record_says_what_it_is(cli: Cli, log_path: Path, fields: dict[str, Any], words: str):
    """
    A word for the status, and why.
    """
    write(log_path, record(1, **fields))

    assert words in cli("tail", "--file", log_path).out


def test_log_without_records_is_no_error_and_no_log_is(cli: Cli, log_path: Path):
    """
    Exit code 3 says that there is no such log.
    """
    assert cli("tail", "--file", log_path).code == 3
    log_path.touch()
    ended = cli("tail", "--file", log_path)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"ai-responses: no record in {log_path}\n"


def test_lines_that_cannot_be_read_are_counted(cli: Cli, log_path: Path):
    """
    Nothing is left out without a word.
    """
    write(log_path, record(1))
    with log_path.open("a") as file:
        file.write("hello\n")
    ended = cli("tail", "--file", log_path)

    assert ended.code == 0
    assert "1 line could not be read and is left out; to see which: ai-responses verify --file" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", ["tail", "show"])
def test_terminal_is_never_overrun_nor_attacked(log_path: Path, columns: int, command: str):
    """
    Chinese and English, hostile text: no row is wider than the terminal, and no escape of the data's reaches it.
    """
    write(
        log_path,
        record(1, response=EVIL * 30, question=EVIL, error_type=EVIL, execution_id=EVIL, extra_field={"a": EVIL}),
        record(2, response="a perfectly ordinary answer. " * 30, platform="openai"),
    )
    arguments = ["tail"] if command == "tail" else ["show", "0199-0001"]
    text = screen(columns, *arguments, "--file", log_path, env={"NO_COLOR": "1"})

    assert max(map(columns_of, text.splitlines())) <= columns
    assert all(unicodedata.category(char) not in {"Cc", "Cf"} for char in text.replace("\n", ""))
    assert "+08:00" in text
    assert "евил" in text


@pytest.mark.slow
def test_colours_are_for_terminals_and_can_be_turned_off_and_on(log_path: Path):
    """
    NO_COLOR turns them off, FORCE_COLOR on, for a pager say.
    """
    write(log_path, record(1))
    piped = run_child(MAIN, "tail", "--file", log_path, env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout
    assert "\x1b[32mok" in piped
    assert "\x1b" not in run_child(MAIN, "tail", "--file", log_path).stdout

    assert "\x1b[32mok" in screen(80, "tail", "--file", log_path)
    assert "\x1b" not in screen(80, "tail", "--file", log_path, env={"NO_COLOR": "1"})


@pytest.mark.slow
def test_json_on_a_terminal_has_no_escapes_of_the_data(log_path: Path):
    """
    What JSON may hold as it is, a terminal may not: C1 and bidirectional overrides come as escapes.
    """
    write(log_path, record(1, response=EVIL))
    text = screen(80, "tail", "--json", "--file", log_path)

    assert json.loads(text)["response"] == EVIL
    assert all(unicodedata.category(char) not in {"Cc", "Cf"} for char in text.replace("\n", ""))


@pytest.mark.slow
def test_following_shows_what_comes_and_ends_with_ctrl_c(log_path: Path):
    """
    A log that is made later, a record, a rotation, Ctrl-C: exit code 130 and no traceback.
    """
    with child_process(MAIN, "tail", "-f", "--json", "--file", log_path) as process:
        assert process.stdout is not None
        write(log_path, record(1))
        assert json.loads(process.stdout.readline())["record_id"] == "0199-0001"
        log_path.rename(f"{log_path}.20260101T000000.000000Z")
        write(log_path, record(2))
        assert json.loads(process.stdout.readline())["record_id"] == "0199-0002"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)

    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.slow
def test_following_ends_when_nobody_reads_any_more(log_path: Path):
    """
    ``tail -f | head -1`` does not stay for ever, even if no record comes.
    """
    write(log_path, record(1))
    with child_process(MAIN, "tail", "-f", "--json", "--file", log_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=15)

    assert (process.returncode, err) == (0, "")


# --- show ------------------------------------------------------------------------------------------------------


def test_record_is_found_by_the_beginning_of_its_id(cli: Cli, log_path: Path):
    """
    A unique prefix is enough, and a whole id wins over longer ones.
    """
    write(log_path, record(1), record(2), record(22, record_id="0199-00022"))
    ended = cli("show", "0199-0002", "--json", "--file", log_path)

    assert json.loads(ended.out) == record(2)
    assert json.loads(cli("show", "0199-00022", "--json", "--file", log_path).out)["unix_timestamp"] == 1700000022.25


def test_whole_record_is_shown_with_every_field(cli: Cli, log_path: Path):
    """
    Nothing that was logged is left out: texts with their line breaks, objects as JSON.
    """
    write(log_path, record(1, response="one\ntwo", metadata={"a": [1, "ü"]}, custom="x", error_message="why"))
    out = cli("show", "0199", "--utc", "--file", log_path).out

    assert "record_id           0199-0001\ntime                2023-11-14 22:13:21.250000+00:00\n" in out
    assert "\nresponse:\n  one\n  two\n" in out
    assert '\nmetadata:\n  {\n    "a": [\n      1,\n      "ü"\n    ]\n  }\n' in out
    assert "\ncustom              x\n" in out
    assert all(key in out for key in record(1) if key != "unix_timestamp")


def test_ambiguous_beginning_lists_the_candidates(cli: Cli, log_path: Path):
    """
    Exit code 2, and enough of each to choose.
    """
    write(log_path, *(record(number, model=f"m{number}") for number in range(15)))
    ended = cli("show", "0199-00", "--file", log_path)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("0199-00") == 10 + 1
    assert "0199-0003  2023-11-15 " in ended.err or "0199-0003  2023-11-14 " in ended.err
    assert "begins the ids of 15 records" in ended.err


def test_unknown_record_says_what_now(cli: Cli, log_path: Path):
    """
    Exit code 2 and one line.
    """
    write(log_path, record(1))
    ended = cli("show", "nope", "--file", log_path)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "`ai-responses tail` lists the newest" in ended.err


def test_record_that_stands_twice_is_shown_twice(cli: Cli, log_path: Path):
    """
    Doubled in the log itself: shown and counted, never hidden.
    """
    write(log_path, record(1), record(1))
    ended = cli("show", "0199", "--json", "--file", log_path)

    assert ended.out.count("\n") == 2
    assert "stands 2 times" in ended.err


def test_json_escapes_every_character_that_acts_on_a_terminal():
    """
    The list of them is complete for this Python's Unicode, and nothing else is on it.
    """
    from ai_response_logging.cli._console import _ACTING

    for code in range(0x7F, 0x110000):
        acts = unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert not acts or _ACTING.fullmatch(chr(code)), hex(code)


# --- large texts -----------------------------------------------------------------------------------------------


def write_large(log: Path) -> tuple[str, Path]:
    """Write a record whose response and question are kept beside *log*; return the response, and its file."""
    left = record(1, question="q" * 40_000, response="y" * 50_000)
    whole = dict(left)
    store = BlobStore(str(log), file_mode=0o600, directory_mode=0o700, is_synced=False)
    left["blobs"] = set_apart(left, 1000, 90_000, store.keep)
    write(log, left)
    return whole["response"], Path(blob_path(str(log), left["blobs"][0]["sha256"]))


@pytest.mark.parametrize("command", [("show", "0199"), ("tail",)])
def test_large_texts_are_in_their_places(cli: Cli, log_path: Path, command: tuple[str, ...]):
    """
    As they were logged, although they are in files of their own.
    """
    response, _ = write_large(log_path)
    ended = cli(*command, "--json", "--file", log_path)

    assert (ended.code, ended.err) == (0, "")
    shown = json.loads(ended.out)
    assert (shown["response"], len(shown["question"]), "blobs" in shown) == (response, 40_000, False)
    if command[0] == "show":
        assert f"\nresponse:\n  {response}\n" in cli("show", "0199", "--file", log_path).out


@pytest.mark.parametrize("damage", ["is not there", "is another one"])
@pytest.mark.parametrize("command", [("show", "0199"), ("tail",)])
def test_large_text_that_is_missing_or_damaged_is_said(cli: Cli, log_path: Path, damage: str, command: tuple[str, ...]):
    """
    The rest of the record is shown all the same; never what is not the text.
    """
    _, file = write_large(log_path)
    if damage == "is not there":
        file.unlink()
    else:
        file.write_bytes(b"y" * 49_999 + b"z")
    ended = cli(*command, "--json", "--file", log_path)

    shown = json.loads(ended.out)
    assert (ended.code, shown["response"], len(shown["question"])) == (0, f"{MARK}{file.name}", 40_000)
    assert [entry["path"] for entry in shown["blobs"]] == [["response"]]
    said = " ".join(ended.err.split())
    assert "the text of response stays a mark: " in said
    assert damage in said
    assert file.name in said.replace(" ", "")
