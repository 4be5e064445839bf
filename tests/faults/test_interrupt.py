"""
An interruption wherever a call of ours can be interrupted.

A run tries a sample, and each call in each way at one durability, both by the seed that a failure shows;
AI_RESPONSES_TEST_EVERY_POINT=1 tries all, as `.ci/run full` does, and AI_RESPONSES_TEST_SEED=N repeats a sample.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from helpers import run_child

TRIES_ALL = "AI_RESPONSES_TEST_EVERY_POINT" in os.environ
SAMPLE = 0 if TRIES_ALL else 6
SEED = os.environ.get("AI_RESPONSES_TEST_SEED") or str(random.SystemRandom().randrange(1_000_000))

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1500 if TRIES_ALL else 120)]

CALLS = [
    "first log", "log", "log, queue full", "log, no thread to be had", "log, queue full and log locked", "flush",
    "close", "close, log locked",
]  # fmt: skip


THROWN = {
    "Ctrl-C or a nearly full stack": ("throw", "signal,line,stack"), "MemoryError": ("memory", "signal,line"),
    "TimeoutError of an alarm": ("timeout", "signal,line"),
}  # fmt: skip
INSIDE = {"a signal handler": ("log,flush,close", "signal")}
DURABILITIES = ["memory", "crash"]


def each_call(kinds: dict[str, tuple[str, str]]) -> pytest.MarkDecorator:
    """Interrupt each call in each of *kinds*: at both durabilities in a full run, else the next at the other."""
    cases = []
    for turn, (kind, call) in enumerate((kind, call) for call in CALLS for kind in kinds):
        chosen = DURABILITIES if TRIES_ALL else [DURABILITIES[(turn + int(SEED)) % 2]]
        cases += [pytest.param(*kinds[kind], call, one, id=f"{one}-{kind}-{call}") for one in chosen]
    return pytest.mark.parametrize(("acts", "ways", "call", "durability"), cases)


def interrupt(acts: str, ways: str, call: str, durability: str, folder: Path) -> None:
    """Interrupt *call* by each of *acts* in each of *ways*, at some points or all; after each all must be well."""
    child, env = Path(__file__).with_name("_interrupted.py"), {"DURABILITY": durability}
    done = run_child(child, acts, ways, call, folder, SAMPLE, SEED, timeout=1400 if TRIES_ALL else 110, env=env)
    result = json.loads(done.stdout)
    kinds = (acts.count(",") + 1) * (ways.count(",") + 1)
    print(f"seed {SEED}: interrupted at {result['fired']} of {result['points']} points")

    assert not result["problems"], json.dumps(result["problems"], indent=1)
    assert result["points"] >= 20 * kinds
    # A thread that is quicker than in the count before may leave fewer points than there were.
    assert result["fired"] >= (result["points"] * 0.9 if TRIES_ALL else SAMPLE * kinds / 2)


@each_call(THROWN)
def test_exception_thrown_in_at_any_point_leaves_everything_in_order(
    tmp_path: Path, acts: str, ways: str, call: str, durability: str
):
    """Wherever it falls, no lock stays held, no line is half or doubled, counters add up, what follows is recorded."""
    interrupt(acts, ways, call, durability, tmp_path)


@each_call(INSIDE)
def test_signal_handler_at_any_point_neither_hangs_nor_loses(
    tmp_path: Path, acts: str, ways: str, call: str, durability: str
):
    """A signal handler may log, flush and close whatever it interrupts: every record is there once, none hangs."""
    interrupt(acts, ways, call, durability, tmp_path)
