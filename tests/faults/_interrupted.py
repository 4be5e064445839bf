"""
Interrupts one call wherever it can be interrupted, and looks whether all is well; a child process of test_interrupt.py.

argv: what interrupts, how, the call, a folder, how many points to try (0: all), a seed. The durability is that of the
fixture.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from _interrupter import DEEPEST, NEVER, Interrupter

from ai_response_logging.handler import AIResponseHandler

HANG_S = 15.0


class ThrownIn(BaseException):
    """Stands for whatever a signal's handler raises."""


class Hang(BaseException):
    """A call did not come back."""


class Case:
    """One handler on a file of its own, a call, and what interrupts it."""

    def __init__(self, folder: Path, call: str, act: str) -> None:
        self.log, self.call = folder / "log.jsonl", call
        self.is_locked_out = "log locked" in call
        self.handler = AIResponseHandler(
            self.log, durability=os.environ["DURABILITY"], batch_size=10_000, flush_interval=1000,
            retry_delay=0.001, lock_timeout=0.02, caller_timeout=0.005 if self.is_locked_out else 0.2,
            close_timeout=0.01 if self.is_locked_out else 0.05, queue_max_size=2 if "queue full" in call else 1000,
        )  # fmt: skip
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.begun = 0
        self.act = {
            "throw": lambda: throw(ThrownIn()),
            "memory": lambda: throw(MemoryError()),
            "timeout": lambda: throw(TimeoutError()),
            "log": lambda: self.submit("from inside"),
            "flush": self.handler.flush,
            "close": self.handler.close,
        }[act]

    def submit(self, record_id: str) -> None:
        """Log one record, and remember what became of it."""
        record = logging.makeLogRecord({"msg": "m", "record_id": record_id})
        self.begun += 1
        (self.refused if self.handler.submit(record) == "failed" else self.accepted).append(record_id)

    def interrupt(self, way: str, point: int) -> Interrupter:
        """Bring the handler where the call is to find it, make the call and interrupt it at *point*."""
        interrupter = Interrupter(point, self.act)
        with self.surroundings() as lock_file, contextlib.suppress(ThrownIn, MemoryError, TimeoutError):
            if self.call != "first log":
                self.submit("before-0")
                self.submit("before-1")
            if self.is_locked_out:
                fcntl.flock(lock_file, fcntl.LOCK_EX)
            interrupter.run(way, self.make_call)
        return interrupter

    def make_call(self) -> None:
        """Make the call that is to be interrupted."""
        call = self.call.partition(",")[0]
        {"flush": self.handler.flush, "close": self.handler.close}.get(call, self.submit_it)()

    def submit_it(self) -> None:
        """Make the call that is a record."""
        self.submit("interrupted")

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[int]:
        """Let the call find the machine as it is to be; gives a descriptor by which the log can be locked."""
        start = threading.Thread.start
        if "no thread" in self.call:
            threading.Thread.start = without_threads  # type: ignore[method-assign]
        try:
            with self.lock_file.open("a") as other:
                yield other.fileno()
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]

    # -- what must hold afterwards

    @property
    def lock_file(self) -> Path:
        """The file whose lock other processes wait for."""
        return self.log.with_name(f".__{self.log.name}.lock")

    def what_is_wrong(self) -> list[str]:
        """Go on logging, and return each part of the promise that does not hold any more."""
        wrong = [f"others wait for the lock of {file.name}" for file in (self.lock_file, self.log) if is_locked(file)]
        if self.is_locked_out:  # a call that finds the queue full waits 5 ms here, and the listener may be at work
            wrong += ["it cannot flush"] * (not self.handler.flush(5))
        count = len(self.accepted)
        self.submit("after-0")
        thread = threading.Thread(target=self.go_on_in_another_thread, args=(wrong,))
        thread.start()
        thread.join()
        self.submit("after-1")
        wrong += ["a later record is refused"] * (len(self.accepted) != count + 3)
        stats = self.handler.get_stats()
        parts = stats["written"] + stats["written_sync"] + stats["pending"] + stats["failed"]
        returned = len(self.accepted) + len(self.refused)
        adds_up = stats["accepted"] == parts and returned <= stats["accepted"] <= self.begun
        wrong += [f"the counters do not add up: {stats}, {self.begun} calls, {returned} returned"] * (not adds_up)
        self.handler.close()
        self.handler.flush(5)  # the close has little time, and leaves what the machine is too busy for
        return wrong + self.what_is_wrong_in_the_log()

    def go_on_in_another_thread(self, wrong: list[str]) -> None:
        """Log, flush, and open another log: no lock of ours may belong to the thread that was interrupted."""
        self.submit("after, elsewhere")
        AIResponseHandler(self.log.with_name("other.jsonl"), durability="memory").close()
        wrong += ["another thread cannot flush"] * (not self.handler.flush(5))

    def what_is_wrong_in_the_log(self) -> list[str]:
        """Return which record is not there once, and which number is."""
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines(keepends=True)]
        found = Counter(line["record_id"] for line in lines)
        wrong = [f"{id_} is there {found[id_]} times" for id_ in self.accepted if found[id_] != 1]
        wrong += [f"{id_} is there twice" for id_, times in found.items() if times > 1 and id_ not in self.accepted]
        wrong += [f"{id_} was refused and is there" for id_ in self.refused if id_ in found]
        stats = self.handler.get_stats()
        written = stats["written"] + stats["written_sync"]
        wrong += [f"{len(lines)} lines, but counted: {stats}"] * (written != len(lines))
        numbers = sorted(line["seq"] for line in lines)
        # What a full queue had to give back had a number; what was refused at once had none.
        is_whole = len(set(numbers)) == len(numbers) and numbers[-1:] < [len(numbers) + stats["failed"]]
        return wrong + [f"the numbers are {numbers}"] * (not is_whole)


