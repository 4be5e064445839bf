"""The newest records of a log and those that come: :mod:`ai_response_logging.follow`."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, compress_late_files, log_files

from ai_response_logging import follow
from ai_response_logging._followed import lines_backward
from ai_response_logging.errors import LogReadError
from ai_response_logging.follow import Follower

WRITER = """
    import logging, sys
    from ai_response_logging import AIResponseHandler
    log, first, count, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
    logger = logging.getLogger("ai_responses")
    logger.addHandler(AIResponseHandler(filename=log, **options))
    logger.setLevel("INFO")
    for number in range(first, first + count):
        logger.info("m", extra={"record_id": str(number), "response": "x" * 300})
        if number % 50 == 0:
            print(number, flush=True)
    print("all", flush=True)
    sys.stdin.readline()
"""


def line(seq: int, writer: str = "w", **fields: Any) -> bytes:
    """Return one whole line."""
    record = {"schema_version": "1.0", "record_id": f"{writer}{seq}", "unix_timestamp": 1e9 + seq, **fields}
    body = json.dumps(record).encode()[:-1] + b',"writer_id":"%b","seq":%d' % (writer.encode(), seq)
    return b'%b,"checksum":"%08x"}\n' % (body, zlib.crc32(body))


def lines(*numbers: int) -> bytes:
    """Return so many lines."""
    return b"".join(line(number) for number in numbers)


def ids(records: Any) -> list[str]:
    """Return the ids of *records*."""
    return [record["record_id"] for record in records]


def names(*numbers: int) -> list[str]:
    """Return the ids of lines with these numbers."""
    return [f"w{number}" for number in numbers]


def anything(_record: object) -> bool:
    """Want every record."""
    return True


def rotated(path: Path, number: int) -> Path:
    """Return the name of a file that was rotated away as the *number*-th."""
    return path.with_name(f"{path.name}.20260101T000000.{number:06d}Z")


@pytest.fixture
def follower(log_path: Path) -> Iterator[Follower]:
    """Follow the test's log, and fail on anything that cannot be read."""

    def complain(*what: object) -> None:
        raise AssertionError(what)

    with Follower(log_path, complain) as one:
        yield one


def begin(follower: Follower, path: Path, *numbers: int) -> None:
    """Write a log and begin to follow it."""
    path.write_bytes(lines(*numbers))
    assert ids(follower.newest(100, anything)) == names(*numbers)


# --- the newest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 7, 100])
def test_newest_come_from_as_many_files_as_it_takes(log_path: Path, follower: Follower, count: int):
    """
    The last N records over rotated, compressed and live files, in order.
    """
    rotated(log_path, 1).with_suffix(".000001Z.gz").write_bytes(gzip.compress(lines(0, 1, 2)))
    rotated(log_path, 2).write_bytes(lines(3, 4))
    log_path.write_bytes(lines(5, 6))

    assert ids(follower.newest(count, anything)) == (names(*range(7))[-count:] if count else [])


def test_newest_that_match_are_looked_for_as_far_back_as_they_are(log_path: Path, follower: Follower):
    """
    What does not match counts for nothing.
    """
    log_path.write_bytes(lines(*range(2000)))

    assert ids(follower.newest(2, lambda record: record["seq"] % 900 == 0)) == names(900, 1800)


def test_few_of_a_large_log_read_only_its_end(log_path: Path, follower: Follower):
    """
    Ten records of a log of any size are read at once.
    """
    log_path.write_bytes(lines(*range(20_000)))
    read: list[int] = []
    follower.newest(10, anything, lambda done, _total: read.append(done))

    assert len(read) == 10


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_lines_are_found_backward_whatever_their_length(tmp_path: Path, size: int):
    """
    A piece boundary within, before or behind a line changes nothing; what has no newline is left out.
    """
    path = tmp_path / "file"
    expected = [b"a" * size + b"\n", b"\n", b"b\n", b"c" * 70_000 + b"\n"]
    path.write_bytes(b"".join(expected) + b"unfinished")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = [*lines_backward(descriptor, path.stat().st_size)]
    finally:
        os.close(descriptor)

    assert [one for _, one in reversed(found)] == expected
    assert [at for at, _ in reversed(found)] == [0, size + 1, size + 2, size + 4]


