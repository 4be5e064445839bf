"""A directory of journals that cannot be listed now (no descriptor left, EIO), as .ci/points.py found it."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, run_child

from ai_response_logging import _adopt, _journal, _journal_files
from ai_response_logging._options import Options
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.record import seal, tail_of

pytestmark = [pytest.mark.faults]

DEAD = """
import logging, os, signal, sys
from ai_response_logging.handler import AIResponseHandler

handler = AIResponseHandler(sys.argv[1])
for number in range(5):
    handler.submit(logging.makeLogRecord({"msg": "m", "record_id": f"r-{number}"}))
os.kill(os.getpid(), signal.SIGKILL)
"""
GONE = "host-1-18c-0123456789abcdef"


class Unlisted:
    """Lets the *at*-th listing of a journal directory fail, once, with *error*."""

    def __init__(self, at: int, error: int) -> None:
        self.at, self.error, self.seen, self.list = at, error, 0, os.listdir

    def __call__(self, path: Any = ".") -> list[str]:
        if str(path).endswith(".journal"):
            self.seen += 1
            if self.seen == self.at:
                raise OSError(self.error, os.strerror(self.error), path)
        return self.list(path)


class ClosedWithEIO(FileIO):
    """Is closed like any other, and says EIO then."""

    def close(self) -> None:
        was_open = not self.closed
        super().close()
        if was_open:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO], ids=errno.errorcode.get)
def test_journal_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
):
    """Whatever listing fails while somebody adopts, once or at that moment: no record goes, each comes home once."""
    ids = [f"r-{number}" for number in range(5)]
    fired = 0
    for at in range(1, 9):
        log = log_path.with_name(f"{at}.jsonl")
        run_child(DEAD, log, expect=None)
        unlisted = Unlisted(at, error)
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", unlisted)
            AIResponseHandler(log, durability="memory").close()
        fired += unlisted.seen >= at
        AIResponseHandler(log, durability="memory").close()
        assert_all_there_once(log, ids)
        assert not log.with_name(f"{log.name}.journal").exists()
    assert fired >= 4


def test_lock_whose_closing_fails_keeps_nobody_from_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An orphan that is let go of again raises nothing, even if its lock is closed with an error."""
    journal = _journal.Journal(str(tmp_path / "a.journal"), GONE, Options())
    journal.begin(0)
    journal.keep(seal(b'{"record_id":"r-0"', tail_of(GONE), 0), 0)
    journal.close()
    opened: list[ClosedWithEIO] = []

    def open_badly(path: str, *_: Any, **__: Any) -> FileIO:
        opened.append(ClosedWithEIO(path, "r+"))
        return opened[-1]

    monkeypatch.setattr(_journal_files, "open_regular", open_badly)
    monkeypatch.setattr(os, "listdir", Unlisted(2, errno.EIO))

    assert list(_adopt.orphans(str(tmp_path / "a.journal"), 0o600)) == []
    assert [one.closed for one in opened] == [True]


def test_journal_that_cannot_be_listed_leaves_no_spare_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A segment that is kept for later is removed with its journal, whether the directory can be listed or not."""
    directory = tmp_path / "a.journal"
    journal = _journal.Journal(str(directory), GONE, Options())
    journal.begin(0)
    for seq in range(3):
        journal.keep(seal(b'{"record_id":"r-%d","x":"%b"' % (seq, b"x" * 600_000), tail_of(GONE), seq), seq)
    journal.mark(2, None)
    assert journal._spare
    monkeypatch.setattr(os, "listdir", Unlisted(1, errno.EMFILE))

    journal.remove()

    assert not directory.exists()
