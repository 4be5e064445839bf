from __future__ import annotations

import json
import logging
import os
import signal
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _children import BARE, PREAMBLE, Notes, assert_kept, assert_sums, holding_the_lock, lock_file, writer
from helpers import assert_all_there_once, child_process, has_fork, has_strace, run_child

from ai_response_logging import listener
from ai_response_logging.handler import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]

has_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="there is no /proc/locks")

# argv: a file, and how to lock it.
_HOLD = """
import fcntl, struct, sys
file = open(sys.argv[1], "r+")
if sys.argv[2] == "OFD":
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
elif sys.argv[2] == "POSIX":
    fcntl.lockf(file, fcntl.LOCK_EX)
else:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(path: Path, how: str = "flock") -> Iterator[int]:
    """Let a stranger lock the file at *path* as long as the block lasts, and give its process id."""
    with child_process(_HOLD, path, how, options=BARE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        yield stranger.pid


class Clock:
    """The time, in which naps take none: each thread has slept on its own clock only."""

    def __init__(self) -> None:
        self.slept = Counter[int]()

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def monotonic(self) -> float:
        return 1000.0 + self.slept[threading.get_ident()]

    def sleep(self, seconds: float) -> None:
        self.slept[threading.get_ident()] += seconds

    def spent(self) -> float:
        """Return what this thread has slept since it was last asked."""
        return self.slept.pop(threading.get_ident(), 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock in every module of ours."""
    one = Clock()
    wait = listener._Request.wait

    def wait_for_the_listener(request: listener._Request) -> bool | None:
        answer = wait(request)
        if not answer:  # it has slept until then, and so have we
            one.slept[threading.get_ident()] += max(0.0, request.deadline_s - one.monotonic())
        return answer

    monkeypatch.setattr(listener._Request, "wait", wait_for_the_listener)
    for name, module in list(sys.modules.items()):
        if name.startswith("ai_response_logging.") and getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", one)
    return one


class Told(AIResponseHandler):
    """A handler that keeps what it is told, and writes only when it must."""

    def __init__(self, path: Path, **options: object) -> None:
        self.told: list[str] = []
        quiet = {"durability": os.environ["DURABILITY"], "batch_size": 10_000, "flush_interval": 1000}
        super().__init__(path, **{**quiet, **options})

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append(f"{record.getMessage()} {sys.exc_info()[1]}")

    def log(self, record_id: str) -> str:
        record = logging.makeLogRecord({"name": "ai_responses", "record_id": record_id, "response": "x"})
        self.handle(record)
        return str(record.ai_status)


def test_stopped_holder_delays_the_others_and_loses_nothing(log_path: Path, notes: Notes):
    """While whoever holds the lock is stopped, calls come back and say so; once it goes on, everything comes home."""
    with writer(log_path, notes) as one, holding_the_lock(log_path) as stranger:
        stranger.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, stranger.pid, os.WSTOPPED)

        assert one.log("stopped", 20) == ["queued"] * 20
        assert one.ask("flush", 0.02) is False
        meanwhile = one.ask("stats")

        stranger.send_signal(signal.SIGCONT)
        stranger.communicate("")
        assert one.ask("flush")
        one.end()

    assert meanwhile["pending"] == 20
    assert f"held by pid {stranger.pid}" in meanwhile["last_error"]
    assert_kept(log_path, notes)


@has_strace
@pytest.mark.parametrize("deleted", [False, True])
def test_writer_stopped_in_mid_append_holds_the_others_up_and_tears_nothing(
    log_path: Path, notes: Notes, tmp_path: Path, deleted: bool
):
    """A writer that is stopped in an append keeps the others waiting, also when the lock file was deleted meanwhile."""
    trace = tmp_path / "trace"
    stop = ["strace", "-qq", "-f", "-o", str(trace), "-P", str(log_path)]
    stop += ["-e", "trace=write", "-e", "inject=write:signal=SIGSTOP:when=2"]
    with writer(log_path, notes, wrap=stop) as stopped, writer(log_path, notes) as other:
        stopped.log("before")
        assert stopped.ask("flush")
        stopped.log("stopped", 3)
        stopped.send("flush")
        pid = notes.read()[0]["pid"]
        while "stopped by SIGSTOP" not in trace.read_text("utf-8"):
            os.sched_yield()
        if deleted:
            lock_file(log_path).unlink()

        assert other.log("other", 5) == ["queued"] * 5
        assert other.ask("flush", 0.02) is False
        os.kill(pid, signal.SIGCONT)
        assert stopped.answer()
        assert other.ask("flush")
        stopped.end()
        other.end()

    assert_kept(log_path, notes)


