from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from helpers import read_lines

from ai_response_logging import configure
from ai_response_logging.matrix import CellDone, ModelSpec, Plan, PlatformLimits, Question, outcome
from ai_response_logging.matrix.calls import CellRunner
from ai_response_logging.matrix.cells import CellIndex, cells_of
from ai_response_logging.matrix.schedule import Schedule
from ai_response_logging.testing import LocalModelServer, Reply

ANSWER = {"success": True, "retry_count": 0, "finish_reasons": ["stop"], "response_model": "m"}


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server for the length of a test."""
    with LocalModelServer() as running:
        yield running


def plan_for(server: LocalModelServer, *models: str, **options: Any) -> Plan:
    """Make a plan of one question that tries each call once."""
    settings = {"questions": ["why?"], "max_retries": 0, "timeout_seconds": 10, **options}
    specs = [ModelSpec("本地", name, server.base_url) for name in models or ("m",)]
    return Plan(models=specs, **settings)


def asked(plan: Plan, log_path: Path, **options: Any) -> list[dict[str, Any]]:
    """Ask every cell in this process and return the log, by cell."""
    handler = configure(filename=log_path, durability="memory")
    try:
        asyncio.run(ask_all(plan, **options))
    finally:
        handler.flush()
    return by_cell(log_path)


async def ask_all(plan: Plan, *, on_cell: Callable[[CellDone], object] = lambda _cell: None, **limits: Any) -> None:
    """Ask every cell in this event loop."""
    await CellRunner(plan, Schedule(plan, cells_of(plan), **limits), execution_id="run", on_cell=on_cell).run()


def by_cell(log_path: Path) -> list[dict[str, Any]]:
    """Return what is in the log, by cell."""
    return sorted(read_lines(log_path), key=lambda record: (record["question_index"], record["model_index"]))


def test_answer_is_logged_with_all_that_is_known(server: LocalModelServer, log_path: Path):
    """Request, coordinates, answer, tokens, ids and business context stand in the record, and nothing is null."""
    plan = Plan(
        questions=[Question("why?", question_category="basics")],
        models=[ModelSpec("本地", "m", server.base_url, temperature=0.5, max_tokens=9, seed=3, stop="END")],
        system="be short", brand="Acme", competitors="Other", industry="phones", timeout_seconds=10, max_retries=0,
    )  # fmt: skip

    [record] = asked(plan, log_path)

    expected = {
        "event": "response", "operation": "chat", "execution_id": "run", "question_index": 1, "total_questions": 1,
        "model_index": 1, "total_models": 1, "question": "why?", "system": "be short", "platform": "本地", "model": "m",
        "response": "m answers: why?", "response_model": "m", "response_id": "chatcmpl-local-000001",
        "request_id": "req_000001", "finish_reasons": ["stop"], "success": True, "retry_count": 0,
        "tokens_used": 7, "prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 0, "reasoning_tokens": 0,
        "temperature": 0.5, "max_tokens": 9, "seed": 3, "stop": ["END"], "timeout_seconds": 10,
        "brand": "Acme", "competitor": "Other", "industry": "phones", "question_category": "basics",
    }  # fmt: skip
    assert {name: record.get(name) for name in expected} == expected
    assert record["latency_ms"] > 0
    assert record["call_id"]
    assert None not in record.values()
    sent = server.requests[0]
    assert [message["role"] for message in sent.messages] == ["system", "user"]
    assert {name: sent.body[name] for name in ("temperature", "max_tokens", "seed", "stop")} == {
        "temperature": 0.5, "max_tokens": 9, "seed": 3, "stop": ["END"],
    }  # fmt: skip


def test_unknown_tokens_and_settings_are_absent(server: LocalModelServer, log_path: Path):
    """What the provider does not report and the plan does not set has no field, rather than a null or a zero."""
    server.reply_with(Reply(usage={}))

    [record] = asked(plan_for(server), log_path)

    absent = {
        "tokens_used",
        "prompt_tokens",
        "cached_tokens",
        "temperature",
        "max_tokens",
        "brand",
        "system",
        "error_type",
    }
    assert absent.isdisjoint(record)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=400), {"error_type": "bad_request", "error_class": "BadRequestError", "http_status_code": 400}),
        (Reply(status=401), {"error_type": "auth", "error_class": "AuthenticationError", "http_status_code": 401}),
        (Reply(status=403), {"error_type": "auth", "http_status_code": 403}),
        (Reply(status=404), {"error_type": "bad_request", "http_status_code": 404}),
        (Reply(status=408), {"error_type": "timeout", "http_status_code": 408}),
        (Reply(status=429), {"error_type": "rate_limit", "error_class": "RateLimitError", "http_status_code": 429}),
        (Reply(status=500), {"error_type": "server_error", "error_class": "InternalServerError"}),
        (Reply(status=503), {"error_type": "server_error", "http_status_code": 503, "request_id": "req_000001"}),
        (Reply(status=400, error_code="content_filter"), {"error_type": "content_filter", "http_status_code": 400}),
        (Reply(cut_after_bytes=0), {"error_type": "connection", "error_class": "APIConnectionError"}),
        (Reply(cut_after_bytes=20), {"error_type": "connection", "error_class": "APIConnectionError"}),
        (Reply(malformed=True), {"error_type": "exception", "error_class": "JSONDecodeError"}),
        (Reply(finish_reason="content_filter", text=""), {"error_type": "content_filter", "tokens_used": 1}),
    ],
)
def test_failed_call_is_logged_with_its_error_and_stops_no_other(
    server: LocalModelServer, log_path: Path, reply: Reply, expected: dict[str, Any]
):
    """Whatever an endpoint does wrong, its cell is in the log with the reason, and the other cells have answers."""
    server.reply_always(reply, model="bad")

    bad, good = asked(plan_for(server, "bad", "m", concurrency=1), log_path)

    assert {name: bad.get(name) for name in expected} == expected
    assert (bad["success"], bad["response"]) == (False, "")
    assert bad["error_message"]
    assert None not in bad.values()
    assert {name: good.get(name) for name in ANSWER} == ANSWER


def test_call_that_takes_too_long_is_logged_as_a_timeout(server: LocalModelServer, log_path: Path):
    """A silent endpoint costs its timeout, not the run."""
    server.reply_always(Reply(hold=threading.Event()), model="silent")

    silent, good = asked(plan_for(server, "silent", "m", timeout_seconds=0.2), log_path)

    assert (silent["error_type"], silent["error_class"]) == ("timeout", "APITimeoutError")
    assert silent["timeout_seconds"] == 0.2
    assert silent["latency_ms"] >= 200
    assert good["success"] is True


def test_endpoint_that_drips_is_given_up_in_the_end(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole call has an end, too, for endpoints whose blanks keep the SDK's own timeout from firing."""
    server.reply_always(Reply(hold=threading.Event()))
    monkeypatch.setattr("ai_response_logging.matrix.calls._longest_call_s", lambda _limits: 0.1)

    [record] = asked(plan_for(server, timeout_seconds=1000), log_path)

    assert (record["error_type"], record["error_class"]) == ("timeout", "TimeoutError")


