"""At durability power no call returns before its record is on the disk, whatever a sync says, whenever power goes."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _children import Notes, SmallDisk, assert_kept, assert_sums, run_or_skip, writer
from _disks import UNSYNCED, Disk
from _trace import Call, calls_of, strace
from helpers import assert_all_there_once, has_strace, is_root, read_lines, run_child

from ai_response_logging import AIResponseHandler
from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow]

POWER: dict[str, Any] = {"durability": "power"}
OFTEN: dict[str, Any] = {**POWER, "batch_size": 5, "flush_interval": 0.01}


def come_back(log: Path, **options: Any) -> None:
    """Be the next program: open the log, and close it again."""
    AIResponseHandler(log, **{**POWER, **options}).close()


def await_records(notes: Notes, count: int) -> None:
    """Wait until *count* calls have returned."""
    while len(notes.ids()) < count:
        pass


# --- in which order ------------------------------------------------------------------------------------------------


def synced_between(syncs: list[Call], path: str, after: Call, before: Call) -> bool:
    """Say whether a sync of *path* began when *after* had returned and returned before *before* began."""
    return any(one.path == path and after.ended < one.began and one.ended < before.began for one in syncs)


@has_strace
def test_each_call_returns_behind_a_sync_that_began_behind_its_write(tmp_path: Path, notes: Notes):
    """What is acknowledged, appended and forgotten: each only behind the sync that it needs, in every thread."""
    log, trace = tmp_path / "new" / "newer" / "log.jsonl", tmp_path / "trace"
    names = ("write", "pwrite64", "fsync", "fdatasync", "mkdir")
    with writer(log, notes, wrap=strace(trace, *names), **OFTEN) as one:
        one.send("load", 4)
        assert one.answer() is None
        await_records(notes, 120)
        assert one.ask("rest") == {"hung": 0, "raised": []}
        one.end()

    calls = calls_of(trace)
    syncs = [call for call in calls if call.name in {"fsync", "fdatasync"}]
    stored = {json.loads(line)["record_id"]: call for call in calls for line in lines_in(call)}
    marks = [
        call for call in calls if call.name == "pwrite64" and call.path.endswith(".mark") and b"[" in call.texts[0]
    ]
    appends = [call for call in calls if call.name == "write" and call.path == str(log)]
    told = [
        call for call in calls if call.name == "write" and call.path == str(notes.path) and b'"id"' in call.texts[0]
    ]

    assert len(told) == len(notes.ids()) >= 120
    for call in told:
        record = stored[json.loads(call.texts[0])["id"]]
        assert synced_between(syncs, record.path, record, call), call
    assert len(appends) >= 5
    for before, call in zip([None, *appends], appends, strict=False):
        intent = max((mark for mark in marks if mark.ended < call.began), key=lambda mark: mark.began)
        assert b"null" not in intent.texts[0]
        assert synced_between(syncs, intent.path, intent, call)
        assert before is None or synced_between(syncs, str(log), before, intent)
        lines = [json.loads(line)["record_id"] for line in call.texts[0].splitlines()]
        assert all(synced_between(syncs, stored[id_].path, stored[id_], intent) for id_ in lines)
    for mark in marks:
        earlier = [call for call in appends if call.ended < mark.began]
        assert not earlier or synced_between(syncs, str(log), earlier[-1], mark)
    first, journal = told[0], Path(f"{log}.journal")
    made = {call.texts[0].decode(): call for call in calls if call.name == "mkdir"}
    for directory in (log.parent.parent, log.parent, journal):
        assert synced_between(syncs, str(directory.parent), made[str(directory)], first)
    assert synced_between(syncs, str(journal), made[str(journal)], first)
    assert any(sync.path == str(log.parent) and sync.ended < appends[0].began for sync in syncs)


def lines_in(call: Call) -> list[bytes]:
    """Return the record that *call* stored in a journal, if it did."""
    if call.name != "pwrite64" or not call.path.endswith(".jsonl"):
        return []
    return call.texts[0].splitlines()


# --- syncs that fail -----------------------------------------------------------------------------------------------


class Syncs:
    """Makes a writer's syncs fail, by the shim, and tells what they were asked."""

    def __init__(self, shim: Path, notes: Path) -> None:
        self._shim, self._notes = shim, notes

    def env(self, pattern: str, plan: str) -> dict[str, str]:
        """Return the environment in which syncs of files like *pattern* go as the *plan* says."""
        return {
            "LD_PRELOAD": str(self._shim), "SYNC_FILE": pattern, "SYNC_PLAN": plan, "SYNC_NOTES": str(self._notes),
        }  # fmt: skip

    def made(self) -> list[tuple[str, str, str]]:
        """Return of each sync what it was told to do, and the number and name of its file."""
        return [tuple(line.split(" ", 2)) for line in self._notes.read_text("utf-8").splitlines()]  # type: ignore[misc]

    def assert_failed_ones_are_left_alone(self, count: int) -> None:
        """Assert that *count* syncs failed, and none of a file that had failed came later."""
        failed = [number for act, number, _ in self.made() if act in "en"]
        assert len(failed) == count
        assert len(set(failed)) == count, "a file was synced once more"
        for at, (act, number, path) in enumerate(self.made()):
            if act in "en":
                assert all(later != number for _, later, _ in self.made()[at + 1 :]), path


