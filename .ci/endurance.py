"""
Let eight processes log for a while with one random fault after the other; then look for every record.

Usage: python .ci/endurance.py SECONDS [--durability LEVEL] [--seed N] [--picture FILE] [--leak BYTES], in whose Python
the library is.

Faults come one at a time, each kind as often as the others; ``enduring/faults.py`` has them.  Beside them a write or
sync of the log fails now and then, if there is a compiler.  The log rotates and compresses all the while, and a reader
reads and verifies it.  Four of the writers are never killed: what is alive in them, their memory, descriptors and
threads, and the reader's, must be flat; with --leak they keep so many bytes of each record, and the run must fail.  At
the end every record that was accepted must be there once, whole; records that a handler accepted while it said that it
acts as `memory` may die with their process, and are told.
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
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from enduring.crew import GIVE_UP_S, LASTING, WRITERS, Crew, Setting, reap
from enduring.faults import Faults
from enduring.processes import NOTE_BYTES
from enduring.watch import Watch, Watched, picture, steep
from helpers import log_files, read_lines  # type: ignore[import-not-found]  # of the tests

_SHORT_S: Final = 600


def play(crew: Crew, faults: Faults, seconds: float) -> Watch:
    """Inject faults for so many seconds; return what the lasting processes held."""
    crew.notes.start()
    pids = {f"writer {number}": crew.writers[number].pid for number in range(LASTING)} | {"reader": crew.reader.pid}
    lasting = {name: Watched(pid, crew.tells(name)) for name, pid in pids.items()}
    files = [(crew.notes.kept_file, WRITERS * NOTE_BYTES), *((one.tells, 1) for one in lasting.values())]
    give_up_s = time.monotonic() + GIVE_UP_S
    while not all(file.exists() and file.stat().st_size >= size for file, size in files):
        if time.monotonic() > give_up_s:
            raise AssertionError(f"not all have begun in {GIVE_UP_S:g} s")
        time.sleep(0.05)
    until_s = time.monotonic() + seconds  # starting is not the subject
    watch = Watch(lasting, 2.0 if seconds <= _SHORT_S else 10.0)
    watch.start()
    deck: list[Callable[[], None]] = []
    while time.monotonic() < until_s:
        deck = deck or crew.chance.sample(faults.all, len(faults.all))
        faults.play(deck.pop())
        for writer in crew.writers:
            if writer.poll() is not None:
                raise AssertionError(f"a writer that nobody killed ended with {writer.returncode}")
        time.sleep(crew.chance.random())
    watch.stop()
    return watch


def judge(crew: Crew, faults: Faults) -> list[str]:
    """Print what was found; return what should not be."""
    found: Counter[str] = Counter()
    torn, notes = [], crew.notes
    for file in log_files(crew.log):
        try:
            found.update(record["record_id"] for record in read_lines(file))
        except AssertionError as error:
            torn.append(str(error))
    lost = notes.accepted - found.keys()
    died, lost = lost & notes.as_memory, lost - notes.as_memory
    doubled = sorted(one for one, count in found.items() if count > 1)
    refused = notes.failed & found.keys()
    passes = [json.loads(line) for line in crew.passes.read_text("utf-8").splitlines()]
    short = [one for one in passes if one["read"] < one["noted"]]
    for name, count in sorted(faults.injected.items()):
        print(f"{name:<36}{count:>6}")
    print(
        f"calls interrupted in the middle: {notes.interrupted}\n"
        f"writes of the log that fell short or failed by themselves: {crew.shims.played.stat().st_size}\n"
        f"{len(notes.accepted)} records accepted, {len(notes.failed)} refused; "
        f"{len(log_files(crew.log))} files; {len(passes)} passes of the reader\n"
        f"accepted as `memory`, where no journal could be had: {len(notes.as_memory)}, of which "
        f"{len(died)} died with a killed process\n"
        f"in the log but not noted, since a kill or an exception came in between: "
        f"{len(found.keys() - notes.accepted)}\n"
        f"lost {len(lost)}, doubled {len(doubled)}, torn {len(torn)}"
    )
    bad = [f"lost: {sorted(lost)[:10]}"] * bool(lost) + [f"doubled: {doubled[:10]}"] * bool(doubled)
    bad += torn + [f"refused and in the log: {sorted(refused)[:10]}"] * bool(refused)
    if crew.setting.durability == "power" and notes.as_memory:
        bad.append(f"accepted as `memory`: {sorted(notes.as_memory)[:10]}")
    bad += [f"the reader missed what was noted before: {short[:3]}"] * bool(short)
    bad += [f"left in the journal: {left}" for left in crew.setting.disk.glob("*.journal/*")]
    bad += ["no call was interrupted"] * (not notes.interrupted)
    bad += [f"no {fault.__name__}" for fault in faults.all if not faults.injected[fault.__name__]]
    errors = (crew.setting.folder / "errors").read_text("utf-8")
    return bad + [f"said by a process:\n{errors[:3000]}"] * bool(errors)


def mount(disk: Path, seconds: float) -> bool:
    """Put a small file system at *disk*, if we may, with room for what so many seconds write."""
    size = (64 << 20) + int(seconds) * (48 << 10)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "endurance", str(disk)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def go(arguments: argparse.Namespace, setting: Setting) -> list[str]:
    """Play, judge and draw; return what should not be."""
    crew = Crew(setting)
    if not crew.shims.libraries:
        print("without failing writes and a wrong clock: there is no gcc")
    try:
        faults = Faults(crew)
        watch = play(crew, faults, arguments.seconds)
        crew.end()
        bad = judge(crew, faults) + steep(watch.curves)
    finally:
        for process in [*crew.writers, crew.reader]:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                reap(process)
    if arguments.picture:
        injected = sum(faults.injected[fault.__name__] for fault in faults.all)
        title = f"{arguments.seconds:g} s, {len(crew.notes.accepted)} records, {injected} faults"
        Path(arguments.picture).write_text(picture(watch.curves, f"{title}; writers blue, reader red"), "utf-8")
    return bad


def main() -> int:
    """Run, and say what was found; 0 when nothing was lost, doubled or torn, and all curves are flat."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--durability", choices=["crash", "power"], default="crash")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--picture", metavar="FILE", help="draw the curves as SVG")
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES", help="that each record shall cost for ever")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="endurance-"))
    disk = folder / "disk"
    disk.mkdir()
    may_mount = mount(disk, arguments.seconds)
    print(f"seed {arguments.seed}" + ("" if may_mount else ", without a full disk: only root may mount"), flush=True)
    chance = random.Random(arguments.seed)  # noqa: S311  nobody is to be surprised
    try:
        try:
            bad = go(arguments, Setting(folder, disk, chance, arguments.durability, arguments.leak, may_mount))
        except Exception:  # noqa: BLE001  whatever it was: the log is kept, and it is said
            bad = [traceback.format_exc(), (folder / "errors").read_text("utf-8")]
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
