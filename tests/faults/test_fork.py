from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from _children import PREAMBLE, Notes, assert_kept
from helpers import assert_all_there_once, has_fork, log_files, read_lines, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability"), has_fork]

# 3.12 and later warn of a fork amid threads, which is what all of this is about.
MAY_FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
"""

# Threads that log without a pause, so that every fork happens amid appends, locks and full queues.
THREADS = """
stop = threading.Event()
started = threading.Barrier(4)


def busy(name):
    log(f"{name}-0")
    started.wait()
    number = 1
    while not stop.wait(0.0002):
        log(f"{name}-{number}")
        number += 1


def start_threads():
    threads = [threading.Thread(target=busy, args=(f"thread{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    return threads


def end_threads(threads):
    stop.set()
    for thread in threads:
        thread.join()
    handler.close()
    stats()


def child_logs(name, count=20):
    for number in range(count):
        log(f"{name}-{number}")


def ended_well(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run_script(tmp_path: Path, log: Path, notes: Notes, code: str, **options: object) -> None:
    """Run *code* from a file, as multiprocessing's spawn needs it, with the preamble and the threads above."""
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + MAY_FORK + THREADS + dedent(code), "utf-8")
    given = {"batch_size": 5, "flush_interval": 0.01, **options}
    run_child(script, log, notes.path, json.dumps(given))


def writers_of(log: Path) -> set[str]:
    """Return the ids of all writers in a log."""
    return {record["writer_id"] for file in log_files(log) for record in read_lines(file)}


@pytest.mark.parametrize("queue_max_size", [1000, 2])
@pytest.mark.parametrize("way_out", ["os._exit(0)", "sys.exit(0)", "pass"])
def test_forked_children_amid_logging_threads_log_at_once_and_nothing_is_doubled(
    tmp_path: Path, log_path: Path, notes: Notes, way_out: str, queue_max_size: int
):
    """A child of os.fork is a writer of its own: no hang, nothing of the parent's written again, nothing lost."""
    code = f"""
    attach()
    threads = start_threads()
    children = []
    for k in range(8):
        pid = os.fork()
        if pid == 0:
            child_logs(f"child{{k}}")
            handler.flush()
            stats()
            {way_out}
            break
        children.append(pid)
    else:
        good = all([ended_well(pid) for pid in children])
        end_threads(threads)
        assert good
    """
    run_script(tmp_path, log_path, notes, code, queue_max_size=queue_max_size)

    assert len(writers_of(log_path)) == 9
    assert sum(id_.startswith("child") for id_ in notes.ids()) == 8 * 20
    assert_kept(log_path, notes)


def test_forked_child_that_ends_normally_brings_home_what_it_did_not_flush(
    tmp_path: Path, log_path: Path, notes: Notes
):
    """A child that just ends, however it was forked, has all its records in the file."""
    code = """
    attach()
    log("parent")
    pid = os.fork()
    child_logs("child" if pid == 0 else "more")
    if pid:
        assert ended_well(pid)
    """
    run_script(tmp_path, log_path, notes, code, batch_size=10_000, flush_interval=1000)

    assert_all_of(notes, parent=1, child=20, more=20)
    assert len(writers_of(log_path)) == 2
    assert_kept_without_counters(log_path, notes)


def test_child_of_a_child_is_a_writer_of_its_own(tmp_path: Path, log_path: Path, notes: Notes):
    """Three generations log, each with its own number sequence, and each ends with all its records home."""
    code = """
    attach()
    threads = start_threads()
    pid = os.fork()
    if pid == 0:
        child_logs("child")
        grandchild = os.fork()
        child_logs("child-later" if grandchild else "grandchild")
        if grandchild:
            assert ended_well(grandchild)
        handler.flush()
        stats()
    else:
        good = ended_well(pid)
        end_threads(threads)
        assert good
    """
    run_script(tmp_path, log_path, notes, code)

    assert_all_of(notes, child=40, grandchild=20)
    assert len(writers_of(log_path)) == 3
    assert_kept(log_path, notes)


def test_child_forked_with_records_waiting_does_not_write_the_parents(tmp_path: Path, log_path: Path, notes: Notes):
    """What waits in the parent at the fork is the parent's: its counters begin at 0 in the child."""
    code = """
    attach()
    child_logs("parent")
    assert handler.get_stats()["pending"] == 20
    pid = os.fork()
    if pid == 0:
        begun = stats()
        assert (begun["accepted"], begun["pending"], begun["written"]) == (0, 0, 0), begun
        handler.flush()
        handler.close()
        assert not os.path.getsize(LOG)
        log("child")
    else:
        assert ended_well(pid)
    """
    run_script(tmp_path, log_path, notes, code, batch_size=10_000, flush_interval=1000)

    assert_all_of(notes, parent=20, child=1)
    assert_kept_without_counters(log_path, notes)


def test_child_forked_while_its_parent_holds_the_log_waits_for_the_log_alone(
    tmp_path: Path, log_path: Path, notes: Notes
):
    """A lock that the parent holds at the fork is neither shared with nor freed by the child."""
    code = """
    attach()
    log("first")
    handler.flush()
    writer = handler._pipeline.writer
    writer._do_lock()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = log("child")
        assert handler.flush(0.05) is False
        os.write(write, b"refused")
        assert handler.flush()
        stats()
    else:
        assert os.read(read, 7) == b"refused"
        assert writer.is_locked
        writer._do_unlock()
        assert ended_well(pid)
        log("last")
        handler.close()
        stats()
    """
    run_script(tmp_path, log_path, notes, code, batch_size=10_000, flush_interval=1000)

    assert_kept(log_path, notes)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_end_with_all_their_records_home(
    tmp_path: Path, log_path: Path, notes: Notes, method: str
):
    """A multiprocessing child needs no flush and no close, although before 3.13 it ends without atexit."""
    code = f"""
    import multiprocessing

    def child(name):
        if {method != "fork"}:
            attach()
        child_logs(name)

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        attach()
        threads = start_threads()
        children = [context.Process(target=child, args=(f"child{{k}}",)) for k in range(4)]
        for one in children:
            one.start()
        for one in children:
            one.join()
        end_threads(threads)
        assert [one.exitcode for one in children] == [0] * 4
    """
    run_script(tmp_path, log_path, notes, code, batch_size=10_000, flush_interval=1000)

    assert sum(id_.startswith("child") for id_ in notes.ids()) == 4 * 20
    assert len(writers_of(log_path)) == 5
    assert_kept(log_path, notes)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_workers_keep_what_their_tasks_log(tmp_path: Path, log_path: Path, notes: Notes, method: str):
    """What tasks of a ProcessPoolExecutor log is in the file once the pool has shut down."""
    code = f"""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def task(k):
        child_logs(f"task{{k}}", 5)
        return os.getpid()

    if __name__ == "__main__":
        attach()
        threads = start_threads()
        context = multiprocessing.get_context({method!r})
        with ProcessPoolExecutor(2, mp_context=context, initializer={"attach" if method == "spawn" else None}) as pool:
            assert os.getpid() not in list(pool.map(task, range(20)))
        end_threads(threads)
    """
    run_script(tmp_path, log_path, notes, code)

    assert sum(id_.startswith("task") for id_ in notes.ids()) == 100
    assert_kept(log_path, notes)


def test_multiprocessing_grandchild_by_fork_keeps_its_records(tmp_path: Path, log_path: Path, notes: Notes):
    """A process that a multiprocessing child forks by hand, and that leaves as multiprocessing does, loses nothing."""
    code = """
    import multiprocessing

    def child():
        log("child")
        pid = os.fork()
        child_logs("grandchild" if pid == 0 else "more")
        if pid:
            assert ended_well(pid)

    attach()
    one = multiprocessing.get_context("fork").Process(target=child)
    one.start()
    one.join()
    assert one.exitcode == 0
    """
    run_script(tmp_path, log_path, notes, code, batch_size=10_000, flush_interval=1000)

    assert_all_of(notes, child=1, grandchild=20, more=20)
    assert_kept_without_counters(log_path, notes)


def test_child_forked_after_the_handler_was_closed_logs_as_well(tmp_path: Path, log_path: Path, notes: Notes):
    """Closing in the parent is a drain, and says nothing about its children."""
    code = """
    attach()
    log("before")
    handler.close()
    pid = os.fork()
    child_logs("child" if pid == 0 else "parent")
    handler.close()
    stats()
    if pid:
        assert ended_well(pid)
    """
    run_script(tmp_path, log_path, notes, code)

    assert_kept(log_path, notes)


def test_child_closes_its_copies_of_the_parents_descriptors(tmp_path: Path, log_path: Path, notes: Notes):
    """A child that never logs keeps neither the log nor its lock open."""
    code = """
    attach()
    log("parent")
    handler.flush()
    pid = os.fork()
    if pid == 0:
        open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [path for path in open_files if os.path.basename(LOG) in path], open_files
        os._exit(0)
    assert ended_well(pid)
    handler.close()
    stats()
    """
    run_script(tmp_path, log_path, notes, code)

    assert_kept(log_path, notes)


def assert_all_of(notes: Notes, **counts: int) -> None:
    """Assert how many records each kind of process noted, so that none of them ended early."""
    names = [id_.rstrip("0123456789").rstrip("-").split("-")[0] for id_ in notes.ids()]
    assert {name: names.count(name) for name in counts} == counts


def assert_kept_without_counters(log: Path, notes: Notes) -> None:
    """Assert what holds where processes just end, too late to note their counters."""
    assert_all_there_once(log, notes.ids())
