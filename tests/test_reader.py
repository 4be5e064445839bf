"""Any log as flat records: which files belong to it, in which order, and what a bad line does to the others."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Callable
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from helpers import run_child

from ai_response_logging import _snapshot, reader
from ai_response_logging._journal import Journal
from ai_response_logging._options import Options
from ai_response_logging._shapes import to_original
from ai_response_logging.errors import LogReadError
from ai_response_logging.filters import Filters
from ai_response_logging.reader import BadLine, LogSnapshot, log_files, parse_line, read_log
from ai_response_logging.record import seal, tail_of
from ai_response_logging.verify import verify_log

EARLY, LATE = "20260101T000000.000001Z", "20260102T000000.000000Z"


def write_ids(path: Path, *ids: str) -> None:
    """Write a file of one small record for each id, compressed where the name says so."""
    data = b"".join(json.dumps({"record_id": one}).encode() + b"\n" for one in ids)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def ids_in(path: Path) -> list[str]:
    """Return the record_ids of a log in the order in which they are read."""
    return [record["record_id"] for record in read_log(path)]


def names_of(path: Path) -> list[str]:
    """Return the names of the log's files without their folder."""
    return [os.path.basename(file) for file in log_files(path)]


# --- which files -----------------------------------------------------------------------------------------------


def test_log_with_all_kinds_of_files_is_found_oldest_first(log_path: Path):
    """
    Numbered files come first, the highest number before the lower, then by their time, then the live file.
    """
    expected = [
        f"{log_path.name}.10",
        f"{log_path.name}.2.gz",
        f"{log_path.name}.1",
        f"{log_path.name}.{EARLY}.gz",
        f"{log_path.name}.sealed-20260101T120000.000000Z",
        f"{log_path.name}.{LATE}",
        log_path.name,
    ]
    for name in reversed(expected):
        write_ids(log_path.with_name(name), name)

    assert names_of(log_path) == expected
    assert ids_in(log_path) == expected


@pytest.mark.parametrize(
    "name",
    [
        f"ai_responses.jsonl.torn-{EARLY}",
        ".__ai_responses.lock",
        ".__ai_responses.jsonl.lock",
        "ai_responses.jsonl.bak",
        "ai_responses.jsonl.1.tmp",
        "ai_responses.jsonl.gz",
        f"ai_responses.jsonl.{EARLY}.gz.part",
        "other_ai_responses.jsonl",
        "ai_responses_jsonl",
    ],
)
def test_file_beside_the_log_is_not_read(log_path: Path, name: str):
    """
    Torn tails, locks and other people's files are no part of a log.
    """
    write_ids(log_path, "mine")
    write_ids(log_path.with_name(name), "other")

    assert names_of(log_path) == [log_path.name]


def test_journal_directory_and_fifo_beside_the_log_are_not_read(log_path: Path):
    """
    Only regular files are read, and nobody waits for the writer of a pipe.
    """
    write_ids(log_path, "mine")
    log_path.with_name(f"{log_path.name}.journal").mkdir()
    log_path.with_name(f"{log_path.name}.2").mkdir()
    os.mkfifo(log_path.with_name(f"{log_path.name}.1"))

    assert names_of(log_path) == [log_path.name]


@pytest.mark.parametrize("suffix", [EARLY, "1", f"sealed-{EARLY}"])
def test_compression_cut_short_by_a_kill_reads_the_plain_file(log_path: Path, suffix: str):
    """
    Where a file stands plain and as .gz, the .gz may be half of it: the plain one is read, and read once.
    """
    write_ids(log_path.with_name(f"{log_path.name}.{suffix}"), "a", "b")
    write_ids(log_path.with_name(f"{log_path.name}.{suffix}.gz"), "a")
    write_ids(log_path, "c")

    assert ids_in(log_path) == ["a", "b", "c"]


def test_rotated_files_without_a_live_one_are_a_log(log_path: Path):
    """
    Just after a rotation there may be no live file yet; the records are there all the same.
    """
    write_ids(log_path.with_name(f"{log_path.name}.{EARLY}"), "a")

    assert ids_in(log_path) == ["a"]


