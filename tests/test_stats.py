from __future__ import annotations

import fcntl
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import assert_all_there_once, read_lines

from ai_response_logging import AIResponseHandler, stats
from ai_response_logging._typed import Snapshot
from ai_response_logging.errors import AIResponseLoggingError, WriteError
from ai_response_logging.stats import FaultLog, tell

# As promise.md lists them.
PROMISED = {
    "accepted", "written", "written_sync", "failed", "pending", "queue_size", "queued", "spilled", "replayed",
    "retried", "encode_errors", "rotations", "durability", "worker_alive", "last_error", "last_error_time",
}  # fmt: skip


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s + 1_795_000_000


class Told(logging.Handler):
    """Keeps what `logging` would have printed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[logging.LogRecord, BaseException | None]] = []

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append((record, sys.exception()))


class Recording(AIResponseHandler):
    """Keeps what its users would have been told."""

    told: list[str]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append(record.getMessage())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock that stands into stats.py."""
    standing = Clock()
    monkeypatch.setattr(stats, "time", standing)
    return standing


class Small(NamedTuple):
    """A handler with room for two records, and the means to refuse its writes."""

    handler: Recording
    lock: Any

    def hold_lock(self) -> None:
        """Be another process that does not let go of the lock."""
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def let_go(self) -> None:
        """Let the writer write again."""
        fcntl.flock(self.lock, fcntl.LOCK_UN)

    def log(self, **extra: Any) -> str:
        """Log one record and return its status."""
        record = logging.getLogger("ai").makeRecord("ai", 20, __file__, 1, "m", (), None, extra=extra)
        return self.handler.submit(record)


@pytest.fixture
def small(log_path: Path) -> Iterator[Small]:
    """Return a handler whose listener sleeps: what happens is what the test does."""
    handler = Recording(
        log_path, durability="memory", queue_max_size=2, batch_size=100, flush_interval=1000, caller_timeout=0,
        lock_timeout=0, max_retries=0, close_timeout=5,
    )  # fmt: skip
    handler.told = []
    with open(handler._pipeline.writer.lockFilename, "rb+") as lock:
        yield Small(handler, lock)
    handler.close()


def adds_up(found: Snapshot) -> bool:
    """Say whether every accepted record is somewhere."""
    return found["accepted"] == found["written"] + found["written_sync"] + found["pending"] + found["failed"]


# --- the snapshot ----------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_keys_that_are_promised(small: Small) -> None:
    """What get_stats() returns is what the promise lists, and what its type says."""
    found = small.handler.get_stats()

    assert found.keys() == PROMISED == Snapshot.__annotations__.keys()
    assert (found["accepted"], found["last_error"], found["last_error_time"]) == (0, None, None)
    assert found["durability"] == "memory"


def test_every_status_is_counted_and_the_sum_holds(small: Small, log_path: Path) -> None:
    """Queued, refused, written by the caller, flushed: after each step the counters say what became of every record."""
    seen = [small.log(record_id="a"), small.log(record_id="b", bad=object())]
    found = small.handler.get_stats()
    assert (seen, found["pending"], found["queue_size"], found["queued"]) == (["queued", "queued"], 2, 2, 2)
    assert (found["worker_alive"], found["encode_errors"], adds_up(found)) == (True, 1, True)

    small.hold_lock()
    assert small.log(record_id="c") == "failed"
    found = small.handler.get_stats()
    assert (found["accepted"], found["failed"], found["pending"], adds_up(found)) == (3, 1, 2, True)

    small.let_go()
    assert small.log(record_id="d") == "written_sync"
    found = small.handler.get_stats()
    assert (found["written"], found["written_sync"], found["pending"], adds_up(found)) == (2, 1, 0, True)

    small.log(record_id="e")
    assert small.handler.flush()
    found = small.handler.get_stats()
    assert (found["accepted"], found["written"], found["written_sync"], found["failed"]) == (5, 3, 1, 1)
    assert (found["queued"], found["spilled"], found["replayed"], adds_up(found)) == (3, 0, 0, True)
    assert_all_there_once(log_path, ["a", "b", "d", "e"])


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["memory", "crash"])
def test_the_sum_holds_in_every_snapshot_taken_meanwhile(log_path: Path, durability: str) -> None:
    """A snapshot is of one instant: however busy the writer is, no record is between two counters."""
    handler = AIResponseHandler(log_path, durability=durability, queue_max_size=5, batch_size=2, caller_timeout=5)

    def log() -> None:
        for _ in range(300):
            handler.handle(logging.makeLogRecord({"name": "busy", "msg": "m"}))

    threads = [threading.Thread(target=log) for _ in range(3)]
    for thread in threads:
        thread.start()
    snapshots = [handler.get_stats()]
    while any(thread.is_alive() for thread in threads):
        snapshots.append(handler.get_stats())
    handler.close()
    last = handler.get_stats()

    assert all(map(adds_up, [*snapshots, last]))
    assert (last["accepted"], last["failed"], last["pending"]) == (900, 0, 0)
    assert last["written"] + last["written_sync"] == len(read_lines(log_path))


