"""
One meeting: a process is held before one of its system calls, another runs to its end, the first one goes on.

Or the other one is held as well, the first one ends, and then the other one does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from injector.scenarios import World
from injector.shim import library

from .calls import Call, calls_in, close_calls
from .grounds import GROUNDS, OLD
from .jobs import Guest, Job
from .judge import judge, users_of

__all__ = ["Ground", "Meeting", "Outcome", "calls_of", "meet", "prepare"]

_PR_SET_PDEATHSIG: Final = 1
_NEVER: Final = 1 << 40
_BLOCKED_S: Final = 5.0  # then the second one waits for the first one, which goes on
_HANG_S: Final = 30.0  # a busy machine is not one that hangs
_POLL_S: Final = 0.0003


class Meeting(NamedTuple):
    """*first* is held before its *at*-th call on the *ground*; *second* runs meanwhile, to its *then*-th or its end."""

    first: Job
    second: Job
    ground: str
    at: int
    then: int = 0


class Ground(NamedTuple):
    """What two find that meet."""

    folder: str
    notes: str
    users: dict[str, str]
    """Whose each record is."""


class Outcome(NamedTuple):
    """What came of a meeting."""

    held: bool
    where: str
    problem: str
    """Empty where all is well."""
    folder: str = ""
    """Kept where there is a problem."""
    close: list[int] = []  # noqa: RUF012  never changed
    """Before which calls of the second one both are at the same file, if it ran to its end."""


def _start(work: Callable[[], None], notes: str) -> int:
    """Fork a child that does *work*, and return its process id; what it raises is noted."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        library().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever is held must not outlive who let him go on
        with open(f"{notes}.stacks", "ab", buffering=0) as stacks:
            faulthandler.register(signal.SIGUSR1, stacks)
            work()
            code = 0
    except BaseException:  # noqa: BLE001  nothing may come out of the child
        with open(notes, "ab", buffering=0) as file:
            file.write(b"problem " + traceback.format_exc().replace("\n", "\x1f").encode() + b"\n")
    finally:
        os._exit(code)


def _has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def _ends(pid: int, within_s: float) -> bool:
    """Wait until a child has ended, and reap it; False if it goes on longer than that."""
    give_up_s = time.monotonic() + within_s
    while not _has_ended(pid):
        if time.monotonic() > give_up_s:
            return False
        time.sleep(_POLL_S)
    return True


def _finish(pid: int, notes: str, who: str) -> None:
    """Wait for a child's end; note where its threads are if it hangs, and end it with its children."""
    if _ends(pid, _HANG_S):
        return
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    stacks = Path(f"{notes}.stacks").read_text("utf-8").replace("\n", "\x1f")
    with open(notes, "a", encoding="utf-8") as file:
        file.write(f"problem {who} hangs: {stacks}\n")


