"""
Kill writers at random, and those that bring home what they left; then look for every record.

Usage: python .ci/kills.py ROUNDS [--seed N], with an interpreter in which the library is installed.

A round: four processes log into one file, and each notes a record in a file of its own right after its call returned.
Three of them are killed (SIGKILL), each when it has noted a random number.  In every third round somebody opens the
log to bring home what they left, and is killed as well.  Then somebody does so to the end, and every record that was
noted must stand in the log exactly once, in a whole line with a right checksum.  Options change from round to round.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers import assert_all_there_once  # type: ignore[import-not-found]  # of the tests

from ai_response_logging.handler import AIResponseHandler

WRITERS, VICTIMS, RECORDS = 4, 3, 120
NOTE_BYTES: Final = 24
ROUNDS_A_LOG: Final = 10  # then a new one: looking at all records after each round would take longer than the rounds
GIVE_UP_S: Final = 60.0


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a forked child that ends with it, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def write(log: Path, notes: Path, name: str, options: dict[str, Any]) -> None:
    """Log records, and note each once its call has returned."""
    noted = notes.open("ab", buffering=0)
    handler = AIResponseHandler(log, **options)
    for number in range(RECORDS):
        record_id = f"{name}-{number}"
        record = logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": "x" * (number * 37 % 900)})
        if handler.submit(record) != "failed":
            noted.write(record_id.ljust(NOTE_BYTES - 1).encode() + b"\n")
    handler.close()


def bring_home(log: Path) -> None:
    """Open the log as the next program does, and close it again."""
    handler = AIResponseHandler(log, close_timeout=GIVE_UP_S)
    handler.flush()
    handler.close()


def kill_at(pid: int, is_time: Callable[[], bool]) -> bool:
    """Kill a child as soon as *is_time* says so, reap it, and say whether it lived until then."""
    give_up_s = time.monotonic() + GIVE_UP_S
    while not is_time():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        if time.monotonic() > give_up_s:
            hang(pid)
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def wait_for(pid: int) -> None:
    """Wait until a child has ended well."""
    give_up_s = time.monotonic() + GIVE_UP_S
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > give_up_s:
            hang(pid)
        time.sleep(0.0005)
    if ended[1]:
        sys.exit(f"a process that nobody killed ended with {os.waitstatus_to_exitcode(ended[1])}")


def hang(pid: int) -> NoReturn:
    """End the run: a process does not come to its end."""
    os.kill(pid, signal.SIGKILL)
    sys.exit(f"a process hung for {GIVE_UP_S:g} s")


def play_round(number: int, folder: Path, chance: random.Random) -> int:
    """Play one round on the log in *folder*; return how many processes were killed."""
    log = folder / "log.jsonl"
    options = {
        "batch_size": chance.choice([5, 50, 10_000]), "flush_interval": chance.choice([0.002, 0.02, 1000]),
        "max_bytes": chance.choice([0, 20_000]), "compress": chance.choice([True, False, False, False]),
        "queue_max_size": chance.choice([3, 1000]),
    }  # fmt: skip
    pids = []
    for name in range(WRITERS):
        notes = folder / f"notes-{number}-{name}"
        notes.touch()
        pids.append(in_child(lambda name=name, notes=notes: write(log, notes, f"{number}-{name}", options)))  # type: ignore[misc]
    killed = 0
    for name in range(VICTIMS):
        notes, size = folder / f"notes-{number}-{name}", chance.randrange(RECORDS) * NOTE_BYTES
        killed += kill_at(pids[name], lambda notes=notes, size=size: notes.stat().st_size >= size)  # type: ignore[misc]
    wait_for(pids[VICTIMS])
    if number % 3 == 0:
        at_s = time.monotonic() + chance.random() * 0.01
        killed += kill_at(in_child(lambda: bring_home(log)), lambda: time.monotonic() >= at_s)
    wait_for(in_child(lambda: bring_home(log)))
    return killed


def judge(folder: Path) -> int:
    """Return how many records were noted; AssertionError where one is lost, doubled or torn."""
    ids = [line for notes in folder.glob("notes-*") for line in notes.read_text("ascii").split()]
    assert_all_there_once(folder / "log.jsonl", ids, others=True)
    if left := list((folder / "log.jsonl.journal").glob("*")):
        raise AssertionError(f"nobody lives, and there is {left}")
    return len(ids)


def main() -> int:
    """Play the rounds and say what was found; 0 when nothing was lost, doubled or torn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    arguments = parser.parse_args()
    chance, killed, records = random.Random(arguments.seed), 0, 0  # noqa: S311  nobody is to be surprised
    logging.raiseExceptions = False
    print(f"seed {arguments.seed}", flush=True)
    for first in range(0, arguments.rounds, ROUNDS_A_LOG):
        folder = Path(tempfile.mkdtemp(prefix="kills-"))
        for number in range(first, min(first + ROUNDS_A_LOG, arguments.rounds)):
            killed += play_round(number, folder, chance)
        try:
            records += judge(folder)
        except AssertionError as error:
            print(f"rounds {first} to {number}, kept in {folder}: {error}")
            return 1
        shutil.rmtree(folder)
    print(f"{arguments.rounds} rounds, {killed} processes killed, {records} records: lost 0, doubled 0, torn 0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