def test_a_snapshot_does_not_change_afterwards(small: Small) -> None:
    """Frozen counters: what was read stays as it was read."""
    before = small.handler.get_stats()
    small.log()

    assert (before["accepted"], small.handler.get_stats()["accepted"]) == (0, 1)


def test_a_refused_record_says_why_and_is_told(small: Small, log_path: Path) -> None:
    """Failed is never silent: the counters hold the reason, and logging's error handling hears of it."""
    small.hold_lock()
    for _ in range(4):
        small.log(record_id="r")
    found = small.handler.get_stats()

    assert found["failed"] == 2
    assert str(log_path) in (found["last_error"] or "")
    assert found["last_error_time"] is not None
    assert len(small.handler.told) == 1
    assert "refused" in small.handler.told[0]
    small.let_go()


# --- how often a fault is told ---------------------------------------------------------------------------------


def test_a_fault_is_told_at_most_once_a_minute_with_the_count(clock: Clock) -> None:
    """An outage of an hour is sixty messages, not a million, and none of its faults goes uncounted."""
    faults = FaultLog()
    told = []
    for second in range(0, 180, 5):
        clock.now_s = 1000.0 + second
        told.append(faults.note("AppendError", f"at {second}"))

    assert [(index * 5, count) for index, count in enumerate(told) if count] == [(0, 1), (60, 12), (120, 12)]


def test_each_kind_of_fault_has_its_own_minute(clock: Clock) -> None:
    """A full disk does not keep a busy lock from being told."""
    faults = FaultLog()
    counts = [faults.note(kind, "x") for kind in ("AppendError", "LockTimeoutError", "AppendError", "LockTimeoutError")]
    clock.now_s += 59.9
    counts.append(faults.note("AppendError", "x"))
    clock.now_s += 0.1
    counts += [faults.note("AppendError", "x"), faults.note("LockTimeoutError", "x")]

    assert counts == [1, 1, 0, 0, 0, 3, 2]


def test_the_newest_fault_is_remembered_told_or_not(clock: Clock) -> None:
    """get_stats() shows the last fault, also in a minute of silence."""
    faults = FaultLog()
    assert (faults.last_error, faults.last_error_time) == (None, None)
    faults.note("AppendError", "first")
    clock.now_s += 1
    faults.note("AppendError", "second")

    assert (faults.last_error, faults.last_error_time) == ("second", clock.time())


def test_a_fault_is_told_as_logging_tells_its_own() -> None:
    """handleError, which users may override, gets a record with the text while the very exception is handled."""
    handler = Told()
    error = WriteError("the file refuses")

    tell(handler, error)

    (record, handled), = handler.told  # fmt: skip
    assert record.getMessage() == "the file refuses"
    assert handled is error
    assert isinstance(handled, AIResponseLoggingError)


def test_a_fault_is_told_on_stderr_when_nobody_overrides_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Out of the box the message is where logging's own errors are."""
    tell(logging.Handler(), WriteError("the file refuses"))

    assert "the file refuses" in capsys.readouterr().err


def test_an_error_without_text_is_told_by_its_class():
    """A foreign handler's error may raise when it is asked for its text: the thread that tells it goes on."""

    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise self

    told: list[str] = []
    handler = logging.Handler()
    handler.handleError = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    tell(handler, SpeechlessError())

    assert told == ["<SpeechlessError>"]
