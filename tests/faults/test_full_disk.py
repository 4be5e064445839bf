from __future__ import annotations

from contextlib import ExitStack

import pytest
from _children import Notes, SmallDisk, assert_kept, assert_sums, writer
from helpers import read_lines

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


def test_disk_full_for_a_while_all_comes_home_by_itself(small_disk: SmallDisk, notes: Notes):
    """What is logged while the disk is full waits, and arrives once there is room, without a call that asks for it."""
    log = small_disk.path / "log.jsonl"
    with writer(log, notes, batch_size=5, flush_interval=0.05, max_retries=0) as one:
        one.log("before", 5)
        small_disk.fill()

        assert one.log("full", 200, 1000) == ["queued"] * 200
        assert one.ask("flush", 0.05) is False
        meanwhile = one.ask("stats")
        small_disk.clear()

        assert one.ask("all_home")
        afterwards = one.ask("stats")
        one.end()

    assert meanwhile["pending"] > 0
    assert "errno 28" in meanwhile["last_error"]
    assert (afterwards["pending"], afterwards["failed"], afterwards["accepted"]) == (0, 0, 205)
    assert_kept(log, notes)


def test_disk_full_in_the_middle_of_a_block_leaves_whole_lines_only(small_disk: SmallDisk, notes: Notes):
    """Where the last free page ends inside a record, the whole ones before it stand, and the piece is cut off."""
    log = small_disk.path / "log.jsonl"
    with writer(log, notes) as one:
        one.log("before")
        assert one.ask("flush")
        small_disk.fill(leave=40_000)

        one.log("block", 100, 3000)
        assert one.ask("flush", 0.05) is False
        there = [record["record_id"] for record in read_lines(log)]
        snapshot = one.ask("stats")
        small_disk.clear()
        assert one.ask("flush")
        one.end()

    assert 1 < len(there) < 101
    assert snapshot["written"] == len(there)
    assert_kept(log, notes)


def test_disk_full_for_good_refuses_what_cannot_wait(small_disk: SmallDisk, notes: Notes):
    """Past what queue and journal hold each record is refused and says so; what was taken stays, and comes home."""
    log = small_disk.path / "log.jsonl"
    with writer(log, notes, queue_max_size=10, max_retries=0, caller_timeout=0.05) as one:
        one.log("before")
        assert one.ask("flush")
        small_disk.fill()

        statuses = one.log("full", 50, 40_000)
        snapshot = one.ask("stats")
        small_disk.clear()
        assert one.ask("flush")
        assert one.log("after") == ["queued"]
        one.end()

    assert statuses.count("failed") >= 15
    assert statuses[0] == "queued"
    assert snapshot["failed"] == statuses.count("failed")
    assert_sums(snapshot)
    assert_kept(log, notes)


def test_disk_full_under_several_writers_keeps_every_record(small_disk: SmallDisk, notes: Notes):
    """Several processes that all meet the full disk bring all their records home, none twice and none torn."""
    log = small_disk.path / "log.jsonl"
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log, notes, batch_size=5, flush_interval=0.05)) for _ in range(3)]
        small_disk.fill(leave=30_000)
        for number, one in enumerate(writers):
            one.send("log", f"w{number}", 60, 1500)
        for one in writers:
            assert "failed" not in one.answer()
        assert [one.ask("flush", 0.05) for one in writers] != [True] * 3
        small_disk.clear()
        for one in writers:
            assert one.ask("all_home")
            one.end()

    assert_kept(log, notes)


def test_disk_full_from_the_start_loses_nothing(small_disk: SmallDisk, notes: Notes):
    """A process that begins on a full disk keeps what it logs until there is room."""
    log = small_disk.path / "new" / "log.jsonl"
    small_disk.fill()
    with writer(log, notes, flush_interval=0.05, max_retries=0) as one:
        assert one.log("full", 20, 1000) == ["queued"] * 20
        one.ask("flush", 0.05)
        small_disk.clear()
        assert one.ask("all_home")
        one.end()

    assert_kept(log, notes)
