from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import read_lines, run_child

from ai_response_logging.verify import verify_log

CLI = "from ai_response_logging.cli import main; main()"
CELLS = Counter((question, model) for question in range(1, 6) for model in range(1, 9))


class Demo(NamedTuple):
    """What a demo without arguments has printed, and the log that it has left."""

    done: subprocess.CompletedProcess[str]
    log: Path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo once: seven processes load the SDK, which is most of what it costs; nobody writes to its log."""
    folder = tmp_path_factory.mktemp("first")
    done = run_child(CLI, "demo", cwd=folder, timeout=60)
    return Demo(done, folder / "ai-responses-demo" / "ai_responses.jsonl")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(80)
def test_demo_kills_a_process_and_ends_with_every_answer_once(first: Demo):
    """Without arguments: 40 of 40 cells, each once, from 5 writers or more, one of them killed, the log whole."""
    done, log = first

    records = read_lines(log)
    assert Counter((record["question_index"], record["model_index"]) for record in records) == CELLS
    assert all(record["success"] for record in records)
    assert len({record["execution_id"] for record in records}) == 1
    assert len({record["writer_id"] for record in records}) >= 5
    assert "killed by SIGKILL in the middle of a call" in done.stdout
    assert "40 of 40 done, 0 failed, 0 missing" in done.stdout
    assert "verify: whole" in done.stdout
    assert done.stdout.splitlines()[-1] == f"log: {log}"
    assert done.stderr == ""
    assert verify_log(log).whole


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(150)
def test_second_demo_is_a_new_run_in_the_same_log_and_its_last_line_is_never_wrapped(tmp_path: Path, first: Demo):
    """Two runs share a log that stays whole; also on a narrow terminal the last line is the path alone, unwrapped."""
    log = tmp_path / ("a-folder-with-a-long-name-" * 4) / first.log.name
    shutil.copytree(first.log.parent, log.parent)

    shown = on_a_terminal("demo", "--file", str(log))

    runs = Counter(record["execution_id"] for record in read_lines(log))
    assert sorted(runs.values()) == [40, 40]
    assert verify_log(log).whole
    assert shown.splitlines()[-1] == f"log: {log}"


def on_a_terminal(*args: str) -> str:
    """Run the command line with its output on a terminal of 40 columns, and return what it shows."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "40"}
    shown = b""
    with subprocess.Popen([sys.executable, "-c", CLI, *args], stdout=slave, stderr=slave, env=environment) as child:
        os.close(slave)
        with contextlib.suppress(OSError):  # EIO: the other side has gone
            while piece := os.read(master, 65536):
                shown += piece
    os.close(master)
    assert child.returncode == 0, shown.decode()
    return shown.decode()


@pytest.mark.slow
def test_demo_whose_log_cannot_be_written_says_so_in_one_line(tmp_path: Path):
    """A directory in the log's place is one line and exit code 2, not a traceback and not a demo."""
    done = run_child(CLI, "demo", "--file", tmp_path, expect=2)

    assert "directory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(80)
def test_demo_in_a_log_that_is_damaged_does_not_claim_that_all_is_well(tmp_path: Path):
    """Old damage in the same log is reported with exit code 1, and the path is still the last line."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"schema_version":"1.0","broken\n')

    done = run_child(CLI, "demo", "--file", log, expect=1, timeout=60)

    assert "verify: not whole" in done.stdout
    assert "not whole" in done.stderr
    assert done.stdout.splitlines()[-1] == f"log: {log}"


@pytest.mark.slow
def test_demo_without_the_sdk_names_the_extra():
    """Without the extra: exit code 4 and the command that installs it."""
    without = "import importlib.util; importlib.util.find_spec = lambda name: None\n" + CLI

    done = run_child(without, "demo", expect=4)

    assert "pip install 'ai-response-logging[demo]'" in done.stderr
