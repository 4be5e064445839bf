from __future__ import annotations

import errno
import fcntl
import json
import logging
import logging.handlers
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, has_proc, read_lines

from ai_response_logging import _queue, stats
from ai_response_logging._typed import Snapshot
from ai_response_logging.errors import AppendError, ConfigError, LockTimeoutError, LogPathError, WriteError
from ai_response_logging.writer import BatchFileHandler

QUICK: dict[str, Any] = {
    "durability": "memory",
    "retry_delay": 0.001,
    "max_retries": 2,
    "lock_timeout": 0.05,
    "caller_timeout": 0.02,
    "close_timeout": 0.05,
}


class Silent(BatchFileHandler):
    """A writer that keeps the errors it is told of, instead of printing them."""

    def __init__(self, filename: Path, **options: Any) -> None:
        self.told: list[str] = []
        super().__init__(filename, **{**QUICK, **options})

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append(record.getMessage())


@pytest.fixture
def handler(log_path: Path) -> Iterator[Silent]:
    """Make a writer on the log."""
    made = Silent(log_path)
    yield made
    made.close()


def record(record_id: str, size: int = 20, **extra: Any) -> logging.LogRecord:
    """Make a record to log."""
    return logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": "x" * size, **extra})


def put(handler: BatchFileHandler, *ids: str, size: int = 20) -> None:
    """Write one record for each id, one after the other."""
    for one in ids:
        handler.emit(record(one, size))


def ids_in(log: Path) -> list[str]:
    """Return the records of one file, in its order."""
    return [one["record_id"] for one in read_lines(log)]


def assert_sum(snapshot: Snapshot) -> None:
    """Assert that the counters add up."""
    parts = snapshot["written"] + snapshot["written_sync"] + snapshot["pending"] + snapshot["failed"]
    assert snapshot["accepted"] == parts


