from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from _children import PREAMBLE, Notes, assert_kept, assert_sums, holding_the_lock
from helpers import assert_all_there_once, child_process, has_fork, has_proc, is_root, read_lines, run_child
from test_fork import run_script

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Nothing but the end brings these home: no batch is ever full, and no interval is ever over.
OPTIONS = {"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01}


def run(code: str, log: Path, notes: Notes, *, is_fresh: bool = False, **options: object) -> str:
    """Run *code* behind the preamble to its end and return what it said on stderr."""
    given = json.dumps({**OPTIONS, **options})
    return run_child(PREAMBLE + code, log, notes.path, given, is_fresh=is_fresh).stderr


def bring_home(log: Path, notes: Notes) -> None:
    """Let another process open the log, as the next run of the program does."""
    run("attach()\nassert handler.flush(10)\nhandler.close()\n", log, Notes(notes.path.with_name("none")))


# --- a log that stands still -------------------------------------------------------------------------------------

# So long that a process which waits for anything but its close_timeout counts as hung.
FOR_GOOD_S = 1000


@pytest.mark.parametrize("is_stopped", [False, True], ids=["held", "holder stopped"])
def test_end_under_a_lock_that_nobody_frees_comes_within_its_budget_and_says_what_is_left(
    log_path: Path, notes: Notes, is_stopped: bool
):
    """A process ends although a stranger keeps the lock for good; it says how many records that cost, and who it is."""
    code = """
logging.raiseExceptions = True
attach()
for number in range(7):
    log(f"left-{number}")
"""
    with holding_the_lock(log_path) as stranger:
        if is_stopped:
            stranger.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, stranger.pid, os.WSTOPPED)
        said = run(code, log_path, notes, close_timeout=0.3, lock_timeout=FOR_GOOD_S, max_retries=FOR_GOOD_S)

    assert "7 records could not be written in time" in said
    assert f"held by pid {stranger.pid}" in said
    assert read_lines(log_path) == []
    assert len(notes.ids("queued")) == 7
    bring_home(log_path, notes)
    assert_all_there_once(log_path, notes.ids())


# A disk on which writes to the files in STUCK do not return until they are let go.
STUCK = """
from ai_response_logging import _append
gate_out, gate_in = os.pipe()
reached = threading.Event()
is_stuck = True
STUCK = {LOG}

class Disk:
    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, descriptor, data):
        if is_stuck and os.readlink(f"/proc/self/fd/{descriptor}") in STUCK:
            reached.set()
            os.read(gate_out, 1)
        return os.write(descriptor, data)

def let_go():
    global is_stuck
    is_stuck = False
    os.close(gate_in)

_append.os = Disk()
logging.raiseExceptions = True
"""
LISTENER_IS_IN_IT = """
attach(batch_size=7)
for number in range(7):
    log(f"left-{number}")
assert reached.wait(10)
"""
NOBODY_IS_IN_IT = """
attach()
for number in range(7):
    log(f"left-{number}")
"""
# Where the listener is not the one that is stuck, flush and close write in their caller, and wait with the disk.
BEFORE = [
    pytest.param(LISTENER_IS_IN_IT, id="listener stuck"),
    pytest.param(NOBODY_IS_IN_IT, id="nobody stuck yet"),
]


@has_proc
@pytest.mark.parametrize("before", BEFORE)
def test_end_on_a_disk_that_stands_still_comes_and_says_what_is_left(log_path: Path, notes: Notes, before: str):
    """A write that never returns keeps no process from its end, whichever thread would have to make it."""
    said = run(STUCK + before, log_path, notes, close_timeout=0.3)

    assert "7 records could not be written in time" in said
    assert read_lines(log_path) == []
    assert len(notes.ids("queued")) == 7
    bring_home(log_path, notes)
    assert_all_there_once(log_path, notes.ids())


@has_proc
@pytest.mark.parametrize("what", ["flush", "close"])
@pytest.mark.parametrize("before", BEFORE)
def test_flush_and_close_come_back_from_a_disk_that_stands_still_and_what_is_left_comes_home_later(
    log_path: Path, notes: Notes, before: str, what: str
):
    """Neither flush nor close waits for a write that does not return, and both say what is left; nothing is lost."""
    code = f"""
assert handler.{what}() in (False, None)
assert stats()["pending"] == 7
let_go()
log("after")
assert handler.flush(10)
handler.close()
stats()
"""
    said = run(STUCK + before + code, log_path, notes, close_timeout=0.3)

    assert "7 records" in said
    assert len(notes.ids("queued")) == 8
    assert_kept(log_path, notes)


