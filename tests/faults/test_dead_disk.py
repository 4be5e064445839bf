"""A file system that dies under load, and a journal that somebody damages: the process lives, and keeps what it can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _children import Notes, Writer, assert_kept, assert_sums, writer
from _disks import SYNCED, UNSYNCED, Disk
from helpers import assert_all_there_once

from ai_response_logging import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow]

THREADS = 4
LOADED: dict[str, Any] = {"durability": "crash", "batch_size": 10, "flush_interval": 0.05, "caller_timeout": 0.2}
SLACK_S = 5.0  # for a machine that does other things, beyond the bound that a call has


def await_notes(one: Writer, notes: Notes, more: int) -> list[str]:
    """Wait until *more* records than now have been logged, and return those that had been."""
    before = [note["id"] for note in notes.read() if "id" in note]
    while len([note for note in notes.read() if "id" in note]) < len(before) + more:
        assert one.process.poll() is None, one.process.communicate()
    return before


def logged_after(notes: Notes, before: list[str]) -> list[str]:
    """Return the records accepted by calls that began after all *before*: not the next one of each thread."""
    later = [id_ for id_ in notes.ids() if id_ not in set(before)]
    began_before = {id_.partition("-")[0]: id_ for id_ in reversed(later)}
    return [id_ for id_ in later if id_ not in began_before.values()]


def end_load(one: Writer, notes: Notes) -> None:
    """End the load and assert that the application has noticed nothing of what was done to us."""
    assert one.ask("rest") == {"hung": 0, "raised": []}
    assert notes.slowest_s() < LOADED["caller_timeout"] + SLACK_S


def strike(one: Writer, notes: Notes, fault: Callable[[], object]) -> list[str]:
    """Let threads log, and play *fault* in the middle; return the records that were logged before it."""
    one.send("load", THREADS)
    assert one.answer() is None
    await_notes(one, notes, 100)
    fault()
    before = await_notes(one, notes, 100)
    assert_sums(one.ask("stats"))
    return before


def test_file_system_shut_down_under_load_and_repaired_keeps_every_record(disk: Disk, notes: Notes):
    """Log and journal on a disk that dies: the process lives, and all comes home once it is repaired, no restart."""
    log = disk.path / "log.jsonl"
    with writer(log, notes, **LOADED) as one:
        strike(one, notes, lambda: disk.shut_down(SYNCED))
        disk.mount()
        await_notes(one, notes, 100)
        end_load(one, notes)
        assert one.ask("all_home"), str(one.ask("stats"))
        one.end()

    assert_kept(log, notes)


@pytest.mark.parametrize("flag", [SYNCED, UNSYNCED], ids=["synced", "unsynced"])
def test_log_shut_down_under_load_spills_to_the_other_disk(disk: Disk, tmp_path: Path, notes: Notes, flag: int):
    """A journal on another file system holds what the dead one refuses, beyond the queue too, until it is repaired."""
    log = disk.path / "log.jsonl"
    with writer(log, notes, journal_directory=str(tmp_path / "other"), queue_max_size=20, **LOADED) as one:
        before = strike(one, notes, lambda: disk.shut_down(flag))
        assert one.ask("stats")["durability"] == "crash"
        disk.mount()
        end_load(one, notes)
        assert one.ask("all_home")
        one.end()

    assert "spilled" in notes.statuses()
    assert "failed" not in notes.statuses()
    # What the kernel had not put on the disk yet is what a loss of power takes.
    assert_kept(log, notes, sure=notes.ids() if flag == SYNCED else logged_after(notes, before))


def test_journal_shut_down_under_load_costs_no_record_of_a_healthy_log(disk: Disk, log_path: Path, notes: Notes):
    """A journal's disk that dies for good stops nobody: records go to the log, and the counters say `memory`."""
    with writer(log_path, notes, journal_directory=str(disk.path / "journals"), **LOADED) as one:
        strike(one, notes, lambda: disk.shut_down(SYNCED))
        assert one.ask("stats")["durability"] == "memory"
        end_load(one, notes)
        assert one.ask("all_home"), str(one.ask("stats"))
        one.end()

    assert notes.statuses() == {"queued"}
    assert_kept(log_path, notes)


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_log_that_the_kernel_makes_read_only_under_load_gets_all_once_it_is_repaired(disk: Disk, notes: Notes):
    """A file system that finds an error refuses every write from then on (EROFS), and what waits comes home later."""
    log = disk.path / "log.jsonl"
    with writer(log, notes, **LOADED) as one:
        before = strike(one, notes, lambda: (os.sync(), disk.remount("abort")))
        assert "Read-only file system" in one.ask("stats")["last_error"]
        disk.mount()
        end_load(one, notes)
        assert one.ask("all_home")
        one.end()

    assert_kept(log, notes, sure=logged_after(notes, before))