@contextmanager
def lock_held(handler: BatchFileHandler) -> Iterator[None]:
    """Hold the log's lock on a descriptor of its own, as another process would."""
    with open(handler.lockFilename, "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield


def lock_is_free(handler: BatchFileHandler) -> bool:
    """Say whether another process could take the log's lock now."""
    with open(handler.lockFilename, "a") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class Kernel:
    """Stands in for os.write on the log: takes for real as many bytes as a plan says, then raises if it says so."""

    def __init__(self, handler: BatchFileHandler, *plan: tuple[float, BaseException | None]) -> None:
        self.plan, self.calls = list(plan), 0
        self._write, self._handler = os.write, handler

    def __call__(self, descriptor: int, data: Any) -> int:
        """Play the next step; what follows the plan's end is written whole."""
        stream = self._handler.stream
        if stream is None or descriptor != stream.fileno():
            return self._write(descriptor, data)
        self.calls += 1
        share, error = self.plan.pop(0) if self.plan else (1, None)
        taken = self._write(descriptor, data[: int(len(data) * share)]) if share else 0
        if error is not None:
            raise error
        return taken


NO_SPACE = OSError(errno.ENOSPC, "no space")


# --- on its own ----------------------------------------------------------------------------------------------------


def test_record_is_in_the_file_when_emit_returns(log_path: Path, handler: Silent):
    """Without a listener in front, a record is written before the call is over."""
    put(handler, "a", "b")

    assert ids_in(log_path) == ["a", "b"]
    assert handler.get_stats()["written"] == 2


def test_writer_behind_a_stock_listener_writes_every_record(log_path: Path, handler: Silent):
    """The writer works behind the standard library's own QueueListener."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, handler)
    front = logging.handlers.QueueHandler(records)
    listener.start()
    for number in range(50):
        front.handle(record(str(number)))
    listener.stop()

    assert ids_in(log_path) == [str(number) for number in range(50)]


def test_many_threads_emit_at_once_nothing_is_lost_or_glued(log_path: Path, handler: Silent):
    """Any number of threads may emit; their lines stand whole, each once, and the numbers have no gap."""
    handler.options = handler.options.__class__(**{**vars(handler.options), "lock_timeout": 10.0, "caller_timeout": 10})
    begin = threading.Barrier(8)

    def work(name: int) -> None:
        begin.wait()
        put(handler, *(f"{name}-{number}" for number in range(20)))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert_all_there_once(log_path, [f"{name}-{number}" for name in range(8) for number in range(20)])
    assert sorted(one["seq"] for one in read_lines(log_path)) == list(range(160))


def test_batch_goes_out_in_one_append(log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch):
    """What is emitted inside a batch stands in the file at its end, by one write."""
    kernel = Kernel(handler)
    monkeypatch.setattr(os, "write", kernel)
    with handler.batch():
        put(handler, *map(str, range(30)))
        assert not log_path.read_bytes()

    assert kernel.calls == 1
    assert len(ids_in(log_path)) == 30


def test_batch_that_ends_by_an_exception_keeps_what_was_emitted(log_path: Path, handler: Silent):
    """An error between two records of a batch costs none of those before it."""

    def fail_in_a_batch() -> None:
        with handler.batch():
            put(handler, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_a_batch()

    assert ids_in(log_path) == ["a"]


def test_long_backlog_is_written_in_blocks_each_under_a_lock_of_its_own(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """A backlog beyond 1 MiB gives other processes their turn between its blocks."""
    taken = []
    take = handler._do_lock
    monkeypatch.setattr(handler, "_do_lock", lambda: (taken.append(1), take()))
    kernel = Kernel(handler)
    monkeypatch.setattr(os, "write", kernel)
    with handler.batch():
        put(handler, *map(str, range(30)), size=100_000)

    assert kernel.calls == len(taken) == 3
    assert len(ids_in(log_path)) == 30


def test_filename_left_out_is_that_of_the_environment(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a filename AI_RESPONSES_FILE says where the log is."""
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    handler = BatchFileHandler(**QUICK)
    put(handler, "a")
    handler.close()

    assert ids_in(log_path) == ["a"]


def test_unknown_option_is_an_error_that_names_the_nearest(log_path: Path):
    """A mistyped option never passes in silence."""
    with pytest.raises(ConfigError, match="did you mean lock_timeout"):
        BatchFileHandler(log_path, lock_timout=1)


@has_proc
@pytest.mark.parametrize("what", ["log", "lock"])
def test_symlink_in_a_files_place_is_refused_when_the_writer_is_made(log_path: Path, what: str):
    """A link where the log or its lock is to be is an error at once, and leaves no descriptor open."""
    place = log_path if what == "log" else log_path.with_name(f".__{log_path.name}.lock")
    place.symlink_to(log_path.with_name("other"))
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(LogPathError, match="a symbolic link"):
        BatchFileHandler(log_path, **QUICK)

    assert not log_path.with_name("other").exists()
    assert len(os.listdir("/proc/self/fd")) == before


# --- attempts ------------------------------------------------------------------------------------------------------


def test_pauses_between_attempts_grow_and_end_after_max_retries(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The n-th attempt after a failed one waits n times retry_delay; after the last the record waits for the next."""
    handler = Silent(log_path, max_retries=3, retry_delay=0.5)
    handler.queue.put(b'{"record_id":"a"')
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 4))
    waited: list[float] = []

    assert handler.drain(pause=waited.append) is False
    assert waited == [0.5, 1.0, 1.5]
    assert handler.get_stats()["retried"] == 3
    assert handler.get_stats()["pending"] == 1

    assert handler.drain(pause=waited.append) is True
    assert len(waited) == 3
    assert ids_in(log_path) == ["a"]
    handler.close()


@pytest.mark.parametrize("delay", [0, 0.001])
def test_attempts_are_made_whatever_the_pause(log_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float):
    """max_retries says how often, retry_delay how long to wait before: a delay of 0 means at once, not never."""
    handler = Silent(log_path, max_retries=3, retry_delay=delay)
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 3))

    put(handler, "a")

    assert ids_in(log_path) == ["a"]
    assert handler.get_stats()["retried"] == 3
    handler.close()


def test_no_retries_asked_for_none_are_made(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With max_retries 0 a failed write is left to the next record, which brings both."""
    handler = Silent(log_path, max_retries=0)
    kernel = Kernel(handler, (0, NO_SPACE))
    monkeypatch.setattr(os, "write", kernel)

    put(handler, "a")
    assert (kernel.calls, handler.get_stats()["pending"]) == (1, 1)

    put(handler, "b")
    assert ids_in(log_path) == ["a", "b"]
    handler.close()


def test_flush_tries_again_within_its_budget(log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch):
    """A flush is bounded by its time, not by a number of attempts."""
    handler.queue.put(b'{"record_id":"a"')
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 8))
    waited: list[float] = []

    assert handler.drain(budget_s=1000, pause=waited.append) is True
    assert len(waited) == 8
    assert ids_in(log_path) == ["a"]


