from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from _children import Notes, assert_kept, holding_the_lock, writer
from helpers import log_files, read_lines

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_one_of_several_writers_killed_the_others_go_on(log_path: Path, notes: Notes):
    """SIGKILL of one writer takes nothing that is in the file, and the others neither wait nor lose a record."""
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log_path, notes)) for _ in range(4)]
        for number, one in enumerate(writers):
            one.log(f"w{number}", 20)
            assert one.ask("flush")
        victim, *others = writers
        victim.process.send_signal(signal.SIGKILL)
        assert victim.process.wait() == -signal.SIGKILL
        for number, one in enumerate(others):
            one.log(f"later{number}", 20)
            assert one.ask("flush")
            one.end()

    assert len(notes.ids()) == 4 * 20 + 3 * 20
    assert_kept(log_path, notes)


def test_killed_with_records_in_its_queue_loses_those_at_most(log_path: Path, notes: Notes):
    """At durability memory a killed process takes along what was queued, and nothing that was flushed before."""
    with writer(log_path, notes, durability="memory") as one:
        one.log("flushed", 20)
        assert one.ask("flush")
        one.log("queued", 20)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()
    with writer(log_path, notes) as another:
        another.log("another", 20)
        another.end()

    assert_kept(log_path, notes, sure=[f"{prefix}-{n}" for prefix in ("flushed", "another") for n in range(20)])
    assert len(read_lines(log_path)) == 40, "at memory nothing keeps what was queued"


def test_writers_killed_under_load_leave_no_torn_line_behind_for_the_last(log_path: Path, notes: Notes):
    """Processes killed while they write as fast as they can leave the survivor's records there, once and whole."""
    with writer(log_path, notes, batch_size=3, flush_interval=0.01) as survivor:
        for generation in range(5):
            with writer(log_path, notes, batch_size=1, flush_interval=0.001) as victim:
                victim.log(f"victim{generation}", 1)
                victim.send("log", f"load{generation}", 100_000, 2000)
                survivor.log(f"survivor{generation}", 30, 2000)
                victim.process.send_signal(signal.SIGKILL)
                victim.process.wait()
        assert survivor.ask("flush")
        survivor.end()

    sure = [f"survivor{generation}-{number}" for generation in range(5) for number in range(30)]
    assert_kept(log_path, notes, sure=sure)


def test_writer_killed_while_it_waits_for_the_lock_leaves_no_trace(log_path: Path, notes: Notes):
    """A process killed before its turn came has written nothing, and holds nothing up."""
    with holding_the_lock(log_path), writer(log_path, notes, batch_size=1) as victim:
        victim.log("victim", 1)
        victim.send("flush")
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        assert log_path.read_bytes() == b""
    with writer(log_path, notes) as another:
        another.log("another", 5)
        another.end()

    assert_kept(log_path, notes, sure=[f"another-{number}" for number in range(5)])


def test_killed_around_rotations_every_record_is_in_a_file_that_readers_know(log_path: Path, notes: Notes):
    """Whatever moment of a rotation a process is killed at, flushed records stand in files with known names."""
    for generation in range(5):
        with writer(log_path, notes, max_bytes=2000) as victim:
            victim.log(f"flushed{generation}", 8, 500)
            assert victim.ask("flush")
            victim.send("log", f"load{generation}", 50, 500)
            victim.send("flush")
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
    with writer(log_path, notes, max_bytes=2000) as last:
        last.log("last", 5)
        last.end()

    sure = [f"flushed{generation}-{number}" for generation in range(5) for number in range(8)]
    assert_kept(log_path, notes, sure=[*sure, *(f"last-{number}" for number in range(5))])
    assert len(log_files(log_path)) > 5
    assert all(read_lines(file) for file in log_files(log_path))
