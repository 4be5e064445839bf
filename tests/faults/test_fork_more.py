from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from _children import PREAMBLE, Notes, assert_kept, lock_file
from helpers import assert_all_there_once, has_fork, read_lines, run_child
from test_fork import assert_kept_without_counters, run_script, writers_of

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_fork]

# Nothing but a flush, a close or the end brings these home.
WAITS = {"batch_size": 10_000, "flush_interval": 1000}


def assert_noted(notes: Notes, **counts: int) -> None:
    """Assert how many accepted records each kind of process noted, so that none of them ended early."""
    found = Counter(id_.partition("-")[0].rstrip("0123456789") for id_ in notes.ids())
    assert {name: found[name] for name in counts} == counts


# --- a handler that only children use ----------------------------------------------------------------------------


@pytest.mark.parametrize("way_out", ["os._exit(0)", "pass"], ids=["_exit", "normal end"])
def test_handler_made_in_the_parent_and_used_in_children_alone_has_every_record(
    tmp_path: Path, log_path: Path, notes: Notes, way_out: str
):
    """A parent that configures and never logs has no thread and no record; each child is a writer of its own."""
    code = f"""
    attach()
    children = []
    for k in range(6):
        pid = os.fork()
        if pid == 0:
            child_logs(f"child{{k}}")
            if {way_out!r} != "pass":
                handler.flush()
                stats()
            {way_out}
            break
        children.append(pid)
    else:
        assert threading.active_count() == 1
        assert all([ended_well(pid) for pid in children])
        assert stats()["accepted"] == 0
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert len(writers_of(log_path)) == 6
    assert_noted(notes, child=120)
    assert_kept(log_path, notes)


@pytest.mark.parametrize("what", ["Process", "Pool", "ProcessPoolExecutor"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_alone_log_and_nobody_flushes(
    tmp_path: Path, log_path: Path, notes: Notes, method: str, what: str
):
    """Whatever starts the workers, and however: what their tasks logged is home when they have ended."""
    code = f"""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def task(k):
        if "handler" not in globals():
            attach()
        child_logs(f"task{{k}}", 5)
        return os.getpid()

    if __name__ == "__main__":
        attach()
        context = multiprocessing.get_context({method!r})
        if {what!r} == "Process":
            workers = [context.Process(target=task, args=(k,)) for k in range(4)]
            for one in workers:
                one.start()
            for one in workers:
                one.join()
            assert [one.exitcode for one in workers] == [0] * 4
        elif {what!r} == "Pool":
            with context.Pool(2) as pool:
                pool.map(task, range(4))
                pool.close()
                pool.join()
        else:
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                list(pool.map(task, range(4)))
        assert handler.get_stats()["accepted"] == 0
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert_noted(notes, task=20)
    assert_kept_without_counters(log_path, notes)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_child_of_a_multiprocessing_child_keeps_its_records(
    tmp_path: Path, log_path: Path, notes: Notes, method: str
):
    """Three generations, each started by the one before while it has records waiting; nobody flushes."""
    code = f"""
    import multiprocessing

    def work(name, left):
        if "handler" not in globals():
            attach()
        child_logs(f"{{name}}-before", 10)
        if left:
            one = multiprocessing.get_context({method!r}).Process(target=work, args=(name + "x", left - 1))
            one.start()
            child_logs(f"{{name}}-meanwhile", 10)
            one.join()
            assert one.exitcode == 0
        child_logs(f"{{name}}-behind", 10)

    if __name__ == "__main__":
        work("x", 3)
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert_noted(notes, x=30, xx=30, xxx=30, xxxx=20)
    assert len(writers_of(log_path)) == 4
    assert_kept_without_counters(log_path, notes)


def test_process_started_in_a_thread_keeps_its_records(tmp_path: Path, log_path: Path, notes: Notes):
    """In a child forked from a thread that one is the main thread: its end is seen to like any other's."""
    code = """
    import multiprocessing

    def by_hand():
        pid = os.fork()
        if pid == 0:
            child_logs("hand")
            handler.flush()
            stats()
            os._exit(0)
        assert ended_well(pid)
        log("parent-1")

    def by_multiprocessing():
        one = multiprocessing.get_context("fork").Process(target=child_logs, args=("child",))
        one.start()
        one.join()
        assert one.exitcode == 0
        log("parent-2")

    attach()
    log("parent-0")
    threads = start_threads()
    for work in (by_hand, by_multiprocessing):
        one = threading.Thread(target=work)
        one.start()
        one.join()
    end_threads(threads)
    """
    run_script(tmp_path, log_path, notes, code)

    assert_noted(notes, parent=3, hand=20, child=20)
    assert_kept(log_path, notes)


# --- locks of ours that stay behind ------------------------------------------------------------------------------

