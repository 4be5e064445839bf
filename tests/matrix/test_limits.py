"""Budgets, refusals, lines and the async form: whole runs against the local server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines, run_child

from ai_response_logging import configure
from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import (
    Budget,
    CellDone,
    ModelSpec,
    Plan,
    PlatformLimits,
    estimate_plan,
    run_plan,
    run_plan_async,
)
from ai_response_logging.testing import LocalModelServer, Reply, SeenRequest

PATIENCE_S = 60.0  # a machine with other work starts three interpreters in this
OPTIONS: dict[str, Any] = {"durability": "memory", "handler_options": {"flush_interval": 0.05}}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server for the length of a test."""
    with LocalModelServer() as running:
        yield running


def plan_for(server: LocalModelServer, questions: int = 3, **changes: Any) -> Plan:
    """Make a plan of so many questions and two models of two platforms."""
    models = [ModelSpec(f"p{at}", f"m{at}", server.base_url, max_tokens=20) for at in (1, 2)]
    settings = {"max_retries": 0, "timeout_seconds": 60, "concurrency": 4, **changes}
    return Plan([f"question {at}" for at in range(1, questions + 1)], models, **settings)


def counts_in(log_path: Path) -> Counter[tuple[int, int]]:
    """Count the records of each cell."""
    return Counter((record["question_index"], record["model_index"]) for record in read_lines(log_path))


