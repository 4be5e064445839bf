from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from _children import Notes, assert_kept, holding_the_lock, lock_file, writer
from helpers import has_strace

pytestmark = [pytest.mark.faults, pytest.mark.slow]


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