def test_killed_holder_frees_the_lock_by_its_death(log_path: Path, notes: Notes):
    """The lock is the kernel's: nobody has to clean up behind a killed holder."""
    with writer(log_path, notes) as one:
        with holding_the_lock(log_path) as stranger:
            one.log("held", 10)
            one.send("flush")
            stranger.kill()
            stranger.wait()
            assert one.answer() is True
        one.end()

    assert_kept(log_path, notes)


def test_lock_file_deleted_between_writes_the_writers_agree_on_a_new_one(log_path: Path, notes: Notes):
    """Somebody who removes the lock file does not make two writers append at once, and stops neither."""
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log_path, notes)) for _ in range(2)]
        for round_ in range(3):
            for number, one in enumerate(writers):
                one.log(f"w{number}-{round_}", 10)
                assert one.ask("flush")
            assert lock_file(log_path).stat().st_mode & 0o777 == 0o600
            lock_file(log_path).unlink()
        with holding_the_lock(log_path):  # a new file: whoever went on with the old one would not wait for this
            for one in writers:
                one.log(f"held{one.pid}", 1)
                assert one.ask("flush", 0.02) is False
        for one in writers:
            one.end()

    assert_kept(log_path, notes)


def test_lock_on_a_file_that_was_replaced_counts_for_nothing(log_path: Path, notes: Notes):
    """A lock on a file that others no longer find protects nothing: the writer waits for the one that is there now."""
    with writer(log_path, notes) as one:
        one.log("before")
        assert one.ask("flush")
        before = log_path.read_bytes()
        lock_file(log_path).rename(log_path.with_name("old-lock"))
        with holding_the_lock(log_path):
            one.log("waits", 5)
            assert one.ask("flush", 0.02) is False
            assert log_path.read_bytes() == before
        assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_something_else_in_the_lock_files_place_is_not_written_to(log_path: Path, notes: Notes, kind: str):
    """A trap in the lock file's place is left alone, told of, and the records wait until it is gone."""
    lock, elsewhere = lock_file(log_path), log_path.with_name("elsewhere")
    with writer(log_path, notes) as one:
        one.log("before")
        assert one.ask("flush")
        lock.unlink()
        {"symlink": lambda: lock.symlink_to(elsewhere), "fifo": lambda: os.mkfifo(lock), "directory": lock.mkdir}[
            kind
        ]()

        assert one.log("trapped", 5) == ["queued"] * 5
        assert one.ask("flush", 0.02) is False
        meanwhile = one.ask("stats")
        assert not elsewhere.exists()

        lock.rmdir() if kind == "directory" else lock.unlink()
        assert one.ask("flush")
        one.end()

    assert str(lock) in meanwhile["last_error"]
    assert_kept(log_path, notes)


# --- a stranger ----------------------------------------------------------------------------------------------------


@has_locks
@pytest.mark.parametrize("held", [lock_file, Path], ids=["lock file", "log"])
def test_stranger_who_never_lets_go_is_told_of_and_what_waited_comes_home_by_itself(
    log_path: Path, notes: Notes, held: Callable[[Path], Path]
):
    """While a stranger holds the lock file or the log itself, calls return; when he goes, nothing has to be started."""
    with writer(log_path, notes, batch_size=1, flush_interval=0.01, lock_timeout=0.01, max_retries=0) as one:
        one.log("before")
        assert one.ask("flush")
        with holding(held(log_path)) as pid:
            assert one.log("held", 30) == ["queued"] * 30
            assert one.ask("flush", 0.2) is False
            assert one.log("held-later", 30) == ["queued"] * 30
            meanwhile = one.ask("stats")
        assert one.ask("all_home")
        one.end()

    assert meanwhile["pending"] == 60
    assert f"held by pid {pid} (python" in meanwhile["last_error"]
    assert "the records that wait are kept" in meanwhile["last_error"]
    assert_kept(log_path, notes)


@pytest.mark.parametrize("how", ["POSIX", "OFD"])
@pytest.mark.parametrize("held", [lock_file, Path], ids=["lock file", "log"])
def test_stranger_with_a_lock_of_fcntl_holds_nobody_up(
    log_path: Path, notes: Notes, held: Callable[[Path], Path], how: str
):
    """Locks of another kind than ours, as editors and backup programs take them, do not matter."""
    with writer(log_path, notes) as one:
        one.log("before")
        assert one.ask("flush")
        with holding(held(log_path), how):
            one.log("meanwhile", 10)
            assert one.ask("flush", 5) is True
        one.end()

    assert_kept(log_path, notes)