def is_locked(file: Path) -> bool:
    """Say whether another process would wait for *file*; the listener may be at work, but not for long."""
    with file.open("a") as other:
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
            time.sleep(0.01)
    return True


def throw(error: BaseException) -> NoReturn:
    """Do what the handler of a signal does that ends a call."""
    raise error


def give_up(*_: object) -> NoReturn:
    """End a call that hangs."""
    raise Hang


def without_threads(_: threading.Thread) -> NoReturn:
    """Stand in for Thread.start on a system that gives no thread."""
    raise RuntimeError("can't start new thread")


class Trials:
    """The points of one call, or a sample of them, and what was wrong after each."""

    def __init__(self, call: str, folder: Path) -> None:
        self.call, self.folder = call, folder
        self.points, self.fired, self.made = 0, 0, 0
        self.problems: dict[str, list[str]] = {}

    def run(self, act: str, way: str, most: int, chance: random.Random) -> None:
        """Find out how many points there are, and try them all, or *most*."""
        points = range(1, DEEPEST - 10)
        if way != "stack":
            seen = max(self.attempt(act, way, NEVER).seen for _ in range(2))  # the first may import something
            points = range(1, seen + 1)
        self.points += len(points)
        for point in sorted(chance.sample(points, min(most or NEVER, len(points)))):
            if len(self.problems) >= 3:  # more would say the same, and a hang takes its time
                return
            self.fired += bool(self.attempt(act, way, point).where)

    def attempt(self, act: str, way: str, point: int) -> Interrupter:
        """Interrupt a new case at *point*, and note what is wrong after it."""
        self.made += 1
        interrupter, wrong = Interrupter(point, give_up), []
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            case = Case(self.folder / str(self.made), self.call, act)
            interrupter = case.interrupt(way, point)
            wrong = case.what_is_wrong()
        except Hang:
            wrong = ["it hangs"]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if wrong:
            self.problems[f"{act} {way} {point} {interrupter.where}"] = wrong
        return interrupter


def main() -> None:
    """Try the points, and print how many there were and what was wrong where."""
    acts, ways, call, folder, most, seed = sys.argv[1:]
    logging.raiseExceptions = False
    signal.signal(signal.SIGALRM, give_up)
    trials, chance = Trials(call, Path(folder)), random.Random(seed)
    for act in acts.split(","):
        for way in ways.split(","):
            trials.run(act, way, int(most), chance)
    print(json.dumps({"points": trials.points, "fired": trials.fired, "problems": trials.problems}), flush=True)
    os._exit(0)  # past the ends of the handlers that hang


if __name__ == "__main__":
    main()
