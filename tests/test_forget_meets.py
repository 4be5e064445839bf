"""`forget` beside others at one certain moment: each order here was found by ``.ci/meetings.py`` and is forced."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_forget import BOB, STAMP, a_log, line, of_two, users, with_text

from ai_response_logging import forget as forgetting
from ai_response_logging import verify
from ai_response_logging._journal import Journal
from ai_response_logging._libc import exchange_holding
from ai_response_logging._options import Options
from ai_response_logging.blobs import blob_path
from ai_response_logging.forget import ForgetReport, _rewrite, forget
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log

can_exchange = pytest.mark.skipif(exchange_holding() is None, reason="the C library has no renameat2")


# --- a stranger who renames, as logrotate does -------------------------------------------------------------------


def rename_log(path: Path) -> None:
    """Give the log and its numbered files their next names, and begin a new log that is written to at once."""
    Path(f"{path}.1").rename(f"{path}.2")
    path.rename(f"{path}.1")
    path.write_bytes(line(80) + line(81, "bob"))


@can_exchange
@pytest.mark.parametrize("behind", ["", ".1"], ids=["the log", "a numbered file"])
def test_file_that_is_renamed_just_before_its_copy_takes_its_place_is_neither_doubled_nor_lost(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str
):
    """What stands there by then is somebody else: the new log, or the old one under a number that it has just got."""
    a_log(log_path)
    Path(f"{log_path}.1").write_bytes(of_two(*range(60, 75)))
    real, done = exchange_holding(), []
    assert real is not None

    def exchange(part: str, file: str) -> int:
        if not done and file == f"{log_path}{behind}":
            done.append(rename_log(log_path))
        return real(part, file)

    monkeypatch.setattr(_rewrite, "exchange_holding", lambda: exchange)
    report = forget(log_path, BOB)

    assert done
    assert report.is_complete, report.to_dict()
    assert users(log_path) == {"ann": 51}
    assert sorted(one["seq"] for one in read_log(log_path) if one.get("user_id")) == [
        *(number for number in range(75) if number % 3),
        80,
    ]
    assert not verify_log(log_path).problem_counts.keys() - {"gap"}  # numbers 75 to 79 were never given
    assert not [name for name in os.listdir(log_path.parent) if "forgetting" in name]


@can_exchange
def test_log_that_is_renamed_away_just_before_its_copy_takes_its_place_is_not_made_twice(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where nothing stands by then, nothing is put there."""
    a_log(log_path)
    real, done = exchange_holding(), []
    assert real is not None

    def exchange(part: str, file: str) -> int:
        if not done and file == str(log_path):
            done.append(log_path.rename(f"{log_path}.{STAMP.format(4)}"))
        return real(part, file)

    monkeypatch.setattr(_rewrite, "exchange_holding", lambda: exchange)
    report = forget(log_path, BOB)

    assert done
    assert report.is_complete, report.to_dict()
    assert users(log_path) == {"ann": 40}
    assert verify_log(log_path).whole


@pytest.mark.parametrize("exchange", [None, lambda *_: errno.EINVAL], ids=["an old C library", "a file system"])
def test_where_names_cannot_be_exchanged_the_copy_takes_its_place_all_the_same(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: Callable[[str, str], int] | None
):
    """By a rename, as ever."""
    a_log(log_path)
    monkeypatch.setattr(_rewrite, "exchange_holding", lambda: exchange)

    assert forget(log_path, BOB).is_complete
    assert (users(log_path), verify_log(log_path).whole) == ({"ann": 40}, True)


