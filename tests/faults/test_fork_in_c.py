"""Children forked in C, without Python's hooks, as uWSGI forks its workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from _children import PREAMBLE, Notes
from helpers import assert_all_there_once, has_fork, read_lines, run_child

from ai_response_logging import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_fork]

_WORKERS = """
import ctypes
attach(durability="crash")
children = []
for k in range(3):
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        for n in range(5):
            log(f"worker{k}-{n}")
        END
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
assert handler.get_stats()["accepted"] == 0
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit()"], ids=["killed", "ended"])
def test_workers_forked_without_hooks_are_writers_of_their_own(log_path: Path, notes: Notes, end: str):
    """Workers that uWSGI forks from a process that has configured keep each its records, killed or not."""
    code = PREAMBLE + _WORKERS.replace("END", end)
    run_child(code, log_path, notes.path, '{"batch_size": 10000, "flush_interval": 1000}')
    AIResponseHandler(log_path).close()

    assert len(notes.ids()) == 15
    assert_all_there_once(log_path, notes.ids())
    assert len({one["writer_id"] for one in read_lines(log_path)}) == 3
