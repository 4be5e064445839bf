"""
Where a call's time goes: what each part of it costs, alone, on fresh records.

Usage: python benchmarks/ablation_caller.py [--rounds N] [--instructions] [--markdown]

The thread that writes the log sleeps all the while, so the figures are the caller's alone.  A part that is measured in
a loop of its own is cheaper than amid the others, whose code and data it finds in the processor's caches: what is left
over in the last rows says by how much.  With --instructions each part runs under valgrind, twice, with different
numbers of calls, so that everything else cancels out; that takes a few minutes.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import orjson
import tables
from records import stock

from ai_response_logging import AIResponseFormatter, AIResponseHandler, log_ai_response
from ai_response_logging._libc import pwrite_holding
from ai_response_logging._redaction_rules import rules_of
from ai_response_logging.record import uuid7
from ai_response_logging.redaction import Names, Redactor

_CALLS: Final = 200
_FEW, _MANY = 50, 150
_ASLEEP: Final[dict[str, Any]] = {"batch_size": 10_000, "queue_max_size": 100_000, "flush_interval": 10_000}
Record = dict[str, Any]


class Part(NamedTuple):
    """What is called, and what it is called with, made of a record beforehand."""

    call: Callable[[Any], object]
    prepare: Callable[[Record], Any] = lambda record: record


def _silent(name: str, handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def _parts(handler: AIResponseHandler, folder: str) -> dict[str, Part]:
    ours, bare = _silent("ai_responses", handler), _silent("bare", logging.NullHandler())
    encoder = AIResponseFormatter()
    handler.setFormatter(encoder)
    store, file = pwrite_holding(), os.open(f"{folder}/store", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, 1 << 20)

    def made(record: Record) -> logging.LogRecord:
        return bare.makeRecord("bare", logging.INFO, "", 0, "ai_response", (), None, None, record, None)

    def line(record: Record) -> bytes:
        return encoder.encode(made(record)).body

    redactor, names = Redactor(rules_of(None)), SimpleNamespace(all=(), harmless_to=None)

    def as_given(record: Record) -> tuple[bytes, Record, list[Any], Names]:
        return orjson.dumps(record), record, [value for value in record.values() if type(value) is dict], names

    return {
        "nothing": Part(lambda _: None),
        "logging": Part(lambda record: bare.info("ai_response", extra=record)),
        "orjson": Part(orjson.dumps),
        "encode": Part(encoder.encode, made),
        "id": Part(lambda _: uuid7()),
        "secrets": Part(lambda of_record: redactor.suspects(*of_record), as_given),
        "checksum": Part(zlib.crc32, line),
        "store": Part(lambda data: store(file, data, len(data), 0), line),
        "os.pwrite": Part(lambda data: os.pwrite(file, data, 0), line),
        "Logger": Part(lambda record: ours.info("ai_response", extra=record)),
        "function": Part(lambda record: log_ai_response(**record)),
    }


@contextmanager
def _stage() -> Iterator[tuple[AIResponseHandler, dict[str, Part]]]:
    with tempfile.TemporaryDirectory() as folder:
        handler = AIResponseHandler(f"{folder}/log.jsonl", **_ASLEEP)
        try:
            yield handler, _parts(handler, folder)
        finally:
            handler.close()


def _times_us(rounds: int) -> dict[str, float]:
    """Return the median, over the rounds, of what a call takes of the processor."""
    found: dict[str, list[float]] = {}
    with _stage() as (handler, parts):
        for number in range(rounds):
            for name, part in parts.items():
                ready = [part.prepare(record) for record in stock(_CALLS, f"{name}{number}")]
                gc.collect()
                gc.disable()
                began_ns = time.thread_time_ns()
                for one in ready:
                    part.call(one)
                found.setdefault(name, []).append((time.thread_time_ns() - began_ns) / _CALLS / 1000)
                gc.enable()
                del ready
                handler.flush()
    return {name: statistics.median(times) for name, times in found.items()}


def _some(name: str, count: int) -> None:
    """Call the part *name* so many times; for valgrind."""
    with _stage() as (_, parts):
        ready = [parts[name].prepare(record) for record in stock(_MANY, name)]
        gc.disable()
        for one in ready[:count]:
            parts[name].call(one)
        os._exit(0)


def _instructions(names: list[str]) -> dict[str, float]:
    """Return the instructions of a call; those of the kernel are not seen."""
    found = {}
    for name in names:
        few, many = (_instructions_of(name, count) for count in (_FEW, _MANY))
        found[name] = (many - few) / (_MANY - _FEW)
    return found


def _instructions_of(name: str, count: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        run = [sys.executable, __file__, "--some", name, "--count", str(count)]
        # Else a copy of more than 2 kB is one instruction a byte in valgrind's eyes.
        env = {**os.environ, "PYTHONHASHSEED": "0", "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1000000000"}
        valgrind = ["valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={out}", *run]
        subprocess.run(valgrind, check=True, env=env)
        totals = re.search(r"^totals: (\d+)", out.read_text("utf-8"), re.MULTILINE)
        return int(totals[1]) if totals else 0


def _rows(cost: dict[str, float]) -> dict[str, float]:
    """Return the parts of both calls, and what is left over."""
    own = {
        "`Logger.info` itself, into nothing": cost["logging"],
        "`orjson.dumps` of the fields": cost["orjson"],
        "encode, beyond that: picking the fields, id, times, copies": cost["encode"] - cost["orjson"],
        "of it the id, within a millisecond": cost["id"],
        "of it the look for secrets (`redact: [secrets]`)": cost["secrets"],
        "checksum (CRC-32)": cost["checksum"],
        "store (`pwrite` that keeps the interpreter lock)": cost["store"],
        "the same with `os.pwrite`, which does not keep it": cost["os.pwrite"],
        "a call through the Logger": cost["Logger"],
        "a call of the function": cost["function"],
    }
    shared = cost["encode"] + cost["checksum"] + cost["store"]
    own["left of the Logger's: number, queue, status, cold caches"] = cost["Logger"] - cost["logging"] - shared
    own["left of the function's"] = cost["function"] - shared
    return own


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--instructions", action="store_true", help="count them, too; needs valgrind")
    parser.add_argument("--markdown", action="store_true", help="print the table as it stands in docs/")
    parser.add_argument("--some", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=_FEW, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.some:
        _some(given.some, given.count)
    times = _times_us(given.rounds)
    limit_us = times["logging"] + times["orjson"]
    heads, columns = ["part", "µs", "/ limit"], [_rows(times), _rows({k: v / limit_us for k, v in times.items()})]
    if given.instructions:
        counts = _instructions(list(times))
        limit = counts["logging"] + counts["orjson"]
        heads += ["instructions", "/ limit"]
        columns += [_rows(counts), _rows({name: count / limit for name, count in counts.items()})]
    rows = [[name, *(f"{one[name]:,.{_digits(one[name])}f}" for one in columns)] for name in columns[0]]
    print(tables.machine())
    print(f"{tables.command()}; limit: `Logger.info` into nothing + `orjson.dumps`.\n")
    print(tables.table(heads, rows, markdown=given.markdown))


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 2  # instructions are whole


if __name__ == "__main__":
    main()
