"""The log's directory is moved, or a link above it leads elsewhere, while a process logs there: `current -> r2`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _children import Notes, Writer, writer
from helpers import assert_all_there_once, log_files, run_child

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """Return a link to one of two releases."""
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
    (tmp_path / "current").symlink_to("r1")
    return tmp_path / "current"


def flip(current: Path) -> None:
    """Let the link lead to the other release, as a deployment does."""
    (next_one := current.with_name("next")).symlink_to("r2")
    next_one.rename(current)


def kill(one: Writer) -> None:
    """Kill a writer and reap it."""
    one.process.send_signal(signal.SIGKILL)
    assert one.process.wait() == -signal.SIGKILL


def open_and_close(log: Path, *args: object) -> None:
    """Let another process open the log, which brings home what is left."""
    run_child(
        """
        import sys
        from ai_response_logging.handler import AIResponseHandler
        AIResponseHandler(sys.argv[1], journal_directory=(*sys.argv[2:], None)[0]).close()
        """,
        log,
        *args,
    )


def assert_once_over(logs: Sequence[Path], notes: Notes) -> None:
    """Assert that each record is once in all the logs together."""
    together = notes.path.with_name("together.jsonl")
    together.write_bytes(b"".join(file.read_bytes() for log in logs for file in log_files(log)))
    assert_all_there_once(together, notes.ids())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_killed_after_the_first_write_to_the_new_place_leaves_nothing_at_the_old_one(
    current: Path, notes: Notes, elsewhere: bool
):
    """What is logged behind a write that went to the new place is brought home by whoever opens the log there."""
    log = current / "log.jsonl"
    journals = [str(current.parent / "journals")] if elsewhere else []
    with writer(log, notes, journal_directory=(*journals, None)[0]) as one:
        one.log("old", 1)
        assert one.ask("flush")
        flip(current)
        one.log("between", 3)
        assert one.ask("flush")
        one.log("new", 3)
        kill(one)
    open_and_close(log, *journals)

    assert_once_over([current.parent / release / "log.jsonl" for release in ("r1", "r2")], notes)


def test_what_waited_when_the_directory_was_moved_is_in_one_of_both_places(current: Path, notes: Notes):
    """Records in the journal of the old place that are written to the new one are not brought home at the old one."""
    log = current / "log.jsonl"
    with writer(log, notes) as one:
        one.log("old", 1)
        assert one.ask("flush")
        one.log("waiting", 3)
        flip(current)
        one.ask("look")  # for its journal, as the listener does now and then
        assert one.ask("flush")
        kill(one)
    open_and_close(log)
    open_and_close(current.parent / "r1" / "log.jsonl")

    assert_once_over([current.parent / release / "log.jsonl" for release in ("r1", "r2")], notes)


def test_journal_that_cannot_be_had_at_the_new_place_is_not_doubled_from_the_old_one(current: Path, notes: Notes):
    """Where the new place allows no journal, what arrives there is still noted in the one at the old place."""
    log = current / "log.jsonl"
    with writer(log, notes) as one:
        one.log("old", 1)
        assert one.ask("flush")
        one.log("waiting", 3)
        (current.parent / "r2" / "log.jsonl.journal").write_text("a file in its place")
        flip(current)
        one.ask("look")  # for its journal, as the listener does now and then
        assert one.ask("flush")
        kill(one)
    open_and_close(current.parent / "r1" / "log.jsonl")

    assert_once_over([current.parent / release / "log.jsonl" for release in ("r1", "r2")], notes)


def test_moved_directory_that_is_made_again_has_the_journal(tmp_path: Path, notes: Notes):
    """After a rename of its directory the log and its journal are both at their path again."""
    log = tmp_path / "logs" / "log.jsonl"
    with writer(log, notes) as one:
        one.log("old", 1)
        assert one.ask("flush")
        os.rename(tmp_path / "logs", tmp_path / "logs.old")
        one.log("between", 3)
        assert one.ask("flush")
        one.log("new", 3)
        kill(one)
    open_and_close(log)

    assert_once_over([log, tmp_path / "logs.old" / "log.jsonl"], notes)
