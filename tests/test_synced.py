"""At durability power: what is synced, in which order, and what the next program makes of what loss of power left."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from helpers import assert_all_there_once

from ai_response_logging import _append
from ai_response_logging._journal import Journal
from ai_response_logging._journal_format import Intent
from ai_response_logging._options import Options
from ai_response_logging.api import alog_ai_response
from ai_response_logging.errors import WriteError
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
POWER: Final[dict[str, Any]] = {
    "durability": "power",
    "batch_size": 10_000,
    "flush_interval": 1000,
    "retry_delay": 0.001,
}


def log(handler: AIResponseHandler, record_id: str) -> str:
    """Log one record; return its status."""
    return handler.submit(logging.makeLogRecord({"msg": "m", "record_id": record_id}))


def left_behind(log_path: Path, count: int, *, stored: int | None = None) -> list[bytes]:
    """Leave the journal of a writer that was about to append *count* lines at the start of the log when it ended."""
    tail = tail_of(WRITER)
    lines = [seal(b'{"record_id":"left-%d","response":"%b"' % (seq, b"x" * 600), tail, seq) for seq in range(count)]
    log_path.touch()
    there = log_path.stat()
    journal = Journal(f"{log_path}.journal", WRITER, Options.checked({"durability": "power"}))
    journal.store(lines[:stored])
    journal.mark(0, Intent(there.st_dev, there.st_ino, 0, count, 0))
    journal.close()
    return lines


@pytest.mark.parametrize("behind", [b"", b'{"record_id":"another"}\n'], ids=["nothing", "another's"])
@pytest.mark.parametrize("whole", [0, 1, 2])
def test_holes_in_a_block_are_filled_also_when_somebody_has_logged_behind_them(
    log_path: Path, whole: int, behind: bytes
):
    """What came back first and logged behind the remains of a block makes no line twice, and leaves none torn."""
    lines = left_behind(log_path, 4)
    kept, taken, rest = b"".join(lines[:whole]), len(lines[whole]) + 100, b"".join(lines)
    log_path.write_bytes(kept + bytes(taken) + rest[len(kept) + taken :] + behind)

    handler = AIResponseHandler(log_path, **POWER)
    log(handler, "after")
    handler.close()

    there = [json.loads(line)["record_id"] for line in log_path.read_bytes().splitlines()]
    assert sorted(there) == sorted([*(f"left-{n}" for n in range(4)), "after", *(["another"] if behind else [])])
    assert not list(Path(f"{log_path}.journal").glob("*"))


class Syncs:
    """Notes what is synced, by name, and can refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.refuse: dict[str, int] = {}
        self._fdatasync, self._fsync = os.fdatasync, os.fsync
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: self._sync(descriptor, self._fdatasync))
        monkeypatch.setattr(os, "fsync", lambda descriptor: self._sync(descriptor, self._fsync))

    def _sync(self, descriptor: int, really: Callable[[int], None]) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.made.append(path)
        for end, number in self.refuse.items():
            if path.endswith(end):
                raise OSError(number, os.strerror(number), path)
        really(descriptor)

    def of(self, path: Path) -> int:
        """Return how often *path* was synced, and begin anew."""
        count = self.made.count(str(path))
        self.made.clear()
        return count


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    """Return what is synced from now on."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of descriptors are read from /proc")
    return Syncs(monkeypatch)


@pytest.fixture
def handler(log_path: Path) -> Iterator[AIResponseHandler]:
    """Attach a handler at power, which writes when it is told to."""
    handler = AIResponseHandler(log_path, **POWER)
    yield handler
    handler.close()


def test_name_of_a_log_is_synced_before_the_first_block_also_of_one_made_anew(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs
):
    """Whoever removes the log: the new one, which may get the old one's number, has a durable name, too."""
    log(handler, "first")
    assert handler.flush()
    assert syncs.of(log_path.parent) == 1

    log(handler, "second")
    assert handler.flush()
    assert syncs.of(log_path.parent) == 0

    log_path.unlink()
    log(handler, "third")
    assert handler.flush()
    assert syncs.of(log_path.parent) == 1