@pytest.fixture
def syncs(shim_sync: Path, tmp_path: Path) -> Syncs:
    """Return what makes syncs fail."""
    return Syncs(shim_sync, tmp_path / "syncs")


@pytest.mark.parametrize("error", ["e", "n"])
def test_segment_that_cannot_be_synced_is_left_and_its_lines_go_to_a_new_one(
    log_path: Path, notes: Notes, syncs: Syncs, error: str
):
    """One failed sync of the journal: nobody hears of it, it is never asked again, and a kill loses nothing."""
    with writer(log_path, notes, env=syncs.env("*.journal/*.jsonl", f"..{error}."), **POWER) as one:
        assert one.log("records", 6) == ["queued"] * 6
        one.process.kill()
        one.process.wait()

    syncs.assert_failed_ones_are_left_alone(1)
    assert len(list(Path(f"{log_path}.journal").glob("*.jsonl"))) == 2
    come_back(log_path)
    assert_all_there_once(log_path, notes.ids())


def test_mark_that_cannot_be_synced_is_replaced(log_path: Path, notes: Notes, syncs: Syncs):
    """One failed sync of the marks: a new mark file takes its place, and every record is there once."""
    with writer(log_path, notes, env=syncs.env("*.mark", ".e."), **POWER) as one:
        for group in range(4):
            one.log(f"group{group}", 3)
            assert one.ask("flush")
        one.log("last", 3)
        one.process.kill()
        one.process.wait()

    syncs.assert_failed_ones_are_left_alone(1)
    come_back(log_path)
    assert_all_there_once(log_path, notes.ids())


def test_log_that_cannot_be_synced_is_sealed_and_each_record_is_once_over_both(
    log_path: Path, notes: Notes, syncs: Syncs
):
    """A failed sync of the log: it is sealed without the block, the records go to a new file; `verify` agrees."""
    with writer(log_path, notes, env=syncs.env(str(log_path), ".e."), **POWER) as one:
        one.log("first", 3)
        assert one.ask("flush")
        one.log("second", 3)
        assert one.ask("flush")
        one.log("third", 3)
        assert one.ask("flush")
        one.end()

    syncs.assert_failed_ones_are_left_alone(1)
    [sealed] = log_path.parent.glob(f"{log_path.name}.sealed-*")
    assert [record["record_id"] for record in read_lines(sealed)] == [f"first-{number}" for number in range(3)]
    assert_kept(log_path, notes)
    assert verify_log(log_path).whole


def test_where_nothing_can_be_synced_calls_are_refused_and_counted(log_path: Path, notes: Notes, syncs: Syncs):
    """A disk that syncs nothing any more: `failed`, said why, the process lives, and no files pile up."""
    with writer(log_path, notes, env=syncs.env("*", "e"), max_retries=0, **POWER) as one:
        assert one.log("refused", 10) == ["failed"] * 10
        stats = one.ask("stats")
        one.end()

    assert stats["failed"] == 10
    assert "Input/output error" in stats["last_error"]
    assert_kept(log_path, notes)
    assert not list(log_path.parent.glob(f"{log_path.name}.sealed-*"))


