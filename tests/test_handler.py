from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, read_lines

from ai_response_logging._prepared import PreparedRecord
from ai_response_logging.errors import ConfigError, ConfigWarning, DurabilityWarning
from ai_response_logging.formatter import AIResponseFormatter
from ai_response_logging.handler import AIResponseHandler, ResponseQueueHandler

Make = Callable[..., AIResponseHandler]


@pytest.fixture
def make(log_path: Path) -> Iterator[Make]:
    """Return what makes handlers that write only when told to; all are closed at the end."""
    made: list[AIResponseHandler] = []

    def one(filename: Path = log_path, **options: Any) -> AIResponseHandler:
        defaults = {"durability": "memory", "batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.001}
        made.append(AIResponseHandler(filename, **{**defaults, **options}))
        return made[-1]

    yield one
    for handler in made:
        handler.close()


@pytest.fixture
def handler(make: Make) -> AIResponseHandler:
    """Make a handler."""
    return make()


@pytest.fixture
def logger(handler: AIResponseHandler) -> logging.Logger:
    """Return a logger with that handler alone."""
    named = logging.getLogger("ai_responses")
    named.setLevel(logging.INFO)
    named.propagate = False
    named.addHandler(handler)
    return named


def record(record_id: str = "one", **extra: Any) -> logging.LogRecord:
    """Make a record to log."""
    return logging.makeLogRecord({"msg": "m", "levelno": logging.INFO, "record_id": record_id, **extra})


def ids_in(log: Path) -> list[str]:
    """Return the records of one file, in its order."""
    return [one["record_id"] for one in read_lines(log)]


# --- a record's way --------------------------------------------------------------------------------------------------


def test_record_is_queued_and_carries_its_id_and_status(handler: AIResponseHandler, log_path: Path):
    """Submit says what became of the record, and handlers that come after ours can read it off the record."""
    one = logging.makeLogRecord({"msg": "m", "question": "q"})

    assert handler.submit(one) == "queued"
    assert one.ai_status == "queued"  # type: ignore[attr-defined]
    assert handler.queue_size == 1
    assert not log_path.read_bytes()

    assert handler.flush()
    (line,) = read_lines(log_path)
    assert line["record_id"] == one.record_id  # type: ignore[attr-defined]
    assert "ai_status" not in line


def test_logger_call_reaches_the_file_with_its_extra_fields(
    logger: logging.Logger, handler: AIResponseHandler, log_path: Path
):
    """The promise's one line of code: what stands in extra stands in the line."""
    logger.info("ai_response", extra={"question": "q", "response": "r", "platform": "deepseek", "latency_ms": 1500})
    handler.flush()

    (line,) = read_lines(log_path)
    assert {**line, "question": "q", "response": "r", "latency_ms": 1500, "provider": "deepseek"} == line
    assert (line["logger"], line["level"], line["message"]) == ("ai_responses", "INFO", "ai_response")
    assert line["seq"] == 0


@pytest.mark.parametrize("name", ["message", "asctime", "args", "name", "thread", "exc_info"])
def test_extra_that_logging_refuses_raises_in_the_caller_and_records_nothing(
    handler: AIResponseHandler, log_path: Path, name: str
):
    """That error is `logging`'s own, before any handler runs: we neither hide it nor keep half of the record."""
    logger = logging.getLogger("ai_responses")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    with pytest.raises(KeyError, match=name):
        logger.info("refused", extra={"question": "why?", name: "theirs"})
    assert handler.get_stats()["accepted"] == 0
    logger.info("taken", extra={"record_id": "taken", "question": "why?"})
    handler.flush()

    assert ids_in(log_path) == ["taken"]


def test_extra_under_a_name_of_ours_is_kept_in_metadata(handler: AIResponseHandler, log_path: Path):
    """A caller's timestamp, level, seq, checksum and host do not take the place of ours, and are not lost."""
    theirs = {"timestamp": "then", "level": 3, "seq": -1, "checksum": "0", "host": "h", "writer_id": "w", "_own": 1}
    logger = logging.getLogger("ai_responses")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.info("m", extra=theirs)
    handler.flush()

    (found,) = read_lines(log_path)
    assert found["metadata"] == {f"caller.{name}": value for name, value in theirs.items() if name != "_own"}
    assert (found["seq"], found["level"], found["_own"]) == (0, "INFO", 1)


def test_raw_file_is_read_by_the_tools_that_everybody_has(handler: AIResponseHandler, log_path: Path):
    """Lines are flat and real UTF-8, so grep finds an id and a word in any script, wc counts, and tail is the end."""
    for number in range(5):
        handler.submit_fields({"execution_id": f"exec_{number}", "question": "为什么？\nline two"})
    handler.flush()

    def run(*command: str) -> str:
        return subprocess.run([*command, str(log_path)], check=True, capture_output=True, text=True).stdout

    assert run("grep", "-c", '"execution_id":"exec_3"').strip() == "1"
    assert run("grep", "-c", "为什么").strip() == "5"
    assert run("wc", "-l").split()[0] == "5"
    assert json.loads(run("tail", "-n", "1"))["execution_id"] == "exec_4"


def test_own_record_id_is_kept(handler: AIResponseHandler, log_path: Path):
    """A caller's id is the record's identity."""
    handler.handle(record("mine"))
    handler.flush()

    assert ids_in(log_path) == ["mine"]


def test_change_made_after_the_call_does_not_show(handler: AIResponseHandler, log_path: Path):
    """A record is what it was when it was logged, however long it waits."""
    messages: list[Any] = [{"role": "user", "content": "before"}]
    handler.handle(record(messages=messages))
    messages[0]["content"] = "after"
    messages.append("more")
    handler.flush()

    assert read_lines(log_path)[0]["messages"] == [{"role": "user", "content": "before"}]


def test_full_queue_the_call_itself_writes(make: Make, log_path: Path):
    """Past the bound the status says that the caller wrote, and the file has everything."""
    handler = make(queue_max_size=2)

    assert [handler.submit(record(str(number))) for number in range(3)] == ["queued", "queued", "written_sync"]
    assert ids_in(log_path) == ["0", "1", "2"]


def test_no_thread_to_be_had_the_call_itself_writes(
    handler: AIResponseHandler, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A system that gives no thread costs latency, never a record; once it gives one again, records are queued."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        assert handler.submit(record("written")) == "written"
        assert ids_in(log_path) == ["written"]
        assert not handler.get_stats()["worker_alive"]

    assert handler.submit(record("queued")) == "queued"
    assert handler.get_stats()["worker_alive"]
    assert handler.get_stats()["written"] == 1


def test_level_and_filters_keep_records_out(make: Make, logger: logging.Logger, log_path: Path):
    """What the handler's level or filters reject is not recorded and not counted."""
    handler = make(log_path.with_name("strict.jsonl"), level="WARNING")
    logger.addHandler(handler)
    handler.addFilter(lambda record: getattr(record, "record_id", "") != "filtered")
    logger.info("m", extra={"record_id": "low"})
    logger.warning("m", extra={"record_id": "filtered"})
    logger.warning("m", extra={"record_id": "kept"})
    handler.flush()

    assert ids_in(log_path.with_name("strict.jsonl")) == ["kept"]
    assert handler.get_stats()["accepted"] == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters may return a record from 3.12 on")
def test_record_that_a_filter_puts_in_another_s_place_is_recorded(handler: AIResponseHandler, log_path: Path):
    """A filter may hand a changed copy on, as logging allows."""
    handler.addFilter(lambda _: record("replaced"))
    handler.handle(record("original"))
    handler.flush()

    assert ids_in(log_path) == ["replaced"]


def test_record_with_a_traceback_keeps_it_as_text(logger: logging.Logger, handler: AIResponseHandler, log_path: Path):
    """What logger.exception knows is in the line."""
    try:
        int("no number")
    except ValueError:
        logger.exception("failed", extra={"record_id": "one"})
    handler.flush()

    (line,) = read_lines(log_path)
    assert (line["error_class"], line["error_message"][:7]) == ("ValueError", "invalid")
    assert "Traceback" in line["exc_info"]


def test_nobody_who_holds_the_handlers_lock_holds_a_log_call_up(handler: AIResponseHandler):
    """logging.shutdown holds Handler.lock while it waits for the disk; a call in another thread goes on."""
    results: list[str] = []
    handler.acquire()
    thread = threading.Thread(target=lambda: results.append(str(handler.handle(record()))))
    thread.start()
    thread.join(10)
    alive = thread.is_alive()
    handler.release()
    thread.join()

    assert not alive
    assert handler.get_stats()["pending"] == 1


# --- nothing is raised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), AssertionError()])
def test_fault_of_ours_is_counted_and_told_and_never_raised(
    handler: AIResponseHandler, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    """Whatever goes wrong inside, the application's call returns, and the record counts as failed."""
    told: list[str] = []
    monkeypatch.setattr(handler, "handleError", lambda record: told.append(record.getMessage()))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(AIResponseFormatter, "encode", fail)

    assert handler.submit(record()) == "failed"
    snapshot = handler.get_stats()
    assert (snapshot["accepted"], snapshot["failed"]) == (1, 1)
    assert type(error).__name__ in str(snapshot["last_error"])
    assert len(told) == 1


@pytest.mark.usefixtures("no_collection")
def test_stack_that_ends_at_any_frame_of_ours_leaves_whole_records_and_true_counters(
    handler: AIResponseHandler, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Wherever a recursion that logs meets the end of the stack, what was taken is kept, and nothing stays locked."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    taken: list[str] = []

    def leave(frames: int, one: logging.LogRecord) -> None:
        """Come so close to the end of the stack, then log."""
        if frames:
            leave(frames - 1, one)
        elif handler.submit(one) == "queued":
            taken.append(one.record_id)  # type: ignore[attr-defined]

    records = [record(f"depth-{frames}") for frames in range(60)]
    limit, used, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1
    ends = 0
    try:
        sys.setrecursionlimit(used + 62)
        for frames, one in enumerate(records):
            try:
                leave(frames, one)
            except RecursionError:
                ends += 1
    finally:
        sys.setrecursionlimit(limit)

    assert 0 < ends < len(taken)
    snapshot = handler.get_stats()
    assert snapshot["accepted"] == snapshot["pending"] + snapshot["failed"]
    assert handler.submit(record("after")) == "queued"
    assert handler.flush()
    assert_all_there_once(log_path, [*taken, "after"], others=True)


# --- formatters ------------------------------------------------------------------------------------------------------


def test_our_formatter_with_options_is_used(handler: AIResponseHandler, log_path: Path):
    """python-json-logger's options work when they are set on our formatter."""
    handler.setFormatter(AIResponseFormatter(rename_fields={"question": "prompt"}, static_fields={"team": "a"}))
    handler.handle(record(question="q"))
    handler.flush()

    (line,) = read_lines(log_path)
    assert (line["prompt"], line["team"]) == ("q", "a")
    assert "question" not in line


def test_foreign_formatter_is_not_used_and_said_so(handler: AIResponseHandler, log_path: Path):
    """A formatter that makes no record of ours must not make our lines; a warning says what happens instead."""
    with pytest.warns(ConfigWarning, match=r"Formatter is not used.*AIResponseFormatter"):
        handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record())
    handler.flush()

    assert ids_in(log_path) == ["one"]


# --- options and places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["memory", "crash", "power"])
def test_durability_that_holds_warns_of_nothing(log_path: Path, durability: str):
    """Who asks for what there is hears nothing, and finds it in the counters."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handler = AIResponseHandler(log_path, durability=durability)
        assert handler.get_stats()["durability"] == durability
        handler.close()


def test_durability_without_a_journal_is_said_once_and_is_memory(log_path: Path):
    """Where no journal can be had the warning points at who asked, the counters are honest, and records go on."""
    log_path.with_name(f"{log_path.name}.journal").write_bytes(b"in the way")
    with pytest.warns(DurabilityWarning, match="acts as 'memory'.*killed loses what it had queued") as caught:
        handler = AIResponseHandler(log_path)
    handler.handle(record())
    handler.close()

    assert [warning.filename for warning in caught] == [__file__]
    assert handler.get_stats()["durability"] == "memory"
    assert ids_in(log_path) == ["one"]


def test_durability_warning_made_an_error_leaves_nothing_behind(log_path: Path):
    """Whoever turns warnings into errors gets one, and no journal or thread of a handler that there is not."""
    log_path.with_name(f"{log_path.name}.journal").write_bytes(b"in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DurabilityWarning):
            AIResponseHandler(log_path)


def test_wrong_option_is_an_error_with_its_range(log_path: Path):
    """An option out of range never passes, and nothing is made on the disk for it."""
    with pytest.raises(ConfigError, match="batch_size must be 1 to 10000"):
        AIResponseHandler(log_path, durability="memory", batch_size=0)

    assert not list(log_path.parent.iterdir())


@pytest.mark.parametrize(
    ("put", "found"),
    [
        pytest.param(lambda path: path.symlink_to("elsewhere"), "a symbolic link", id="symlink"),
        pytest.param(Path.mkdir, "a directory", id="directory"),
        pytest.param(os.mkfifo, "a FIFO", id="fifo"),
    ],
)
def test_log_that_cannot_stand_there_is_a_configuration_error(
    log_path: Path, put: Callable[[Path], object], found: str
):
    """What is in the way is said when the handler is made, not with the first record."""
    put(log_path)

    with pytest.raises(ConfigError, match=f"{found}.*filename"):
        AIResponseHandler(log_path, durability="memory")


def test_directory_that_can_never_be_made_is_a_configuration_error(tmp_path: Path):
    """A log below something that is a file can never be written: that is said at once."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="filename"):
        AIResponseHandler(tmp_path / "file" / "log.jsonl", durability="memory")


@pytest.mark.parametrize("filename", ["a\0b", "\ud800", 5, ["log"]])
def test_filename_that_is_no_path_is_refused_by_name(filename: Any):
    """What the system cannot take is told before anything is made, and as what it is."""
    with pytest.raises(ConfigError, match="filename must be a path, got"):
        AIResponseHandler(filename)


def test_filename_is_absolute_whatever_becomes_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The log is fixed when the handler is made: a later chdir does not move it."""
    monkeypatch.chdir(tmp_path)
    handler = AIResponseHandler("log.jsonl", durability="memory")
    monkeypatch.chdir("/")
    handler.handle(record())
    handler.close()

    assert handler.filename == str(tmp_path / "log.jsonl")
    assert ids_in(tmp_path / "log.jsonl") == ["one"]


# --- one writer for each file ----------------------------------------------------------------------------------------


def test_second_handler_on_the_path_shares_the_first_ones_writer(make: Make, log_path: Path):
    """A process is one writer for each file: one id, one sequence of numbers, one set of counters."""
    first, second = make(), make()
    first.handle(record("a"))
    second.handle(record("b"))
    assert first.flush()

    lines = read_lines(log_path)
    assert [line["seq"] for line in lines] == [0, 1]
    assert len({line["writer_id"] for line in lines}) == 1
    assert first.get_stats() == second.get_stats()


def test_second_handler_by_another_way_to_the_same_file_shares_it_too(make: Make, log_path: Path, tmp_path: Path):
    """The real path counts, not the name."""
    (tmp_path / "link").symlink_to(tmp_path)
    first, second = make(), make(tmp_path / "link" / log_path.name)
    first.handle(record("a"))
    second.handle(record("b"))
    first.flush()

    assert [line["seq"] for line in read_lines(log_path)] == [0, 1]


def test_closing_one_of_two_handlers_leaves_the_other_at_work(make: Make, log_path: Path):
    """The last one closes the writer; until then nothing ends."""
    first, second = make(), make()
    first.handle(record("a"))
    first.close()
    assert ids_in(log_path) == ["a"]
    assert second.get_stats()["worker_alive"]

    second.handle(record("b"))
    second.close()
    assert not second.get_stats()["worker_alive"]
    assert ids_in(log_path) == ["a", "b"]


def test_second_handler_leaves_an_interval_of_nothing_as_it_is(
    make: Make, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With flush_interval 0 each record is written at once, also after another handler on the path was made."""
    monkeypatch.setattr("ai_response_logging.listener._IDLE_S", 1000)
    first = make(flush_interval=0)
    first.handle(record("a"))
    second = make(flush_interval=0)
    lines, arrived = second._pipeline.queue, threading.Event()
    consume = lines.consume
    monkeypatch.setattr(lines, "consume", lambda count, **how: (consume(count, **how), lines.empty() and arrived.set()))
    second.handle(record("b"))

    assert arrived.wait(10)
    assert_all_there_once(log_path, "ab")


def test_second_handler_with_other_options_is_warned_of(make: Make):
    """Options that will not act as written are said."""
    make(queue_max_size=5)

    with pytest.warns(ConfigWarning, match="shares the first one's"):
        make(queue_max_size=6)


def test_handlers_on_different_paths_have_nothing_in_common(make: Make, log_path: Path):
    """Two files are two writers."""
    other = log_path.with_name("other.jsonl")
    one, two = make(), make(other)
    one.handle(record("a"))
    two.handle(record("b"))
    one.flush()
    two.flush()

    assert (ids_in(log_path), ids_in(other)) == (["a"], ["b"])
    assert read_lines(log_path)[0]["writer_id"] != read_lines(other)[0]["writer_id"]


# --- flush and close -------------------------------------------------------------------------------------------------


def test_flush_with_nothing_to_do_is_done(handler: AIResponseHandler):
    """Nothing waiting means everything is there."""
    assert handler.flush()
    assert handler.flush(0)


def test_close_is_a_drain_and_the_next_record_starts_the_thread_again(handler: AIResponseHandler, log_path: Path):
    """A closed handler goes on to record."""
    for round_ in range(3):
        assert handler.submit(record(str(round_))) == "queued"
        assert handler.get_stats()["worker_alive"]
        handler.close()
        assert not handler.get_stats()["worker_alive"]

    assert ids_in(log_path) == ["0", "1", "2"]
    assert handler.get_stats()["written"] == 3


def test_dropped_handler_loses_nothing(make: Make, log_path: Path):
    """Who forgets a handler with records waiting finds them in the file when a new one on the path is flushed."""
    first = AIResponseHandler(log_path, durability="memory", batch_size=10_000, flush_interval=1000)
    first.handle(record("a"))
    del first
    second = make()
    second.handle(record("b"))
    second.flush()

    assert_all_there_once(log_path, "ab")


# --- the queue handler alone -----------------------------------------------------------------------------------------


def test_queue_handler_puts_records_that_are_log_records_with_their_line():
    """A foreign listener sees a LogRecord; ours reads the line that it carries."""
    source: queue.Queue[Any] = queue.Queue()
    ResponseQueueHandler(source).handle(record("one"))
    prepared = source.get_nowait()

    assert isinstance(prepared, logging.LogRecord)
    assert isinstance(prepared, PreparedRecord)
    assert prepared.getMessage() == "m"
    assert prepared.id == "one"
    assert b'"record_id":"one"' in prepared.body


def test_queue_handler_on_a_full_foreign_queue_tells_logging(monkeypatch: pytest.MonkeyPatch):
    """Alone, it does what the stock handler does: it tells, and does not raise."""
    source: queue.Queue[Any] = queue.Queue(1)
    handler = ResponseQueueHandler(source)
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", told.append)
    handler.handle(record("one"))
    handler.handle(record("two"))

    assert source.qsize() == 1
    assert len(told) == 1
