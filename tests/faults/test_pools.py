"""Pools of worker processes whose workers are replaced every few tasks, or ended in the middle of them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from _children import Notes
from helpers import assert_all_there_once, has_fork, log_files, read_lines
from test_fork import run_script, writers_of

from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_fork]

# Nothing but a flush, a close or the end brings these home.
WAITS = {"batch_size": 10_000, "flush_interval": 1000}

# A task logs in a process that has its handler from its parent, or makes one as an application's module does.
TASKS = """
import multiprocessing


def few(k):
    if "handler" not in globals():
        attach()
    child_logs(f"task{k}", 5)
    return os.getpid()


def endless(k):
    if "handler" not in globals():
        attach()
    for number in range(10**9):
        log(f"task{k}-{number}")
        if number == 20:
            logging_now.release()


def remember(semaphore):
    global logging_now
    logging_now = semaphore
"""


@pytest.mark.usefixtures("durability")
@pytest.mark.parametrize(
    ("method", "durability"),
    [("fork", "memory"), ("fork", "crash"), ("spawn", "memory"), ("forkserver", "crash")],
    indirect=["durability"],
)
def test_pool_that_replaces_its_workers_keeps_what_their_tasks_log(
    tmp_path: Path, log_path: Path, notes: Notes, method: str
):
    """``maxtasksperchild``: each worker that has done its tasks brings all home as it leaves, at each durability."""
    code = f"""
    if __name__ == "__main__":
        attach()
        log("parent-before")
        with multiprocessing.get_context({method!r}).Pool(2, maxtasksperchild=2) as pool:
            pids = set(pool.map(few, range(6), chunksize=1))
            log("parent-meanwhile")
            pool.close()
            pool.join()
        assert len(pids) >= 3 and os.getpid() not in pids, pids
        log("parent-behind")
    """
    run_script(tmp_path, log_path, notes, TASKS + dedent(code), **WAITS)

    assert len(notes.ids()) == 6 * 5 + 3
    assert len(writers_of(log_path)) >= 4
    assert_all_there_once(log_path, notes.ids())


@pytest.mark.parametrize(
    ("method", "ends"),
    [("fork", "pool.terminate()"), ("fork", "pass"), ("spawn", "pool.terminate()"), ("forkserver", "pass")],
)
def test_pool_ended_in_the_middle_of_its_tasks_has_each_acknowledged_record_once(
    tmp_path: Path, log_path: Path, notes: Notes, method: str, ends: str
):
    """``Pool.terminate()``, which the end of a ``with`` calls, too, is a SIGTERM in mid-task; all comes home."""
    code = f"""
    if __name__ == "__main__":
        attach()
        log("parent-before")
        context = multiprocessing.get_context({method!r})
        logging_now = context.Semaphore(0)
        with context.Pool(2, initializer=remember, initargs=(logging_now,)) as pool:
            pool.map_async(endless, range(2), chunksize=1)
            for _ in range(2):
                assert logging_now.acquire(timeout=15)
            log("parent-meanwhile")
            {ends}
        pool.join()
        log("parent-behind")
    """
    run_script(tmp_path, log_path, notes, TASKS + dedent(code), batch_size=7, flush_interval=1000)

    assert_each_once(log_path, notes)


def assert_each_once(log: Path, notes: Notes) -> None:
    """Assert that each noted record is in the log, once; one that a SIGTERM cut off behind its call may be, too."""
    assert set(notes.statuses()) <= {"queued", "written_sync"}
    assert_all_there_once(log, notes.ids(), others=True)
    unnoted = {record["record_id"] for file in log_files(log) for record in read_lines(file)} - set(notes.ids())
    assert len(unnoted) <= 2, unnoted
    report = verify_log(log)
    assert report.whole, report.to_dict()
    assert report.in_journals == 0
