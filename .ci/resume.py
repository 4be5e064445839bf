"""
Kill a run of many cells at random, resume it, and look whether each cell was asked and kept as it should be.

Usage: python .ci/resume.py [--cells N] [--kills K] [--processes P] [--concurrency C] [--seed S], with an interpreter in
which the library and its extra `openai` are installed.

A server on this machine plays the models.  `ai-responses run` asks it N cells, C at once, and is killed (SIGKILL, its
processes with it) K times, each time when a random number of further calls has come; each time it is resumed.  At the
end every cell must have exactly one record, of success; the log must be whole; and no cell may have been asked again
whose record a killed process had written or left in its journal.  A call that was in flight has no record: it is asked
again, and there are at most C of these at each kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ai_response_logging.reader import read_log
from ai_response_logging.testing import LocalModelServer, Reply, SeenRequest
from ai_response_logging.verify import verify_log

MODELS: Final = 10
EXECUTION_ID: Final = "killed-and-resumed"
GIVE_UP_S: Final = 1500.0
Cell = tuple[int, str]


class Models:
    """The server's side: counts who asks which cell, and answers a little later, so that calls are in flight."""

    def __init__(self, delay_s: float) -> None:
        self.asked: Counter[Cell] = Counter()
        self._delay_s = delay_s
        self._changed = threading.Condition()

    def respond(self, request: SeenRequest) -> Reply:
        """Count a request and answer it."""
        with self._changed:
            self.asked[int(request.question.split()[1]), str(request.model)] += 1
            self._changed.notify_all()
        return Reply(delay_s=self._delay_s)

    def wait_for(self, count: int, process: subprocess.Popen[bytes]) -> bool:
        """Wait until so many requests came in all; False if *process* ends, or nothing comes any more, before that."""
        give_up_s = time.monotonic() + GIVE_UP_S
        with self._changed:
            while self.asked.total() < count:
                if process.poll() is not None or time.monotonic() > give_up_s:
                    return False
                self._changed.wait(0.1)
        return True


def write_plan(folder: Path, base_url: str, cells: int, concurrency: int) -> Path:
    """Write a plan of so many cells, its questions in a file of their own."""
    plan, questions = folder / "plan.yaml", folder / "questions.txt"
    questions.write_text("".join(f"question {at} of many\n" for at in range(1, cells // MODELS + 1)), "utf-8")
    models = [{"platform": f"p{at % 2}", "model": f"m{at}", "base_url": base_url} for at in range(1, MODELS + 1)]
    # A patience that no load on this machine can use up: a timeout would be a failure that nobody asked for.
    settings = {"concurrency": concurrency, "timeout_seconds": 120, "max_retries": 2}
    plan.write_text(json.dumps({"questions_file": questions.name, "models": models, **settings}), "utf-8")
    return plan


def start(plan: Path, log: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, so that its workers can be killed with it."""
    command = [sys.executable, "-m", "ai_response_logging", "run", str(plan), "--file", str(log), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def kept_cells(log: Path) -> Counter[Cell]:
    """Return the cells that the log and its journals hold, with how often."""
    records = read_log(log, missing_ok=True)
    return Counter((record["question_index"], record["model"]) for record in records if record["success"])


def play(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Run, kill and resume; return what is not as it should be."""
    chance = random.Random(arguments.seed)  # noqa: S311  nobody is to be surprised
    log, models, complaints = folder / "log.jsonl", Models(arguments.delay), []
    seen: list[tuple[Counter[Cell], Counter[Cell]]] = []  # after each kill: what is kept, and what was asked
    with LocalModelServer(models.respond) as server:
        plan = write_plan(folder, server.base_url, arguments.cells, arguments.concurrency)
        for kill in range(1, arguments.kills + 1):
            part = (arguments.cells - len(kept_cells(log))) // (arguments.kills + 2 - kill)
            run = start(plan, log, options_after(log, arguments.processes))
            came = models.wait_for(models.asked.total() + chance.randint(1, part + part // 2), run)
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            if not came:
                complaints.append(f"kill {kill} never came: the run had ended with {run.returncode}")
            seen.append((kept_cells(log), Counter(models.asked)))
            print(f"kill {kill}: {models.asked.total():,} calls came, {len(seen[-1][0]):,} cells are kept", flush=True)
        run = start(plan, log, options_after(log, arguments.processes))
        out, _ = run.communicate(timeout=GIVE_UP_S)
        print(f"resumed to the end: exit code {run.returncode}", flush=True)
    if run.returncode:
        complaints.append(f"the last run ended with {run.returncode}")
    return [
        *complaints,
        *wrong_cells(log, json.loads(out), arguments.cells),
        *asked_again(seen, models.asked, arguments.concurrency),
    ]


def options_after(log: Path, processes: int) -> list[str]:
    """Return how the run goes on: a new one as long as nothing of it is kept."""
    which = "--resume" if kept_cells(log) else "--execution-id"
    return [which, EXECUTION_ID, "--processes", str(processes)]


def wrong_cells(log: Path, summary: dict[str, object], cells: int) -> list[str]:
    """Say which cells are not in the log exactly once, as success, and what is wrong with its bytes."""
    kept, report = kept_cells(log), verify_log(str(log))
    others = sum(1 for record in read_log(log) if not record["success"])
    figures = {name: summary[name] for name in ("expected", "done", "failed", "missing")}
    print(f"the command says {figures}", flush=True)
    verdict = "whole" if report.whole else "NOT whole"
    print(f"verify: {verdict}, {report.records:,} records of {len(report.writers)} writers")
    doubled = [cell for cell, count in kept.items() if count > 1]
    return [
        text
        for text, is_wrong in (
            (f"the command says {figures}", list(figures.values()) != [cells, cells, 0, 0]),
            (f"{cells - len(kept)} cells are lost", len(kept) != cells),
            (f"{len(doubled)} cells are kept twice: {doubled[:5]}", bool(doubled)),
            (f"{others} records are of failed calls", bool(others)),
            (f"the log is not whole: {report.problem_counts}", not report.whole),
        )
        if is_wrong
    ]


def asked_again(
    seen: Sequence[tuple[Counter[Cell], Counter[Cell]]], asked: Counter[Cell], concurrency: int
) -> list[str]:
    """Say which cells were asked again though a killed process had kept them, or was not even asking them."""
    twice = sum(count - 1 for count in asked.values())
    print(f"{asked.total():,} calls for {len(asked):,} cells: {twice:,} were in flight at a kill, and are asked again")
    paid_twice = {cell for kept, then in seen for cell in kept if asked[cell] != then[cell]}
    complaints = [f"{len(paid_twice)} kept cells were asked again: {sorted(paid_twice)[:5]}"] if paid_twice else []
    if twice > len(seen) * concurrency:
        complaints.append(f"{twice} calls were made again, and only {len(seen) * concurrency} can have been in flight")
    return complaints


def main() -> int:
    """Play it and say what was found; 0 when every cell is there once and none was paid for twice."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds a model takes")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}: {arguments.cells:,} cells, {arguments.concurrency} at once", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="resume-"))
    complaints = play(folder, arguments)
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    if complaints:
        print(f"the log stays in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"all well: {arguments.cells:,} cells, each kept once, none that was kept asked again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
