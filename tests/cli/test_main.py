"""What holds for every command: exit codes, one-line errors, closed pipes, a quick start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import child_process, run_child

import ai_response_logging
from ai_response_logging import cli as cli_module
from ai_response_logging.errors import AppendError, ConfigError, LogReadError, MissingExtraError

if TYPE_CHECKING:
    from .conftest import Cli

MAIN = "from ai_response_logging.cli import main; main()"
COMMANDS = ("demo", "run", "tail", "show", "matrix", "verify", "forget", "config")


def write_log(path: Path, records: int, *, is_whole: bool = True) -> None:
    """Write a log of many runs, so that every command has much to print."""
    with path.open("wb") as file:
        for seq in range(records):
            record = {"schema_version": "1.0", "record_id": str(seq), "execution_id": f"run{seq}", "model": "m",
                      "success": True, "question_index": 1, "writer_id": "w", "seq": seq}  # fmt: skip
            body = json.dumps(record).encode()[:-1]
            file.write(b'%b,"checksum":"%08x"}\n' % (body, zlib.crc32(body)))
            if not is_whole:
                file.write(b"hello\n")


# --- exit codes and errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogReadError("log", "reason"), 3),
        (MissingExtraError("openai", "openai"), 4),
        (ConfigError("batch_size must be 1 to 10000, got 0", "handlers.x"), 2),
        (AppendError("log", 28), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_expected_error_has_its_exit_code_and_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
):
    """
    No traceback for what a user can put right.
    """

    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("ai_response_logging.verify.verify_log", fail)
    ended = cli("verify")

    assert (ended.code, ended.out) == (code, "")
    assert ended.err == (f"ai-responses: {error}\n" if str(error) else "")


def test_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    """
    A defect shows its traceback: it is to be reported, not guessed at.
    """

    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ai_response_logging.verify.verify_log", fail)

    with pytest.raises(ZeroDivisionError):
        cli_module.main(["verify"])


@pytest.mark.parametrize(
    "arguments",
    [("nothing",), ("verify", "--nothing"), ("verify", "--file"), ("verify", "extra"), ("config",), ("config", "x"),
     ("config", "show"), ("matrix", "a", "b"), ("run",), ("run", "nowhere.yaml", "--processes", "0")],
    ids=" ".join,
)  # fmt: skip
def test_command_used_wrongly_ends_with_2_and_one_line(cli: Cli, arguments: tuple[str, ...]):
    """
    One line that says what is wrong and where the help is.
    """
    ended = cli(*arguments)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("ai-responses: ")
    assert "--help" in ended.err


def test_no_command_shows_the_help_and_ends_with_2(cli: Cli):
    """
    Without a command the help says which there are.
    """
    ended = cli()

    assert (ended.code, ended.out) == (2, "")
    assert all(f"\n  {command} " in ended.err for command in COMMANDS)


def test_version_is_that_of_the_package(cli: Cli):
    """
    --version tells what is installed.
    """
    assert cli("--version")[:2] == (0, f"ai-responses {ai_response_logging.__version__}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), ("config", "list"), ("config", "show"), ("config", "check")]
)
def test_help_of_every_command_has_an_example(cli: Cli, command: tuple[str, ...], flag: str):
    """
    Every help text shows how the command is called.
    """
    ended = cli(*command, flag)

    assert ended.code == 0
    assert f"Example: {' '.join(('ai-responses', *command))}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.slow
def test_module_runs_as_the_command_does():
    """
    ``python -m ai_response_logging`` is the same program.
    """
    child = subprocess.run(
        [sys.executable, "-m", "ai_response_logging", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )

    assert child.stdout == f"ai-responses {ai_response_logging.__version__}\n"


# --- streams ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("verify",), 0),
        (("verify", "--json"), 0),
        (("matrix",), 0),
        (("matrix", "--json"), 0),
        (("config", "list"), 0),
        (("config", "show", "default"), 0),
        (("--help",), 0),
        (("verify", "--help"), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_pipe_closed_early_is_no_error(log_path: Path, arguments: tuple[str, ...], code: int):
    """
    ``ai-responses ... | head`` ends quietly, with the code it would have had.
    """
    write_log(log_path, 3000)
    with child_process(
        f"import sys; sys.stdin.read(); {MAIN}", *arguments, env={"AI_RESPONSES_FILE": str(log_path)}
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=15)

    assert (process.returncode, err) == (code, "")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("verify",), ("verify", "--json"), ("matrix",)], ids=" ".join)
def test_damage_is_in_the_exit_code_also_when_nobody_reads_the_output(log_path: Path, arguments: tuple[str, ...]):
    """
    A closed pipe must not make a damaged log look whole.
    """
    write_log(log_path, 2, is_whole=False)
    with log_path.open("ab") as file:
        file.write(b'{"execution_id":"bad","model":"m","success":false}\n')
    with child_process(f"import sys; sys.stdin.read(); {MAIN}", *arguments, "--file", log_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        process.communicate(timeout=15)

    assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_said_and_ends_with_1(log_path: Path):
    """
    A report that went nowhere because the disk is full is not a success.
    """
    write_log(log_path, 2)
    with Path("/dev/full").open("wb") as full:
        child = subprocess.run(
            [sys.executable, "-c", MAIN, "verify", "--file", str(log_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=15, check=False,
        )  # fmt: skip

    assert child.returncode == 1
    assert child.stderr == "ai-responses: the output is not complete: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_closed_streams_stop_no_command(log_path: Path, closed: tuple[int, ...]):
    """
    Started by a daemon without standard streams, a command does its work all the same.
    """
    write_log(log_path, 2)
    child = subprocess.run(
        ["sh", "-c", f'exec "$@" {" ".join(f"{one}>&-" for one in closed)}', "sh",
         sys.executable, "-c", MAIN, "verify", "--file", str(log_path)],
        timeout=15, check=False, capture_output=True,
    )  # fmt: skip

    assert (child.returncode, child.stderr) == (0, b"")


@pytest.mark.slow
def test_terminal_without_unicode_shows_escapes(log_path: Path):
    """
    An encoding that lacks a character costs that character, not the command; JSON is UTF-8 all the same.
    """
    log_path.write_text('{"execution_id":"华为","model":"m","success":true}\n', "utf-8")
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text = run_child(MAIN, "matrix", "--file", log_path, env=env)
    document = run_child(MAIN, "matrix", "--json", "--file", log_path, env=env)

    assert "\\u534e\\u4e3a" in text.stdout
    assert json.loads(document.stdout)[0]["execution_id"] == "华为"


@pytest.mark.parametrize("arguments", [("verify",), ("matrix",), ("matrix", "run1"), ("config", "list")], ids=" ".join)
def test_no_colours_away_from_a_terminal(
    cli: Cli, log_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    """
    What goes into a pipe or a file is plain text.
    """
    write_log(log_path, 3, is_whole=False)
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    monkeypatch.setenv("TERM", "xterm-256color")

    assert "\x1b" not in cli(*arguments).out


def test_main_gives_the_streams_back(cli: Cli):
    """
    A program that calls main() keeps its own standard output.
    """
    before = sys.stdout, sys.stderr
    cli("--version")

    assert (sys.stdout, sys.stderr) == before


# --- start -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("verify", "--file", "LOG")], ids=" ".join)
def test_command_imports_only_what_it_needs(log_path: Path, arguments: tuple[str, ...]):
    """
    Help and verify start quickly: no SDK, no tables, no YAML, and nothing that writes a log.
    """
    write_log(log_path, 3)
    code = """
        import atexit, sys
        heavy = {"openai", "httpx2", "rich", "yaml", "concurrent_log_handler", "asyncio", "hypothesis",
                 "ai_response_logging.handler", "ai_response_logging.matrix.engine"}
        atexit.register(lambda: print("loaded:", *sorted(heavy & set(sys.modules))))
        from ai_response_logging.cli import main
        main()
    """
    child = run_child(code, *(str(log_path) if one == "LOG" else one for one in arguments))

    assert child.stdout.splitlines()[-1].split() == ["loaded:"]


@pytest.mark.slow
def test_missing_extra_stops_only_the_command_that_needs_it(log_path: Path, tmp_path: Path):
    """
    Without the SDK everything that reads a log works; run says with exit code 4 how to install it.
    """
    write_log(log_path, 3)
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "questions: [What is a log]\nmodels:\n- {platform: p, model: m, base_url: 'http://127.0.0.1:9/v1'}\n", "utf-8"
    )
    without = "import sys; sys.modules['openai'] = None\n" + MAIN
    assert run_child(without, "--help").returncode == 0
    assert run_child(without, "verify", "--file", log_path).stdout.startswith("whole")
    child = run_child(without, "run", plan, "--file", tmp_path / "new.jsonl", expect=4)

    assert "pip install 'ai-response-logging[openai]'" in child.stderr
    assert child.stderr.count("\n") == 1


def test_environment_of_the_tests_names_no_log():
    """
    The suite never reads a developer's own log.
    """
    assert "AI_RESPONSES_FILE" not in os.environ
