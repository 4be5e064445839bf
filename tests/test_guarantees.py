"""
Guarantees that no other test holds on its own; `.ci/mutants.py` breaks the line behind each and expects a failure here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, read_lines, run_child

from ai_response_logging import AIResponseHandler
from ai_response_logging._compress import compress_steps
from ai_response_logging._journal_format import journal_directory
from ai_response_logging.writer import BatchFileHandler

OPTIONS: dict[str, Any] = {
    "durability": "memory",
    "max_retries": 0,
    "retry_delay": 0.001,
    "lock_timeout": 0.05,
    "close_timeout": 0.1,
}


class Program(BatchFileHandler):
    """What one program has of a writer, and its death."""

    def __init__(self, log: Path, **options: Any) -> None:
        self.told: list[str] = []
        super().__init__(log, **{**OPTIONS, **options})

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append(record.getMessage())

    def queue_up(self, *ids: str) -> None:
        """Let records wait."""
        for one in ids:
            assert self.queue.put(self.prepare(record(one)).body)

    def die(self) -> None:
        """Let go of every descriptor, and so of every lock, as the kernel does for a process that is killed."""
        self._drop_descriptors()
        if self.queue.journal is not None:
            self.queue.journal.close()
        self.queue.renew()

    def replay_all(self) -> None:
        """Bring home what writers that are gone have left."""
        self.replay(lambda: False, 1.0)


@pytest.fixture
def program(log_path: Path) -> Iterator[Callable[..., Program]]:
    """Begin programs on the log that end with the test."""
    with contextlib.ExitStack() as ends:

        def begin(**options: Any) -> Program:
            begun = Program(log_path, **options)
            ends.callback(begun.close)
            return begun

        yield begin


def record(record_id: str, **attributes: Any) -> logging.LogRecord:
    """Make a record to log."""
    return logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": "x" * 50, **attributes})


def ids_in(file: Path) -> list[str]:
    """Return the records of one file, in its order."""
    return [one["record_id"] for one in read_lines(file)]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let an append be killed when *share* of its block has arrived."""
    write = os.write

    def killed(descriptor: int, data: Any) -> int:
        write(descriptor, data[: int(len(data) * share)])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", killed)


