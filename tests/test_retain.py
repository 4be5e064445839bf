from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, has_strace, log_files, run_child

from ai_response_logging import _rotate, read_log
from ai_response_logging._options import Options
from ai_response_logging._rotate import remove_surplus, rotated_files
from ai_response_logging.errors import ConfigError
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.writer import BatchFileHandler

DAY_S = 86_400
FOREIGN = [
    "torn-20200101T000000.000000Z",
    "sealed-20200101T000000.000000Z",
    "sealed-20200101T000000.000000Z.gz",
    "1",
    "2.gz",
    "bak",
    "20200101",
    "20200101T000000Z",
    "20200101T000000.000000Z.bak",
    "20200101T000000.000000Z.gz.part",
    "20200101T000000.000000Z.zst",
    "journal",
]


def stamp(days_ago: float) -> str:
    """Return the time so many days ago as a rotated file's name has it."""
    return _rotate.utc_suffix(time.time() - days_ago * DAY_S)


def make_old(log: Path, *days_ago: float, size: int = 1000, packed: bool = False) -> list[str]:
    """Make a rotated file of *size* bytes for each age in days; return their paths in this order."""
    files = [f"{log}.{stamp(days)}{'.gz' * packed}" for days in days_ago]
    for file in files:
        Path(file).write_bytes(b"x" * size)
    return files


def make_foreign(log: Path) -> set[str]:
    """Make files, links, directories and pipes that only look like rotated ones, all of them very old."""
    for name in FOREIGN:
        log.with_name(f"{log.name}.{name}").write_bytes(b"x" * 1000)
    log.with_name(f"other{log.name}.20200101T000000.000000Z").touch()
    log.with_name(f"{log.name}x.20200101T000000.000000Z").touch()
    log.with_name(f"{log.name}.20200102T000000.000000Z").mkdir()
    log.with_name(f"{log.name}.20200103T000000.000000Z").symlink_to(log.with_name(f"{log.name}.bak"))
    log.with_name(f"{log.name}.20200104T000000.000000Z").symlink_to("nowhere")
    os.mkfifo(log.with_name(f"{log.name}.20200105T000000.000000Z"))
    return set(os.listdir(log.parent))


def surplus(log: Path, **options: Any) -> list[str]:
    """Delete what is not to be kept, and return what stands no longer, oldest first."""
    before = rotated_files(str(log))
    deleted = remove_surplus(str(log), Options(**options))
    assert sorted(deleted) == [file for file in before if file not in rotated_files(str(log))]
    return deleted


def put(handler: BatchFileHandler, *ids: str, size: int = 100) -> None:
    """Write one record for each id, one after the other."""
    for one in ids:
        handler.emit(logging.makeLogRecord({"msg": "m", "record_id": one, "response": "x" * size}))


def ids_in(log: Path) -> list[str]:
    """Return the records of all files, oldest first."""
    return [record["record_id"] for record in read_log(log)]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_nothing_is_ever_deleted_unless_told(log_path: Path):
    """All three are off by default: files of any number, age and size stay, and the directory is not even read."""
    log_path.write_bytes(b"x" * 10_000)
    files = make_old(log_path, *range(3000, 0, -100))

    assert (Options().backup_count, Options().retain_days, Options().max_total_bytes) == (0, 0, 0)
    assert surplus(log_path) == []
    assert remove_surplus("/nowhere/at/all", Options()) == []
    assert rotated_files(str(log_path)) == files


def test_writer_with_defaults_deletes_nothing_however_often_it_rotates(log_path: Path):
    """Rotation alone, by size or by time, with or without compression, keeps every record there ever was."""
    ids = [f"{compress}-{number}" for compress in (False, True) for number in range(60)]
    files = make_old(log_path, 4000, 3000)
    for compress in (False, True):
        handler = BatchFileHandler(
            log_path, durability="memory", max_bytes=1000, when="S", interval=100, compress=compress
        )
        put(handler, *(one for one in ids if one.startswith(str(compress))))
        handler.close()

    assert all(os.path.exists(f"{file}.gz") for file in files)
    for file in files:
        os.unlink(f"{file}.gz")
    assert len(log_files(log_path)) > 30
    assert_all_there_once(log_path, ids)