# A disk on which no mark of a journal is written until it is let go; lines are.
MARKS_STUCK = """
from ai_response_logging import _journal_files
gate_out, gate_in = os.pipe()
reached = threading.Event()
is_stuck = True

class Disk:
    def __getattr__(self, name):
        return getattr(os, name)

    def pwrite(self, descriptor, data, position):
        if is_stuck:
            reached.set()
            os.read(gate_out, 1)
        return os.pwrite(descriptor, data, position)

def let_go():
    global is_stuck
    is_stuck = False
    os.close(gate_in)

_journal_files.os = Disk()
logging.raiseExceptions = True
"""


@pytest.mark.parametrize("what", ["flush", "close"])
def test_flush_and_close_come_back_from_a_journal_that_stands_still(log_path: Path, notes: Notes, what: str):
    """
    A mark that is not written keeps the thread that writes, and nobody else; nothing is lost.

    It must not be written under the interpreter lock, under which no other thread would run to see its time pass.
    """
    code = f"""
assert handler.{what}() in (False, None)
assert stats()["pending"] == 7
let_go()
log("after")
assert handler.flush(10)
handler.close()
stats()
"""
    said = run(MARKS_STUCK + LISTENER_IS_IN_IT + code, log_path, notes, close_timeout=0.3)

    assert "7 records" in said
    assert len(notes.ids("queued")) == 8
    assert_kept(log_path, notes)


@has_proc
@pytest.mark.parametrize(("stuck", "healthy"), [(1, 3), (3, 1)])
def test_end_with_logs_that_stand_still_brings_the_others_home(
    tmp_path: Path, log_path: Path, notes: Notes, stuck: int, healthy: int
):
    """One file on a dead disk takes nothing but its own records along, and each such file says how many."""
    code = f"""
def logs_to(name):
    global handler, logger
    handler = AIResponseHandler(f"{{LOG}}.{{name}}", **OPTIONS)
    logger = logging.Logger("ai_responses")
    logger.addHandler(handler)
    for number in range(5):
        log(f"{{name}}-{{number}}")
    return handler

STUCK.clear()
STUCK.update(f"{{LOG}}.stuck{{k}}" for k in range({stuck}))
kept = [logs_to(f"stuck{{k}}") for k in range({stuck})] + [logs_to(f"healthy{{k}}") for k in range({healthy})]
"""
    said = run(STUCK + code, log_path, notes, close_timeout=0.3)

    assert len(notes.ids("queued")) == 5 * (stuck + healthy)
    for k in range(healthy):
        assert_all_there_once(tmp_path / f"{log_path.name}.healthy{k}", [f"healthy{k}-{n}" for n in range(5)])
    told = [f"{log_path}.stuck{k}: 5 records could not be written in time" in said for k in range(stuck)]
    assert told == [True] * stuck
    assert ".healthy" not in said


# All locks are taken; that of the healthy log comes free when somebody has waited for it a while, and it comes last.
CONTENDED = """
import fcntl
from ai_response_logging import _lock, _pipeline

waited, held = {}, {}
logging.raiseExceptions = True

def logs_to(name):
    global handler, logger
    handler = AIResponseHandler(f"{LOG}.{name}", **OPTIONS)
    logger = logging.Logger("ai_responses")
    logger.addHandler(handler)
    for number in range(5):
        log(f"{name}-{number}")
    lock = open(handler._pipeline.writer.lockFilename, "a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    held[handler.filename] = lock
    return handler

def acquire(lock_file, timeout, log_path, acquire=_lock.acquire):
    while True:
        part = min(timeout, 0.05)
        try:
            return acquire(lock_file, part, log_path)
        except _lock.LockTimeoutError:
            timeout -= part
            waited[log_path] = waited.get(log_path, 0) + part
            if "healthy" in log_path and waited[log_path] > 0.3 and log_path in held:
                held.pop(log_path).close()
            if timeout <= 0:
                raise

class LastIsHealthy(set):
    def __iter__(self):
        return iter(sorted(set.__iter__(self), key=lambda one: "healthy" in one.writer.baseFilename))

assert type(_pipeline._exit._running) is set
_pipeline._exit._running = LastIsHealthy()
_lock.acquire = acquire
"""


