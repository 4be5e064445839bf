from __future__ import annotations

import logging
import logging.config
import logging.handlers
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, read_lines

from ai_response_logging._queue import LineQueue
from ai_response_logging.handler import ResponseQueueHandler
from ai_response_logging.listener import _GATHER_S, BatchQueueListener, _Server
from ai_response_logging.writer import BatchFileHandler

NEVER = 1000.0


class Collector(logging.Handler):
    """Keeps what it is handed, and lets a test wait for it or hold it up."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.messages: list[str] = []
        self.threads: list[threading.Thread] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.arrived.release()
        self.gate.wait(10)
        self.messages.append(record.getMessage())
        self.threads.append(threading.current_thread())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
        self.told.append(record.getMessage())


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    """Make a record to put on a queue."""
    return logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level)})


@pytest.fixture
def started() -> Iterator[Callable[..., BatchQueueListener]]:
    """Return what makes and starts a listener; each is stopped at the end."""
    made: list[BatchQueueListener] = []

    def start(*args: Any, **options: Any) -> BatchQueueListener:
        listener = BatchQueueListener(*args, **{"batch_size": 1, "flush_interval": NEVER, **options})
        made.append(listener)
        listener.start()
        return listener

    yield start
    for listener in made:
        listener.stop()


def queues() -> list[Any]:
    """Return one of each kind of queue that the stock listener takes."""
    return [
        pytest.param(queue.Queue, id="queue.Queue"),
        pytest.param(queue.SimpleQueue, id="SimpleQueue"),
        pytest.param(multiprocessing.Queue, id="multiprocessing.Queue"),
        pytest.param(multiprocessing.JoinableQueue, id="JoinableQueue"),
    ]


Start = Callable[..., BatchQueueListener]


# --- any queue -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", queues())
def test_listener_hands_over_everything_in_order_from_any_queue(kind: Callable[[], Any], started: Start):
    """Whatever the stock listener takes records from, ours does, in order, to the last one."""
    source, collector = kind(), Collector()
    listener = started(source, collector, batch_size=3)
    for number in range(10):
        source.put(record(str(number)))
    listener.stop()

    assert collector.messages == [str(number) for number in range(10)]
    if hasattr(source, "close"):
        source.close()
        source.join_thread()


def test_listener_marks_each_record_as_done(started: Start):
    """queue.join returns once everything is handed over, the end's sentinel included."""
    source: queue.Queue[Any] = queue.Queue()
    collector = Collector()
    listener = started(source, collector)
    for number in range(5):
        source.put(record(str(number)))
    source.join()
    assert len(collector.messages) == 5

    listener.stop()
    source.join()


def test_batch_is_handed_over_when_it_is_full(started: Start):
    """batch_size records go out at once, however long the interval is."""
    source, collector = queue.Queue[Any](), Collector()
    started(source, collector, batch_size=3)
    for number in range(3):
        source.put(record(str(number)))
    for _ in range(3):
        assert collector.arrived.acquire(timeout=10)


def test_record_alone_is_handed_over_when_the_interval_is_over(started: Start):
    """A batch that never gets full goes out by age."""
    source, collector = queue.Queue[Any](), Collector()
    started(source, collector, batch_size=100, flush_interval=0.01)
    source.put(record("alone"))

    assert collector.arrived.acquire(timeout=10)


def test_interval_counts_from_the_first_record_of_a_batch(monkeypatch: pytest.MonkeyPatch):
    """Records that drip in one by one do not put a batch off: its first waits no longer than flush_interval."""
    now, waits = [0.0], []

    class Dripping:
        """Gives a record a second, as long as there is time."""

        def get(self, _: bool = True, timeout: float | None = None) -> logging.LogRecord:
            if timeout is not None:
                waits.append(timeout)
                if timeout <= 0:
                    raise queue.Empty
            now[0] += 1
            return record("drip")

    monkeypatch.setattr("ai_response_logging.listener.time.monotonic", lambda: now[0])
    listener = BatchQueueListener(Dripping(), Collector(), batch_size=100, flush_interval=3)
    batch, more = listener._collect(_Server(lambda: None))

    assert (len(batch), more) == (4, True)
    assert waits == [3, 2, 1, 0]


