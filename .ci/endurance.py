"""
Let eight processes log for a while with one random fault after the other; then look for every record.

Usage: python .ci/endurance.py SECONDS [--seed N] [--picture FILE] [--leak BYTES], in whose Python the library is.

Faults come one at a time, each kind as often as the others: writers and adopters are killed (SIGKILL), the disk is
full for a while (a tmpfs, if root), a process may open no file, the lock file is deleted, the log is renamed, whoever
holds the lock is stopped (SIGSTOP), processes fork, close their handler, configure `logging` again.  The log rotates
and compresses all the while, and a reader reads and verifies it.  Four of the writers are never killed: what is alive
in them, their memory, descriptors and threads, and the reader's, must be flat; with --leak they keep so many bytes of
each record, and the run must fail.  At the end every record that was accepted must be there once, whole; records that a
handler accepted while it said that it acts as `memory` may die with their process, and are told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from enduring.processes import NOTE_BYTES
from enduring.watch import Watch, Watched, picture, steep
from helpers import log_files, read_lines  # type: ignore[import-not-found]  # of the tests

PROCESSES = Path(__file__).with_name("enduring") / "processes.py"
WRITERS, LASTING = 8, 4
_FULL_S: Final = 1.5
_STOPPED_S: Final = 0.8
_LOOK_FOR_HOLDER_S: Final = 2.0
_GIVE_UP_S: Final = 120.0
_HIGHEST_NUMBER: Final = 999_999
_SHORT_S: Final = 600


class Notes(threading.Thread):
    """Reads what all writers note, from one pipe, until the last of them has gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.read_end, self.write_end = os.pipe()
        self.kept_file = folder / "kept"
        self.kept_file.touch()
        self.accepted: set[str] = set()
        self.failed: set[str] = set()
        self.as_memory: set[str] = set()

    def run(self) -> None:
        """Sort the notes."""
        with open(self.read_end, "rb") as pipe, self.kept_file.open("ab", buffering=0) as kept:
            for line in pipe:  # each was one write of less than PIPE_BUF: whole
                record_id, what = line.decode().split()
                if what[0] == "f":
                    self.failed.add(record_id)
                    continue
                self.accepted.add(record_id)
                if what[1] == "m":
                    self.as_memory.add(record_id)
                else:
                    kept.write(line)