@pytest.mark.parametrize("names", [["stuck", "healthy"], ["stuck0", "stuck1", "stuck2", "healthy"]], ids=len)
def test_end_with_a_stuck_log_leaves_a_contended_one_its_share_of_the_time(
    tmp_path: Path, log_path: Path, notes: Notes, names: list[str]
):
    """A log whose lock comes free only after a while gets it, although others use up all the time they are given."""
    code = f"kept = [logs_to(name) for name in {names!r}]\n"
    said = run(CONTENDED + code, log_path, notes, close_timeout=3)

    assert_all_there_once(tmp_path / f"{log_path.name}.healthy", [f"healthy-{n}" for n in range(5)])
    for name in names[:-1]:
        assert f"{log_path}.{name}: 5 records could not be written in time" in said


def test_end_with_many_stuck_logs_takes_one_budget_for_all(log_path: Path, notes: Notes):
    """What one dead disk costs at the end is close_timeout, however many files are on it and whoever asks again."""
    code = "kept = [logs_to(f'stuck{k}') for k in range(12)]\n"
    # logging.shutdown, behind our end, flushes and closes each handler once more: 25 times 1.5 s counts as hung.
    said = run(CONTENDED + code, log_path, notes, close_timeout=1.5)

    for k in range(12):
        assert f"{log_path}.stuck{k}: 5 records could not be written in time" in said


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_second_signal_while_the_end_is_at_work_costs_no_record(
    tmp_path: Path, log_path: Path, notes: Notes, signal_name: str
):
    """Whoever presses Ctrl-C again, or a manager that repeats its SIGTERM, finds the logs brought home all the same."""
    code = f"""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
first = attach()
for number in range(20):
    log(f"first-{{number}}")
logger.removeHandler(first)
second = handler = AIResponseHandler(LOG + ".second", **OPTIONS)
logger.addHandler(second)
for number in range(20):
    log(f"second-{{number}}")

def interrupted(writer, drain, **options):
    writer.drain = drain
    signal.raise_signal(signal.{signal_name})
    return drain(**options)

for one in (first, second):
    writer = one._pipeline.writer
    writer.drain = (lambda w, d: lambda **options: interrupted(w, d, **options))(writer, writer.drain)
"""
    options = json.dumps(OPTIONS)
    with child_process(PREAMBLE + code, log_path, notes.path, options) as process:
        process.communicate(timeout=15)

    assert len(notes.ids("queued")) == 40
    assert_all_there_once(log_path, [f"first-{n}" for n in range(20)])
    assert_all_there_once(tmp_path / f"{log_path.name}.second", [f"second-{n}" for n in range(20)])


# --- a close beside a log call -----------------------------------------------------------------------------------

# The next record of another thread stands still right before, or right behind, the moment in which the queue takes it.
HALTED = """
halted, go_on = threading.Event(), threading.Event()
queue = handler._pipeline.queue
put = queue.put

def halting(*args, **options):
    queue.put = put
    line = None if WHEN == "before" else put(*args, **options)
    halted.set()
    go_on.wait()
    return put(*args, **options) if WHEN == "before" else line

queue.put = halting
"""
WHENS = pytest.mark.parametrize("when", ["before", "behind"])


@WHENS
@pytest.mark.parametrize("times", [1, 2])
def test_record_in_mid_call_while_another_thread_closes_is_written(log_path: Path, notes: Notes, when: str, times: int):
    """A log call that has seen a listener, and finds it gone when it goes on, loses nothing to the close in between."""
    code = f"""
WHEN = {when!r}
attach()
log("first")
{HALTED}
thread = threading.Thread(target=log, args=("racing",))
thread.start()
halted.wait()
for _ in range({times}):
    handler.close()
assert not stats()["worker_alive"]
go_on.set()
thread.join()
log("last")
handler.close()
stats()
"""
    run(code, log_path, notes)

    assert sorted(notes.ids()) == ["first", "last", "racing"]
    assert_kept(log_path, notes)


@WHENS
def test_record_in_mid_call_while_the_process_ends_is_written(log_path: Path, notes: Notes, when: str):
    """A daemon thread in the middle of a call while the exit drains writes its record itself when it goes on."""
    code = f"""
WHEN = {when!r}
def later():
    go_on.set()
    thread.join()
    stats()
atexit.register(later)
attach()
log("first")
{HALTED}
thread = threading.Thread(target=log, args=("racing",), daemon=True)
thread.start()
halted.wait()
"""
    run(code, log_path, notes)

    assert sorted(notes.ids()) == ["first", "racing"]
    assert_kept(log_path, notes)


