"""
Inject a fault at every line and at every system call of ours; then look for every record.

Usage: python .ci/points.py [--sample N [--seed N]] [--kind KIND] [--only SCENARIO [--point POINT]] [--jobs N]

Three kinds of faults, in the process that writes and in the one that brings home what a dead one left:

- ``line``: SIGKILL before the n-th line of our write path, whichever thread comes to it
- ``kill``: SIGKILL before, after and in the middle of the n-th system call of a kind on files of the log
- ``fail``: that call fails, once with each errno that it can return, and from then on for good

After each the log is opened again, and every record whose call had returned must be there exactly once, whole; after
a call that failed, the same process first logs on.  A point is written as `line:17`, `write:half:3`, `open:EIO:2`, and
with a + behind it for good.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from injector import shim
from injector.attempt import Line, Outcome, Point, attempt, count_points, prepare, warm
from injector.scenarios import SCENARIOS, Scenario
from injector.workers import work_off

_TELL_EVERY: Final = 2000
_DRY_RUNS: Final = 3  # threads take turns as they like: no two runs have quite the same lines
_SHARE: Final = {"line": 0.5, "kill": 0.2, "fail": 0.3}


class Job(NamedTuple):
    """One fault to be injected."""

    scenario: Scenario
    point: Point

    @property
    def kind(self) -> str:
        """``line``, ``kill`` or ``fail``."""
        return "line" if isinstance(self.point, Line) else "kill" if self.point.is_kill else "fail"


class Ground(NamedTuple):
    """What a scenario begins with."""

    folder: str
    status: dict[str, str]


def text_of(point: Point) -> str:
    """Return *point* as `--point` takes it."""
    if isinstance(point, Line):
        return f"line:{point.at}"
    return f"{point.call}:{point.what}:{point.at}" + "+" * point.for_good


def point_of(text: str) -> Point:
    """Return the point that *text* names."""
    call, *what, at = text.removesuffix("+").split(":")
    return shim.Fault(call, what[0], int(at), text.endswith("+")) if what else Line(int(at))


def points_of(lines: int, calls: dict[str, int]) -> Iterator[Point]:
    """Return every point of a scenario that executes so many lines and makes so many calls."""
    yield from map(Line, range(1, lines + 1))
    for call, count in calls.items():
        halves = ("half",) if call in {"write", "pwrite"} else ()
        for at in range(1, count + 1):
            for what in ("before", "after", *halves, *shim.CALLS[call]):
                yield shim.Fault(call, what, at)
            for what in shim.CALLS[call]:
                if what not in shim.ONCE_ONLY:
                    yield shim.Fault(call, what, at, for_good=True)


def every_job(scenarios: Iterable[Scenario], grounds: dict[str, Ground]) -> list[Job]:
    """Return every fault that can be injected, by runs without one."""
    jobs = []
    for scenario in scenarios:
        runs = [count_points(scenario, grounds[scenario.name].folder) for _ in range(_DRY_RUNS)]
        lines = max(lines for lines, _ in runs)
        calls = {call: max(counts[call] for _, counts in runs) for call in shim.CALLS}
        jobs += [Job(scenario, point) for point in points_of(lines, calls)]
    return jobs


def tried(jobs: list[Job], grounds: dict[str, Ground], workers: int) -> Iterator[tuple[Job, Outcome, float]]:
    """Inject all *jobs* in so many processes; yield what came of each, and its seconds, as it comes."""

    def one(job: Job) -> list[Any]:
        began_s = time.monotonic()
        outcome = attempt(job.scenario, job.point, *grounds[job.scenario.name])
        return [time.monotonic() - began_s, *outcome._replace(problem=outcome.problem[:3000])]

    for job, (took_s, *outcome) in work_off(jobs, one, workers):
        yield job, Outcome(*outcome), took_s


def further(reached: dict[tuple[str, str, str], int], jobs: list[Job]) -> list[Job]:
    """Return the points behind the last ones that still fired: a scenario may go on longer than its dry runs did."""
    highest: dict[tuple[str, str, str], Job] = {}
    for job in jobs:
        key = series_of(job)
        if key not in highest or highest[key].point.at < job.point.at:
            highest[key] = job
    return [
        job._replace(point=job.point._replace(at=job.point.at + 1))
        for key, job in highest.items()
        if reached.get(key, 0) >= job.point.at
    ]


def series_of(job: Job) -> tuple[str, str, str]:
    """Return what the points have in common that differ in their number alone."""
    return job.scenario.name, job.kind, text_of(job.point._replace(at=0))


class Tally:
    """What was injected, by scenario and kind."""

    def __init__(self) -> None:
        self.points: dict[tuple[str, str], int] = defaultdict(int)
        self.injected: dict[tuple[str, str], int] = defaultdict(int)
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.reached: dict[tuple[str, str, str], int] = {}
        self.failures = 0

    def add(self, job: Job, outcome: Outcome, took_s: float) -> None:
        """Count one, and print it if it failed."""
        key = job.scenario.name, job.kind
        self.points[key] += 1
        if (done := sum(self.points.values())) % _TELL_EVERY == 0:
            print(f"{done} points tried, {self.failures} failed", flush=True)
        self.injected[key] += outcome.fired > 0
        self.seconds[key] += took_s
        if outcome.fired:
            series = series_of(job)
            self.reached[series] = max(self.reached.get(series, 0), job.point.at)
        if outcome.problem:
            self.failures += 1
            print(
                f"FAILED --only {job.scenario.name} --point {text_of(job.point)}  at {outcome.where}, "
                f"kept in {outcome.folder}\n  {outcome.problem}",
                flush=True,
            )

    def say(self) -> None:
        """Print a line for each scenario and kind, and one that sums up."""
        print(f"{'scenario':<20}{'kind':<6}{'points':>8}{'injected':>10}{'seconds':>9}")
        for (name, kind), points in sorted(self.points.items()):
            key = name, kind
            print(f"{name:<20}{kind:<6}{points:>8}{self.injected[key]:>10}{self.seconds[key]:>9.1f}")
            if not self.injected[key]:
                self.failures += 1
                print(f"FAILED {name} {kind}: no fault was injected")


def sample_of(jobs: list[Job], count: int, chance: random.Random) -> list[Job]:
    """Return about *count* of the jobs, some of each scenario and kind."""
    groups: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.scenario.name, job.kind].append(job)
    each = count / len({name for name, _ in groups})
    chosen = [chance.sample(group, min(len(group), round(each * _SHARE[kind]))) for (_, kind), group in groups.items()]
    return [job for group in chosen for job in group]


def run(arguments: argparse.Namespace, base: str) -> int:
    """Inject what was asked for; 0 when nothing was lost, doubled or torn."""
    began_s, seed, tally = time.monotonic(), arguments.seed, Tally()
    scenarios = [one for one in SCENARIOS if arguments.only in {None, one.name}]
    if not scenarios:
        sys.exit(f"no scenario {arguments.only!r}; there are: {', '.join(one.name for one in SCENARIOS)}")
    shim.library().shim_share()
    warm(base)
    grounds = {}
    for scenario in scenarios:
        folder = os.path.join(base, scenario.name)
        os.mkdir(folder)
        grounds[scenario.name] = Ground(folder, prepare(scenario, folder))
    if arguments.point:
        jobs = [Job(scenarios[0], point_of(text)) for text in arguments.point]
    else:
        jobs = [job for job in every_job(scenarios, grounds) if arguments.kind in {None, job.kind}]
    chance = random.Random(seed)  # noqa: S311  nobody is to be surprised
    if arguments.sample:
        print(f"seed {seed}: {arguments.sample} of {len(jobs)} points", flush=True)
        jobs = sample_of(jobs, arguments.sample, chance)
    chance.shuffle(jobs)  # those that wait for something lie among those that do not
    while jobs:
        for found in tried(jobs, grounds, arguments.jobs):
            tally.add(*found)
        jobs = [] if arguments.sample or arguments.point else further(tally.reached, jobs)
    tally.say()
    total = sum(tally.injected.values())
    result = f"{tally.failures} FAILED" if tally.failures else "lost 0, doubled 0, torn 0"
    print(f"injected {total} in {time.monotonic() - began_s:.0f} s: {result}")
    return 1 if tally.failures else 0


def main() -> int:
    """Start over with the shim loaded, and inject."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only so many points, some of each kind")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", metavar="SCENARIO")
    parser.add_argument("--kind", choices=list(_SHARE))
    parser.add_argument("--point", action="append", metavar="POINT", help="exactly this one; may be given again")
    parser.add_argument("--break", dest="breaks", metavar="FILE", help="run FILE first: how a test breaks the library")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="some wait for what fails")
    arguments = parser.parse_args()
    base = tempfile.mkdtemp(prefix="points-")
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
