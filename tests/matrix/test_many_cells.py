"""
Thousands of cells: memory that does not grow with them, and runs that are killed and resumed.

Small here; with AI_RESPONSES_TEST_EVERY_POINT set (as `.ci/run full` does) 5,000 cells, 200 of them at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, has_proc, read_lines, run_child

from ai_response_logging.testing import LocalModelServer, Reply

IS_LARGE = bool(os.environ.get("AI_RESPONSES_TEST_EVERY_POINT"))
CELLS, AT_ONCE = (5000, 200) if IS_LARGE else (600, 60)
PATIENCE_S = 1500 if IS_LARGE else 150
pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE_S + 60)]

# argv: the log, the server, cells, calls at once. Prints, ten times over the run, the resident memory and the tasks.
ASKING = """
import asyncio, json, sys
from ai_response_logging.matrix import ModelSpec, Plan, run_plan

log, url, cells, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
models = [ModelSpec("local", "m" * at, url) for at in range(1, 11)]
plan = Plan([f"question {at}" for at in range(cells // 10)], models, concurrency=at_once, timeout_seconds=300)
heard, seen = 0, []

def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def on_cell(cell):
    global heard
    heard += 1
    if heard % (cells // 10) == 0:
        # Not those that the HTTP client makes while it connects.
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
        seen.append((resident_kib(), names.count("CellRunner._ask")))

run_plan(plan, filename=log, on_cell=on_cell)
print(json.dumps(seen))
"""


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server whose answers take their time, some longer than others."""
    with LocalModelServer(lambda request: Reply(delay_s=len(str(request.model)) % 7 * 0.02)) as running:
        yield running


@has_proc
def test_memory_and_tasks_do_not_grow_with_the_cells(server: LocalModelServer, log_path: Path):
    """Every cell is logged once; tasks are never more than calls at once, and memory is flat once all are busy."""
    ended = run_child(ASKING, log_path, server.base_url, CELLS, AT_ONCE, timeout=PATIENCE_S)

    seen = json.loads(ended.stdout)
    print(f"KiB resident and tasks at each tenth of {CELLS} cells: {seen}")
    counts = Counter((record["question_index"], record["model_index"]) for record in read_lines(log_path))
    assert (len(counts), set(counts.values())) == (CELLS, {1})
    assert len(server.requests) == CELLS
    assert 0 < max(tasks for _, tasks in seen) <= AT_ONCE
    # Measured with 5,000 cells, 200 at once, after a tenth of them and at the end: 71.7 and 72.0 MiB.
    assert seen[-1][0] - seen[1][0] < 6 * 1024


@pytest.mark.faults
def test_run_killed_three_times_and_resumed_asks_no_kept_cell_again(tmp_path: Path):
    """After three SIGKILLs at random each cell is in the log once, and the log is whole: .ci/resume.py looks."""
    cells, at_once = (5000, 200) if IS_LARGE else (120, 12)
    command = [sys.executable, ROOT / ".ci" / "resume.py", "--cells", str(cells), "--concurrency", str(at_once)]
    command += ["--processes", "4" if IS_LARGE else "2"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    print(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"all well: {cells:,} cells" in ended.stdout