@pytest.mark.parametrize("delay", [0, 0.001])
def test_flush_never_spins_between_its_attempts(log_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float):
    """A flush may try as often as its time allows, but always with a pause: a full disk costs no processor."""
    handler = Silent(log_path, retry_delay=delay)
    handler.queue.put(b'{"record_id":"a"')
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 20))
    waited: list[float] = []

    assert handler.drain(budget_s=1000, pause=waited.append) is True
    assert min(waited) > 0
    handler.close()


def test_held_lock_ends_an_attempt_with_whoever_holds_it(log_path: Path, handler: Silent):
    """An attempt that does not get the lock says so and leaves the record waiting."""
    handler.queue.put(b'{"record_id":"a"')
    with lock_held(handler), pytest.raises(LockTimeoutError, match=f"held by pid {os.getpid()}"):
        handler.attempt(0.01)

    assert handler.get_stats()["pending"] == 1
    handler.attempt(0.01)
    assert ids_in(log_path) == ["a"]


def test_fault_is_told_at_most_once_a_minute_with_the_count(handler: Silent, monkeypatch: pytest.MonkeyPatch):
    """A log that refuses every write fills no console: one message a minute and fault, which says how many."""
    now = [1000.0]
    monkeypatch.setattr(stats.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("ai_response_logging.writer.pauses", lambda *_: iter(()))
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 9))
    put(handler, *map(str, range(5)))
    assert len(handler.told) == 1

    now[0] += 61
    put(handler, "later")

    assert len(handler.told) == 2
    assert "[1 such since the last message; 1 records wait" in handler.told[0]
    assert "[5 such since the last message; 6 records wait" in handler.told[1]
    assert "errno 28" in str(handler.get_stats()["last_error"])
    assert isinstance(handler.get_stats()["last_error_time"], float)


# --- failing appends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG])
def test_append_that_fails_part_way_is_finished_by_the_next_attempt(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch, share: float, code: int
):
    """Whatever part of a block got into the file before an error, each record stands there once afterwards."""
    put(handler, "before")
    monkeypatch.setattr(os, "write", Kernel(handler, (share, None), (0, OSError(code, "refused"))))
    with handler.batch():
        put(handler, *map(str, range(10)))

    assert ids_in(log_path) == ["before", *map(str, range(10))]
    assert_sum(handler.get_stats())
    assert not list(log_path.parent.glob("*.torn-*"))


