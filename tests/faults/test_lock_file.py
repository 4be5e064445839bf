from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from _children import Notes, Writer, assert_kept, holding_the_lock, lock_file, writer

pytestmark = [pytest.mark.faults, pytest.mark.slow]

BUSY = {"batch_size": 5, "flush_interval": 0.02, "caller_timeout": 15, "lock_timeout": 0.2}
COUNT = 150


def while_they_log(writers: list[Writer], prefix: str) -> Iterator[int]:
    """Let all log COUNT records of 3 kB at once, and go round, in short steps, until the last of them is done."""
    busy = {one.process.stdout: one for one in writers}
    for number, one in enumerate(writers):
        one.send("log", f"{prefix}-w{number}", COUNT, 3000)
    rounds = 0
    while busy:
        yield rounds
        rounds += 1
        for stdout in select.select(list(busy), [], [], 0.001)[0]:
            assert "failed" not in busy.pop(stdout).answer()


def end_all(writers: list[Writer]) -> None:
    """Let all bring home what waits, and end."""
    for one in writers:
        assert one.ask("flush")
    for one in writers:
        one.end()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("max_bytes", [0, 100_000], ids=["one file", "rotation"])
def test_lock_file_deleted_again_and_again_under_load_loses_nothing(log_path: Path, notes: Notes, max_bytes: int):
    """Who keeps deleting the lock file while four processes write 3 kB records gets no line lost, doubled or torn."""
    with ExitStack() as stack:
        few = {**BUSY, "queue_max_size": 50, "max_bytes": max_bytes}
        writers = [stack.enter_context(writer(log_path, notes, **few)) for _ in range(4)]
        deleted = 0
        for _ in while_they_log(writers, "busy"):
            with suppress(FileNotFoundError):
                lock_file(log_path).unlink()
                deleted += 1
        end_all(writers)

    assert deleted > 0
    assert len(notes.ids()) == 4 * COUNT
    assert not list(log_path.parent.glob("*.torn-*"))
    assert_kept(log_path, notes)


def replace_by_file(lock: Path, _: Path) -> None:
    """Put a new lock file in the place of the old one, in one step."""
    new = lock.with_name("new")
    new.touch(0o600)
    new.replace(lock)


def trap(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    """Return what deletes the lock file and, as soon as no writer was quicker, makes a trap in its place."""

    def put(lock: Path, elsewhere: Path) -> None:
        while True:
            lock.unlink(missing_ok=True)
            with suppress(FileExistsError):
                make(lock, elsewhere)
                return

    return put


def remove(lock: Path) -> None:
    """Take away what stands in the lock file's place, if it is a trap."""
    if lock.is_dir() and not lock.is_symlink():
        lock.rmdir()
    elif lock.is_symlink() or lock.is_fifo():
        lock.unlink()


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "file": replace_by_file,
    "symlink": trap(lambda lock, elsewhere: lock.symlink_to(elsewhere)),
    "dangling symlink": trap(lambda lock, elsewhere: lock.symlink_to(elsewhere.with_name("nothing"))),
    "directory": trap(lambda lock, _: lock.mkdir()),
    "fifo": trap(lambda lock, _: os.mkfifo(lock)),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", TRAPS)
def test_lock_file_replaced_again_and_again_under_load_loses_nothing(log_path: Path, notes: Notes, kind: str):
    """Whatever is put in the lock file's place while processes write: it is not touched, and every record arrives."""
    lock, elsewhere = lock_file(log_path), log_path.with_name("elsewhere")
    elsewhere.write_bytes(b"somebody's own")
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log_path, notes, **BUSY)) for _ in range(3)]
        for one in writers:
            one.log(f"first{one.pid}")
            assert one.ask("flush")
        for count in while_they_log(writers, "busy"):
            if count % 2 == 0:
                TRAPS[kind](lock, elsewhere)
            else:
                remove(lock)
        remove(lock)
        end_all(writers)

    assert elsewhere.read_bytes() == b"somebody's own"
    assert not elsewhere.with_name("nothing").exists()
    # Gone, if all had arrived when it was taken away for the last time: nobody needed it any more.
    assert lock.is_file() or not os.path.lexists(lock)
    assert len(notes.ids()) == 3 * COUNT + 3
    assert_kept(log_path, notes)


def test_lock_file_replaced_while_we_wait_for_it_the_new_one_is_waited_for(log_path: Path, notes: Notes):
    """Who waits for a lock file that is deleted meanwhile goes on to the new one, not past it."""
    with writer(log_path, notes) as one, writer(log_path, notes) as other:
        one.log("first")
        assert one.ask("flush")
        with ExitStack() as holders:
            old = holders.enter_context(holding_the_lock(log_path))
            one.log("waits", 3)
            one.send("flush", 10)
            lock_file(log_path).unlink()
            new = holders.enter_context(holding_the_lock(log_path))
            before = log_path.read_bytes()
            old.communicate("")
            other.log("other", 1)
            assert other.ask("flush", 0.02) is False
            assert log_path.read_bytes() == before
            new.communicate("")
            assert one.answer() is True
        end_all([one, other])

    assert_kept(log_path, notes)