def test_log_on_a_read_only_disk_gets_all_once_it_is_writable(disk: Disk, tmp_path: Path, notes: Notes):
    """Who begins while the disk is mounted read-only spills, and needs no restart when that ends."""
    log = disk.path / "log.jsonl"
    AIResponseHandler(log).close()
    disk.remount("ro")
    options = {**LOADED, "queue_max_size": 5, "journal_directory": str(tmp_path / "other")}
    with writer(log, notes, **options) as one:
        assert set(one.log("read-only", 20)) == {"queued", "spilled"}
        assert one.ask("stats")["written"] == 0
        disk.remount("rw")
        assert one.ask("all_home")
        one.end()

    assert_kept(log, notes)


# --- a journal that somebody damages ---------------------------------------------------------------------------------

FILES = {"segment": "*.jsonl", "mark": "*.mark", "lock": "*.lock", "location": "location"}


def empty(path: Path) -> None:
    """Truncate *path* to nothing."""
    os.truncate(path, 0)


def halve(path: Path) -> None:
    """Truncate *path* to half of what is in it, not of what is reserved."""
    os.truncate(path, len(path.read_bytes().rstrip(b"\0")) // 2)


def replace_by_directory(path: Path) -> None:
    """Put a directory in the place of *path*."""
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    """Put a link to a file of somebody's in the place of *path*."""
    (bait := path.parent.parent / "somebody's").write_text("not ours to touch")
    path.unlink()
    path.symlink_to(bait)


def remove_all(folder: Path) -> None:
    """Remove the whole journal."""
    shutil.rmtree(folder)


def replace_all_by_file(folder: Path) -> None:
    """Put a file in the place of the whole journal."""
    shutil.rmtree(folder)
    folder.write_text("not ours to touch")


def replace_all_by_link(folder: Path) -> None:
    """Put a link to a directory of somebody's in the place of the whole journal."""
    shutil.rmtree(folder)
    (bait := folder.with_name("somebody's directory")).mkdir()
    folder.symlink_to(bait)


def assert_baits_untouched(folder: Path) -> None:
    """Assert that nothing of ours is in what somebody put in our places."""
    for bait in folder.glob("somebody's"):
        assert bait.read_text() == "not ours to touch"
    for bait in folder.glob("somebody's directory"):
        assert not list(bait.iterdir())


@pytest.mark.parametrize("damage", [empty, halve, Path.unlink, replace_by_directory, replace_by_link])
@pytest.mark.parametrize("what", FILES)
def test_journal_file_damaged_under_load_costs_a_living_process_nothing(
    log_path: Path, tmp_path: Path, notes: Notes, what: str, damage: Callable[[Path], object]
):
    """Whatever somebody does to a file of the journal: no SIGBUS, no exception, no record lost, doubled or torn."""
    elsewhere = {"journal_directory": str(tmp_path / "other")} if what == "location" else {}
    journal = log_path.with_name(f"{log_path.name}.journal")
    with writer(log_path, notes, **LOADED, **elsewhere) as one:
        fired: list[Path] = []

        def strike_file() -> None:
            fired.extend(journal.glob(FILES[what]))
            for path in fired:
                damage(path)

        strike(one, notes, strike_file)
        assert fired, "nothing was there to damage"
        end_load(one, notes)
        assert one.ask("all_home")
        one.end()

    assert notes.statuses() == {"queued"}
    assert_kept(log_path, notes)
    AIResponseHandler(log_path, durability="memory").close()
    assert_all_there_once(log_path, notes.ids())
    assert_baits_untouched(tmp_path)


@pytest.mark.parametrize("damage", [remove_all, replace_all_by_file, replace_all_by_link])
def test_whole_journal_removed_or_replaced_under_load_costs_a_living_process_nothing(
    log_path: Path, tmp_path: Path, notes: Notes, damage: Callable[[Path], object]
):
    """The same of its directory; what is put there is left alone."""
    with writer(log_path, notes, **LOADED) as one:
        strike(one, notes, lambda: damage(log_path.with_name(f"{log_path.name}.journal")))
        end_load(one, notes)
        assert one.ask("all_home")
        one.end()

    assert notes.statuses() == {"queued"}
    assert_kept(log_path, notes)
    assert_baits_untouched(tmp_path)