def fill_disk_after(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let the disk be full when *share* of the next block has arrived."""
    write, taken = os.write, []

    def full(descriptor: int, data: Any) -> int:
        if taken:
            raise OSError(errno.ENOSPC, "full")
        taken.append(write(descriptor, data[: int(len(data) * share)]))
        return taken[0]

    monkeypatch.setattr(os, "write", full)


# --- one record, one line


def test_record_that_passes_two_handlers_on_one_file_stands_there_once(log_path: Path):
    """A handler on the logger and one on the logger that it propagates to, both on one file: still one record."""
    upper, lower = logging.getLogger("ai_responses"), logging.getLogger("ai_responses.below")
    handlers = [AIResponseHandler(log_path, durability="memory") for _ in range(2)]
    try:
        for logger, handler in zip((upper, lower), handlers, strict=True):
            logger.addHandler(handler)
        lower.warning("m", extra={"record_id": "a"})
        lower.warning("m", extra={"record_id": "b"})
    finally:
        lower.removeHandler(handlers[1])
        for handler in handlers:
            handler.close()

    assert ids_in(log_path) == ["a", "b"]


@pytest.mark.slow
def test_program_that_just_ends_behind_somebodys_dict_config_has_its_records(log_path: Path):
    """A dictConfig takes our handler off the list that `logging` closes at the end: our own exit hook sees to it."""
    run_child(
        """
        import logging, logging.config, sys
        from ai_response_logging import AIResponseHandler

        logger = logging.getLogger("ai_responses")
        logger.addHandler(AIResponseHandler(sys.argv[1], durability="memory"))
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        for name in "abc":
            logger.warning("m", extra={"record_id": name})
        """,
        log_path,
    )

    assert ids_in(log_path) == ["a", "b", "c"]


def test_record_that_neither_waits_nor_is_written_says_failed_and_is_counted_so(
    program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
):
    """Where the queue is full and the disk too, the status and the counters say the same: nowhere."""
    writer = program(queue_max_size=1)
    writer.queue_up("waits")
    refused = writer.prepare(record("refused"))
    with monkeypatch.context() as full:
        fill_disk_after(full, 0)
        writer.write_now(refused, 0.05, outcome="written_sync")

    snapshot = writer.get_stats()
    assert refused.status == "failed"
    assert (snapshot["accepted"], snapshot["pending"], snapshot["failed"], snapshot["written_sync"]) == (2, 1, 1, 0)


# --- what a log refuses to the end comes home with the next program


def test_lines_that_a_program_left_in_its_journal_come_home_once(log_path: Path, program: Callable[..., Program]):
    """What a writer could not bring home stands in a journal, and the next writer brings it home, each line once."""
    first = program()
    first.queue_up("a", "b", "c")
    assert first.stash() == 0
    first.die()

    for _ in range(2):
        program().replay_all()

    assert ids_in(log_path) == ["a", "b", "c"]
    assert not Path(journal_directory(str(log_path))).exists()


def test_lines_brought_home_for_others_are_counted_as_replayed_alone(log_path: Path, program: Callable[..., Program]):
    """Another writer's lines are in `replayed` and not in `accepted`, so that the sum goes on to hold."""
    first = program()
    first.queue_up("a", "b")
    first.stash()
    first.die()

    second = program()
    second.replay_all()

    snapshot = second.get_stats()
    assert (snapshot["replayed"], snapshot["accepted"], snapshot["written"]) == (2, 0, 0)
    assert_all_there_once(log_path, "ab")


def test_journal_of_a_living_writer_is_left_to_it(log_path: Path, program: Callable[..., Program]):
    """Nobody adopts the lines of a writer that lives: it brings them home itself, and they would stand twice."""
    living = program()
    living.queue_up("a", "b")
    living.stash()

    program().replay_all()
    assert ids_in(log_path) == []

    assert living.drain()
    assert ids_in(log_path) == ["a", "b"]


def test_lines_that_came_home_after_all_are_gone_from_the_journal(log_path: Path, program: Callable[..., Program]):
    """A writer that brings home what it had put into its journal leaves nothing there for others to write again."""
    first = program()
    first.queue_up("a", "b")
    first.stash()
    assert first.drain()
    first.die()

    program().replay_all()

    assert ids_in(log_path) == ["a", "b"]


def test_lines_that_came_home_in_part_leave_the_rest_alone_in_the_journal(
    log_path: Path, program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
):
    """Of a journal whose first lines have arrived the next writer brings home the others, and only those."""
    first = program()
    first.queue_up("a", "b", "c")
    first.stash()
    with monkeypatch.context() as refusing:
        fill_disk_after(refusing, 0.5)
        assert not first.drain()
    assert ids_in(log_path) == ["a"]
    first.die()

    program().replay_all()

    assert ids_in(log_path) == ["a", "b", "c"]


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_writer_killed_in_an_append_of_journalled_lines_the_bytes_decide(
    log_path: Path, program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, share: float
):
    """However much of a block had arrived when its writer died, who adopts the journal writes only what is missing."""
    first = program()
    first.queue_up("a", "b", "c")
    first.stash()
    with monkeypatch.context() as killing:
        interrupt_at(killing, share)
        with pytest.raises(KeyboardInterrupt):
            first.drain()
    first.die()

    program().replay_all()

    assert_all_there_once(log_path, "abc")


def test_adopter_killed_in_its_append_is_settled_by_the_next(
    log_path: Path, program: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
):
    """A replay that is killed after its bytes have arrived is not repeated by the next one."""
    first = program()
    first.queue_up("a", "b")
    first.stash()
    first.die()
    second = program()
    with monkeypatch.context() as killing:
        interrupt_at(killing, 1)
        with pytest.raises(KeyboardInterrupt):
            second.replay_all()
    second.die()

    program().replay_all()

    assert ids_in(log_path) == ["a", "b"]


@pytest.mark.slow
def test_program_that_ends_under_a_strangers_lock_leaves_its_records_to_the_next(
    log_path: Path, program: Callable[..., Program]
):
    """A normal end within `close_timeout` loses nothing, also at `memory` and while somebody holds the lock."""
    second = program()
    with open(second.lockFilename, "a") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        run_child(
            """
            import logging, sys
            from ai_response_logging import AIResponseHandler

            handler = AIResponseHandler(sys.argv[1], durability="memory", close_timeout=0.1, lock_timeout=0.05)
            logger = logging.getLogger("ai_responses")
            logger.addHandler(handler)
            for name in "abc":
                logger.warning("m", extra={"record_id": name})
            """,
            log_path,
        )

    second.replay_all()

    assert_all_there_once(log_path, "abc")


# --- compression


def test_plain_file_goes_only_when_the_compressed_one_is_synced_and_has_its_name(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A loss of power or a kill at any step finds the records in the plain file or in the whole compressed one."""
    file, done = log_path.with_name(f"{log_path.name}.20260101T000000.000000Z"), []
    file.write_bytes(b"x" * 1000)
    for name in ("fsync", "rename", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda target, *more, real=real, name=name: (done.append((name, target)), real(target, *more))[1]
        )

    list(compress_steps(str(file), 0o600))

    steps = [name for name, target in done if name != "unlink" or target == str(file)]
    assert steps[:2] == ["fsync", "rename"]
    assert steps.index("unlink") > 1


# --- the lock


@pytest.mark.parametrize("again", [True, False], ids=["made anew", "gone"])
def test_lock_file_that_somebody_removed_is_taken_anew_by_the_next_write(
    log_path: Path, program: Callable[..., Program], again: bool
):
    """A lock on a file that others do not find protects nothing: the next write locks the one that stands there."""
    writer = program()
    writer.emit(record("a"))
    lock = Path(writer.lockFilename)
    lock.unlink()
    if again:
        lock.touch()

    writer.emit(record("b"))

    assert writer.stream_lock is not None
    assert os.fstat(writer.stream_lock.fileno()).st_ino == lock.stat().st_ino
    assert ids_in(log_path) == ["a", "b"]
