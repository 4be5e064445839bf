from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging import _queue
from ai_response_logging._prepared import PreparedRecord
from ai_response_logging._queue import LineQueue
from ai_response_logging.formatter import AIResponseFormatter
from ai_response_logging.record import Encoded


def prepared(**extra: Any) -> PreparedRecord:
    """Make a record as ResponseQueueHandler does."""
    record = logging.getLogger("app").makeRecord("app", 30, __file__, 1, "hello", (), None, extra=extra)
    return PreparedRecord.of(record.__dict__, AIResponseFormatter().encode(record))


def filled(count: int, **options: int) -> LineQueue:
    """Return a queue on which *count* lines wait."""
    lines = LineQueue(**options)
    for number in range(count):
        assert lines.put(b'{"n":%d' % number) is not None
    return lines


def numbers(lines: list[bytes]) -> list[int]:
    """Return each line's own number."""
    return [json.loads(line)["n"] for line in lines]


# --- in --------------------------------------------------------------------------------------------------------


def test_records_are_numbered_as_they_come_without_gaps() -> None:
    """One writer, and its count from 0: a missing number is a missing record."""
    waiting = filled(3)

    lines = [json.loads(line) for line in waiting.head()]

    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert {line["writer_id"] for line in lines} == {waiting.writer_id}


def test_a_record_without_room_is_not_taken_and_takes_no_number() -> None:
    """What is refused leaves no trace: the next record has the next number."""
    waiting = filled(2, max_size=2)

    assert waiting.put(b'{"n":9') is None
    waiting.consume(1)
    line = waiting.put(b'{"n":2')

    assert line is not None
    assert json.loads(line)["seq"] == 2


def test_the_queue_is_bounded_by_its_bytes_too() -> None:
    """A few large answers fill the memory as well as many small ones."""
    body = b'{"n":"' + b"x" * 1000 + b'"'
    waiting = LineQueue(max_size=1000, max_bytes=3000)

    taken = [waiting.put(body) is not None for _ in range(4)]

    assert taken == [True, True, False, False]
    waiting.consume(1)
    assert waiting.put(body) is not None


def test_a_record_is_forced_in_without_room() -> None:
    """A caller that is about to write everything itself goes through the queue, so that order and numbers hold."""
    waiting = filled(1, max_size=1)

    assert waiting.put(b'{"n":1', force=True) is not None
    assert numbers(waiting.head()) == [0, 1]


