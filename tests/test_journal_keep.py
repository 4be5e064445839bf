"""What the journal stores in the call that logs it: `keep`, `keep_each`, spilling, its place and size."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import has_fork, read_lines

from ai_response_logging import AIResponseHandler, _append, _journal, _lock
from ai_response_logging._adopt import Orphan, orphans
from ai_response_logging._journal import Journal
from ai_response_logging._journal_find import journal_directories
from ai_response_logging._journal_format import (
    Intent,
    location_file,
    own_directory,
    segment_name,
    segments_among,
    seq_of,
    whole_lines,
)
from ai_response_logging._journal_place import note_location
from ai_response_logging._options import Options
from ai_response_logging._queue import LineQueue
from ai_response_logging.errors import LogPathError
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
QUIET: dict[str, Any] = {"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.001}


def lines_of(count: int, first_seq: int = 0, size: int = 10) -> list[bytes]:
    """Return finished lines, numbered from *first_seq* on."""
    fill = b"x" * size
    return [seal(b'{"response":"%b"' % fill, tail_of(WRITER), seq) for seq in range(first_seq, first_seq + count)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the journals are to be."""
    return tmp_path / "a.jsonl.journal"


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    """Make a journal that is ready to keep lines."""
    made = Journal(str(directory), WRITER, Options.checked({"journal_max_bytes": 4 << 20}))
    made.begin(0)
    yield made
    made.close()


def keep(journal: Journal, lines: list[bytes]) -> None:
    """Store *lines* one by one."""
    for line in lines:
        journal.keep(line, seq_of(line))


def found_in(directory: Path) -> list[bytes]:
    """Return what an adopter would bring home, and leave it there."""
    with contextlib.closing(orphans(str(directory), 0o600)) as found:
        orphan: Orphan = next(found)
        return orphan.first(1_000_000)


def stored(directory: Path, writer: str = WRITER) -> list[list[bytes]]:
    """Return the lines that count in each segment."""
    segments = segments_among(os.listdir(directory), writer)
    return [[one.line for one in whole_lines((directory / name).read_bytes(), writer, seq)] for seq, name in segments]


def record(record_id: str, size: int = 50) -> logging.LogRecord:
    """Make a record to log."""
    return logging.makeLogRecord({"msg": "m", "record_id": record_id, "response": "x" * size})


def ids_in(file: Path) -> list[str]:
    """Return the records of one file, in its order."""
    return [one["record_id"] for one in read_lines(file)]


# --- one line, one store -------------------------------------------------------------------------------------------


def test_line_is_on_disk_when_keep_returns(journal: Journal, directory: Path):
    """Each line stands whole in the kernel at once, behind those before it, in space that is reserved."""
    for count, line in enumerate(lines_of(5), 1):
        journal.keep(line, seq_of(line))
        assert stored(directory) == [lines_of(count)]

    (_, name), *others = segments_among(os.listdir(directory), WRITER)
    assert others == []
    assert (directory / name).stat().st_size == _journal.SEGMENT_BYTES