@has_locks
@pytest.mark.usefixtures("clock")
def test_held_lock_is_one_message_that_says_who_holds_it_and_for_how_long(log_path: Path):
    """However often we are refused, the application is told once, and the counters know the newest state."""
    handler = Told(log_path)
    handler.log("first")
    with holding(lock_file(log_path)) as pid:
        assert [handler.flush(7) for _ in range(3)] == [False] * 3
        snapshot = handler.get_stats()
        told = list(handler.told)
    assert handler.flush(5) is True
    handler.close()

    assert len(told) == 1
    assert f"after 7.0 s, held by pid {pid} (python" in told[0]
    assert "1 records wait, kept" in told[0]
    assert f"after 21.0 s, held by pid {pid} (python" in str(snapshot["last_error"])
    assert snapshot["pending"] == 1
    assert_sums(dict(snapshot))
    assert handler.told == told
    assert_all_there_once(log_path, ["first"])


@has_locks
def test_full_queue_while_our_own_listener_waits_for_a_stranger_the_stranger_is_told(log_path: Path, durability: str):
    """A caller that cannot even get the turn, because the listener waits, says who holds both of them up."""
    handler = Told(log_path, batch_size=1, lock_timeout=60, caller_timeout=0.01, queue_max_size=2, close_timeout=60)
    turn = handler._pipeline.writer.turn
    lock_file(log_path).touch()
    with holding(lock_file(log_path)) as pid:
        statuses = [handler.log(f"held-{number}") for number in range(2)]
        while turn.acquire(0):  # until the listener has it
            turn.free()
            os.sched_yield()
        statuses.append(handler.log("refused"))
        refused = str(handler.get_stats()["last_error"])
        assert handler.flush(0.01) is False
        flushed = str(handler.get_stats()["last_error"])
    handler.close()

    assert statuses == ["queued", "queued", "failed" if durability == "memory" else "spilled"]
    assert "the queue is full and the log was busy" in refused
    assert f"pid {pid} (python" in refused
    assert f"pid {pid} (python" in flushed
    assert_all_there_once(log_path, ["held-0", "held-1", "refused"][: 2 if durability == "memory" else 3])


# --- what it costs the caller --------------------------------------------------------------------------------------


def test_full_queue_behind_a_held_lock_costs_one_attempt_and_no_more_than_caller_timeout(
    log_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, durability: str
):
    """Each call at a full queue waits for the lock once, as long as it may, and makes no pause for a second attempt."""
    handler = Told(log_path, queue_max_size=2, caller_timeout=0.7)
    writer_ = handler._pipeline.writer
    attempts: list[float] = []
    acquire = writer_._acquire_lock
    monkeypatch.setattr(writer_, "_acquire_lock", lambda deadline_s: (attempts.append(deadline_s), acquire(deadline_s)))
    lock_file(log_path).touch()
    with holding(lock_file(log_path)):
        assert [handler.log("a"), handler.log("b")] == ["queued"] * 2
        assert (clock.spent(), attempts) == (0, [])
        for number in range(1, 4):
            assert handler.log(f"more-{number}") == ("failed" if durability == "memory" else "spilled")
            assert clock.spent() == pytest.approx(0.7)
            assert len(attempts) == number
    assert handler.log("c") == "written_sync"
    assert clock.spent() == 0
    handler.close()

    spilled = [] if durability == "memory" else ["more-1", "more-2", "more-3"]
    assert_all_there_once(log_path, ["a", "b", "c", *spilled])


def test_held_lock_a_flush_and_a_close_share_one_close_timeout_and_keep_the_records(log_path: Path, clock: Clock):
    """Ending while a stranger holds the lock takes close_timeout and no longer; the records wait, and come home."""
    handler = Told(log_path, close_timeout=9)
    handler.log("a")
    with holding(lock_file(log_path)):
        assert handler.flush() is False
        assert clock.spent() == pytest.approx(9)
        handler.close()
        handler.close()
        assert clock.spent() == pytest.approx(0, abs=0.01)
        pending = handler.get_stats()["pending"]
    assert handler.log("b") == "queued"
    assert handler.flush(5) is True
    handler.close()

    assert pending == 1
    assert_all_there_once(log_path, "ab")


def test_held_lock_a_close_alone_takes_close_timeout(log_path: Path, clock: Clock):
    """A close without a flush before it has the same limit; one message says how many are left, and where."""
    handler = Told(log_path, close_timeout=4)
    handler.log("a")
    with holding(lock_file(log_path)):
        handler.close()
        assert clock.spent() == pytest.approx(4, abs=0.01)
        kept = log_path.with_name(f"{log_path.name}.journal")  # at memory one is made for it
        assert b'"record_id":"a"' in b"".join(path.read_bytes() for path in kept.glob("*.jsonl"))
        assert [one for one in handler.told if f"1 are kept in {kept}" in one]
    assert handler.flush(5) is True
    handler.close()

    assert_all_there_once(log_path, ["a"])


