"""The promise as the invariant of a state machine: whatever is done to writers, disk and log, in whatever order.

Long, because writers, model and machine only make sense together.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import logging
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import CHECKSUM, has_fork, log_files
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ai_response_logging.handler import AIResponseHandler

IS_LONG = settings.get_current_profile_name() == "long"
SIZES = settings(max_examples=300 if IS_LONG else 30, stateful_step_count=40 if IS_LONG else 20, deadline=None)
MOST_WRITERS = 3
pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.timeout(3600 if IS_LONG else 300),
    has_fork,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd_open"),
]
DISK_MIB = 16
COMMON: dict[str, Any] = {"durability": "crash", "close_timeout": 0.3, "caller_timeout": 0.1, "retry_delay": 0.01}
FLUSH_S, GIVE_UP_S = 20, 60  # for what takes milliseconds


# --- writers: real processes, forked from this one, which has all imported ------------------------------------------


def serve(log: Path, notes: Path, commands: int, answers: int, options: dict[str, Any]) -> None:
    """Do what comes by *commands*, and note each record right after its call has returned."""
    logging.raiseExceptions = False
    warnings.simplefilter("ignore")  # that a full disk gives no journal is what the snapshots say as well
    noted = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    handler = AIResponseHandler(log, **COMMON, **options)

    def log_some(name: str, count: int, size: int) -> None:
        for number in range(count):
            record_id = f"{name}-{number}"
            record = logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": "x" * size})
            os.write(noted, f"{record_id} {handler.submit(record)}\n".encode())

    def fork(name: str, count: int, *, is_killed: bool) -> Any:
        pid = os.fork()
        if not pid:
            log_some(name, count, 50)
            if is_killed:
                os.kill(os.getpid(), signal.SIGKILL)
            handler.close()
            found = handler.get_stats()
            os._exit(0 if adds_up(found) and found["accepted"] == count else 3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    does: dict[str, Callable[..., Any]] = {
        "log": log_some, "flush": lambda: handler.flush(FLUSH_S), "try": lambda: handler.flush(0.05), "fork": fork,
        "close": handler.close,
    }  # fmt: skip
    with os.fdopen(commands, encoding="utf-8") as lines:
        for line in lines:
            what, args, keywords = json.loads(line)
            if what == "end":  # its pipe is not enough: those forked later have a copy of the other end
                break
            result = does[what](*args, **keywords)
            os.write(answers, json.dumps([result, handler.get_stats()]).encode() + b"\n")
    handler.close()


def adds_up(found: Any) -> bool:
    """Say whether a snapshot's counters add up."""
    return bool(found["accepted"] == found["written"] + found["written_sync"] + found["pending"] + found["failed"])


class Writer:
    """A process that logs when it is told to."""

    def __init__(self, log: Path, notes: Path, options: dict[str, Any]) -> None:
        self.notes, self.is_compressing = notes, options["compress"]
        self.is_risky = False
        """Whether it has said that its durability is `memory`, and nothing has come home since."""
        self.unsettled: set[str] = set()
        """What it logged since all had come home."""
        commands, self._commands = os.pipe()
        answers, answering = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._commands)
                os.close(answers)
                serve(log, notes, commands, answering, options)
                os._exit(0)
            except BaseException:  # noqa: BLE001  pytest must not go on in the child
                notes.with_suffix(".error").write_text(traceback.format_exc())
            os._exit(1)
        os.close(commands)
        os.close(answering)
        self._answers = os.fdopen(answers, encoding="utf-8")

    def send(self, what: str, *args: Any, **keywords: Any) -> None:
        """Tell it what to do, without waiting."""
        os.write(self._commands, json.dumps([what, args, keywords]).encode() + b"\n")

    def ask(self, what: str, *args: Any, **keywords: Any) -> Any:
        """Tell it what to do, wait until it is done, and see that its counters add up."""
        self.send(what, *args, **keywords)
        assert select.select([self._answers], [], [], GIVE_UP_S)[0], f"{what} hung"
        line = self._answers.readline()
        error = self.notes.with_suffix(".error")
        assert line, error.read_text() if error.exists() else f"{self.pid} ended"
        result, found = json.loads(line)
        assert adds_up(found), found
        assert found["accepted"] == len(self.notes.read_text().split("\n")) - 1 - self.foreign, found
        if not found["pending"]:
            self.unsettled, self.is_risky = set(), False
        self.is_risky = self.is_risky or found["durability"] == "memory"
        return result

    foreign = 0
    """How many of its notes are of children that it forked, which count for themselves."""

    def leave(self, *, is_killed: bool) -> None:
        """Let it end, and reap it."""
        if is_killed:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.send("end")
        os.close(self._commands)
        self._answers.close()
        end = os.pidfd_open(self.pid)
        has_ended = bool(select.select([end], [], [], GIVE_UP_S)[0])
        os.close(end)
        if not has_ended:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert has_ended, "its end hung"
        assert status == (-signal.SIGKILL if is_killed else 0), status


