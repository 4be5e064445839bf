"""
What reading a log costs: `stats` beside bare DuckDB on the same view, `verify`, and the memory of both.

``python benchmarks/reading.py [--gb 1] [--rounds 3] [--folder DIR]`` makes a log of that size, measures and deletes
it. On a busy machine compare ratios, and the CPU's seconds rather than the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson

from ai_response_logging.record import seal, tail_of, timestamp, uuid7

MB: Final = 1_000_000
MODELS: Final = ("doubao", "deepseek", "zhipu", "qwen", "moonshot", "openai", "wenxin", "hunyuan")
CHINESE: Final = "作为专业顾问我会先看预算再看用途最后比较几款常见的机型。"
ENGLISH: Final = 'A short "quoted" sentence,\nand another line of it. '
KINDS: Final = ("bare", "stats", "stats without DuckDB", "verify")


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the log is made; a temporary one unless told")
    parser.add_argument("--kinds", default=",".join(KINDS), help="what is measured, with commas between")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "LOG"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    size = int(options.gb * 1000 * MB)
    folder = tempfile.mkdtemp(prefix="reading-", dir=options.folder)
    try:
        if shutil.disk_usage(folder).free < 2 * size:
            sys.exit(f"{folder} has too little room for {options.gb} GB and as much again")
        log = os.path.join(folder, "ai_responses.jsonl")
        lines = make_log(log, size)
        print(f"{size / MB:,.0f} MB, {lines:,} lines, {os.cpu_count()} processors")
        report(log, size, options.rounds, options.kinds.split(","))
    finally:
        shutil.rmtree(folder)


def make_log(path: str, size: int) -> int:
    """Write lines of today, nine in ten, and of 2.0 until the file has *size* bytes; return how many."""
    dice = random.Random(1)  # noqa: S311  the same texts each time
    tail = tail_of("host-1-18c-0123456789abcdef")
    written = number = sealed = 0
    with open(path, "wb") as file:
        while written < size:
            if number % 10:
                line = seal(orjson.dumps(fields(dice, number))[:-1], tail, sealed)
                sealed += 1
            else:
                line = orjson.dumps(older(fields(dice, number))) + b"\n"
            written += file.write(line)
            number += 1
    return number


def fields(dice: random.Random, number: int) -> dict[str, Any]:
    """Return one record."""
    micros, is_good = 1_780_000_000_000_000 + number * 250_000, dice.random() < 0.95
    answer = CHINESE * dice.randint(5, 45) + ENGLISH * dice.randint(5, 45) if is_good else ""
    return {
        "schema_version": "1.0",
        "record_id": uuid7(micros // 1000),
        "timestamp": timestamp(micros),
        "unix_timestamp": micros / 1e6,
        "event": "response",
        "level": "INFO",
        "logger": "ai_responses",
        "message": "",
        "question": f"{CHINESE}{number % 50}",
        "response": answer,
        "platform": MODELS[number % len(MODELS)],
        "provider": MODELS[number % len(MODELS)],
        "model": f"{MODELS[number % len(MODELS)]}-{number % 3}",
        "success": is_good,
        "latency_ms": round(dice.lognormvariate(7, 1), 3),
        "tokens_used": dice.randint(50, 3000),
        "execution_id": f"exec_{number // 400}",
        **({} if is_good else {"error_type": dice.choice(("timeout", "rate_limit"))}),
    }


def older(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as a line of 2.0."""
    return {
        "record_id": record["record_id"],
        "timestamp": "2026-05-29T04:26:40.000000",
        "unix_timestamp": record["unix_timestamp"],
        "version": "2.0",
        "question": {"text": record["question"]},
        "response": {"text": record["response"]},
        "platform": {"name": record["platform"], "model": record["model"]},
        "performance": {"latency_ms": record["latency_ms"], "tokens": {"total": record["tokens_used"]}},
        "status": {"success": record["success"]},
        "context": {"execution_id": record["execution_id"]},
    }


def report(log: str, size: int, rounds: int, kinds: list[str]) -> None:
    """Measure each kind in turn, as often as asked, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            child = [sys.executable, __file__, "--measure", kind, log]
            found[kind].append(json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout))
    print("| | seconds | CPU seconds | MB/s | MB per CPU second | resident MB | of bare DuckDB |")
    print("|---|---|---|---|---|---|---|")
    for kind, runs in found.items():
        wall, cpu = (statistics.median(run[name] for run in runs) for name in ("wall_s", "cpu_s"))
        resident = max(run["resident_mb"] for run in runs)
        print(
            f"| {kind} | {wall:.2f} | {cpu:.2f} | {size / MB / wall:,.0f} | {size / MB / cpu:,.0f} | {resident:,.0f} | "
            f"{' / '.join(_ratios(found, kind)) or '-'} |"
        )


def _ratios(found: dict[str, list[dict[str, float]]], kind: str) -> Iterator[str]:
    """Yield the medians of clock and CPU over those of the bare query in the same round."""
    if kind == "bare" or "bare" not in found:
        return
    for name in ("wall_s", "cpu_s"):
        pairs = zip(found[kind], found["bare"], strict=True)
        yield f"{statistics.median(one[name] / other[name] for one, other in pairs):.2f}"


def measure(kind: str, log: str) -> dict[str, float]:
    """Do one thing in this process, and say what it took."""
    from ai_response_logging.analysis import open_log, stats
    from ai_response_logging.analysis._questions import groups
    from ai_response_logging.verify import verify_log

    begun, cpu = time.perf_counter(), time.process_time()
    if kind == "bare":
        with open_log(log) as table:
            table._duck.execute(groups(("platform", "model"), "TRUE")).fetchall()  # noqa: SLF001  the view, and no more
    elif kind == "verify":
        verify_log(log)
    else:
        stats(log, with_duckdb=kind == "stats")
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
        "resident_mb": resident_mb(),
    }


def resident_mb() -> float:
    """Return the most that this process had in memory; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


if __name__ == "__main__":
    main()