def test_where_the_journal_cannot_be_synced_the_call_syncs_the_log(log_path: Path, notes: Notes, syncs: Syncs):
    """A journal that fails for good costs no record: each call writes its own to the log, and syncs that."""
    with writer(log_path, notes, env=syncs.env("*.journal/*", "e"), **POWER) as one:
        assert one.log("records", 5) == ["written_sync"] * 5
        one.process.kill()
        one.process.wait()

    assert [record["record_id"] for record in read_lines(log_path)] == notes.ids()
    assert sum(path == str(log_path) for _, _, path in syncs.made()) >= 5
    come_back(log_path)
    assert_all_there_once(log_path, notes.ids())


@pytest.mark.parametrize(
    ("pattern", "before"),
    [*itertools.product(["*.journal/*.jsonl", "*.mark", "*/ai_responses.jsonl"], [0, 1, 3]), ("*.journal", 0)],
)
def test_killed_in_the_middle_of_a_sync_each_acknowledged_record_is_once(
    log_path: Path, notes: Notes, syncs: Syncs, pattern: str, before: int
):
    """SIGKILL where a sync stands: the next program finds each record whose call had returned, once."""
    with writer(log_path, notes, env=syncs.env(pattern, "." * before + "k"), **OFTEN) as one:
        with contextlib.suppress(BrokenPipeError):  # it is dead by now
            for number in range(10):  # each of these flushes needs a sync of the log, however much one block takes
                one.send("log", f"records-{number}", 20, 100)
                one.send("flush")
        assert one.process.wait() == -signal.SIGKILL

    come_back(log_path)
    assert_all_there_once(log_path, notes.ids(), others=True)


def test_whoever_brings_home_a_journal_of_power_syncs_whatever_his_own_durability(
    log_path: Path, notes: Notes, syncs: Syncs
):
    """The lock file says `power`, so that a program at `crash` syncs the log before it forgets those records."""
    with writer(log_path, notes, **POWER) as one:
        one.log("records", 3)
        one.process.kill()
        one.process.wait()
    [lock] = Path(f"{log_path}.journal").glob("*.lock")
    assert lock.read_bytes() == b"power\n"

    other = Notes(notes.path.with_name("other"))
    with writer(log_path, other, env=syncs.env("", ""), durability="crash") as one:
        assert one.ask("flush")
        one.end()

    asked = {path for _, _, path in syncs.made()}
    assert str(log_path) in asked
    assert any(path.endswith(".mark") for path in asked)
    assert_all_there_once(log_path, notes.ids())


# --- interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["log", "log, queue full", "flush"])
@pytest.mark.parametrize("act", ["throw", "log"])
def test_interruption_at_a_sample_of_points_leaves_everything_in_order(tmp_path: Path, call: str, act: str):
    """An exception or a signal handler that logs, wherever it falls into a call at power: see test_interrupt.py."""
    child, seed = Path(__file__).with_name("_interrupted.py"), str(random.SystemRandom().randrange(1_000_000))
    # A handler never runs between two lines with no call in between, as a trace function does: see LineQueue.put.
    ways = "signal" if act == "log" else "signal,line"
    done = run_child(child, act, ways, call, tmp_path, 6, seed, env={"DURABILITY": "power"}, timeout=60)
    result = json.loads(done.stdout)

    assert not result["problems"], f"seed {seed}: {json.dumps(result['problems'], indent=1)}"
    assert result["fired"] >= 3 * len(ways.split(","))


def test_fork_in_the_middle_of_a_sync_leaves_a_child_that_logs(log_path: Path):
    """A child that is forked while another thread's sync stands neither hangs nor takes the parent's record along."""
    code = """
    import logging, os, sys, threading
    from ai_response_logging.handler import AIResponseHandler
    begun, may_end, fdatasync = threading.Event(), threading.Event(), os.fdatasync
    def stand(descriptor):
        begun.set()
        assert may_end.wait(15)
        fdatasync(descriptor)
    def log(record_id):
        return handler.submit(logging.makeLogRecord({"msg": "m", "record_id": record_id}))
    handler = AIResponseHandler(sys.argv[1], durability="power", batch_size=10_000, flush_interval=1000)
    log("before")
    os.fdatasync = stand
    thread = threading.Thread(target=log, args=("parent's",))
    thread.start()
    assert begun.wait(15)
    pid = os.fork()
    if not pid:
        os.fdatasync = fdatasync
        assert log("child's") == "queued"
        handler.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    may_end.set()
    thread.join()
    handler.close()
    """
    run_child(textwrap.dedent(code), log_path)

    assert_all_there_once(log_path, ["before", "parent's", "child's"])


# --- disks ---------------------------------------------------------------------------------------------------------


