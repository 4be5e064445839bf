from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

import pytest
from helpers import child_process, has_fork, run_child

from ai_response_logging import _lock
from ai_response_logging._lock import Turn, acquire, busy, holder_of, is_replaced, takes_turn, try_acquire
from ai_response_logging._paths import describe_file_type, open_regular
from ai_response_logging.errors import LockTimeoutError, LogPathError

has_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="there is no /proc/locks")

# argv: the file, how to lock it, and as what program to be seen.
HOLD = """
import fcntl, struct, sys
lock = open(sys.argv[1], "r+")
open("/proc/self/comm", "w").write(sys.argv[3])
if sys.argv[2] == "OFD":
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
elif sys.argv[2] == "POSIX":
    fcntl.lockf(lock, fcntl.LOCK_EX)
else:
    fcntl.flock(lock, getattr(fcntl, sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def open_lock_file(path: str, mode: int) -> FileIO:
    """Open the lock file as the writer does."""
    return open_regular(path, os.O_RDWR, mode)


@contextmanager
def held_by_another(path: Path, how: str = "LOCK_EX", name: str = "holder") -> Iterator[int]:
    """Let another process, the program *name*, hold the lock at *path*, and give its id."""
    path.touch()
    with child_process(HOLD, path, how, name) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        yield stranger.pid


class Clock:
    """A time in which only naps pass, each by *overrun* longer than it was to be."""

    def __init__(self, overrun: float = 1) -> None:
        self.now, self.overrun, self.naps = 1000.0, overrun, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds * self.overrun


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the lock's clock."""
    one = Clock()
    monkeypatch.setattr(_lock, "time", one)
    return one


def refusal(lock: FileIO) -> LockTimeoutError:
    """Return the error that one attempt on a held lock ends with."""
    with pytest.raises(LockTimeoutError) as caught:
        acquire(lock, 0, "log")
    return caught.value


def in_thread(work: Callable[[], object]) -> object:
    """Return what *work* gives in another thread."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def lock_path(tmp_path: Path) -> Path:
    """Return where the lock file goes."""
    return tmp_path / ".__log.lock"


def end(turn: Turn) -> None:
    """End a turn as the writer does."""
    with contextlib.suppress(RuntimeError):
        turn.free()


# --- turns ---------------------------------------------------------------------------------------------------------


def test_turn_is_one_threads_at_a_time():
    """While one thread has the turn, no other gets it; afterwards, any may."""
    turn = Turn()

    assert turn.acquire(0)
    assert in_thread(lambda: turn.acquire(0)) is False
    turn.free()
    assert in_thread(lambda: (turn.acquire(0), turn.free())[0]) is True


def asked(turn: Turn) -> bool:
    """Ask as the writer's methods do: in a function that was called while the turn was somebody's."""
    return turn.is_mine()


@takes_turn
def in_turn(turn: Turn, work: Callable[[], object]) -> object:
    """Do *work* in the turn, as an append does, and end the turn."""
    turn.acquire(0)
    try:
        return work()
    finally:
        turn.free()


def test_turn_is_mine_for_whoever_interrupts_its_holder():
    """Code that interrupts the thread whose turn it is can tell; nobody else is told so."""
    turn = Turn()

    assert not asked(turn)
    assert in_turn(turn, lambda: asked(turn)) is True
    assert in_turn(turn, lambda: in_thread(lambda: asked(turn))) is False
    assert not asked(turn)


def test_turn_that_an_exception_left_behind_is_given_up_by_the_next_who_asks():
    """A turn that nobody on the stack holds any more was left by an exception from outside: it is free again."""
    turn = Turn()
    turn.acquire(0)
    turn.acquire(0)

    assert not asked(turn)
    assert in_thread(lambda: (turn.acquire(0), turn.free())[0]) is True


def test_turn_that_never_came_is_not_freed_for_another():
    """Ending a turn one does not have is an error, and takes nobody else's."""
    turn = Turn()
    turn.acquire(0)

    def free() -> object:
        with pytest.raises(RuntimeError):
            turn.free()
        return turn.acquire(0)

    assert in_thread(free) is False
    turn.free()


