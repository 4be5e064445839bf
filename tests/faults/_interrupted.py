"""
Interrupts one call at every point where a signal's handler can run; a child process of test_interrupt.py.

CPython looks for signals where a function begins and where a C call is over.  A profile function is called exactly
there, in the thread that set it; what it raises goes where a signal handler's exception would go, and what it calls
runs as a signal's handler would.

argv: what the "signal handler" does, the call that it interrupts, a folder.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ai_response_logging.handler import AIResponseHandler

HANG_S = 3.0


class ThrownIn(BaseException):
    """Stands for whatever a signal's handler raises."""


class Hang(BaseException):
    """A call did not come back."""


class Interrupter:
    """Does *act* at the *point*-th place where a signal could arrive."""

    def __init__(self, point: int, act: Callable[[], object]) -> None:
        self.left, self.act, self.where = point, act, ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Count one place; it is what sys.setprofile calls."""
        if event not in {"call", "c_return"} or frame.f_code.co_filename == __file__:
            return
        self.left -= 1
        if self.left == 0:
            called = getattr(arg, "__name__", "")
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name} {called}"
            sys.setprofile(None)
            self.act()


class Case:
    """One handler on a file of its own, a call, and what interrupts it."""

    def __init__(self, log: Path, call: str, act: str) -> None:
        self.log, self.call = log, call
        self.handler = AIResponseHandler(
            log, durability="memory", batch_size=10_000, flush_interval=1000, retry_delay=0.001, lock_timeout=0.02,
            caller_timeout=0.2, close_timeout=0.05, queue_max_size=2 if "queue full" in call else 1000,
        )  # fmt: skip
        self.accepted: list[str] = []
        self.act = {
            "throw": throw,
            "log": lambda: self.submit("from inside"),
            "flush": self.handler.flush,
            "close": self.handler.close,
        }[act]

    def submit(self, record_id: str) -> None:
        """Log one record, and remember it if it was accepted."""
        if self.handler.submit(logging.makeLogRecord({"msg": "m", "record_id": record_id})) != "failed":
            self.accepted.append(record_id)

    def begin(self) -> None:
        """Bring the handler where the call is to find it."""
        if self.call != "first log":
            self.submit("before-0")
            self.submit("before-1")

    def interrupt(self, point: int) -> str:
        """Make the call and interrupt it at *point*; return where that was, nothing if it was over before."""
        interrupter = Interrupter(point, self.act)
        sys.setprofile(interrupter)
        try:
            {"flush": self.handler.flush, "close": self.handler.close}.get(self.call, self.submit_it)()
        except ThrownIn:
            pass
        finally:
            sys.setprofile(None)
        return interrupter.where

    def submit_it(self) -> None:
        """Make the call that is a record."""
        self.submit("interrupted")

    def what_is_wrong(self) -> list[str]:
        """Go on logging, and return each part of the promise that does not hold any more."""
        wrong = ["other processes wait for a lock that nobody uses"] * self.is_locked()
        count = len(self.accepted)
        self.submit("after-0")
        self.submit("after-1")
        wrong += ["a later record is refused"] * (len(self.accepted) != count + 2)
        flushed: list[bool] = []
        thread = threading.Thread(target=lambda: flushed.append(self.handler.flush(2)))
        thread.start()
        thread.join()
        wrong += ["another thread cannot flush"] * (flushed != [True])
        stats = self.handler.get_stats()
        parts = stats["written"] + stats["written_sync"] + stats["pending"] + stats["failed"]
        wrong += [f"the counters do not add up: {stats}"] * (stats["accepted"] != parts)
        self.handler.close()
        return wrong + self.what_is_wrong_in_the_log()

    def is_locked(self) -> bool:
        """Say whether another process would wait for the log now."""
        with self.log.with_name(f".__{self.log.name}.lock").open("a") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def what_is_wrong_in_the_log(self) -> list[str]:
        """Return which record is not there once, and which number is."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines(keepends=True)]
        found = Counter(line["record_id"] for line in lines)
        wrong = [f"{id_} is there {found[id_]} times" for id_ in self.accepted if found[id_] != 1]
        wrong += [f"{id_} is there twice" for id_, times in found.items() if times > 1 and id_ not in self.accepted]
        numbers = sorted(line["seq"] for line in lines)
        return wrong + [f"the numbers are {numbers}"] * (numbers != list(range(len(numbers))))


def throw() -> NoReturn:
    """Do what the handler of Ctrl-C does."""
    raise ThrownIn


def give_up(*_: object) -> NoReturn:
    """End a call that hangs."""
    raise Hang


def without_threads(_: threading.Thread) -> NoReturn:
    """Stand in for Thread.start on a system that gives no thread."""
    raise RuntimeError("can't start new thread")


def try_point(case: Case, point: int) -> tuple[str, list[str]]:
    """Interrupt *case* at *point*; return where that was and what is wrong after it."""
    start = threading.Thread.start
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    where = f"point {point}"
    try:
        if "no thread" in case.call:
            threading.Thread.start = without_threads  # type: ignore[method-assign]
        case.begin()
        where = case.interrupt(point)
        threading.Thread.start = start  # type: ignore[method-assign]
        return where, case.what_is_wrong()
    except Hang:
        return where, ["it hangs"]
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Try every point, and print how many there were and what was wrong where."""
    act, call, folder = sys.argv[1:]
    logging.raiseExceptions = False
    signal.signal(signal.SIGALRM, give_up)
    problems, points, where = {}, 0, "somewhere"
    while where and len(problems) < 5:  # more would say the same, and a hang takes its time
        points += 1
        where, wrong = try_point(Case(Path(folder, str(points), "log.jsonl"), call, act), points)
        if wrong:
            problems[f"{points} {where}"] = wrong
    print(json.dumps({"points": points, "problems": problems}), flush=True)
    os._exit(0)  # past the ends of the handlers that hang


if __name__ == "__main__":
    main()
