"""
Interrupts one call wherever it can be interrupted; a child process of test_interrupt.py.

Three ways.  CPython looks for signals where a function begins and where a C call is over: a profile function is called
exactly there, in the thread that set it; what it raises goes where a signal handler's exception would go, and what it
calls runs as a signal's handler would.  A trace function is called before every line of ours.  And a recursion leaves
the call so many frames, until there are enough of them.

argv: what interrupts, the call, a folder, how many points to try of each kind (0: all), a seed.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import ai_response_logging
from ai_response_logging.handler import AIResponseHandler

HANG_S = 10.0
PACKAGE = str(Path(ai_response_logging.__file__ or "").parent)
DEEPEST = 100  # frames that the deepest of all calls does not need
NEVER = 1 << 30


class ThrownIn(BaseException):
    """Stands for whatever a signal's handler raises."""


class Hang(BaseException):
    """A call did not come back."""


class Interrupter:
    """Does *act* at the *point*-th place where it may, and says where that was."""

    def __init__(self, point: int, act: Callable[[], object]) -> None:
        self.point, self.act, self.seen, self.where = point, act, 0, ""

    def between_calls(self, frame: FrameType, event: str, arg: Any) -> None:
        """Count a place where a signal's handler runs; for sys.setprofile."""
        if event in {"call", "c_return"} and frame.f_code.co_filename != __file__ and not is_of_logging_s_lock(frame):
            self._count(frame, getattr(arg, "__name__", ""))

    def between_lines(self, frame: FrameType, *_: object) -> Any:
        """Count the lines of a frame of ours; for sys.settrace."""
        file, before = frame.f_code.co_filename, 0
        if not file.startswith(PACKAGE):
            return None

        def each(frame: FrameType, event: str, _: object) -> Any:
            nonlocal before
            if event == "line":
                if not is_leaving(file, before, frame.f_lineno):
                    self._count(frame, "line")
                before = frame.f_lineno
            return each

        return each

    def _count(self, frame: FrameType, what: str) -> None:
        self.seen += 1
        if self.seen == self.point:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name} {what}"
            sys.setprofile(None)
            sys.settrace(None)
            self.act()


