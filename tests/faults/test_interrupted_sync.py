"""A call at durability power that ends in the middle of its sync, again and again, uses up no descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from _interrupter import NEVER, Interrupter
from helpers import has_proc

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


def test_no_descriptor_stays_open(tmp_path: Path):
    """Wherever it falls, all copies that the sync has made are closed."""
    handler = AIResponseHandler(tmp_path / "log.jsonl", durability="power", batch_size=1000, flush_interval=1000)
    handler.submit_fields({"response": "r"})
    queue = handler._pipeline.queue
    journal = queue.keeper
    assert journal is not None

    def sync() -> None:
        journal._names_made += 1  # then the lock file and the directory are synced as well
        journal.sync(queue.lock)

    points = interrupt(sync, NEVER).seen
    open_now, left = len(os.listdir("/proc/self/fd")), {}
    for point in range(1, points + 1):
        where = interrupt(sync, point).where
        if (more := len(os.listdir("/proc/self/fd"))) != open_now:
            left[where], open_now = more - open_now, more
    handler.close()

    assert points > 20
    assert not left