def test_block_is_appended_behind_the_syncs_of_its_lines_and_its_intent(
    log_path: Path, handler: AIResponseHandler, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
):
    """Lines, intent, block, log, and only then the lines leave: in this order, whoever has not waited for the first."""
    log(handler, "first")
    assert handler.flush()
    queue, append_block, consume = handler._pipeline.queue, _append.append_block, handler._pipeline.queue.consume
    queue.put(b'{"record_id":"second"', force=True)  # a caller that has not come to its sync yet
    monkeypatch.setattr(_append, "append_block", lambda *a, **k: (syncs.made.append("append"), append_block(*a, **k)))
    monkeypatch.setattr(queue, "consume", lambda count, **how: (syncs.made.append("consume"), consume(count, **how)))
    syncs.made.clear()
    assert handler.flush()

    order = [name if name in {"append", "consume"} else Path(name).suffixes[-1] for name in syncs.made]
    assert order[:2] == [".jsonl", ".mark"]
    assert order[2:5] == ["append", ".jsonl", "consume"]
    assert syncs.made[3] == str(log_path)


def test_line_that_is_stored_during_a_sync_is_not_durable_by_it(
    handler: AIResponseHandler, monkeypatch: pytest.MonkeyPatch
):
    """A sync says of those lines only that they are durable which stood there when it began."""
    log(handler, "before")
    queue, fdatasync = handler._pipeline.queue, os.fdatasync
    assert queue.keeper is not None

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        queue.put(b'{"record_id":"meanwhile"', force=True)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", meanwhile)

    assert queue.keeper.sync(queue.lock) == 1
    assert queue.keeper.sync(queue.lock) == 2


def test_segment_whose_sync_failed_is_left_for_a_new_one(handler: AIResponseHandler, monkeypatch: pytest.MonkeyPatch):
    """The kernel may call durable the next time what it gave up: that file is not asked again."""
    log(handler, "before")
    asked: list[int] = []

    def refuse_once(descriptor: int) -> None:
        asked.append(os.fstat(descriptor).st_ino)
        if len(asked) == 1:
            raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(_append, "sync_file", refuse_once)

    assert log(handler, "after") == "queued"
    assert len(asked) >= 2
    assert asked[0] not in asked[1:]


def test_directory_that_others_made_is_synced_all_the_same(log_path: Path, syncs: Syncs):
    """A writer at crash may have made the journal's and the log's directory a moment ago, and synced neither."""
    log_path = log_path.parent / "made" / log_path.name
    log_path.parent.mkdir()
    Path(f"{log_path}.journal").mkdir()

    AIResponseHandler(log_path, **POWER).close()

    assert {str(log_path.parent), str(log_path.parent.parent)} <= set(syncs.made)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_name_that_cannot_be_synced_makes_lines_wait_and_seals_nothing(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs, number: int
):
    """Nothing is appended to a log whose name may not last; what waits is durable in the journal, and goes later."""
    syncs.refuse[str(log_path.parent)] = number
    assert log(handler, "waits") == "queued"
    assert not handler.flush(0.05)
    assert not log_path.read_bytes()

    syncs.refuse.clear()
    assert handler.flush()
    assert_all_there_once(log_path, ["waits"])
    assert not list(log_path.parent.glob("*.sealed-*"))


def test_log_that_cannot_be_synced_is_sealed_and_not_asked_again(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs
):
    """What the kernel gave up once it may call durable the next time: the lines go to a new file instead."""
    log(handler, "home")
    assert handler.flush()
    syncs.refuse[str(log_path)] = errno.EIO
    log(handler, "waits")
    with pytest.raises(WriteError, match="sealed"):
        handler._pipeline.writer.attempt(1.0)
    syncs.refuse.clear()
    syncs.made.clear()
    assert handler.flush()

    [sealed] = log_path.parent.glob(f"{log_path.name}.sealed-*")
    assert [json.loads(line)["record_id"] for line in sealed.read_bytes().splitlines()] == ["home"]
    assert [json.loads(line)["record_id"] for line in log_path.read_bytes().splitlines()] == ["waits"]
    assert str(sealed) not in syncs.made