@has_fork
@WHENS
def test_record_in_mid_call_while_a_multiprocessing_child_ends_is_written(
    tmp_path: Path, log_path: Path, notes: Notes, when: str
):
    """The same in a child of multiprocessing, which leaves through finalizers."""
    code = f"""
WHEN = {when!r}
import multiprocessing
from multiprocessing.util import Finalize

def child():
    log("first")
{"".join(f"    {line}" + chr(10) for line in HALTED.splitlines())}
    # A daemon: 3.13 joins all others before it runs the finalizers.
    thread = threading.Thread(target=log, args=("racing",), daemon=True)
    thread.start()
    halted.wait()
    def later():
        go_on.set()
        thread.join()
    Finalize(None, later, exitpriority=-1000)

attach()
one = multiprocessing.get_context("fork").Process(target=child)
one.start()
one.join()
assert one.exitcode == 0
"""
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + code, "utf-8")
    run_child(script, log_path, notes.path, json.dumps(OPTIONS))

    assert sorted(notes.ids()) == ["first", "racing"]
    assert_all_there_once(log_path, notes.ids())


# --- children of multiprocessing ---------------------------------------------------------------------------------

CHILD_ENDS = {
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('the child fails')", 1),
    "threads that go on": ("[threading.Thread(target=go_on_logging, args=(k,)).start() for k in range(3)]", 0),
    "daemon thread": ("threading.Thread(target=go_on_logging, args=(0,), daemon=True).start(); begun.wait()", 0),
}


@has_fork
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("way_out", CHILD_ENDS)
def test_multiprocessing_child_that_ends_without_a_flush_keeps_its_records(
    tmp_path: Path, log_path: Path, notes: Notes, method: str, way_out: str
):
    """However a child of multiprocessing comes to its end, and with or without atexit there, its records are home."""
    end, exit_code = CHILD_ENDS[way_out]
    code = f"""
    import multiprocessing

    main_is_over, begun = threading.Event(), threading.Event()

    def go_on_logging(name):
        begun.set()
        main_is_over.wait(0.05)
        for number in range(50):
            log(f"thread{{name}}-{{number}}")

    def child():
        if {method != "fork"}:
            attach()
        for number in range(30):
            log(f"main-{{number}}")
        {end}

    if __name__ == "__main__":
        attach()
        one = multiprocessing.get_context({method!r}).Process(target=child)
        one.start()
        one.join()
        assert one.exitcode == {exit_code}, one.exitcode
    """
    run_script(tmp_path, log_path, notes, code, **OPTIONS)

    ids = notes.ids()
    assert sum(id_.startswith("main") for id_ in ids) == 30
    # A daemon thread may be stopped between its record and its note of it.
    assert_all_there_once(log_path, ids, others=way_out == "daemon thread")
    if way_out == "threads that go on":
        assert sum(id_.startswith("thread") for id_ in ids) == 150


# --- no thread to be had -----------------------------------------------------------------------------------------


@is_root
def test_user_at_the_limit_of_threads_loses_nothing(others_directory: Path):
    """Where the kernel gives no thread the caller writes; when it gives one again, records are queued again."""
    code = """
import encodings.ascii, encodings.idna, resource, traceback
attach()
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
try:
    threading.Thread(target=print).start()
    raise SystemExit("the limit does not hold here")
except RuntimeError:
    pass
for number in range(20):
    log(f"threadless-{number}")
assert not stats()["worker_alive"]
resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
for number in range(20):
    log(f"again-{number}")
assert stats()["worker_alive"]
handler.close()
stats()
"""
    notes, log = Notes(others_directory / "notes"), others_directory / "log.jsonl"
    run(code, log, notes)

    assert len(notes.ids("written")) == 20
    assert len(notes.ids("queued")) == 20
    assert_kept(log, notes)


@has_fork
@pytest.mark.parametrize("in_child", [False, True], ids=["process", "multiprocessing child"])
def test_record_that_waited_without_a_thread_comes_home_at_the_end(
    tmp_path: Path, log_path: Path, notes: Notes, in_child: bool
):
    """No thread and a busy log: the record waits, nobody is there to bring it home, and the end does."""
    code = f"""
import fcntl, multiprocessing
def no_thread(self):
    raise RuntimeError("can't start new thread")

def work():
    threading.Thread.start = no_thread
    lock = open(handler._pipeline.writer.lockFilename, "a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    for number in range(3):
        assert log(f"waits-{{number}}") == "queued"
    lock.close()

attach(caller_timeout=0.05)
if {in_child}:
    one = multiprocessing.get_context("fork").Process(target=work)
    one.start()
    one.join()
    assert one.exitcode == 0
else:
    work()
"""
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + code, "utf-8")
    run_child(script, log_path, notes.path, json.dumps(OPTIONS))

    assert len(notes.ids("queued")) == 3
    assert_all_there_once(log_path, notes.ids())