def test_refused_connection_names_its_cause(server: LocalModelServer, log_path: Path):
    """A server that is not there is a connection error whose message says more than "Connection error."."""
    plan = plan_for(server)
    server.close()

    [record] = asked(plan, log_path)

    assert record["error_type"] == "connection"
    assert "ConnectError" in record["error_message"]


def test_retried_call_is_one_record_with_its_retries(server: LocalModelServer, log_path: Path):
    """The SDK's retries are counted, and leave one record."""
    server.reply_with(Reply(status=429, retry_after_s=0.01), Reply(status=500, retry_after_s=0.01))

    [record] = asked(plan_for(server, max_retries=2), log_path)

    assert (record["success"], record["retry_count"]) == (True, 2)
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", [RuntimeError, RecursionError, MemoryError])
def test_exception_of_any_kind_is_logged_and_stops_no_other(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
):
    """An error inside the SDK, or ours, is a failed cell like any other."""
    good = outcome.answer_fields

    def broken(completion: Any, **more: Any) -> dict[str, Any]:
        if completion.model == "bad":
            raise kind("boom")
        return good(completion, **more)

    monkeypatch.setattr("ai_response_logging.matrix.calls.answer_fields", broken)

    bad, other = asked(plan_for(server, "bad", "m"), log_path)

    assert (bad["error_type"], bad["error_class"], bad["error_message"]) == ("exception", kind.__name__, "boom")
    assert other["success"] is True


