"""The public names as a user would use them: mypy reads this file, nobody runs it."""

from __future__ import annotations

import logging
import queue
import warnings
from typing import TYPE_CHECKING, assert_type

from ai_response_logging import (
    AIResponseFormatter,
    AIResponseHandler,
    AIResponseLoggingError,
    AsyncAIResponseLogger,
    BatchFileHandler,
    BatchQueueListener,
    ConfigError,
    DurabilityWarning,
    ResponseFields,
    ResponseQueueHandler,
    Snapshot,
    configure,
    get_async_logger,
    log_ai_response,
    log_ai_response_async,
    log_ai_response_enhanced,
)
from ai_response_logging.matrix import Budget, ModelSpec, Plan, PlatformLimits, RunResult, run_plan, run_plan_async

if TYPE_CHECKING:
    from pathlib import Path


def configured(log: Path) -> AIResponseHandler:
    """Every kind of source, and options over it."""
    configure()
    configure("high_concurrency", filename=log, batch_size=20, flush_interval=0.5, durability="memory")
    configure(log.with_suffix(".yaml"))
    return configure({"version": 1, "handlers": {"ai_responses": {"class": "ai_response_logging.AIResponseHandler"}}})


def logged_by_a_function() -> str:
    """Typed fields, and what comes back."""
    result = log_ai_response(question="why?", response="because", platform="deepseek", latency_ms=1500, success=True)
    assert_type(result["record_id"], str)
    assert_type(result["queue_size"], int)
    log_ai_response_enhanced(question="why?", response="", success=False, error_type="timeout", metadata={"try": 1})
    log_ai_response_async(question="why?", tags=["a"], execution_id="exec_123", question_index=1, total_questions=40)
    return result["status"] + result.get("error", "")


def typed_fields() -> None:
    """The usual fields as a dict of their own, and an editor that says what is wrong before the program runs."""
    fields: ResponseFields = {"question": "why?", "temperature": 0.2, "stop": ["\n"]}
    log_ai_response(**fields)
    log_ai_response(latency_ms="fast")  # type: ignore[arg-type]  # a number
    log_ai_response_async(question="why?")["status"] = 1  # type: ignore[typeddict-item]  # text


def submitted(handler: AIResponseHandler, record: logging.LogRecord) -> str:
    """A LogRecord by hand, and what became of it."""
    assert_type(handler.submit(record), str)
    assert_type(handler.flush(timeout=2.5), bool)
    assert_type(handler.filename, str)
    snapshot: Snapshot = handler.get_stats()
    return snapshot["durability"]


def counted(handler: AIResponseHandler) -> int:
    """Counters have types, too."""
    stats = handler.get_stats()
    assert_type(stats["accepted"], int)
    assert_type(stats["last_error"], str | None)
    assert_type(stats["worker_alive"], bool)
    return stats["accepted"] - stats["written"] - stats["written_sync"] - stats["pending"] - stats["failed"]


def as_existing_callers_do(log: Path) -> None:
    """The object and its four methods."""
    assert_type(get_async_logger(), AsyncAIResponseLogger)
    recorder = get_async_logger(str(log))
    recorder.log_response(question="why?", response="because")
    assert_type(recorder.flush(1.0), bool)
    recorder.close()


def put_together_by_hand(log: Path) -> None:
    """Each piece works alone, behind and before the standard library's own."""
    handler: logging.Handler = AIResponseHandler(log, level=logging.INFO, max_bytes=1 << 20, compress=True)
    handler.setFormatter(AIResponseFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    listener = BatchQueueListener(waiting, BatchFileHandler(log))
    listener.start()
    logging.getLogger("ai_responses").addHandler(ResponseQueueHandler(waiting))
    listener.stop()


def refused() -> str:
    """Errors can be caught by our base and by the builtin people know, and our warnings be silenced by class."""
    warnings.simplefilter("ignore", DurabilityWarning)
    try:
        configure("no_such_preset")
    except ConfigError as error:
        as_base: AIResponseLoggingError = error
        as_builtin: ValueError = error
        return f"{as_base} {as_builtin}"
    return ""


async def asked(log: Path) -> None:
    """A run, in a program of its own and within an event loop."""
    plan = Plan(
        ["{brandName}?"],
        [ModelSpec("p", "m", temperature=0.5)],
        brand="A",
        competitors=["B"],
        platforms={"p": PlatformLimits(concurrency=2)},
        budget=Budget(max_calls=3),
    )
    assert_type(run_plan(plan, filename=log, logger="app", on_cell=lambda cell: cell.record_id), RunResult)
    assert_type((await run_plan_async(plan, filename=log)).stop_reason, str | None)
