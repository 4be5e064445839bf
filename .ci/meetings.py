"""
Let two processes meet on one log, at every system call of the first; then look for every record.

Usage: python .ci/meetings.py [--sample N [--seed N]] [--first JOB] [--second JOB] [--ground GROUND]
           [--at N [--then M]] [--jobs N]

The first one is held (SIGSTOP) before its n-th call on files of the log, the second one runs to its end, or until its
short waits for a lock are over, and the first one goes on.  Where the first one is about to change a name or a lock, or
just has, the second one is also held before each call about the same file, the first one ends, and then the second one
does.  Then every record whose call has returned must be there
exactly once, or forgotten with a receipt, `verify` must find the log whole, readers must have shown what was there,
once, and nothing may be left over.  What the two do is in ``meeting/jobs.py``, what they find in
``meeting/grounds.py``.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from injector import shim
from injector.workers import work_off
from meeting.calls import Call, edges
from meeting.grounds import GROUNDS
from meeting.hold import Ground, Meeting, Outcome, calls_of, meet, prepare
from meeting.jobs import JOBS, Guest

_TELL_EVERY: Final = 2000


def pairs_of(arguments: argparse.Namespace) -> list[Meeting]:
    """Return who meets whom, where; before no call yet."""
    return [
        Meeting(first, second, ground, 0)
        for ground in GROUNDS
        for first in JOBS.values()
        for second in JOBS.values()
        if first.meets(second)
        and first.name in (arguments.first or JOBS)
        and second.name in (arguments.second or JOBS)
        and arguments.ground in {None, ground}
    ]


def every_meeting(pairs: list[Meeting], grounds: dict[str, Ground]) -> tuple[list[Meeting], set[Meeting]]:
    """Return every meeting of these pairs whose second runs to its end, by running each first one alone; and edges."""
    calls: dict[tuple[str, str], list[Call]] = {}
    for pair in pairs:
        key = pair.first.name, pair.ground
        if key not in calls:
            calls[key] = calls_of(pair.first, pair.second, grounds[pair.ground])
    known = [(pair, calls[pair.first.name, pair.ground]) for pair in pairs]
    meetings = [pair._replace(at=at) for pair, made in known for at in range(1, len(made) + 1)]
    return meetings, {pair._replace(at=at) for pair, made in known for at in edges(made)}


def met(meetings: list[Meeting], grounds: dict[str, Ground], workers: int) -> Iterator[tuple[Meeting, Outcome]]:
    """Let all meet in so many processes; yield what came of each as it comes."""

    def one(meeting: Meeting) -> list[Any]:
        outcome = meet(meeting, grounds[meeting.ground])
        return [*outcome._replace(problem=outcome.problem[:2500])]

    for meeting, row in work_off(meetings, one, workers):
        yield meeting, Outcome(*row)


class Tally:
    """Who has met, by who was held."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = defaultdict(int)
        self.held: dict[str, int] = defaultdict(int)
        self.failures = 0
        self.close: dict[Meeting, list[int]] = {}

    def add(self, meeting: Meeting, outcome: Outcome) -> None:
        """Count one, and print it if it failed."""
        first, second, ground, at, then = meeting
        self.tried[first.name] += 1
        self.held[first.name] += outcome.held
        self.close[meeting] = outcome.close
        if (done := sum(self.tried.values())) % _TELL_EVERY == 0:
            print(f"{done} meetings, {self.failures} failed", flush=True)
        if outcome.problem:
            self.failures += 1
            who = f"--first {first.name} --second {second.name} --ground {ground} --at {at}"
            then_too = f" --then {then}" if then else ""
            print(
                f"FAILED {who}{then_too}  before {outcome.where}, kept in {outcome.folder}\n  {outcome.problem}",
                flush=True,
            )

    def say(self) -> None:
        """Print a line for each who was held."""
        print(f"{'held':<16}{'meetings':>9}{'in time':>9}")
        for name, tried in self.tried.items():
            print(f"{name:<16}{tried:>9}{self.held[name]:>9}")
            if not self.held[name]:
                self.failures += 1
                print(f"FAILED {name} was never held")