def test_error_without_a_text_is_logged_all_the_same():
    """An exception whose text cannot be had still has a type and a message."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    fields = outcome.error_fields(MuteError())

    assert fields["error_type"] == "exception"
    assert "ValueError" in fields["error_message"]


@pytest.mark.parametrize("found", ["<html>login</html>", SimpleNamespace(choices=None), SimpleNamespace(choices=[])])
def test_answer_that_is_no_completion_says_what_came(found: object):
    """A proxy's login page, or an error dressed as success, is a failure that names what came."""
    with pytest.raises(outcome.UnexpectedAnswerError) as caught:
        outcome.answer_fields(found, request_id=None, retries=0)

    assert repr(found)[:20] in str(caught.value)


def test_cached_tokens_are_found_where_a_provider_puts_them():
    """Beside the details as well as in them; what is reported as 0 stays 0."""
    beside = SimpleNamespace(total_tokens=5, prompt_cache_hit_tokens=3)
    within = SimpleNamespace(prompt_tokens_details=SimpleNamespace(cached_tokens=0), prompt_cache_hit_tokens=3)

    assert outcome.usage_fields(beside) == {"tokens_used": 5, "cached_tokens": 3}
    assert outcome.usage_fields(within) == {"cached_tokens": 0}


def test_no_more_calls_are_in_flight_than_allowed(server: LocalModelServer, log_path: Path):
    """With a concurrency of 3, a fourth call begins only when one has ended."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate))
    counts: list[int] = []

    def watch() -> None:
        server.wait_for_requests(3)
        with pytest.raises(TimeoutError):
            server.wait_for_requests(4, timeout_s=0.2)
        counts.append(len(server.requests))
        gate.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    records = asked(plan_for(server, *"abcdef"), log_path, concurrency=3)
    watcher.join()

    assert counts == [3]
    assert len(records) == 6


def test_slow_call_keeps_no_other_slot_waiting(server: LocalModelServer, log_path: Path):
    """While one call hangs, the others go through all that is left, one after the other."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate), model="a")
    heard: list[str] = []

    def on_cell(cell: CellDone) -> None:
        heard.append(cell.model)
        if heard == list("bcdef"):
            gate.set()

    records = asked(plan_for(server, *"abcdef"), log_path, concurrency=2, on_cell=on_cell)

    assert heard == list("bcdefa")
    assert all(record["success"] for record in records)


