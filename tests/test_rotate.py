from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import assert_all_there_once, log_files, read_lines

from ai_response_logging import _rotate
from ai_response_logging._options import Options
from ai_response_logging._rotate import ROTATED, remove_surplus, rotate, rotated_files
from ai_response_logging.writer import BatchFileHandler

NAMES = [
    "20260101T000000.000000Z",
    "20260101T000000.000001Z.gz",
    "20260102T000000.000000Z",
    "20261231T235959.999999Z",
]
NOT_ROTATED = [
    "torn-20260101T000000.000000Z",
    "sealed-20260101T000000.000000Z",
    "1",
    "1.gz",
    "bak",
    "20260101",
    "journal",
]
LOGROTATES = ["-20260101", "-2026010103.backup", "-20260101.gz"]


def make_rotated(log: Path) -> list[str]:
    """Make rotated files and files that only look like them; return the paths of the first, oldest first."""
    for name in [*NAMES, *NOT_ROTATED]:
        log.with_name(f"{log.name}.{name}").write_bytes(b"x\n")
    for name in [*LOGROTATES, f"-{NAMES[0]}"]:
        log.with_name(log.name + name).write_bytes(b"x\n")
    log.with_name(f"other{log.name}.{NAMES[0]}").touch()
    return [f"{log}.{name}" for name in NAMES]


def put(handler: BatchFileHandler, *ids: str, size: int = 100) -> None:
    """Write one record for each id, one after the other."""
    for one in ids:
        handler.emit(logging.makeLogRecord({"msg": "m", "record_id": one, "response": "x" * size}))


@pytest.fixture
def small(log_path: Path) -> Iterator[BatchFileHandler]:
    """Make a writer that begins a new file past 1000 bytes."""
    made = BatchFileHandler(log_path, durability="memory", max_bytes=1000, retry_delay=0.001, max_retries=1)
    yield made
    made.close()


def test_rotation_is_a_rename_to_the_time(log_path: Path):
    """The file keeps its bytes and its inode under a name that readers know."""
    log_path.write_bytes(b"kept\n")
    inode = log_path.stat().st_ino

    target = Path(rotate(str(log_path)))

    assert not log_path.exists()
    assert (target.read_bytes(), target.stat().st_ino) == (b"kept\n", inode)
    assert re.match(ROTATED, target.name.removeprefix(f"{log_path.name}."))
    assert log_files(log_path) == [target]


@pytest.mark.parametrize("taken", ["", ".gz"])
@pytest.mark.parametrize("noted", [None, b"20251231T235959.000000Z"], ids=["nothing noted", "an older name noted"])
def test_rotation_never_takes_a_name_that_is_there(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, noted: bytes | None
):
    """No rotation within one tick of the clock, nor one beside a lock file from a backup, overwrites a file."""
    monkeypatch.setattr(_rotate, "utc_suffix", lambda: NAMES[0])
    earlier = Path(f"{log_path}.{NAMES[0]}{taken}")
    earlier.write_bytes(b"earlier\n")
    log_path.write_bytes(b"later\n")

    with log_path.with_name("lock").open("w+b", buffering=0) as lock_file:
        lock_file.write(noted or b"")
        target = rotate(str(log_path), lock_file=lock_file if noted else None)

    assert target == f"{log_path}.{NAMES[0][:-2]}1Z"
    assert earlier.read_bytes() == b"earlier\n"