def test_store_is_one_call_and_nothing_else_once_a_segment_is_open(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """A line costs one write: no open, no lock, no sync."""
    written: list[tuple[int, int]] = []

    def pwrite(_descriptor: int, _line: bytes, size: int, position: int) -> int:
        written.append((position, size))
        return size

    journal._pwrite = pwrite
    monkeypatch.setattr(_journal.os, "pwrite", None)
    monkeypatch.setattr(_journal, "open_regular", None)
    lines = lines_of(3)
    keep(journal, lines)

    size = len(lines[0])
    assert written == [(0, size), (size, size), (2 * size, size)]


def test_segments_are_used_again_and_old_lines_in_them_do_not_count(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """A writer that runs for long needs no more room than what waits, and never finds what was there before."""
    monkeypatch.setattr(_journal, "SEGMENT_BYTES", 5 * len(lines_of(1)[0]) + 5)
    inodes: set[int] = set()
    for first_seq in range(0, 200, 4):
        keep(journal, lines_of(4, first_seq))
        journal.mark(first_seq, None)
        inodes |= {path.stat().st_ino for path in directory.glob("*.jsonl")}
        waiting = [line for line in found_after(directory) if seq_of(line) >= first_seq]
        assert waiting == lines_of(4, first_seq)

    assert len(inodes) <= 5


def found_after(directory: Path) -> list[bytes]:
    """Return all lines that count in any segment, in order."""
    return sorted((line for segment in stored(directory) for line in segment), key=seq_of)


def test_line_stored_again_after_an_interruption_stands_there_once(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C behind the write, before it is noted: the same line goes to the same place once more."""
    write = journal._write

    def interrupted(line: bytes, size: int) -> bool:
        write(line, size)
        raise KeyboardInterrupt

    first, second, third = lines_of(3)
    journal.keep(first, 0)
    monkeypatch.setattr(journal, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.keep(second, 1)
    monkeypatch.undo()
    keep(journal, [second, third])

    assert stored(directory) == [[first, second, third]]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_something_else_in_a_segments_place_is_not_written_to(journal: Journal, directory: Path, kind: str):
    """Whatever stands where the next segment is to be is left as it is, and the line is not called kept."""
    keep(journal, lines_of(2))
    place, victim = directory / segment_name(WRITER, 9), directory.parent / "victim"
    victim.write_bytes(b"precious")
    {"link": lambda: place.symlink_to(victim), "fifo": lambda: os.mkfifo(place), "directory": place.mkdir}[kind]()

    with pytest.raises(LogPathError):
        journal.keep(lines_of(1, 9)[0], 9)

    assert victim.read_bytes() == b"precious"
    assert journal.next_seq == 2
    stored = whole_lines((directory / segment_name(WRITER, 0)).read_bytes(), WRITER, 0)
    assert [one.line for one in stored] == lines_of(2)
    journal.keep(lines_of(1, 2)[0], 2)
    assert journal.next_seq == 3


@pytest.mark.parametrize("nested", [1, 40])
def test_signal_handler_that_logs_in_the_middle_of_a_store_loses_nothing(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch, nested: int
):
    """A handler that stores the line it interrupts, and its own behind it, also into another segment, keeps all."""
    monkeypatch.setattr(_journal, "SEGMENT_BYTES", 20 * len(lines_of(1)[0]))
    lines, write = lines_of(nested + 3), journal._write

    def interrupted(line: bytes, size: int) -> bool:
        monkeypatch.setattr(journal, "_write", write)
        keep(journal, lines[1 : nested + 2])
        return write(line, size)

    journal.keep(lines[0], 0)
    monkeypatch.setattr(journal, "_write", interrupted)
    journal.keep(lines[1], 1)
    keep(journal, lines[nested + 2 :])
    journal.close()

    assert found_in(directory) == lines


def test_gap_in_the_numbers_costs_none_of_those_behind_it(journal: Journal, directory: Path):
    """A record that was written without a store, because the journal was full, ends nobody's segment."""
    keep(journal, [*lines_of(2), *lines_of(2, 5)])
    journal.close()

    assert found_in(directory) == [*lines_of(2), *lines_of(2, 5)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_segment_that_takes_no_more_is_followed_by_another(journal: Journal, directory: Path, number: int):
    """The limit may be the file's own, so the line is tried once more in another."""
    real = journal._pwrite

    def limited(descriptor: int, line: bytes, size: int, position: int) -> int:
        if position:
            raise OSError(number, os.strerror(number))
        return real(descriptor, line, size, position)

    journal._pwrite = limited
    keep(journal, lines_of(3))

    assert stored(directory) == [[line] for line in lines_of(3)]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_store_that_the_disk_refuses_is_an_error(journal: Journal, directory: Path, number: int):
    """What is not stored is not called kept, and is stored when the disk takes it again."""
    real = journal._pwrite

    def refusing(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    journal._pwrite = refusing
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        journal.keep(lines_of(1)[0], 0)
    assert caught.value.errno == number
    assert journal.next_seq == 0

    journal._pwrite = real
    keep(journal, lines_of(2))
    assert stored(directory) == [lines_of(2)]


def test_store_that_a_signal_interrupts_is_made_all_the_same(journal: Journal, directory: Path):
    """Only on some file systems does a signal end a write; a journal is not given up for it."""

    def interrupted(*_: Any) -> int:
        ctypes.set_errno(errno.EINTR)
        return -1

    journal._pwrite = interrupted
    keep(journal, lines_of(2))

    assert stored(directory) == [lines_of(2)]


def test_real_write_that_fails_says_what_the_kernel_said(journal: Journal):
    """The call that keeps the interpreter lock reports errors as any other."""
    journal.keep(lines_of(1)[0], 0)
    reading, journal._descriptor = os.pipe()

    with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
        journal.keep(lines_of(1, 1)[0], 1)
    os.close(reading)
    os.close(journal._descriptor)


def test_disk_that_makes_two_stores_wait_does_not_hold_the_other_threads_next_time(journal: Journal, directory: Path):
    """After two slow stores in a row the next gives the interpreter lock up; the lines are the same."""
    now_s, slow = [0.0], [0.002, 0.0, 0.002, 0.002, 0.0]
    calls: list[str] = []
    real_pwrite, real = os.pwrite, journal._pwrite

    def quick(*args: Any) -> int:
        calls.append("holding")
        now_s[0] += slow.pop(0)
        return real(*args)

    def outside(*args: Any) -> int:
        calls.append("outside")
        return real_pwrite(*args)

    journal._pwrite = quick
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_journal.time, "perf_counter", lambda: now_s[0])
        patch.setattr(_journal.os, "pwrite", outside)
        for line in lines_of(7):
            journal.keep(line, seq_of(line))
            now_s[0] += 0.04

    assert calls == ["holding"] * 4 + ["outside"] * 2 + ["holding"]
    assert stored(directory) == [lines_of(7)]


def test_journal_is_bounded_and_says_so(journal: Journal):
    """Beyond journal_max_bytes there is no room, until what is there has arrived."""
    line = len(lines_of(1, size=100_000)[0])
    count = 0
    while journal.has_room(line):
        journal.keep(lines_of(1, count, size=100_000)[0], count)
        count += 1

    assert 30 <= count <= 41
    assert journal.size <= 4 << 20
    journal.mark(count, None)
    assert journal.has_room(line)


def test_line_of_many_mebibytes_counts_with_all_its_bytes(journal: Journal):
    """A single large record fills the journal as many small ones do."""
    assert journal.has_room(2 << 20)
    assert not journal.has_room(4 << 20)
    keep(journal, [*lines_of(1), *lines_of(1, 1, size=2 << 20)])
    assert not journal.has_room(1 << 20)


def test_removal_takes_what_an_interrupted_store_left(journal: Journal, directory: Path):
    """Nothing of a journal stays that has come home, whatever was being made of it."""
    keep(journal, lines_of(2))
    (directory / f"{WRITER}.000000000777.jsonl").touch()
    journal.mark(2, None)
    journal.remove()

    assert not directory.exists()


@has_fork
def test_child_closes_its_copy_and_the_parents_goes_on(journal: Journal, directory: Path):
    """A forked child neither writes to the journal nor keeps it locked."""
    journal.keep(lines_of(1)[0], 0)
    pid = os.fork()
    if not pid:  # pragma: no cover  in the child
        try:
            journal.keep(lines_of(2)[1], 1)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    journal.keep(lines_of(2)[1], 1)

    assert stored(directory) == [lines_of(2)]


# --- the queue stores each line ------------------------------------------------------------------------------------


@pytest.fixture
def queue(directory: Path) -> Iterator[LineQueue]:
    """Return a queue that keeps each line."""
    made = LineQueue()
    made.keep_each(maker(directory))
    yield made
    if made.journal is not None:
        made.journal.close()


def maker(directory: Path, **options: Any) -> Callable[[str], Journal]:
    """Return what makes a journal for a writer."""
    return lambda writer_id: Journal(str(directory), writer_id, Options.checked(options))


def put(queue: LineQueue, *names: str) -> list[bytes]:
    """Put records and return their lines."""
    lines = [queue.put(b'{"record_id":"%b"' % name.encode()) for name in names]
    assert None not in lines
    return [line for line in lines if line is not None]


def in_journal(queue: LineQueue, directory: Path) -> list[bytes]:
    """Return the lines that a kill at this moment would leave."""
    return [line for segment in stored(directory, queue.writer_id) for line in segment]


def test_put_returns_when_the_line_is_in_the_journal(queue: LineQueue, directory: Path):
    """No record waits in memory alone."""
    lines = put(queue, "one", "two", "three")

    assert in_journal(queue, directory) == lines
    assert queue.stash(maker(directory)) == 0


def test_what_waited_before_the_journal_was_there_is_stored_as_well(directory: Path):
    """A journal that comes late, in a child or after a fault, has all that waits."""
    late = LineQueue()
    lines = put(late, "one", "two")
    late.keep_each(maker(directory))
    lines += put(late, "three")

    assert in_journal(late, directory) == lines
    late.consume(3)
    late.drop_journal()
    assert not directory.exists()


def test_lines_that_arrived_before_the_journal_was_there_leave_no_gap_behind(directory: Path):
    """A journal that begins in the middle of a writer's life begins with the number that comes."""
    late = LineQueue()
    put(late, "one", "two")
    late.consume(2)
    late.keep_each(maker(directory))
    lines = put(late, "three")

    assert in_journal(late, directory) == lines
    late.consume(1)
    late.drop_journal()


def test_line_whose_store_was_interrupted_is_stored_with_the_next(
    queue: LineQueue, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C in the middle of a call: its record is taken, and in the journal before the next call returns."""
    first = put(queue, "one")
    keeper = queue.keeper
    assert keeper is not None

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keeper, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(queue, "two")
    monkeypatch.undo()
    third = put(queue, "three")

    assert queue.qsize() == 3
    assert in_journal(queue, directory) == [*first, *queue.first(3)[1:2], *third]


def test_journal_that_fails_lets_records_go_on_in_memory_and_comes_back(queue: LineQueue, directory: Path):
    """A store that the disk refuses costs no record; when it takes them again all that waits is stored."""
    keeper = queue.keeper
    assert keeper is not None
    real = keeper._pwrite

    def refusing(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    lines = put(queue, "one")
    keeper._pwrite = refusing
    lines += put(queue, "two", "three")
    assert (queue.keeper, queue.qsize()) == (None, 3)
    assert isinstance(queue.journal_error, OSError)
    keeper._pwrite = real
    queue.keep_each(maker(directory))
    lines += put(queue, "four")

    assert queue.journal_error is None
    assert in_journal(queue, directory) == lines


def test_journal_that_somebody_removed_is_replaced(queue: LineQueue, directory: Path):
    """A journal that is deleted under a living writer is made anew, with all that waits."""
    lines = put(queue, "one")
    assert queue.keeper is not None
    for path in directory.iterdir():
        path.unlink()
    assert queue.keeper.is_gone()
    queue.keep_each(maker(directory))
    lines += put(queue, "two")

    assert in_journal(queue, directory) == lines


def test_lines_that_arrived_are_forgotten_and_the_journal_stays(queue: LineQueue, directory: Path):
    """A writer that goes on keeps its journal; one that ends with nothing waiting leaves none."""
    put(queue, "one", "two")
    queue.consume(2)
    assert queue.keeper is not None
    assert directory.exists()
    put(queue, "three")
    queue.drop_journal()
    assert directory.exists(), "one waits"
    queue.consume(1)
    queue.drop_journal()

    assert not directory.exists()


def test_full_journal_is_a_full_queue(directory: Path):
    """Where the journal has no room the queue has none, and a record that is put all the same is not stored."""
    queue = LineQueue()
    queue.keep_each(maker(directory, journal_max_bytes=1 << 20))
    big = b'{"x":"%b"' % (b"x" * 300_000)
    kept = [queue.put(big) for _ in range(4)]
    assert [line is None for line in kept] == [False, False, False, True]

    forced = queue.put(big, force=True)
    assert forced is not None
    assert in_journal(queue, directory) == kept[:3]
    queue.consume(4)
    queue.drop_journal()


def test_marks_that_the_disk_refuses_give_the_journal_up_and_the_log_goes_on(queue: LineQueue, directory: Path):
    """Without marks an adopter would double what arrived: the journal goes, the records stay and are written."""
    keeper = queue.keeper
    assert keeper is not None
    put(queue, "one")

    def refusing(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keeper.mark = refusing  # type: ignore[method-assign]
    queue.note(Intent(1, 2, 0, 1, 0))

    assert (queue.keeper, queue.journal, queue.qsize()) == (None, None, 1)
    assert isinstance(queue.journal_error, OSError)
    assert not directory.exists()


def test_journal_that_takes_no_marks_and_cannot_be_removed_does_not_hold_up_the_log(queue: LineQueue):
    """Its disk is dead and the log's is not: records go to the log, and the journal is tried again with each block."""
    keeper, tried = queue.keeper, []
    assert keeper is not None
    put(queue, "one")

    def refusing(*_: Any) -> None:
        tried.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keeper.mark = keeper.remove = refusing  # type: ignore[method-assign]
    queue.note(Intent(1, 2, 0, 1, 0))
    queue.note(Intent(1, 2, 0, 1, 0))

    assert (queue.keeper, queue.journal, queue.qsize(), len(tried)) == (None, keeper, 1, 4)
    assert isinstance(queue.journal_error, OSError)


def test_threads_that_log_while_the_journal_is_opened_are_all_kept(directory: Path):
    """A journal that is made under load has every line, each once."""
    queue = LineQueue(max_size=100_000)
    begun = threading.Barrier(5)

    def log(number: int) -> None:
        begun.wait()
        put(queue, *(f"{number}-{count}" for count in range(300)))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    queue.keep_each(maker(directory))
    for thread in threads:
        thread.join()
    assert queue.keeper is not None

    assert in_journal(queue, directory) == queue.first(1200)
    queue.consume(1200)
    queue.drop_journal()


# --- the handler ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(handler: AIResponseHandler) -> Iterator[None]:
    """Hold the log's lock as another process does."""
    with Path(handler._pipeline.writer.lockFilename).open("rb+", buffering=0) as lock:
        assert _lock.try_acquire(lock)  # type: ignore[arg-type]
        yield


def assert_sums(handler: AIResponseHandler) -> None:
    """Assert that the counters add up."""
    found = handler.get_stats()
    assert found["accepted"] == found["written"] + found["written_sync"] + found["pending"] + found["failed"]


def test_record_that_the_log_refuses_while_the_queue_is_full_spills_and_comes_home(log_path: Path):
    """A full queue and a log that is locked: the record is in the journal, and in the log when the lock is free."""
    handler = AIResponseHandler(log_path, **QUIET, queue_max_size=2, caller_timeout=0.01, lock_timeout=0.01)
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        with locked(handler):
            statuses = [handler.submit(record(f"r{number}")) for number in range(5)]
            assert statuses == ["queued"] * 2 + ["spilled"] * 3
            assert handler.get_stats()["spilled"] == 3
            assert_sums(handler)
        assert handler.flush(10)
    finally:
        logging.raiseExceptions = before
        handler.close()

    assert ids_in(log_path) == [f"r{number}" for number in range(5)]
    assert_sums(handler)
    assert not Path(f"{log_path}.journal").exists()


def test_record_that_finds_the_queue_full_and_another_thread_at_the_log_spills(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A caller whose turn does not come in time leaves its record in the journal, too."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = AIResponseHandler(log_path, **QUIET, queue_max_size=1, caller_timeout=0.01)
    writes, may_go_on = threading.Event(), threading.Event()

    def write() -> None:
        turn = handler._pipeline.writer.turn
        assert turn.acquire(10)
        writes.set()
        may_go_on.wait(10)
        turn.free()

    other = threading.Thread(target=write)
    other.start()
    assert writes.wait(10)
    statuses = [handler.submit(record(f"r{number}")) for number in range(3)]
    assert_sums(handler)
    may_go_on.set()
    other.join()
    assert handler.flush(10)
    handler.close()

    assert statuses == ["queued", "spilled", "spilled"]
    assert ids_in(log_path) == ["r0", "r1", "r2"]


def test_record_that_nothing_can_hold_is_failed(log_path: Path):
    """Queue full, journal full, log refusing: then, and only then, it is refused."""
    handler = AIResponseHandler(
        log_path, **QUIET, queue_max_size=1, caller_timeout=0.01, lock_timeout=0.01, journal_max_bytes=1 << 20
    )
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        with locked(handler):
            statuses = [handler.submit(record(f"r{number}", size=200_000)) for number in range(8)]
            assert statuses == ["queued"] + ["spilled"] * 4 + ["failed"] * 3
            assert_sums(handler)
        assert handler.flush(10)
    finally:
        logging.raiseExceptions = before
        handler.close()

    assert ids_in(log_path) == [f"r{number}" for number in range(5)]


def test_block_of_which_nobody_knows_whether_it_arrived_does_not_let_the_queue_grow(log_path: Path):
    """A log that cannot even be read (a shut-down xfs) refuses what is behind the block in question, as any other."""
    handler = AIResponseHandler(
        log_path, **QUIET, queue_max_size=1, caller_timeout=0.01, lock_timeout=0.01, journal_max_bytes=1 << 20
    )
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        first = handler.submit(record("r0", size=200_000))
        handler._pipeline.queue.note(Intent(0, 0, 0, 1, 0))
        with locked(handler):
            statuses = [first, *(handler.submit(record(f"r{number}", size=200_000)) for number in range(1, 8))]
            assert statuses == ["queued"] + ["spilled"] * 4 + ["failed"] * 3
            assert_sums(handler)
        assert handler.flush(10)
    finally:
        logging.raiseExceptions = before
        handler.close()

    assert ids_in(log_path) == [f"r{number}" for number in range(5)]


def test_full_journal_is_written_by_the_caller_while_the_log_takes_it(log_path: Path):
    """A journal that is full costs latency, not the record."""
    handler = AIResponseHandler(log_path, **QUIET, journal_max_bytes=1 << 20)
    statuses = [handler.submit(record(f"r{number}", size=300_000)) for number in range(5)]
    handler.close()

    assert statuses[:4] == ["queued", "queued", "queued", "written_sync"]
    assert ids_in(log_path) == [f"r{number}" for number in range(5)]


def test_record_of_a_signal_handler_amid_the_write_of_a_full_queue_is_in_the_full_journal(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The write that it interrupts may never go on: a kill behind its call must not lose it, whatever the limit."""
    handler = AIResponseHandler(log_path, **QUIET, journal_max_bytes=1 << 20)
    for number in range(3):
        handler.submit(record(f"r{number}", size=300_000))
    real, stored = _append.append_block, []

    def append_block(*args: Any, **options: Any) -> None:
        monkeypatch.undo()
        assert handler.submit(record("inside", size=300_000)) == "queued"
        stored.extend(one for one in Path(f"{log_path}.journal").glob("*.jsonl") if b'"inside"' in one.read_bytes())
        real(*args, **options)

    monkeypatch.setattr(_append, "append_block", append_block)
    assert handler.submit(record("r3", size=300_000)) == "written_sync"
    handler.close()

    assert stored
    assert sorted(ids_in(log_path)) == ["inside", "r0", "r1", "r2", "r3"]


def test_journal_that_is_nearly_full_is_told_once(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Long before calls have to write themselves somebody reads how much waits, of how much, and what comes then."""
    told: list[str] = []
    monkeypatch.setattr(AIResponseHandler, "handleError", lambda _, record: told.append(record.getMessage()))
    handler = AIResponseHandler(log_path, journal_max_bytes=4 << 20, **QUIET)
    with locked(handler):
        for number in range(30):
            handler.submit(record(str(number), size=100_000))
        assert handler.flush(0.01) is False
        assert handler.flush(0.01) is False
        nearly = [one for one in told if "journal_max_bytes" in one]
    handler.close()

    assert len(nearly) == 1
    assert f"{log_path}: 30 records wait, and their journal has {3 << 20} of the {4 << 20} bytes" in nearly[0]


def test_small_journal_in_which_nothing_waits_is_not_told_of(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is only reserved, of which the smallest journal is full from the start, is nobody's concern."""
    told: list[str] = []
    monkeypatch.setattr(AIResponseHandler, "handleError", lambda _, record: told.append(record.getMessage()))
    handler = AIResponseHandler(log_path, journal_max_bytes=1 << 20, **QUIET)
    for number in range(6):
        handler.submit(record(str(number), size=300_000))
        assert handler.flush()
    handler.close()

    assert told == []
    assert handler.get_stats()["last_error"] is None


def test_handler_closed_and_used_again_keeps_again(log_path: Path):
    """A close is a drain: it leaves no journal, and the next record is in one when its call returns."""
    handler = AIResponseHandler(log_path, **QUIET)
    journals = Path(f"{log_path}.journal")
    handler.submit(record("one"))
    handler.close()
    assert not journals.exists()
    handler.submit(record("two"))
    queue = handler._pipeline.queue

    assert len(in_journal(queue, journals)) == 1
    handler.close()
    assert ids_in(log_path) == ["one", "two"]


def test_record_that_comes_while_another_thread_removes_the_journal_is_taken(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A close removes the journal between a call's two looks at it: the call makes another, and refuses nothing."""
    handler = AIResponseHandler(log_path, **QUIET)
    queue, identity = handler._pipeline.queue, _lock.identity

    def removed_then(file: Any) -> tuple[int, int]:
        found = identity(file)
        monkeypatch.undo()
        queue.drop_journal()
        return found

    monkeypatch.setattr(_lock, "identity", removed_then)
    assert handler.submit(record("one")) == "queued"
    assert len(in_journal(queue, Path(f"{log_path}.journal"))) == 1
    handler.close()

    assert ids_in(log_path) == ["one"]


def test_memory_makes_no_journal(log_path: Path):
    """Who asks for memory pays for memory."""
    handler = AIResponseHandler(log_path, **QUIET, durability="memory")
    handler.submit(record("one"))
    assert not Path(f"{log_path}.journal").exists()
    assert handler.get_stats()["durability"] == "memory"
    handler.close()


def test_journal_that_fails_later_is_told_once_and_in_the_counters(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A journal's disk that dies is said through logging's error handling, once, and get_stats() is honest."""
    told: list[str] = []
    handler = AIResponseHandler(log_path, **QUIET)
    monkeypatch.setattr(handler, "handleError", lambda one: told.append(one.getMessage()))
    keeper = handler._pipeline.queue.keeper
    assert keeper is not None

    def refusing(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keeper._pwrite = refusing
    monkeypatch.setattr(_journal, "new_lock", refusing)  # nor can there be another
    for number in range(3):
        assert handler.submit(record(f"r{number}")) == "queued"
        assert handler.flush()

    assert handler.get_stats()["durability"] == "memory"
    assert len(told) == 1
    assert "acts as 'memory'" in told[0]
    handler.close()
    assert ids_in(log_path) == ["r0", "r1", "r2"]


# --- another directory ---------------------------------------------------------------------------------------------


def test_journal_directory_holds_the_journal_and_the_log_says_where(log_path: Path, tmp_path: Path):
    """The journal lies where it was asked for, and a file beside the log leads there."""
    elsewhere = tmp_path / "elsewhere"
    handler = AIResponseHandler(log_path, **QUIET, journal_directory=elsewhere)
    handler.submit(record("one"))
    own = Path(own_directory(str(log_path), str(elsewhere)))

    assert own.parent == elsewhere
    assert len(in_journal(handler._pipeline.queue, own)) == 1
    assert journal_directories(str(log_path)) == [f"{log_path}.journal", str(own)]
    handler.close()
    assert not own.exists()


def test_journal_elsewhere_is_brought_home_by_who_knows_nothing_of_it(log_path: Path, tmp_path: Path):
    """A program without the option follows the note and brings the lines home, once."""
    options = Options.checked({"journal_directory": tmp_path / "elsewhere"})
    note_location(str(log_path), options)
    gone = Journal(own_directory(str(log_path), options.journal_directory), WRITER, options)
    line = seal(b'{"record_id":"one"', tail_of(WRITER), 0)
    gone.keep(line, 0)
    gone.close()

    AIResponseHandler(log_path, durability="memory").close()

    assert log_path.read_bytes() == line
    assert not Path(gone.directory).exists()


def test_journals_of_another_log_in_the_same_directory_are_left_to_it(log_path: Path, tmp_path: Path):
    """One directory may serve all logs of a machine, of the same name too; none gets another's lines."""
    options = Options.checked({"journal_directory": tmp_path / "elsewhere"})
    other = tmp_path / "other" / log_path.name
    gone = Journal(own_directory(str(other), options.journal_directory), WRITER, options)
    gone.keep(lines_of(1)[0], 0)
    gone.close()

    AIResponseHandler(log_path, journal_directory=options.journal_directory).close()

    assert log_path.read_bytes() == b""
    assert found_in(Path(gone.directory)) == lines_of(1)


def test_location_is_noted_once_and_survives_half_a_line(log_path: Path, tmp_path: Path):
    """However often a program starts the note stays as it is, and what a kill cut off does not spoil it."""
    note = Path(location_file(str(log_path)))
    note.parent.mkdir()
    note.write_bytes(b"/half/a/li")
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places * 2:
        note_location(str(log_path), Options.checked({"journal_directory": place}))

    own = [own_directory(str(log_path), str(place)) for place in places]
    assert journal_directories(str(log_path))[-2:] == own
    assert note.read_text().count("two") == 1


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_location_that_is_no_file_is_not_followed(log_path: Path, tmp_path: Path, kind: str):
    """A link or a FIFO in the note's place leads nowhere and holds nobody up."""
    note, victim = Path(location_file(str(log_path))), tmp_path / "victim"
    note.parent.mkdir()
    victim.write_text("/somewhere\n")
    {"link": lambda: note.symlink_to(victim), "fifo": lambda: os.mkfifo(note), "directory": note.mkdir}[kind]()

    assert journal_directories(str(log_path)) == [f"{log_path}.journal"]
    handler = AIResponseHandler(log_path, journal_directory=tmp_path / "elsewhere")
    handler.submit(record("one"))
    handler.close()

    assert victim.read_text() == "/somewhere\n"
    assert ids_in(log_path) == ["one"]


def test_journal_that_takes_no_marks_is_not_given_up_amid_a_change(journal: Journal):
    """A signal handler would wait for whoever stashes, who waits for the lock that it has interrupted."""
    waiting = LineQueue()
    waiting.keep_each(lambda _: journal)
    with waiting.lock, pytest.raises(OSError, match="a signal handler cannot remove it here"):
        waiting._give_up(journal, OSError(errno.EIO, "no marks"))

    assert waiting.keeper is journal
    assert not journal.is_gone()
