"""The meetings of the gate: they notice a library in which two processes on one log lose a record between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT, has_fork, has_gcc, has_proc, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(90), has_fork, has_gcc, has_proc]

MEETINGS = ROOT / ".ci" / "meetings.py"

LOG_BEFORE_JOURNALS = """
from ai_response_logging import reader

journal_lines, snapshot, early = reader.journal_lines, reader.LogSnapshot, []

def lines(path, on_unread):
    early.append(snapshot(path))
    yield from journal_lines(path, on_unread)

reader.journal_lines = lines
reader.LogSnapshot = lambda path, **options: early.pop() if early else snapshot(path, **options)
"""
POINTS = ("--at", "60", "--at", "75", "--at", "90")


def meet(folder: Path, *arguments: str, broken: str = "", expect: int = 0) -> str:
    """Let a reader meet somebody who brings home what it reads, in a *broken* library; return what was said."""
    (file := folder / "broken.py").write_text(broken, "utf-8")
    who = ("--first", "read", "--second", "adopt", "--ground", "orphaned", "--jobs", "1", "--break", file)
    return run_child(MEETINGS, *who, *arguments, expect=expect, timeout=60, env={"TMPDIR": str(folder)}).stdout


def test_broken_library_is_noticed(tmp_path: Path):
    """A reader that opens the log first misses what comes home behind its back."""
    said = meet(tmp_path, *POINTS, broken=LOG_BEFORE_JOURNALS, expect=1)

    assert "FAILED --first read --second adopt --ground orphaned --at " in said
    assert "a: not shown ['gone-" in said


def test_whole_library_passes_where_the_broken_one_fails(tmp_path: Path):
    """The same meetings, and one in which the other one is held as well, cost nothing; each of them takes place."""
    assert "3 meetings in " in (said := meet(tmp_path, *POINTS))
    assert "lost 0, doubled 0, torn 0" in said
    assert "1 meetings in " in (said := meet(tmp_path, "--at", "75", "--then", "60"))
    assert "lost 0, doubled 0, torn 0" in said


def test_meeting_that_never_takes_place_fails(tmp_path: Path):
    """What holds nobody shows nothing."""
    assert "FAILED read was never held" in meet(tmp_path, "--at", "99999", expect=1)