def test_many_threads_put_each_record_once() -> None:
    """Numbers are given and lines stored in one step: no number twice, none left out, in order."""
    waiting = LineQueue(max_size=10_000)
    threads = [threading.Thread(target=lambda: [waiting.put(b'{"n":0') for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [json.loads(line)["seq"] for line in waiting.head()] == list(range(2000))


def test_a_record_that_was_not_prepared_is_refused() -> None:
    """A line must exist before it can wait; a plain LogRecord on this queue is a mistake that says so."""
    with pytest.raises(TypeError, match="ResponseQueueHandler"):
        LineQueue().put_nowait(logging.makeLogRecord({}))


def test_put_nowait_says_full_as_a_queue_does() -> None:
    """A stock QueueHandler sees the exception it knows."""
    waiting = LineQueue(max_size=1)
    waiting.put_nowait(prepared())

    with pytest.raises(queue.Full):
        waiting.put_nowait(prepared())


# --- out -------------------------------------------------------------------------------------------------------


def test_lines_stay_until_they_are_consumed() -> None:
    """Looking is not taking: an append that fails finds every line still there."""
    waiting = filled(3)

    assert waiting.head() == waiting.head()
    waiting.consume(2)

    assert numbers(waiting.head()) == [2]
    assert (waiting.consumed, waiting.qsize(), waiting.position) == (2, 1, 3)


def test_a_block_ends_before_the_line_that_is_too_much() -> None:
    """A block holds whole lines up to the limit, the oldest first."""
    waiting = filled(5)
    size = len(waiting.head()[0])

    assert numbers(waiting.head(size * 3)) == [0, 1, 2]
    assert numbers(waiting.head(size * 3 - 1)) == [0, 1]


def test_one_line_that_is_longer_than_a_block_goes_alone() -> None:
    """An answer of any length gets through."""
    assert numbers(filled(2).head(1)) == [0]


def test_a_line_that_is_withdrawn_counts_as_failed_and_is_gone() -> None:
    """A record that must be refused after all is in the counters and not in the file."""
    waiting = filled(2, max_size=3)
    record = PreparedRecord.of({}, Encoded(b'{"n":2', "", replaced=False))
    assert waiting.put(record.body, record=record) == record.line

    assert waiting.withdraw(record)
    assert record.status == "failed"
    assert waiting.counted["failed"] == 1
    assert numbers(waiting.head()) == [0, 1]
    assert not waiting.withdraw(record)
    assert waiting.counted["failed"] == 1


@given(st.lists(st.sampled_from(["put", "put big", "force", "consume", "withdraw"]), max_size=60))
def test_whatever_happens_room_and_order_are_as_in_a_plain_list(steps: list[str]) -> None:
    """No sequence of steps loses a line, changes the order, or leaves the byte count wrong."""
    real, model = LineQueue(max_size=4, max_bytes=400), deque[PreparedRecord]()
    for number, step in enumerate(steps):
        body = b'{"n":%d' % number + b" " * (200 if step == "put big" else 0)
        if step == "consume" and model:
            model.popleft()
            real.consume(1)
        elif step == "withdraw" and model:
            assert real.withdraw(model.pop())
        elif step in {"put", "put big", "force"}:
            fits = len(model) < 4 and sum(len(one.line or b"") for one in model) + len(body) <= 400
            record = PreparedRecord.of({}, Encoded(body, "", replaced=False))
            line = real.put(body, force=step == "force", record=record)
            assert (line is not None) == (fits or step == "force")
            model.extend([] if line is None else [record])

    assert real.head() == [one.line for one in model]
    assert real.consumed + real.counted["failed"] + real.qsize() == real._seq


# --- coming to the lock ------------------------------------------------------------------------------------------


def test_who_finds_somebody_waiting_for_the_lock_waits_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in line at a lock cost two changes of threads a record; whoever comes looks again in a moment instead."""
    waiting, looks, is_third, may_go_on = LineQueue(), [], threading.Event(), threading.Event()
    first = threading.Thread(target=waiting.put, args=(b'{"n":0',), daemon=True)
    second = threading.Thread(target=waiting.put, args=(b'{"n":1',), daemon=True)

    def look_again(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            is_third.set()
            may_go_on.wait(60)

    monkeypatch.setattr(_queue, "_sleep", look_again)
    monkeypatch.setattr(_queue, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with waiting.lock:
        first.start()
        while waiting._arrived is None:  # until it is on its way to the lock
            pass
        second.start()
        assert is_third.wait(60)
    first.join(60)
    may_go_on.set()
    second.join(60)

    assert len(looks) == 3
    assert numbers(waiting.head()) == [0, 1]
    assert waiting._arrived is None


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_flag_that_is_wrong_holds_nobody_up_for_long(is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception from outside leaves it standing; amid our own change there is nobody to wait for."""
    waiting, looks = LineQueue(), []
    waiting._arrived = PreparedRecord.of({}, Encoded(b"{", "", replaced=False))
    monkeypatch.setattr(_queue, "_sleep", looks.append)
    monkeypatch.setattr(_queue, "time", SimpleNamespace(monotonic=lambda: 0.0))
    if is_ours:
        with waiting.lock:
            assert waiting.put(b'{"n":0') is not None
    else:
        assert waiting.put(b'{"n":0') is not None

    assert len(looks) == (0 if is_ours else 20)
    assert waiting._arrived is None
    assert waiting.put(b'{"n":1') is not None
    assert len(looks) == (0 if is_ours else 20)


def test_looks_that_take_long_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a thread that computes each takes five milliseconds, and twenty would be a tenth of a second."""
    waiting, looks = LineQueue(), []
    waiting._arrived = PreparedRecord.of({}, Encoded(b"{", "", replaced=False))
    monkeypatch.setattr(_queue, "_sleep", looks.append)
    monkeypatch.setattr(_queue, "time", SimpleNamespace(monotonic=lambda: 0.005 * len(looks)))

    assert waiting.put(b'{"n":0') is not None
    assert len(looks) == 1
    assert waiting._arrived is None


def test_what_stands_in_the_place_of_sleep_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application's test, or gevent once it is imported behind us, replaces it by what may raise."""
    waiting = LineQueue()
    waiting._arrived = PreparedRecord.of({}, Encoded(b"{", "", replaced=False))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it was called"))

    assert waiting.put(b'{"n":0') is not None


# --- waking ----------------------------------------------------------------------------------------------------


def test_the_listener_is_woken_once_a_batch() -> None:
    """One line fewer than a batch wakes nobody; a full batch does, once."""
    waiting = filled(2, batch_size=3)
    assert not waiting.wait(0)

    waiting.put(b'{"n":2')
    assert waiting.wait(0)
    waiting.put(b'{"n":3')

    assert not waiting.wait(0)


def test_a_wake_that_nobody_waited_for_is_kept_as_one() -> None:
    """A listener that was busy writing does not sleep over a batch that came meanwhile."""
    waiting = LineQueue()
    waiting.wake()
    waiting.wake()

    assert waiting.wait(0)
    assert not waiting.wait(0)


def test_a_thread_that_waits_is_woken() -> None:
    """A batch ends the wait at once, however long it might have been."""
    waiting = LineQueue(batch_size=1)
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(waiting.wait(1e12)), daemon=True)
    thread.start()
    waiting.put(b'{"n":0')
    thread.join(10)

    assert woken == [True]


# --- as a stock listener sees it -------------------------------------------------------------------------------


def test_a_line_taken_with_get_is_a_log_record_with_its_fields() -> None:
    """A foreign listener sees a LogRecord: level, logger and message in their places, all else as attributes."""
    waiting = LineQueue()
    waiting.put_nowait(prepared(question="why?", record_id="r-1"))

    record = waiting.get(block=False)

    assert (record.name, record.levelno, record.getMessage()) == ("app", logging.WARNING, "hello")
    assert (vars(record)["question"], vars(record)["record_id"], vars(record)["seq"]) == ("why?", "r-1", 0)
    assert waiting.empty()
    assert waiting.consumed == 1


@pytest.mark.parametrize("options", [{"block": False}, {"timeout": 0.0}], ids=str)
def test_get_says_empty_as_a_queue_does(options: dict[str, Any]) -> None:
    """The stock listener's own exception, without and with a wait."""
    with pytest.raises(queue.Empty):
        LineQueue().get(**options)


# --- in a child ------------------------------------------------------------------------------------------------


def test_a_renewed_queue_is_another_writer_that_has_counted_nothing() -> None:
    """What a forked child begins with: none of its parent's lines, numbers, counters or locks."""
    waiting = filled(3)
    waiting.consume(1)
    waiting.counted["failed"] = 1
    waiting.encode_errors, waiting.listening, parent = 2, True, waiting.writer_id
    waiting.lock.acquire()  # another thread of the parent held it

    waiting.renew()

    assert waiting.writer_id != parent
    assert (waiting.qsize(), waiting.consumed, waiting.position, waiting.encode_errors) == (0, 0, 0, 0)
    assert set(waiting.counted.values()) == {0}
    assert not waiting.listening
    assert waiting.has_room(waiting.max_bytes)
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(waiting.lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert taken == [True]


# --- prepared records ------------------------------------------------------------------------------------------


def test_a_prepared_record_shares_the_attributes_and_hides_its_own() -> None:
    """What one handler sets on a record the other sees; what we carry is nobody's extra field."""
    original = logging.makeLogRecord({"question": "why?"})

    record = PreparedRecord.of(original.__dict__, Encoded(b"{", "r-1", replaced=True))
    original.__dict__["later"] = 1

    assert vars(record) is vars(original)
    assert (record.body, record.id, record.replaced, record.status, record.error) == (b"{", "r-1", True, "queued", None)
    assert {"body", "id", "replaced", "status", "error"}.isdisjoint(vars(original))


def test_stock_listener_takes_the_lines_and_ends_at_its_sentinel():
    """A QueueListener of the standard library gets every record that waits, and its stop() ends it."""
    waiting, seen = LineQueue(), []
    collector = logging.Handler()
    collector.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    listener = logging.handlers.QueueListener(waiting, collector)
    listener.start()
    for number in range(5):
        waiting.put(AIResponseFormatter().encode(logging.makeLogRecord({"msg": f"m{number}"})).body)
    listener.stop()

    assert seen == [f"m{number}" for number in range(5)]
    assert waiting.empty()