def test_batch_goes_to_the_file_under_one_lock(log_path: Path, started: Start, monkeypatch: pytest.MonkeyPatch):
    """The records of a batch from any queue are written by one append."""
    writer = BatchFileHandler(log_path, durability="memory")
    taken: list[int] = []
    take = writer._do_lock
    monkeypatch.setattr(writer, "_do_lock", lambda: (taken.append(1), take()))
    source: queue.Queue[Any] = queue.Queue()
    for number in range(10):
        source.put(record(str(number)))
    listener = started(source, writer, batch_size=5)
    listener.stop()
    writer.close()

    assert len(read_lines(log_path)) == 10
    assert len(taken) == 2


def test_records_encoded_in_front_of_any_queue_reach_the_file(log_path: Path, started: Start):
    """ResponseQueueHandler, a stock queue, our listener and our writer are a chain that works by itself."""
    source: queue.Queue[Any] = queue.Queue()
    writer = BatchFileHandler(log_path, durability="memory")
    listener = started(source, writer)
    front = ResponseQueueHandler(source)
    mutable = {"a": [1]}
    front.handle(logging.makeLogRecord({"msg": "m", "record_id": "one", "metadata": mutable}))
    mutable["a"].append(2)
    listener.stop()
    writer.close()

    (line,) = read_lines(log_path)
    assert (line["record_id"], line["metadata"]) == ("one", {"a": [1]})


def test_records_encoded_in_front_of_a_process_queue_reach_the_file_whatever_they_carry(log_path: Path, started: Start):
    """What cannot be pickled or formatted is encoded before the queue as well as it can be: it costs no record."""
    source: Any = multiprocessing.Queue()
    writer = BatchFileHandler(log_path, durability="memory")
    listener = started(source, writer)
    front = ResponseQueueHandler(source)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        front.handle(logging.makeLogRecord({"msg": "m", "record_id": "error", "exc_info": sys.exc_info()}))
    front.handle(logging.makeLogRecord({"msg": "m", "record_id": "lock", "metadata": threading.Lock()}))
    front.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",), "record_id": "arguments"}))
    front.handle(logging.makeLogRecord({"msg": "m", "record_id": "plain"}))
    listener.stop()
    source.close()
    source.join_thread()
    writer.close()

    assert_all_there_once(log_path, ["error", "lock", "arguments", "plain"])
    assert read_lines(log_path)[0]["error_class"] == "ZeroDivisionError"


def test_levels_are_respected_when_asked_for(started: Start):
    """respect_handler_level does what it does in the standard library."""
    source, strict, lax = queue.Queue[Any](), Collector(logging.WARNING), Collector()
    listener = started(source, strict, lax, respect_handler_level=True)
    source.put(record("info"))
    source.put(record("warning", logging.WARNING))
    listener.stop()

    assert strict.messages == ["warning"]
    assert lax.messages == ["info", "warning"]


def test_handler_that_raises_ends_neither_the_thread_nor_the_others(started: Start):
    """A foreign handler's fault is told, and every record after it is handed over all the same."""

    class Bad(Collector):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            raise ValueError(record.getMessage())

    source, bad = queue.Queue[Any](), Bad()
    listener = started(source, bad)
    for number in range(3):
        source.put(record(str(number)))
    listener.stop()

    assert bad.messages == bad.told == ["0", "1", "2"]


# --- start and stop --------------------------------------------------------------------------------------------------


def test_started_twice_there_is_one_thread(started: Start):
    """A second start changes nothing."""
    listener = started(queue.Queue(), Collector())
    threads = threading.active_count()
    listener.start()

    assert threading.active_count() == threads
    assert listener.is_alive


def test_stopped_twice_or_before_any_start_is_no_error():
    """Stop may be called at any time, as often as wanted."""
    listener = BatchQueueListener(queue.Queue(), Collector())
    listener.stop()
    listener.start()
    listener.stop()
    listener.stop()

    assert not listener.is_alive


