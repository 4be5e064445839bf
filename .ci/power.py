"""
Take the power away at every moment of a writer's life, in every way a disk may answer it; then look for every record.

Usage: python .ci/power.py [--seconds S] [--seed N] [--only NAME], where the library is installed; it needs strace.

A writer at `durability: power` runs under strace and notes each record once its call has returned.  From the trace
follow the states in which a loss of power may leave its files, at each call: what a sync covered that began after the
write ended is there; of everything else each 512-byte sector holds what it held before, or after any of the writes
since; the size is any of those that the file had, or lies in the middle of a write; of the entries of a directory
those behind its last sync are there up to any one of them.  Nothing but a sync of the directory makes an entry
durable, and no file knows of another.  In a sample of those states the next program opens the log, logs at once, and
ends: every record that was noted must stand in the log once, whole, and nothing may wait any more.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "faults"))

from _trace import Call, calls_of, strace  # type: ignore[import-not-found]  # of the tests

from ai_response_logging.handler import AIResponseHandler

SECTOR: Final = 512
CALLS: Final = (
    "openat,write,writev,pwrite64,pwritev,fallocate,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir"
)
WAYS: Final = ("none", "all", "holes", "torn", "zeros", "mixed", "mixed", "mixed")
MEMORY: Final = "/dev/shm"  # noqa: S108  where a sync takes no time; the writer's are delayed
SLOW_SYNCS: Final = "inject=fsync,fdatasync:delay_exit=2ms"
AFTER: Final = "after"  # the record of the program that comes next
GIVE_UP_S: Final = 60

WRITER: Final = """
import json, logging, os, sys, threading
from ai_response_logging.handler import AIResponseHandler
folder, name, threads, count, ends, scale = *sys.argv[1:3], *map(int, sys.argv[3:7])
options = json.loads(sys.argv[7])
acks = os.open(folder + "/acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
handler = AIResponseHandler(folder + "/disk/logs/log.jsonl", durability="power", **options)
def work(thread):
    for number in range(count):
        record_id = f"{name}-{thread}-{number}"
        response = "x" * (number * 397 % 5000 * scale)
        record = logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": response})
        if handler.submit(record) != "failed":
            os.write(acks, record_id.encode() + b"\\n")
workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
handler.close() if ends else os._exit(0)
"""


class Scenario(NamedTuple):
    """A writer's life: its threads, how many records each logs, orphans that it finds, its options, records' size."""

    threads: int
    records: int
    orphans: int
    options: dict[str, Any]
    scale: int = 1


OFTEN: Final = {"batch_size": 3, "flush_interval": 0.005}
SCENARIOS: Final = {
    "one thread": Scenario(1, 25, 0, OFTEN),
    "threads": Scenario(4, 8, 0, OFTEN),
    "rotation": Scenario(2, 12, 0, {**OFTEN, "max_bytes": 15_000}),
    "compression": Scenario(1, 15, 0, {**OFTEN, "max_bytes": 15_000, "compress": True}),
    "orphans": Scenario(1, 6, 2, OFTEN),
    "journal elsewhere": Scenario(2, 8, 1, {**OFTEN, "journal_directory": "{folder}/disk/journals"}),
    "segments": Scenario(1, 25, 0, OFTEN, 60),
    "full queue": Scenario(3, 8, 0, {"batch_size": 100, "flush_interval": 1000, "queue_max_size": 4}),
}


# --- the disk --------------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """One change of a file: *data* at *start*, and the *size* that it then has, or, unless it *cuts*, has at least."""

    start: int
    data: bytes
    size: int
    cuts: bool = False


class Entry(NamedTuple):
    """A change of a directory: *name* leads to *node* from now on, or, None, to nothing; *old* is gone with it."""

    name: str
    node: int | None
    old: str = ""


class Pending:
    """Changes of one file or directory that no sync has covered, in order."""

    def __init__(self) -> None:
        self.changes: list[Any] = []
        self.synced = 0  # how many were before these
        self._begun: list[int] = []  # where in the trace the calls that made them are

    def add(self, change: Change | Entry, ended: int) -> None:
        """Take one more change, whose call ends at *ended*."""
        self.changes.append(change)
        self._begun.append(ended)

    def covered(self, began: int) -> int:
        """Return how many changes in all a sync covers that begins at *began*: those whose calls had ended."""
        count = next((at for at, ended in enumerate(self._begun) if ended > began), len(self._begun))
        return self.synced + count

    def take(self, covered: int) -> list[Any]:
        """Return the changes that are on the disk now, *covered* in all, and forget them."""
        count = max(0, covered - self.synced)
        taken, self.changes, self._begun = self.changes[:count], self.changes[count:], self._begun[count:]
        self.synced += count
        return taken


@final
class File(Pending):
    """A file: what is on the disk for sure, and the changes since."""

    def __init__(self, durable: bytes = b"") -> None:
        super().__init__()
        self.durable, self.size = durable, len(durable)

    def change(self, change: Change, ended: int) -> None:
        """Take one more change."""
        self.add(change, ended)
        self.size = change.size if change.cuts else max(self.size, change.size)

    def sync(self, covered: int) -> None:
        """Have the first *covered* changes on the disk."""
        self.durable = changed(self.durable, self.take(covered))

    def after_loss(self, way: str, chance: random.Random) -> bytes:
        """Return what a loss of power may leave of it, in one *way*."""
        if way == "none" or not self.changes:
            return self.durable
        if way == "mixed":
            return self.after_loss(chance.choice(WAYS[:-1]), chance)
        whole = changed(self.durable, self.changes)
        if way == "torn":  # a growing file, anywhere
            return whole[: chance.randint(min(len(self.durable), len(whole)), len(whole))]
        if way == "zeros":  # the size has reached the disk, the bytes have not
            return self.durable[: len(whole)].ljust(len(whole), b"\0")
        return self._with_holes(chance) if way == "holes" else whole

    def _with_holes(self, chance: random.Random) -> bytes:
        """Let each sector, or each page, that has changed be of another moment, and the size as well."""
        counts = range(max(0, len(self.changes) - 8), len(self.changes) + 1)
        versions = [changed(self.durable, self.changes[:count]) for count in counts]
        if counts[0]:
            versions.append(self.durable)
        there = bytearray(chance.choice([versions[-1], chance.choice(versions)]))
        step = chance.choice((SECTOR, 8 * SECTOR))
        touched: set[int] = set()
        for change in self.changes:
            touched.update(range(change.start // step, -(-(change.start + len(change.data)) // step)))
        for start in sorted(place * step for place in touched):
            end = min(start + step, len(there))
            if end > start:
                there[start:end] = chance.choice(versions)[start:end].ljust(end - start, b"\0")
        return bytes(there)


def changed(data: bytes, changes: list[Change]) -> bytes:
    """Return *data* after *changes*."""
    there = bytearray(data)
    for change in changes:
        if change.cuts:
            del there[change.size :]
        there.extend(bytes(max(0, change.size - len(there))))
        there[change.start : change.start + len(change.data)] = change.data
    return bytes(there)


def entered(names: dict[str, int], entries: list[Entry]) -> dict[str, int]:
    """Return a directory's *names* after *entries*."""
    there = dict(names)
    for entry in entries:
        there.pop(entry.old, None)
        if entry.node is None:
            there.pop(entry.name, None)
        else:
            there[entry.name] = entry.node
    return there


@final
class Folder(Pending):
    """A directory: the names in it that are on the disk for sure, and the changes since."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[str, int] = {}

    def sync(self, covered: int) -> None:
        """Have the first *covered* changes on the disk."""
        self.durable = entered(self.durable, self.take(covered))

    def after_loss(self, way: str, chance: random.Random) -> dict[str, int]:
        """Return the names that a loss of power may leave in it."""
        most = len(self.changes)
        count = {"none": 0, "all": most}.get(way, chance.choice((0, most, chance.randint(0, most))))
        return entered(self.durable, self.changes[:count])


class Disk:
    """All that is below *root*, as the calls of a process leave it; *root* itself is there for sure."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.nodes: dict[int, File | Folder] = {0: Folder()}
        self.names: dict[str, int] = {self.root: 0}  # as the process sees it
        for path in sorted(root.rglob("*")):
            self._make(str(path), Folder() if path.is_dir() else File(path.read_bytes()), -1)
        for node in self.nodes.values():
            if isinstance(node, Folder):
                node.sync(len(node.changes))

    def _make(self, path: str, node: File | Folder, ended: int) -> None:
        number = len(self.nodes)
        self.nodes[number] = node
        self._enter(Entry(path, number), ended)

    def _enter(self, entry: Entry, ended: int) -> None:
        folder = self.nodes[self.names[os.path.dirname(entry.name)]]
        folder.add(entry, ended)
        self.names = entered(self.names, [entry])

    def at(self, path: str) -> File | Folder | None:
        """Return what stands at *path*."""
        return self.nodes[self.names[path]] if path in self.names else None

    def apply(self, call: Call) -> None:
        """Take a call that is no sync."""
        if call.name in {"write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate"}:
            if isinstance(file := self.at(call.path), File):
                file.change(self._change(call, file), call.ended)
            return
        names = [text.decode() for text in call.texts]
        if not names or not names[0].startswith(f"{self.root}/"):
            return
        if call.name == "openat":
            if "O_CREAT" in call.args and names[0] not in self.names:
                self._make(names[0], File(), call.ended)
            if "O_TRUNC" in call.args and isinstance(file := self.at(names[0]), File):
                file.change(Change(0, b"", 0, cuts=True), call.ended)
        elif call.name.startswith("mkdir"):
            self._make(names[0], Folder(), call.ended)
        elif call.name.startswith("rename"):
            self._enter(Entry(names[1], self.names[names[0]], old=names[0]), call.ended)
        elif call.name.startswith("link"):
            self._enter(Entry(names[1], self.names[names[0]]), call.ended)
        else:  # unlink, rmdir
            self._enter(Entry(names[0], None), call.ended)

    @staticmethod
    def _change(call: Call, file: File) -> Change:
        data = b"".join(call.texts)[: call.result]
        if call.name in {"write", "writev"}:
            return Change(file.size, data, file.size + len(data))
        if call.name.startswith("pwrite"):
            return Change(call.offset, data, call.offset + len(data))
        return Change(0, b"", call.offset, cuts=call.name == "ftruncate")

    def after_loss(self, way: str, chance: random.Random) -> dict[str, bytes | None]:
        """Return what a loss of power leaves: paths below the root and their bytes; None for a directory."""
        there: dict[str, bytes | None] = {}
        bytes_of: dict[int, bytes] = {}  # a file with two names is one
        folders = [0]
        while folders:
            folder = self.nodes[folders.pop()]
            for path, number in folder.after_loss(way, chance).items() if not isinstance(folder, File) else ():
                node = self.nodes[number]
                if isinstance(node, Folder):
                    there[path] = None
                    folders.append(number)
                else:
                    if number not in bytes_of:
                        bytes_of[number] = node.after_loss(way, chance)
                    there[path] = bytes_of[number]
        return there


def old_disk(root: Path, before: Path) -> Disk:
    """Return the disk at *root* as it was when what stands in *before* was copied from it."""
    disk = Disk(before)
    disk.root = str(root)
    disk.names = moved(disk.names, before, root)
    for node in disk.nodes.values():
        if not isinstance(node, File):
            node.durable = moved(node.durable, before, root)
    return disk


def moved(names: dict[str, int], before: Path, root: Path) -> dict[str, int]:
    """Return *names* below *before* as they are below *root*."""
    return {str(root) + name.removeprefix(str(before)): number for name, number in names.items()}


def moments(calls: list[Call], disk: Disk, acks_path: str) -> Iterator[list[str]]:
    """Play *calls* on *disk*; behind each give the records that have been noted by then."""
    acks: list[str] = []
    syncs: dict[Call, tuple[Any, int]] = {}
    for at, call in sorted([(call.began, call) for call in calls] + [(c.ended + 0.5, c) for c in calls], key=at_first):
        is_sync, is_end = call.name in {"fsync", "fdatasync"}, at != call.began
        if call.path == acks_path:
            acks += [] if is_end else call.texts[0].decode().split()
        elif is_sync and not is_end:
            if (node := disk.at(call.path)) is not None:
                syncs[call] = (node, node.covered(call.began))
        elif is_sync and call in syncs:
            node, covered = syncs.pop(call)
            node.sync(covered)
        elif not is_end:
            disk.apply(call)
        else:
            continue  # nothing has changed since it began
        yield acks


def at_first(step: tuple[float, Call]) -> float:
    """Sort steps by where in the trace they are."""
    return step[0]


# --- a writer's life, its sudden end, and the next program -----------------------------------------------------------


def live(folder: Path, scenario: Scenario, options: dict[str, Any]) -> tuple[list[Call], Path]:
    """Let a writer live under strace; return its calls, and a copy of what the disk held before."""
    (folder / "disk").mkdir()
    waits = orjson.dumps({**options, "batch_size": 1000, "flush_interval": 1000}).decode()
    for number in range(scenario.orphans):
        orphan = [sys.executable, "-c", WRITER, str(folder), f"orphan{number}", "2", "6", "0", "1", waits]
        subprocess.run(orphan, check=True)
    before = folder / "before"
    shutil.copytree(folder / "disk", before)
    life = [*map(str, (scenario.threads, scenario.records, 1, scenario.scale)), orjson.dumps(options).decode()]
    traced = [
        *strace(folder / "trace", CALLS),
        "-e",
        SLOW_SYNCS,
        sys.executable,
        "-c",
        WRITER,
        str(folder),
        "writer",
        *life,
    ]
    subprocess.run(traced, check=True)
    return calls_of(folder / "trace"), before


def lay_out(folder: Path, there: dict[str, bytes | None], root: Path) -> None:
    """Let *folder* hold what is *there* below *root*."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in there.items():
        place = folder / os.path.relpath(path, root)
        place.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(data)


def come_back(log: Path, options: dict[str, Any], acks: list[str]) -> str:
    """Let the next program open the log, log a record at once, and end; say what is wrong then."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(GIVE_UP_S)
            handler = AIResponseHandler(log, durability="power", **options)
            handler.submit(logging.makeLogRecord({"msg": "m", "record_id": AFTER}))
            handler.flush()
            handler.close()
            status = 0
        finally:
            os._exit(status)
    if status := os.waitpid(pid, 0)[1]:
        return f"the next program ended with {os.waitstatus_to_exitcode(status)}"
    return judge(log, acks, options.get("journal_directory"))


def judge(log: Path, acks: list[str], elsewhere: str | None) -> str:
    """Say what is wrong with *log*; nothing if each record that was noted is there once, and all lines are whole."""
    found: Counter[str] = Counter()
    torn = 0
    for file in log.parent.glob(f"{log.name}*"):
        if file.is_dir() or ".torn-" in file.name or file.name.endswith(".part"):
            continue
        data = gzip.decompress(file.read_bytes()) if file.name.endswith(".gz") else file.read_bytes()
        for line in data.splitlines(keepends=True):
            try:
                found[orjson.loads(line)["record_id"]] += line.endswith(b"\n") or 10
            except orjson.JSONDecodeError:
                torn += 1
    lost = [record for record in [*acks, AFTER] if not found[record]]
    doubled = [record for record, times in found.items() if times > 1]
    folders = [log.with_name(f"{log.name}.journal"), *(Path(elsewhere).glob("*") if elsewhere else ())]
    waits = [file.name for one in folders if one.is_dir() for file in one.iterdir() if file.name != "location"]
    wrong = {"lost": lost, "doubled": doubled, "torn": torn, "waits": waits}
    return ", ".join(f"{what} {value}" for what, value in wrong.items() if value)


def try_states(name: str, seconds: float, seed: int) -> tuple[int, int, list[str]]:
    """Take the power away in one scenario for so long; return states tried, moments, and what was wrong."""
    chance, scenario = random.Random(f"{seed} {name}"), SCENARIOS[name]  # noqa: S311  nobody is to be surprised
    folder = Path(tempfile.mkdtemp(prefix="power-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    options = orjson.loads(orjson.dumps(scenario.options).replace(b"{folder}", os.fsencode(folder)))
    calls, before = live(folder, scenario, options)
    root, acks_path = folder / "disk", str(folder / "acks")
    earlier = [record for record in (folder / "acks").read_text("ascii").split() if not record.startswith("writer")]
    count = sum(1 for _ in moments(calls, old_disk(root, before), acks_path))
    seen: set[int] = set()
    wrong: list[str] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s and not wrong:
        chosen = set(chance.sample(range(count), min(count, 60)))
        disk = old_disk(root, before)
        for at, acks in enumerate(moments(calls, disk, acks_path)):
            if at not in chosen or time.monotonic() >= until_s or wrong:
                continue
            way = chance.choice(WAYS)
            there = disk.after_loss(way, chance)
            if (state := hash((frozenset(there.items()), len(acks)))) in seen:
                continue
            seen.add(state)
            lay_out(root, there, root)
            if problem := come_back(root / "logs" / "log.jsonl", options, earlier + acks):
                lay_out(folder / "state", there, root)
                wrong.append(f"{name}, moment {at} of {count}, {way}: {problem}; kept in {folder}")
    if not wrong:
        shutil.rmtree(folder)
    return len(seen), count, wrong


def main() -> int:
    """Try the scenarios and say what was found; 0 when nothing was lost, doubled or torn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", choices=SCENARIOS)
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        print("there is no strace, so no state can be made")
        return 1
    logging.raiseExceptions = False
    print(f"seed {arguments.seed}", flush=True)
    names = [arguments.only] if arguments.only else list(SCENARIOS)
    total, failures = 0, list[str]()
    for name in names:
        tried, count, wrong = try_states(name, arguments.seconds / len(names), arguments.seed)
        print(f"{name}: {tried} states at {count} moments", *wrong, sep="\n  ", flush=True)
        total, failures = total + tried, failures + wrong + [f"{name}: no state was tried"] * (not tried)
    print(f"{total} states: " + (f"{len(failures)} FAILED" if failures else "lost 0, doubled 0, torn 0"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
