"""What the fault tests share: real writer processes that do as they are told, and how every fault test ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers import assert_all_there_once, child_process, log_files, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "BARE",
    "OBEY",
    "PREAMBLE",
    "Notes",
    "SmallDisk",
    "Writer",
    "assert_kept",
    "assert_sums",
    "holding_the_lock",
    "lock_file",
    "run_or_skip",
    "writer",
]

# Begins every child: it logs like an application does, and notes each record in a file of its own, right after the
# call has returned, with what the call said. argv: the log, the notes, the handler's options as JSON. The durability is
# the default unless the options or the fixture of that name say otherwise.
PREAMBLE = """
import atexit, json, logging, os, signal, sys, threading, time
from ai_response_logging.handler import AIResponseHandler

LOG, NOTES, OPTIONS = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
_notes = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
logging.raiseExceptions = False


def note(**what):
    os.write(_notes, json.dumps({"pid": os.getpid(), **what}).encode() + b"\\n")


def attach(**options):
    global handler, logger
    handler = AIResponseHandler(LOG, **{"durability": os.environ.get("DURABILITY", "crash"), **OPTIONS, **options})
    logger = logging.getLogger("ai_responses")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return handler


def log(record_id, size=100):
    record = logger.makeRecord("ai_responses", logging.INFO, "", 0, "ai_response", (), None,
                               extra={"record_id": record_id, "response": "x" * size})
    logger.handle(record)
    note(id=record_id, status=record.ai_status)
    return record.ai_status


def stats():
    snapshot = handler.get_stats()
    note(stats=snapshot)
    return snapshot
"""

# What a child goes on with to do as it is told.
OBEY = '''
attach()
_home = threading.Event()
_consume = handler._pipeline.queue.consume


def consume(count, **how):
    _consume(count, **how)
    if handler._pipeline.queue.empty():
        _home.set()


handler._pipeline.queue.consume = consume


def all_home():
    """Wait until all that waits has arrived, whoever brings it."""
    _home.clear()
    return handler._pipeline.queue.empty() or _home.wait(15)


def several(prefix, count, size):
    return [log(f"{prefix}-{number}", size) for number in range(count)]


_threads, _raised, _resting = [], [], threading.Event()


def load(threads, prefix="t"):
    """Let so many threads log until they may rest."""
    def work(name):
        number = 0
        while not _resting.wait(0.002):
            began_s = time.monotonic()
            try:
                log(f"{name}-{number}")
            except BaseException as error:
                _raised.append(repr(error))
            note(took_s=time.monotonic() - began_s)
            number += 1

    _threads.extend(threading.Thread(target=work, args=(f"{prefix}{n}",), daemon=True) for n in range(threads))
    for thread in _threads:
        thread.start()


def rest():
    """Let them rest, and say how many do not and what came out of their calls."""
    _resting.set()
    for thread in _threads:
        thread.join(15)
    return {"hung": sum(thread.is_alive() for thread in _threads), "raised": _raised}


does = {"log": several, "stats": stats, "flush": handler.flush, "close": handler.close, "all_home": all_home,
        "load": load, "rest": rest, "look": lambda: handler._pipeline.writer.open_journal()}
for line in sys.stdin:
    what, *args = json.loads(line)
    print(json.dumps(does[what](*args)), flush=True)
handler.close()
stats()
'''


class Notes:
    """What the writers noted of each record, and of their counters."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """Return every note; one that a kill cut off is left out, since its call had not returned to the test."""
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def ids(self, *statuses: str) -> list[str]:
        """Return the records whose call said one of *statuses*; without any, all that were accepted."""
        notes = [note for note in self.read() if "id" in note]
        return [
            note["id"] for note in notes if (note["status"] in statuses if statuses else note["status"] != "failed")
        ]

    def statuses(self) -> set[str]:
        """Return what calls said."""
        return {note["status"] for note in self.read() if "id" in note}

    def stats(self) -> list[dict[str, Any]]:
        """Return every snapshot that was noted."""
        return [note["stats"] for note in self.read() if "stats" in note]

    def slowest_s(self) -> float:
        """Return how long the slowest call of a load took."""
        return max(note["took_s"] for note in self.read() if "took_s" in note)

    def counted(self) -> dict[int, tuple[int, int]]:
        """Return for each process with a snapshot: how many it counted as handed over, and how many it noted."""
        last = {note["pid"]: note["stats"]["accepted"] for note in self.read() if "stats" in note}
        noted = [note["pid"] for note in self.read() if "id" in note]
        return {pid: (accepted, noted.count(pid)) for pid, accepted in last.items()}


class Writer:
    """A process that logs when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def send(self, what: str, *args: object) -> None:
        """Tell it what to do, without waiting until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, *args]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait until the oldest thing it was told is done, and return what it gave."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, f"the writer ended early:\n{self.process.stderr.read()}"
        return json.loads(line)

    def ask(self, what: str, *args: object) -> Any:
        """Tell it what to do and wait until it is done."""
        self.send(what, *args)
        return self.answer()

    def log(self, prefix: str, count: int = 1, size: int = 100) -> list[str]:
        """Let it log *count* records with the ids ``<prefix>-0`` and so on, and return their statuses."""
        return self.ask("log", prefix, count, size)

    def end(self, expect: int = 0) -> None:
        """Let it close its handler, note its counters, and end."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        assert self.process.wait() == expect, self.process.stderr.read()


