"""Calls that an exception from outside ends, again and again, use up no descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from _interrupter import NEVER, Interrupter
from helpers import has_proc

from ai_response_logging._paths import _HIGH as HIGH
from ai_response_logging._paths import OwnFile, open_regular
from ai_response_logging.blobs import BlobStore
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


def test_large_text_that_is_there_already_is_looked_at_and_closed(tmp_path: Path):
    """Wherever it falls while a text is compared, synced and used again, its file is closed."""
    store = BlobStore(str(tmp_path / "log.jsonl"), file_mode=0o600, directory_mode=0o700, is_synced=True)
    store.keep(b"x" * 40_000)

    points, left = left_open(lambda: store.keep(b"x" * 40_000))

    assert points > 20
    assert not left


@pytest.mark.parametrize("is_new", [True, False])
def test_file_that_the_application_gets_under_its_number_meanwhile_is_left_alone(tmp_path: Path, is_new: bool):
    """Whenever another thread closes all low descriptors and opens its own, ours is what stands at the path."""
    path, strangers = tmp_path / "file", tmp_path / "strangers"
    stranger, taken, asked = os.open(strangers, os.O_RDWR | os.O_CREAT), [], 0

    def take() -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not OwnFile.close.__code__:
            frame = frame.f_back
        # The kernel has no call that closes a number if it is still ours: not between the look and the close.
        numbers = [] if frame is not None else map(int, os.listdir("/proc/self/fd"))
        taken.extend(os.dup2(stranger, one) for one in numbers if one < HIGH and is_at(one, path))

    def open_it() -> None:
        file = open_regular(str(path), os.O_RDWR, 0o600)
        assert is_at(file.fileno(), path)
        file.close()

    while True:
        asked, before = asked + 1, len(taken)
        path.unlink(missing_ok=True)
        if not is_new:
            path.touch()
        interrupter = Interrupter(asked, take)
        interrupter.run("signal", open_it)
        if not interrupter.where:
            break
        for number in taken[before:]:
            assert is_at(number, strangers), interrupter.where
            os.close(number)
    os.close(stranger)

    assert len(taken) > 10


def is_at(number: int, path: Path) -> bool:
    """Say whether descriptor *number* leads to what stands at *path*."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(number), path.stat())
    return False
