"""``ai-responses demo``: the whole story offline, a process killed in the middle included."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import MissingExtraError
from ._console import EXIT_NOT_WELL, plain, print_error, print_line
from .matrix import print_grid

if TYPE_CHECKING:
    from ..matrix import Plan, RunResult
    from ..matrix.cells import CellIndex
    from ..testing import Reply, SeenRequest
    from ..verify import Report

__all__ = ["demo"]

DEFAULT_FILE: Final = Path("ai-responses-demo", "ai_responses.jsonl")
QUESTIONS: Final = (
    "Why is the sky blue?",
    "How does a vaccine work?",
    "What is a black hole?",
    "Who invented paper?",
    "What is a compiler?",
)
MODELS: Final = ("aspen", "birch", "cedar", "elm", "fir", "hazel", "larch", "oak")
PROCESSES: Final = 4
VICTIM: Final = 2  # which of them is killed, from 1
PROCESSES_RESUMED: Final = 2
# Short, so that nobody waits for the usual five seconds before the first record can be seen in the log.
HANDLER_OPTIONS: Final = {"flush_interval": 0.1}
_KILL_TIMEOUT_S: Final = 30.0

LogFile = Annotated[
    Path,
    typer.Option("--file", metavar="LOG", help="Where the answers are kept; a second run goes into the same log."),
]


Live = Annotated[bool, typer.Option("--live", help="Let a small real model on this machine answer instead.")]


def demo(file: LogFile = DEFAULT_FILE, *, live: Live = False) -> None:
    """
    Show the whole story in under a minute: offline, without keys.

    5 questions x 8 models, asked by 4 processes that write one log; one of them is killed in the middle of a call, the
    run is resumed, and then the log is proven whole. The models are a server on this machine. The log stays; its path
    is the last line. Exit code 0 only if all 40 answers are there, each once, and the log is whole.

    With --live a model of 135 million parameters answers three questions instead, plain and streamed, through the
    official SDK with our recording client; that takes a minute and needs the extra local-model.

    Example: ai-responses demo
    """
    if live:
        from ._live_demo import live_demo

        live_demo(file)
        return
    from ..matrix import run_plan
    from ..record import default_log_path
    from ..testing import LocalModelServer
    from ..verify import verify_log

    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "demo")
    path = default_log_path(file)
    killer = _Killer(path)
    with LocalModelServer(killer.respond, models=MODELS) as server:
        plan = _plan_for(server.base_url)
        _say(f"Eight models answer on this machine ({server.base_url}); nothing leaves it, no key is needed.")
        killer.aim_at(plan)
        first = run_plan(plan, processes=PROCESSES, on_start=killer.start, **_settings(path))
        _say_what_was_killed(killer, first)
        if first.missing == first.expected:
            raise typer.Exit(EXIT_NOT_WELL)
        last = _resume(plan, first, path)
    report = verify_log(path)
    _say_verdict(report)
    print_line()
    print_grid(last.grid)
    print_line()
    faults = list(_faults(killer, last, report, path))
    for fault in faults:
        print_error(f"the demo did not go as it should: {fault}")
    if not faults:
        _say(f"All {last.expected} answers are in the log, each once, and a killed process has cost none of them.")
        _say(f"Look closer: ai-responses verify --file {shlex.quote(path)}")
    print_line(f"log: {path}")
    if faults:
        raise typer.Exit(EXIT_NOT_WELL)


def _plan_for(base_url: str) -> Plan:
    from ..matrix import ModelSpec, Plan

    # Two calls in flight for each process: the one that is killed has some of its work done and some not begun.
    models = [ModelSpec("local", name, base_url) for name in MODELS]
    return Plan(QUESTIONS, models, concurrency=2 * PROCESSES, timeout_seconds=_KILL_TIMEOUT_S + 10)


def _settings(path: str) -> dict[str, Any]:
    # The preset by name: what this machine has configured for real logs is no business of a demo.
    return {"filename": path, "config": "default", "handler_options": HANDLER_OPTIONS}


def _resume(plan: Plan, first: RunResult, path: str) -> RunResult:
    """Run what the log lacks; if that is nothing, there is nothing to run."""
    from ..matrix import run_plan

    _say(f"Resumed: {PROCESSES_RESUMED} new processes ask only the {first.missing} cells that the log lacks.")
    return run_plan(plan, processes=PROCESSES_RESUMED, execution_id=first.execution_id, resume=True, **_settings(path))


class _Killer:
    """
    Kills one worker in the middle of a call, at a moment that is forced and not hoped for.

    The server holds every call of the second half of that worker's cells. When the first half stands in the log, and
    at least one call of the second is in the server's hands, the process is killed.
    """

    def __init__(self, path: str) -> None:
        self.pid = 0
        self.logged = 0
        self._path = path
        self._execution_id = ""
        self._log_start = os.path.getsize(path) if os.path.exists(path) else 0
        self._hand: Sequence[CellIndex] = ()
        self._lock = threading.Lock()
        self._is_over = False

    def aim_at(self, plan: Plan) -> None:
        """Choose the worker: its cells are known, since they are dealt in a fixed order."""
        from ..matrix.cells import cells_of, deal

        self._hand = deal(cells_of(plan), PROCESSES)[VICTIM - 1]

    def start(self, execution_id: str, todo: int) -> None:
        """Say what begins, and keep its name: others may write into this log, too."""
        self._execution_id = execution_id
        _say(
            f"Run {execution_id}: {len(QUESTIONS)} questions x {len(MODELS)} models = {todo} cells, "
            f"asked by {PROCESSES} processes that write into one log."
        )

    def respond(self, request: SeenRequest) -> Reply | None:
        """Answer as usual; but hold the victim's later calls until it is dead."""
        from ..testing import Reply

        half = len(self._hand) // 2
        cell = (QUESTIONS.index(request.question) + 1, MODELS.index(request.model or "") + 1)
        if cell not in self._hand[half:]:
            return None
        with self._lock:
            if not self._is_over:
                self._kill_when_logged(half)
                return Reply(cut_after_bytes=0)
        return None

    def _kill_when_logged(self, count: int) -> None:
        deadline_s = time.monotonic() + _KILL_TIMEOUT_S
        while not self._is_over:
            mine = [record for record in self._new_records() if _place_of(record) in self._hand]
            if len(mine) >= count:
                with contextlib.suppress(ProcessLookupError):  # somebody else was quicker: the demo will say so
                    os.kill(mine[0]["pid"], signal.SIGKILL)
                    self.pid, self.logged = mine[0]["pid"], len(mine)
            self._is_over = len(mine) >= count or time.monotonic() > deadline_s
            time.sleep(0.02)

    def _new_records(self) -> Iterator[dict[str, Any]]:
        """Read what this run has appended so far; what stood there before may be somebody's long log."""
        from ..reader import lines_of, parse_line

        if not os.path.exists(self._path):
            return
        with open(self._path, "rb") as log:
            log.seek(self._log_start)
            for _, line in lines_of(log):
                if line.endswith(b"\n") and self._execution_id.encode() in line:
                    yield parse_line(line)


