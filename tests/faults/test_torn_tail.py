from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from _children import Notes, SmallDisk, assert_kept, assert_sums, writer
from helpers import has_gcc, read_lines

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


def torn_files(log: Path) -> list[Path]:
    """Return the files that hold torn tails of *log*."""
    return sorted(log.parent.glob(f"{log.name}.torn-*"))


def kill_in_mid_write(log: Path, notes: Notes, shim: Path, *, count: int, size: int) -> None:
    """Let a process be killed with half of a block in the log."""
    env = {"LD_PRELOAD": str(shim), "SHIM_FILE": f"/{log.name}", "SHIM_PLAN": "k"}
    with writer(log, notes, env=env) as one:
        one.log("killed", count, size)
        one.send("flush")
        assert one.process.wait() == -signal.SIGKILL


@has_gcc
@pytest.mark.parametrize("size", [100, 200_000])
def test_writer_killed_in_mid_write_next_record_is_not_glued_to_its_half_line(
    log_path: Path, notes: Notes, shim: Path, size: int, durability: str
):
    """The half line of a killed process is set aside, whole; the next writer's record stands on a line of its own."""
    kill_in_mid_write(log_path, notes, shim, count=1, size=size)
    half = log_path.read_bytes()
    assert half
    assert b"\n" not in half

    with writer(log_path, notes) as one:
        one.log("next", 3)
        one.end()

    assert [torn.read_bytes() for torn in torn_files(log_path)] == [half]
    assert torn_files(log_path)[0].stat().st_mode & 0o777 == 0o600
    torn = ["killed-0"] * (durability != "memory")  # its journal has it whole
    assert_kept(log_path, notes, sure=[*torn, *(f"next-{number}" for number in range(3))])
    assert len(read_lines(log_path)) == 3 + len(torn)


@has_gcc
def test_writer_killed_in_mid_block_leaves_the_whole_lines_before_the_half_one(
    log_path: Path, notes: Notes, shim: Path
):
    """Of a block that was cut by a kill the whole lines stay where they are, and only the half one goes aside."""
    kill_in_mid_write(log_path, notes, shim, count=9, size=100)
    before = log_path.read_bytes()
    whole = before[: before.rindex(b"\n") + 1]
    assert 0 < len(whole) < len(before)

    with writer(log_path, notes) as one:
        one.log("next")
        one.end()

    assert log_path.read_bytes().startswith(whole)
    assert torn_files(log_path)[0].read_bytes() == before[len(whole) :]
    killed = [f"killed-{number}" for number in range(whole.count(b"\n"))]
    assert_kept(log_path, notes, sure=[*killed, "next-0"])


@has_gcc
def test_several_waiting_writers_set_a_torn_tail_aside_once(log_path: Path, notes: Notes, shim: Path):
    """Of many writers that find the same half line one sets it aside, and none of them loses a record to it."""
    with writer(log_path, notes) as first, writer(log_path, notes) as second:
        kill_in_mid_write(log_path, notes, shim, count=1, size=1000)
        for one in (first, second):
            one.log(f"writer{one.pid}", 20)
            one.send("flush")
        assert first.answer() is second.answer() is True
        first.end()
        second.end()

    assert len(torn_files(log_path)) == 1
    sure = [note["id"] for note in notes.read() if "id" in note and note["id"].startswith("writer")]
    assert_kept(log_path, notes, sure=sure)


@has_gcc
def test_torn_tail_is_set_aside_before_the_log_is_rotated(log_path: Path, notes: Notes, shim: Path):
    """A half line never moves into a rotated file, where nobody would look for it any more."""
    kill_in_mid_write(log_path, notes, shim, count=1, size=4000)

    with writer(log_path, notes, max_bytes=1000) as one:
        one.log("next", 6)
        one.end()

    assert len(torn_files(log_path)) == 1
    assert_kept(log_path, notes, sure=[f"next-{number}" for number in range(6)])


def test_newline_alone_missing_the_whole_record_is_set_aside_not_lost(log_path: Path, notes: Notes):
    """A line whose newline never arrived is no whole line: it goes aside as it is, byte for byte."""
    with writer(log_path, notes) as one:
        one.log("first", 2)
        one.end()
    data = log_path.read_bytes()
    log_path.write_bytes(data[:-1])

    with writer(log_path, notes) as one:
        one.log("next")
        one.end()

    assert torn_files(log_path)[0].read_bytes() == data.splitlines()[1]
    assert_kept(log_path, notes, sure=["first-0", "next-0"])


def test_torn_tail_on_a_full_disk_is_closed_in_place_and_glued_to_nothing(small_disk: SmallDisk, notes: Notes):
    """Where there is no room to copy a half line, it is ended where it stands, so that no record is glued to it."""
    log = small_disk.path / "log.jsonl"
    log.write_bytes(b'{"half":')
    with writer(log, notes) as one:
        small_disk.fill()
        one.log("next", 1, 10_000)
        assert one.ask("flush", 0.02) is False
        meanwhile = log.read_bytes()
        small_disk.clear()
        assert one.ask("flush")
        one.end()

    assert meanwhile == b'{"half":\n'
    assert not torn_files(log)
    half, record = log.read_bytes().splitlines()
    assert half == b'{"half":'
    assert json.loads(record)["record_id"] == "next-0"
    assert_sums(*notes.stats())
