from __future__ import annotations

import inspect
import logging
import math
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, read_lines, run_child

from ai_response_logging import (
    AIResponseHandler,
    AsyncAIResponseLogger,
    api,
    configure,
    get_async_logger,
    log_ai_response,
    log_ai_response_async,
    log_ai_response_enhanced,
)

LOGGER = logging.getLogger("ai_responses")


class Mute:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


@pytest.fixture
def handler(log_path: Path) -> Iterator[AIResponseHandler]:
    """Give the logger a handler, as a program that configured itself has one."""
    made = AIResponseHandler(log_path, durability="memory")
    LOGGER.addHandler(made)
    yield made
    LOGGER.removeHandler(made)
    made.close()


@pytest.fixture
def _no_recorders() -> Iterator[None]:
    """Close what get_async_logger keeps, and forget it."""
    yield
    for recorder in api._loggers.values():
        recorder.close()
    api._loggers.clear()


def run_all(threads: list[threading.Thread]) -> None:
    """Start all *threads* and wait for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def written(handler: AIResponseHandler) -> list[dict[str, Any]]:
    """Return what is in the file of *handler* once all of it is there."""
    assert handler.flush()
    return read_lines(handler.filename)


# --- the result --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [log_ai_response, log_ai_response_enhanced, log_ai_response_async])
def test_each_function_says_what_became_of_the_record(handler: AIResponseHandler, function: Any) -> None:
    """record_id, status and queue_size come back, and the record of that id is in the file."""
    result = function(question="why?", response="because", platform="deepseek", model="m", success=True)

    assert result.keys() == {"record_id", "status", "queue_size"}
    assert (result["status"], type(result["queue_size"])) == ("queued", int)
    (record,) = written(handler)
    assert (record["record_id"], record["question"], record["provider"]) == (result["record_id"], "why?", "deepseek")
    assert (record["level"], record["logger"], record["event"]) == ("INFO", "ai_responses", "response")


def test_the_function_called_async_is_not_awaitable(handler: AIResponseHandler) -> None:
    """Existing callers call it without await; its name promises nothing else, and its docstring says so."""
    assert not inspect.iscoroutinefunction(log_ai_response_async)
    assert not inspect.isawaitable(log_ai_response_async(question="why?"))
    assert "not awaitable" in (log_ai_response_async.__doc__ or "")
    assert len(written(handler)) == 1


def test_a_field_that_is_none_is_left_out(handler: AIResponseHandler) -> None:
    """None means unknown."""
    log_ai_response(question="why?", model=None, latency_ms=None)  # type: ignore[arg-type]

    (record,) = written(handler)
    assert {"model", "latency_ms"}.isdisjoint(record)


@pytest.mark.parametrize("name", ["message", "args", "name", "msg", "exc_info", "created", "self", "fields", "level"])
@pytest.mark.parametrize("with_filter", [False, True])
def test_any_keyword_is_accepted_and_kept(handler: AIResponseHandler, name: str, with_filter: bool) -> None:
    """What `logging` refuses as an extra the functions take, a filter in between or not; ours go to metadata."""
    if with_filter:
        handler.addFilter(lambda _: True)

    result = log_ai_response(question="why?", **{name: "theirs"})  # type: ignore[arg-type]

    assert result["status"] == "queued"
    (record,) = written(handler)
    assert record.get(name) == "theirs" or record["metadata"] == {f"caller.{name}": "theirs"}
    assert record["question"] == "why?"


@pytest.mark.parametrize("name", ["message", "args", "name", "msg", "self"])
def test_any_keyword_is_accepted_by_the_object_too(handler: AIResponseHandler, name: str) -> None:
    """A field may have any name, also that of a method's own argument."""
    AsyncAIResponseLogger().log_response(question="why?", **{name: "theirs"})  # type: ignore[arg-type]

    assert "theirs" in str(written(handler)[0])


def test_the_callers_dict_is_neither_kept_nor_changed(handler: AIResponseHandler) -> None:
    """What is passed in is read in the call, and is the caller's again afterwards."""
    fields: dict[str, Any] = {"platform": "豆包", "level": 3, "model": None, "metadata": {"k": [1]}}
    log_ai_response(**fields)
    assert fields == {"platform": "豆包", "level": 3, "model": None, "metadata": {"k": [1]}}
    fields["metadata"]["k"].append(2)

    assert written(handler)[0]["metadata"] == {"k": [1], "caller.level": 3}


# --- never raise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["question", "platform", "record_id", "event", "call_id", "metadata", "level"])
@pytest.mark.parametrize("value", [Mute(), math.nan, "\ud800", {1: b"x"}], ids=lambda value: type(value).__name__)
def test_no_value_makes_a_function_raise_or_a_record_vanish(handler: AIResponseHandler, name: str, value: Any) -> None:
    """Whatever is passed, it is recorded, as well as it can be."""
    result = log_ai_response(**{"brand": "x", name: value})  # type: ignore[misc]

    assert (result["status"], "error" in result) == ("queued", False)
    assert [record["brand"] for record in written(handler)] == ["x"]


