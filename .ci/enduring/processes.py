"""
The processes of an endurance run, one a role: write, adopt, read.

Usage: python .ci/enduring/processes.py write LOG DURABILITY NAME SEED [HELD [LEAK]]
       python .ci/enduring/processes.py adopt LOG DURABILITY
       python .ci/enduring/processes.py read LOG DURABILITY NOTES PASSES HELD

A writer logs some records a second until standard input says otherwise, and notes each on standard output, right after
its call has returned: ``<record id> <a or f><c or m>``, accepted or failed, and whether the handler says that it keeps
to DURABILITY or acts as `memory`; ``<name> i-`` when a call was interrupted.  In the file HELD it tells what it holds;
LEAK bytes a record it keeps for ever.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import select
import signal
import sys
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ai_response_logging import configure, read_log
from ai_response_logging.errors import DurabilityWarning, LogReadError
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.verify import verify_log
from enduring.held import Teller

NOTE_BYTES: Final = 32
MAX_BYTES: Final = 256 << 10
RECORDS_A_SECOND: Final = 15
_TEXT: Final = "An answer of some length, which compresses as answers do. " * 8
_LIMITED_S: Final = 1.0
_INTERRUPTED_CALLS: Final = 20
_CALL_S: Final = 0.0003
_LIMITS: Final = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
_RECORDS_OF_A_CHILD: Final = 3
# What Python runs when it collects a handler: what is raised there it prints, and goes on.
_FINALIZERS: Final = {
    weakref.finalize.__call__.__code__,
    weakref.WeakSet()._remove.__code__,  # type: ignore[attr-defined]  # noqa: SLF001  they have no other name
    logging._removeHandlerRef.__code__,  # type: ignore[attr-defined]  # noqa: SLF001  the same
}


def is_amid_a_finalizer(frame: FrameType | None) -> bool:
    """Say whether *frame* is a finalizer's, or one that it has called."""
    while frame is not None and frame.f_code not in _FINALIZERS:
        frame = frame.f_back
    return frame is not None


def options(durability: str, batch_size: int = 10) -> dict[str, Any]:
    """Return the handler's options, of all processes."""
    return {
        "durability": durability,
        "batch_size": batch_size, "flush_interval": 0.5, "retry_delay": 0.05, "max_bytes": MAX_BYTES, "compress": True,
    }  # fmt: skip


class SoftTimeLimit(Exception):  # noqa: N818  as a task queue names it
    """Raised by a signal handler; a library that takes it for an error of its own must not lose the record by it."""


class HardExit(BaseException):
    """The same, past everything that handles errors."""


class Task(NamedTuple):
    """What a writer is started with, as words of its command line."""

    log: str
    durability: str
    name: str
    seed: str
    held: str = ""
    leak_bytes: str = "0"


