"""Whatever refuses at durability `crash`: records spill, come home without a restart, and no call waits too long."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _children import Notes, Writer, assert_kept, assert_sums, holding_the_lock, writer
from helpers import has_gcc, is_root

from ai_response_logging.record import seal, tail_of

pytestmark = [pytest.mark.faults, pytest.mark.slow]

BEYOND = {"durability": "crash", "queue_max_size": 5, "flush_interval": 0.05, "caller_timeout": 0.05}
SLACK_S = 3.0  # a call, on a machine that does other things
LIMIT = 2 << 20


def log_beyond_the_queue(one: Writer, notes: Notes, fault: contextlib.AbstractContextManager[object]) -> list[str]:
    """Let *one* log more than its queue holds while *fault* lasts, and bring all of it home when it is over."""
    assert one.log("before", 3) == ["queued"] * 3
    assert one.ask("flush")
    with fault:
        statuses = one.log("during", 30, 200)
        assert one.ask("flush", 0.05) is False
        snapshot = one.ask("stats")
        one.send("load", 2)
        assert one.answer() is None
        while sum("took_s" in note for note in notes.read()) < 6:
            assert one.process.poll() is None
        assert one.ask("rest") == {"hung": 0, "raised": []}
    assert one.ask("all_home"), one.ask("stats")
    assert one.log("after", 3) == ["queued"] * 3
    one.end()
    assert_sums(snapshot)
    assert (snapshot["failed"], snapshot["pending"]) == (0, 30)
    assert notes.slowest_s() < BEYOND["caller_timeout"] + SLACK_S
    return statuses


@has_gcc
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG"])
def test_log_that_refuses_every_write_spills_and_comes_home(
    log_path: Path, tmp_path: Path, notes: Notes, shim: Path, error: str
):
    """Each error that a write can meet for a while: past the queue records are in the journal, none is refused."""
    switch, count = tmp_path / "switch", tmp_path / "fired"
    env = {
        "LD_PRELOAD": str(shim), "SHIM_FILE": f"/{log_path.name}", "SHIM_SWITCH": str(switch), "SHIM_COUNT": str(count)
    }  # fmt: skip

    @contextlib.contextmanager
    def switched_on() -> Iterator[None]:
        switch.write_text(str(getattr(errno, error)))
        yield
        switch.unlink()

    with writer(log_path, notes, env=env, **BEYOND) as one:
        statuses = log_beyond_the_queue(one, notes, switched_on())

    assert len(count.read_bytes()) > 25
    assert statuses == ["queued"] * 5 + ["spilled"] * 25
    assert_kept(log_path, notes)


@contextlib.contextmanager
def file_limit(one: Writer, log: Path) -> Iterator[None]:
    """Let the log be as large as a file may be (EFBIG from the kernel itself); a journal's segments may be 1 MiB."""
    with log.open("ab") as file:
        file.write(seal(b'{"record_id":"fill","response":"%b"' % (b"x" * LIMIT), tail_of("filler"), 0))
    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    yield
    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def no_descriptor(one: Writer, log: Path) -> Iterator[None]:
    """Take the log away and leave no descriptor to open it anew (EMFILE)."""
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (3, 4096))
    log.rename(log.with_name(f"{log.name}.1"))
    yield
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (4096, 4096))


@contextlib.contextmanager
def directory_replaced(_one: Writer, log: Path) -> Iterator[None]:
    """Put a file in the place of the log's directory."""
    aside = log.parent.with_name("aside")
    log.parent.rename(aside)
    log.parent.touch()
    yield
    log.parent.unlink()
    aside.rename(log.parent)


@contextlib.contextmanager
def directory_in_the_logs_place(_one: Writer, log: Path) -> Iterator[None]:
    """Put a directory in the place of the log."""
    log.rename(log.with_name(f"{log.name}.1"))
    log.mkdir()
    yield
    log.rmdir()


@contextlib.contextmanager
def lock_held(_one: Writer, log: Path) -> Iterator[None]:
    """Let a stranger hold the lock."""
    with holding_the_lock(log):
        yield


@pytest.mark.parametrize(
    "fault", [file_limit, no_descriptor, directory_replaced, directory_in_the_logs_place, lock_held]
)
def test_log_that_cannot_be_had_spills_and_comes_home(
    tmp_path: Path, notes: Notes, fault: Callable[[Writer, Path], Any]
):
    """No room in the file, no descriptor, a directory or a lock that is not to be had: the same."""
    log = tmp_path / "logs" / "log.jsonl"
    with writer(log, notes, journal_directory=str(tmp_path / "journals"), lock_timeout=0.05, **BEYOND) as one:
        statuses = log_beyond_the_queue(one, notes, fault(one, log))

    assert statuses == ["queued"] * 5 + ["spilled"] * 25
    assert_kept(log, notes, sure=notes.ids())


def test_directory_removed_with_the_journal_in_it_costs_only_what_it_held(tmp_path: Path, notes: Notes):
    """Somebody removes log, lock and journal at once: the directory is made again, and what waits is in it."""
    log = tmp_path / "logs" / "log.jsonl"
    with writer(log, notes, **BEYOND) as one:
        one.log("gone", 3)
        assert one.ask("flush")
        with holding_the_lock(log):
            one.log("waits", 5)
            shutil.rmtree(log.parent)
        assert one.ask("all_home")
        one.end()

    assert_kept(log, notes, sure=[id_ for id_ in notes.ids() if id_.startswith("waits")])


@is_root
def test_log_replaced_by_a_file_of_another_owner_spills_and_comes_home(others_directory: Path):
    """A service that may not write what somebody put in its log's place keeps its records until it may."""
    others_directory.chmod(0o777)
    log, notes = others_directory / "log.jsonl", Notes(others_directory / "notes")

    @contextlib.contextmanager
    def replaced() -> Iterator[None]:
        log.rename(log.with_name(f"{log.name}.1"))
        log.touch(0o600)
        yield
        log.unlink()

    notes.path.touch()
    notes.path.chmod(0o666)
    # Not before the import: nobody else may enter the folder in which the gate runs.
    nobody = "import orjson, concurrent_log_handler\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
    with writer(log, notes, first=nobody, **BEYOND) as one:
        statuses = log_beyond_the_queue(one, notes, replaced())

    assert statuses == ["queued"] * 5 + ["spilled"] * 25
    assert_kept(log, notes, sure=notes.ids())