def test_files_compressed_before_they_are_opened_are_read_as_what_they_are(
    log_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
):
    """Both when the newest are looked for and when many have come since."""
    done = compress_late_files(monkeypatch)
    rotated(log_path, 1).write_bytes(lines(1, 2))
    rotated(log_path, 2).write_bytes(lines(3))
    log_path.write_bytes(lines(4))
    assert ids(follower.newest(100, anything)) == names(1, 2, 3, 4)
    log_path.rename(rotated(log_path, 3))
    rotated(log_path, 4).write_bytes(lines(5, 6))
    rotated(log_path, 5).write_bytes(lines(7))
    log_path.write_bytes(lines(8))

    assert ids(follower.look()) == names(5, 6, 7, 8)
    assert len(done) == 4


def test_log_that_is_no_file_is_an_error(tmp_path: Path):
    """
    A directory at the log's path is said at once.
    """
    with Follower(tmp_path) as follower, pytest.raises(LogReadError):
        follower.newest(1, anything)


# --- what comes ------------------------------------------------------------------------------------------------


def test_what_is_appended_comes_once_and_whole(log_path: Path, follower: Follower):
    """
    A line counts when its newline is there, however many writes it takes.
    """
    begin(follower, log_path, 0)
    with log_path.open("ab", buffering=0) as file:
        file.write(line(1)[:20])
        assert ids(follower.look()) == []
        file.write(line(1)[20:] + line(2))
        assert ids(follower.look()) == names(1, 2)
        assert ids(follower.look()) == []


def test_log_that_does_not_exist_yet_is_waited_for(log_path: Path):
    """
    Nor need its directory.
    """
    path = log_path.parent / "later" / "log.jsonl"
    with Follower(path) as follower:
        assert follower.newest(5, anything) == []
        assert ids(follower.look()) == []
        path.parent.mkdir()
        path.write_bytes(lines(0, 1))
        assert ids(follower.look()) == names(0, 1)