# --- the machine -----------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Writers, a log and a small disk; the model is the set of records that were accepted."""

    disk: Path
    is_mounted: bool

    @initialize()
    def begin(self) -> None:
        """Begin with a new log on an empty disk."""
        self.log = self.disk / "log.jsonl"
        self.folder = Path(tempfile.mkdtemp())
        self.writers: list[Writer] = []
        self.is_full = False
        self.cuts = self.started = self.names = 0
        self.has_killed = False
        self.accepted: set[str] = set()
        self.failed: set[str] = set()
        self.loose: set[str] = set()
        """Records whose bytes somebody destroyed, or whose writer had said that it kept them in memory only."""

    def teardown(self) -> None:
        """End everybody, open the log once more, and look for every record."""
        if not hasattr(self, "writers"):
            return
        try:
            if self.is_full:
                self.free_disk()
            for number in range(len(self.writers)):
                self.leave(0, is_killed=bool(number % 2))
            self.replay()
            self.look_at_log(is_over=True)
            assert not list(self.disk.glob("log.jsonl.journal/*")), "nobody lives, and there is a journal"
        finally:
            for one in self.writers:
                with contextlib.suppress(OSError, AssertionError):
                    one.leave(is_killed=True)
            for path in self.disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.rmtree(self.folder)

    def writer(self, which: int) -> Writer:
        """Return one of those that live."""
        return self.writers[which % len(self.writers)]

    def has_writers(self) -> bool:
        """Say whether anybody lives."""
        return bool(self.writers)

    # -- what writers do

    @precondition(lambda self: len(self.writers) < MOST_WRITERS)
    @rule(
        batch_size=st.sampled_from([1, 5, 10_000]), flush_interval=st.sampled_from([0.005, 1000]),
        queue_max_size=st.sampled_from([3, 1000]), max_bytes=st.sampled_from([0, 5000]), compress=st.booleans(),
    )  # fmt: skip
    def restart(self, **options: Any) -> None:
        """Let another process begin."""
        self.started += 1
        self.writers.append(Writer(self.log, self.folder / f"notes-{self.started}", options))
        if self.is_full and not self.is_mounted:
            self.limit_files(1)

    @precondition(has_writers)
    @rule(which=st.integers(0, 2), count=st.integers(1, 30), size=st.sampled_from([10, 400, 20_000]))
    def record(self, which: int, count: int, size: int) -> None:
        """Let one of them log."""
        one = self.writer(which)
        one.ask("log", self.name(), count, size)
        self.read_notes(one)

    @precondition(has_writers)
    @rule(which=st.integers(0, 2))
    def flush(self, which: int) -> None:
        """Let one of them flush: with room on the disk all comes home."""
        if self.is_full:
            self.writer(which).ask("try")
        else:
            assert self.writer(which).ask("flush") is True

    @precondition(has_writers)
    @rule(which=st.integers(0, 2), count=st.integers(1, 5), is_killed=st.booleans())
    def fork(self, which: int, count: int, *, is_killed: bool) -> None:
        """Let one of them fork a child that logs, and ends or is killed."""
        one, before = self.writer(which), len(self.accepted) + len(self.failed)
        one.foreign += count
        self.has_killed |= is_killed
        result = one.ask("fork", self.name(), count, is_killed=is_killed)
        assert result == (-signal.SIGKILL if is_killed else 0), result
        new = self.read_notes(one, is_its_own=False)
        assert len(self.accepted) + len(self.failed) == before + count
        if self.is_full:  # whether it had a journal, nobody says any more
            self.loose |= new

    @precondition(has_writers)
    @rule(which=st.integers(0, 2), is_killed=st.booleans())
    def leave(self, which: int, *, is_killed: bool) -> None:
        """Let one of them end, or kill it."""
        one = self.writers.pop(which % len(self.writers))
        if one.is_risky:
            self.loose |= one.unsettled
        self.has_killed |= is_killed
        one.leave(is_killed=is_killed)
        self.read_notes(one)

    @precondition(has_writers)
    @rule(which=st.integers(0, 2), after=st.integers(0, 40), at_append=st.booleans())
    def kill_in_the_middle(self, which: int, after: int, *, at_append: bool) -> None:
        """Kill one of them while it logs: when it has noted some records, or right when the log has grown."""
        one = self.writers.pop(which % len(self.writers))
        noted, grown = size_of(one.notes), size_of(self.log)
        one.send("log", self.name(), 1000, 200)
        while size_of(one.notes) < noted + (900 if at_append else after) * 10:
            if at_append and size_of(self.log) != grown:
                break
            assert not one.notes.with_suffix(".error").exists(), one.notes.with_suffix(".error").read_text()
        self.has_killed = True
        one.leave(is_killed=True)
        self.read_notes(one)
        if one.is_risky or self.is_full:
            self.loose |= one.unsettled

    @rule()
    def replay(self) -> None:
        """Let the next program open the log and close it."""
        one = Writer(self.log, self.folder / "nobody", {"compress": False})
        one.notes.touch()
        if not self.is_full:
            assert one.ask("flush") is True
        one.leave(is_killed=False)

    # -- what others do

    @precondition(lambda self: not self.is_full)
    @rule()
    def fill_disk(self) -> None:
        """Take all room away."""
        self.is_full = True
        if not self.is_mounted:
            self.limit_files(1)
            return
        with (self.disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4096)):
                pass

    @precondition(lambda self: self.is_full)
    @rule()
    def free_disk(self) -> None:
        """Give the room back."""
        self.is_full = False
        if self.is_mounted:
            (self.disk / "ballast").unlink()
        else:
            self.limit_files(resource.RLIM_INFINITY)

    def limit_files(self, size: int) -> None:
        """Let no file of the writers grow beyond *size*: a full disk for who may not mount one."""
        for one in self.writers:
            resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    @rule()
    def rotate(self) -> None:
        """Rename the log, as logrotate without `create` does."""
        with self.locked():
            if self.log.exists() and self.log.read_bytes().endswith(b"\n"):
                self.names += 1
                self.log.rename(self.log.with_name(f"log.jsonl.{self.names}"))

    @precondition(lambda self: not self.is_full and not any(one.is_compressing for one in self.writers))
    @rule()
    def compress(self) -> None:
        """Compress what was rotated, as logrotate does."""
        for plain in log_files(self.log):
            if plain != self.log and plain.suffix != ".gz":
                packed = self.folder / "packed"
                packed.write_bytes(gzip.compress(plain.read_bytes()))
                shutil.copyfile(packed, f"{plain}.gz.new")
                os.rename(f"{plain}.gz.new", f"{plain}.gz")
                plain.unlink()

    @rule(part=st.sampled_from([0.0, 0.3, 0.5, 0.99]))
    def truncate_log(self, part: float) -> None:
        """Cut a part of the log off: what stood there is gone, or may come once more where nobody knew it."""
        with self.locked():
            if not self.log.exists():
                return
            content = self.log.read_bytes()
            size = int(len(content) * part)
            whole = content[:size].rfind(b"\n") + 1
            self.cuts += whole != size
            self.loose |= {id_ for id_ in map(id_of, content[whole:].splitlines(keepends=True)) if id_}
            os.truncate(self.log, size)

    # -- what must hold

    @invariant()
    def look_at_log(self, *, is_over: bool = False) -> None:
        """Assert that each record is there at most once, and at the end exactly once, and that no line is torn."""
        if not hasattr(self, "writers"):
            return
        found, torn = Counter[str](), 0
        with self.locked():
            for content in self.contents():
                for line in content.splitlines(keepends=True):
                    if id_ := id_of(line):
                        found[id_] += 1
                    # A kill in the middle of a large write(2) leaves a part of it, for the next writer to mend.
                    elif is_over or not self.has_killed or line.endswith(b"\n"):
                        torn += 1
        for one in self.writers:
            self.read_notes(one)
        assert torn <= self.cuts, f"{torn} torn lines, {self.cuts} cuts"
        assert [id_ for id_, count in found.items() if count > 1] == [], "doubled"
        assert self.failed.isdisjoint(found), "failed, and in the log"
        if is_over:
            lost = self.accepted - found.keys() - self.loose
            assert not lost, f"{len(lost)} of {len(self.accepted)} lost: {sorted(lost)[:10]}"

    def contents(self) -> list[bytes]:
        """Return what is in the log's files; one that is compressed meanwhile is looked for again."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                return [
                    gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
                    for file in log_files(self.log)
                ]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the log's lock, so that nobody is in the middle of a block."""
        path = self.log.with_name(f".__{self.log.name}.lock")
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def name(self) -> str:
        """Return a name for the next records, of a fixed length."""
        self.names += 1
        return f"{self.names:05d}"

    def read_notes(self, one: Writer, *, is_its_own: bool = True) -> set[str]:
        """Take what *one* has noted into the model, and return what is new."""
        notes = [line.split() for line in one.notes.read_text().split("\n")[:-1]] if one.notes.exists() else []
        new = {id_ for id_, status in notes if status != "failed"} - self.accepted
        self.accepted |= new
        self.failed |= {id_ for id_, status in notes if status == "failed"}
        if is_its_own:
            one.unsettled |= new
        return new


def size_of(path: Path) -> int:
    """Return how large a file is; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def id_of(line: bytes) -> str:
    """Return the id of the record in a whole line; of one that is torn, nothing."""
    if not line.endswith(b"\n") or not CHECKSUM.fullmatch(line[:-1]):
        return ""
    return str(json.loads(line)["record_id"])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[Machine]]:
    """Give the machine a disk: a real small one, where that may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "small", str(disk)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield type("MachineHere", (Machine,), {"disk": disk, "is_mounted": is_mounted})
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def test_whatever_happens_each_accepted_record_is_there_once(machine: type[Machine]):
    """Log, flush, kill, restart, rotate, fill, free, replay, fork, truncate, compress: the promise holds after each."""
    run_state_machine_as_test(machine, settings=SIZES)  # type: ignore[no-untyped-call]
