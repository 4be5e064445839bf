"""
One measurement in a fresh process: ``worker.py NAME ARGUMENTS-AS-JSON`` prints one JSON document.

Started by compare.py, acceptance.py and growth.py.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from contenders import Contender, contender
from records import ID, stock

HERE: Final = Path(__file__).resolve().parent
Result = dict[str, Any]


class MeasurementError(Exception):
    """A worker ended with an error."""


@contextlib.contextmanager
def started(name: str, /, *wrap: str, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the measurement *name* behind the command *wrap*; it is dead and reaped when the block ends."""
    command = [*wrap, sys.executable, str(HERE / "worker.py"), name, json.dumps(arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def run(name: str, /, *wrap: str, timeout_s: float = 300.0, **arguments: Any) -> Result:
    """
    Return what the measurement *name* finds in a process of its own.

    Raises:
        MeasurementError: It ended with an error, or not at all.
    """
    with started(name, *wrap, **arguments) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"{name}: no end after {timeout_s} s") from None
        if process.returncode:
            raise MeasurementError(f"{name}: ended with {process.returncode}: {err[-400:]}")
    found: Result = json.loads(out.splitlines()[-1])
    return found


def quantiles_us(times_ns: list[int]) -> list[float]:
    """Return median, p95 and p99 in microseconds."""
    ordered = sorted(times_ns)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000 for share in (0.5, 0.95, 0.99)]


def rss_mb() -> float:
    """Return the memory that this process has in use, in MB."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def check(path: str, expected: int) -> Result:
    """Return how many of *expected* records are lost, doubled and torn in the log and its rotated files."""
    seen: Counter[str] = Counter()
    torn = 0
    for file in Path(path).parent.glob(f"{Path(path).name}*"):
        # What a killed writer left of a line, and the next one set aside, is no part of the log.
        if not file.is_file() or ".torn-" in file.name:
            continue
        with file.open("rb") as lines:
            for line in lines:
                try:
                    seen[json.loads(line)[ID]] += 1
                except (ValueError, KeyError, TypeError):
                    torn += 1
    return {"lost": expected - len(seen), "doubled": seen.total() - len(seen), "torn": torn}


class Stage:
    """A contender on a log of its own, and how many records it was given."""

    def __init__(self, name: str, path: str, **options: Any) -> None:
        self.path = path
        self.one: Contender = contender(name, path, **options)
        self.total = 0

    def records(self, count: int, answer: int | None = None) -> list[dict[str, Any]]:
        """Return *count* new records, out of the garbage collector's sight."""
        tag = f"{os.getpid()}-{self.total}"
        made = stock(count, tag) if answer is None else stock(count, tag, answer)
        self.total += count
        gc.collect()
        gc.freeze()
        return made

    def warm_up(self, count: int = 200) -> None:
        """Log a few, so that no first time is measured."""
        for record in self.records(count):
            self.one.log(record)
        self.one.flush()

    def times_ns(self, count: int, per_second: float = 0.0) -> list[int]:
        """Return what each of *count* calls took, at so many a second; 0 for one right after the other."""
        log, clock, taken = self.one.log, time.perf_counter_ns, []
        next_s = time.perf_counter()
        for record in self.records(count):
            if per_second:
                next_s += 1 / per_second
                time.sleep(max(0.0, next_s - time.perf_counter()))
            began = clock()
            log(record)
            taken.append(clock() - began)
        self.one.flush()
        return taken

    def many(self, count: int, threads: int) -> tuple[float, float]:
        """Return seconds and seconds of CPU until *count* records, by so many threads, are in the log."""
        log = self.one.log
        piles = [self.records(count // threads) for _ in range(threads)]
        start = threading.Barrier(threads + 1)

        def work(pile: list[dict[str, Any]]) -> None:
            start.wait()
            for record in pile:
                log(record)

        workers = [threading.Thread(target=work, args=(pile,)) for pile in piles]
        for one in workers:
            one.start()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        start.wait()
        for one in workers:
            one.join()
        self.one.flush()
        return time.perf_counter() - wall_s, time.process_time() - cpu_s

    def beside_a_busy_thread_us(self, count: int) -> float:
        """Return what a call takes on average while another thread computes in Python."""
        going = True

        def compute() -> None:
            number = 0
            while going:
                number += 1

        busy = threading.Thread(target=compute, daemon=True)
        busy.start()
        taken = self.times_ns(count)
        going = False
        busy.join()
        return statistics.fmean(taken) / 1000

    def end(self) -> Result:
        """Log 1,000 more, close, and return how long that took and what is in the log."""
        for record in self.records(1000):
            self.one.log(record)
        began = time.perf_counter()
        self.one.close()
        return {"close_ms": (time.perf_counter() - began) * 1000, "check": check(self.path, self.total)}


def calls(name: str, count: int, *, writes: bool) -> Result:
    """What the calls of one contender take, flat out, paced, with 1 and 8 threads, and whether its log is whole."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(name, f"{folder}/log.jsonl")
        stage.warm_up()
        found: Result = {
            "paced_us": quantiles_us(stage.times_ns(count // 2, per_second=2000)),
            "flat_us": quantiles_us(stage.times_ns(count)),
        }
        wall_s, cpu_s = stage.many(count, threads=1)
        found |= {"cpu_us": cpu_s / count * 1e6, "rps_1": count / wall_s}
        wall_s, _ = stage.many(count, threads=8)
        found |= {"rps_8": count // 8 * 8 / wall_s, "busy_us": stage.beside_a_busy_thread_us(60)}
        found |= stage.end()
        if not writes:
            found["check"] = None
    return found


def member(name: str, path: str, count: int, options: dict[str, Any] | None = None) -> Result:
    """One of several processes with one log: says when it is ready, and begins when it is told."""
    stage = Stage(name, path, **(options or {}))
    stage.warm_up(20)
    pile = stage.records(count)
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_s = time.process_time()
    for record in pile:
        stage.one.log(record)
    stage.one.flush()
    ended_s, cpu_s = time.perf_counter(), time.process_time() - cpu_s
    rss = rss_mb()
    stage.one.close()
    return {"ended_s": ended_s, "cpu_s": cpu_s, "rss_mb": rss, "logged": stage.total}


def processes(name: str, count: int, of: int, options: dict[str, Any] | None = None) -> Result:
    """Start *of* processes that log *count* records each into one log; their records a second and CPU a record."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as children:
        path = f"{folder}/log.jsonl"
        members = [
            children.enter_context(started("member", name=name, path=path, count=count, options=options))
            for _ in range(of)
        ]
        for one in members:
            if one.stdout is None or one.stdout.readline() != "ready\n":
                raise MeasurementError(f"{name}: a process ended early: {one.communicate()[1][-400:]}")
        began_s = time.perf_counter()  # one clock for all processes of the machine
        for one in members:
            if one.stdin is not None:
                one.stdin.write("\n")
                one.stdin.flush()
        ends = [json.loads(one.communicate()[0].splitlines()[-1]) for one in members]
        return {
            "rps": count * of / (max(end["ended_s"] for end in ends) - began_s),
            "cpu_us": sum(end["cpu_s"] for end in ends) / count / of * 1e6,
            "rss_mb": max(end["rss_mb"] for end in ends),
            "check": check(path, sum(end["logged"] for end in ends)),
        }


def main() -> None:
    """Do what the command line says."""
    import growing
    import scenarios

    measures: dict[str, Callable[..., Result]] = {"calls": calls, "member": member, "processes": processes}
    measures |= scenarios.MEASURES | growing.MEASURES
    print(json.dumps(measures[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
