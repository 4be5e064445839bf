"""`forget` beside others at one certain moment: each order here was found by ``.ci/meetings.py`` and is forced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_forget import BOB, line, with_text

from ai_response_logging import verify
from ai_response_logging._journal import Journal
from ai_response_logging._options import Options
from ai_response_logging.blobs import blob_path
from ai_response_logging.forget import forget
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log

# --- verify ------------------------------------------------------------------------------------------------------


def left_in_journal(log: Path, *lines: bytes) -> None:
    """Leave the journal of a writer that is gone."""
    directory = Path(f"{log}.journal")
    directory.mkdir(mode=0o700)
    journal = Journal(str(directory), "w", Options())
    journal.begin(0)
    assert journal.store(list(lines)) == len(lines)
    journal.close()


def test_verify_between_whose_looks_a_journals_records_are_forgotten_finds_them_forgotten(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It reads the journals, `forget` brings home and takes out what they hold, and the log has a receipt."""
    log_path.write_bytes(line(0, writer="v"))
    left_in_journal(log_path, *(line(number, "ann" if number == 1 else "bob") for number in range(4)))
    real, done = verify.LogSnapshot, []

    def snapshot(path: str, **options: Any) -> Any:
        if not done:
            done.append(forget(log_path, BOB))
        return real(path, **options)

    monkeypatch.setattr(verify, "LogSnapshot", snapshot)
    report = verify_log(log_path)

    assert done[0].is_complete
    assert (report.whole, report.forgotten, report.in_journals) == (True, 3, 0), report.problems


def test_verify_whose_only_journal_is_forgotten_meanwhile_finds_nothing_in_it(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a writer of whom nothing is left there is nothing to report."""
    log_path.write_bytes(line(0, writer="v"))
    left_in_journal(log_path, line(0, "bob"), line(1, "bob"))
    real, done = verify.LogSnapshot, []

    def snapshot(path: str, **options: Any) -> Any:
        if not done:
            done.append(forget(log_path, BOB))
        return real(path, **options)

    monkeypatch.setattr(verify, "LogSnapshot", snapshot)
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