def test_turn_comes_to_whoever_waits_when_it_ends():
    """A waiter gets the turn at its end, within its own limit."""
    turn, waiting = Turn(), threading.Event()
    turn.acquire(0)
    results: list[bool] = []

    def wait() -> None:
        waiting.set()
        results.append(turn.acquire(60))
        turn.free()

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    turn.free()
    thread.join()

    assert results == [True]


@pytest.mark.parametrize("timeout", [-1, 0, 1e12])
def test_turn_takes_any_timeout(timeout: float):
    """Neither a timeout that is over nor one beyond what the system takes is an error."""
    turn = Turn()

    assert turn.acquire(timeout)
    end(turn)


# --- the lock file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
@pytest.mark.parametrize("wanted", [0o600, 0o660, 0o666])
def test_new_lock_file_has_exactly_the_mode_asked_for(lock_path: Path, mask: int, wanted: int):
    """Who may write the log may lock it: the lock file's mode is the log's, whatever the umask says."""
    before = os.umask(mask)
    try:
        open_lock_file(str(lock_path), wanted).close()
    finally:
        os.umask(before)

    assert stat.S_IMODE(lock_path.stat().st_mode) == wanted


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.symlink_to(path.with_name("other")), id="symlink"),
        pytest.param(lambda path: path.symlink_to(__file__), id="symlink to a file"),
        pytest.param(Path.mkdir, id="directory"),
        pytest.param(os.mkfifo, id="fifo"),
    ],
)
def test_lock_file_that_is_something_else_is_refused(lock_path: Path, make: Callable[[Path], object]):
    """A trap in the lock file's place is neither followed nor opened, and nothing is made behind it."""
    make(lock_path)
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(LogPathError, match=r"\.__log\.lock is a"):
        open_lock_file(str(lock_path), 0o600)

    assert not lock_path.with_name("other").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_lock_file_is_closed_in_programs_that_follow(lock_path: Path):
    """A started program that inherited the lock file would hold the lock after us."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        assert not os.get_inheritable(lock.fileno())


# --- locking -------------------------------------------------------------------------------------------------------


def test_free_lock_is_taken_and_excludes_other_processes(lock_path: Path):
    """Once we have it, nobody with a descriptor of his own gets it."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        acquire(lock, 0, "log")

        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@has_locks
def test_held_lock_is_waited_for_no_longer_than_said_and_its_holder_is_named(lock_path: Path):
    """Past the limit an error says how long we waited, for which log, and who holds the lock."""
    with (
        held_by_another(lock_path) as pid,
        open_lock_file(str(lock_path), 0o600) as lock,
        pytest.raises(LockTimeoutError) as caught,
    ):
        acquire(lock, 0.01, "the.log")

    assert caught.value.holder == f"pid {pid} (holder)"
    assert caught.value.path == "the.log"
    assert f"held by pid {pid} (holder)" in str(caught.value)


@pytest.mark.parametrize("timeout", [0, 0.0004, 0.1, 3, 10])
def test_naps_before_the_lock_add_up_to_the_limit(lock_path: Path, clock: Clock, timeout: float):
    """A waiter sleeps the time it was given, in short naps, and not a nap more."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(LockTimeoutError):
            acquire(lock, timeout, "log")

    assert sum(clock.naps) == pytest.approx(timeout)
    assert all(0 < nap <= 0.02 for nap in clock.naps)


def test_naps_that_last_too_long_end_the_waiting_when_its_time_is_over(lock_path: Path, clock: Clock):
    """On a machine too busy to wake us in time, the limit is the clock's, not that of the naps we asked for."""
    clock.overrun = 50
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(LockTimeoutError):
            acquire(lock, 2, "log")

    assert clock.now - 1000 < 2 + 50 * 0.02