def _is_held(pid: int, who: int, within_s: float) -> int | None:
    """Wait until a child, or one of its own, has stopped itself, and return which; 0 if it ends before that."""
    give_up_s = time.monotonic() + within_s
    while time.monotonic() < give_up_s:
        held: int = library().shim_held(who)
        if held and Path(f"/proc/{held}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "T":
            return held
        if _has_ended(pid):
            return 0
        time.sleep(_POLL_S)
    return None


def prepare(name: str, base: str) -> Ground:
    """Make the ground *name*."""
    folder, notes = os.path.join(base, name), os.path.join(base, f"{name}.notes")
    os.mkdir(folder)
    Path(notes).touch()

    def work() -> None:
        library().shim_stop()
        GROUNDS[name](World(folder, os.open(notes, os.O_WRONLY | os.O_APPEND), {}, is_checked=False))

    _finish(_start(work, notes), notes, name)
    if "problem" in (said := Path(notes).read_text("utf-8")) or "record" not in said:
        sys.exit(f"the ground {name!r} could not be made: {said}")
    return Ground(folder, notes, users_of(os.path.join(folder, "logs", "log.jsonl")))


class _Table:
    """Where two meet: a copy of the ground, and what each of them need not find."""

    def __init__(self, first: Job, second: Job, ground: Ground) -> None:
        self.first, self.second, self._ground = first, second, ground
        self.folder = tempfile.mkdtemp(prefix="meeting-", dir=os.path.dirname(ground.folder))
        self.place = os.path.join(self.folder, "place")
        shutil.copytree(ground.folder, self.place)
        self.notes = shutil.copy(ground.notes, os.path.join(self.folder, "notes"))

    def may_miss(self, job: Job, record_id: str) -> bool:
        """Say whether a record need not be found once *job* has begun."""
        user = self._ground.users.get(record_id)
        return (
            (job.forgets and user == "bob") or (job.deletes and record_id in OLD) or (job.is_in_memory and user is None)
        )

    def start(self, who: int, at: int) -> int:
        """Let the first one (0) or the second one (1) begin, and hold it before its *at*-th call."""
        job, other = (self.first, self.second)[:: 1 - 2 * who]

        def work() -> None:
            missing = lambda record_id: self.may_miss(other, record_id)  # noqa: E731
            guest = Guest(self.place, self.notes, "ab"[who], missing, may_lack=other.deletes)
            library().shim_hold(os.fsencode(self.place), at or _NEVER, who, os.fsencode(self._trace_of(who)))
            job.play(guest)

        return _start(work, self.notes)

    def _trace_of(self, who: int) -> str:
        return os.path.join(self.folder, f"calls-{who}")

    def calls(self, who: int) -> list[Call]:
        """Return what one of them has called."""
        with contextlib.suppress(FileNotFoundError):
            return calls_in(Path(self._trace_of(who)).read_text("utf-8", "replace"))
        return []

    def judge(self) -> list[str]:
        """Have a third one look at what is left; return what is wrong."""
        jobs = (self.first, self.second)

        def work() -> None:
            library().shim_stop()
            gone = {one for one, user in self._ground.users.items() if user == "bob" and any(j.forgets for j in jobs)}
            may_go = {*OLD} if any(job.deletes for job in jobs) else set()
            judge(self.place, self.notes, gone=gone, may_go=may_go, packs=any(job.packs for job in jobs))

        if not self.problems():
            _finish(_start(work, self.notes), self.notes, "whoever came next")
        return self.problems()

    def problems(self) -> list[str]:
        """Return what was noted of that kind."""
        lines = Path(self.notes).read_text("utf-8").splitlines()
        return [line[8:].replace("\x1f", "\n") for line in lines if line.startswith("problem ")]

    def clear(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.folder)


def calls_of(first: Job, second: Job, ground: Ground) -> list[Call]:
    """Return which calls *first* makes on the log's files, alone."""
    table = _Table(first, second, ground)
    library().shim_forget()
    _finish(table.start(0, 0), table.notes, first.name)
    if problems := table.problems():
        sys.exit(f"{first.name} alone: {problems}")
    calls = table.calls(0)
    table.clear()
    return calls


def meet(meeting: Meeting, ground: Ground) -> Outcome:
    """Let two meet, and judge what is left."""
    table = _Table(meeting.first, meeting.second, ground)
    library().shim_forget()
    one = table.start(0, meeting.at)
    held = _is_held(one, 0, _HANG_S)
    if held:
        _let_both_end(table, one, held, meeting.then)
    elif held is None:
        _finish(one, table.notes, meeting.first.name)
    where = " and ".join(
        library().shim_held_at(who).decode("utf-8", "replace") for who in (0, 1)[: 1 + bool(meeting.then)]
    )
    problems = table.judge()
    close = [] if meeting.then else close_calls(table.calls(0), meeting.at, table.calls(1))
    if problems:
        return Outcome(bool(held), where, "; ".join(problems), table.folder, close)
    table.clear()
    return Outcome(bool(held), where, "", "", close)


def _let_both_end(table: _Table, one: int, held: int, then: int) -> None:
    """Let the second one begin, and, when it has ended or is held as well or waits, the first one go on."""
    other = table.start(1, then)
    other_held = _is_held(other, 1, _BLOCKED_S)
    os.kill(held, signal.SIGCONT)
    is_over = _ends(one, _BLOCKED_S if other_held else _HANG_S)
    if other_held is None:  # it waited for the first one, and comes to its own call only now
        other_held = _is_held(other, 1, _HANG_S)
    if other_held:
        os.kill(other_held, signal.SIGCONT)
    if not is_over:
        _finish(one, table.notes, table.first.name)
    if other_held != 0:
        _finish(other, table.notes, table.second.name)