def at_once(requests_in_flight: list[int]) -> Any:
    """Return what a server is to call for each request: counts those in flight, which last for a moment."""
    lock, now = threading.Lock(), Counter[str]()

    def respond(request: SeenRequest) -> Reply:
        with lock:
            now[str(request.model)] += 1
            requests_in_flight.append(now[str(request.model)] if request.model == "m1" else 0)

        def leave() -> None:
            with lock:
                now[str(request.model)] -= 1

        timer = threading.Timer(0.03, leave)  # before the answer: a later request never meets this one
        timer.start()
        timer.join()
        return Reply()

    return respond


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_platforms_limit_holds_over_all_processes(log_path: Path, processes: int):
    """However many processes there are, one platform never has more calls in flight than it allows."""
    in_flight: list[int] = []
    with LocalModelServer(at_once(in_flight)) as server:
        plan = plan_for(server, 8, concurrency=8, platforms={"p1": PlatformLimits(concurrency=2)})
        result = run_plan(plan, filename=log_path, processes=processes, **OPTIONS)

    assert result.is_complete
    assert max(in_flight) <= 2
    assert set(counts_in(log_path).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_budget_of_calls_stops_the_run_and_resuming_goes_on(server: LocalModelServer, log_path: Path, processes: int):
    """Exactly so many calls, over all processes; each resume has a whole budget again, until all is done."""
    plan = plan_for(server, 3, budget=Budget(max_calls=4))
    first = run_plan(plan, filename=log_path, processes=processes, **OPTIONS)
    asked = len(server.requests)
    last = run_plan(plan, filename=log_path, execution_id=first.execution_id, resume=True, **OPTIONS)

    assert (first.done, first.missing, first.stop_reason, asked) == (4, 2, "max_calls", 4)
    assert (last.is_complete, last.stop_reason, len(server.requests)) == (True, None, 6)
    assert set(counts_in(log_path).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_budget_of_tokens_is_not_exceeded(server: LocalModelServer, log_path: Path, processes: int):
    """With max_tokens at every model the tokens that were reported are within the budget."""
    server.reply_always(Reply(usage={"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}))
    plan = plan_for(server, 10, budget=Budget(max_tokens=200))

    result = run_plan(plan, filename=log_path, processes=processes, **OPTIONS)

    used = sum(record["tokens_used"] for record in read_lines(log_path))
    assert result.stop_reason == "max_tokens"
    assert 100 <= used <= 200
    assert result.missing == 20 - len(server.requests)


def test_log_that_refuses_a_record_stops_the_run(server: LocalModelServer, log_path: Path):
    """No further answer is paid for once one could not be kept."""
    handler = configure(filename=log_path, durability="memory")
    handler.addFilter(lambda record: getattr(record, "question_index", 0) != 2)
    heard: list[CellDone] = []

    result = run_plan(plan_for(server, 5, concurrency=1), filename=log_path, on_cell=heard.append)

    assert [cell.status for cell in heard][-1] == "filtered"
    assert [cell.is_kept for cell in heard] == [True, True, False]
    assert (result.stop_reason, result.done, result.missing) == ("refused", 2, 8)
    assert len(server.requests) == 3


@pytest.mark.slow
def test_log_that_refuses_records_of_a_process_stops_the_others(server: LocalModelServer, log_path: Path):
    """A record that one process could not keep ends the calls of all."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate), model="m2")

    def on_cell(cell: CellDone) -> None:
        if not cell.is_kept:
            gate.set()

    options = {"durability": "memory", "handler_options": {"level": "ERROR"}}  # which every answer is below
    result = run_plan(plan_for(server, 50, concurrency=2), filename=log_path, processes=2, on_cell=on_cell, **options)

    assert (result.stop_reason, result.done) == ("refused", 0)
    assert len(server.requests) < 10


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_applications_logger_gets_a_line_for_each_cell(
    server: LocalModelServer, log_path: Path, caplog: pytest.LogCaptureFixture, processes: int
):
    """One INFO line with the record's id and status, in this process, whichever made the call."""
    server.reply_with(Reply(status=500), model="m2")
    caplog.set_level(logging.INFO, "shop")

    run_plan(plan_for(server), filename=log_path, processes=processes, logger="shop", **OPTIONS)

    lines = {record.record_id: record for record in caplog.records if record.name == "shop"}
    records = read_lines(log_path)
    assert lines.keys() == {record["record_id"] for record in records}
    for record in records:
        line = lines[record["record_id"]]
        outcome = "done" if record["success"] else "failed (server_error)"
        assert line.levelno == logging.INFO
        assert line.status in {"queued", "written", "written_sync"}
        assert line.getMessage() == (
            f"question {record['question_index']}, {record['platform']} {record['model']}: {outcome}; "
            f"record {record['record_id']} {line.status}"
        )


def test_lines_never_come_into_the_log_of_answers(server: LocalModelServer, log_path: Path):
    """A logger that writes there is refused; the default says nothing where everything goes there."""
    root = logging.getLogger()
    level = root.level
    handler = configure(filename=log_path, durability="memory")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with pytest.raises(ConfigError, match="would be records, too"):
            run_plan(plan_for(server), filename=log_path, logger="shop")
        run_plan(plan_for(server), filename=log_path)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)

    # httpx has lines of its own, which are no business of ours.
    loggers = Counter(record["logger"].partition(".")[0] for record in read_lines(log_path))
    assert loggers["ai_responses"] == 6
    assert loggers["ai_response_logging"] == 0


def test_run_inside_an_event_loop_leaves_it_running(server: LocalModelServer, log_path: Path):
    """The calls are made in the application's loop, which goes on with its own work meanwhile."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate))
    started: list[tuple[str, int]] = []

    async def application() -> Any:
        run = asyncio.create_task(
            run_plan_async(plan_for(server), filename=log_path, on_start=lambda *what: started.append(what), **OPTIONS)
        )
        await asyncio.to_thread(server.wait_for_requests, 4, timeout_s=PATIENCE_S)
        gate.set()  # said by this loop, while the run is under way in it
        return await run

    result = asyncio.run(application())

    assert (result.is_complete, started) == (True, [(result.execution_id, 6)])
    assert set(counts_in(log_path).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_cancelled_async_run_logs_what_was_in_flight(server: LocalModelServer, log_path: Path, processes: int):
    """Cancelling it ends its calls, and its processes, before the cancellation goes on."""
    server.reply_always(Reply(hold=threading.Event()))

    async def application() -> None:
        run = asyncio.create_task(run_plan_async(plan_for(server), filename=log_path, processes=processes, **OPTIONS))
        await asyncio.to_thread(server.wait_for_requests, 4, timeout_s=PATIENCE_S)
        run.cancel()
        await run

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(application())

    assert Counter(record["error_type"] for record in read_lines(log_path)) == {"cancelled": 4}
    assert len(server.requests) == 4


def test_estimate_says_what_would_be_asked_and_touches_nothing(server: LocalModelServer, tmp_path: Path):
    """Cells, tokens and the least time, by platform; no call, no file, no directory."""
    log = tmp_path / "none" / "log.jsonl"
    limits = {"p2": PlatformLimits(calls_per_minute=1)}
    plan = plan_for(server, 4, platforms=limits, budget=Budget(max_calls=7))

    estimate = estimate_plan(plan, filename=log)

    assert (estimate.expected, estimate.calls, estimate.execution_id) == (8, 7, None)
    assert [(each.platform, each.calls, each.max_answer_tokens) for each in estimate.platforms] == [
        ("p1", 4, 80),
        ("p2", 3, 60),
    ]
    assert estimate.prompt_tokens == 7 * (3 + 4)
    assert estimate.max_answer_tokens == 140
    assert [each.least_minutes for each in estimate.platforms] == [0.0, 2.0]
    assert server.requests == []
    assert not log.parent.exists()


def test_estimate_of_a_resume_counts_what_is_missing(server: LocalModelServer, log_path: Path):
    """What the log holds already is not asked again, and not counted."""
    plan = plan_for(server, budget=Budget(max_calls=4))
    first = run_plan(plan, filename=log_path, **OPTIONS)
    before = log_path.read_bytes()

    estimate = estimate_plan(plan, filename=log_path, execution_id=first.execution_id, resume=True)

    assert (estimate.calls, estimate.execution_id) == (2, first.execution_id)
    assert log_path.read_bytes() == before
    assert len(server.requests) == 4


def test_more_calls_at_once_than_open_files_are_refused_before_the_first(server: LocalModelServer, log_path: Path):
    """Calls that could only fail for want of a file descriptor are not made."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    try:
        with pytest.raises(ConfigError, match=r"100 calls at once in one process need about 164 open files.*120"):
            run_plan(plan_for(server, 50, concurrency=100), filename=log_path, **OPTIONS)
        assert run_plan(plan_for(server, 2, concurrency=100), filename=log_path, **OPTIONS).is_complete
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_more_than_a_thousand_calls_at_once_do_not_wait_for_connections(log_path: Path):
    """The SDK's own limit of connections is not ours: every call is in flight before the first is answered."""
    code = """
    import resource, sys, threading
    from ai_response_logging.matrix import ModelSpec, Plan, run_plan
    from ai_response_logging.testing import LocalModelServer, Reply

    if __name__ == "__main__":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 4000:
            sys.exit(77)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4000, hard))
        gate = threading.Event()
        with LocalModelServer() as server:
            server.reply_always(Reply(hold=gate))
            def look():
                server.wait_for_requests(1010, timeout_s=100)
                gate.set()
            watcher = threading.Thread(target=look)
            watcher.start()
            plan = Plan([f"q{at}" for at in range(1010)], [ModelSpec("p", "m", server.base_url)], concurrency=1010,
                        timeout_seconds=200, max_retries=0)
            result = run_plan(plan, filename=sys.argv[1], durability="memory")
            watcher.join()
        print(result.done, result.failed, result.missing)
    """
    ended = run_child(code, log_path, timeout=110, expect=None)

    if ended.returncode == 77:
        pytest.skip("this process may not open 4,000 files")
    assert ended.stdout.split() == ["1010", "0", "0"], ended.stderr