def test_compressed_file_named_itself_is_read(log_path: Path):
    """
    One rotated file can be looked at alone, by its own name.
    """
    alone = log_path.with_name(f"{log_path.name}.{EARLY}.gz")
    write_ids(alone, *(f"{number:0500}" for number in range(50)))
    write_ids(log_path, "b")

    assert len(ids_in(alone)) == 50


def test_name_with_pattern_characters_is_taken_literally(tmp_path: Path):
    """
    A base name is a name, not a pattern.
    """
    write_ids(tmp_path / "a[1]+.jsonl", "mine")
    write_ids(tmp_path / "a1.jsonl.1", "other")
    write_ids(tmp_path / "a[1]+.jsonl.1", "older")

    assert ids_in(tmp_path / "a[1]+.jsonl") == ["older", "mine"]


def test_log_without_an_argument_is_the_one_of_the_environment(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    AI_RESPONSES_FILE says where the log is when nobody else does.
    """
    write_ids(log_path, "a")
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))

    assert [record["record_id"] for record in read_log()] == ["a"]


# --- what cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.mkdir(), os.mkfifo])
def test_no_log_at_the_path_is_one_clear_error(log_path: Path, make: object):
    """
    Nothing there, a directory, a pipe: each is a LogReadError that names the path, at the first record asked for.
    """
    make(log_path)  # type: ignore[operator]
    records = read_log(log_path)

    with pytest.raises(LogReadError, match=log_path.name) as caught:
        next(records)
    assert caught.value.path == str(log_path)


def test_missing_directory_is_a_log_read_error(tmp_path: Path):
    """
    A wrong folder is the same clear error as a wrong name.
    """
    with pytest.raises(LogReadError, match="there is no such file"):
        list(read_log(tmp_path / "nowhere" / "log.jsonl"))


def test_empty_log_has_no_records(log_path: Path):
    """
    A file of no bytes is a log, and no error.
    """
    log_path.touch()

    assert list(read_log(log_path)) == []


def test_bad_lines_are_located_and_all_others_read(log_path: Path):
    """
    One bad line costs one line, and on_bad hears where it stood and why.
    """
    lines = [b'{"record_id":"a"}', b"hello", b"", b"[1]", b'{"x":NaN}', b'{"x":"\xff"}', b'{"record_id":"b"}', b'{"rec']
    log_path.write_bytes(b"\n".join(lines) + b"\n")
    bad: list[BadLine] = []

    found = [record["record_id"] for record in read_log(log_path, on_bad=bad.append)]

    assert found == ["a", "b"]
    assert [one.line for one in bad] == [2, 3, 4, 5, 6, 8]
    assert [one.offset for one in bad] == [sum(len(line) + 1 for line in lines[: one.line - 1]) for one in bad]
    assert all(one.file == str(log_path) and one.reason for one in bad)
    assert "blank" in bad[1].reason
    assert "list" in bad[2].reason
    assert "UTF-8 from byte 6" in bad[4].reason


def test_last_line_that_a_writer_has_not_finished_is_no_bad_line(log_path: Path):
    """
    Reading beside a living writer, what it has not ended yet is neither a record nor an error.
    """
    log_path.write_bytes(b'{"record_id":"a"}\n{"record_id":"b')

    assert list(read_log(log_path, on_bad=pytest.fail)) == [{"record_id": "a"}]


def test_rotated_file_with_a_cut_last_line_has_a_bad_line(log_path: Path):
    """
    Nobody will finish a line in a file that was rotated away.
    """
    rotated = log_path.with_name(f"{log_path.name}.{EARLY}")
    rotated.write_bytes(b'{"record_id":"a"}\n{"record_id":"b')
    write_ids(log_path, "c")
    bad: list[BadLine] = []

    assert [record["record_id"] for record in read_log(log_path, on_bad=bad.append)] == ["a", "c"]
    assert [(one.file, one.line, one.offset) for one in bad] == [(str(rotated), 2, 18)]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_cut_gzip_gives_what_can_be_read_and_the_files_behind_it(log_path: Path, keep: float):
    """
    A .gz that ends early costs its own end only.
    """
    older = log_path.with_name(f"{log_path.name}.{EARLY}.gz")
    write_ids(older, *(os.urandom(200).hex() for _ in range(2000)))
    data = older.read_bytes()
    older.write_bytes(data[: int(len(data) * keep)])
    write_ids(log_path, "last")
    bad: list[BadLine] = []

    found = [record["record_id"] for record in read_log(log_path, on_bad=bad.append)]

    assert found[-1] == "last"
    assert len(found) - 1 > 2000 * keep * 0.95
    assert [(one.file, one.line) for one in bad] == [(str(older), len(found))]


def test_older_line_with_half_an_emoji_is_read(log_path: Path):
    """
    Old writers escaped what they could not encode; the line is JSON, and only a fast parser refuses it.
    """
    log_path.write_bytes(b'{"response":"cut \\ud83d"}\n')

    assert list(read_log(log_path)) == [{"response": "cut \ud83d"}]


@pytest.mark.parametrize("line", [b"NaN", b'{"a":Infinity,"b":"\\u0041"}', b"[" * 100_000, b"", b"  ", b"\xff"])
def test_line_that_is_no_json_object_is_a_value_error(line: bytes):
    """
    Whatever the bytes, the one error is ValueError, with a reason.
    """
    with pytest.raises(ValueError, match=r"."):
        parse_line(line)


def test_real_lines_in_older_shapes_are_records_of_today_and_go_back_exactly(sample_path: Path):
    """
    Every real line of the older shapes is a flat record, and from it comes the very object of the line.
    """
    lines = [json.loads(line) for line in sample_path.read_bytes().splitlines()]

    records = list(read_log(sample_path, on_bad=pytest.fail))

    assert [to_original(record) for record in records] == lines
    assert [record["source_format"]["line"] for record in records] == list(range(1, len(lines) + 1))
    for record in records:
        assert record["schema_version"] == "1.0"
        assert not [name for name, value in record.items() if isinstance(value, dict) and name in _FLAT]


_FLAT = {"question", "response", "platform", "model", "latency_ms", "success", "execution_id", "question_index"}


def test_mixed_shapes_and_damage_in_one_file_are_read_as_one_log(log_path: Path):
    """
    Old and new lines, whole records glued to pieces, doubled lines: each record once, or twice where it stands twice.
    """
    old = b'{"timestamp":"2025-01-02T03:04:05","question":"q","response":"a","platform":"kimi","success":true}'
    new = seal(b'{"schema_version":"1.0","record_id":"n","success":false,"event":"response"', tail_of("w"), 0)[:-1]
    lines = [old, new, new[:40] + old, bytes(10) + new, b'{"response":"\xff"}', b"[1]", new, new[:30]]
    log_path.write_bytes(b"\n".join(lines))
    bad: list[BadLine] = []

    records = list(read_log(log_path, on_bad=bad.append, assume_timezone=timezone(timedelta(hours=8))))

    assert [record["schema_version"] for record in records] == ["1.0"] * 5
    assert [record.get("platform") for record in records] == ["kimi", None, "kimi", None, None]
    assert records[0]["timestamp"] == "2025-01-01T19:04:05.000000Z"
    assert records[2]["source_format"]["line"] == 3
    assert records[0]["record_id"] == records[2]["record_id"]
    assert [one.line for one in bad] == [3, 4, 5, 6]
    wanted = Filters(platform="moonshot", failed=False)
    assert [record["provider"] for record in read_log(log_path, filters=wanted)] == ["moonshot"] * 2


# --- beside a living writer ------------------------------------------------------------------------------------


def test_rotation_while_the_files_are_opened_reads_each_byte_once(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A rename between listing and opening neither doubles a file nor loses one.
    """
    write_ids(log_path.with_name(f"{log_path.name}.{EARLY}"), "a")
    write_ids(log_path, "b")
    really_open, left = _snapshot._open_for_reading, [1]

    def rotate_first(name: str) -> int:
        if left and left.pop():
            log_path.rename(log_path.with_name(f"{log_path.name}.{LATE}"))
            write_ids(log_path, "c")
        return really_open(name)

    monkeypatch.setattr(_snapshot, "_open_for_reading", rotate_first)

    assert ids_in(log_path) == ["a", "b", "c"]


def test_numbered_files_that_shift_while_they_are_opened_are_read_once(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    concurrent-log-handler renames every file at a rotation: names alone would read one twice and miss another.
    """
    for name, one in ((f"{log_path.name}.2", "a"), (f"{log_path.name}.1", "b"), (log_path.name, "c")):
        write_ids(log_path.with_name(name), one)
    really_open, left = _snapshot._open_for_reading, [3]

    def shift_at_the_third(name: str) -> int:
        left[0] -= 1
        if left[0] == 0:
            log_path.with_name(f"{log_path.name}.2").rename(log_path.with_name(f"{log_path.name}.3"))
            log_path.with_name(f"{log_path.name}.1").rename(log_path.with_name(f"{log_path.name}.2"))
            log_path.rename(log_path.with_name(f"{log_path.name}.1"))
            write_ids(log_path, "d")
        return really_open(name)

    monkeypatch.setattr(_snapshot, "_open_for_reading", shift_at_the_third)

    assert ids_in(log_path) == ["a", "b", "c", "d"]


def test_rotation_while_reading_reads_what_was_there_at_the_start(log_path: Path):
    """
    A file renamed, compressed and deleted in the middle of the reading is still read to its end, once.
    """
    older = log_path.with_name(f"{log_path.name}.{EARLY}")
    write_ids(older, "a", "b")
    write_ids(log_path, "c", "d")
    records = read_log(log_path)

    found = [next(records)["record_id"]]
    older.unlink()
    log_path.rename(log_path.with_name(f"{log_path.name}.{LATE}"))
    write_ids(log_path, "e")
    found += [record["record_id"] for record in records]

    assert found == ["a", "b", "c", "d"]


def test_lines_appended_while_reading_wait_for_the_next_time(log_path: Path):
    """
    A snapshot has an end: a writer that never stops does not keep a reader for ever.
    """
    write_ids(log_path, "a", "b")
    records = read_log(log_path)
    found = [next(records)["record_id"]]
    with log_path.open("ab") as file:
        file.write(b'{"record_id":"c"}\n')
    found += [record["record_id"] for record in records]

    assert found == ["a", "b"]


def test_more_files_than_are_held_open_are_all_read(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A log of very many files does not run out of descriptors: the oldest are opened one by one.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 2)
    for number in range(9):
        write_ids(log_path.with_name(f"{log_path.name}.2026010{number + 1}T000000.000000Z"), str(number))
    write_ids(log_path, "live")
    before = len(os.listdir("/proc/self/fd"))
    records = read_log(log_path)
    found = [next(records)["record_id"]]
    held = len(os.listdir("/proc/self/fd")) - before
    found += [record["record_id"] for record in records]

    assert found == [*map(str, range(9)), "live"]
    assert held == 3
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("change", ["compressed", "renamed"])
def test_old_file_that_moved_before_it_was_opened_is_found_again(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    """
    Files opened late are known by what they are, not by their name.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    first, second = (log_path.with_name(f"{log_path.name}.{stamp}") for stamp in (EARLY, LATE))
    write_ids(first, "a")
    write_ids(second, "b")
    write_ids(log_path, "c")
    records = read_log(log_path)
    found = [next(records)["record_id"]]
    if change == "compressed":
        write_ids(second.with_name(f"{second.name}.gz"), "b")
        second.unlink()
    else:
        second.rename(log_path.with_name(f"{log_path.name}.7"))
    found += [record["record_id"] for record in records]

    assert found == ["a", "b", "c"]


def test_inode_that_a_late_file_has_left_is_not_taken_for_it(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    It was compressed before it was opened, and what has its inode now is another file of the log.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    first, second = (log_path.with_name(f"{log_path.name}.{stamp}") for stamp in (EARLY, LATE))
    write_ids(first, "a")
    write_ids(second, "b")
    write_ids(log_path, "c")
    records = read_log(log_path)
    found = [next(records)["record_id"]]
    write_ids(second.with_name(f"{second.name}.gz"), "b")
    second.rename(log_path.with_name(f"{log_path.name}.20260103T000000.000000Z"))  # the kernel gives a free one at once
    write_ids(log_path.with_name(f"{log_path.name}.20260103T000000.000000Z"), "d")
    found += [record["record_id"] for record in records]

    assert found == ["a", "b", "c"]


def test_numbered_file_whose_inode_another_has_now_is_an_error(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Its name says nothing, and its inode alone is no proof.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    second = log_path.with_name(f"{log_path.name}.1")
    write_ids(log_path.with_name(f"{log_path.name}.2"), "a")
    write_ids(second, "b")
    write_ids(log_path, "c")
    records = read_log(log_path)
    next(records)
    second.rename(log_path.with_name(f"{log_path.name}.3"))
    write_ids(log_path.with_name(f"{log_path.name}.3"), "another", "one")

    with pytest.raises(LogReadError, match="removed or renamed"):
        next(records)


def test_file_that_takes_the_place_of_a_late_one_while_it_is_opened_is_an_error(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    It was still there at the look before; what was opened is asked again.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    second, real = log_path.with_name(f"{log_path.name}.1"), _snapshot._open_for_reading
    write_ids(log_path.with_name(f"{log_path.name}.2"), "a")
    write_ids(second, "b")
    write_ids(log_path, "c")
    records = read_log(log_path)
    next(records)

    def open_late(name: str) -> int:
        another = log_path.with_name("another")
        write_ids(another, "another", "one")
        another.replace(name)
        return real(name)

    monkeypatch.setattr(_snapshot, "_open_for_reading", open_late)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LogReadError, match="removed or renamed"):
        next(records)
    records.close()
    assert len(os.listdir("/proc/self/fd")) < before  # nor is it left open


def test_old_file_that_cannot_be_opened_when_its_turn_comes_is_named(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A reader of very many files learns which of them it was.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    old = log_path.with_name(f"{log_path.name}.{LATE}")
    write_ids(old, "a")
    write_ids(log_path, "b")
    with LogSnapshot(log_path) as snapshot:
        old.unlink()
        old.symlink_to(old)  # a permission would not keep root out

        with pytest.raises(LogReadError, match=f"{old.name}.*symbolic"), snapshot.open(snapshot.files[0]):
            pass


def test_inode_that_moves_between_two_looks_hides_no_file(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    An old file is written anew, as `forget` does, and the log made anew gets the inode that it has left.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    old = log_path.with_name(f"{log_path.name}.{EARLY}")
    write_ids(old, "a", "b")
    write_ids(log_path, "c")
    real, looks = LogSnapshot._look_at, []

    def look_at(snapshot: LogSnapshot, name: str, *, hold: bool) -> _snapshot.LogFile:
        file = real(snapshot, name, hold=hold)
        looks.append(name)
        if len(looks) == 1:
            anew = log_path.with_name("anew")
            write_ids(anew, "b")
            old.replace(log_path)
            write_ids(log_path, "d")
            anew.rename(old)
        return file

    monkeypatch.setattr(LogSnapshot, "_look_at", look_at)

    assert ids_in(log_path) == ["b", "d"]
    assert len(looks) == 4


def test_old_file_that_was_deleted_before_it_was_opened_is_an_error(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    What cannot be read any more is said, never passed over.
    """
    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    second = log_path.with_name(f"{log_path.name}.{LATE}")
    write_ids(log_path.with_name(f"{log_path.name}.{EARLY}"), "a")
    write_ids(second, "b")
    write_ids(log_path, "c")
    records = read_log(log_path)
    next(records)
    second.unlink()

    with pytest.raises(LogReadError, match="removed or renamed"):
        next(records)


def test_snapshot_closed_twice_leaves_no_descriptor(log_path: Path):
    """
    Every descriptor a snapshot opened is closed with it.
    """
    write_ids(log_path, "a")
    before = len(os.listdir("/proc/self/fd"))
    snapshot = LogSnapshot(log_path)
    opened = len(os.listdir("/proc/self/fd")) - before
    snapshot.close()
    snapshot.close()

    assert opened == 1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_reading_opens_nothing_for_writing_and_takes_no_lock(log_path: Path):
    """
    Reading needs no writing rights and blocks no writer: the interpreter's own audit of every open and lock says so.
    """
    write_ids(log_path.with_name(f"{log_path.name}.{EARLY}.gz"), "a")
    write_ids(log_path, "b")
    journal = Journal(f"{log_path}.journal", "w", Options())
    journal.begin(0)
    journal.store([seal(b'{"record_id":"c"', tail_of("w"), 0)])
    journal.close()
    child = run_child(
        """
        import os, sys
        touched = []
        def audit(event, args):
            if event == "open" and str(args[0]).startswith(os.path.dirname(sys.argv[1])):
                flags = args[2]
                touched.append("w" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else "r")
            elif event.startswith(("fcntl.", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.chmod")):
                touched.append(event)
        from ai_response_logging.reader import read_log
        from ai_response_logging.verify import verify_log
        sys.addaudithook(audit)
        assert len(list(read_log(sys.argv[1]))) == 3
        verify_log(sys.argv[1])
        print(*sorted(touched))
        """,
        log_path,
    )

    assert (
        child.stdout.split() == ["r"] * 10
    )  # each time two files, a mark, a segment, and the location file that is not there


# --- what goes wrong underneath --------------------------------------------------------------------------------


def test_line_longer_than_anyone_writes_is_passed_over(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A hole of a terabyte on one line does not fill the memory: it is one bad line, and the next one is read.
    """
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 1000)
    write_ids(log_path, "a", "x" * 3_000_000, "b")
    bad: list[BadLine] = []

    assert [record["record_id"] for record in read_log(log_path, on_bad=bad.append)] == ["a", "b"]
    assert [(one.line, one.offset) for one in bad] == [(2, len('{"record_id": "a"}\n'))]


def test_directory_that_may_not_be_listed_is_an_error(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Where older files might be overlooked, the log counts as unreadable, not as short.
    """
    write_ids(log_path, "a")

    def refuse(_path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(LogReadError, match="Permission denied"):
        next(read_log(log_path))


def test_file_that_may_not_be_opened_is_an_error_that_names_it(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    One file of many that cannot be opened is said, never passed over.
    """
    older = log_path.with_name(f"{log_path.name}.{EARLY}")
    write_ids(older, "a")
    write_ids(log_path, "b")
    really_open = os.open

    def refuse(path: str, *rest: int) -> int:
        if str(path) == str(older):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, *rest)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(LogReadError, match="Permission denied") as caught:
        next(read_log(log_path))
    assert caught.value.path == str(older)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc")
@pytest.mark.parametrize("read", [lambda path: list(read_log(path)), verify_log])
def test_disk_that_fails_while_reading_is_an_error(log_path: Path, read: Callable[[Path], object]):
    """
    An I/O error in the middle is said with the file's name; /proc/self/mem fails with EIO at its first byte.
    """
    older = log_path.with_name(f"{log_path.name}.{EARLY}")
    older.symlink_to("/proc/self/mem")
    write_ids(log_path, "b")

    with pytest.raises(LogReadError, match="Input/output error") as caught:
        read(log_path)
    assert caught.value.path == str(older)


def test_files_that_never_stand_still_are_an_error(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A reader that cannot get a consistent view says so instead of guessing.
    """
    write_ids(log_path, "a")
    really_open, count = _snapshot._open_for_reading, iter(range(10_000))

    def rename_each_time(name: str) -> int:
        descriptor = really_open(name)
        log_path.rename(log_path.with_name(f"{log_path.name}.{next(count)}"))
        write_ids(log_path, "b")
        return descriptor

    monkeypatch.setattr(_snapshot, "_open_for_reading", rename_each_time)
    monkeypatch.setattr(_snapshot, "_SNAPSHOT_TRIES", 3)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LogReadError, match="try again"):
        next(read_log(log_path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_under_logrotates_names_are_read_in_the_order_of_their_dates(log_path: Path):
    """Its `dateext` and the backup that it makes of a log in its way hold records like any other file."""
    names = ["-20260101", "-20260102.gz", "-2026010203.backup", ".20260103T000000.000000Z", ""]
    for number, name in enumerate(names):
        write_ids(log_path.with_name(log_path.name + name), str(number))
    for name in ("-old", "-2026", "-20260101.part", "-20260101T000000.000000Z"):
        log_path.with_name(log_path.name + name).write_bytes(b"x")

    assert log_files(log_path) == [f"{log_path}{name}" for name in names]
    assert [record["record_id"] for record in read_log(log_path)] == ["0", "1", "2", "3", "4"]


def test_a_log_that_is_made_between_two_looks_is_read(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed before its writer made it, and asked about after that: it is there, and no stranger in its place."""
    looks = [[], *([str(log_path)] for _ in range(5))]
    log_path.write_text('{"a":1}\n')
    monkeypatch.setattr(_snapshot, "log_files", lambda _: looks.pop(0))
    assert list(read_log(log_path)) == [{"a": 1}]