@has_strace
def test_queue_not_full_the_caller_asks_for_no_lock_and_takes_no_nap(log_path: Path, notes: Notes, tmp_path: Path):
    """While the listener is refused again and again, the thread that logs asks the kernel for no lock, nap or sync."""
    code = """
    attach()
    refused = threading.Event()
    handler.handleError = lambda record: refused.set()
    log("first")
    assert refused.wait(15)
    for mark, count in (("begin", 100), ("end", 0)):
        try:
            os.chdir("/no/such/" + mark)
        except OSError:
            pass
        for number in range(count):
            log(f"record-{number}")
    print("logged", flush=True)
    sys.stdin.readline()
    assert handler.flush()
    handler.close()
    stats()
    """
    options = {"batch_size": 1, "flush_interval": 0.005, "lock_timeout": 0.005, "max_retries": 0}
    trace = tmp_path / "trace"
    strace = [
        "-qq",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=flock,clock_nanosleep,fsync,fdatasync,sync_file_range,msync,chdir",
        sys.executable,
    ]
    source = PREAMBLE + textwrap.dedent(code)
    with (
        holding_the_lock(log_path) as stranger,
        child_process(source, log_path, notes.path, json.dumps(options), python="strace", options=strace) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        stranger.communicate("")
        _, err = process.communicate("\n")
        assert process.returncode == 0, err

    caller = str(notes.read()[0]["pid"])
    calls = [line.split(None, 1) for line in trace.read_text("utf-8").splitlines()]
    marks = [number for number, (_, call) in enumerate(calls) if "/no/such/" in call]
    others = [call for pid, call in calls if pid != caller]
    assert len(marks) == 2
    assert [call for pid, call in calls[marks[0] + 1 : marks[1]] if pid == caller] == []
    assert any("flock" in call and "EAGAIN" in call for call in others)
    assert any("clock_nanosleep" in call for call in others)
    assert notes.ids("queued") == notes.ids()
    assert_kept(log_path, notes)


# --- a forked child ------------------------------------------------------------------------------------------------

# Forks in the middle of an append, with the lock held. Each child lives until it is told to go, or goes at once.
FORKS = """
from ai_response_logging import _append

CHILDREN, LIVES = [], sys.argv[4] == "lives"
go, told = os.pipe()
append_block = _append.append_block


def is_free():
    import fcntl
    found = []
    for path in (LOG, os.path.join(os.path.dirname(LOG), f".__{os.path.basename(LOG)}.lock")):
        with open(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(False)
            else:
                found.append(True)
    return found


def forking(descriptor, block, *, path):
    _append.append_block = append_block
    child = os.fork()
    if child == 0:
        log("child")
        note(child_flushed=handler.flush(0.02))
        if LIVES:
            os.close(told)
            os.read(go, 1)
            note(child_flushed=handler.flush())
        stats()
        os._exit(0)
    CHILDREN.append(child)
    if not LIVES:
        os.waitpid(child, 0)
    else:
        while b"child_flushed" not in open(NOTES, "rb").read():
            os.sched_yield()
    note(free_while_we_append=is_free())
    append_block(descriptor, block, path=path)


attach()
_append.append_block = forking
log("parent")
assert handler.flush()
note(free_afterwards=is_free())
os.close(told)
if LIVES:
    os.waitpid(CHILDREN[0], 0)
log("later")
handler.close()
stats()
"""


@has_fork
@pytest.mark.parametrize("child", ["lives", "goes"])
def test_child_forked_in_mid_append_neither_has_nor_keeps_nor_frees_its_parents_lock(
    log_path: Path, notes: Notes, child: str
):
    """The lock is the parent's: its child waits for it like anybody, and the parent's release frees it."""
    options = json.dumps({"batch_size": 10_000, "flush_interval": 1000, "close_timeout": 5})
    run_child(PREAMBLE + FORKS, log_path, notes.path, options, child)

    facts = {key: value for note in reversed(notes.read()) for key, value in note.items()}
    flushed = [note["child_flushed"] for note in notes.read() if "child_flushed" in note]
    assert flushed == ([False, True] if child == "lives" else [False])
    assert facts["free_while_we_append"] == [False, False]
    assert facts["free_afterwards"] == [True, True]
    kept = ["parent", "later"] + ["child"] * (child == "lives")
    assert_kept(log_path, notes, sure=kept)
