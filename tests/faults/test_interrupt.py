"""An interruption at every point of a call: run on request, until the next issue makes it hold everywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import run_child

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        "AI_RESPONSES_TEST_INTERRUPT" not in os.environ,
        reason="not promised yet: 15 of 24 hold; the rest is in starting and closing (issue 2 of 8, exceptions)",
    ),
]

CALLS = ["first log", "log", "log, queue full", "log, no thread to be had", "flush", "close"]


def interrupt_everywhere(act: str, call: str, folder: Path) -> None:
    """Interrupt *call* by *act* at every point where a signal can arrive, and assert that all is well after each."""
    done = run_child(Path(__file__).with_name("_interrupted.py"), act, call, folder, timeout=50)
    result = json.loads(done.stdout)

    assert not result["problems"], json.dumps(result["problems"], indent=1)
    assert result["points"] > 30


@pytest.mark.parametrize("call", CALLS)
def test_exception_thrown_in_at_any_point_leaves_everything_in_order(tmp_path: Path, call: str):
    """Wherever Ctrl-C arrives, no lock stays held, no line is half or doubled, and what follows is recorded."""
    interrupt_everywhere("throw", call, tmp_path)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("act", ["log", "flush", "close"])
def test_signal_handler_at_any_point_neither_hangs_nor_loses(tmp_path: Path, act: str, call: str):
    """A signal handler may log, flush and close whatever it interrupts: every record is there once, none hangs."""
    interrupt_everywhere(act, call, tmp_path)
