"""What growth.py measures, each in a fresh process started by worker.py."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import worker
from records import make
from worker import Result, Stage

OURS: Final = "ours crash Logger"
SHORT: Final = 20  # characters of an answer; a line of ours is then about 400 bytes
_NO_LIMIT: Final = 1 << 40


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def threads(of: int, count: int) -> Result:
    """*count* records in all from so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(OURS, f"{folder}/log.jsonl")
        stage.warm_up()
        before = worker.rss_mb()
        wall_s, cpu_s = stage.many(count, threads=of)
        logged = count // of * of
        found = {"cpu_us": cpu_s / logged * 1e6, "wall_us": wall_s / logged * 1e6, "memory_mb": _peak_mb() - before}
        stage.one.close()
        return found | {"check": worker.check(stage.path, stage.total)}


def size(characters: int, count: int) -> Result:
    """*count* records with an answer of so many characters."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(OURS, f"{folder}/log.jsonl")
        stage.warm_up(20)
        began_at = os.stat(stage.path).st_size
        piles = stage.records(count, characters)
        before, cpu_s, wall_s = worker.rss_mb(), time.process_time(), time.perf_counter()
        for record in piles:
            stage.one.log(record)
        called_s = time.perf_counter() - wall_s
        stage.one.flush()
        cpu_s = time.process_time() - cpu_s
        apart = sum(one.stat().st_size for one in Path(f"{stage.path}.blobs").rglob("*") if one.is_file())
        line = (os.stat(stage.path).st_size - began_at + apart) / count
        found = {
            "bytes": line, "cpu_us": cpu_s / count * 1e6, "call_us": called_s / count * 1e6,
            "cpu_ns_per_byte": cpu_s / count / line * 1e9, "memory_mb": max(0.0, _peak_mb() - before),
        }  # fmt: skip
        stage.one.close()
        return found | {"check": worker.check(stage.path, stage.total)}


def leave(path: str, count: int) -> NoReturn:
    """Log *count* short records that stay in the journal, and end as a killed process does."""
    options = {"queue_max_size": 10_000_000, "queue_max_bytes": _NO_LIMIT, "journal_max_bytes": _NO_LIMIT}
    stage = Stage(OURS, path, batch_size=10_000, flush_interval=1000, **options)
    stage.one.flush()
    from scenarios import held

    with held(path):  # so that no batch goes home
        for number in range(count):
            stage.one.log(make(number, "backlog", SHORT))
        print("{}", flush=True)
        os._exit(0)  # while the stranger has the lock, who ends with us


def backlog(count: int) -> Result:
    """Open a log beside which a dead process has left *count* lines, and bring them home."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log.jsonl"
        worker.run("leave", path=path, count=count, timeout_s=600)
        from ai_response_logging import AIResponseHandler

        before, began, cpu_s = worker.rss_mb(), time.perf_counter(), time.process_time()
        handler = AIResponseHandler(path, close_timeout=600)  # whose thread begins to bring them home
        opened = time.perf_counter()
        done = handler.flush(600)
        handler.close()  # what that thread was in the middle of a flush does not wait for
        ended = time.perf_counter()
        cpu_s = time.process_time() - cpu_s
        found = {"start_ms": (opened - began) * 1000, "replay_s": ended - opened, "memory_mb": _peak_mb() - before}
        if not done:
            sys.exit("the backlog did not come home")
        return found | {"us_per_line": cpu_s / count * 1e6 if count else 0.0, "check": worker.check(path, count)}


def old_files(count: int, rotations: int) -> Result:
    """Open a log beside which *count* rotated files lie, and rotate."""
    with tempfile.TemporaryDirectory() as folder:
        from ai_response_logging import AIResponseHandler

        path = Path(folder, "log.jsonl")
        AIResponseHandler(path).close()  # as whoever rotated them did: its lock file stays
        path.unlink()
        for number in range(count):
            path.with_name(f"{path.name}.20250101T000000.{number:06}Z").write_bytes(b"{}\n")
        before, began = worker.rss_mb(), time.perf_counter()
        handler = AIResponseHandler(path, max_bytes=1000, flush_interval=1000)
        start_ms = (time.perf_counter() - began) * 1000
        taken: list[float] = []
        for number in range(rotations + 2):
            handler.submit_fields({"response": "x" * 700, "number": number})
            began = time.perf_counter()
            handler.flush()
            taken.append((time.perf_counter() - began) * 1000)
        made = handler.get_stats()["rotations"]
        handler.close()
        if made < rotations:
            sys.exit(f"only {made} rotations")
        steady = sorted(taken[2:])  # the first one of a log lists its directory once
        return {
            "start_ms": start_ms, "first_rotation_ms": taken[1], "rotation_ms": steady[len(steady) // 2],
            "memory_mb": _peak_mb() - before,
        }  # fmt: skip


MEASURES: Final[dict[str, Callable[..., Any]]] = {
    "threads": threads, "size": size, "leave": leave, "backlog": backlog, "old_files": old_files,
}  # fmt: skip