def _place_of(record: dict[str, Any]) -> tuple[Any, Any]:
    return record.get("question_index"), record.get("model_index")


def _faults(killer: _Killer, last: RunResult, report: Report, path: str) -> Iterator[str]:
    """Say what is not as promised; nothing if all is well."""
    from ..reader import read_log

    records = [record for record in read_log(path) if record.get("execution_id") == last.execution_id]
    counts = Counter(map(_place_of, records))
    writers = {record["writer_id"] for record in records}
    if not killer.pid:
        yield "no process was killed"
    if not last.grid.is_complete:
        yield f"{last.failed} cells failed, {last.missing} are missing"
    if doubled := sum(count > 1 for count in counts.values()):
        yield f"{doubled} cells are in the log more than once"
    if len(writers) <= PROCESSES:
        yield f"only {len(writers)} writers are in the log"
    if not report.whole:
        yield "the log is not whole; `ai-responses verify` says what is wrong and where"


def _say_what_was_killed(killer: _Killer, first: RunResult) -> None:
    for lost in first.lost_workers:
        if lost.pid == killer.pid:
            _say(
                f"Process {lost.number} (pid {lost.pid}) was {lost.reason} in the middle of a call, "
                f"with {killer.logged} of its cells in the log."
            )
        else:
            print_error(str(lost))
    _say(f"When all had ended, {first.done} of {first.expected} cells were in the log and {first.missing} missing.")


def _say_verdict(report: Report) -> None:
    verdict = "whole" if report.whole else f"not whole, {sum(report.problem_counts.values())} problems"
    _say(f"verify: {verdict}; {report.records} records of {len(report.writers)} writers, every byte looked at.")


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(f"{plain(text)}{end}")
    sys.stdout.flush()