class Writer:
    """Logs, and does what it is told."""

    def __init__(self, task: Task) -> None:
        self.task, self.name = task, task.name
        self.chance = random.Random(int(task.seed))  # noqa: S311  nobody is to be surprised
        self.interruptions = self.interrupted = 0
        self.how = ""
        self.is_in_call = False
        signal.signal(signal.SIGALRM, self.on_alarm)
        self.children: set[int] = set()
        self.forks = 0
        self.limits = {which: resource.getrlimit(which) for which in _LIMITS}
        self.unlimited_s: float | None = None
        self.handler = self.configured()
        self.teller = Teller(task.held) if task.held else None
        self.leak_bytes = int(task.leak_bytes)
        self.leaked: list[bytes] = []

    def configured(self) -> AIResponseHandler:
        """Run a dictConfig, as an application may at any time."""
        ours = {"class": "ai_response_logging.AIResponseHandler", "filename": self.task.log}
        return configure(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"ours": {**ours, **options(self.task.durability, self.chance.choice([1, 10, 30]))}},
                "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ours"], "propagate": False}},
            }
        )

    def record(self, record_id: str) -> None:
        """Log one record and note it; not where an exception came in between, for nobody knows what became of it."""
        with suppress(SoftTimeLimit, HardExit):
            status = self.interrupted_call(record_id) if self.interruptions else self.call(record_id)
            self.note(record_id, status)

    def call(self, record_id: str) -> str:
        """Log one record, and return its status."""
        text = _TEXT[: self.chance.randrange(len(_TEXT))] + self.chance.randbytes(40).hex()
        return self.handler.submit_fields({"record_id": record_id, "response": text}).status

    def note(self, record_id: str, status: str) -> None:
        """Tell what became of a record."""
        kept = "m" if self.handler.get_stats()["durability"] == "memory" else "c"
        what = f"{record_id} {'f' if status == 'failed' else 'a'}{kept}"
        os.write(1, what.ljust(NOTE_BYTES - 1).encode() + b"\n")

    def interrupted_call(self, record_id: str) -> str:
        """Log one record with a signal in the middle of it."""
        self.interruptions -= 1
        self.is_in_call = True
        try:
            signal.setitimer(signal.ITIMER_REAL, _CALL_S * (0.01 + self.chance.random()))
            return self.call(record_id)
        finally:
            self.is_in_call = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def on_alarm(self, _: int, frame: FrameType | None) -> None:
        """Do in the middle of a call what was told."""
        if not self.is_in_call:
            return
        if self.how != "logs" and is_amid_a_finalizer(frame):
            signal.setitimer(signal.ITIMER_REAL, _CALL_S)
            return
        self.is_in_call = False
        self.interrupted += 1
        os.write(1, f"{self.name} i-".ljust(NOTE_BYTES - 1).encode() + b"\n")
        if self.how == "logs":
            name = f"{self.name}s{os.getpid()}-{self.interrupted}"
            self.note(name, self.call(name))
        else:
            raise SoftTimeLimit if self.how == "raises" else HardExit

    def fork(self, end: str) -> None:
        """Let a child log, and end as *end* says."""
        self.forks += 1
        if pid := os.fork():
            self.children.add(pid)
            return
        try:
            for number in range(_RECORDS_OF_A_CHILD):
                self.record(f"{self.name}c{self.forks}-{number}")
            if end == "killed":
                signal.raise_signal(signal.SIGKILL)
            if end == "closed":
                self.handler.close()
        finally:
            os._exit(0)

    def limit(self, which: int, value: int) -> None:
        """Let this process have no more than *value* of something for a while."""
        resource.setrlimit(which, (value, self.limits[which][1]))
        self.unlimited_s = time.monotonic() + _LIMITED_S

    def unlimit(self) -> None:
        """Let it have what it had."""
        for which, limits in self.limits.items():
            resource.setrlimit(which, limits)
        self.unlimited_s = None

    def obey(self, command: str) -> bool:
        """Do what a line of standard input says; False at its end."""
        what, _, how = command.partition(" ")
        if what == "fork":
            self.fork(how)
        elif what == "close":
            self.handler.close()
        elif what == "configure":
            self.handler = self.configured()
        elif what == "few-descriptors":
            self.limit(resource.RLIMIT_NOFILE, 1 + max(map(int, os.listdir("/proc/self/fd"))))
        elif what == "interrupt":
            self.how, self.interruptions = how, _INTERRUPTED_CALLS
        elif what == "small-files":
            self.limit(resource.RLIMIT_FSIZE, self.chance.randrange(MAX_BYTES))
        return bool(what)

    def run(self) -> None:
        """Log until standard input ends."""
        number = 0
        while True:
            pause_s = self.chance.random() * 2 / RECORDS_A_SECOND
            # Unbuffered, since what lies in a buffer wakes no select.
            if select.select([0], [], [], pause_s)[0] and not self.obey(_line_of_standard_input()):
                break
            self.record(f"{self.name}-{number}")
            number += 1
            if self.leak_bytes:
                self.leaked.append(self.chance.randbytes(self.leak_bytes))
            if self.teller:
                self.teller.tell()
            if self.unlimited_s is not None and time.monotonic() > self.unlimited_s:
                self.unlimit()
            for pid in [pid for pid in self.children if os.waitpid(pid, os.WNOHANG)[0]]:
                self.children.discard(pid)
        self.unlimit()
        for pid in self.children:
            os.waitpid(pid, 0)
        self.handler.close()


def _line_of_standard_input() -> str:
    line = b""
    while (byte := os.read(0, 1)) not in {b"", b"\n"}:
        line += byte
    return line.decode()


def adopt(log: str, durability: str) -> None:
    """Open the log as the next program does, and bring home what others left."""
    print("ready", flush=True)
    handler = AIResponseHandler(log, close_timeout=60.0, **options(durability))
    handler.flush()
    handler.close()


def read(log: str, notes: Path, passes: Path, held: str) -> NoReturn:
    """
    Read the whole log and verify it, again and again, a quarter of the time; write a line for each pass.

    Every record that was noted when a pass began must be in it.
    """
    teller = Teller(held)
    while True:
        began_s, noted = time.monotonic(), notes.stat().st_size // NOTE_BYTES
        with suppress(LogReadError):  # renamed faster than it could be opened: it says so, and asks for another try
            seen = sum(1 for _ in read_log(log, missing_ok=True))
            records = verify_log(log).records if seen else 0
            with passes.open("a") as file:
                file.write(json.dumps({"noted": noted, "read": seen, "verified": records}) + "\n")
        teller.tell()
        time.sleep(max(0.5, 3 * (time.monotonic() - began_s)))


def _say_unraisable(what: sys.UnraisableHookArgs) -> None:
    # An exception that falls behind the start in Thread.start() has `threading` forget a thread that runs already; that
    # one then ends at once. Its own, and the next record starts another listener.
    if isinstance(what.exc_value, KeyError) and getattr(what.object, "__name__", "") == "_bootstrap":
        return
    sys.__unraisablehook__(what)


def main() -> None:
    """Play the role that the command line names."""
    role, log, durability, *rest = sys.argv[1:]
    logging.raiseExceptions = False
    sys.unraisablehook = _say_unraisable
    warnings.simplefilter("ignore", DurabilityWarning)  # on a full disk there can be no journal, and each note says so
    if role == "write":
        Writer(Task(log, durability, *rest)).run()
    elif role == "adopt":
        adopt(log, durability)
    else:
        read(log, Path(rest[0]), Path(rest[1]), rest[2])


if __name__ == "__main__":
    main()