def test_full_descriptor_table_leaves_no_copy_of_a_descriptor_behind(
    handler: AIResponseHandler, monkeypatch: pytest.MonkeyPatch
):
    """A sync that gets only the first of its descriptors gives that one back."""
    journal = handler._pipeline.queue.keeper
    assert journal is not None
    dup, made = os.dup, list[int]()

    def last(descriptor: int) -> int:
        if made:
            raise OSError(errno.EMFILE, "no more")
        made.append(dup(descriptor))
        return made[0]

    monkeypatch.setattr(os, "dup", last)
    with pytest.raises(OSError, match="no more"):
        journal.sync(handler._pipeline.queue.lock)

    with pytest.raises(OSError, match="descriptor"):
        os.fstat(made[0])


# --- in an event loop ------------------------------------------------------------------------------------------------


def test_coroutines_of_a_loop_share_syncs(handler: AIResponseHandler, log_path: Path, syncs: Syncs):
    """Two hundred coroutines that log at once wait for a few syncs of the journal, not for two hundred."""
    logging.getLogger("ai_responses").addHandler(handler)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(alog_ai_response(record_id=f"r-{number}") for number in range(200)))

    results = asyncio.run(all_of_them())

    assert {result["status"] for result in results} == {"queued"}
    assert 1 <= sum(path.endswith(".jsonl") for path in syncs.made) <= 20
    handler.flush()
    assert_all_there_once(log_path, [f"r-{number}" for number in range(200)])


