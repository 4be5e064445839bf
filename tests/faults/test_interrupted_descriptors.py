"""Calls that an exception from outside ends, again and again, use up no descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from _interrupter import NEVER, Interrupter
from helpers import has_proc

from ai_response_logging._paths import open_regular
from ai_response_logging.handler import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_proc]


def interrupt(call: Callable[[], object], point: int) -> Interrupter:
    """Let an exception fall into *call* where a signal handler's would."""

    def throw() -> None:
        raise KeyboardInterrupt

    interrupter = Interrupter(point, throw)
    with contextlib.suppress(KeyboardInterrupt):
        interrupter.run("signal", call)
    gc.collect()  # what nobody holds any more the collector closes, here at the latest
    return interrupter


def left_open(call: Callable[[], object]) -> tuple[int, dict[str, int]]:
    """Interrupt *call* wherever it can be; return at how many places, and how many descriptors that left open where."""
    gc.collect()
    gc.freeze()  # else each of the collections goes through all that the tests before this one have left
    points = interrupt(call, NEVER).seen
    open_now, left = len(os.listdir("/proc/self/fd")), {}
    for point in range(1, points + 1):
        where = interrupt(call, point).where
        if (more := len(os.listdir("/proc/self/fd"))) != open_now:
            left[where], open_now = more - open_now, more
    gc.unfreeze()
    return points, left


def test_sync_leaves_no_copy_open(tmp_path: Path):
    """Wherever it falls, all copies that a call at power has made for its sync are closed."""
    handler = AIResponseHandler(tmp_path / "log.jsonl", durability="power", batch_size=1000, flush_interval=1000)
    handler.submit_fields({"response": "r"})
    queue = handler._pipeline.queue
    journal = queue.keeper
    assert journal is not None

    def sync() -> None:
        journal._names_made += 1  # then the lock file and the directory are synced as well
        journal.sync(queue.lock)

    points, left = left_open(sync)
    handler.close()

    assert points > 20
    assert not left


@pytest.mark.parametrize("is_new", [True, False])
def test_file_is_open_and_owned_or_neither(tmp_path: Path, is_new: bool):
    """Wherever it falls, a file that was opened has somebody who closes it."""
    path = tmp_path / "file"

    def open_and_close() -> None:
        if is_new:
            path.unlink(missing_ok=True)
        open_regular(str(path), os.O_RDWR, 0o600).close()

    points, left = left_open(open_and_close)

    assert points > 10
    assert not left
