from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from helpers import read_lines, run_child

from ai_response_logging.testing import LocalModelServer, Reply

CLI = "from ai_response_logging.cli import main; main()"
PATIENCE_S = 40.0  # a machine with other work starts three interpreters in this
pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server for the length of a test."""
    with LocalModelServer() as running:
        yield running


@pytest.fixture
def plan(server: LocalModelServer, tmp_path: Path) -> Path:
    """Write a plan of 4 x 2 cells, four of them at once."""
    file = tmp_path / "plan.yaml"
    models = [{"platform": "local", "model": name, "base_url": server.base_url} for name in ("m1", "m2")]
    questions = ["why?", "how?", "when?", "who?"]
    file.write_text(json.dumps({"questions": questions, "models": models, "concurrency": 4, "max_retries": 0}), "utf-8")
    return file


class Terminal:
    """
    A command that runs in a terminal of its own, which sends it what a person types.

    Ended and reaped on every path.
    """

    def __init__(self, *arguments: object, columns: int = 100) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
            os.execve(  # noqa: S606  # our own argv, in the child that pty.fork made
                sys.executable, [sys.executable, "-c", CLI, *map(str, arguments)], environment
            )
        self.shown = ""
        self.code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def press_ctrl_c(self) -> None:
        """Have the terminal send SIGINT to whatever runs in its foreground, all processes of it."""
        os.write(self.master, b"\x03")

    def read_until(self, text: str) -> None:
        """Read what is shown until *text* is there."""
        while text not in self.shown:
            piece = self._read()
            assert piece, f"it ended without {text!r}: {self.shown}"

    def read_to_end(self) -> int:
        """Read all that is shown, and return the exit code."""
        while self._read():
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def _read(self) -> bool:
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # EIO: the other side has gone
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)


def test_terminal_sees_a_bar_with_its_figures(plan: Path, log_path: Path, server: LocalModelServer):
    """On a terminal a bar counts cells, failures, the rate and the time left, and is gone at the end."""
    server.reply_with(Reply(status=500), model="m2")

    with Terminal("run", plan, "--file", log_path) as terminal:
        code = terminal.read_to_end()

    assert code == 1
    assert "8/8 done, 1 failed" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown)
    assert re.search(r"[\d.-]+/s, [\d:-]+ left", terminal.shown)
    assert "7 of 8 done, 1 failed, 0 missing" in terminal.shown


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_bar_stays_within_the_terminal(plan: Path, log_path: Path, columns: int):
    """However narrow the terminal, the bar is one line of it, with its figures."""
    with Terminal("run", plan, "--file", log_path, columns=columns) as terminal:
        terminal.read_to_end()

    pictures = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", terminal.shown).split("\n")
    bars = [line.strip("\r") for line in pictures if "0 failed, " in line and "missing" not in line]
    assert bars
    assert all(bar.rstrip().endswith(" left") for bar in bars)
    assert max(map(len, bars)) <= columns


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_first_ctrl_c_in_a_terminal_ends_well_and_says_how_to_go_on(
    plan: Path, log_path: Path, server: LocalModelServer, processes: int
):
    """Calls in flight are answered and logged, no other is begun, and the command it prints completes the run."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate))

    with Terminal("run", plan, "--file", log_path, "--processes", processes) as terminal:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        terminal.press_ctrl_c()
        terminal.read_until("Ctrl-C again stops")
        gate.set()
        code = terminal.read_to_end()

    shown = terminal.shown.replace("\r\n", "\n")
    assert code == 130
    assert "Traceback" not in shown
    assert "4 of 8 done, 0 failed, 4 missing" in shown
    assert len(server.requests) == 4
    again = re.search(r"get them with: ai-responses (.*)\n", shown)
    assert again
    run_child(CLI, *again[1].split(), timeout=PATIENCE_S)
    counts = Counter((record["question_index"], record["model_index"]) for record in read_lines(log_path))
    assert (len(counts), set(counts.values())) == (8, {1})


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_second_ctrl_c_in_a_terminal_stops_at_once(
    plan: Path, log_path: Path, server: LocalModelServer, processes: int
):
    """What hangs is given up: in the log as cancelled, without a traceback, and the command it prints asks it again."""
    server.reply_always(Reply(hold=threading.Event()))

    with Terminal("run", plan, "--file", log_path, "--processes", processes) as terminal:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        terminal.press_ctrl_c()
        terminal.read_until("Ctrl-C again stops")
        terminal.press_ctrl_c()
        code = terminal.read_to_end()

    shown = terminal.shown.replace("\r\n", "\n")
    assert code == 130
    assert "Traceback" not in shown
    assert Counter(record["error_type"] for record in read_lines(log_path)) == {"cancelled": 4}
    server.reply_always(Reply())
    again = re.search(r"go on with: ai-responses (.*)\n", shown)
    assert again
    ended = run_child(CLI, *again[1].split(), timeout=PATIENCE_S)
    assert "8 of 8 done" in ended.stdout