@pytest.mark.parametrize("days", [0.5, 1, 7, 30, 4000, 100_000])
def test_age_alone_keeps_what_was_rotated_within_the_days(log_path: Path, days: float):
    """A file goes when it was rotated longer ago than that, however many there are, and by its name alone."""
    files = make_old(log_path, 5000, 30.1, 29.9, 7.01, 6.99, 1.01, 0.99, 0.51, 0.49, 0)
    for file in files:
        os.utime(file, (0, 0))
    ages = [5000, 30.1, 29.9, 7.01, 6.99, 1.01, 0.99, 0.51, 0.49, 0]

    assert surplus(log_path, retain_days=days) == [file for file, age in zip(files, ages, strict=True) if age > days]


@pytest.mark.parametrize(("most", "kept"), [(1, 0), (1499, 0), (1500, 1), (2499, 1), (2500, 2), (5500, 5), (9999, 5)])
def test_size_alone_keeps_the_newest_that_fit_together_with_the_live_file(log_path: Path, most: int, kept: int):
    """The live file is never deleted, and counts; then the newest, as long as all fit."""
    log_path.write_bytes(b"x" * 500)
    files = make_old(log_path, 5, 4, 3, 2, 1)

    assert surplus(log_path, max_total_bytes=most) == files[: 5 - kept]
    assert log_path.stat().st_size == 500


def test_size_leaves_room_for_the_live_file_to_grow(log_path: Path):
    """With `max_bytes` the live file counts as full, so that the limit holds until the next rotation as well."""
    log_path.write_bytes(b"x")
    files = make_old(log_path, 5, 4, 3, 2, 1)

    assert surplus(log_path, max_total_bytes=4000, max_bytes=2000) == files[:3]


def test_size_counts_compressed_files_as_they_lie_on_the_disk(log_path: Path):
    """What compression saves is room for more files."""
    log_path.write_bytes(b"x" * 100)
    plain = make_old(log_path, 9, 8)
    packed = make_old(log_path, 7, 6, 5, size=100, packed=True)

    assert surplus(log_path, max_total_bytes=1400) == plain[:1]
    assert surplus(log_path, max_total_bytes=300) == [plain[1], packed[0]]


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"backup_count": 2, "retain_days": 4.5, "max_total_bytes": 4500}, 4),
        ({"backup_count": 4, "retain_days": 2.5, "max_total_bytes": 4500}, 4),
        ({"backup_count": 4, "retain_days": 4.5, "max_total_bytes": 2500}, 4),
        ({"backup_count": 5, "retain_days": 4.5}, 2),
        ({"backup_count": 3, "retain_days": 100}, 3),
        ({"backup_count": 3, "max_total_bytes": 100_000}, 3),
        ({"retain_days": 100, "max_total_bytes": 1500}, 5),
        ({"backup_count": 100, "retain_days": 100, "max_total_bytes": 100_000}, 0),
    ],
)
def test_together_the_strictest_decides(log_path: Path, options: dict[str, float], gone: int):
    """A file stays only if count, age and size all let it."""
    log_path.write_bytes(b"x" * 500)
    files = make_old(log_path, 6, 5, 4, 3, 2, 1)

    assert surplus(log_path, **options) == files[:gone]


@pytest.mark.parametrize("options", [{"backup_count": 1}, {"retain_days": 0.001}, {"max_total_bytes": 1}])
def test_foreign_files_are_never_deleted(log_path: Path, options: dict[str, float]):
    """Torn and sealed files, numbered ones, other names, directories, links and pipes stay, whatever is set."""
    log_path.write_bytes(b"x" * 500)
    foreign = make_foreign(log_path)
    files = make_old(log_path, 3, 2)

    gone = files[:1] if "backup_count" in options else files
    assert surplus(log_path, **options) == gone
    assert foreign <= set(os.listdir(log_path.parent))
    assert log_path.with_name(f"{log_path.name}.bak").read_bytes() == b"x" * 1000