PAGE_BYTES = 4096


class ThinDisk:
    """
    A file system in a file on another one that gets full: what is written is taken, and its sync fails.

    The loop device is asked for one whole page at a time. Of a larger request whose first pages have room below it and
    whose others have none it writes the first and says that it has written all (seen on Linux 6.18): then a sync says
    yes to bytes that are nowhere, and no program can tell.
    """

    def __init__(self, folder: Path) -> None:
        self._below, self.path = folder / "below", folder / "disk"
        self._mounted: list[Path] = []
        self._device, self._usual_kib = "", ""

    def make(self) -> None:
        """Make it, with room below it, and mount it."""
        self._below.mkdir()
        self.path.mkdir()
        run_or_skip("mount", "-t", "tmpfs", "-o", "size=12m", "thin", self._below)
        self._mounted.append(self._below)
        self.ballast = SmallDisk(self._below)
        image = self._below / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        run_or_skip("mkfs.ext4", "-q", "-m", "0", "-b", PAGE_BYTES, "-J", "size=4", image)
        self._device = run_or_skip("losetup", "--sector-size", PAGE_BYTES, "--find", "--show", image)
        usual_kib = self._most_kib.read_text()
        try:
            self._most_kib.write_text(str(PAGE_BYTES >> 10))
        except OSError as error:
            pytest.skip(f"the size of requests cannot be limited here: {error}")
        self._usual_kib = usual_kib
        self.mount()

    @property
    def _most_kib(self) -> Path:
        """Return where the kernel keeps how large a request of the device may be, also for whoever has it next."""
        return Path("/sys/block", Path(self._device).name, "queue", "max_sectors_kb")

    def mount(self) -> None:
        """Mount it."""
        run_or_skip("mount", self._device, self.path)
        self._mounted.append(self.path)

    def unmount(self) -> None:
        """Unmount it, and with it let go of all that the kernel only remembers."""
        subprocess.run(["umount", self._mounted.pop()], check=True)

    def remove(self) -> None:
        """Give everything back."""
        while len(self._mounted) > 1:
            subprocess.run(["umount", "-l", self._mounted.pop()], check=True)
        if self._usual_kib:
            self._most_kib.write_text(self._usual_kib)
        if self._device:
            subprocess.run(["losetup", "-d", self._device], check=True)
        if self._mounted:
            subprocess.run(["umount", "-l", self._mounted.pop()], check=True)


@pytest.fixture
def thin_disk(tmp_path: Path) -> Iterator[ThinDisk]:
    """Make a disk whose syncs fail for want of room below it."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    disk = ThinDisk(tmp_path)
    try:
        disk.make()
        yield disk
    finally:
        disk.remove()


@is_root
def test_sync_that_really_fails_loses_no_acknowledged_record(thin_disk: ThinDisk, notes: Notes):
    """A real disk that takes writes and fails their sync: what calls acknowledged is on it, all else was refused."""
    log = thin_disk.path / "log.jsonl"
    with writer(log, notes, max_retries=0, close_timeout=1, **OFTEN) as one:
        one.log("before", 20, 4000)
        thin_disk.ballast.fill()
        one.log("full", 300, 20_000)
        stats = one.ask("stats")
        one.process.kill()
        one.process.wait()
    thin_disk.ballast.clear()
    thin_disk.unmount()
    thin_disk.mount()

    come_back(log)
    assert_sums(stats)
    assert stats["failed"] == len(notes.ids("failed")) > 0
    assert len(notes.ids()) >= 20
    assert_all_there_once(log, notes.ids(), others=True)


@is_root
def test_power_that_goes_under_load_loses_no_acknowledged_record(disk: Disk, notes: Notes, tmp_path: Path):
    """ext4 and xfs that stop at once, without a flush of their journal: after a mount each record is there, once."""
    log, others = disk.path / "log.jsonl", Notes(tmp_path / "others")
    with writer(log, notes, **OFTEN) as one, writer(log, others, **OFTEN) as other:
        one.send("load", 3)
        other.send("load", 3, "other")
        await_records(notes, 150)
        await_records(others, 150)
        for each in (one, other):
            each.process.send_signal(signal.SIGSTOP)
        disk.shut_down(UNSYNCED)
        for each in (one, other):
            each.process.kill()
            each.process.wait()
    disk.restart()

    come_back(log)
    assert_all_there_once(log, notes.ids() + others.ids(), others=True)