def test_a_default_that_cannot_be_configured_is_failed_with_the_reason(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the environment does not end the program that records; the result says what it is."""
    monkeypatch.setenv("AI_RESPONSES_CONFIG", "no_such_preset")
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))

    result = log_ai_response(question="why?")

    assert (result["record_id"], result["status"], result["queue_size"]) == ("", "failed", 0)
    assert "no_such_preset" in result["error"]
    assert not log_path.exists()


@pytest.mark.parametrize("use", ["function", "logger"])
def test_a_filter_that_raises_does_not_reach_the_application(log_path: Path, use: str) -> None:
    """A handler never raises into the application, whoever's code failed in it; the record counts as failed."""
    told: list[str] = []

    class Recording(AIResponseHandler):
        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
            told.append(record.getMessage())

    handler = Recording(log_path, durability="memory")
    handler.addFilter(lambda _: 1 // 0)
    LOGGER.addHandler(handler)
    if use == "function":
        result = log_ai_response(question="why?")
        assert result["status"] == "failed"
        assert "ZeroDivisionError" in result["error"]
    else:
        LOGGER.error("m")

    assert handler.get_stats()["failed"] == 1
    assert len(told) == 1


def test_a_default_that_warns_is_configured_where_warnings_are_errors(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -W error` is for finding mistakes; it does not make every answer vanish."""
    monkeypatch.chdir(log_path.parent)
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [log_ai_response(question="why?") for _ in range(2)]
    for handler in LOGGER.handlers:
        handler.flush()

    assert_all_there_once(log_path, [result["record_id"] for result in results])


def test_a_record_after_close_is_still_recorded(handler: AIResponseHandler) -> None:
    """Somebody's dictConfig or logging.shutdown closes our handler and leaves it attached: that is a drain."""
    log_ai_response(record_id="before")
    handler.close()
    log_ai_response(record_id="after")
    assert handler.flush()

    assert_all_there_once(handler.filename, ["before", "after"])


# --- where it goes -----------------------------------------------------------------------------------------------


def test_a_disabled_logger_does_not_stop_the_functions(handler: AIResponseHandler) -> None:
    """Somebody's dictConfig disables loggers it does not know; the functions record all the same."""
    LOGGER.disabled = True
    LOGGER.setLevel(logging.CRITICAL)
    LOGGER.addFilter(lambda _: False)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        assert log_ai_response(question="why?")["status"] == "queued"
    finally:
        logging.disable(before)

    assert len(written(handler)) == 1


@pytest.mark.parametrize(("level", "status"), [(logging.WARNING, "filtered"), (logging.INFO, "queued")])
def test_the_handlers_level_applies(handler: AIResponseHandler, level: int, status: str) -> None:
    """A handler that wants warnings only gets no answers."""
    handler.setLevel(level)

    assert log_ai_response(question="why?")["status"] == status
    assert len(written(handler)) == (status == "queued")


def test_the_handlers_filters_see_the_fields_and_decide(handler: AIResponseHandler) -> None:
    """A filter sees each field as an attribute, may refuse a record, and what it adds or takes is in the line."""

    def decide(record: logging.LogRecord) -> bool:
        fields = vars(record)
        fields["tag"] = "seen"
        fields.pop("user_id", None)
        return bool(fields["brand"] == "x")

    handler.addFilter(decide)

    assert log_ai_response(brand="y")["status"] == "filtered"
    assert log_ai_response(brand="x", user_id="secret")["status"] == "queued"
    (record,) = written(handler)
    assert (record["brand"], record["tag"]) == ("x", "seen")
    assert "user_id" not in record


def test_our_handler_is_found_among_others(handler: AIResponseHandler) -> None:
    """A console handler before ours takes nothing away."""
    LOGGER.handlers.insert(0, logging.NullHandler())
    log_ai_response(question="why?")

    assert len(written(handler)) == 1
    LOGGER.handlers.pop(0)


def test_without_a_handler_the_default_is_configured_once(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call sets up what configure() would, many threads or one, and leaves all other logging alone."""
    monkeypatch.chdir(log_path.parent)
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    monkeypatch.setenv("AI_RESPONSES_CONFIG", "low_latency")
    others = logging.root.handlers[:]
    results: list[Any] = []
    barrier = threading.Barrier(8)

    def call() -> None:
        barrier.wait()
        results.append(log_ai_response(question="why?"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    run_all(threads)

    (handler,) = LOGGER.handlers
    assert isinstance(handler, AIResponseHandler)
    assert logging.root.handlers == others
    assert (handler.name, handler._options.batch_size) == ("ai_responses", 5)
    assert (LOGGER.level, LOGGER.propagate) == (logging.INFO, False)
    assert handler.flush()
    assert_all_there_once(log_path, [result["record_id"] for result in results])


BESIDE_DICT_CONFIG = """
import logging, sys, threading
from ai_response_logging import AIResponseHandler, api, config, get_async_logger, log_ai_response

begun, held = threading.Event(), threading.Event()

def slowly(*args, **options):
    begun.set()
    held.wait()
    return AIResponseHandler(*args, **options)

maker, call = {
    "function": (config, lambda: log_ai_response(question="why?")),
    "recorder": (api, lambda: get_async_logger(sys.argv[2]).log_response(question="why?")),
}[sys.argv[1]]
maker.AIResponseHandler = slowly
results = []
other = threading.Thread(target=lambda: results.append(call()))
other.start()
begun.wait()
with logging._lock:  # as dictConfig holds it while it imports and makes what it was told to
    held.set()
    results.append(call())
other.join()
print(*[result["record_id"] for result in results])
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["function", "recorder"])
def test_first_calls_beside_somebodys_dict_config_do_not_hang(log_path: Path, call: str) -> None:
    """One thread records first, and another from inside of a dictConfig: neither waits."""
    done = run_child(BESIDE_DICT_CONFIG, call, log_path, env={"AI_RESPONSES_FILE": str(log_path)}, timeout=8)

    ids = done.stdout.split()
    assert len(ids) == 2
    assert_all_there_once(log_path, ids)


@pytest.mark.slow
def test_a_program_that_just_ends_has_its_records(tmp_path: Path) -> None:
    """One import and one call: at the default place, without a word about flush or close."""
    run_child("from ai_response_logging import log_ai_response; log_ai_response(question='why?')", cwd=tmp_path)

    assert len(read_lines(tmp_path / "data" / "ai_responses" / "ai_responses.jsonl")) == 1


# --- the object --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_recorders")
def test_one_file_has_one_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """get_async_logger gives the same object for the same file, however its path is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    first, other = map(get_async_logger, ("ai.jsonl", "other.jsonl"))

    assert first is get_async_logger(tmp_path / "ai.jsonl") is get_async_logger(str(tmp_path / "link" / "ai.jsonl"))
    assert first is not other
    result = first.log_response(question="why?")
    first.flush()
    assert_all_there_once(tmp_path / "ai.jsonl", [result["record_id"]])
    assert read_lines(tmp_path / "other.jsonl") == []


def test_a_recorder_without_a_file_is_the_loggers_handler(handler: AIResponseHandler) -> None:
    """flush, get_stats and close of the object are those of the handler that everybody uses."""
    recorder = get_async_logger()
    log_ai_response(record_id="function")
    recorder.log_response(record_id="object")
    LOGGER.setLevel(logging.INFO)
    LOGGER.info("m", extra={"record_id": "logger"})

    assert recorder.flush(10)
    assert recorder.get_stats() == handler.get_stats()
    assert recorder.get_stats()["accepted"] == 3
    assert_all_there_once(handler.filename, ["function", "object", "logger"])
    recorder.close()
    assert not recorder.get_stats()["worker_alive"]


def test_a_recorder_that_was_made_before_configure_follows_it(log_path: Path) -> None:
    """An object that a module made at import records where the program configures later."""
    first = configure(filename=log_path, durability="memory")
    recorder = get_async_logger()
    second = configure(filename=log_path.with_name("second.jsonl"), durability="memory")
    recorder.log_response(record_id="later")
    first.close()

    assert second.flush()
    assert_all_there_once(second.filename, ["later"])
    assert read_lines(first.filename) == []


def test_a_recorder_of_its_own_leaves_the_logger_alone(log_path: Path) -> None:
    """AsyncAIResponseLogger(file) is a log beside the application's, and may be closed twice and used again."""
    recorder = AsyncAIResponseLogger(log_path)
    ids = [recorder.log_response(question="why?")["record_id"]]
    recorder.close()
    recorder.close()
    ids.append(recorder.log_response(question="again?")["record_id"])
    recorder.close()

    assert LOGGER.handlers == []
    assert_all_there_once(log_path, ids)
    assert recorder.get_stats()["written"] == 2


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise self


def test_a_filter_whose_error_cannot_be_told_raises_nothing(log_path: Path) -> None:
    """The functions never raise because of logging, not even by saying what went wrong."""
    handler = AIResponseHandler(log_path)
    LOGGER.addHandler(handler)

    def speechless(_: logging.LogRecord) -> bool:
        raise SpeechlessError

    handler.addFilter(speechless)
    result = log_ai_response(question="why?")

    assert (result["status"], handler.get_stats()["failed"]) == ("failed", 1)
    assert "SpeechlessError" in result["error"]
