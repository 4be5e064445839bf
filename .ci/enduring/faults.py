"""What is done to the processes of an endurance run, one fault after the other."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .crew import GIVE_UP_S, LASTING, WRITERS, Crew, inbox, reap

__all__ = ["Faults"]

_FULL_S: Final = 1.5
_STOPPED_S: Final = 0.8
_REFUSED_S: Final = 1.0
_WRONG_TIME_S: Final = 1.0
_LOOK_FOR_HOLDER_S: Final = 2.0
_HIGHEST_NUMBER: Final = 999_999
_REFUSALS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CLOCKS: Final = ("-3600", "+86400", "=63072000", "=2208988800")  # back an hour, on a day, 1972, 2040


class Faults:
    """The faults, each a method; :attr:`all` are those that can be played here."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self.chance, self.log = crew, crew.chance, crew.log
        self.injected: Counter[str] = Counter()
        self.all: list[Callable[[], None]] = [
            self.kill_writer, self.kill_adopter, self.kill_holder, self.end_writer, self.few_descriptors,
            self.small_files, self.delete_lock_file, self.rename_log, self.stop_holder, self.fork, self.close,
            self.configure, self.interrupt,
        ]  # fmt: skip
        if crew.setting.may_mount:
            self.all.append(self.fill_disk)
        if crew.shims.libraries:
            self.all += [self.refuse_writes, self.set_clock]

    def play(self, fault: Callable[[], None]) -> None:
        """Inject one of them."""
        fault()
        self.injected[fault.__name__] += 1

    # -- processes end

    def kill_writer(self) -> None:
        """SIGKILL one of those that do not last; another takes its place."""
        self.crew.restart(self.chance.randrange(LASTING, WRITERS))

    def kill_adopter(self) -> None:
        """SIGKILL a writer, and then who is bringing its records home."""
        self.kill_writer()
        adopter = self.crew.role("adopt", stdout=subprocess.PIPE)
        if adopter.stdout is not None:
            adopter.stdout.readline()
        time.sleep(self.chance.random() * 0.03)
        reap(adopter)

    def kill_holder(self) -> None:
        """SIGKILL whoever of those holds the lock, or any of them if none can be seen to."""
        pids = [writer.pid for writer in self.crew.writers]
        victim = self._stop_while_holding(pids[LASTING:])
        self.injected["kill_holder, and it held the lock"] += bool(victim)
        self.crew.restart(pids.index(victim) if victim else self.chance.randrange(LASTING, WRITERS))

    def end_writer(self) -> None:
        """Let one of those come to its normal end; another takes its place."""
        number = self.chance.randrange(LASTING, WRITERS)
        inbox(self.crew.writers[number]).close()
        if status := self.crew.writers[number].wait(GIVE_UP_S):
            raise AssertionError(f"a writer ended with {status}")
        self.crew.writers[number] = self.crew.start(number)

    # -- the system refuses

    def fill_disk(self) -> None:
        """Take all room away, for a while."""
        ballast = self.crew.setting.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):  # ENOSPC: as meant
                    while True:
                        file.write(bytes(size))
        time.sleep(_FULL_S)
        ballast.unlink()

    def few_descriptors(self) -> None:
        """Let a writer open no file for a while."""
        self.crew.tell("few-descriptors")

    def small_files(self) -> None:
        """Let a writer's files not grow past some size for a while."""
        self.crew.tell("small-files")

    def refuse_writes(self) -> None:
        """Let every write to the log fail, for a while."""
        self.crew.shims.refusal.write_text(str(self.chance.choice(_REFUSALS)), "ascii")
        time.sleep(_REFUSED_S)
        self.crew.shims.refusal.unlink()

    # -- somebody does something to the files

    def delete_lock_file(self) -> None:
        """Delete the lock file under everybody's hands."""
        self._lock_file().unlink(missing_ok=True)

    def rename_log(self) -> None:
        """Do what logrotate does."""
        with suppress(FileNotFoundError):  # just being rotated
            # Downwards, since the highest number is the oldest file: logrotate renames them all each time.
            self.log.rename(f"{self.log}.{_HIGHEST_NUMBER - self.injected['rename_log']}")

    # -- time

    def stop_holder(self) -> None:
        """SIGSTOP whoever holds the lock, or any writer if nobody can be seen to; SIGCONT after a while."""
        pids = [writer.pid for writer in self.crew.writers]
        stopped = self._stop_while_holding(pids)
        self.injected["stop_holder, and it held the lock"] += bool(stopped)
        os.kill(stopped := stopped or self.chance.choice(pids), signal.SIGSTOP)
        time.sleep(_STOPPED_S)
        os.kill(stopped, signal.SIGCONT)

    def set_clock(self) -> None:
        """Let all writers have a wrong time, for a while."""
        self.crew.shims.clock.write_text(self.chance.choice(_CLOCKS), "ascii")
        time.sleep(_WRONG_TIME_S)
        self.crew.shims.clock.unlink()

    # -- the application does something

    def fork(self) -> None:
        """Let a writer fork a child that logs and ends in one of three ways."""
        self.crew.tell(f"fork {self.chance.choice(['killed', 'closed', 'exits'])}")

    def close(self) -> None:
        """Let a writer close its handler and log on."""
        self.crew.tell("close")

    def configure(self) -> None:
        """Let a writer run dictConfig again."""
        self.crew.tell("configure")

    def interrupt(self) -> None:
        """Let a signal come in the middle of a writer's calls, whose handler raises, or logs itself."""
        self.crew.tell(f"interrupt {self.chance.choice(['raises', 'exits', 'logs'])}")

    # -- who holds the lock

    def _lock_file(self) -> Path:
        return self.log.with_name(f".__{self.log.name}.lock")

    def _stop_while_holding(self, pids: list[int]) -> int:
        """SIGSTOP one of the processes while it holds the lock; return which, 0 if none could be caught in time."""
        until_s = time.monotonic() + _LOOK_FOR_HOLDER_S
        while time.monotonic() < until_s:
            if (pid := self._holder()) in pids:
                os.kill(pid, signal.SIGSTOP)
                if self._holder() == pid:
                    return pid
                os.kill(pid, signal.SIGCONT)  # it has just let go
        return 0

    def _holder(self) -> int:
        """Return the process that holds the lock file now; 0 if none, or none that the kernel names."""
        with suppress(OSError):
            inode = self._lock_file().stat().st_ino
            for row in Path("/proc/locks").read_text("ascii").splitlines():
                words = row.split()
                if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                    return int(words[4])
        return 0