class Case:
    """One handler on a file of its own, a call, and what interrupts it."""

    def __init__(self, folder: Path, call: str, act: str) -> None:
        self.log, self.call = folder / "log.jsonl", call
        self.is_locked_out = "log locked" in call
        self.handler = AIResponseHandler(
            self.log, durability="memory", batch_size=10_000, flush_interval=1000, retry_delay=0.001,
            lock_timeout=0.02, caller_timeout=0.005 if self.is_locked_out else 0.2,
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

    def play(self, way: str, point: int) -> Interrupter:
        """Bring the handler where the call is to find it, and make the call."""
        with self.surroundings():
            if self.call != "first log":
                self.submit("before-0")
                self.submit("before-1")
            if self.is_locked_out:
                self.lock_out()
            return self.interrupt(way, point)

    def interrupt(self, way: str, point: int) -> Interrupter:
        """Make the call and interrupt it at *point*; the interrupter then knows where that was."""
        interrupter = Interrupter(point, self.act)
        profile, trace = interrupter.between_calls, interrupter.between_lines  # held: 3.11 does not, while it calls one
        with contextlib.suppress(ThrownIn, MemoryError, TimeoutError, RecursionError):
            try:
                if way == "stack":
                    interrupter.where = leave_frames(point, self.make_call)
                elif way == "signal":
                    sys.setprofile(profile)
                    self.make_call()
                else:
                    sys.settrace(trace)
                    self.make_call()
            finally:
                sys.setprofile(None)
                sys.settrace(None)
        return interrupter

    def make_call(self) -> None:
        """Make the call that is to be interrupted."""
        call = self.call.partition(",")[0]
        {"flush": self.handler.flush, "close": self.handler.close}.get(call, self.submit_it)()

    def submit_it(self) -> None:
        """Make the call that is a record."""
        self.submit("interrupted")

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        """Let the call find the machine as it is to be."""
        start = threading.Thread.start
        if "no thread" in self.call:
            threading.Thread.start = without_threads  # type: ignore[method-assign]
        with self.lock_file.open("a") as other:
            self.lock_out = lambda: fcntl.flock(other, fcntl.LOCK_EX)
            try:
                yield
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
        self.handler.flush(2)  # the close has little time, and leaves what the machine is too busy for
        return wrong + self.what_is_wrong_in_the_log()

    def go_on_in_another_thread(self, wrong: list[str]) -> None:
        """Log, flush, and open another log: no lock of ours may belong to the thread that was interrupted."""
        self.submit("after, elsewhere")
        AIResponseHandler(self.log.with_name("other.jsonl"), durability="memory").close()
        wrong += ["another thread cannot flush"] * (not self.handler.flush(2))

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
        # What a full queue had to give back had a number.
        missing = set(range(len(numbers) + stats["failed"])).symmetric_difference(numbers)
        is_whole = len(set(numbers)) == len(numbers) and len(missing) == stats["failed"]
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


def leave_frames(count: int, call: Callable[[], object]) -> str:
    """Make *call* with *count* frames left on the stack, and say so."""
    limit, used, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1

    def go_down(frames: int) -> None:
        if frames:
            go_down(frames - 1)
        else:
            call()

    # Other threads begin at the bottom, and have enough.
    sys.setrecursionlimit(used + DEEPEST + 3)
    try:
        go_down(DEEPEST - count)
    except RecursionError:
        pass
    finally:
        sys.setrecursionlimit(limit)
    return f"with {count} frames left"


def is_leaving(file: str, before: int, line: int) -> bool:
    """
    Say whether *line* is a bare ``try``, one of a ``finally``, or of a ``with`` for a second time, its block left.

    A trace function sees a line there, but nothing can arrive: a ``try`` is no instruction, and the interpreter has
    looked for signals after the last call of the block, and looks again after the call that unlocks. The other way,
    between calls, tries all of that.
    """
    withs, others = exits(file)
    is_left = any(header <= line < body <= before <= end for header, body, end in withs)
    return is_left or any(begin <= line <= end for begin, end in others)


@functools.cache
def exits(file: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Return where each ``with`` of *file* begins, where its block does and ends; and each ``try`` and ``finally``."""
    nodes = list(ast.walk(ast.parse(Path(file).read_text("utf-8"))))
    withs = [(one.lineno, one.body[0].lineno, one.end_lineno or 0) for one in nodes if isinstance(one, ast.With)]
    tries = [one for one in nodes if isinstance(one, ast.Try)]
    finals = [one.finalbody for one in tries if one.finalbody]
    lines = [(body[0].lineno, body[-1].end_lineno or 0) for body in finals]
    return withs, lines + [(one.lineno, one.lineno) for one in tries]


def is_of_logging_s_lock(frame: FrameType) -> bool:
    """
    Say whether `logging` is taking or giving back its own lock, by two functions of its own until 3.12.

    What is thrown into those leaves it locked, whoever calls them; ours does when a handler is made or closed.
    """
    return frame.f_code.co_filename == logging.__file__ and frame.f_code.co_name in {"_acquireLock", "_releaseLock"}


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
    """All points of one call, or a sample of them, and what was wrong at each."""

    def __init__(self, call: str, folder: Path, most: int, chance: random.Random) -> None:
        self.call, self.folder, self.most, self.chance = call, folder, most, chance
        self.points, self.fired, self.made = 0, 0, 0
        self.problems: dict[str, list[str]] = {}

    def run(self, act: str, way: str) -> None:
        """Find out how many points there are, and try them."""
        points = range(1, DEEPEST - 10)
        if way != "stack":
            seen = max(self.attempt(act, way, NEVER).seen for _ in range(2))  # the first may import something
            points = range(1, seen + 1)
        self.points += len(points)
        for point in sorted(self.chance.sample(points, min(self.most or NEVER, len(points)))):
            if len(self.problems) >= 5:  # more would say the same, and a hang takes its time
                return
            self.fired += bool(self.attempt(act, way, point).where)

    def attempt(self, act: str, way: str, point: int) -> Interrupter:
        """Interrupt a new case at *point*, and note what is wrong after it."""
        self.made += 1
        folder = self.folder / str(self.made)
        interrupter, wrong = Interrupter(point, give_up), []
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            case = Case(folder, self.call, act)
            interrupter = case.play(way, point)
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
    acts, call, folder, most, seed = sys.argv[1:]
    logging.raiseExceptions = False
    signal.signal(signal.SIGALRM, give_up)
    trials = Trials(call, Path(folder), int(most), random.Random(seed))
    for act in acts.split(","):
        for way in ("stack",) if act == "stack" else ("signal", "line"):
            trials.run("throw" if act == "stack" else act, way)
    print(json.dumps({"points": trials.points, "fired": trials.fired, "problems": trials.problems}), flush=True)
    os._exit(0)  # past the ends of the handlers that hang


if __name__ == "__main__":
    main()
