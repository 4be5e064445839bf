from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import portalocker.portalocker
import pytest
from helpers import child_process, has_proc

from ai_response_logging import _lock
from ai_response_logging._lock import Turn, acquire, holder_of, is_replaced, takes_turn
from ai_response_logging._paths import describe_file_type, open_regular
from ai_response_logging.errors import LockTimeoutError, LogPathError

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def open_lock_file(path: str, mode: int) -> FileIO:
    """Open the lock file as the writer does."""
    return open_regular(path, os.O_RDWR, mode)


@contextmanager
def held_by_another(path: Path) -> Iterator[int]:
    """Let another process hold the lock at *path*, and give its id."""
    with child_process(HOLD, path) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        yield stranger.pid


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


@has_proc
def test_held_lock_is_waited_for_no_longer_than_said_and_its_holder_is_named(lock_path: Path):
    """Past the limit an error says how long we waited, for which log, and who holds the lock."""
    with (
        held_by_another(lock_path) as pid,
        open_lock_file(str(lock_path), 0o600) as lock,
        pytest.raises(LockTimeoutError) as caught,
    ):
        acquire(lock, 0.01, "the.log")

    assert caught.value.holder == f"pid {pid}"
    assert caught.value.path == "the.log"
    assert f"held by pid {pid}" in str(caught.value)


@pytest.mark.parametrize("timeout", [0, 0.0004, 0.1, 3, 10])
def test_naps_before_the_lock_add_up_to_the_limit(lock_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float):
    """A waiter sleeps the time it was given, in short naps, and not a nap more."""
    naps: list[float] = []
    monkeypatch.setattr(_lock.time, "sleep", naps.append)
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(LockTimeoutError):
            acquire(lock, timeout, "log")

    assert sum(naps) == pytest.approx(timeout)
    assert all(0 < nap <= 0.02 for nap in naps)


def test_lock_freed_while_we_nap_is_taken(lock_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The lock is ours as soon as the holder lets go, within the limit."""
    with open_lock_file(str(lock_path), 0o600) as lock, lock_path.open() as other, lock_path.open() as third:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(_lock.time, "sleep", lambda _: fcntl.flock(other, fcntl.LOCK_UN))

        acquire(lock, 10, "log")

        with pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.EINVAL])
def test_kernel_that_cannot_lock_is_the_kernels_error_at_once(
    lock_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    """An error that is not "somebody has it" is not waited out; it reaches the writer as the OSError it was."""
    naps: list[float] = []
    monkeypatch.setattr(_lock.time, "sleep", naps.append)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", refuse)
    with open_lock_file(str(lock_path), 0o600) as lock, pytest.raises(OSError, match=os.strerror(code)) as caught:
        acquire(lock, 10, "log")

    assert caught.value.errno == code
    assert not naps


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


def test_directory_replaced_by_a_file_replaces_the_lock_file_too(tmp_path: Path):
    """Where the path leads nowhere at all, others do not find our lock either."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "lock"
    with open_lock_file(str(path), 0o600) as lock:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").touch()

        assert is_replaced(lock, str(path))


@has_proc
def test_lock_that_nobody_holds_has_no_holder(lock_path: Path):
    """Without a holder none is named."""
    with open_lock_file(str(lock_path), 0o600) as lock:
        assert holder_of(lock) == ""


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