@contextlib.contextmanager
def writer(
    log: Path,
    notes: Notes,
    *,
    wrap: Sequence[str] = (),
    env: dict[str, str] | None = None,
    first: str = "",
    **options: Any,
) -> Iterator[Writer]:
    """
    Start a :class:`Writer`; it is dead and reaped when the block ends.

    Args:
        log: Where it logs.
        notes: Where it notes what it logged.
        wrap: A command in front of the interpreter, such as strace.
        env: On top of this process's environment.
        first: Code that it runs when it has imported the package and not yet made its handler.
        options: The handler's, on top of those of a writer that writes when it is told to.
    """
    chosen = {"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01, **options}
    command, *front = [*wrap, sys.executable]
    with child_process(
        PREAMBLE + first + OBEY, log, notes.path, json.dumps(chosen), python=command, options=front, env=env
    ) as process:
        yield Writer(process)


# --- locks ---------------------------------------------------------------------------------------------------------

# A stranger needs nothing of what is installed: 16 ms to start, and not 46.
BARE = ("-I", "-S")
_HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def lock_file(log: Path) -> Path:
    """Return the lock file of *log*, by the name that concurrent-log-handler gives it."""
    return log.with_name(f".__{log.name}.lock")


@contextlib.contextmanager
def holding_the_lock(log: Path) -> Iterator[subprocess.Popen[str]]:
    """Let a stranger process hold the log's lock as long as the block lasts, or until it ends."""
    with child_process(_HOLD, lock_file(log), options=BARE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        yield stranger


# --- disks ----------------------------------------------------------------------------------------------------------


def run_or_skip(*command: object) -> str:
    """Run *command* and return what it printed, or skip the test where the machine does not allow it."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} does not work here: {done.stderr.strip()}")
    return done.stdout.strip()


class SmallDisk:
    """A real file system of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def free(self) -> int:
        """Return the bytes that may still be written."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_bsize

    def fill(self, leave: int = 0) -> None:
        """Take all room but *leave* bytes away."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):
                while self.free() - leave >= size:
                    try:
                        ballast.write(bytes(size))
                    except OSError:  # ENOSPC: the rest is not for files
                        break

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


# --- how every fault test ends -------------------------------------------------------------------------------------


def assert_sums(*snapshots: dict[str, Any]) -> None:
    """Assert that each snapshot's counters add up."""
    assert snapshots, "nobody took a snapshot"
    for one in snapshots:
        assert one["accepted"] == one["written"] + one["written_sync"] + one["pending"] + one["failed"], one


def assert_kept(log: Path, notes: Notes, *, sure: Iterable[str] | None = None) -> None:
    """
    Assert what must hold after any fault: the counters add up, each accepted record is there once, no line is torn.

    Args:
        log: The log.
        notes: What the writers noted.
        sure: The records that must be there, where a killed process may take those along that it had queued.
    """
    assert_sums(*notes.stats())
    for pid, (counted, noted) in notes.counted().items():
        assert counted == noted, f"process {pid} counted {counted} records and was given {noted}"
    assert_all_there_once(log, notes.ids() if sure is None else sure, others=sure is not None)
    there = {record["record_id"] for file in log_files(log) for record in read_lines(file)}
    assert there.isdisjoint(notes.ids("failed")), "a record that was refused is in the log"
