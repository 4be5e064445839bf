"""
Run the fault recipes that hold today and judge their verdicts.

Usage: python .ci/faults.py FAULTS_FOLDER, with the interpreter in which the library is installed.
Green means: every recipe printed every verdict it should, each on as many records as the recipe logs, each 0/0/0
(lost/doubled/torn), nothing hung, nothing corrupt.  No verdict is no proof, so too few of them fail as well.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

WRITERS = ("w_ours.py", "w_ours_logger.py")
TIMEOUT_S = 600.0

# "02a short write 50% every 7th   ours   0/0/0   acked=1200 present=1200 ...": the verdict may say more, see judge.py.
VERDICT = re.compile(r"^\d\d\w? .*?\s(?P<writer>ours(?:_logger)?)\s+(?P<verdict>.*)$")
COUNTS = re.compile(r"acked=(?P<acked>\d+) present=(?P<present>\d+)")
CLEAN = re.compile(r"0/0/0(?P<refused> n\d+)?\s+acked=")
# What stands behind the arrow is the log after it was opened once more: what was in a journal has come home.
HOME = re.compile(r"\d+/0/\d+\s+->0/0/0\s+acked=")
# A process that ended so had not to: no recipe sends SIGSEGV or SIGBUS.
CRASHED = re.compile(r" rc=\[[^]]*-(?:11|7)\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe: which scenarios, how many they are for one writer, and how many records each logs at least."""

    script: str
    only: str
    scenarios: int
    least_acked: int
    comes_home: bool = False
    """Whether records may be in a journal, and half a line at the log's end, until the log is opened once more."""


JUDGED_RECORDS = 500 * 8 * 4
RECIPES = (
    Recipe(script="f02_short.py", only="02[abc]", scenarios=3, least_acked=300 * 4),
    Recipe(script="f02_short.py", only="02d", scenarios=1, least_acked=300 * 4, comes_home=True),
    Recipe(script="f01_enospc.py", only="01[bd]", scenarios=2, least_acked=1000 * 2),
    # The three processes that are killed log as they get to it.
    Recipe(script="f04_kill.py", only="04[a-f]", scenarios=6, least_acked=30, comes_home=True),
    Recipe(script="f08_lockholder.py", only="08[ab]", scenarios=2, least_acked=500, comes_home=True),
    Recipe(script="f03_errno.py", only="03[abd-i]", scenarios=8, least_acked=300 * 2),
    # Children log 100 each, six by os.fork and four by multiprocessing; the parent's three threads log as they like.
    Recipe(script="f09_fork.py", only="09b", scenarios=1, least_acked=600 + 3),
    Recipe(script="f09_fork.py", only="09[c-e]", scenarios=3, least_acked=400 + 3),
    Recipe(script="f10_exit.py", only=".", scenarios=12, least_acked=300, comes_home=True),
    Recipe(script="f11_limits.py", only="11a", scenarios=1, least_acked=300),
    Recipe(script="f11_limits.py", only="11c", scenarios=1, least_acked=100),
    Recipe(script="f13_slow.py", only="13[bd]", scenarios=2, least_acked=300),
    Recipe(script="f13_slow.py", only="13[ac]", scenarios=2, least_acked=100),
)


def output_of(arguments: list[str]) -> str:
    """Run this interpreter with *arguments* and return what it printed; a failure is part of that."""
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {TIMEOUT_S:.0f} s"
    return done.stdout + (done.stderr if done.returncode else "")


def complaint_about_verdict(verdict: str, least_acked: int, *, comes_home: bool) -> str:
    """Say what is wrong with one verdict, or nothing."""
    if not (CLEAN.match(verdict) or (comes_home and HOME.match(verdict))):
        return "not 0/0/0"
    if CRASHED.search(verdict):
        return "a process died of a SIGSEGV or a SIGBUS"
    counts = COUNTS.search(verdict)
    if counts is None or int(counts["acked"]) < least_acked:
        return f"fewer than {least_acked} records were accepted, so the fault was not played on what it should be"
    return ""


def complaints_about_recipe(folder: Path, recipe: Recipe) -> list[str]:
    """Run one recipe with both writers, print its verdicts and return what is wrong with them."""
    writers = [part for name in WRITERS for part in ("--writer", str(folder / "writers" / name))]
    printed = output_of([str(folder / recipe.script), *writers, "--only", recipe.only])
    print(printed, end="", flush=True)
    verdicts = [match["verdict"] for match in map(VERDICT.match, printed.splitlines()) if match]
    found = [
        f"{recipe.script}: {complaint}: {verdict}"
        for verdict in verdicts
        if (complaint := complaint_about_verdict(verdict, recipe.least_acked, comes_home=recipe.comes_home))
    ]
    wanted = recipe.scenarios * len(WRITERS)
    if len(verdicts) != wanted:
        found.append(f"{recipe.script} --only '{recipe.only}' printed {len(verdicts)} verdicts, wanted {wanted}")
    return found


def complaints_about_crowd(folder: Path, writer: str) -> list[str]:
    """Let 8 processes of 4 threads log 500 records each into one file and return what is wrong with the verdict."""
    with tempfile.TemporaryDirectory(prefix="judge-") as fresh:
        # A log of its own: the judge's default one keeps the run before, whose records would count as doubled.
        path = str(Path(fresh) / "out.jsonl")
        size = ["-n", "500", "-p", "8", "--threads", "4", "--size", "3000"]
        plug = str(folder / "writers" / writer)
        printed = output_of([str(folder / "judge.py"), "run", "--writer", plug, "--path", path, *size])
    print(f"judge.py run {' '.join(size)} --writer {writer}\n{printed}", end="", flush=True)
    try:
        verdict = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        return [f"judge.py with {writer} printed no verdict"]
    wanted = {"acked": JUDGED_RECORDS, "present": JUDGED_RECORDS}
    wanted |= dict.fromkeys(("lost", "dup", "torn", "bad", "corrupt", "hung", "nacked"), 0)
    wrong = {name: verdict.get(name) for name, value in wanted.items() if verdict.get(name) != value}
    return [f"judge.py with {writer}: {wrong}"] if wrong else []


def main() -> int:
    """Run everything; 0 when every verdict is clean, 1 when one is not."""
    folder = Path(sys.argv[1]).resolve()
    found = [complaint for writer in WRITERS for complaint in complaints_about_crowd(folder, writer)]
    for recipe in RECIPES:
        found += complaints_about_recipe(folder, recipe)
    runs = len(WRITERS) * (1 + sum(recipe.scenarios for recipe in RECIPES))
    print("\n".join(found) or f"{runs} verdicts, all 0/0/0")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