def test_foreign_files_do_not_count(log_path: Path):
    """What is not ours takes no place of a file that is to be kept, neither by number nor by size."""
    log_path.write_bytes(b"x" * 500)
    make_foreign(log_path)
    make_old(log_path, 3, 2)

    assert surplus(log_path, backup_count=2, max_total_bytes=2500) == []


@pytest.mark.parametrize("both", [0, 1, 2])
def test_file_that_stands_plain_and_compressed_counts_once(log_path: Path, both: int):
    """In the middle of a compression, or after a kill there, no other file is deleted one too early."""
    files = make_old(log_path, 3, 2, 1)
    Path(f"{files[both]}.gz").write_bytes(b"x")

    assert surplus(log_path, backup_count=3) == []
    gone = surplus(log_path, backup_count=2)
    assert gone == ([files[0], f"{files[0]}.gz"] if both == 0 else files[:1])


@pytest.mark.parametrize("options", [{"backup_count": 1}, {"retain_days": 1.5}, {"max_total_bytes": 1600}])
def test_file_that_cannot_be_deleted_keeps_no_other(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, float]
):
    """One old file that may not be deleted does not keep all younger ones on the disk; the error is told."""
    log_path.write_bytes(b"x" * 500)
    files = make_old(log_path, 4, 3, 2, 1)
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path == files[0]:
            raise PermissionError(errno.EPERM, "refused", path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError, match="refused"):
        remove_surplus(str(log_path), Options(**options))
    monkeypatch.undo()

    assert rotated_files(str(log_path)) == [files[0], files[-1]]


@pytest.mark.parametrize(
    ("option", "value"),
    [("backup_count", -1), ("backup_count", 1.5), ("retain_days", -0.1), ("retain_days", "a week"),
     ("retain_days", float("nan")), ("max_total_bytes", -5), ("max_total_bytes", "1 GB"), ("backup_count", True)],
)  # fmt: skip
def test_limit_that_makes_no_sense_is_refused_when_it_is_set(option: str, value: object):
    """What would delete more, or less, than somebody meant is an error that names the option."""
    with pytest.raises(ConfigError, match=option):
        Options(**{option: value})


# --- in the writer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("keep", [1, 3, 10])
def test_writer_keeps_exactly_the_newest_files(log_path: Path, keep: int, compress: bool):
    """Beside the live file so many stay, and they hold the last records without a gap."""
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=1000, backup_count=keep, compress=compress)
    put(handler, *map(str, range(100)))
    handler.close()

    assert len(log_files(log_path)) == keep + 1
    kept = [int(one) for one in ids_in(log_path)]
    assert kept == list(range(kept[0], 100))


def test_writer_keeps_the_whole_log_below_its_size(log_path: Path):
    """After each record all files together are within `max_total_bytes`."""
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=1000, max_total_bytes=5000)
    for number in range(100):
        put(handler, str(number))
        assert sum(file.stat().st_size for file in log_files(log_path)) <= 5000
    handler.close()

    assert len(log_files(log_path)) >= 4
    kept = [int(one) for one in ids_in(log_path)]
    assert kept == list(range(kept[0], 100))


def test_writer_deletes_what_has_grown_old_since_it_was_rotated(log_path: Path):
    """Files of an earlier process go when they are too old; those of today stay, however many."""
    files = make_old(log_path, 40, 31, 29, 1)
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=1000, retain_days=30)
    put(handler, *map(str, range(30)))
    handler.close()

    assert rotated_files(str(log_path))[:2] == files[2:]
    assert not os.path.exists(files[1])
    for file in files[2:]:
        os.unlink(file)
    assert_all_there_once(log_path, map(str, range(30)))


def test_limits_set_later_are_kept_from_the_next_opening_on(log_path: Path):
    """Whoever turns a limit on does not wait for a rotation until it holds."""
    files = make_old(log_path, *range(9, 0, -1))
    handler = AIResponseHandler(log_path, durability="memory", backup_count=2)
    handler.submit_fields({"record_id": "one"})
    handler.close()

    assert rotated_files(str(log_path)) == files[-2:]
    assert ids_in(log_path)[-1:] == ["one"]