def test_stopped_listener_starts_again_and_leaves_no_sentinel_behind():
    """After a stop everything begins anew; nothing of the old run is in the queue."""
    source, collector = queue.Queue[Any](), Collector()
    listener = BatchQueueListener(source, collector, batch_size=1)
    for round_ in range(3):
        listener.start()
        source.put(record(str(round_)))
        listener.stop()
        assert source.empty()

    assert collector.messages == ["0", "1", "2"]


def test_stopped_from_its_own_thread_it_ends_after_what_waits():
    """A handler that stops its listener neither hangs it nor loses what waits."""

    class Stopper(Collector):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            listener.stop()

    source: queue.Queue[Any] = queue.Queue()
    collector = Stopper()
    listener = BatchQueueListener(source, collector, batch_size=1)
    source.put(record("first"))
    source.put(record("second"))
    listener.start()
    thread = listener._thread
    assert thread is not None
    thread.join(10)

    assert not thread.is_alive()
    assert collector.messages == ["first", "second"]


def test_stop_waits_no_longer_than_told_and_the_thread_ends_by_itself(started: Start):
    """A handler that stands still holds nobody up for longer than the timeout, and loses nothing."""
    source, collector = queue.Queue[Any](), Collector()
    collector.gate.clear()
    listener = started(source, collector)
    for number in range(3):
        source.put(record(str(number)))
    collector.arrived.acquire()
    thread = listener._thread
    assert thread is not None

    listener.stop(0.01)
    assert thread.is_alive()
    collector.gate.set()
    thread.join(10)

    assert not thread.is_alive()
    assert collector.messages == ["0", "1", "2"]


def test_stop_on_a_full_queue_raises_nothing_and_loses_nothing(started: Start):
    """A bounded queue without room for the sentinel does not keep the listener from ending."""
    source: queue.Queue[Any] = queue.Queue(1)
    collector = Collector()
    collector.gate.clear()
    listener = started(source, collector)
    source.put(record("first"))
    collector.arrived.acquire()
    source.put(record("second"))

    try:
        listener.stop(0.01)
    finally:
        collector.gate.set()
        listener.stop()

    assert collector.messages == ["first", "second"]
    assert not listener.is_alive


def test_stopped_twice_while_busy_it_leaves_no_sentinel_behind(started: Start):
    """However often a busy listener is told to stop, the next start serves to the end, and the queue can be joined."""
    source, collector = queue.Queue[Any](), Collector()
    collector.gate.clear()
    listener = started(source, collector)
    source.put(record("first"))
    collector.arrived.acquire()
    thread = listener._thread
    assert thread is not None
    listener.stop(0.01)
    listener.stop(0.01)
    collector.gate.set()
    thread.join(10)
    assert source.empty()

    listener.start()
    source.put(record("second"))
    source.join()
    assert collector.messages == ["first", "second"]


def test_thread_is_a_daemon_with_a_name(started: Start):
    """The interpreter can end while a disk stands still, and a person can tell whose thread it is."""
    listener = started(queue.Queue(), Collector())
    thread = listener._thread

    assert thread is not None
    assert thread.daemon
    assert thread.name == "ai-response-listener"


def test_no_thread_to_be_had_is_the_systems_error_and_a_later_start_works(monkeypatch: pytest.MonkeyPatch):
    """A start that fails leaves nothing behind that looks like a thread."""
    lines = LineQueue()
    listener = BatchQueueListener(lines, Collector())

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            listener.start()
    assert not listener.is_alive
    assert not lines.listening

    listener.start()
    assert lines.listening
    listener.stop()
    assert not lines.listening


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig knows listeners from 3.12 on")
def test_explicit_form_of_dict_config_takes_our_listener(log_path: Path):
    """A stock QueueHandler with our listener and our writer can be named in a configuration."""
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "file": {
                "class": "ai_response_logging.BatchFileHandler",
                "filename": str(log_path),
                "durability": "memory",
            },
            "queue": {
                "class": "logging.handlers.QueueHandler",
                "listener": "ai_response_logging.BatchQueueListener",
                "handlers": ["file"],
            },
        },
        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["queue"], "propagate": False}},
    })  # fmt: skip
    handler: Any = logging.getHandlerByName("queue")
    handler.listener.start()
    logging.getLogger("ai_responses").info("ai_response", extra={"record_id": "one"})
    handler.listener.stop()
    logging.getHandlerByName("file").close()

    assert_all_there_once(log_path, ["one"])


