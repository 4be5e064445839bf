"""``ai-responses verify``: what people and programs are told, and the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import run_child

if TYPE_CHECKING:
    from .conftest import Cli

MAIN = "from ai_response_logging.cli import main; main()"


def line(seq: int, **fields: object) -> bytes:
    """Return one whole line of the writer ``w``."""
    record = {"schema_version": "1.0", "record_id": f"r{seq}", "event": "response", **fields}
    body = json.dumps(record, ensure_ascii=False).encode()[:-1] + b',"writer_id":"w","seq":%d' % seq
    return b'%b,"checksum":"%08x"}\n' % (body, zlib.crc32(body))


def damaged() -> list[bytes]:
    """Return a log of 10 records with one of each kind of damage."""
    lines = [line(seq, response="good") for seq in range(10)]
    lines[1] = lines[1].replace(b"good", b"evil")
    lines[3] = lines[3][:50] + b"\n"
    lines[5] = lines[5][:-1]
    lines.insert(8, b"\x1b[31mTraceback\n")
    return [*lines, lines[0]]


def test_whole_log_says_whole_and_ends_well(cli: Cli, log_path: Path):
    """
    Exit code 0, and the verdict is the first word.
    """
    log_path.write_bytes(b"".join(line(seq) for seq in range(3)))
    ended = cli("verify", "--file", log_path)

    assert ended.code == 0
    assert ended.out.startswith("whole; 3 records, 1 writer, 1 file, ")
    assert str(log_path) in ended.out
    assert ended.err == ""


def test_empty_log_is_whole(cli: Cli, log_path: Path):
    """
    A log without records has lost none.
    """
    log_path.touch()

    assert cli("verify", "--file", log_path)[:2] == (0, f"whole; 0 records, 0 writers, 1 file, 0 bytes\n  {log_path}\n")


def test_damage_is_listed_by_kind_with_its_place_and_ends_with_1(cli: Cli, log_path: Path):
    """
    Every problem is one line that names file, line and byte, and no byte of the log reaches the terminal raw.
    """
    lines = damaged()
    log_path.write_bytes(b"".join(lines))
    ended = cli("verify", "--file", log_path)

    assert ended.code == 1
    assert ended.out.startswith("not whole: 6 problems; 7 records, ")
    starts = [0, *(at + 1 for at, byte in enumerate(b"".join(lines)) if byte == ord("\n"))]
    for kind, number in [("torn", 4), ("glued", 6), ("foreign", 8), ("checksum", 2), ("duplicate", 11), ("gap", 5)]:
        assert f"\n{kind}: 1\n  {log_path.name}:{number} byte {starts[number - 1]}: " in ended.out
    assert "\x1b" not in ended.out


def test_json_is_one_plain_document(cli: Cli, log_path: Path):
    """
    Programs get the same figures, as one JSON document and nothing else on standard output.
    """
    log_path.write_bytes(b"".join(damaged()))
    ended = cli("verify", "--file", log_path, "--json")
    report = json.loads(ended.out)

    assert ended.code == 1
    assert ended.err == ""
    assert report["whole"] is False
    assert sorted(problem["kind"] for problem in report["problems"]) == [
        "checksum", "duplicate", "foreign", "gap", "glued", "torn",
    ]  # fmt: skip
    assert report["files"] == [str(log_path)]


def test_many_problems_are_cut_short_with_a_hint(cli: Cli, log_path: Path):
    """
    A thousand bad lines do not scroll the verdict away.
    """
    log_path.write_bytes(b"hello\n" * 1234)
    ended = cli("verify", "--file", log_path)

    assert len(ended.out.splitlines()) < 40
    assert "foreign: 1,234\n" in ended.out
    assert "and 1,214 more" in ended.out


def test_older_lines_and_open_calls_are_mentioned(cli: Cli, log_path: Path):
    """
    What cannot be proven, and what was begun and never ended, is said; neither is damage.
    """
    older = b'{"timestamp":"t","question":"q","response":"r"}\n'
    log_path.write_bytes(older + line(0, event="start", call_id="c"))
    ended = cli("verify", "--file", log_path)

    assert ended.code == 0
    assert "1 of an older shape" in ended.out
    assert "1 call begun and not ended" in ended.out


def test_log_of_the_environment_is_verified_without_an_option(
    cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    AI_RESPONSES_FILE is the default for --file.
    """
    log_path.write_bytes(line(0))
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))

    assert cli("verify").out.startswith("whole; 1 record,")


def test_default_log_below_the_current_directory_is_verified(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Without anything said, the log is where the default preset writes it.
    """
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "data" / "ai_responses" / "ai_responses.jsonl"
    log.parent.mkdir(parents=True)
    log.write_bytes(line(0))

    assert str(log) in cli("verify").out


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_missing_log_is_one_line_and_ends_with_3(cli: Cli, log_path: Path, arguments: tuple[str, ...]):
    """
    A log that is not there: exit code 3, one line that says what to do, nothing on standard output.
    """
    ended = cli("verify", "--file", log_path, *arguments)

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"ai-responses: {log_path} cannot be read: ")
    assert "--file" in ended.err
    assert ended.err.count("\n") == 1


def test_file_name_that_is_not_utf8_is_shown_and_is_json(cli: Cli, tmp_path: Path):
    """
    A path is bytes on this system; it neither stops the text nor breaks the JSON.
    """
    log = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe4.jsonl"))
    log.write_bytes(line(0))

    assert cli("verify", "--file", log).code == 0
    assert json.loads(cli("verify", "--file", log, "--json").out)["whole"] is True


def on_a_terminal(code: str, *arguments: object, columns: int = 80, out: int | None = None) -> tuple[int, bytes, str]:
    """Run *code* with a terminal as its error and, unless told, its output; return its code, output, and the screen."""
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs if out is None else out,
        stderr=theirs,
        env={**env, "COLUMNS": str(columns), "TERM": "xterm-256color"},
    ) as child:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side has closed it, the child is at its end
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        printed = child.communicate(timeout=15)[0] or b""
    return child.returncode, printed, shown.decode().replace("\r\n", "\n")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_damage_on_a_terminal_fits_its_width(log_path: Path, columns: int):
    """
    On a terminal long details are wrapped at words; all of it can be read at any width.
    """
    log_path.write_bytes(b"".join(damaged()))
    code, _, shown = on_a_terminal(MAIN, "verify", "--file", log_path, columns=columns)
    details = [one for one in shown.splitlines() if str(log_path) not in one]

    assert code == 1
    assert max(map(len, details)) <= columns
    assert "altered, or two pieces that happen to parse" in " ".join(shown.split())


@pytest.mark.slow
def test_long_verification_shows_a_bar_on_a_terminal_only(log_path: Path):
    """
    What takes over a second shows how far it is, on the terminal and never in the output.
    """
    log_path.write_bytes(b"".join(line(seq) for seq in range(600)))
    impatient = "from ai_response_logging.cli import _console; _console._PATIENCE_S = 0; " + MAIN
    piped = run_child(impatient, "verify", "--file", log_path)
    code, printed, shown = on_a_terminal(impatient, "verify", "--file", log_path, out=subprocess.PIPE)

    assert (piped.stdout.split(";")[0], piped.stderr) == ("whole", "")
    assert (code, printed.decode()) == (0, piped.stdout)
    assert "verify" in shown


@pytest.mark.slow
def test_short_verification_shows_no_bar(log_path: Path):
    """
    What is done at once flashes nothing.
    """
    log_path.write_bytes(line(0))

    assert on_a_terminal(MAIN, "verify", "--file", log_path, out=subprocess.PIPE)[2] == ""