def test_disk_that_refuses_the_exchange_is_told_and_the_file_stays(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither is half done."""
    a_log(log_path)
    monkeypatch.setattr(_rewrite, "exchange_holding", lambda: lambda *_: errno.EIO)
    report = forget(log_path, BOB, wait_s=0)

    assert users(log_path) == {"ann": 40, "bob": 20}
    assert any("Input/output error" in complaint for complaint in report.complaints)


# --- a writer who compresses -------------------------------------------------------------------------------------


def test_compression_that_ends_between_the_list_and_the_look_at_its_part_file_ends_nothing_else(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whether a part file is left over is asked behind the list of files; by then it may have its name."""
    a_log(log_path)
    plain, part = f"{log_path}.{STAMP.format(2)}", Path(f"{log_path}.{STAMP.format(2)}.gz.part")
    part.write_bytes(gzip.compress(Path(plain).read_bytes()))
    real = forgetting.open_regular

    def open_regular(path: str, *arguments: Any, **options: Any) -> Any:
        if path == str(part) and part.exists():
            part.rename(f"{plain}.gz")
            os.unlink(plain)
        return real(path, *arguments, **options)

    monkeypatch.setattr(forgetting, "open_regular", open_regular)
    report = forget(log_path, BOB)

    assert report.is_complete, report.to_dict()
    assert report.files[f"{plain}.gz"] == 5
    assert users(log_path) == {"ann": 40}


# --- verify ------------------------------------------------------------------------------------------------------


def left_in_journal(log: Path, *lines: bytes) -> None:
    """Leave the journal of a writer that is gone."""
    directory = Path(f"{log}.journal")
    directory.mkdir(mode=0o700)
    journal = Journal(str(directory), "w", Options())
    journal.begin(0)
    assert journal.store(list(lines)) == len(lines)
    journal.close()


def forget_before_the_files_are_opened(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ForgetReport]:
    """Have `forget` run to its end when `verify` has read the journals, and not yet opened the log."""
    real, done = verify.LogSnapshot, []

    def snapshot(path: str, **options: Any) -> Any:
        if not done:
            done.append(forget(log_path, BOB))
        return real(path, **options)

    monkeypatch.setattr(verify, "LogSnapshot", snapshot)
    return done


def test_verify_between_whose_looks_a_journals_records_are_forgotten_finds_them_forgotten(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It reads the journals, `forget` brings home and takes out what they hold, and the log has a receipt."""
    log_path.write_bytes(line(0, writer="v"))
    left_in_journal(log_path, *(line(number, "ann" if number == 1 else "bob") for number in range(4)))
    done = forget_before_the_files_are_opened(log_path, monkeypatch)
    report = verify_log(log_path)

    assert done[0].is_complete
    assert (report.whole, report.forgotten, report.in_journals) == (True, 3, 0), report.problems


def test_verify_whose_only_journal_is_forgotten_meanwhile_finds_nothing_in_it(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a writer of whom nothing is left there is nothing to report."""
    log_path.write_bytes(line(0, writer="v"))
    left_in_journal(log_path, line(0, "bob"), line(1, "bob"))
    forget_before_the_files_are_opened(log_path, monkeypatch)
    report = verify_log(log_path)

    assert (report.whole, report.forgotten, report.in_journals) == (True, 2, 0), report.problems
    assert "w" not in [one.writer_id for one in report.writers]


def test_journals_record_that_a_receipt_names_and_that_is_still_there_is_told(log_path: Path):
    """One that stays in its journal will come home: that it should be forgotten is a contradiction as before."""
    log_path.write_bytes(line(0, "bob"))
    assert forget(log_path, BOB).is_complete
    left_in_journal(log_path, line(0, "bob"))

    assert verify_log(log_path).problem_counts == {"forgotten": 1}


def test_verify_does_not_miss_the_texts_of_records_that_are_forgotten_meanwhile(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It holds the log of before, and `forget` takes out records and then their texts; others' are missed as ever."""
    log_path.write_bytes(
        with_text(log_path, 0, "bob's", "bob")
        + with_text(log_path, 1, "ann's", "ann")
        + with_text(log_path, 2, "lost", "ann")
    )
    lost = next(one["blobs"][0]["sha256"] for one in read_log(log_path) if one["seq"] == 2)
    real, done = verify.fault_of, []

    def fault_of(log: str, digest: str) -> str:
        if not done:
            done.append(forget(log_path, BOB))
        return real(log, digest)

    monkeypatch.setattr(verify, "fault_of", fault_of)
    assert verify_log(log_path).whole
    assert len(done[0].texts) == 1

    os.unlink(blob_path(str(log_path), lost))
    assert verify_log(log_path).problem_counts == {"blob": 1}


def test_verify_does_not_miss_a_text_that_forget_takes_out_of_its_place_and_puts_back(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Used in the moment in which it was to go, it is out of its place for two calls."""
    log_path.write_bytes(with_text(log_path, 0, "ann's", "ann"))
    place = blob_path(str(log_path), next(read_log(log_path))["blobs"][0]["sha256"])
    real, looks = verify.fault_of, []

    def fault_of(log: str, digest: str) -> str:
        looks.append(digest)
        if len(looks) == 1:
            os.rename(place, f"{place}.forgetting")
            fault = real(log, digest)
            os.rename(f"{place}.forgetting", place)
            return fault
        return real(log, digest)

    monkeypatch.setattr(verify, "fault_of", fault_of)

    assert verify_log(log_path).whole
    assert len(looks) == 2
