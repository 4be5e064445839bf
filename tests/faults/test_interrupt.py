"""An exception thrown in from outside (Ctrl-C, an alarm, a soft time limit), at every point where one can arrive."""

from __future__ import annotations

import fcntl
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _children import assert_sums, lock_file
from helpers import read_lines

from ai_response_logging.handler import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow]


class ThrownIn(BaseException):
    """Stands for whatever a signal's handler raises."""


class Thrower:
    """
    Throws at the *point*-th place at which CPython looks for signals: where a function begins or a C call is over.

    A profile function is called exactly there, in the thread that set it, and what it raises goes where a signal
    handler's exception would go.
    """

    def __init__(self, point: int) -> None:
        self.left, self.where = point, ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in {"call", "c_return"} or frame.f_code.co_filename == __file__:
            return
        self.left -= 1
        if self.left == 0:
            called = getattr(arg, "__name__", "")
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name} {called}"
            sys.setprofile(None)
            raise ThrownIn


def submit(handler: AIResponseHandler, record_id: str) -> str:
    """Log one record."""
    return handler.submit(logging.makeLogRecord({"msg": "m", "record_id": record_id}))


def interrupt(work: Callable[[], object], point: int) -> str:
    """Do *work* and throw at *point*; return where that was, nothing if the work was over before."""
    thrower = Thrower(point)
    sys.setprofile(thrower)
    try:
        work()
    except ThrownIn:
        pass
    finally:
        sys.setprofile(None)
    return thrower.where


def what_is_wrong_after(handler: AIResponseHandler, log: Path, before: list[str]) -> list[str]:
    """Go on logging after an interruption, and return each part of the promise that does not hold any more."""
    wrong = []
    with lock_file(log).open("a") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wrong.append("other processes wait for a lock that nobody uses")
    accepted = before + [id_ for id_ in ("after-0", "after-1") if submit(handler, id_) != "failed"]
    if len(accepted) != len(before) + 2:
        wrong.append("a later record is refused")
    flushed: list[bool] = []
    thread = threading.Thread(target=lambda: flushed.append(handler.flush(0.2)))
    thread.start()
    thread.join()
    if flushed != [True]:
        wrong.append("another thread cannot flush")
    assert_sums(handler.get_stats())
    found = Counter(record["record_id"] for record in read_lines(log))
    wrong += [f"{id_} is there {found[id_]} times" for id_ in accepted if found[id_] != 1]
    if found["interrupted"] > 1:
        wrong.append("the interrupted record is there twice")
    return wrong


@pytest.mark.timeout(120)
@pytest.mark.parametrize("call", ["log", "log, queue full", "log, no thread to be had", "flush", "close"])
def test_exception_from_outside_at_any_point_leaves_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    """Wherever it arrives, no lock stays held, no line is half, nothing is doubled, and what follows is recorded."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    problems, point, where = {}, 0, "somewhere"
    while where or point < 5:
        point += 1
        log = tmp_path / str(point) / "log.jsonl"
        handler = AIResponseHandler(
            log, durability="memory", batch_size=10_000, flush_interval=1000, retry_delay=0.001, lock_timeout=0.2,
            caller_timeout=0.2, close_timeout=0.2, queue_max_size=2 if call == "log, queue full" else 1000,
        )  # fmt: skip
        with monkeypatch.context() as patches:
            if call == "log, no thread to be had":
                patches.setattr(threading.Thread, "start", _refuse)
            before = [id_ for id_ in ("before-0", "before-1") if submit(handler, id_) != "failed"]
            work = {"flush": handler.flush, "close": handler.close}.get(call, lambda: submit(handler, "interrupted"))
            where = interrupt(work, point)
        if wrong := what_is_wrong_after(handler, log, before):
            problems[f"{point} {where}"] = wrong
        handler.close()

    assert point > 30
    assert not problems, f"{len(problems)} of {point} points: {problems}"


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