def test_live_file_is_never_deleted_however_small_the_limits(log_path: Path):
    """Limits that nothing fits into leave the live file, whole."""
    handler = BatchFileHandler(
        log_path, durability="memory", max_bytes=1000, backup_count=1, retain_days=1e-9, max_total_bytes=1
    )
    put(handler, *map(str, range(30)))
    handler.close()

    assert log_files(log_path) == [log_path]
    assert ids_in(log_path)[-1] == "29"


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOENT])
def test_directory_that_cannot_be_listed_costs_no_record(log_path: Path, monkeypatch: pytest.MonkeyPatch, error: int):
    """Who cannot see the old files deletes and compresses none; records go on, without a retry, and it is told."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = BatchFileHandler(
        log_path, durability="memory", max_bytes=1000, backup_count=1, compress=True, max_retries=0
    )
    scandir = os.scandir

    def refuse(directory: str) -> object:
        if str(directory) == str(log_path.parent):
            raise OSError(error, os.strerror(error), directory)
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", refuse)
    for number in range(20):
        put(handler, str(number))
        assert handler.get_stats()["pending"] == 0
    stats = handler.get_stats()
    monkeypatch.undo()

    assert (stats["written"], stats["failed"], stats["retried"]) == (20, 0, 0)
    assert os.strerror(error) in str(stats["last_error"])
    assert_all_there_once(log_path, map(str, range(20)))
    monkeypatch.setattr(logging, "raiseExceptions", False)
    put(handler, *map(str, range(20, 30)))
    handler.close()
    assert len(log_files(log_path)) == 2


@has_strace
@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "EACCES", "ENOMEM"])
def test_kernel_that_lists_no_directory_costs_no_record(log_path: Path, tmp_path: Path, error: str):
    """The same with the real call refused, in a process with a listener: all is there at its end."""
    code = """
    import json, logging, sys
    from ai_response_logging.handler import AIResponseHandler
    logging.raiseExceptions = False
    handler = AIResponseHandler(sys.argv[1], durability="memory", max_bytes=1000, backup_count=1, compress=True)
    for number in range(20):
        handler.submit_fields({"record_id": str(number), "response": "x" * 100})
        handler.flush()
    handler.close()
    print(json.dumps(handler.get_stats()))
    """
    trace = tmp_path / "trace"
    wrap = ["-qq", "-f", "-o", str(trace), "-P", str(log_path.parent)]
    wrap += ["-e", "trace=getdents64", "-e", f"inject=getdents64:error={error}"]
    done = run_child(code, log_path, python="strace", options=[*wrap, sys.executable])

    stats = json.loads(done.stdout)
    assert trace.read_text().count("(INJECTED)") >= 1
    assert (stats["written"], stats["pending"], stats["failed"]) == (20, 0, 0)
    assert stats["last_error"]
    assert_all_there_once(log_path, map(str, range(20)))


def test_file_that_another_process_begins_while_we_look_is_not_missed_for_long(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A list of files that is old when it is used deletes nothing that a newer one would keep."""
    files = make_old(log_path, 5, 4, 3)
    names = _rotate._names_behind

    def another_rotates(path: str) -> list[str]:
        seen = names(path)
        if len(files) == 3:
            files.extend(make_old(log_path, 2, 1))
        return seen

    monkeypatch.setattr(_rotate, "_names_behind", another_rotates)

    assert remove_surplus(str(log_path), Options(backup_count=2)) == files[:1]
    assert remove_surplus(str(log_path), Options(backup_count=2)) == files[1:3]
    assert rotated_files(str(log_path)) == files[3:]


def test_two_writers_that_delete_at_once_keep_what_each_of_them_would(log_path: Path):
    """Both rotate and both delete: at the end exactly the newest files are there."""
    writers = [BatchFileHandler(log_path, durability="memory", max_bytes=1000, backup_count=3) for _ in range(2)]
    for number, one in zip(range(200), itertools.cycle(writers), strict=False):
        put(one, str(number))
        assert len(log_files(log_path)) <= 4
    for one in writers:
        one.close()

    kept = [int(one) for one in ids_in(log_path)]
    assert len(log_files(log_path)) == 4
    assert Counter(kept) == Counter(range(kept[0], 200))