# Finds every lock that anything of ours holds on to, whatever it is called; a flag that is locked already is none.
LOCKS = """
from ai_response_logging import _pipeline, api

def locks_of(root, path, seen):
    for name, value in list(vars(root).items()):
        if isinstance(value, (type(threading.Lock()), type(threading.RLock()))):
            if value.acquire(blocking=False):
                value.release()
                yield f"{path}.{name}", value
        elif type(value).__module__.split(".")[0] == "ai_response_logging" and id(value) not in seen:
            if hasattr(value, "__dict__") and not isinstance(value, threading.Thread):
                seen.add(id(value))
                yield from locks_of(value, f"{path}.{name}", seen)

def locks():
    seen = set()
    yield from locks_of(handler, "handler", seen)
    yield from locks_of(_pipeline, "_pipeline", seen)
    yield from locks_of(api, "api", seen)
"""


def test_child_forked_while_another_thread_holds_any_lock_of_ours_neither_hangs_nor_loses(
    tmp_path: Path, log_path: Path, notes: Notes
):
    """The thread that would give the lock back is not in the child: there, everything works on locks of its own."""
    code = f"""
{LOCKS}
def hold(lock, held, let_go):
    with lock:
        held.set()
        let_go.wait()

def work(name):
    signal.alarm(10)  # a child that hangs dies of it
    for number in range(5):
        log(f"{{name}}-{{number}}")
    assert handler.flush()
    result = api.log_ai_response(record_id=f"{{name}}-x", response="x")
    note(id=result["record_id"], status=result["status"])
    handler.close()
    log(f"{{name}}-y")
    handler.close()
    logger.removeHandler(handler)
    attach()
    log(f"{{name}}-z")
    handler.close()
    os._exit(0)

attach()
log("parent-0")
found = dict(locks())
note(locks=sorted(found))
for number, (name, lock) in enumerate(found.items()):
    held, let_go = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold, args=(lock, held, let_go))
    holder.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        work(f"child{{number}}")
    good = ended_well(pid)
    let_go.set()
    holder.join()
    assert good, f"the child forked under {{name}} did not end well"
log("parent-1")
handler.close()
stats()
"""
    run_script(tmp_path, log_path, notes, code, **WAITS)

    (names,) = [note["locks"] for note in notes.read() if "locks" in note]
    assert {"handler._pipeline.writer.queue.lock", "handler._pipeline.writer.turn._lock", "_pipeline._exit.lock"} <= {
        *names
    }
    assert_noted(notes, parent=2, child=8 * len(names))
    assert_kept_without_counters(log_path, notes)


# --- a fork from inside a log call -------------------------------------------------------------------------------

# Forks once; the child goes on with the call under another record id, and so does the parent.
FORKS = """
    pids = []
    def fork_once():
        if not pids:
            pids.append(os.fork())
            return True
        return False

    def whose():
        return "parent" if pids[0] else "child"
"""
INSIDES = {
    "filter": """
    def fork_here(record):
        if fork_once():
            record.record_id = f"{whose()}-inside"
        return True
    handler.addFilter(fork_here)
    """,
    "formatter": """
    from ai_response_logging import AIResponseFormatter
    class Forking(AIResponseFormatter):
        def encode(self, record):
            if fork_once():
                record.record_id = f"{whose()}-inside"
            return super().encode(record)
    handler.setFormatter(Forking())
    """,
    "value": """
    class Value:
        def __str__(self):
            fork_once()
            return "v"
    """,
    "listener's start": """
    start = handler._pipeline.listener.start
    def forking_start():
        fork_once()
        start()
    handler._pipeline.listener.start = forking_start
    """,
    "queue's lock": """
    put = handler._pipeline.queue.put
    def forking_put(*args, **options):
        with handler._pipeline.queue.lock:
            fork_once()
        return put(*args, **options)
    handler._pipeline.queue.put = forking_put
    """,
}
LATER = [(inside, 5) for inside in INSIDES if inside != "listener's start"]


@pytest.mark.parametrize(("inside", "waiting"), [*((inside, 0) for inside in INSIDES), *LATER])
def test_fork_from_inside_a_log_call_gives_each_process_its_own_line(
    tmp_path: Path, log_path: Path, notes: Notes, inside: str, waiting: int
):
    """Code of the application that runs in our call may fork: both calls come back, and each has written its line."""
    code = f"""
    {FORKS}
    attach()
    child_logs("before", {waiting})
    {INSIDES[inside]}
    given = {{"record_id": None, "value": Value() if "Value" in globals() else "v"}}
    record = logger.makeRecord("ai_responses", 20, "", 0, "inside", (), None, extra=given)
    logger.handle(record)
    assert pids
    note(inside=record.record_id)
    child_logs(whose(), 3)
    assert handler.flush()
    assert stats()["accepted"] == 4 + ({waiting} if pids[0] else 0)
    if pids[0]:
        assert ended_well(pids[0])
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    lines = read_lines(log_path)
    # Where the id was given before the fork both have it; the lines are two all the same, of two writers.
    insides = [line for line in lines if line["message"] == "inside"]
    assert len({line["writer_id"] for line in insides}) == len(insides) == 2
    assert {line["record_id"] for line in insides} == {one["inside"] for one in notes.read() if "inside" in one}
    assert_numbered(lines)
    rest = Counter(line["record_id"] for line in lines if line["message"] != "inside")
    assert rest == Counter(notes.ids())
    assert set(rest.values()) == {1}


def assert_numbered(lines: list[dict[str, Any]]) -> None:
    """Assert that each writer's numbers begin at 0 and have neither gap nor double."""
    numbers: dict[str, list[int]] = {}
    for line in lines:
        numbers.setdefault(line["writer_id"], []).append(line["seq"])
    assert all(sorted(seqs) == list(range(len(seqs))) for seqs in numbers.values()), numbers