class Run:
    """The processes, and what is done to them."""

    def __init__(
        self, folder: Path, disk: Path, chance: random.Random, *, may_mount: bool, leak_bytes: int = 0
    ) -> None:
        self.folder, self.disk, self.chance, self.leak_bytes = folder, disk, chance, leak_bytes
        self.log = disk / "log.jsonl"
        self.notes = Notes(folder)
        self.errors = (folder / "errors").open("ab")
        self.lives: Counter[int] = Counter()
        self.writers: list[subprocess.Popen[bytes]] = [self.start(number) for number in range(WRITERS)]
        self.passes = folder / "passes"
        self.reader = self.role("read", self.notes.kept_file, self.passes, self.tells("reader"))
        self.injected: Counter[str] = Counter()
        self.faults: list[Callable[[], None]] = [
            self.kill_writer, self.kill_adopter, self.kill_holder, self.end_writer, self.few_descriptors,
            self.small_files, self.delete_lock_file, self.rename_log, self.stop_holder, self.fork, self.close,
            self.configure,
        ]  # fmt: skip
        if may_mount:
            self.faults.append(self.fill_disk)

    def role(self, role: str, *arguments: object, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Start one of the processes."""
        command = [sys.executable, str(PROCESSES), role, str(self.log), *map(str, arguments)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=self.errors)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Start a writer, or the next life of one that was killed."""
        self.lives[number] += 1
        name, seed = f"w{number}.{self.lives[number]}", self.chance.randrange(1 << 30)
        watched = (self.tells(f"writer {number}"), self.leak_bytes) if number < LASTING else ()
        return self.role("write", name, seed, *watched, stdout=self.notes.write_end)

    def tells(self, name: str) -> Path:
        """Return the file in which a process that lasts tells what it holds."""
        return self.folder / f"held by {name}"

    def tell(self, command: str) -> None:
        """Tell any writer something."""
        writer = self.chance.choice(self.writers)
        inbox(writer).write(command.encode() + b"\n")
        inbox(writer).flush()

    # -- faults

    def kill_writer(self, victim: int = 0) -> None:
        """SIGKILL one of those that do not last; another takes its place."""
        pids = [writer.pid for writer in self.writers]
        number = pids.index(victim) if victim else self.chance.randrange(LASTING, WRITERS)
        reap(self.writers[number])
        self.writers[number] = self.start(number)

    def kill_holder(self) -> None:
        """SIGKILL whoever of those holds the lock, or any of them if none can be seen to."""
        victim = self.stop_while_holding([writer.pid for writer in self.writers[LASTING:]])
        self.injected["kill_holder, and it held the lock"] += bool(victim)
        self.kill_writer(victim)

    def end_writer(self) -> None:
        """Let one of those come to its normal end; another takes its place."""
        number = self.chance.randrange(LASTING, WRITERS)
        inbox(self.writers[number]).close()
        if status := self.writers[number].wait(_GIVE_UP_S):
            raise AssertionError(f"a writer ended with {status}")
        self.writers[number] = self.start(number)

    def kill_adopter(self) -> None:
        """SIGKILL a writer, and then who is bringing its records home."""
        self.kill_writer()
        adopter = self.role("adopt", stdout=subprocess.PIPE)
        if adopter.stdout is not None:
            adopter.stdout.readline()
        time.sleep(self.chance.random() * 0.03)
        reap(adopter)

    def fill_disk(self) -> None:
        """Take all room away, for a while."""
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):  # ENOSPC: as meant
                    while True:
                        file.write(bytes(size))
        time.sleep(_FULL_S)
        ballast.unlink()

    def few_descriptors(self) -> None:
        """Let a writer open no file for a while."""
        self.tell("few-descriptors")

    def small_files(self) -> None:
        """Let a writer's files not grow past some size for a while."""
        self.tell("small-files")

    def delete_lock_file(self) -> None:
        """Delete the lock file under everybody's hands."""
        self.log.with_name(f".__{self.log.name}.lock").unlink(missing_ok=True)

    def rename_log(self) -> None:
        """Do what logrotate does."""
        with suppress(FileNotFoundError):  # just being rotated
            # Downwards, since the highest number is the oldest file: logrotate renames them all each time.
            self.log.rename(f"{self.log}.{_HIGHEST_NUMBER - self.injected['rename_log']}")

    def stop_holder(self) -> None:
        """SIGSTOP whoever holds the lock, or any writer if nobody can be seen to; SIGCONT after a while."""
        pids = [writer.pid for writer in self.writers]
        stopped = self.stop_while_holding(pids)
        self.injected["stop_holder, and it held the lock"] += bool(stopped)
        os.kill(stopped := stopped or self.chance.choice(pids), signal.SIGSTOP)
        time.sleep(_STOPPED_S)
        os.kill(stopped, signal.SIGCONT)

    def stop_while_holding(self, pids: list[int]) -> int:
        """SIGSTOP one of the processes while it holds the lock; return which, 0 if none could be caught in time."""
        until_s = time.monotonic() + _LOOK_FOR_HOLDER_S
        while time.monotonic() < until_s:
            if (pid := self.holder()) in pids:
                os.kill(pid, signal.SIGSTOP)
                if self.holder() == pid:
                    return pid
                os.kill(pid, signal.SIGCONT)  # it has just let go
        return 0

    def holder(self) -> int:
        """Return the process that holds the lock file now; 0 if none, or none that the kernel names."""
        with suppress(OSError):
            inode = self.log.with_name(f".__{self.log.name}.lock").stat().st_ino
            for row in Path("/proc/locks").read_text("ascii").splitlines():
                words = row.split()
                if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                    return int(words[4])
        return 0

    def fork(self) -> None:
        """Let a writer fork a child that logs and ends in one of three ways."""
        self.tell(f"fork {self.chance.choice(['killed', 'closed', 'exits'])}")

    def close(self) -> None:
        """Let a writer close its handler and log on."""
        self.tell("close")

    def configure(self) -> None:
        """Let a writer run dictConfig again."""
        self.tell("configure")

    # -- from beginning to end

    def play(self, seconds: float) -> Watch:
        """Inject faults for so many seconds; return what the lasting processes held."""
        self.notes.start()
        until_s = time.monotonic() + seconds
        pids = {f"writer {number}": self.writers[number].pid for number in range(LASTING)} | {"reader": self.reader.pid}
        lasting = {name: Watched(pid, self.tells(name)) for name, pid in pids.items()}
        files = [(self.notes.kept_file, WRITERS * NOTE_BYTES), *((one.tells, 1) for one in lasting.values())]
        while not all(file.exists() and file.stat().st_size >= size for file, size in files):
            time.sleep(0.05)  # starting is not the subject
        watch = Watch(lasting, 2.0 if seconds <= _SHORT_S else 10.0)
        watch.start()
        deck: list[Callable[[], None]] = []
        while time.monotonic() < until_s:
            deck = deck or self.chance.sample(self.faults, len(self.faults))
            fault = deck.pop()
            fault()
            self.injected[fault.__name__] += 1
            for writer in self.writers:
                if writer.poll() is not None:
                    raise AssertionError(f"a writer that nobody killed ended with {writer.returncode}")
            time.sleep(self.chance.random())
        watch.stop()
        return watch

    def end(self) -> None:
        """Let all end well, and bring home what is left."""
        for writer in self.writers:
            inbox(writer).close()
        for writer in self.writers:
            if writer.wait(_GIVE_UP_S):
                raise AssertionError(f"a writer ended with {writer.returncode}")
        if self.reader.poll() is not None:
            raise AssertionError(f"the reader ended with {self.reader.returncode}")
        reap(self.reader)
        os.close(self.notes.write_end)
        self.notes.join(_GIVE_UP_S)
        if (adopter := self.role("adopt", stdout=subprocess.DEVNULL)).wait(_GIVE_UP_S):
            raise AssertionError(f"an adopter ended with {adopter.returncode}")

    def judge(self) -> list[str]:
        """Print what was found; return what should not be."""
        found: Counter[str] = Counter()
        torn = []
        for file in log_files(self.log):
            try:
                found.update(record["record_id"] for record in read_lines(file))
            except AssertionError as error:
                torn.append(str(error))
        lost = self.notes.accepted - found.keys()
        died, lost = lost & self.notes.as_memory, lost - self.notes.as_memory
        doubled = sorted(one for one, count in found.items() if count > 1)
        refused = self.notes.failed & found.keys()
        passes = [json.loads(line) for line in self.passes.read_text("utf-8").splitlines()]
        short = [one for one in passes if one["read"] < one["noted"]]
        print(
            f"{len(self.notes.accepted)} records accepted, {len(self.notes.failed)} refused; "
            f"{len(log_files(self.log))} files; {len(passes)} passes of the reader\n"
            f"accepted as `memory`, where no journal could be had: {len(self.notes.as_memory)}, of which "
            f"{len(died)} died with a killed process\n"
            f"in the log but not noted, since a kill came in between: {len(found.keys() - self.notes.accepted)}\n"
            f"lost {len(lost)}, doubled {len(doubled)}, torn {len(torn)}"
        )
        bad = [f"lost: {sorted(lost)[:10]}"] * bool(lost) + [f"doubled: {doubled[:10]}"] * bool(doubled)
        bad += torn + [f"refused and in the log: {sorted(refused)[:10]}"] * bool(refused)
        bad += [f"the reader missed what was noted before: {short[:3]}"] * bool(short)
        bad += [f"left in the journal: {left}" for left in self.disk.glob("*.journal/*")]
        bad += [f"no {fault.__name__}" for fault in self.faults if not self.injected[fault.__name__]]
        errors = (self.folder / "errors").read_text("utf-8")
        return bad + [f"said by a process:\n{errors[:3000]}"] * bool(errors)


