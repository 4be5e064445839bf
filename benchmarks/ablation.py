"""
What each part of a drain costs: the same drain without it, and the difference.

Usage: python benchmarks/ablation.py [--rounds 15] [--markdown]

Nobody else is at work in the process, so these are costs and no waits: CPU of the thread, the median drain of a
round and the least of the rounds, in which the variants take turns. Where the interpreter lock is contended, a call
that gives it up may cost a hand-over more, which this does not show. What is left when a part is taken out no longer
keeps what that part keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import orjson
import records
import tables

from ai_response_logging import _append, _lock
from ai_response_logging._journal_files import JournalFiles
from ai_response_logging.writer import BatchFileHandler

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LINES: Final = (1, 10, 100)
DRAINS: Final = {1: 100, 10: 40, 100: 16}  # of each variant, a round
BARE: Final = "for comparison: join and one write"
HEADS: Final = ["part", *(f"µs a drain of {count}" for count in LINES), f"µs a record, drains of {LINES[-1]}"]


def parts(writer: BatchFileHandler) -> dict[str, AbstractContextManager[Any]]:
    """Return what takes each part out of the drains of *writer*, by its name."""
    take, queue, log = _lock.flock, writer.queue, writer.stream
    descriptor = -1 if log is None else log.fileno()
    there = os.fstat(descriptor)

    def nothing(*_: object, **__: object) -> None: ...

    def ready(*_: object) -> tuple[int, os.stat_result]:  # no Mock: that one takes as long as what it stands for
        return descriptor, there

    def lock_only(file: Any, how: int) -> None:
        if how != _lock.LOCK_UN:  # taken again, and so as quick as if it had been given back
            take(file, how)

    def forget(count: int, **_: object) -> None:  # as any queue does, so that the next drain finds its own lines
        del queue._lines[:count]  # noqa: SLF001
        queue._consumed, queue.intent = queue._consumed + count, None  # noqa: SLF001

    return {
        "": contextlib.nullcontext(),
        "lock file: taken, looked at": mock.patch.object(writer, "_acquire_lock", nothing),
        "log: locked, looked at, its end": mock.patch.object(writer, "_ready_stream", ready),
        "journal: two marks": mock.patch.object(JournalFiles, "mark", nothing),
        "one write (and not the join)": mock.patch.object(_append, "append_block", nothing),
        "both locks given back": mock.patch.object(_lock, "flock", lock_only),
        "lines taken off the queue, the second mark": mock.patch.object(queue, "consume", forget),
    }


def drain_us(writer: BatchFileHandler, bodies: list[bytes], left_out: AbstractContextManager[Any]) -> float:
    """Return the CPU of a drain of *bodies* with a part *left_out*, in microseconds."""
    taken_s: list[float] = []
    with left_out:
        for _ in range(DRAINS[len(bodies)]):
            for body in bodies:
                writer.queue.put(body)
            began_s = time.thread_time()
            writer.attempt(5.0)
            taken_s.append(time.thread_time() - began_s)
    return statistics.median(taken_s) * 1e6


def bare_us(descriptor: int, bodies: list[bytes]) -> float:
    """Return the CPU of joining as many bytes and one write of them: what no logger that writes a block can save."""
    taken_s: list[float] = []
    for _ in range(DRAINS[len(bodies)]):
        lines = [body + b"}\n" for body in bodies]
        began_s = time.thread_time()
        os.write(descriptor, b"".join(lines))
        taken_s.append(time.thread_time() - began_s)
    return statistics.median(taken_s) * 1e6


def one_round(bodies: list[bytes]) -> dict[str, float]:
    """Return what a drain of *bodies* takes without each part, in microseconds, and what a bare write takes."""
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/bare", "ab", buffering=0) as bare:
        writer = BatchFileHandler(f"{folder}/log.jsonl", durability="crash")
        writer.is_owned = True
        writer.open_journal()
        drain_us(writer, bodies, contextlib.nullcontext())  # the first one sets things up
        taken = {name: drain_us(writer, bodies, left_out) for name, left_out in parts(writer).items()}
        writer.is_owned = False
        writer.close()
        return {**taken, BARE: bare_us(bare.fileno(), bodies)}


def measure(rounds: int) -> dict[str, dict[int, float]]:
    """Return what a drain, each of its parts, and a bare write of the same bytes cost, in microseconds."""
    costs: dict[str, dict[int, float]] = {}
    for count in LINES:
        bodies = [orjson.dumps(records.make(number, "ablation"))[:-1] for number in range(count)]
        found = [one_round(bodies) for _ in range(rounds)]
        least = {name: min(one[name] for one in found) for name in found[0]}
        for name, took in least.items():
            costs.setdefault(name or "a drain", {})[count] = took if name in {"", BARE} else least[""] - took
    return costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    costs = measure(options.rounds)
    rows = [
        [name, *(f"{cost[count]:.1f}" for count in LINES), f"{cost[LINES[-1]] / LINES[-1]:.2f}"]
        for name, cost in costs.items()
    ]
    print(tables.machine(), tables.command(), sep="\n", end="\n\n")
    print(tables.table(HEADS, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
