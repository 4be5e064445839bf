"""What acceptance.py measures, each in a fresh process started by worker.py."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import worker
from contenders import LIMIT_LOGGER
from records import make
from worker import Result, Stage

LOGGER, FUNCTION = "ours crash Logger", "ours crash function"
# Writes only when it is told to, or when there is no room.
LAZY: Final = {"batch_size": 10_000, "flush_interval": 1000}


@contextlib.contextmanager
def _stage(name: str, **options: Any) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(name, f"{folder}/log.jsonl", **options)
        yield stage
        stage.one.close()


def single(name: str, count: int) -> Result:
    """Calls one at a time, 200 a second."""
    with _stage(name) as stage:
        stage.warm_up()
        return {"ms": [one / 1e6 for one in stage.times_ns(count, per_second=200)]}


def burst(name: str, times: int) -> Result:
    """40 threads, one call each: from the first call's begin to the last one's return."""
    with _stage(name) as stage:
        stage.warm_up()
        return {"ms": [_burst_ms(stage) for _ in range(times)]}


def _burst_ms(stage: Stage) -> float:
    pile, start, began, ended = stage.records(40), threading.Barrier(40), [0.0] * 40, [0.0] * 40

    def call(number: int) -> None:
        start.wait()
        began[number] = time.perf_counter()
        stage.one.log(pile[number])
        ended[number] = time.perf_counter()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(40)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    stage.one.flush()
    return (max(ended) - min(began)) * 1000


def full_queue(times: int) -> Result:
    """The call that finds 1,000 records (5 MB) in the queue, and so writes them all and its own."""
    with _stage(FUNCTION, **LAZY, queue_max_size=1000) as stage:
        taken = []
        for _ in range(times):
            *before, last = stage.records(1001)
            for record in before:
                stage.one.log(record)
            began = time.perf_counter()
            result = stage.one.log(last)
            taken.append((time.perf_counter() - began) * 1000)
            if not isinstance(result, dict) or result["status"] != "written_sync":
                sys.exit(f"the queue was not full: {result}")
        return {"ms": taken}


def batch(times: int) -> Result:
    """From ten waiting records to ten records in the log."""
    with _stage(FUNCTION, **LAZY) as stage:
        stage.warm_up()
        taken = []
        for _ in range(times):
            for record in stage.records(10):
                stage.one.log(record)
            began = time.perf_counter()
            stage.one.flush()
            taken.append((time.perf_counter() - began) * 1000)
        return {"ms": taken}


def footprint(beside: list[str], records: int) -> Result:
    """Memory and time of import and set-up in a program that has imported *beside*, then with records waiting."""
    for name in beside:
        __import__(name)
    make(0, "footprint")  # the texts are there before it begins
    rss, threads, files = worker.rss_mb(), threading.active_count(), len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        import ai_response_logging

        handler = ai_response_logging.AIResponseHandler(f"{folder}/log.jsonl", **LAZY)
        took_ms, after = (time.perf_counter() - began) * 1000, worker.rss_mb()
        logger = logging.getLogger("ai_responses")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        for number in range(records):
            logger.info("ai_response", extra=make(number, "footprint"))
        found = {
            "set_up_ms": took_ms, "set_up_mb": after - rss, "with_waiting_mb": worker.rss_mb() - rss,
            "threads": threading.active_count() - threads, "descriptors": len(os.listdir("/proc/self/fd")) - files,
        }  # fmt: skip
        handler.close()
    return found


def grown(count: int) -> Result:
    """Memory that *count* records, flat out, have added when they are in the log."""
    with _stage(LOGGER) as stage:
        stage.warm_up(500)
        before = worker.rss_mb()
        for number in range(count):
            stage.one.log(make(number, "grown"))
        peak = worker.rss_mb()
        stage.one.flush()
        return {"mb": max(peak, worker.rss_mb()) - before}


def steady(seconds: float, path: str = "") -> Result:
    """
    50 records a second: the share of one core that the process takes, and that of the harness alone.

    With a *path* no record is logged but these, so that whoever traces the process can divide by their number.
    """
    found = []
    for name in (LOGGER, LIMIT_LOGGER):
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(name, path or f"{folder}/log.jsonl")
            if not path:
                stage.warm_up()
            pile = stage.records(int(50 * seconds))
            cpu_s = time.process_time()
            began_s = time.perf_counter()
            for number, record in enumerate(pile):
                time.sleep(max(0.0, began_s + number / 50 - time.perf_counter()))
                stage.one.log(record)
            found.append((time.process_time() - cpu_s) / (time.perf_counter() - began_s) * 100)
            stage.one.close()
            logging.getLogger("ai_responses").handlers.clear()
    return {"cpu_percent": found[0], "harness_percent": found[1], "records": int(50 * seconds)}


# --- ends and strangers ----------------------------------------------------------------------------------------


def ending(path: str, count: int, threads: int, how: str, options: dict[str, Any] | None = None) -> Result:
    """Log, say how many calls have returned, and end as told without a flush or a close."""
    stage = Stage(LOGGER, path, **(options or {}))
    piles = [stage.records(count) for _ in range(threads)]

    def work(pile: list[dict[str, Any]]) -> None:
        for record in pile:
            stage.one.log(record)

    workers = [threading.Thread(target=work, args=(pile,)) for pile in piles]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    print(f'{{"logged": {stage.total}}}', flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exception":
        raise RuntimeError("nobody handles this one")
    return {"logged": stage.total}


def hold(path: str, held_s: float, free_s: float) -> Result:
    """Hold the lock of the log *path* again and again until the input ends."""
    with Path(path).with_name(f".__{Path(path).name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", flush=True)
        over = threading.Event()

        def await_end() -> None:
            sys.stdin.read()
            over.set()

        threading.Thread(target=await_end, daemon=True).start()
        while not over.wait(held_s):
            fcntl.flock(lock, fcntl.LOCK_UN)
            over.wait(free_s)
            fcntl.flock(lock, fcntl.LOCK_EX)
    return {}


@contextlib.contextmanager
def held(path: str, held_s: float = 1000.0, free_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """Let a stranger hold the lock of *path*: all the time, or so long with such breaks."""
    with worker.started("hold", path=path, held_s=held_s, free_s=free_s) as stranger:
        if stranger.stdout is None or stranger.stdin is None or stranger.stdout.readline() != "held\n":
            sys.exit(f"no lock to be had: {stranger.communicate()[1]}")
        yield stranger
        stranger.communicate()


def completeness(scenario: str) -> Result:
    """How many of the records whose call returned are in the log in the end, once and whole."""
    # processes, threads, records for each of them, how they end, how the lock is held, options
    plans: dict[str, tuple[int, int, int, list[str], tuple[float, float] | None, dict[str, Any]]] = {
        "normal": (1, 1, 4000, ["normal"], None, {}),
        "high concurrency": (8, 8, 60, ["normal"], None, {}),
        "exceptions": (8, 1, 500, ["exception", "kill"], None, {}),
        "lock contention": (4, 2, 250, ["normal"], (0.045, 0.005), {"queue_max_size": 50}),
    }
    of, threads, count, ends, lock, options = plans[scenario]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log.jsonl"
        with contextlib.ExitStack() as stack:
            if lock:
                stack.enter_context(held(path, *lock))
            members = [
                stack.enter_context(
                    worker.started(
                        "ending", path=path, count=count, threads=threads, how=ends[number % len(ends)], options=options
                    )
                )
                for number in range(of)
            ]
            for one in members:
                one.communicate(timeout=120)
        Stage(FUNCTION, path).one.close()  # whoever opens the log next brings home what killed processes left
        expected = of * threads * count
        return {"expected": expected, **worker.check(path, expected)}


# --- event loops -----------------------------------------------------------------------------------------------


def event_loop(count: int) -> Result:
    """`await alog_ai_response` 500 times a second, then both functions at a full queue whose lock a stranger holds."""
    from ai_response_logging import log_ai_response

    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(FUNCTION, f"{folder}/log.jsonl")
        stage.warm_up()
        calls = asyncio.run(_awaited(count))
        stage.one.close()
        logging.getLogger("ai_responses").handlers.clear()
        stage = Stage(FUNCTION, f"{folder}/full.jsonl", **LAZY, queue_max_size=5)
        stage.warm_up(5)
        with held(stage.path):
            for record in stage.records(5):
                stage.one.log(record)
            blocked = asyncio.run(_standstill(lambda record: log_ai_response(**record)))
            awaited = asyncio.run(_standstill(None))
        stage.one.close()
    return {"ms": calls, "full_blocked_ms": blocked, "full_awaited_ms": awaited}


async def _awaited(count: int) -> list[float]:
    from ai_response_logging import alog_ai_response

    taken = []
    for number in range(count):
        record = make(number, "loop")
        began = time.perf_counter()
        await alog_ai_response(**record)
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.002)
    return taken


async def _standstill(log: Callable[[dict[str, Any]], object] | None) -> float:
    """Return the longest time, in ms, for which one call kept the loop from another task; None: the awaited one."""
    from ai_response_logging import alog_ai_response

    longest, over = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not over.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    if log is None:
        await alog_ai_response(**make(0, "awaited"))
    else:
        log(make(0, "blocked"))
    await asyncio.sleep(0.002)
    over.set()
    await ticking
    return longest * 1000


MEASURES: Final[dict[str, Callable[..., Result]]] = {
    "single": single, "burst": burst, "full_queue": full_queue, "batch": batch, "footprint": footprint,
    "grown": grown, "steady": steady, "ending": ending, "hold": hold, "completeness": completeness,
    "event_loop": event_loop,
}  # fmt: skip