def test_piece_that_cannot_be_cut_back_goes_aside_and_its_record_is_written_again(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """When even cutting fails, the half line is set aside by the next attempt, and nothing is glued to it."""
    cuts = []
    ftruncate = os.ftruncate

    def refuse_once(descriptor: int, size: int) -> None:
        cuts.append(size)
        if len(cuts) == 1:
            raise OSError(errno.EIO, "refused")
        ftruncate(descriptor, size)

    monkeypatch.setattr(os, "ftruncate", refuse_once)
    monkeypatch.setattr(os, "write", Kernel(handler, (0.55, None), (0, NO_SPACE)))
    with handler.batch():
        put(handler, *map(str, range(10)))

    assert ids_in(log_path) == [*map(str, range(10))]
    (torn,) = log_path.parent.glob("*.torn-*")
    assert b"\n" not in torn.read_bytes()
    assert "torn" in str(handler.get_stats()["last_error"])


def test_bytes_that_somebody_appends_without_the_lock_are_not_cut_off(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """After a failed append only our own bytes may be cut: somebody's that came behind them stay."""
    write = os.write

    def fail_after_somebody(descriptor: int, _: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        write(descriptor, b"somebody's line\n")
        raise NO_SPACE

    monkeypatch.setattr(os, "write", fail_after_somebody)
    put(handler, "a")

    first, second = log_path.read_bytes().splitlines()
    assert first == b"somebody's line"
    assert json.loads(second)["record_id"] == "a"


# --- exceptions thrown in from outside -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.97, 1])
def test_append_interrupted_at_any_byte_is_settled_by_the_next(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch, share: float
):
    """An exception thrown into an append from outside reaches the caller; each record is there once all the same."""
    put(handler, "before")
    monkeypatch.setattr(os, "write", Kernel(handler, (share, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt), handler.batch():
        put(handler, *map(str, range(10)))
    assert lock_is_free(handler)
    assert_sum(handler.get_stats())

    put(handler, "after")

    assert sorted(ids_in(log_path)) == sorted(["before", *map(str, range(10)), "after"])
    assert handler.get_stats()["accepted"] == 12
    assert_sum(handler.get_stats())


@pytest.mark.parametrize("share", [0.5, 1])
def test_interrupted_append_is_settled_also_behind_another_writers_lines(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch, share: float
):
    """What another process writes behind an interrupted append, its repair included, changes nothing about it."""
    monkeypatch.setattr(os, "write", Kernel(handler, (share, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt), handler.batch():
        put(handler, *map(str, range(10)))
    another = Silent(log_path)
    put(another, "another")
    another.close()

    put(handler, "after")

    assert_all_there_once(log_path, ["another", "after", *map(str, range(10))])


def test_interrupted_append_is_settled_also_when_the_log_was_rotated(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """An interrupted append is looked for in the file it went to, whatever that is called now."""
    monkeypatch.setattr(os, "write", Kernel(handler, (1, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        put(handler, "a")
    log_path.rename(log_path.with_name(f"{log_path.name}.1"))
    log_path.touch()

    put(handler, "b")

    assert ids_in(log_path) == ["b"]
    assert_all_there_once(log_path, "ab")


def test_interrupted_append_is_settled_also_after_a_close_that_could_not(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """Closing while another process holds the lock forgets nothing of an append that was interrupted before."""
    monkeypatch.setattr(os, "write", Kernel(handler, (1, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        put(handler, "a")
    with lock_held(handler):
        handler.close()

    put(handler, "b")

    assert ids_in(log_path) == ["a", "b"]


def test_interrupted_wait_for_the_lock_leaves_nothing_held(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C while a call waits for another process costs nothing but that wait."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with lock_held(handler):
        monkeypatch.setattr("ai_response_logging._lock.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(handler, "a")
    monkeypatch.undo()
    assert lock_is_free(handler)

    thread = threading.Thread(target=put, args=(handler, "b"))
    thread.start()
    thread.join()

    assert ids_in(log_path) == ["a", "b"]


# --- logging from inside a log call ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1000, 1])
def test_signal_handler_that_logs_in_mid_append_neither_tears_nor_hangs(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
):
    """A record from a signal handler that interrupts an append waits for it, also where the queue is full."""
    handler = Silent(log_path, queue_max_size=room)
    write = os.write

    def interrupted(descriptor: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", write)
        half = write(descriptor, data[: len(data) // 2])
        signal.raise_signal(signal.SIGUSR1)
        return half

    before = signal.signal(signal.SIGUSR1, lambda *_: put(handler, "from the signal"))
    try:
        monkeypatch.setattr(os, "write", interrupted)
        put(handler, "interrupted")
        handler.flush()
    finally:
        signal.signal(signal.SIGUSR1, before)
        handler.close()

    assert ids_in(log_path) == ["interrupted", "from the signal"]
    assert handler.get_stats()["failed"] == 0


@pytest.mark.parametrize("room", [1000, 1])
def test_signal_handler_that_logs_while_a_record_is_taken_gets_a_number_of_its_own(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
):
    """Two records of one writer never have the same number, also where one interrupts the other's taking."""
    handler = Silent(log_path, queue_max_size=room)
    seal = _queue.seal

    def interrupted(*args: Any) -> bytes:
        monkeypatch.setattr(_queue, "seal", seal)
        signal.raise_signal(signal.SIGUSR1)
        return seal(*args)

    before = signal.signal(signal.SIGUSR1, lambda *_: put(handler, "from the signal"))
    try:
        monkeypatch.setattr(_queue, "seal", interrupted)
        put(handler, "interrupted")
        handler.flush()
    finally:
        signal.signal(signal.SIGUSR1, before)
        handler.close()

    assert_all_there_once(log_path, ["interrupted", "from the signal"])
    assert sorted(one["seq"] for one in read_lines(log_path)) == [0, 1]


def test_flush_from_inside_an_append_comes_back_at_once(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """Whoever interrupts an append and flushes would wait for itself: it does not."""
    paused: list[float] = []
    monkeypatch.setattr("ai_response_logging.writer.time.sleep", paused.append)
    write = os.write

    def flushing(descriptor: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", write)
        handler.flush()
        handler.close()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", flushing)
    put(handler, "a")

    assert not paused
    assert ids_in(log_path) == ["a"]


# --- a full queue ----------------------------------------------------------------------------------------------------


def test_full_queue_and_a_held_lock_refuse_the_record_and_say_so(log_path: Path):
    """What can neither wait nor be written is counted as failed, told with its id, and not in the log later."""
    handler = Silent(log_path, queue_max_size=2, max_retries=0, lock_timeout=0.001)
    with lock_held(handler):
        put(handler, "a", "b", "c")

    snapshot = handler.get_stats()
    assert (snapshot["accepted"], snapshot["pending"], snapshot["failed"]) == (3, 2, 1)
    assert any("record c was refused" in text for text in handler.told)
    handler.close()
    assert ids_in(log_path) == ["a", "b"]


def test_full_queue_and_a_free_log_the_record_is_written_with_all_that_waits(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The record that finds no room brings everything home, and is counted as written by its caller."""
    handler = Silent(log_path, queue_max_size=2, max_retries=0)
    monkeypatch.setattr(os, "write", Kernel(handler, (0, NO_SPACE), (0, NO_SPACE)))
    put(handler, "a", "b", "c")

    snapshot = handler.get_stats()
    assert (snapshot["written"], snapshot["written_sync"], snapshot["pending"]) == (2, 1, 0)
    handler.close()
    assert ids_in(log_path) == ["a", "b", "c"]


def test_refused_record_is_withdrawn_and_never_written_later(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A record whose status says failed is nowhere, also after the disk has room again."""
    handler = Silent(log_path, queue_max_size=1, max_retries=0)
    monkeypatch.setattr(os, "write", Kernel(handler, *[(0, NO_SPACE)] * 3))
    put(handler, "waits", "refused", "refused too")
    assert handler.get_stats()["failed"] == 2

    handler.flush()

    assert ids_in(log_path) == ["waits"]
    handler.close()


def test_record_whose_line_arrived_before_the_error_counts_as_written(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What stands in the file is not called failed, even if the attempt ended in an error."""
    handler = Silent(log_path, queue_max_size=1, max_retries=0)
    write = os.write

    def whole_then_refused(descriptor: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", write)
        write(descriptor, data)
        raise AppendError(str(log_path), errno.EIO, len(data), len(data))

    put(handler, "before")
    handler.queue.put(b'{"record_id":"waits"')
    monkeypatch.setattr(os, "write", whole_then_refused)
    put(handler, "last")

    assert handler.get_stats()["failed"] == 0
    assert_sum(handler.get_stats())
    handler.close()
    assert ids_in(log_path) == ["before", "waits", "last"]


# --- files come and go -----------------------------------------------------------------------------------------------


@has_proc
def test_closed_writer_has_no_descriptor_and_opens_again_with_the_next_record(log_path: Path):
    """Closing twice is fine, and closing is no end: the next record opens what it needs."""
    before = len(os.listdir("/proc/self/fd"))
    handler = Silent(log_path)
    put(handler, "a")
    handler.close()
    handler.close()
    assert len(os.listdir("/proc/self/fd")) == before

    put(handler, "b")
    handler.close()

    assert ids_in(log_path) == ["a", "b"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_close_waits_for_an_append_in_another_thread(log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch):
    """A close never frees the lock or takes the file away under an append that is under way."""
    inside, go_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: Any) -> int:
        half = write(descriptor, data[: len(data) // 2])
        monkeypatch.setattr(os, "write", write)
        inside.set()
        go_on.wait(10)
        return half

    monkeypatch.setattr(os, "write", slow)
    thread = threading.Thread(target=put, args=(handler, "a"))
    thread.start()
    inside.wait(10)
    handler.close_files(0.01)
    assert not lock_is_free(handler)
    go_on.set()
    thread.join()

    assert ids_in(log_path) == ["a"]


def test_lock_that_cannot_be_checked_is_freed_again(log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch):
    """A fault between taking the lock and using it holds no other process up."""

    def refuse(*_: object) -> bool:
        raise OSError(errno.EIO, "refused")

    monkeypatch.setattr("ai_response_logging._lock.standing", refuse)
    put(handler, "a")
    assert handler.get_stats()["pending"] == 1
    assert lock_is_free(handler)
    monkeypatch.undo()

    put(handler, "b")
    assert ids_in(log_path) == ["a", "b"]


def test_end_of_the_log_is_read_only_where_it_is_not_as_our_last_block_left_it(
    log_path: Path, handler: Silent, monkeypatch: pytest.MonkeyPatch
):
    """What a killed writer has torn behind our last block is set aside; behind our own nothing needs to be read."""
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *where: (read.append(1), pread(*where))[1])
    put(handler, "a")
    read.clear()
    put(handler, "b")
    assert not read
    with log_path.open("ab") as torn:
        torn.write(b'{"torn":')
    put(handler, "c")

    assert read
    assert ids_in(log_path) == ["a", "b", "c"]
    (aside,) = log_path.parent.glob("*.torn-*")
    assert aside.read_bytes() == b'{"torn":'


def test_forked_state_is_forgotten(log_path: Path, handler: Silent):
    """After a fork the child has no line, no number, no file and no fault of its parent's."""
    handler.queue.put(b'{"record_id":"parent"')
    handler.faults.note("x", "parent's fault")
    writer_id = handler.queue.writer_id
    handler.turn.acquire(0)

    handler.after_fork_in_child()

    assert handler.stream is None
    assert handler.stream_lock is None
    assert handler.queue.writer_id != writer_id
    snapshot = handler.get_stats()
    assert (snapshot["accepted"], snapshot["pending"], snapshot["last_error"]) == (0, 0, None)
    put(handler, "child")
    assert [(one["record_id"], one["seq"]) for one in read_lines(log_path)] == [("child", 0)]


# --- counters --------------------------------------------------------------------------------------------------------


def test_snapshot_has_every_counter_the_promise_names(handler: Silent):
    """get_stats returns all that Snapshot declares, and nothing else."""
    assert set(handler.get_stats()) == set(Snapshot.__annotations__)


def test_records_with_replaced_values_are_counted(log_path: Path, handler: Silent):
    """What could not be encoded as it was is counted once a record, and the record is written."""
    handler.emit(record("whole"))
    handler.emit(record("replaced", bad=object(), worse=object()))

    assert handler.get_stats()["encode_errors"] == 1
    assert ids_in(log_path) == ["whole", "replaced"]


def test_snapshots_taken_under_load_always_add_up(log_path: Path):
    """Whenever a snapshot is taken, its counters are all of one instant."""
    handler = Silent(log_path, queue_max_size=3, lock_timeout=10, caller_timeout=10)
    threads = [
        threading.Thread(target=put, args=(handler, *(f"{name}-{number}" for number in range(50)))) for name in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert_sum(handler.get_stats())
    for thread in threads:
        thread.join()

    snapshot = handler.get_stats()
    assert (snapshot["accepted"], snapshot["pending"], snapshot["failed"]) == (150, 0, 0)
    handler.close()


@pytest.mark.parametrize("error", [WriteError("x"), RuntimeError("y"), RecursionError(), MemoryError()])
def test_emit_raises_nothing_whatever_goes_wrong_inside(
    handler: Silent, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    """No fault of ours reaches the application through logging."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(handler, "attempt", fail)
    put(handler, "a")

    assert handler.told
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("seconds", "before", "told"), [(0.0, "errno 28", False), (0.0, None, True), (1.0, "errno 28", True)]
)
def test_write_that_is_on_its_way_hides_no_fault_before_it(
    handler: Silent, seconds: float, before: str | None, *, told: bool
):
    """Whoever gives up in the middle of a short one is told why nothing arrives; but he is told, in any case."""
    if before:
        handler.faults.note("disk", before)
    handler._writes_since_s = time.monotonic() - seconds

    handler.note_standstill(0.05)

    handler._writes_since_s = None
    assert ("a write has not returned for" in str(handler.get_stats()["last_error"])) is told
    assert len(handler.told) == told