def test_retries_take_their_turn_and_are_counted_on_failure_too(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every attempt that the SDK makes counts against the platform's limit, and the record says how many there were."""
    server.reply_always(Reply(status=500, retry_after_s=0.001))
    turns: list[CellIndex] = []
    monkeypatch.setattr(Schedule, "retry", lambda _self, cell, _now_s: turns.append(cell) or 0.0)

    [record] = asked(plan_for(server, max_retries=2), log_path)

    assert (record["retry_count"], record["error_type"]) == (2, "server_error")
    assert turns == [CellIndex(1, 1)] * 2
    assert len(server.requests) == 3


@pytest.mark.slow
def test_waiting_for_a_turn_is_not_held_against_the_call(server: LocalModelServer, log_path: Path):
    """A call whose retry had to wait for longer than a call may take is not given up for that."""
    server.reply_with(Reply(status=500, retry_after_s=0.001))
    limits = {"本地": PlatformLimits(calls_per_minute=60)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ai_response_logging.matrix.calls._longest_call_s", lambda _limits: 0.9)
        [record] = asked(plan_for(server, max_retries=1, platforms=limits), log_path)

    assert (record["success"], record["retry_count"]) == (True, 1)


def test_cancelled_run_logs_what_was_in_flight_and_only_that(server: LocalModelServer, log_path: Path):
    """Cells in flight are in the log as cancelled, those not begun are not, and the cancellation goes on."""
    server.reply_always(Reply(hold=threading.Event()), model="b")
    server.reply_always(Reply(hold=threading.Event()), model="c")
    plan = plan_for(server, *"abcd")

    async def cancel_in_the_middle() -> None:
        run = asyncio.create_task(ask_all(plan, concurrency=2))
        await asyncio.to_thread(server.wait_for_requests, 3)
        run.cancel()
        await run

    handler = configure(filename=log_path, durability="memory")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_in_the_middle())
    handler.flush()

    records = {record["model"]: record for record in by_cell(log_path)}
    assert set(records) == {"a", "b", "c"}
    assert records["a"]["success"] is True
    for model in "bc":
        assert (records[model]["success"], records[model]["error_type"]) == (False, "cancelled")
        assert records[model]["error_class"] == "CancelledError"


def test_callback_that_raises_ends_the_run_and_loses_no_cell(server: LocalModelServer, log_path: Path):
    """The caller's own error comes back to it; what was in flight is logged as cancelled."""
    both_are_there = threading.Event()
    server.reply_always(Reply(hold=both_are_there), model="a")
    server.reply_always(Reply(hold=threading.Event()), model="b")

    def on_cell(cell: CellDone) -> None:
        raise ZeroDivisionError(cell.model)

    # Not in on_cell: that one holds the loop up, which has the second request to send.
    look = threading.Thread(target=lambda: (server.wait_for_requests(2), both_are_there.set()))
    look.start()
    with pytest.raises(ZeroDivisionError, match="a"):
        asked(plan_for(server, *"abc"), log_path, concurrency=2, on_cell=on_cell)
    look.join()

    assert [(record["model"], record.get("error_type")) for record in by_cell(log_path)] == [
        ("a", None),
        ("b", "cancelled"),
    ]


def test_callback_hears_of_every_cell_after_it_was_logged(server: LocalModelServer, log_path: Path):
    """Each cell is reported once, with its outcome and what logging said of it."""
    server.reply_always(Reply(status=500), model="b")
    heard: list[CellDone] = []

    asked(plan_for(server, *"ab"), log_path, on_cell=heard.append)

    assert sorted(
        (cell.question_index, cell.model_index, cell.model, cell.success, cell.error_type) for cell in heard
    ) == [
        (1, 1, "a", True, None),
        (1, 2, "b", False, "server_error"),
    ]
    assert {cell.status for cell in heard} <= {"queued", "written", "written_sync"}


def test_proxy_from_the_environment_is_not_asked_for_this_machine(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A proxy that is set for the world outside does not swallow calls to the loopback."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    [record] = asked(plan_for(server), log_path)

    assert record["success"] is True


def test_key_goes_to_the_endpoint_and_not_into_the_log(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The named variable's value is sent as the key, and stands nowhere in the record."""
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    monkeypatch.setattr("ai_response_logging.testing.server._SECRET_HEADERS", frozenset())
    plan = Plan(["why?"], [ModelSpec("p", "m", server.base_url, "MY_KEY")])

    [record] = asked(plan, log_path)

    assert server.requests[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in repr(record)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(1), "cancelled"),
        (openai.OpenAIError("x"), "exception"),
        (OSError(5, "x"), "exception"),
    ],
)
def test_every_error_has_a_type(error: BaseException, kind: str):
    """The type is one of the few names that records use."""
    assert outcome.error_fields(error)["error_type"] == kind