def inbox(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return what a process reads from."""
    return cast("IO[bytes]", process.stdin)


def reap(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process, and take its end."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def mount(disk: Path, seconds: float) -> bool:
    """Put a small file system at *disk*, if we may, with room for what so many seconds write."""
    size = (64 << 20) + int(seconds) * (48 << 10)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "endurance", str(disk)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def go(arguments: argparse.Namespace, folder: Path, disk: Path, *, may_mount: bool) -> list[str]:
    """Play, judge and draw; return what should not be."""
    chance = random.Random(arguments.seed)  # noqa: S311  nobody is to be surprised
    run = Run(folder, disk, chance, may_mount=may_mount, leak_bytes=arguments.leak)
    try:
        watch = run.play(arguments.seconds)
        run.end()
        for name, count in sorted(run.injected.items()):
            print(f"{name:<36}{count:>6}")
        bad = run.judge() + steep(watch.curves)
    finally:
        for process in [*run.writers, run.reader]:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                reap(process)
    if arguments.picture:
        faults = sum(run.injected[fault.__name__] for fault in run.faults)
        title = f"{arguments.seconds:g} s, {len(run.notes.accepted)} records, {faults} faults; writers blue, reader red"
        Path(arguments.picture).write_text(picture(watch.curves, title), "utf-8")
    return bad


def main() -> int:
    """Run, and say what was found; 0 when nothing was lost, doubled or torn, and all curves are flat."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--picture", metavar="FILE", help="draw the curves as SVG")
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES", help="that each record shall cost for ever")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="endurance-"))
    disk = folder / "disk"
    disk.mkdir()
    may_mount = mount(disk, arguments.seconds)
    print(f"seed {arguments.seed}" + ("" if may_mount else ", without a full disk: only root may mount"), flush=True)
    try:
        try:
            bad = go(arguments, folder, disk, may_mount=may_mount)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            bad = [str(error), (folder / "errors").read_text("utf-8")]
        if bad:
            shutil.copytree(disk, folder / "failed")
            print("\n".join(bad), f"FAILED; the log is kept in {folder / 'failed'}", sep="\n")
            return 1
    finally:
        if may_mount:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    shutil.rmtree(folder)
    print("all curves flat")
    return 0


if __name__ == "__main__":
    sys.exit(main())
