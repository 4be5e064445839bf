"""A person's records taken out of a log: all of them, nobody else's, beside living writers and whatever is killed."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, run_child

from ai_response_logging._receipt import Forgotten, forgotten_in, receipt_line
from ai_response_logging.blobs import MARK, BlobStore, blob_path, directory_of
from ai_response_logging.errors import ConfigError, WriteError
from ai_response_logging.forget import Selector, forget
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log

WRITER = """
    import logging, sys
    from ai_response_logging import AIResponseHandler
    logger = logging.getLogger("ai_responses")
    logger.addHandler(AIResponseHandler(filename=sys.argv[1], **eval(sys.argv[4])))
    logger.setLevel("INFO")
    first, count = int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, first + count):
        logger.info("m", extra={"record_id": str(number), "user_id": f"user-{number % 5}", "response": "x" * 300})
        if number == first + count // 2:
            print("half", flush=True)
    for handler in logger.handlers:
        handler.flush()
    print("all", flush=True)
    sys.stdin.readline()
"""
STAMP = "20260101T00000{}.000000Z"


def line(seq: int, user: str | None = "ann", *, writer: str = "w", **fields: Any) -> bytes:
    """Return one whole line."""
    record = {"schema_version": "1.0", "record_id": f"{writer}-{seq}", "unix_timestamp": 1e9 + seq, "question": "q"}
    record |= {"user_id": user} if user else {}
    body = json.dumps(record | fields, ensure_ascii=False).encode()[:-1]
    prefix = body + b',"writer_id":"%b","seq":%d' % (writer.encode(), seq)
    return b'%b,"checksum":"%08x"}\n' % (prefix, zlib.crc32(prefix))


def of_two(*numbers: int) -> bytes:
    """Return so many lines, of which every third is of bob."""
    return b"".join(line(number, "bob" if number % 3 == 0 else "ann") for number in numbers)


def a_log(path: Path) -> None:
    """Write a log of 60 records: compressed, rotated, sealed, live."""
    Path(f"{path}.{STAMP.format(1)}.gz").write_bytes(gzip.compress(of_two(*range(15))))
    Path(f"{path}.{STAMP.format(2)}").write_bytes(of_two(*range(15, 30)))
    Path(f"{path}.sealed-{STAMP.format(3)}").write_bytes(of_two(*range(30, 45)))
    path.write_bytes(of_two(*range(45, 60)))


def users(path: Path) -> dict[str, int]:
    """Return how many records of whom are in a log."""
    found: dict[str, int] = {}
    for record in read_log(path):
        if record.get("event") != "forgotten":
            found[record.get("user_id", "")] = found.get(record.get("user_id", ""), 0) + 1
    return found


BOB = Selector(user_id="bob")


# --- what goes and what stays ----------------------------------------------------------------------------------


def test_records_go_from_every_file_and_the_log_stays_whole(log_path: Path):
    """
    Rotated, compressed, sealed and live files; others' lines stay byte for byte, and verify counts what was forgotten.
    """
    a_log(log_path)
    report = forget(log_path, BOB)
    proof = verify_log(log_path)

    assert (report.records, report.is_complete, len(report.files)) == (20, True, 4)
    assert users(log_path) == {"ann": 40}
    assert (proof.whole, proof.forgotten, proof.problem_counts) == (True, 20, {})
    kept = gzip.decompress(Path(f"{log_path}.{STAMP.format(1)}.gz").read_bytes()).splitlines(keepends=True)
    assert kept[:-1] == [line(number) for number in range(15) if number % 3]
    assert b"bob" not in b"".join(file.read_bytes() for file in log_path.parent.iterdir())


def test_dry_run_counts_and_changes_nothing(log_path: Path):
    """
    Counts by file, and not a byte is touched.
    """
    a_log(log_path)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in log_path.parent.iterdir()}
    report = forget(log_path, BOB, dry_run=True)

    assert {Path(name).name: count for name, count in report.files.items()} == {
        f"{log_path.name}.{STAMP.format(1)}.gz": 5, f"{log_path.name}.{STAMP.format(2)}": 5,
        f"{log_path.name}.sealed-{STAMP.format(3)}": 5, log_path.name: 5,
    }  # fmt: skip
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in log_path.parent.iterdir()} == before


def test_second_run_finds_nothing_and_writes_nothing(log_path: Path):
    """
    Running it again is harmless.
    """
    a_log(log_path)
    forget(log_path, BOB)
    before = {file: file.read_bytes() for file in log_path.parent.iterdir()}
    report = forget(log_path, BOB)

    assert (report.records, report.is_complete) == (0, True)
    assert {file: file.read_bytes() for file in log_path.parent.iterdir()} == before


def test_mode_and_time_of_files_stay(log_path: Path):
    """
    Rights are not widened, and retain_days still goes by the old time.
    """
    a_log(log_path)
    old = Path(f"{log_path}.{STAMP.format(2)}")
    old.chmod(0o640)
    os.utime(old, ns=(10**18, 10**18))
    forget(log_path, BOB)

    assert (old.stat().st_mode & 0o777, old.stat().st_mtime_ns) == (0o640, 10**18)
    assert not {file.name for file in log_path.parent.iterdir()} - {
        log_path.name, f".__{log_path.name}.lock", old.name, f"{log_path.name}.{STAMP.format(1)}.gz",
        f"{log_path.name}.sealed-{STAMP.format(3)}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector(user_id="ann"), [0, 1, 4, 5, 6]),
        (Selector(session_id="s1"), [1, 2]),
        (Selector(user_id="ann", session_id="s1"), [1]),
        (Selector(record_id="w-3"), [3]),
        (Selector(user_id="42"), [7]),
        (Selector(user_id='ü"\\'), [8]),
        (Selector(user_id="nobody"), []),
    ],
    ids=str,
)
def test_each_selector_means_what_it_says(log_path: Path, selector: Selector, gone: list[int]):
    """
    Several narrow each other; numbers, quotes and older places count; a call's other events go with it.
    """
    lines = [
        line(0), line(1, session_id="s1"), line(2, "bob", session_id="s1"), line(3, "bob"),
        line(4, None, call_id="c", event="start"), line(5, call_id="c"), line(6, None, metadata={"user_id": "ann"}),
        line(7, None, user_id=42), line(8, 'ü"\\'), line(9, "bob", call_id="c"), line(10, "ann2", response="ann"),
    ]  # fmt: skip
    log_path.write_bytes(b"".join(lines))
    forget(log_path, selector)
    left = [one["seq"] for one in read_log(log_path) if one.get("event") != "forgotten"]

    assert left == [number for number in range(11) if number not in gone]
    assert verify_log(log_path).whole


@pytest.mark.parametrize("dry_run", [True, False])
def test_start_in_an_older_file_goes_with_the_answer_that_says_whose_it_is(log_path: Path, *, dry_run: bool):
    """
    Files are read oldest first, and what a call is known by may come last.
    """
    old = Path(f"{log_path}.{STAMP.format(1)}")
    old.write_bytes(line(0, None, call_id="c", event="start") + line(1, "bob"))
    log_path.write_bytes(line(2, "bob") + line(3, call_id="c"))
    report = forget(log_path, Selector(user_id="ann"), dry_run=dry_run)

    assert report.files == {str(old): 1, str(log_path): 1}
    assert dry_run or users(log_path) == {"bob": 2}


def test_older_shapes_are_found_where_they_have_it(log_path: Path):
    """
    2.0 has it in its context, the oldest at the top; escapes of non-ASCII are read.
    """
    old = [
        {"version": "2.0", "timestamp": "t", "question": {"text": "q"}, "context": {"user_id": "王"}},
        {"timestamp": "t", "question": "q", "response": "r", "user_id": "王"},
        {"timestamp": "t", "question": "q", "response": "r", "metadata": {"user_id": "李"}},
    ]
    log_path.write_text("".join(json.dumps(one) + "\n" for one in old))
    report = forget(log_path, Selector(user_id="王"))

    assert report.records == 2
    assert json.loads(log_path.read_text().splitlines()[0])["metadata"] == {"user_id": "李"}
    assert json.loads(log_path.read_text().splitlines()[1])["forgotten"]["older"] == 2


def test_no_selector_is_refused():
    """
    Nothing given would be every record.
    """
    with pytest.raises(ConfigError, match="user_id"):
        Selector()
    with pytest.raises(ConfigError, match="empty"):
        Selector(user_id="")


def test_mentions_stay_and_are_counted(log_path: Path):
    """
    A value in somebody else's text is named, and not acted upon.
    """
    log_path.write_bytes(line(0, "user-4711") + line(1, "bob", response="who is user-4711?"))
    report = forget(log_path, Selector(user_id="user-4711"))

    assert (report.records, sum(report.mentions.values())) == (1, 1)
    assert users(log_path) == {"bob": 1}


def test_receipt_says_nothing_of_the_person(log_path: Path):
    """
    Which field chose, how many, which numbers; not the value, nor a word of theirs.
    """
    log_path.write_bytes(line(0, "secret-id", question="secret question"))
    forget(log_path, Selector(user_id="secret-id"))
    receipt = json.loads(log_path.read_text())

    assert "secret" not in log_path.read_text()
    assert receipt["forgotten"] == {
        "by": ["user_id"], "records": 1, "numbers": 1, "older": 0, "damaged": 0, "ranges": {"w": [[0, 0]]},
    }  # fmt: skip


# --- what receipts excuse --------------------------------------------------------------------------------------


def test_loss_of_others_is_still_a_gap(log_path: Path):
    """
    Beside what was forgotten, before, between and behind it.
    """
    log_path.write_bytes(of_two(*range(20)))
    forget(log_path, BOB)
    kept = [one for one in log_path.read_bytes().splitlines(keepends=True) if b'"seq":7,' not in one]
    log_path.write_bytes(b"".join(one for one in kept if b'"seq":8,' not in one))
    proof = verify_log(log_path)

    assert proof.problem_counts == {"gap": 1}
    assert (proof.writers[0].missing, proof.writers[0].missing_count) == (((7, 8),), 2)
    assert proof.forgotten == 7


def test_record_that_is_there_although_forgotten_is_named(log_path: Path):
    """
    A backup put back, say.
    """
    log_path.write_bytes(of_two(*range(6)))
    forget(log_path, BOB)
    with log_path.open("ab") as file:
        file.write(line(3, "bob"))
    proof = verify_log(log_path)

    assert proof.problem_counts == {"forgotten": 1}
    assert "number 3 of writer 'w' should be forgotten, and is there" in proof.problems[0].detail


@pytest.mark.parametrize(
    "change",
    [
        {"event": "response"}, {"logger": "somebody"}, {"forgotten": None}, {"forgotten": {"ranges": {"w": [[0, 9]]}}},
        {"forgotten": {"records": 2, "numbers": 3, "ranges": {"w": [[0, 2]]}}},
        {"forgotten": {"records": 9, "numbers": 4, "ranges": {"w": [[0, 1], [1, 2]]}}},
        {"forgotten": {"records": 9, "numbers": 2, "ranges": {"w": [[2, 1], [3, 4]]}}},
        {"forgotten": {"records": 9, "numbers": 2, "ranges": {"w": [["0", 1]]}}},
    ],
)  # fmt: skip
def test_receipt_that_is_none_or_contradicts_itself_excuses_nothing(log_path: Path, change: dict[str, Any]):
    """
    What a caller logs, or what was altered, hides no loss.
    """
    forgotten = Forgotten()
    for number in (0, 1, 2):
        forgotten.add("w", number)
    receipt = json.loads(receipt_line(forgotten, ["user_id"], "f", 0))
    good = line(0, None, writer="f", **{key: receipt[key] for key in ("event", "logger", "forgotten")})
    bad = line(0, None, writer="f", **{key: receipt[key] for key in ("event", "logger", "forgotten")} | change)
    log_path.write_bytes(line(3) + good)
    assert (verify_log(log_path).whole, verify_log(log_path).forgotten) == (True, 3)
    log_path.write_bytes(line(3) + bad)

    assert verify_log(log_path).problem_counts["gap"] == 1
    assert verify_log(log_path).forgotten == 0


def test_receipt_of_numbers_beyond_counting_is_read_at_once():
    """
    A receipt is data: it must not keep verify busy for ever.
    """
    said = {"records": 1 << 61, "numbers": 1 << 61, "ranges": {"w": [[0, (1 << 61) - 1]]}}
    record = {"event": "forgotten", "logger": "ai_response_logging.forget", "forgotten": said}
    from ai_response_logging._numbers import Numbers, Place
    from ai_response_logging.verify._receipts import Receipts

    receipts, numbers = Receipts(), Numbers()
    numbers.add(5, Place(0, 1, 0))
    numbers.add(1 << 61, Place(0, 2, 0))

    assert receipts.take(record, Place(0, 3, 0)) is None
    assert len([*receipts.contradictions({"w": numbers})]) == 1
    assert receipts.count == (1 << 61) - 1
    assert [*receipts.unexplained("w", numbers)] == []
    assert forgotten_in({"event": "forgotten"}) is None


def test_altered_line_is_removed_and_its_number_stays_a_gap(log_path: Path):
    """
    Whoever altered it may have altered its number: it could be that of a record that was lost.
    """
    log_path.write_bytes(line(0) + line(1, "bob").replace(b'"seq":1', b'"seq":2') + line(3))
    report = forget(log_path, BOB)

    assert report.records == 1
    assert verify_log(log_path).problem_counts == {"gap": 1}


# --- pieces, copies, leftovers ---------------------------------------------------------------------------------


def test_torn_lines_are_removed_where_it_can_be_told_whose_they_are(log_path: Path):
    """
    By the value, or by the id of a record that goes; one that names nobody is named itself; others' stay.
    """
    log_path.write_bytes(of_two(0, 1))
    torn = {
        "by-value": line(9, "bob")[:-30], "by-id": line(0, "bob")[:60], "of-ann": line(1)[:-30],
        "of-nobody": line(7)[:20],
    }  # fmt: skip
    for name, data in torn.items():
        Path(f"{log_path}.torn-{name}").write_bytes(data)
    seen = forget(log_path, BOB, dry_run=True)
    assert len(list(log_path.parent.glob("*.torn-*"))) == 4
    report = forget(log_path, BOB)

    assert seen.torn == report.torn == [f"{log_path}.torn-by-id", f"{log_path}.torn-by-value"]
    assert report.unknown_torn == [f"{log_path}.torn-of-nobody"]
    assert {file.name.partition("torn-")[2] for file in log_path.parent.glob("*.torn-*")} == {"of-ann", "of-nobody"}


def test_damaged_line_in_the_log_that_names_the_person_is_left_and_told(log_path: Path):
    """
    It may hold half of somebody else's record: a person decides.
    """
    log_path.write_bytes(line(0) + line(1, "bob")[:-20] + line(2))
    report = forget(log_path, BOB)

    assert report.damaged == [(str(log_path), 2, len(line(0)))]
    assert not report.is_complete


def test_leftovers_of_killed_runs_and_compressions_go(log_path: Path):
    """
    Copies that count for nobody hold what somebody else asked to be forgotten.
    """
    a_log(log_path)
    for name in (f"{log_path}.forgetting-part", f"{log_path}.{STAMP.format(2)}.gz.part", f"{log_path}.forgetting"):
        Path(name).write_bytes(of_two(0))
    forget(log_path, BOB)

    assert [file.name for file in log_path.parent.iterdir() if "part" in file.name or "forgetting" in file.name] == []


def test_file_that_stands_plain_and_compressed_is_forgotten_in_both(log_path: Path):
    """
    As after a kill between the two last steps of a compression.
    """
    a_log(log_path)
    plain = Path(f"{log_path}.{STAMP.format(2)}")
    Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    forget(log_path, BOB)

    assert not Path(f"{plain}.gz").exists()
    assert users(log_path) == {"ann": 40}


@pytest.mark.parametrize("step", ["opened", "looked for"])
def test_compression_that_ends_while_its_file_is_looked_at_keeps_its_only_copy(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """
    The compressor removes the plain file and lets go of the other just as the two are opened to be compared.
    """
    from ai_response_logging.forget import _rewrite

    a_log(log_path)
    plain = f"{log_path}.{STAMP.format(2)}"
    Path(f"{plain}.gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    compressor = _rewrite.open_regular(f"{plain}.gz", os.O_RDWR, 0, create=False)
    assert _rewrite._lock.try_acquire(compressor)  # it was its part file, and has just been renamed
    real, before_step = _rewrite.open_regular, plain if step == "looked for" else f"{plain}.gz"

    def open_regular(path: str, *args: Any, **options: Any) -> Any:
        if path == before_step and not compressor.closed and Path(f"{plain}.gz.part").exists():
            os.unlink(plain)
            compressor.close()
        return real(path, *args, **options)

    monkeypatch.setattr(_rewrite, "open_regular", open_regular)
    report = forget(log_path, BOB)

    assert compressor.closed
    assert users(log_path) == {"ann": 40}
    assert report.is_complete, report.to_dict()
    assert report.files[f"{plain}.gz"] == 5


def test_damaged_compressed_file_is_told_and_the_others_are_done(log_path: Path):
    """
    What cannot be copied whole is not replaced by less.
    """
    a_log(log_path)
    packed = Path(f"{log_path}.{STAMP.format(1)}.gz")
    packed.write_bytes(packed.read_bytes()[:-10])
    before = packed.read_bytes()
    report = forget(log_path, BOB, wait_s=0)

    assert packed.read_bytes() == before
    assert any("is damaged" in one for one in report.complaints)
    assert report.records == 15


def test_torn_end_of_an_old_file_stays_behind_the_receipt(log_path: Path):
    """
    The receipt is glued to nothing.
    """
    old = Path(f"{log_path}.{STAMP.format(2)}")
    old.write_bytes(of_two(0, 1, 2) + line(5)[:40])
    log_path.write_bytes(line(3))
    forget(log_path, BOB)

    assert old.read_bytes().endswith(b"\n" + line(5)[:40])
    assert verify_log(log_path).forgotten == 1


# --- journals and living writers -------------------------------------------------------------------------------


def test_what_killed_writers_left_comes_home_and_goes(log_path: Path):
    """
    A journal that nobody holds is brought home first.
    """
    options = repr({"flush_interval": 1000, "batch_size": 1000})
    with child_process(WRITER, log_path, 0, 20, options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    there = [one["user_id"] for one in read_log(log_path)]
    assert there.count("user-3")
    report = forget(log_path, Selector(user_id="user-3"))

    assert report.records == there.count("user-3")
    assert "user-3" not in users(log_path)
    assert verify_log(log_path).whole
    assert not Path(f"{log_path}.journal").exists()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(60)
def test_what_a_living_writer_still_holds_is_waited_for_and_told(log_path: Path):
    """
    Its records come home by themselves or not; who holds what is left is named, and its own lines are not touched.
    """
    options = repr({"flush_interval": 1000, "batch_size": 1000})
    code = WRITER.replace("handler.flush()", "pass")
    with child_process(code, log_path, 0, 20, options) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["half\n", "all\n"]
        report = forget(log_path, Selector(user_id="user-3"), wait_s=0)
        assert (report.records, sum(report.in_journals.values()), report.is_complete) == (0, 4, False)
        assert f"pid {process.pid}" in report.residues[0].holder
        process.communicate("\n", timeout=15)
    report = forget(log_path, Selector(user_id="user-3"), wait_s=0)

    assert (report.records, report.is_complete) == (4, True)
    assert verify_log(log_path).whole


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(90)
@pytest.mark.parametrize("options", [{}, {"max_bytes": 30_000, "compress": True}], ids=["one file", "many"])
def test_living_writers_go_on_and_lose_nothing(log_path: Path, options: dict[str, Any]):
    """
    Two processes write while runs follow each other: in the end each record is there once, or was forgotten.
    """
    options = {"batch_size": 5, "flush_interval": 0.05, **options}
    told: dict[str, int] = {}
    with (
        child_process(WRITER, log_path, 0, 3000, repr(options)) as one,
        child_process(WRITER, log_path, 3000, 3000, repr(options)) as other,
    ):
        for process in (one, other):
            assert process.stdout is not None
            process.stdout.readline()
        for turn in range(6):
            user = f"user-{turn % 2}"
            report = forget(log_path, Selector(user_id=user), wait_s=1)
            told[user] = told.get(user, 0) + sum(report.files.values())
        for process in (one, other):
            process.communicate("\n", timeout=30)
            assert process.returncode == 0
    for user in ("user-0", "user-1"):
        report = forget(log_path, Selector(user_id=user))
        told[user] += report.records
        assert report.is_complete, report.to_dict()
    proof = verify_log(log_path)

    assert told == {"user-0": 1200, "user-1": 1200}
    assert (proof.whole, proof.forgotten, proof.problem_counts) == (True, 2400, {})
    left = [one["record_id"] for one in read_log(log_path) if one.get("event") != "forgotten"]
    assert sorted(map(int, left)) == [number for number in range(6000) if number % 5 > 1]


def test_unsettled_append_is_left_alone(log_path: Path):
    """
    An intent leads to bytes at a place: nothing may move until it is settled; who notes it is told.
    """
    from ai_response_logging._journal_files import open_lock
    from ai_response_logging._journal_format import Intent, Mark, lock_name, mark_name
    from ai_response_logging._lock import try_acquire

    a_log(log_path)
    directory = Path(f"{log_path}.journal")
    directory.mkdir()
    start, slot = Mark(0, 0, Intent(1, 2, 0, 1, 0)).slot()
    (directory / mark_name("v")).write_bytes(bytes(start) + slot)
    held = open_lock(str(directory / lock_name("v")), 0o600, create=True)
    try:
        assert try_acquire(held)
        report = forget(log_path, BOB, wait_s=0)
    finally:
        held.close()

    assert users(log_path) == {"ann": 40, "bob": 20}
    assert not report.is_complete
    assert f"an append is not settled that {directory / mark_name('v')} (pid {os.getpid()}" in report.complaints[0]


def rotate_log(path: Path) -> None:
    """Rotate, and write a new log."""
    path.rename(f"{path}.{STAMP.format(4)}")
    path.write_bytes(of_two(*range(60, 66)))


def append(path: Path) -> None:
    """Append, bob's and others'."""
    with path.open("ab") as file:
        file.write(of_two(*range(60, 66)))


def cut_back_and_append(path: Path) -> None:
    """Cut the last lines off, as a writer whose sync failed does, and append others to the same length."""
    os.truncate(path, len(of_two(*range(45, 58))))
    with path.open("ab") as file:
        file.write(b"".join(line(number, "eve" if number % 3 else "bob", writer="x") for number in (61, 63)))


def append_to_an_old_one(path: Path) -> None:
    """As somebody does who was in the middle of an append when another renamed the log."""
    with Path(f"{path}.{STAMP.format(2)}").open("ab") as file:
        file.write(of_two(*range(60, 66)))


def make_anew(path: Path) -> None:
    """Take the log away, as `rm` does, and begin another."""
    path.unlink()
    path.write_bytes(of_two(*range(60, 66)))


@pytest.mark.parametrize(
    ("meanwhile", "ann"),
    [(rotate_log, 44), (append, 44), (cut_back_and_append, 38), (append_to_an_old_one, 44), (make_anew, 34)],
)
@pytest.mark.parametrize("exchanges", [True, False], ids=["names exchanged", "renamed"])
def test_whatever_others_do_between_copy_and_rename_is_not_undone(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Path], None], ann: int, *, exchanges: bool
):
    """
    Just before the locks are taken: rotations, appends, cuts, removals; what is there then is what is kept.
    """
    from ai_response_logging.forget import _rewrite

    if not exchanges:
        monkeypatch.setattr(_rewrite, "exchange_holding", lambda: None)
    a_log(log_path)
    real, done = _rewrite.locked, []

    @contextlib.contextmanager
    def locked(path: str, timeout: float) -> Iterator[Any]:
        file = f"{path}.{STAMP.format(2)}" if meanwhile is append_to_an_old_one else path
        if not done and Path(f"{file}.forgetting-part").exists():
            done.append(meanwhile(Path(path)))
        with real(path, timeout) as log:
            yield log

    monkeypatch.setattr(_rewrite, "locked", locked)
    report = forget(log_path, BOB)

    assert done
    assert report.is_complete, report.to_dict()
    assert users(log_path).get("bob", 0) == 0
    assert users(log_path)["ann"] == ann
    assert users(log_path).get("eve", 0) == (meanwhile is cut_back_and_append)
    gaps = {make_anew: 1, cut_back_and_append: 2}  # what somebody destroyed is told, as ever
    assert verify_log(log_path).problem_counts.get("gap", 0) <= gaps.get(meanwhile, 0)


def test_second_run_at_the_same_time_is_refused(log_path: Path):
    """
    By name of the first.
    """
    import fcntl

    a_log(log_path)
    with Path(f"{log_path}.forgetting").open("wb") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with pytest.raises(WriteError, match=f"another forget, pid {os.getpid()}"):
            forget(log_path, BOB)


# --- killed at every step --------------------------------------------------------------------------------------

STEPS = {
    "open",
    "os.rename",
    "os.remove",
    "os.truncate",
    "os.utime",
    "os.chmod",
    "os.chown",
    "os.listdir",
    "os.scandir",
}


def killed_at(path: Path, step: int) -> bool:
    """Run forget in a child that is killed before its *step*-th change or look; say whether it came so far."""
    pid = os.fork()
    if not pid:
        seen = 0

        def count(event: str, _arguments: object) -> None:
            nonlocal seen
            if event in STEPS:  # not the kill itself, which is an event, too
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sync = os.fsync

        def counted_sync(descriptor: int) -> None:
            count("open", None)
            sync(descriptor)
            count("open", None)

        try:
            os.fsync = counted_sync
            sys.addaudithook(count)
            forget(path, BOB, wait_s=0)
        except BaseException:  # noqa: BLE001  a child must never go on as the test
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def tmp_copies(tmp_path: Path) -> Iterator[Path]:
    """Yield fresh copies of one log, with leftovers of all kinds."""
    number = 0
    while True:
        number += 1
        directory = tmp_path / str(number)
        directory.mkdir()
        path = directory / "log.jsonl"
        a_log(path)
        Path(f"{path}.{STAMP.format(2)}.gz").write_bytes(gzip.compress(of_two(*range(15, 30))))
        Path(f"{path}.torn-x").write_bytes(line(0, "bob")[:60])
        yield path


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(120)
def test_killed_at_every_step_it_loses_nothing_and_is_completed_by_running_it_again(tmp_path: Path):
    """
    Before and after each open, rename, removal and sync: nobody else's record is lost, verify is whole at any time.
    """
    for step, path in enumerate(tmp_copies(tmp_path), 1):
        was_killed = killed_at(path, step)
        halfway = verify_log(path)
        assert (halfway.whole, halfway.problem_counts) == (True, {}), step
        assert users(path)["ann"] == 40, step
        assert halfway.records - len(halfway.writers) + 1 + halfway.forgotten >= 60, step
        report = forget(path, BOB)
        proof = verify_log(path)
        assert (users(path), proof.whole, proof.forgotten, report.is_complete) == ({"ann": 40}, True, 20, True), step
        names = {file.name for file in path.parent.iterdir()}
        assert not [name for name in names if "forgetting" in name or "part" in name or "torn" in name], step
        assert b"bob" not in b"".join(file.read_bytes() for file in path.parent.iterdir()), step
        if not was_killed:
            break
    assert step > 40


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(90)
def test_killed_beside_a_living_writer_at_random_moments_it_loses_nothing(log_path: Path):
    """
    SIGKILL of runs while a writer goes on; the last run completes them.
    """
    code = "import sys; from ai_response_logging.cli import main; print('x', flush=True); main(sys.argv[1:])"
    options = repr({"batch_size": 5, "flush_interval": 0.05, "max_bytes": 50_000})
    with child_process(WRITER, log_path, 0, 4000, options) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for wait_s in (0.05, 0.1, 0.2, 0.3):
            with child_process(code, "forget", "--user-id", "user-2", "--file", log_path) as run:
                assert run.stdout is not None
                run.stdout.readline()
                with contextlib.suppress(subprocess.TimeoutExpired):  # it is still at work: that is when it is killed
                    run.wait(wait_s)
        writer.communicate("\n", timeout=30)
        assert writer.returncode == 0
    report = forget(log_path, Selector(user_id="user-2"))
    proof = verify_log(log_path)

    assert report.is_complete
    assert (proof.whole, proof.forgotten) == (True, 800)
    left = [one["record_id"] for one in read_log(log_path) if one.get("event") != "forgotten"]
    assert sorted(map(int, left)) == [number for number in range(4000) if number % 5 != 2]


# --- the command -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_says_what_it_did(log_path: Path):
    """
    Counts by file, JSON, and the exit codes.
    """
    main = "from ai_response_logging.cli import main; main()"
    a_log(log_path)
    assert "user_id, session_id or record_id" in run_child(main, "forget", "--file", log_path, expect=2).stderr
    run_child(main, "forget", "--user-id", "x", "--file", log_path.parent / "no", expect=3)
    dry = run_child(main, "forget", "--user-id", "bob", "--dry-run", "--file", log_path)
    assert dry.stdout.startswith("20 records would be forgotten\n          5  ")
    done = json.loads(run_child(main, "forget", "--user-id", "bob", "--json", "--file", log_path).stdout)
    assert (done["records"], done["complete"], done["dry_run"]) == (20, True, False)
    proof = run_child(main, "verify", "--file", log_path)
    assert proof.stdout.startswith("whole; 44 records, 2 writers, 20 forgotten on request, 4 files, ")


# --- large texts -----------------------------------------------------------------------------------------------


def with_text(log: Path, seq: int, text: str, user: str, *, age_s: float = 3600.0) -> bytes:
    """Return a line of *user* whose response is kept beside *log*, last used so long ago."""
    digest = BlobStore(str(log), file_mode=0o600, directory_mode=0o700, is_synced=False).keep(text.encode())
    path = blob_path(str(log), digest)
    os.utime(path, (os.stat(path).st_mtime - age_s,) * 2)
    entry = {"path": ["response"], "sha256": digest, "bytes": len(text)}
    return line(seq, user, response=f"{MARK}{digest}", blobs=[entry])


def texts(log: Path) -> set[str]:
    """Return the texts that are kept beside *log*, and fail if anything else is there."""
    files = [file for file in Path(directory_of(str(log))).rglob("*") if file.is_file()]
    assert all(sha256(file.read_bytes()).hexdigest() == file.name for file in files)
    return {file.read_text() for file in files}


def beside(log: Path) -> set[str]:
    """Return what of `forget` is left beside *log*."""
    return {file.name for file in log.parent.iterdir() if "forgetting" in file.name}


def test_large_texts_go_with_the_last_record_that_names_them(log_path: Path):
    """
    What two users share stays until both are forgotten; texts of nobody in the log stay: it may be in another file.
    """
    lines = [("shared", "bob"), ("bob's", "bob"), ("ann's", "ann"), ("shared", "ann")]
    Path(f"{log_path}.{STAMP.format(1)}").write_bytes(
        with_text(log_path, 0, *lines[0]) + with_text(log_path, 1, *lines[1])
    )
    log_path.write_bytes(with_text(log_path, 2, *lines[2]) + with_text(log_path, 3, *lines[3]))
    with_text(log_path, 9, "archived", "ann")
    expected = blob_path(str(log_path), sha256(b"bob's").hexdigest())

    assert forget(log_path, BOB, dry_run=True).texts == [expected]
    assert texts(log_path) == {"shared", "bob's", "ann's", "archived"}
    report = forget(log_path, BOB)
    assert (report.is_complete, report.texts, report.to_dict()["texts"]) == (True, [expected], [expected])
    assert (texts(log_path), verify_log(log_path).whole) == ({"shared", "ann's", "archived"}, True)
    assert len(forget(log_path, Selector(user_id="ann")).texts) == 2
    assert (texts(log_path), beside(log_path)) == ({"archived"}, set())


def test_large_text_that_a_damaged_or_torn_line_names_stays(log_path: Path):
    """
    Half a record may be all that is left of it.
    """
    torn, damaged, bobs = (
        with_text(log_path, seq, text, "bob") for seq, text in enumerate(("torn", "damaged", "bob's"))
    )
    log_path.write_bytes(torn + damaged + bobs + damaged.replace(b'"bob"', b'"a\xffn"').replace(b"w-1", b"w-5"))
    Path(f"{log_path}.torn-{STAMP.format(1)}").write_bytes(
        torn.replace(b'"bob"', b'"ann"').replace(b"w-0", b"w-7")[:-30]
    )
    report = forget(log_path, BOB)

    assert (report.records, texts(log_path)) == (3, {"torn", "damaged"})


def test_large_text_in_use_stays_and_the_next_run_completes_it(log_path: Path):
    """
    A record that is being logged just now may name it; what is left to do is noted, although its record is gone.
    """
    log_path.write_bytes(with_text(log_path, 0, "bob's", "bob", age_s=0.0) + line(1))
    report = forget(log_path, BOB)
    assert (report.is_complete, texts(log_path)) == (False, {"bob's"})
    assert "used in the last 10 minutes" in report.complaints[0]

    with_text(log_path, 0, "bob's", "bob")
    assert forget(log_path, BOB, dry_run=True).texts
    assert forget(log_path, BOB).is_complete
    assert (texts(log_path), beside(log_path)) == (set(), set())


def test_use_in_the_middle_of_the_removal_keeps_the_text(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Between the look at its time and its removal another process keeps the same text: it stays, or is made anew.
    """
    log_path.write_bytes(with_text(log_path, 0, "bob's", "bob") + line(1))
    path, rename = blob_path(str(log_path), sha256(b"bob's").hexdigest()), os.rename

    def used_before(source: str, target: str) -> None:
        if source == path:
            with_text(log_path, 2, "bob's", "ann", age_s=0.0)
        rename(source, target)

    monkeypatch.setattr(os, "rename", used_before)
    assert not forget(log_path, BOB).is_complete
    assert texts(log_path) == {"bob's"}

    def used_behind(source: str, target: str) -> None:
        rename(source, target)
        if source == path:
            with_text(log_path, 2, "bob's", "ann", age_s=0.0)

    with_text(log_path, 0, "bob's", "bob")
    monkeypatch.setattr(os, "rename", used_behind)
    forget(log_path, BOB)
    assert texts(log_path) == {"bob's"}


