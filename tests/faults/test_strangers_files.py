"""What somebody does to our files, the journal's included, ends no process and leads us into no file of his."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from _children import Notes, assert_kept, holding_the_lock, lock_file, writer
from helpers import assert_all_there_once, has_proc, read_lines

from ai_response_logging import AIResponseHandler
from ai_response_logging.errors import DurabilityWarning

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def journals(log: Path) -> Path:
    """Return where the journals of *log* are."""
    return log.with_name(f"{log.name}.journal")


def test_files_cut_off_under_a_living_writer_end_nothing(log_path: Path, notes: Notes):
    """Log, lock, segment and mark truncated by somebody: no SIGBUS, and all that is logged then comes home once."""
    with writer(log_path, notes, queue_max_size=5, caller_timeout=0.01) as one:
        one.log("waits", 3)
        with holding_the_lock(log_path):
            cut = [log_path, lock_file(log_path), *journals(log_path).iterdir()]
            for file in cut:
                os.truncate(file, 0)
            statuses = one.log("then", 20, 100_000)  # into the segment that was cut, and into another
        assert one.ask("flush")
        one.end()

    assert len(cut) == 5
    assert set(statuses) == {"queued", "spilled"}
    assert_kept(log_path, notes)


@has_proc
@pytest.mark.parametrize("durability", ["memory", "crash"])
def test_no_page_of_a_file_of_ours_is_mapped(log_path: Path, durability: str):
    """A page that cannot be had would be a SIGBUS, which ends the application: no file of ours is in its memory."""
    handler = AIResponseHandler(log_path, durability=durability, batch_size=10_000, flush_interval=1000)
    for number in range(20):
        handler.submit_fields({"record_id": f"r-{number}", "response": "x" * 100_000})  # more than one segment
    mapped = Path("/proc/self/maps").read_text("utf-8")
    is_there = log_path.exists()
    handler.close()

    assert is_there
    assert "libc" in mapped
    assert str(log_path.parent) not in mapped


@pytest.mark.parametrize("elsewhere", [False, True], ids=["beside the log", "journal_directory"])
def test_files_of_a_writer_at_work_are_its_owners_alone(log_path: Path, tmp_path: Path, elsewhere: bool):
    """While records wait, log, lock and each file of the journal have 0600, their directories 0700, under any umask."""
    log = tmp_path / "made" / "log.jsonl"
    options: dict[str, Any] = {"journal_directory": tmp_path / "made" / "fast"} if elsewhere else {}
    before = os.umask(0)
    try:
        handler = AIResponseHandler(log, batch_size=10_000, flush_interval=1000, **options)
        for number in range(20):
            handler.submit_fields({"record_id": f"r-{number}", "response": "x" * 100_000})
        found = sorted((tmp_path / "made").rglob("*"))
        modes = {str(path): (path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in found}
        handler.close()
    finally:
        os.umask(before)

    kinds = {Path(path).suffix for path in modes} | {Path(path).name for path in modes}
    assert {".lock", ".mark", ".jsonl", ".journal"} | ({"location"} if elsewhere else set()) <= kinds
    assert sum(path.endswith(".jsonl") for path in modes) >= 3
    assert modes == {path: (is_dir, 0o700 if is_dir else 0o600) for path, (is_dir, _) in modes.items()}
    assert not log_path.exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "socket", "file"])
def test_something_else_in_the_journals_place_is_left_alone(log_path: Path, kind: str):
    """A trap where the journals are to be is not followed; it is told, and the records are written all the same."""
    victim = log_path.with_name("victim")
    if kind == "link":
        victim.mkdir()
    put = {
        "link": lambda: journals(log_path).symlink_to(victim),
        "dangling link": lambda: journals(log_path).symlink_to(victim),
        "fifo": lambda: os.mkfifo(journals(log_path)),
        "socket": lambda: os.mknod(journals(log_path), stat.S_IFSOCK | 0o600),
        "file": lambda: journals(log_path).write_bytes(b"somebody's own"),
    }
    put[kind]()
    before = os.lstat(journals(log_path))

    with pytest.warns(DurabilityWarning, match="acts as 'memory'"):
        handler = AIResponseHandler(log_path)
    handler.submit_fields({"record_id": "one"})
    assert handler.flush()
    handler.submit_fields({"record_id": "two"})
    handler.close()

    after = os.lstat(journals(log_path))
    assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)
    assert list(victim.iterdir()) == [] if kind == "link" else not victim.exists()
    assert_all_there_once(log_path, ["one", "two"])


def test_foreign_content_of_a_lock_file_stays(log_path: Path, notes: Notes):
    """What somebody has in a file of the lock's name is still there afterwards, byte for byte."""
    lock_file(log_path).write_bytes(b"somebody's own")
    with writer(log_path, notes, max_bytes=1000) as one:
        one.log("record", 5)
        one.end()

    assert lock_file(log_path).read_bytes() == b"somebody's own"
    assert_kept(log_path, notes)


@pytest.mark.parametrize("last", [b"the end\n", b"no newline"])
def test_foreign_file_in_the_logs_place_loses_no_byte(log_path: Path, notes: Notes, last: bytes):
    """A regular file cannot be told from an older log: ours go behind it on lines of their own, its bytes stay."""
    with writer(log_path, notes) as one:
        one.log("before", 2)
        assert one.ask("flush")
        log_path.rename(log_path.with_name(f"{log_path.name}.1"))
        log_path.write_bytes(b"somebody's own\n" + last)
        one.log("after", 2)
        one.end()

    content = log_path.read_bytes()
    torn = b"".join(file.read_bytes() for file in log_path.parent.glob("*.torn-*"))
    kept = b"somebody's own\n" + (last if last.endswith(b"\n") else b"")
    assert content.startswith(kept)
    assert torn == (b"" if last.endswith(b"\n") else last)
    log_path.write_bytes(content.removeprefix(kept))
    assert [one["record_id"] for one in read_lines(log_path)] == ["after-0", "after-1"]
    assert_kept(log_path, notes)