# A signal handler forks in the middle of an append by the main thread; the child may leave at once or go on.
MID_APPEND = """
from ai_response_logging import _append

class Disk:
    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, descriptor, data):
        if WHEN == "before":
            interrupted()
        written = os.write(descriptor, data)
        if WHEN == "behind":
            interrupted()
        return written

def interrupted():
    if not forked:
        forked.append(0)
        signal.raise_signal(signal.SIGUSR1)

def forks(*_):
    forked[0] = os.fork()
    if forked[0] == 0:
        child_logs("child", 3)
        DO()

def go_on():
    pass

def flush_and_go_on():
    assert handler.flush()

def flush_and_leave():
    flush_and_go_on()
    stats()
    os._exit(0)

forked = []
_append.os = Disk()
signal.signal(signal.SIGUSR1, forks)
"""


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("what", ["flush_and_leave", "go_on", "flush_and_go_on"])
def test_fork_in_the_middle_of_an_append_writes_no_line_twice(
    tmp_path: Path, log_path: Path, notes: Notes, when: str, what: str
):
    """A signal handler that forks while we write: the block is the parent's alone, also if the child goes on there."""
    code = f"""
WHEN = {when!r}
{MID_APPEND}
DO = {what}
attach()
child_logs("parent", 20)
flushed = handler.flush()
if forked[0]:
    assert flushed
    assert ended_well(forked[0])
else:
    child_logs("later", 3)
    assert handler.flush()
log("parent-last" if forked[0] else "child-last")
handler.close()
stats()
"""
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert_noted(notes, parent=21, child=3 + (what != "flush_and_leave"))
    assert lock_file(log_path).read_bytes() == b"", "the block went to the file that got the log's old descriptor"
    assert_kept(log_path, notes)


# --- a fork late in a process's life -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 and later refuse to fork at exit")
@pytest.mark.parametrize("way_out", ["os._exit(0)", "pass"], ids=["_exit", "normal end"])
def test_child_forked_in_an_exit_callback_behind_ours_keeps_its_records(
    tmp_path: Path, log_path: Path, notes: Notes, way_out: str
):
    """Where the exit has begun already nobody starts a thread: the child, too, writes what it logs itself."""
    code = f"""
    def late():
        log("parent-late")
        pid = os.fork()
        child_logs("child" if pid == 0 else "behind", 5)
        if pid == 0:
            stats()
            {way_out}
        else:
            assert ended_well(pid)
            stats()
    atexit.register(late)
    attach()
    log("parent-0")
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert_noted(notes, parent=2, behind=5, child=5)
    assert "queued" not in {note["status"] for note in notes.read() if "child" in note.get("id", "")}
    assert_kept(log_path, notes)


def test_preexec_function_that_logs_and_flushes_loses_nothing(tmp_path: Path, log_path: Path, notes: Notes):
    """Between fork and exec there is Python, too: what is flushed there is in the file, whatever comes then."""
    code = """
    import subprocess

    def before_exec():
        child_logs("child", 5)
        assert handler.flush()
        stats()

    attach()
    child_logs("parent", 5)
    threads = start_threads()
    subprocess.run([sys.executable, "-c", ""], preexec_fn=before_exec, check=True)
    end_threads(threads)
    """
    run_script(tmp_path, log_path, notes, code)

    assert_noted(notes, parent=5, child=5)
    assert_kept(log_path, notes)


def test_children_that_fork_again_and_again_number_their_own_lines_without_a_gap(
    tmp_path: Path, log_path: Path, notes: Notes
):
    """A chain of ten generations, each forked in the middle of its parent's work; no number is missing or doubled."""
    code = """
    attach()
    for generation in range(10):
        child_logs(f"g{generation}", 7)
        pid = os.fork()
        if pid:
            child_logs(f"g{generation}x", 3)
            assert ended_well(pid)
            assert handler.flush()
            stats()
            break
    """
    run_script(tmp_path, log_path, notes, code, **WAITS)

    assert_numbered(read_lines(log_path))
    assert len(writers_of(log_path)) == 10
    assert len(notes.ids()) == 100
    assert_kept(log_path, notes)


def test_process_that_has_closed_forks_children_that_configure_anew(log_path: Path, notes: Notes):
    """A pre-forking server: closed before the fork, each worker with a handler of its own on the same file."""
    code = """
attach()
log("parent-0")
logger.removeHandler(handler)
handler.close()
children = []
for k in range(4):
    pid = os.fork()
    if pid == 0:
        attach()
        for number in range(10):
            log(f"child{k}-{number}")
        break
    children.append(pid)
else:
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
"""
    run_child(PREAMBLE + code, log_path, notes.path, json.dumps(WAITS))

    assert len(notes.ids()) == 41
    assert len(writers_of(log_path)) == 5
    assert_all_there_once(log_path, notes.ids())