def test_loop_goes_on_while_a_sync_stands_and_fields_are_those_of_the_call(
    handler: AIResponseHandler, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that does not answer stops the coroutine that logs, and nobody else; a cancelled one loses no record."""
    logging.getLogger("ai_responses").addHandler(handler)
    may_end, fdatasync = threading.Event(), os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: may_end.wait(15) and fdatasync(descriptor))
    fields = {"question": "before"}

    async def main() -> None:
        one = asyncio.ensure_future(alog_ai_response(record_id="one", extra=fields))
        gone = asyncio.ensure_future(alog_ai_response(record_id="gone"))
        while handler.queue_size < 2:  # noqa: ASYNC110  this is how the loop goes on
            await asyncio.sleep(0)
        fields["question"] = "after"
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert not one.done()
        may_end.set()
        assert (await one)["status"] == "queued"

    asyncio.run(main())
    handler.flush()
    assert_all_there_once(log_path, ["one", "gone"])
    assert b"after" not in log_path.read_bytes()


@pytest.mark.parametrize("durability", ["memory", "crash", "power"])
def test_full_queue_and_each_durability_are_awaited(log_path: Path, durability: str):
    """A queue without room is drained in a thread; whatever is not possible is said, and never raised."""
    handler = AIResponseHandler(log_path, **{**POWER, "durability": durability, "queue_max_size": 2})
    logging.getLogger("ai_responses").addHandler(handler)

    async def main() -> list[Any]:
        return [await alog_ai_response(record_id=f"r-{number}", value=object()) for number in range(7)]

    statuses = {result["status"] for result in asyncio.run(main())}
    handler.close()

    assert statuses == {"queued", "written_sync"}
    assert_all_there_once(log_path, [f"r-{number}" for number in range(7)])


def test_durability_that_is_changed_at_run_time_holds_from_the_next_record_on(
    log_path: Path, handler: AIResponseHandler, syncs: Syncs
):
    """configure() to `crash` ends the syncs and to `power` begins them, and the lock file says so to adopters."""
    pipeline = handler._pipeline
    [lock] = Path(f"{log_path}.journal").glob("*.lock")
    log(handler, "power")
    assert syncs.made

    pipeline.configure(Options(**{**vars(pipeline.options), "durability": "crash"}))
    syncs.made.clear()
    log(handler, "crash")
    assert not syncs.made
    assert not lock.read_bytes().strip()

    pipeline.configure(Options(**{**vars(pipeline.options), "durability": "power"}))
    log(handler, "power again")
    assert syncs.made
    assert lock.read_bytes() == b"power\n"


def test_refused_record_is_in_no_journal_afterwards(log_path: Path, syncs: Syncs):
    """`failed` is nowhere: what a journal took before its sync failed for good is cut off what was durable before."""
    handler = AIResponseHandler(log_path, **{**POWER, "max_retries": 0, "close_timeout": 0.05})
    assert log(handler, "kept") == "queued"
    syncs.refuse[""] = errno.EIO
    assert log(handler, "refused") == "failed"

    there = b"".join(file.read_bytes() for file in Path(f"{log_path}.journal").glob("*.jsonl"))
    assert b'"kept"' in there
    assert b'"refused"' not in there
    syncs.refuse.clear()
    handler.close()
    assert_all_there_once(log_path, ["kept"])


def test_call_whose_journal_cannot_be_synced_waits_for_whoever_writes(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A record that only the log can make durable now does not pass for safe while another thread is in the log."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = AIResponseHandler(log_path, **{**POWER, "caller_timeout": 0.01})
    assert log(handler, "before") == "queued"
    turn, held, refused, may_go = handler._pipeline.writer.turn, *(threading.Event() for _ in range(3))
    done: list[str] = []

    def write() -> None:
        assert turn.acquire(0)
        held.set()
        assert may_go.wait(15)
        turn.free()

    def refuse(_record: object) -> bool:
        refused.set()
        raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(handler._pipeline.queue, "await_sync", refuse)
    writer = threading.Thread(target=write)
    writer.start()
    assert held.wait(15)
    caller = threading.Thread(target=lambda: done.append(handler.submit_fields({"record_id": "one"}).status))
    caller.start()
    assert refused.wait(15)
    caller.join(0.1)  # ten times caller_timeout
    assert not done
    may_go.set()
    for thread in (writer, caller):
        thread.join(15)

    assert done == ["written_sync"]
    handler.close()
    assert_all_there_once(log_path, ["before", "one"])


def test_call_returns_behind_a_sync_of_the_journal_and_of_its_name_once(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs
):
    """A segment that power takes the name of is as lost as one that was not synced; each name needs one sync."""
    journal = Path(f"{log_path}.journal")
    for names in (1, 0):
        assert log(handler, f"record-{names}") == "queued"
        [segment] = journal.glob("*.jsonl")
        assert str(segment) in syncs.made
        assert syncs.of(journal) == names


def test_log_is_synced_before_its_lines_are_forgotten(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
):
    """Until the block is on the disk its lines wait, in the journal, too."""
    queue = handler._pipeline.queue
    consume, before = queue.consume, list[list[str]]()

    def noted(count: int, *, is_ours: bool = False) -> None:
        before.append(syncs.made[:])
        consume(count, is_ours=is_ours)

    monkeypatch.setattr(queue, "consume", noted)
    log(handler, "first")
    assert handler.flush()

    [made] = before
    assert str(log_path) in made


def test_intent_and_what_others_appended_are_durable_before_a_block_is(
    handler: AIResponseHandler, log_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
):
    """What power leaves of a block is told by its intent, and lies behind no hole that was another writer's."""
    append_block, before = _append.append_block, list[list[str]]()

    def noted(*args: Any, **options: Any) -> None:
        before.append(syncs.made[:])
        append_block(*args, **options)

    monkeypatch.setattr(_append, "append_block", noted)
    log_path.write_bytes(b'{"record_id":"another"}\n')
    log(handler, "ours")
    syncs.made.clear()
    assert handler.flush()

    [made] = before
    [marks] = Path(f"{log_path}.journal").glob("*.mark")
    assert {str(log_path), str(marks)} <= set(made)
    assert made.index(str(log_path)) < made.index(str(marks))


# --- a signal handler amid a change of the queue --------------------------------------------------------------------


def amid_a_change(handler: AIResponseHandler, other: Callable[[], object], is_under_way: Callable[[], bool]) -> str:
    """
    Log a record as a signal handler would that has interrupted a call under the queue's lock; return its status.

    Before that another thread has begun with *other*, and so far that it waits for that lock.
    """
    statuses: list[str] = []

    def interrupted() -> None:
        with handler._pipeline.queue.lock:
            thread.start()
            while not is_under_way():
                pass
            statuses.append(log(handler, "from inside"))

    thread = threading.Thread(target=other, daemon=True)
    whole = threading.Thread(target=interrupted, daemon=True)
    whole.start()
    whole.join(10)
    assert not whole.is_alive(), "it hangs"
    thread.join(10)
    assert not thread.is_alive()
    return statuses[0]


def test_signal_handler_amid_a_change_waits_for_no_sync_of_another_thread(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That thread waits for the change to end, which goes on only behind the handler: neither would ever come back."""
    handler = AIResponseHandler(log_path, **POWER)
    log(handler, "before")
    queue = handler._pipeline.queue
    assert queue.keeper is not None
    real, leads, synced = queue.keeper.sync, threading.Event(), []
    monkeypatch.setattr(_append, "sync_file", lambda _: synced.append(queue.keeper.next_seq))

    def sync(lock: Any) -> int:
        leads.set()
        return real(lock)

    monkeypatch.setattr(queue.keeper, "sync", sync)
    assert amid_a_change(handler, lambda: queue._syncs.wait(1), leads.is_set) == "queued"
    assert 2 in synced  # its own line, before its call has returned
    handler.close()

    assert_all_there_once(log_path, ["before", "from inside"])


def test_signal_handler_amid_a_change_waits_for_nobody_who_writes(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where there can be no journal its record waits, and its call says that it may not survive loss of power."""
    monkeypatch.setattr(AIResponseHandler, "handleError", lambda *_: None)
    handler = AIResponseHandler(log_path, **POWER)
    queue, writer = handler._pipeline.queue, handler._pipeline.writer
    log(handler, "before")
    handler.flush()
    queue.keeper, queue.journal_error = None, OSError(errno.EIO, os.strerror(errno.EIO))
    seen: list[WriteError] = []
    real = writer.write_through

    def write_through(record: Any, *args: Any) -> None:
        real(record, *args)
        seen.append(record.error)

    monkeypatch.setattr(writer, "write_through", write_through)
    has_turn = threading.Event()

    def append_waiting(*_: Any) -> None:
        has_turn.set()
        with queue.lock:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_append_waiting", append_waiting)
        assert amid_a_change(handler, lambda: writer.attempt(1.0, until=9), has_turn.is_set) == "queued"
    assert "may not survive loss of power" in str(seen[-1])
    assert "its call interrupts another one" in str(seen[-1])
    handler.close()

    assert_all_there_once(log_path, ["before", "from inside"])


@pytest.mark.parametrize("durability", ["crash", "power"])
def test_signal_handler_amid_a_change_waits_for_nobody_who_opens_the_journal(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
):
    """Whoever does waits for the change; the record is in the log when its call returns, for it may be the last."""
    handler = AIResponseHandler(log_path, **{**POWER, "durability": durability})
    log(handler, "before")
    handler.flush()
    queue, writer = handler._pipeline.queue, handler._pipeline.writer
    queue.keeper, opens = None, threading.Event()

    def look(_: object) -> None:  # what keep_each does first, holding the lock of those that store
        opens.set()
        with queue.lock:
            pass

    monkeypatch.setattr(queue, "_note_late", look)
    amid_a_change(handler, writer.open_journal, opens.is_set)
    monkeypatch.undo()

    assert b"from inside" in log_path.read_bytes()
    handler.close()
    assert_all_there_once(log_path, ["before", "from inside"])