def test_lock_freed_while_we_nap_is_taken(lock_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """The lock is ours as soon as the holder lets go, within the limit."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other, lock_path.open() as third:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(clock, "sleep", lambda _: fcntl.flock(other, fcntl.LOCK_UN))

        acquire(lock, 10, "log")

        with pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_error_says_for_how_long_the_lock_was_not_to_be_had_over_all_attempts(lock_path: Path, clock: Clock):
    """Each attempt that is refused counts from the first of them; one that gets the lock ends the count."""
    waited: list[float] = []
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        for pause in (60, 60, 0):
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(LockTimeoutError) as caught:
                acquire(lock, 5, "log")
            waited.append(caught.value.waited_s)
            clock.now += pause
            if len(waited) == 2:
                fcntl.flock(other, fcntl.LOCK_UN)
                acquire(lock, 0, "log")
                fcntl.flock(lock, fcntl.LOCK_UN)

    assert waited == pytest.approx([5, 70, 5])
    assert "no lock on log after 5.0 s" in str(caught.value)


def test_file_that_was_closed_leaves_no_count_behind(lock_path: Path):
    """How long a lock was refused is forgotten together with the file: nothing grows in a process that goes on."""
    with lock_path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        files = []
        for _ in range(3):
            with open_lock_file(str(lock_path), 0o600) as lock, pytest.raises(LockTimeoutError):
                acquire(lock, 0, "log")
            assert lock in _lock._refused_since_s
            files.append(weakref.ref(lock))
            del lock

    # Not the length: other tests' files may go meanwhile.
    assert [file() for file in files] == [None] * 3


def test_one_try_for_the_lock_says_whether_it_was_free(lock_path: Path):
    """Whoever only looks gets the lock or a no, at once."""
    with open_lock_file(str(lock_path), 0o600) as lock, open_lock_file(str(lock_path), 0o600) as other:
        assert try_acquire(lock)
        assert not try_acquire(other)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert try_acquire(other)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.EINVAL])
def test_kernel_that_cannot_lock_is_the_kernels_error_at_once(
    lock_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
):
    """An error that is not "somebody has it" is not waited out; it reaches the writer as the OSError it was."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_lock, "flock", refuse)
    with open_lock_file(str(lock_path), 0o600) as lock, pytest.raises(OSError, match=os.strerror(code)) as caught:
        acquire(lock, 10, "log")

    assert caught.value.errno == code
    assert not clock.naps


@pytest.mark.parametrize("how", ["POSIX", "OFD"])
def test_lock_of_fcntl_does_not_matter(lock_path: Path, how: str):
    """Only flock's locks keep writers apart: an editor's or a database's way of locking holds nobody up."""
    with held_by_another(lock_path, how), open_lock_file(str(lock_path), 0o600) as lock:
        assert holder_of(lock) == ""
        acquire(lock, 0, "log")


# One process that adds 1 to a number in a file, under turn and lock, in two threads. argv: lock, number, rounds
COUNT = """
import fcntl, os, sys, threading
from ai_response_logging._lock import Turn, acquire
from ai_response_logging._paths import open_regular

turn, lock = Turn(), open_regular(sys.argv[1], os.O_RDWR, 0o600)


def count():
    for _ in range(int(sys.argv[3])):
        assert turn.acquire(60)
        acquire(lock, 60, "log")
        with open(sys.argv[2], "r+") as file:
            number = int(file.read())
            file.seek(0)
            file.write(str(number + 1))
        fcntl.flock(lock, fcntl.LOCK_UN)
        turn.free()


print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=count) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.slow
def test_two_threads_in_each_of_two_processes_never_overlap(lock_path: Path, tmp_path: Path):
    """Turn and lock together let one thread of one process at a time do what nobody may disturb."""
    number = tmp_path / "number"
    number.write_text("0")
    with child_process(COUNT, lock_path, number, 200) as one, child_process(COUNT, lock_path, number, 200) as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            _, err = process.communicate()
            assert process.returncode == 0, err

    assert number.read_text() == "800"


# --- a forked child ------------------------------------------------------------------------------------------------

# A parent that holds the lock, and a child that has the same open file. By libc's fork no hook of Python runs. That
# one must not give up the interpreter lock on its way, or the child might wait for it. argv: the lock file
FORK = """
import ctypes, fcntl, os, signal, sys
from ai_response_logging._lock import acquire
from ai_response_logging._paths import open_regular

lock = open_regular(sys.argv[1], os.O_RDWR, 0o600)
other = open_regular(sys.argv[1], os.O_RDWR, 0o600)


def is_free():
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(other, fcntl.LOCK_UN)
    return True


libc = ctypes.PyDLL(None)
acquire(lock, 0, "log")
child = libc.fork()
if child == 0:
    libc.pause()
    libc._exit(0)
try:
    assert not is_free(), "while the parent holds it"
    fcntl.flock(lock, fcntl.LOCK_UN)
    assert is_free(), "the parent has let go, its child lives"
    acquire(lock, 0, "log")
finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert not is_free(), "the child has ended, the parent holds it"
"""


@has_fork
@pytest.mark.slow
def test_childs_copy_of_the_lock_neither_keeps_nor_frees_it(lock_path: Path):
    """What the parent frees is free though a child has the same open file, and a child's end frees nothing."""
    run_child(FORK, lock_path)


@has_fork
@has_locks
@pytest.mark.slow
def test_holder_that_has_ended_and_left_its_lock_to_a_child_is_told_so(lock_path: Path):
    """A lock that a process left to a child is still its own in the machine's list: the text says that it is gone."""
    code = """
    import fcntl, os, sys
    lock = open(sys.argv[1], "r+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fork() == 0:
        print("held", flush=True)
        sys.stdin.read()
    os._exit(0)
    """
    lock_path.touch()
    with child_process(code, lock_path) as stranger, open_lock_file(str(lock_path), 0o600) as lock:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
        not_reaped = refusal(lock)
        stranger.wait()
        gone = refusal(lock)
        stranger.communicate("")  # and the child ends, too
        acquire(lock, 5, "log")

    assert not_reaped.holder.startswith(f"pid {stranger.pid} (python")
    assert not_reaped.holder.endswith("), which has ended and left it to a child")
    assert gone.holder == f"pid {stranger.pid} (it has ended and left the lock to a child, or it is hidden from us)"
    assert "end the child" in not_reaped.remedy


# --- who holds it --------------------------------------------------------------------------------------------------


@has_locks
def test_lock_that_nobody_holds_has_no_holder(lock_path: Path):
    """Without a holder none is named."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        assert holder_of(lock) == ""


@has_locks
@pytest.mark.parametrize("name", ["a b", "b) S 1 (c", "new\nline", "esc\x1b[31m", "(("])
def test_holder_with_an_odd_name_is_told_on_one_line_without_control_characters(lock_path: Path, name: str):
    """A program may call itself anything: the list is not misread, and no name reaches a terminal as a command."""
    with held_by_another(lock_path, name=name) as pid, open_lock_file(str(lock_path), 0o600) as lock:
        holder = holder_of(lock)

    assert holder.startswith(f"pid {pid} ({name[:2]}")
    assert holder.endswith(")")
    assert holder.isprintable()


@has_locks
def test_stopped_holder_is_told_with_the_command_that_lets_it_go_on(lock_path: Path):
    """Somebody who stopped the holder, and forgot it, reads which process and what to do."""
    with held_by_another(lock_path) as pid, open_lock_file(str(lock_path), 0o600) as lock:
        running = refusal(lock)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        stopped = refusal(lock)

    assert running.holder == f"pid {pid} (holder)"
    assert "end it" in running.remedy
    assert stopped.holder == f"pid {pid} (holder), stopped (SIGSTOP)"
    assert f"kill -CONT {pid}" in str(stopped)


@has_locks
def test_our_own_process_is_told_as_the_holder(lock_path: Path):
    """Where two writers of one process stand in each other's way, the text does not ask to end the process."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        error = refusal(lock)

    assert error.holder.startswith(f"pid {os.getpid()} (")
    assert error.holder.endswith("), this process")
    assert not error.remedy


@has_locks
@pytest.mark.slow
def test_several_holders_of_a_shared_lock_are_told_and_the_stopped_one_is_to_go_on(lock_path: Path):
    """A lock that many share keeps us out as well: the first three are named, the rest counted."""
    with ExitStack() as stack, open_lock_file(str(lock_path), 0o600) as lock:
        pids = [stack.enter_context(held_by_another(lock_path, "LOCK_SH", f"s{number}")) for number in range(2)]
        two = holder_of(lock)
        pids += [stack.enter_context(held_by_another(lock_path, "LOCK_SH", f"s{number}")) for number in range(2, 4)]
        four = holder_of(lock)
        os.kill(pids[3], signal.SIGSTOP)
        os.waitid(os.P_PID, pids[3], os.WSTOPPED)
        stopped = refusal(lock)

    assert set(two.split("; ")) == {f"pid {pids[0]} (s0)", f"pid {pids[1]} (s1)"}
    assert len(re.findall(r"pid \d+", four)) == 3
    assert four.endswith(" and 1 more")
    assert f"kill -CONT {pids[3]}" in stopped.remedy
    assert f"pid {pids[3]} (s3), stopped" in stopped.holder


@has_locks
@pytest.mark.slow
def test_who_waits_for_the_lock_is_not_taken_for_its_holder(lock_path: Path):
    """The machine lists waiters beside holders; only holders are to blame."""
    with (
        held_by_another(lock_path) as pid,
        child_process(HOLD, lock_path, "LOCK_EX", "waiter") as waiter,
        open_lock_file(str(lock_path), 0o600) as lock,
    ):
        while not re.search(rf"-> FLOCK +ADVISORY +WRITE {waiter.pid} ", Path("/proc/locks").read_text("ascii")):
            os.sched_yield()
        assert holder_of(lock) == f"pid {pid} (holder)"


ROWS = b"""
1: FLOCK  ADVISORY  WRITE 11 08:01:77 0 EOF
1: -> FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF
1:  -> FLOCK  ADVISORY  WRITE 13 08:01:77 0 EOF
2: OFDLCK ADVISORY  WRITE -1 08:01:77 0 EOF
3: POSIX  ADVISORY  WRITE 14 08:01:77 100 200
4: LEASE  ACTIVE    READ  15 08:01:77 0 EOF
5: FLOCK  ADVISORY  WRITE 16 08:02:77 0 EOF
6: FLOCK  ADVISORY  READ 17 08:01:77 0 EOF
7: FLOCK  ADVISORY  WRITE 0 00:2b:78 0 EOF
8: FLOCK  ADVISORY  WRITE 18 103:1f:79 0 EOF
"""


@pytest.mark.parametrize(
    ("device", "inode", "pids"),
    [
        pytest.param((8, 1), 77, [11, 17], id="ours alone"),
        pytest.param((8, 2), 77, [16], id="the same number on another device"),
        pytest.param((8, 3), 77, [], id="nobody on our device"),
        pytest.param((0, 99), 77, [11, 16, 17], id="a device that programs see otherwise than the list"),
        pytest.param((0, 0x2B), 78, [0], id="of another container"),
        pytest.param((0x103, 0x1F), 79, [18], id="large device numbers are hexadecimal"),
        pytest.param((8, 1), 7, [], id="a number that only begins like ours"),
    ],
)
def test_list_of_locks_is_read_by_device_and_inode(device: tuple[int, int], inode: int, pids: list[int]):
    """A lock counts if it is flock's, held, and on our file; by the number alone only where devices do not compare."""
    assert _lock._pids_on(os.makedev(*device), inode, ROWS.strip().splitlines()) == pids


@pytest.mark.parametrize("pid", [None, 0, -3])
def test_holder_that_the_machine_does_not_name_is_looked_for_elsewhere(
    lock_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int | None
):
    """Where the list leaves the holder out, or has no number for it, the text says where else to look."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        info = os.fstat(lock.fileno())
        device = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
        rows = "" if pid is None else f"7: FLOCK  ADVISORY  WRITE {pid} {device} 0 EOF\n"
        (tmp_path / "locks").write_text(rows)
        monkeypatch.setattr(_lock, "_LOCKS", str(tmp_path / "locks"))
        error = refusal(lock)

    assert "of another container or machine" in error.holder
    assert "look for it in the other containers" in str(error)


@pytest.mark.parametrize("rows", [None, b"1: FLOCK", b"1: FLOCK  ADVISORY  WRITE who what 0 EOF", b"\xff\x00\n\n"])
def test_list_of_locks_that_is_not_there_or_reads_otherwise_costs_only_the_name(
    lock_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: bytes | None
):
    """A diagnosis is help, not a condition: on another system the error comes without it."""
    if rows is not None:
        (tmp_path / "locks").write_bytes(rows)
    monkeypatch.setattr(_lock, "_LOCKS", str(tmp_path / "locks"))
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        error = refusal(lock)

    assert "no lock on log after" in str(error)
    assert not re.search(r"pid \d", str(error))
    assert ("held by" in str(error)) == (rows is not None)


@has_locks
def test_thread_whose_turn_does_not_come_is_told_who_holds_up_the_one_that_has_it(lock_path: Path, clock: Clock):
    """Behind a thread that waits for a stranger, the stranger is the one to name, and for how long he is there."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        alone = busy([None, lock], 1, "log")
        fcntl.flock(lock, fcntl.LOCK_EX)
        ours = busy([None, lock], 1, "log")
        fcntl.flock(lock, fcntl.LOCK_UN)
        with held_by_another(lock_path) as pid:
            at_first = busy([None, lock], 1, "log")
            refusal(lock)
            clock.now += 30
            later = busy([None, lock], 1, "log")
    closed = busy([lock], 1, "log")

    assert {alone.holder, ours.holder, closed.holder} == {"another thread of this process"}
    assert (at_first.holder, at_first.waited_s) == (f"pid {pid} (holder)", 1)
    assert (later.holder, later.waited_s) == (f"pid {pid} (holder)", 30)
    assert "end it" in later.remedy


def test_error_says_what_becomes_of_the_records(lock_path: Path):
    """Who reads that there is no lock reads as well whether anything is lost."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        assert "the records that wait are kept" in str(refusal(lock))


# --- what stands at the path ---------------------------------------------------------------------------------------


def test_lock_file_that_others_find_is_not_replaced(lock_path: Path):
    """As long as the path leads to our file, all lock the same."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        assert not is_replaced(lock, str(lock_path))


@pytest.mark.parametrize("again", [True, False])
def test_deleted_lock_file_is_replaced_whether_or_not_there_is_a_new_one(lock_path: Path, again: bool):
    """A lock file that nobody else finds protects nothing."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        lock_path.rename(lock_path.with_name("kept so that its inode is not used again"))
        if again:
            lock_path.touch()

        assert is_replaced(lock, str(lock_path))


def test_lock_file_whose_descriptor_tells_nothing_is_replaced_by_what_stands_there(lock_path: Path):
    """On a dead file system fstat fails; a path that leads somewhere leads to a repaired one, where others lock."""
    lock = open_lock_file(str(lock_path), 0o600)
    os.close(lock.fileno())

    assert is_replaced(lock, str(lock_path))

    with contextlib.suppress(OSError):
        lock.close()


def test_directory_replaced_by_a_file_replaces_the_lock_file_too(tmp_path: Path):
    """Where the path leads nowhere at all, others do not find our lock either."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "lock"
    with open_lock_file(str(path), 0o600) as lock:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").touch()

        assert is_replaced(lock, str(path))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Path.touch, ""),
        (lambda _: None, ""),
        (Path.mkdir, "a directory"),
        (os.mkfifo, "a FIFO"),
        (lambda path: path.symlink_to("x"), "a symbolic link"),
    ],
    ids=["file", "nothing", "directory", "fifo", "symlink"],
)
def test_what_stands_at_a_path_is_named_unless_it_is_a_file(tmp_path: Path, make: Callable[[Path], object], name: str):
    """Errors say in words what is in the way; a regular file or nothing at all is not."""
    make(tmp_path / "it")

    assert describe_file_type(str(tmp_path / "it")) == name


def test_devices_are_named():
    """Nobody logs into a device by mistake."""
    assert describe_file_type(os.devnull) == "a character device"
