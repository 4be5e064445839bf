"""
Print how long a log call takes at most while the log is slow, locked by a stranger, or full, at durability crash.

Usage: python .ci/limits.py [--seconds N], with an interpreter in which the library is installed; a row that needs root
or gcc is left out without.

Each row is a process of its own that logs for N seconds (20 unless told), 50 records a second, while the fault lasts:
with a queue that never gets full, and with one of 5 records, where a call tries to write itself.  ``cpu`` is what the
calling thread computed, so our own part; the rest of ``wall`` is waiting: for the log, for ``caller_timeout`` (1 s), or
for a processor that others use.  Then the fault ends, all must come home, and the counters must add up.  It ends with 1
if a call took over a second where the queue was not full, or over two where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

TESTS: Final = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "faults")]

from _children import SmallDisk, holding_the_lock  # type: ignore[import-not-found]  # noqa: E402  of the tests
from helpers import child_process  # type: ignore[import-not-found]  # noqa: E402

ROOMY, TINY = 1_000_000, 5
BOUNDS_S: Final = {ROOMY: 1.0, TINY: 2.0}

LOG_FOR_A_WHILE: Final = """
import collections, json, logging, sys, time
from ai_response_logging.handler import AIResponseHandler

logging.raiseExceptions = False
options = json.loads(sys.argv[3])
handler = AIResponseHandler(sys.argv[1], flush_interval=0.5, **options)
for number in range(20):
    handler.submit(logging.makeLogRecord({"msg": "warm", "response": "x" * 1000}))
assert handler.flush()
print("ready", flush=True)
sys.stdin.readline()
walls, cpus, statuses, until_s = [], [], collections.Counter(), time.monotonic() + float(sys.argv[2])
while time.monotonic() < until_s:
    record = logging.makeLogRecord({"msg": "m", "response": "x" * 1000})
    wall, cpu = time.perf_counter(), time.thread_time()
    status = handler.submit(record)
    cpus.append(time.thread_time() - cpu)
    walls.append(time.perf_counter() - wall)
    statuses[status] += 1
    time.sleep(0.02)
print("done", flush=True)
sys.stdin.readline()
came_home = handler.flush(30)
handler.close()
found = handler.get_stats()
adds_up = found["accepted"] == found["written"] + found["written_sync"] + found["pending"] + found["failed"]
print(json.dumps({"calls": len(walls), "wall_s": max(walls), "cpu_s": max(cpus), "statuses": statuses,
                  "is_whole": came_home and adds_up}))
"""


class UnavailableError(Exception):
    """This machine cannot play the fault."""


@contextlib.contextmanager
def slow(folder: Path) -> Iterator[tuple[Path, dict[str, str], contextlib.AbstractContextManager[object]]]:
    """Let every write to the log take 200 ms."""
    library = folder / "shim.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(TESTS / "faults" / "shim.c"), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"no gcc: {error}") from error
    env = {"LD_PRELOAD": str(library), "SHIM_FILE": "/log.jsonl", "SHIM_PLAN": "w"}
    yield folder / "log.jsonl", env, contextlib.nullcontext()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[tuple[Path, dict[str, str], contextlib.AbstractContextManager[object]]]:
    """Let a stranger hold the lock."""
    log = folder / "log.jsonl"
    yield log, {}, holding_the_lock(log)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[tuple[Path, dict[str, str], contextlib.AbstractContextManager[object]]]:
    """Let the disk of the log, on which its journal is as well, be full."""
    if os.geteuid():
        raise UnavailableError("only root may mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", str(folder)], check=True)
    disk = SmallDisk(folder)

    @contextlib.contextmanager
    def filled() -> Iterator[None]:
        disk.fill()
        yield
        disk.clear()

    try:
        yield folder / "log.jsonl", {}, filled()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FAULTS: Final = {"every write takes 200 ms": slow, "a stranger holds the lock": locked, "the disk is full": full}


def await_word(process: subprocess.Popen[str], word: str) -> None:
    """Wait until *process* says *word*; end the run if it says anything else."""
    if process.stdout is None or process.stdout.readline() != f"{word}\n":
        sys.exit(f"the process ended early: {process.communicate()[1]}")


def measure(name: str, queue_max_size: int, seconds: float) -> dict[str, Any]:
    """
    Play one fault for *seconds* and return what the calls took.

    Raises:
        UnavailableError: This machine cannot play it.
    """
    with tempfile.TemporaryDirectory() as folder, FAULTS[name](Path(folder)) as (log, env, fault):
        options = json.dumps({"queue_max_size": queue_max_size})
        with child_process(LOG_FOR_A_WHILE, log, seconds, options, env=env) as process:
            await_word(process, "ready")
            with fault:
                process.stdin.write("\n")
                process.stdin.flush()
                await_word(process, "done")
            out, err = process.communicate("\n")
            if process.returncode:
                sys.exit(f"the process ended with {process.returncode}: {err}")
    found: dict[str, Any] = json.loads(out)
    return found


def main() -> int:
    """Measure every fault with both queues; 1 if a call took too long, or a record did not come home."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="that each fault lasts")
    seconds = parser.parse_args().seconds
    ill = 0
    print(f"{'fault':<26} {'queue':<9} {'calls':>5} {'slowest wall':>13} {'slowest cpu':>12}  statuses")
    for name in FAULTS:
        for size in (ROOMY, TINY):
            kind = "not full" if size == ROOMY else "full"
            try:
                found = measure(name, size, seconds)
            except UnavailableError as why:
                print(f"{name:<26} {kind:<9} left out: {why}")
                continue
            is_well = found["is_whole"] and found["wall_s"] <= BOUNDS_S[size]
            ill += not is_well
            statuses = ", ".join(f"{status} {count}" for status, count in sorted(found["statuses"].items()))
            wall, cpu = f"{found['wall_s'] * 1000:.2f} ms", f"{found['cpu_s'] * 1000:.2f} ms"
            print(
                f"{name:<26} {kind:<9} {found['calls']:>5} {wall:>13} {cpu:>12}  {statuses}{'' if is_well else '  ILL'}"
            )
    return 1 if ill else 0


if __name__ == "__main__":
    sys.exit(main())