# --- our own queue ---------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(log_path: Path) -> Iterator[BatchFileHandler]:
    """Make a writer whose queue a listener serves."""
    made = BatchFileHandler(log_path, durability="memory", batch_size=3, retry_delay=0.001)
    yield made
    made.close()


class Home:
    """Tells when nothing waits in a queue any more, and how often lines arrived."""

    def __init__(self, lines: LineQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.blocks = threading.Event(), []
        consume = lines.consume

        def noting(count: int, *, is_ours: bool = False) -> None:
            consume(count, is_ours=is_ours)
            self.blocks.append(count)
            if lines.empty():
                self.reached.set()

        monkeypatch.setattr(lines, "consume", noting)


@pytest.fixture
def home(writer: BatchFileHandler, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return what tells when everything has arrived."""
    return Home(writer.queue, monkeypatch)


def put(lines: LineQueue, *ids: str) -> None:
    """Put one line for each id on the queue."""
    for one in ids:
        assert lines.put(b'{"record_id":"%b"' % one.encode()) is not None


def test_child_forked_while_its_parent_gathers_is_woken_by_a_batch():
    """batch_size holds in a child, too: whatever the parent's thread was doing, it is not there to end it."""
    lines = LineQueue(batch_size=3)
    lines.is_gathering = True

    lines.renew()  # what a forked child does first
    put(lines, "a", "b", "c")

    assert lines.wait(0)


def test_full_batch_wakes_whoever_waits_and_nothing_less_does():
    """One wake a batch: a listener that is woken by each record takes the interpreter from the application."""
    lines = LineQueue(batch_size=3)
    put(lines, "a", "b")
    assert not lines.wait(0)

    put(lines, "c")
    assert lines.wait(0)
    put(lines, "d")
    assert not lines.wait(0)


def test_lines_go_out_when_a_batch_waits(log_path: Path, writer: BatchFileHandler, home: Home, started: Start):
    """The listener is woken by a full batch, and writes all that waits in one block."""
    started(writer.queue, writer)
    put(writer.queue, "a", "b", "c")

    assert home.reached.wait(10)
    assert home.blocks == [3]
    assert_all_there_once(log_path, "abc")


def test_lines_fewer_than_a_batch_go_out_when_the_interval_is_over(
    log_path: Path, writer: BatchFileHandler, home: Home, started: Start
):
    """A record waits no longer than flush_interval for others."""
    started(writer.queue, writer, flush_interval=0.01)
    put(writer.queue, "a")

    assert home.reached.wait(10)
    assert_all_there_once(log_path, "a")


def test_lines_fewer_than_a_batch_wait_for_the_interval(writer: BatchFileHandler, home: Home, started: Start):
    """Nothing is written line by line: what is no batch waits, and goes out when the listener ends."""
    listener = started(writer.queue, writer)
    put(writer.queue, "a")
    put(writer.queue, "b")
    assert writer.queue.qsize() == 2

    listener.stop()
    assert home.blocks == [2]


def test_interval_of_nothing_writes_at_once_and_sleeps_when_there_is_nothing(
    log_path: Path, writer: BatchFileHandler, home: Home, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """flush_interval 0 means "do not wait for others", not "never sleep"."""
    looks, many = [], threading.Event()
    wait = writer.queue.wait

    def counted(timeout: float) -> bool:
        looks.append(timeout)
        if len(looks) > 1000:
            many.set()
        return wait(timeout)

    monkeypatch.setattr(writer.queue, "wait", counted)
    started(writer.queue, writer, flush_interval=0)
    put(writer.queue, "a")

    assert home.reached.wait(10)
    assert not many.wait(0.15), "the listener spins"
    assert_all_there_once(log_path, "a")


class Waits:
    """Runs something inside one of a queue's waits, and tells when the listener sleeps with nothing to do."""

    def __init__(self, lines: LineQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sleeps = threading.Semaphore(0)
        self.inside: dict[float, Callable[[], object]] = {}
        self._wait = lines.wait
        monkeypatch.setattr(lines, "wait", self._noted)

    def _noted(self, timeout: float) -> bool:
        self.inside.pop(timeout, lambda: None)()
        if timeout > NEVER / 2:
            self.sleeps.release()
        return self._wait(timeout)


@pytest.mark.parametrize("wait", [0.0, _GATHER_S])
def test_wake_that_comes_while_lines_gather_is_not_lost(
    writer: BatchFileHandler, started: Start, monkeypatch: pytest.MonkeyPatch, wait: float
):
    """Whoever wants the listener in the moment behind a write, in which it takes wakes in passing, is heard."""
    waits = Waits(writer.queue, monkeypatch)
    listener = started(writer.queue, writer)
    thread = listener._thread
    assert thread is not None
    waits.inside[wait] = listener.stop  # from its own thread it only says so
    put(writer.queue, "a", "b", "c")

    thread.join(5)
    assert not thread.is_alive(), "it sleeps on"


def test_batch_behind_a_moment_of_gathering_wakes_the_listener_again(
    log_path: Path, writer: BatchFileHandler, home: Home, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """Only behind a write is a quarter of a queue waited for: a later batch goes out at once."""
    waits = Waits(writer.queue, monkeypatch)
    started(writer.queue, writer)
    for batch in ("abc", "def"):
        assert waits.sleeps.acquire(timeout=5)
        put(writer.queue, *batch)
        assert home.reached.wait(5)
        home.reached.clear()

    assert_all_there_once(log_path, "abcdef")


def test_stop_hands_over_what_waits_and_what_comes_meanwhile(log_path: Path, writer: BatchFileHandler, started: Start):
    """Whoever logs while the listener is stopped either is seen by it or finds nobody listening."""
    listener = started(writer.queue, writer)
    begun = threading.Barrier(5)
    unseen: list[str] = []

    def work(name: int) -> None:
        begun.wait()
        for number in range(100):
            put(writer.queue, f"{name}-{number}")
            if not writer.queue.listening:
                unseen.append(f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    listener.stop()
    for thread in threads:
        thread.join()
    left = writer.queue.qsize()

    assert left <= len(unseen)
    writer.flush()
    assert_all_there_once(log_path, [f"{name}-{number}" for name in range(4) for number in range(100)])


def test_line_that_comes_while_the_listener_ends_keeps_it_from_ending(
    log_path: Path, writer: BatchFileHandler, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """A line put behind the last write of a listener that was told to stop is written by that same listener."""
    drain, late = writer.drain, iter(["late", "later"])

    def drain_and_put(**options: Any) -> bool:
        listener.stop()
        done = drain(**options)
        put(writer.queue, *[one for one in (next(late, ""),) if one])
        return done

    monkeypatch.setattr(writer, "drain", drain_and_put)
    listener = started(writer.queue, writer)
    thread = listener._thread
    assert thread is not None
    put(writer.queue, "a", "b", "c")
    thread.join(10)

    assert not thread.is_alive()
    assert writer.queue.empty()
    assert_all_there_once(log_path, ["a", "b", "c", "late", "later"])


def test_refused_lines_stay_and_come_home_with_the_next_interval(
    log_path: Path, writer: BatchFileHandler, home: Home, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """A listener whose attempts all failed goes on trying, without any new record."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    write, calls = os.write, []

    def refuse(descriptor: int, data: Any) -> int:
        if writer.stream is not None and descriptor == writer.stream.fileno():
            calls.append(1)
            if len(calls) <= 10:
                raise OSError(28, "no space")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    started(writer.queue, writer, flush_interval=0.01)
    put(writer.queue, "a", "b", "c")

    assert home.reached.wait(10)
    assert len(calls) == 11
    assert_all_there_once(log_path, "abc")


def test_stop_does_not_sit_out_the_pauses_between_attempts(
    writer: BatchFileHandler, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """A listener that waits for its next attempt makes it at once when it is told to stop."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    writer.options = writer.options.__class__(**{**vars(writer.options), "retry_delay": NEVER})
    failed = threading.Event()

    def refuse(*_: object, **__: object) -> None:
        failed.set()
        raise OSError(28, "no space")

    monkeypatch.setattr(writer, "attempt", refuse)
    listener = started(writer.queue, writer)
    put(writer.queue, "a", "b", "c")
    assert failed.wait(10)

    listener.stop()
    assert not listener.is_alive
    assert not writer.queue.listening
    monkeypatch.undo()


def test_listener_told_to_stop_and_started_again_goes_on_without_a_gap(
    log_path: Path, writer: BatchFileHandler, started: Start
):
    """A start that comes before the old thread has ended keeps that one, and its records."""
    listener = started(writer.queue, writer)
    writer.turn.acquire(0)
    put(writer.queue, "a", "b", "c")
    listener.stop(0)
    first = listener._thread
    listener.start()
    put(writer.queue, "d")
    writer.turn.free()
    put(writer.queue, "e", "f")
    listener.stop()

    assert first is not None
    assert_all_there_once(log_path, "abcdef")


def test_thread_whose_wake_another_has_taken_ends_with_that_one(
    writer: BatchFileHandler, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """A thread that was told to stop and started anew does not sleep on for an interval behind the new one's end."""
    listener = started(writer.queue, writer)
    first = listener._thread
    with monkeypatch.context() as patch:
        patch.setattr(writer.queue, "wake", lambda: None)  # as if the new one had taken it
        listener.stop(0)
        listener.start()
    listener.stop()

    assert first is not None
    first.await_end(10)
    assert first.is_over


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_is_torn_down_by_foreign_code_is_replaced_by_the_next_start(
    log_path: Path, writer: BatchFileHandler, started: Start, monkeypatch: pytest.MonkeyPatch
):
    """A SystemExit that ends the thread leaves nobody believing that somebody listens."""
    drain = writer.drain

    def end_the_thread(**_: object) -> bool:
        monkeypatch.setattr(writer, "drain", drain)
        raise SystemExit

    monkeypatch.setattr(writer, "drain", end_the_thread)
    listener = started(writer.queue, writer)
    thread = listener._thread
    assert thread is not None
    put(writer.queue, "a", "b", "c")
    thread.join(10)
    assert not thread.is_alive()
    assert not writer.queue.listening

    listener.start()
    put(writer.queue, "d", "e", "f")
    listener.stop()
    assert_all_there_once(log_path, "abcdef")


def test_foreign_handler_on_our_queue_sees_records_with_their_fields(started: Start):
    """Whoever serves our queue with a handler of his own gets LogRecords whose attributes are the line's fields."""
    lines, collector = LineQueue(batch_size=1), Collector()
    seen: list[logging.LogRecord] = []
    collector.addFilter(lambda record: bool(seen.append(record)) or True)
    listener = started(lines, collector)
    front = ResponseQueueHandler(lines)
    front.handle(logging.makeLogRecord({"msg": "hello", "name": "n", "levelname": "INFO", "answer": 42}))
    listener.stop()

    assert collector.messages == ["hello"]
    assert (seen[0].answer, seen[0].name, seen[0].levelno) == (42, "n", logging.INFO)  # type: ignore[attr-defined]


def test_listener_forgets_its_thread_in_a_forked_child(started: Start):
    """The thread stayed in the parent: in a child the listener is not running, and can be started."""
    listener = started(queue.Queue(), Collector())
    thread = listener._thread

    listener.after_fork_in_child()
    try:
        assert not listener.is_alive
    finally:
        listener._thread = thread
