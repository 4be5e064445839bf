"""The processes of an endurance run: started, told something, ended, and what they noted."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from .shims import Shims

__all__ = ["GIVE_UP_S", "LASTING", "WRITERS", "Crew", "Notes", "Setting", "inbox", "reap"]

PROCESSES: Final = Path(__file__).with_name("processes.py")
WRITERS: Final = 8
LASTING: Final = 4
GIVE_UP_S: Final = 120.0


class Setting(NamedTuple):
    """What a run is made of."""

    folder: Path
    """Where its own files are."""
    disk: Path
    """Where the log is."""
    chance: random.Random
    durability: str
    leak_bytes: int
    may_mount: bool
    """Whether the disk is one that may be filled."""


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
        self.interrupted = 0

    def run(self) -> None:
        """Sort the notes."""
        with open(self.read_end, "rb") as pipe, self.kept_file.open("ab", buffering=0) as kept:
            for line in pipe:  # each was one write of less than PIPE_BUF: whole
                record_id, what = line.decode().split()
                if what[0] == "i":
                    self.interrupted += 1
                    continue
                if what[0] == "f":
                    self.failed.add(record_id)
                    continue
                self.accepted.add(record_id)
                if what[1] == "m":
                    self.as_memory.add(record_id)
                else:
                    kept.write(line)


class Crew:
    """Eight writers, of which four last, and a reader."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.chance = setting, setting.chance
        self.log = setting.disk / "log.jsonl"
        self.notes = Notes(setting.folder)
        self.shims = Shims(setting.folder, self.log)
        self.errors = (setting.folder / "errors").open("ab")
        self.lives: Counter[int] = Counter()
        self.writers: list[subprocess.Popen[bytes]] = [self.start(number) for number in range(WRITERS)]
        self.passes = setting.folder / "passes"
        self.reader = self.role("read", self.notes.kept_file, self.passes, self.tells("reader"))

    def role(
        self, role: str, *arguments: object, stdout: int | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one of the processes, with *env* on top of this one's."""
        command = [sys.executable, PROCESSES, role, self.log, self.setting.durability, *arguments]
        return subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=stdout, stderr=self.errors,
            env=os.environ | (env or {}),
        )  # fmt: skip

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Start a writer, or the next life of one that was killed."""
        self.lives[number] += 1
        name, seed = f"w{number}.{self.lives[number]}", self.chance.randrange(1 << 30)
        watched = (self.tells(f"writer {number}"), self.setting.leak_bytes) if number < LASTING else ()
        return self.role("write", name, seed, *watched, stdout=self.notes.write_end, env=self.shims.env(self.chance))

    def restart(self, number: int) -> None:
        """Kill a writer and start its next life."""
        reap(self.writers[number])
        self.writers[number] = self.start(number)

    def tells(self, name: str) -> Path:
        """Return the file in which a process that lasts tells what it holds."""
        return self.setting.folder / f"held by {name}"

    def tell(self, command: str) -> None:
        """Tell any writer something."""
        writer = self.chance.choice(self.writers)
        inbox(writer).write(command.encode() + b"\n")
        inbox(writer).flush()

    def end(self) -> None:
        """Let all end well, and bring home what is left."""
        self.shims.rest()
        for writer in self.writers:
            inbox(writer).close()
        for writer in self.writers:
            if writer.wait(GIVE_UP_S):
                raise AssertionError(f"a writer ended with {writer.returncode}")
        if self.reader.poll() is not None:
            raise AssertionError(f"the reader ended with {self.reader.returncode}")
        reap(self.reader)
        os.close(self.notes.write_end)
        self.notes.join(GIVE_UP_S)
        if (adopter := self.role("adopt", stdout=subprocess.DEVNULL)).wait(GIVE_UP_S):
            raise AssertionError(f"an adopter ended with {adopter.returncode}")


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