def sample_of(meetings: list[Meeting], count: int, chance: random.Random) -> list[Meeting]:
    """Return about *count* meetings, as many of each pair."""
    groups: dict[tuple[str, str, str], list[Meeting]] = defaultdict(list)
    for one in meetings:
        groups[one.first.name, one.second.name, one.ground].append(one)
    each = -(-count // max(1, len(groups)))
    chosen = [one for group in groups.values() for one in chance.sample(group, min(len(group), each))]
    return chance.sample(chosen, min(count, len(chosen)))


def rounds(
    arguments: argparse.Namespace, grounds: dict[str, Ground], tally: Tally, chance: random.Random
) -> Iterator[list[Meeting]]:
    """Yield what is to be tried: first with one of the two held, then, by what that has shown, with both."""
    pairs = pairs_of(arguments)
    if not pairs:
        sys.exit(f"nobody meets so; there are: {', '.join(JOBS)}, and on {', '.join(GROUNDS)}")
    if arguments.at:
        yield [pair._replace(at=at, then=arguments.then) for pair in pairs for at in arguments.at]
        return
    meetings, at_edges = every_meeting(pairs, grounds)
    third = arguments.sample // 3
    if arguments.sample:
        print(f"seed {arguments.seed}: {arguments.sample} of {len(meetings)} meetings and more", flush=True)
        meetings = sample_of(meetings, third, chance) + sample_of(
            [one for one in meetings if one in at_edges], third, chance
        )
    yield list(dict.fromkeys(meetings))
    both = [one._replace(then=then) for one, close in tally.close.items() if one in at_edges for then in close]
    yield sample_of(both, third, chance) if arguments.sample else both


def warm(base: str) -> None:
    """Load here what each child would have to."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        notes = os.path.join(folder, "notes")
        Path(notes).touch()
        for job in JOBS.values():
            if not job.deletes:
                job.play(Guest(folder, notes, "w", lambda _: True))
    gc.collect()
    gc.freeze()  # or each child copies every page that its collector looks at


def run(arguments: argparse.Namespace, base: str) -> int:
    """Let those meet that were asked for; 0 when nothing was lost, doubled or torn."""
    began_s, tally, chance = time.monotonic(), Tally(), random.Random(arguments.seed)  # noqa: S311  nobody is surprised
    shim.library().shim_share()
    warm(base)
    grounds = {name: prepare(name, base) for name in GROUNDS}
    for meetings in rounds(arguments, grounds, tally, chance):
        chance.shuffle(meetings)  # those that wait for something lie among those that do not
        for found in met(meetings, grounds, arguments.jobs):
            tally.add(*found)
    tally.say()
    result = f"{tally.failures} FAILED" if tally.failures else "lost 0, doubled 0, torn 0"
    print(f"{sum(tally.held.values())} meetings in {time.monotonic() - began_s:.0f} s: {result}")
    return 1 if tally.failures else 0


def main() -> int:
    """Start over with the shim loaded, and let them meet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only so many meetings, some of each pair")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--first", action="append", metavar="JOB", help="who is held; may be given again")
    parser.add_argument("--second", action="append", metavar="JOB", help="who runs meanwhile; may be given again")
    parser.add_argument("--ground", choices=list(GROUNDS))
    parser.add_argument("--at", type=int, action="append", metavar="N", help="before which call; may be given again")
    parser.add_argument("--then", type=int, default=0, metavar="M", help="and the second one before its M-th")
    parser.add_argument("--break", dest="breaks", metavar="FILE", help="run FILE first: how a test breaks the library")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="some wait for a lock")
    arguments = parser.parse_args()
    base = tempfile.mkdtemp(prefix="meetings-")
    kept = False
    try:
        if not shim.is_loaded():
            command = [sys.executable, *sys.argv, "--seed", str(arguments.seed)]
            return subprocess.run(command, env={**os.environ, "LD_PRELOAD": shim.build(base)}, check=False).returncode
        logging.raiseExceptions = False
        warnings.simplefilter("ignore")
        if arguments.breaks:
            runpy.run_path(arguments.breaks)
        kept = bool(code := run(arguments, base))
        return code
    finally:
        if not kept:
            shutil.rmtree(base)


if __name__ == "__main__":
    sys.exit(main())