# --- the interpreter's own end -----------------------------------------------------------------------------------

KEPT_BY = {
    "a name of the program": "late = Late()",
    "a module of its own": "import types; sys.modules['m'] = types.ModuleType('m'); sys.modules['m'].it = Late()",
    "builtins": "import builtins; builtins.late = Late()",
    "a cycle": "import gc; one = Late(); one.itself = one; gc.disable(); del one",
    "a finalizer": "import weakref; one = Late(); one.is_silent = True; weakref.finalize(logger, one.log_it)",
    "thread-local storage": "local = threading.local(); local.late = Late()",
}


@pytest.mark.parametrize("kept_by", KEPT_BY)
def test_record_logged_while_the_interpreter_takes_itself_down_is_as_its_status_says(
    log_path: Path, notes: Notes, kept_by: str
):
    """A __del__ that logs at the very end: no traceback, and the record is in the file unless it was refused."""
    code = f"""
class Late:
    def __init__(self):
        # All that it needs: by then the module's own names are gone.
        self.handle, self.write, self.fd = handler.handle, os.write, _notes
        self.record = logger.makeRecord("ai_responses", 20, "", 0, "late", (), None, extra={{"record_id": "late"}})

    is_silent = False

    def log_it(self):
        self.handle(self.record)
        self.write(self.fd, b'{{"pid": 1, "id": "late", "status": "%b"}}\\n' % self.record.ai_status.encode())

    def __del__(self):
        if not self.is_silent:
            self.log_it()

attach()
log("first")
{KEPT_BY[kept_by]}
"""
    # In an interpreter of its own: what one that was forked has imported before is taken down by no collection.
    said = run(code, log_path, notes, is_fresh=True)

    assert "Traceback" not in said
    assert sorted(notes.ids()) == ["first", "late"]
    assert_all_there_once(log_path, notes.ids())


def test_interval_that_is_over_during_the_end_writes_nothing_twice(log_path: Path, notes: Notes):
    """The listener at work and the exit that drains meet on one queue: each record is there once."""
    code = """
attach(batch_size=3, flush_interval=0.001)
def late():
    for number in range(200):
        log(f"late-{number}")
atexit.register(late)
for number in range(500):
    log(f"burst-{number}")
"""
    run(code, log_path, notes)

    assert len(notes.ids()) == 700
    assert_all_there_once(log_path, notes.ids())


@pytest.mark.parametrize("count", [1, 30])
def test_many_handlers_on_many_files_end_with_all_their_records(tmp_path: Path, notes: Notes, count: int):
    """Nobody closes any of them, and the end brings each one's records home."""
    code = f"""
for k in range({count}):
    handler = AIResponseHandler(f"{{LOG}}.{{k}}", **OPTIONS)
    logger = logging.getLogger(f"ai_responses.{{k}}")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for number in range(10):
        log(f"{{k}}-{{number}}")
    stats()
"""
    run(code, tmp_path / "log", notes)

    assert_sums(*notes.stats())
    for k in range(count):
        assert_all_there_once(tmp_path / f"log.{k}", [f"{k}-{number}" for number in range(10)])


def test_exit_by_every_signal_that_a_program_handles_keeps_everything(log_path: Path, notes: Notes):
    """Whichever signal a manager sends, leaving by sys.exit costs no record, also amid threads that log."""
    code = """
number_of = signal.Signals[os.environ["SIGNAL"]]
signal.signal(number_of, lambda *_: sys.exit(0))
attach(batch_size=5, flush_interval=0.01)
stop = threading.Event()
def work(name):
    number = 0
    while not stop.is_set():
        log(f"{name}-{number}")
        number += 1
atexit.register(stop.set)
threading._register_atexit(stop.set)
threads = [threading.Thread(target=work, args=(f"thread{k}",)) for k in range(3)]
for thread in threads:
    thread.start()
print("ready", flush=True)
while True:  # not pause(): a signal between two bytecodes would be looked at only after the next one
    stop.wait(0.05)
"""
    with ExitStack() as stack:
        names = ["SIGTERM", "SIGHUP", "SIGUSR1"]
        given = [(name, Notes(notes.path.with_name(name)), log_path.with_name(f"{name}.jsonl")) for name in names]
        processes = [
            stack.enter_context(
                child_process(PREAMBLE + code, log, note.path, json.dumps(OPTIONS), env={"SIGNAL": name})
            )
            for name, note, log in given
        ]
        for process, (name, note, log) in zip(processes, given, strict=True):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.Signals[name])
            process.communicate(timeout=15)
            assert process.returncode == 0
            assert_all_there_once(log, note.ids())
