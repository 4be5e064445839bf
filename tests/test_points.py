"""The fault injector of the gate: it notices a library that loses or doubles a record."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT, has_fork, has_gcc, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(90), has_fork, has_gcc]

INJECTOR = ROOT / ".ci" / "points.py"

NO_INTENT_ON_DISK = """
from ai_response_logging._queue import LineQueue

LineQueue.note = lambda self, intent: setattr(self, "intent", intent)
"""
FORGOTTEN_BEFORE_THE_APPEND = """
from ai_response_logging import _append
from ai_response_logging.writer import BatchFileHandler

def append_head(self, source, descriptor, info):
    lines = source.head(1 << 20)
    source.consume(len(lines))
    _append.append_block(descriptor, b"".join(lines), path=self.baseFilename)

BatchFileHandler._append_head = append_head
"""
ERROR_NOT_NOTICED = """
import contextlib
from ai_response_logging import _append
from ai_response_logging.errors import AppendError

real = _append.append_block

def append_block(descriptor, block, *, path):
    with contextlib.suppress(AppendError):
        real(descriptor, block, path=path)

_append.append_block = append_block
"""
NO_JOURNAL = """
from ai_response_logging.writer import BatchFileHandler

BatchFileHandler.open_journal = lambda self: True
"""
COUNTED_TWICE = """
from ai_response_logging.writer import BatchFileHandler

real = BatchFileHandler.get_stats
BatchFileHandler.get_stats = lambda self: {**real(self), "written": real(self)["written"] * 2}
"""


def inject(folder: Path, *points: str, broken: Path | None = None, expect: int = 0) -> str:
    """Inject faults at *points* of the plain scenario, into a library that is *broken* first; return what it said."""
    arguments = ["--only", "plain", "--jobs", "1", *(word for point in points for word in ("--point", point))]
    breaks = ["--break", broken] if broken else []
    return run_child(INJECTOR, *arguments, *breaks, expect=expect, timeout=60, env={"TMPDIR": str(folder)}).stdout


@pytest.mark.parametrize(
    ("code", "point", "says"),
    [
        (NO_INTENT_ON_DISK, "write:after:1", "doubled ['p-0'"),
        (FORGOTTEN_BEFORE_THE_APPEND, "write:before:1", "lost ['p-0'"),
        (ERROR_NOT_NOTICED, "write:ENOSPC:1", "lost ['p-0'"),
        (NO_JOURNAL, "line:400", "in the end: lost ['p-0'"),
        (COUNTED_TWICE, "write:EIO:1", "the counters do not add up"),
    ],
)
def test_broken_library_is_noticed(tmp_path: Path, code: str, point: str, says: str):
    """A library that loses or doubles a record, or counts wrong, fails, with what repeats it."""
    broken = tmp_path / "broken.py"
    broken.write_text(code, "utf-8")

    said = inject(tmp_path, point, broken=broken, expect=1)

    assert f"FAILED --only plain --point {point} " in said
    assert says in said
    assert "1 FAILED" in said


def test_whole_library_passes_where_the_broken_ones_fail(tmp_path: Path):
    """The same faults, and others in the same places, cost the library nothing, and each of them is injected."""
    points = [
        "write:after:1",
        "write:before:1",
        "write:half:1",
        "write:ENOSPC:1",
        "write:part:1",
        "line:400",
        "line:401",
    ]

    said = inject(tmp_path, *points, "pwrite:half:3", "open:EMFILE:1+")

    assert "injected 9 in" in said
    assert "lost 0, doubled 0, torn 0" in said


def test_fault_that_never_happens_fails(tmp_path: Path):
    """What injects nothing shows nothing."""
    assert "no fault was injected" in inject(tmp_path, "write:EIO:999", expect=1)