@pytest.mark.parametrize("step", ["replaced", "aside"])
def test_kill_between_the_records_and_their_texts_is_completed_by_the_next_run(log_path: Path, step: str):
    """
    The records are gone, so only the note says which texts are to go; one that another uses is put back.
    """
    log_path.write_bytes(
        with_text(log_path, 0, "bob's", "bob")
        + with_text(log_path, 1, "shared", "bob")
        + with_text(log_path, 2, "shared", "ann")
    )
    run_child(
        f"""
        import os, signal, sys
        from ai_response_logging.forget import Selector, _rewrite, forget
        def killing(step):
            def then_die(source, target):
                failed = step(source, target)
                if (source.endswith("-part")) == ({step!r} == "replaced"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return failed
            return then_die
        os.rename = killing(os.rename)
        if exchange := _rewrite.exchange_holding():
            _rewrite.exchange_holding = lambda: killing(exchange)
        forget(sys.argv[1], Selector(user_id="bob"))
        """,
        log_path,
        expect=-9,
    )
    assert users(log_path) == {"ann": 1}
    report = forget(log_path, BOB)

    assert (report.records, report.is_complete, len(report.texts)) == (0, True, 1)
    assert (texts(log_path), beside(log_path), verify_log(log_path).whole) == ({"shared"}, set(), True)