def test_rotation_that_is_refused_changes_nothing(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The log stays where it is, as it is."""
    log_path.write_bytes(b"kept\n")

    def refuse(*_: str) -> None:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        rotate(str(log_path))

    assert os.listdir(log_path.parent) == [log_path.name]


def test_rotated_files_are_ours_alone_oldest_first(log_path: Path):
    """Torn, sealed, numbered and foreign files are not rotated ones, and never deleted as such."""
    assert rotated_files(str(log_path)) == []
    assert rotated_files(str(log_path)) == []
    expected = make_rotated(log_path)

    assert rotated_files(str(log_path)) == expected


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 9])
def test_retention_deletes_the_oldest_and_nothing_unless_told(log_path: Path, keep: int):
    """All but the newest so many go; 0 keeps all; what is no rotated file always stays."""
    files = make_rotated(log_path)
    others = set(os.listdir(log_path.parent)) - {os.path.basename(file) for file in files}
    kept = files[-keep:] if keep else files

    assert remove_surplus(str(log_path), Options(backup_count=keep)) == [file for file in files if file not in kept]
    assert rotated_files(str(log_path)) == kept
    assert others <= set(os.listdir(log_path.parent))


def test_retention_minds_no_file_that_another_process_deleted_first(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who is later finds nothing to delete, and that is fine."""
    files = make_rotated(log_path)
    unlink = os.unlink

    def another_is_quicker(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", another_is_quicker)
    remove_surplus(str(log_path), Options(backup_count=1))

    assert rotated_files(str(log_path)) == files[-1:]


# --- in the writer -------------------------------------------------------------------------------------------------


def test_writer_begins_a_new_file_before_the_line_that_does_not_fit(log_path: Path, small: BatchFileHandler):
    """No file grows past max_bytes, every record is in one of them, and each rotation is counted."""
    ids = [str(number) for number in range(20)]
    put(small, *ids)
    small.close()

    files = log_files(log_path)
    assert len(files) > 5
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert small.get_stats()["rotations"] == len(files) - 1
    assert [record["record_id"] for file in files for record in read_lines(file)] == ids


def test_backlog_is_spread_over_files_as_single_records_would_be(log_path: Path, small: BatchFileHandler):
    """A batch larger than a file is cut at line ends, one file after the other."""
    with small.batch():
        put(small, *map(str, range(20)))
    small.close()

    assert all(0 < file.stat().st_size <= 1000 for file in log_files(log_path))
    assert_all_there_once(log_path, map(str, range(20)))


def test_line_longer_than_a_file_stands_alone_in_one(log_path: Path, small: BatchFileHandler):
    """A record is never cut to fit: too long a one gets a file of its own."""
    put(small, "before")
    put(small, "long", size=5000)
    put(small, "after")
    small.close()

    assert [[record["record_id"] for record in read_lines(file)] for file in log_files(log_path)] == [
        ["before"], ["long"], ["after"],
    ]  # fmt: skip


def test_first_line_longer_than_a_file_leaves_no_empty_file_behind(log_path: Path, small: BatchFileHandler):
    """An empty log is never rotated."""
    put(small, "long", size=5000)
    small.close()

    assert log_files(log_path) == [log_path]


def test_writer_keeps_as_many_old_files_as_told(log_path: Path):
    """backup_count old files stay beside the log, the newest ones."""
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=1000, backup_count=2)
    put(handler, *map(str, range(20)))
    handler.close()

    files = log_files(log_path)
    assert len(files) == 3
    assert read_lines(log_path)[-1]["record_id"] == "19"
    kept = [int(record["record_id"]) for file in files for record in read_lines(file)]
    assert kept == list(range(kept[0], 20))


def test_without_max_bytes_nothing_is_rotated(log_path: Path):
    """The default never begins a new file."""
    handler = BatchFileHandler(log_path, durability="memory")
    put(handler, *map(str, range(20)), size=10_000)
    handler.close()

    assert log_files(log_path) == [log_path]


def test_two_writers_agree_on_rotations(log_path: Path):
    """Each notices that the other has begun a new file, and neither rotates a file that is not full."""
    writers = [BatchFileHandler(log_path, durability="memory", max_bytes=1000) for _ in range(2)]
    for number in range(20):
        for name, one in zip("ab", writers, strict=True):
            put(one, f"{name}{number}")
    for one in writers:
        one.close()

    files = log_files(log_path)
    assert sum(one.get_stats()["rotations"] for one in writers) == len(files) - 1
    assert all(500 < file.stat().st_size <= 1000 for file in files[:-1])
    assert_all_there_once(log_path, [f"{name}{number}" for name in "ab" for number in range(20)])


def test_rotation_that_is_refused_lets_the_old_file_grow(
    log_path: Path, small: BatchFileHandler, monkeypatch: pytest.MonkeyPatch
):
    """A directory in which nothing may be renamed costs rotation, never a record: the log goes on where it is."""
    rename = os.rename

    def refuse(*_: str) -> None:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    put(small, *map(str, range(10)))
    meanwhile = small.get_stats()
    refused = [json.loads(line)["record_id"] for line in log_path.read_bytes().splitlines()]
    monkeypatch.setattr(os, "rename", rename)
    put(small, "after")
    small.close()

    assert refused == [str(number) for number in range(10)]
    assert (meanwhile["pending"], meanwhile["rotations"]) == (0, 0)
    assert "refused" in str(meanwhile["last_error"])
    assert small.get_stats()["rotations"] == 1
    assert_all_there_once(log_path, [*map(str, range(10)), "after"])


def test_old_file_that_cannot_be_deleted_keeps_no_record_out(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Retention that is refused costs room on the disk, never a record or a retry."""
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=1000, backup_count=1, max_retries=0)

    def refuse(_: str) -> None:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for number in range(20):
        put(handler, str(number))
        assert handler.get_stats()["pending"] == 0
    monkeypatch.undo()
    handler.close()

    assert_all_there_once(log_path, map(str, range(20)))


def test_log_that_logrotate_renamed_is_awaited_from_it_for_a_moment(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A log that we made first it would move out of its way, under a name that it uses again within the hour."""
    handler = BatchFileHandler(log_path, durability="memory")
    put(handler, "a")
    log_path.rename(log_path.with_name(f"{log_path.name}.1"))
    made: list[int] = []

    class Clock:
        @staticmethod
        def sleep(_: float) -> None:
            made.append(os.open(log_path, os.O_CREAT | os.O_EXCL, 0o640))

        def __getattr__(self, name: str) -> object:
            return getattr(time, name)

    with monkeypatch.context() as patched:
        patched.setattr(_rotate, "time", Clock())
        put(handler, "b")
    handler.close()

    assert len(made) == 1
    assert os.fstat(made[0]).st_ino == log_path.stat().st_ino
    os.close(made[0])
    assert_all_there_once(log_path, "ab")