def test_log_that_is_rotated_while_its_newest_are_looked_for_is_followed_all_the_same(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another file stands under its name before it is opened for good: it is the one that was listed that counts."""
    log_path.write_bytes(lines(0, 1))
    real, done = follow.FollowedFile, []

    def opened(*arguments: Any) -> Any:
        if not done:
            done.append(log_path.rename(rotated(log_path, 1)))
            log_path.write_bytes(lines(2))
        return real(*arguments)

    monkeypatch.setattr(follow, "FollowedFile", opened)
    with Follower(log_path) as follower:
        assert ids(follower.newest(10, anything)) == names(0, 1)
        assert ids(follower.look()) == names(2)
        assert ids(follower.look()) == []
    assert done


@pytest.mark.parametrize("compressed", [(), (1,), (1, 2, 3)])
def test_many_rotations_between_two_looks_lose_and_double_nothing(
    log_path: Path, follower: Follower, compressed: tuple[int, ...]
):
    """
    What was still unread of the old file, the files in between, compressed or not, then the log of now.
    """
    begin(follower, log_path, 0, 1)
    with log_path.open("ab") as file:
        file.write(lines(2))
    for number in (1, 2, 3):
        log_path.rename(rotated(log_path, number))
        log_path.write_bytes(lines(2 * number + 1, 2 * number + 2))
    for number in compressed:
        old = rotated(log_path, number)
        old.with_name(f"{old.name}.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()

    assert ids(follower.look()) == names(*range(2, 9))
    assert ids(follower.look()) == []


def test_old_files_compressed_and_deleted_later_are_not_shown_again(log_path: Path, follower: Follower):
    """
    A file that was followed stays known under its compressed name.
    """
    begin(follower, log_path, 0)
    for number in range(1, 5):
        log_path.rename(rotated(log_path, number))
        log_path.write_bytes(lines(number))
        assert ids(follower.look()) == names(number)
        old = rotated(log_path, max(1, number - 1))
        if old.exists():
            old.with_name(f"{old.name}.gz").write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()
        assert ids(follower.look()) == []


def test_files_with_numbers_for_names_are_known_when_they_get_the_next_one(log_path: Path, follower: Follower):
    """
    concurrent-log-handler and logrotate shift names: a file is itself, whatever it is called.
    """
    for number in (1, 2):
        log_path.with_name(f"{log_path.name}.{number}").write_bytes(lines(10 - number))
    log_path.write_bytes(lines(10))
    assert ids(follower.newest(9, anything)) == names(8, 9, 10)
    for turn in range(11, 14):
        for number in (turn - 9, turn - 10, turn - 11)[: turn - 8]:
            source = log_path.with_name(f"{log_path.name}.{number}")
            if source.exists():
                source.rename(log_path.with_name(f"{log_path.name}.{number + 1}"))
        log_path.rename(log_path.with_name(f"{log_path.name}.1"))
        log_path.write_bytes(lines(turn))
        assert ids(follower.look()) == names(turn)


def test_emptied_log_goes_on_from_its_beginning(log_path: Path, follower: Follower):
    """
    As after logrotate's copytruncate, also when it has grown past its old length since.
    """
    begin(follower, log_path, 0, 1)
    os.truncate(log_path, 0)
    assert ids(follower.look()) == []
    with log_path.open("ab") as file:
        file.write(lines(2, 3, 4, 5))
    assert ids(follower.look()) == names(2, 3, 4, 5)
    os.truncate(log_path, 0)
    with log_path.open("ab") as file:
        file.write(lines(*range(6, 16)))
    assert ids(follower.look()) == names(*range(6, 16))


def test_log_cut_back_to_whole_lines_shows_none_of_them_again(log_path: Path, follower: Follower):
    """
    A writer cuts off what it could not append whole.
    """
    begin(follower, log_path, 0, 1)
    with log_path.open("ab") as file:
        file.write(line(2) + line(3)[:30])
    assert ids(follower.look()) == names(2)
    os.truncate(log_path, len(lines(0, 1, 2)))
    with log_path.open("ab") as file:
        file.write(line(3))
    assert ids(follower.look()) == names(3)


def test_log_cut_back_behind_what_was_shown_goes_on_from_there(log_path: Path, follower: Follower):
    """
    A writer whose sync failed cuts whole lines off, too; what comes in their place is shown.
    """
    begin(follower, log_path, 0, 1)
    with log_path.open("ab") as file:
        file.write(lines(2, 3))
    assert ids(follower.look()) == names(2, 3)
    os.truncate(log_path, len(lines(0, 1)))
    assert ids(follower.look()) == []
    with log_path.open("ab") as file:
        file.write(lines(4))
    assert ids(follower.look()) == names(4)


@pytest.mark.parametrize("is_seen_between", [True, False])
def test_log_removed_and_made_anew_is_read_from_its_beginning(
    log_path: Path, follower: Follower, is_seen_between: bool
):
    """
    Whether or not somebody looked while there was none.
    """
    begin(follower, log_path, 0, 1)
    log_path.unlink()
    if is_seen_between:
        assert ids(follower.look()) == []
    log_path.write_bytes(lines(2, 3))
    assert ids(follower.look()) == names(2, 3)


def test_log_replaced_by_a_copy_without_some_lines_shows_only_what_is_new(log_path: Path, follower: Follower):
    """
    `forget` writes the log anew; what was shown of it is not shown once more.
    """
    begin(follower, log_path, *range(6))
    copy = log_path.with_name("copy")
    copy.write_bytes(lines(0, 1, 3, 4) + line(0, "receipt") + lines(6))
    copy.replace(log_path)

    assert ids(follower.look()) == ["receipt0", "w6"]


def test_lines_that_cannot_be_read_are_told_and_passed_over(log_path: Path):
    """
    Where and why; the next record comes all the same.
    """
    told: list[tuple[str, int, str]] = []
    log_path.write_bytes(lines(0))
    with Follower(log_path, lambda *what: told.append(what)) as follower:
        follower.newest(1, anything)
        with log_path.open("ab") as file:
            file.write(b"hello\n" + lines(1))
        assert ids(follower.look()) == names(1)

    assert [(file, at) for file, at, _ in told] == [(str(log_path), len(lines(0)))]


def test_look_at_a_quiet_log_opens_nothing(log_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch):
    """
    Waiting is cheap: no file is opened, and the directory is not listed, while nothing happens.
    """
    begin(follower, log_path, 0, 1)
    assert ids(follower.look()) == []

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("it was opened again")

    with monkeypatch.context() as patched:
        patched.setattr("ai_response_logging.follow.LogSnapshot", refuse)
        patched.setattr(os, "scandir", refuse)
        patched.setattr(os, "pread", refuse)
        assert ids(follower.look()) == []


# --- journals and living writers ---------------------------------------------------------------------------------


def journal(path: Path, writer: str, numbers: list[int], consumed: int = 0) -> None:
    """Write the journal of a writer who is gone."""
    from ai_response_logging._journal_format import Mark, lock_name, mark_name, segment_name

    directory = Path(f"{path}.journal")
    directory.mkdir(exist_ok=True)
    (directory / lock_name(writer)).touch()
    _, slot = Mark(0, consumed, None).slot()
    (directory / mark_name(writer)).write_bytes(slot)
    (directory / segment_name(writer, numbers[0])).write_bytes(b"".join(line(one, writer) for one in numbers))


def test_what_is_in_journals_is_shown_once(log_path: Path, follower: Follower):
    """
    At the beginning, when it comes into the journal, and not again when it has arrived in the log.
    """
    log_path.write_bytes(lines(0))
    journal(log_path, "v", [0, 1])
    assert sorted(ids(follower.newest(9, anything))) == ["v0", "v1", "w0"]
    journal(log_path, "v", [0, 1, 2, 3])
    assert ids(follower.look()) == ["v2", "v3"]
    with log_path.open("ab") as file:
        file.write(b"".join(line(number, "v") for number in range(5)))
    journal(log_path, "v", [0, 1, 2, 3, 4])
    assert ids(follower.look()) == ["v4"]
    with log_path.open("ab") as file:
        file.write(line(4, "v"))
    assert ids(follower.look()) == ["v4"], "doubled in the log itself: shown, never hidden"


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(60)
@pytest.mark.parametrize("compress", [False, True])
def test_living_writers_over_twenty_rotations_lose_and_double_nothing(log_path: Path, compress: bool):
    """
    Two processes write while we follow; each record comes once, those of each in their order.
    """
    options = repr({"max_bytes": 20_000, "compress": compress, "batch_size": 7, "flush_interval": 0.05})
    seen: list[str] = []
    with (
        Follower(log_path) as follower,
        child_process(WRITER, log_path, 0, 1000, options) as one,
        child_process(WRITER, log_path, 1000, 1000, options) as other,
    ):
        seen += ids(follower.newest(10_000, anything))
        while len(seen) < 2000:
            seen += ids(follower.look())
            if one.poll() is not None or other.poll() is not None:
                break
        for process in (one, other):
            process.communicate("\n", timeout=20)
            assert process.returncode == 0
        seen += ids(follower.look())

    assert len(log_files(log_path)) > 20
    assert [one for one, count in Counter(seen).items() if count != 1] == []
    assert sorted(map(int, seen)) == list(range(2000))


def test_older_shapes_come_as_records_of_today(tmp_path: Path) -> None:
    """A log of many years is followed like any other: a nested line comes flat."""
    log = tmp_path / "log.jsonl"
    old = {"version": "2.0", "timestamp": "2026-01-01T00:00:00", "unix_timestamp": 1767225600.0}
    old |= {"question": {"text": "q"}, "response": {"text": "r"}, "platform": {"name": "p", "model": "m"}}
    log.write_text(json.dumps(old) + "\n")
    with Follower(str(log)) as follower:
        [record] = follower.newest(1, lambda record: record.get("model") == "m")
    assert (record["question"], record["response"], record["platform"]) == ("q", "r", "p")
