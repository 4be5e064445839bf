from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, read_lines, run_child

from ai_response_logging import configure, log_ai_response
from ai_response_logging.errors import ConfigError, LogReadError, MissingExtraError
from ai_response_logging.matrix import CellDone, ModelSpec, Plan, estimate_plan, run_plan, run_plan_async
from ai_response_logging.matrix.cells import CellIndex, cells_of, deal
from ai_response_logging.matrix.workers import _Worker
from ai_response_logging.testing import LocalModelServer, Reply, SeenRequest

PATIENCE_S = 40.0  # a machine with other work starts three interpreters in this
pytestmark = pytest.mark.timeout(120)

QUESTIONS = ["why?", "how?", "when?"]
OPTIONS: dict[str, Any] = {"durability": "memory", "handler_options": {"flush_interval": 0.05}}


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a model server for the length of a test."""
    with LocalModelServer() as running:
        yield running


def plan_for(server: LocalModelServer, models: int = 4, **changes: Any) -> Plan:
    """Make a plan of three questions and so many models, m1, m2, ..."""
    settings = {"questions": QUESTIONS, "max_retries": 0, "timeout_seconds": 15, "concurrency": 4, **changes}
    return Plan(models=[ModelSpec("local", f"m{at}", server.base_url) for at in range(1, models + 1)], **settings)


def cells_in(log_path: Path) -> Counter[CellIndex]:
    """Count the records of each cell; fails on a line that is not whole."""
    return Counter(CellIndex(record["question_index"], record["model_index"]) for record in read_lines(log_path))


def cell_of(request: SeenRequest) -> CellIndex:
    """Return which cell a request asks."""
    return CellIndex(QUESTIONS.index(request.question) + 1, int(str(request.model)[1:]))


def wait_until(is_so: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait for something another process does."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came"
        threading.Event().wait(0.01)


def worker_pid(number: int) -> int:
    """Return the process id of a worker of a run in this process."""
    [worker] = [child for child in multiprocessing.active_children() if child.name == f"ai-responses-{number}"]
    assert worker.pid
    return worker.pid


def kill_in_the_middle(cells: list[CellIndex], log_path: Path) -> Callable[[SeenRequest], Reply | None]:
    """
    Make worker 1 of 2 die by SIGKILL: after some of its records are in the log, while some of its calls are in flight.

    Returns what the server is to call for each request.
    """
    [hand, _] = deal(cells, 2)
    fatal = set(hand[len(hand) // 2 :])
    lock, killed = threading.Lock(), threading.Event()

    def respond(request: SeenRequest) -> Reply | None:
        if cell_of(request) not in fatal or killed.is_set():
            return None
        with lock:
            if not killed.is_set():
                pid = worker_pid(1)
                wait_until(lambda: log_path.exists() and f'"pid":{pid},'.encode() in log_path.read_bytes())
                os.kill(pid, signal.SIGKILL)
                killed.set()
        return Reply(cut_after_bytes=0)

    return respond


@pytest.mark.parametrize(
    ("function", "without"),
    [
        (run_plan_async, {"on_drain"}),
        (
            estimate_plan,
            {"processes", "durability", "config", "handler_options", "logger"} | {"on_start", "on_cell", "on_drain"},
        ),
    ],
)
def test_arguments_that_are_said_to_be_those_of_run_plan_are(function: Callable[..., object], without: set[str]):
    """
    Each is written out where a reader and an editor look for it, with the same default; none may go its own way.
    """
    theirs = inspect.signature(run_plan).parameters
    ours = inspect.signature(function).parameters

    assert dict(ours) == {name: one for name, one in theirs.items() if name not in without}


def test_run_in_this_process_logs_every_cell_once(server: LocalModelServer, log_path: Path):
    """One process: every cell is asked once, logged once, and the result says so."""
    started: list[tuple[str, int]] = []

    result = run_plan(plan_for(server), filename=log_path, on_start=lambda *what: started.append(what), **OPTIONS)

    assert cells_in(log_path) == Counter(cells_of(plan_for(server)))
    assert (result.expected, result.done, result.failed, result.missing) == (12, 12, 0, 0)
    assert result.is_complete
    assert started == [(result.execution_id, 12)]
    assert result.filename == str(log_path)
    assert {record["execution_id"] for record in read_lines(log_path)} == {result.execution_id}
    assert len(server.requests) == 12


@pytest.mark.slow
def test_run_in_several_processes_logs_every_cell_once_in_one_file(server: LocalModelServer, log_path: Path):
    """Three processes write into one log: each is a writer of its own, and no cell is lost or doubled."""
    server.reply_always(Reply(status=500), model="m2")
    heard: list[CellDone] = []

    result = run_plan(plan_for(server), filename=log_path, processes=3, on_cell=heard.append, **OPTIONS)

    assert cells_in(log_path) == Counter(cells_of(plan_for(server)))
    assert (result.done, result.failed, result.missing, result.is_complete) == (9, 3, 0, False)
    assert {(cell.model, cell.status) for cell in result.grid.cells if cell.status != "done"} == {("m2", "failed")}
    assert len({record["writer_id"] for record in read_lines(log_path)}) == 3
    assert sorted((cell.question_index, cell.model_index) for cell in heard) == cells_of(plan_for(server))
    assert result.lost_workers == ()


@pytest.mark.slow
@pytest.mark.faults
def test_killed_worker_is_reported_and_resuming_asks_what_is_missing(log_path: Path):
    """After a SIGKILL in the middle the run ends, names the dead, and a resumed run leaves every cell once."""
    cells = [CellIndex(question_index, model_index) for question_index in (1, 2, 3) for model_index in (1, 2, 3, 4)]
    with LocalModelServer(kill_in_the_middle(cells, log_path)) as server:
        plan = plan_for(server)
        result = run_plan(plan, filename=log_path, processes=2, **OPTIONS)
        before = cells_in(log_path)
        resumed = run_plan(
            plan, filename=log_path, processes=2, execution_id=result.execution_id, resume=True, **OPTIONS
        )

    [lost] = result.lost_workers
    assert (lost.number, lost.reason) == (1, "killed by SIGKILL")
    assert str(lost.pid) in str(lost)
    assert 0 < result.missing < result.expected
    assert sum(before.values()) == result.done == result.expected - result.missing
    assert cells_in(log_path) == Counter(cells)
    assert resumed.is_complete
    assert resumed.lost_workers == ()
    assert len({record["writer_id"] for record in read_lines(log_path)}) >= 3


# argv: the log, the server, the id of the run. Dies with the answers of its first cells in its journal alone.
KILLED = """
import os, signal, sys
from ai_response_logging.matrix import ModelSpec, Plan, run_plan
done = []

def on_cell(cell):
    done.append(cell)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

plan = Plan(questions=["why?", "how?", "when?"], models=[ModelSpec("local", f"m{at}", sys.argv[2]) for at in (1, 2)],
            max_retries=0, timeout_seconds=15, concurrency=1)
run_plan(plan, filename=sys.argv[1], execution_id=sys.argv[3], on_cell=on_cell,
         handler_options={"batch_size": 10_000, "flush_interval": 1000})
"""


@pytest.mark.slow
@pytest.mark.faults
def test_cells_in_a_killed_processs_journal_are_not_asked_again(server: LocalModelServer, log_path: Path):
    """After kill -9 the answers that only a journal holds are paid for: resuming asks the others, each cell once."""
    run_child(KILLED, log_path, server.base_url, "killed", expect=-signal.SIGKILL)
    assert log_path.read_bytes() == b""
    assert len(server.requests) == 3
    started: list[tuple[str, int]] = []

    resumed = run_plan(
        plan_for(server, 2, concurrency=1),
        filename=log_path,
        execution_id="killed",
        resume=True,
        on_start=lambda *what: started.append(what),
        **OPTIONS,
    )

    assert started == [("killed", 3)]
    assert len(server.requests) == 6
    assert resumed.is_complete
    assert set(cells_in(log_path).values()) == {1}


def test_journal_that_may_not_be_read_stops_a_resume_before_the_first_call(server: LocalModelServer, log_path: Path):
    """Cells that may be in a journal nobody can look into are not asked, and paid for, again."""
    plan = plan_for(server, 1)
    first = run_plan(plan, filename=log_path, **OPTIONS)
    location = log_path.with_name(f"{log_path.name}.journal") / "location"
    location.mkdir(parents=True)

    with pytest.raises(LogReadError, match="location cannot be read: it is a directory"):
        run_plan(plan, filename=log_path, execution_id=first.execution_id, resume=True, **OPTIONS)

    assert len(server.requests) == 3


STOPPED = """
    import sys
    from ai_response_logging.matrix import ModelSpec, Plan, RunInterrupted, run_plan

    if __name__ == "__main__":
        log, url, processes = sys.argv[1:]
        plan = Plan(["why?"], [ModelSpec("local", f"m{at}", url) for at in range(1, 7)], concurrency=4, max_retries=0)
        try:
            run_plan(plan, filename=log, processes=int(processes), execution_id="run", durability="memory",
                     on_drain=lambda: print("draining", flush=True))
        except RunInterrupted as ended:
            print(ended.result.stop_reason, ended.result.done, ended.result.missing)
            sys.exit(3)
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_second_ctrl_c_logs_the_calls_in_flight_as_cancelled(
    server: LocalModelServer, log_path: Path, tmp_path: Path, processes: int
):
    """Twice ends the run at once and goes on to the caller; what was in flight is in the log, what was not is not."""
    server.reply_always(Reply(hold=threading.Event()))
    script = tmp_path / "run_it.py"
    script.write_text(STOPPED.replace("\n    ", "\n"), encoding="utf-8")

    with child_process(script, log_path, server.base_url, processes) as child:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        os.kill(child.pid, signal.SIGINT)
        assert read_line(child) == "draining"
        os.kill(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE_S)

    records = read_lines(log_path)
    assert child.returncode == 130
    assert "Traceback" not in errors
    assert len(records) == 4
    assert {(record["success"], record["error_type"]) for record in records} == {(False, "cancelled")}
    assert {record["model"] for record in records} == {request.model for request in server.requests}


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_first_ctrl_c_lets_the_calls_in_flight_end_and_begins_no_other(
    server: LocalModelServer, log_path: Path, tmp_path: Path, processes: int
):
    """Once: every call in flight is answered and logged, none is begun, and the caller learns what the log holds."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate))
    script = tmp_path / "run_it.py"
    script.write_text(STOPPED.replace("\n    ", "\n"), encoding="utf-8")

    with child_process(script, log_path, server.base_url, processes) as child:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        os.kill(child.pid, signal.SIGINT)
        assert read_line(child) == "draining"
        gate.set()
        said, errors = child.communicate(timeout=PATIENCE_S)

    records = read_lines(log_path)
    assert (child.returncode, said.split(), errors) == (3, ["interrupted", "4", "2"], "")
    assert [record["success"] for record in records] == [True] * 4
    assert len(server.requests) == 4


# argv: the log, the server. Each worker gets a SIGINT while it still imports, as from a terminal.
STARTING = """
import os, signal, sys
from ai_response_logging.matrix import ModelSpec, Plan, run_plan

if __name__ == "__mp_main__":
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    log, url = sys.argv[1:]
    result = run_plan(Plan(["why?"], [ModelSpec("local", f"m{at}", url) for at in range(4)]), filename=log, processes=2)
    print(result.done, result.missing, *result.lost_workers)
"""


@pytest.mark.slow
@pytest.mark.faults
def test_ctrl_c_while_workers_start_does_not_end_them(server: LocalModelServer, log_path: Path, tmp_path: Path):
    """Only the parent decides what a Ctrl-C means, also for workers that have not begun to listen to it."""
    script = tmp_path / "run_it.py"
    script.write_text(STARTING, encoding="utf-8")

    ended = run_child(script, log_path, server.base_url, timeout=PATIENCE_S)

    assert (ended.stdout.split(), ended.stderr) == (["4", "0"], "")


def read_line(child: subprocess.Popen[str]) -> str:
    """Read a line that a child prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.faults
def test_workers_of_a_killed_parent_end_and_log_what_was_in_flight(
    server: LocalModelServer, log_path: Path, tmp_path: Path
):
    """No orphan goes on asking: workers whose parent was killed log what was in flight as cancelled, and end."""
    server.reply_always(Reply(hold=threading.Event()))
    script = tmp_path / "run_it.py"
    script.write_text(STOPPED.replace("\n    ", "\n"), encoding="utf-8")

    with child_process(script, log_path, server.base_url, 2) as child:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: log_path.exists() and log_path.read_bytes().count(b'"cancelled"') == 4)
        pids = {record["pid"] for record in read_lines(log_path)}
        wait_until(lambda: not any(is_alive(pid) for pid in pids))
        child.wait(PATIENCE_S)

    assert len(pids) == 2
    assert len(server.requests) == 4


def is_alive(pid: int) -> bool:
    """Say whether a process that is not our child runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_callback_that_raises_stops_the_workers(server: LocalModelServer, log_path: Path):
    """The caller's own error comes back, every process is gone, and what was in flight is in the log."""
    gate = threading.Event()
    server.reply_always(Reply(hold=gate))
    server.reply_always(Reply(), model="m1")

    def on_cell(_cell: CellDone) -> None:
        server.wait_for_requests(4, timeout_s=PATIENCE_S)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_plan(plan_for(server), filename=log_path, processes=2, on_cell=on_cell, **OPTIONS)

    assert not [child for child in multiprocessing.active_children() if child.name.startswith("ai-responses")]
    outcomes = Counter(record.get("error_type", "done") for record in read_lines(log_path))
    assert outcomes["cancelled"] >= 3
    assert set(outcomes) == {"done", "cancelled"}
    assert set(cells_in(log_path).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_log_that_cannot_be_written_is_an_error_before_the_first_call(
    server: LocalModelServer, tmp_path: Path, processes: int
):
    """Nothing is paid for whose answer could not be kept, in this process as in others."""
    (tmp_path / "log").mkdir()

    with pytest.raises(ConfigError, match="a directory"):
        run_plan(plan_for(server), filename=tmp_path / "log", processes=processes, **OPTIONS)

    assert server.requests == []


def test_resuming_a_complete_run_asks_nothing(server: LocalModelServer, log_path: Path):
    """A run that has everything is left alone."""
    plan = plan_for(server, 2)
    first = run_plan(plan, filename=log_path, **OPTIONS)
    started: list[tuple[str, int]] = []

    again = run_plan(
        plan,
        filename=log_path,
        execution_id=first.execution_id,
        resume=True,
        on_start=lambda *what: started.append(what),
        **OPTIONS,
    )

    assert again == first
    assert started == [(first.execution_id, 0)]
    assert len(server.requests) == 6


def test_failed_cells_are_asked_again_only_if_wanted(server: LocalModelServer, log_path: Path):
    """Resuming leaves failures in peace; with retry_failed they are asked again and the newest record counts."""
    plan = plan_for(server, 2, concurrency=1)
    server.reply_with(Reply(status=500), Reply(status=429), model="m2")
    first = run_plan(plan, filename=log_path, **OPTIONS)
    same = {"filename": log_path, "execution_id": first.execution_id, "resume": True, **OPTIONS}

    left = run_plan(plan, **same)
    retried = run_plan(plan, **same, retry_failed=True)

    assert (first.done, first.failed) == (left.done, left.failed) == (4, 2)
    assert retried.is_complete
    assert len(server.requests) == 6 + 2
    assert sum(cells_in(log_path).values()) == 6 + 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"questions": ["why?", "who?", "when?"]}, "question 2 is 'how?' in the log, 'who?' in the plan"),
        ({"models": 3}, "6 cells, the plan has 9"),
    ],
)
def test_resuming_with_another_plan_is_refused_before_the_first_call(
    server: LocalModelServer, log_path: Path, changes: dict[str, Any], says: str
):
    """Answers never land in the cells of other questions."""
    first = run_plan(plan_for(server, 2), filename=log_path, **OPTIONS)
    other = plan_for(server, **{"models": 2, **changes})

    with pytest.raises(ConfigError, match="not the one") as caught:
        run_plan(other, filename=log_path, execution_id=first.execution_id, resume=True, **OPTIONS)

    assert says in str(caught.value)
    assert len(server.requests) == 6


def test_resuming_an_unknown_run_is_refused(server: LocalModelServer, log_path: Path):
    """A mistyped id does not start a run of its own."""
    run_plan(plan_for(server, 1), filename=log_path, **OPTIONS)

    with pytest.raises(ConfigError, match="no cell of execution typo in"):
        run_plan(plan_for(server, 1), filename=log_path, execution_id="typo", resume=True, **OPTIONS)


def test_new_run_under_a_used_id_is_refused(server: LocalModelServer, log_path: Path):
    """Two runs never share an id by accident."""
    run_plan(plan_for(server, 1), filename=log_path, execution_id="mine", **OPTIONS)

    with pytest.raises(ConfigError, match="mine has 3 cells in"):
        run_plan(plan_for(server, 1), filename=log_path, execution_id="mine", **OPTIONS)

    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"processes": 0}, "processes must be 1 or more"),
        ({"execution_id": " "}, "execution_id must be printable"),
        ({"execution_id": "a\nb"}, "execution_id must be printable"),
        ({"resume": True}, "needs the execution_id"),
        ({"retry_failed": True}, "goes with resume"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    server: LocalModelServer, log_path: Path, arguments: dict[str, Any], says: str
):
    """Wrong use is a clear error before anything is asked or written."""
    with pytest.raises(ConfigError, match=says):
        run_plan(plan_for(server), filename=log_path, **arguments)

    assert not log_path.exists()


def test_missing_key_is_an_error_before_the_first_call(
    server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A key that is not there is found before another model has been paid for."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    plan = Plan(
        ["why?"], [ModelSpec("local", "m1", server.base_url), ModelSpec("p", "m", server.base_url, "NO_SUCH_KEY")]
    )

    with pytest.raises(ConfigError, match=r"NO_SUCH_KEY is not set.*models\[1\]\.api_key_env"):
        run_plan(plan, filename=log_path, **OPTIONS)

    assert server.requests == []


def test_run_inside_an_event_loop_is_refused_with_the_way_out(server: LocalModelServer, log_path: Path):
    """Nobody's event loop is blocked for the length of a run."""

    async def inside() -> None:
        run_plan(plan_for(server), filename=log_path, **OPTIONS)

    with pytest.raises(ConfigError, match="await run_plan_async"):
        asyncio.run(inside())


def test_missing_sdk_names_the_extra(server: LocalModelServer, log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the SDK the error says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(MissingExtraError, match=r"pip install 'ai-response-logging\[openai\]'"):
        run_plan(plan_for(server), filename=log_path, **OPTIONS)


def test_run_in_this_process_uses_the_handler_that_is_there(server: LocalModelServer, log_path: Path):
    """A program that has configured its log finds the run in it, and its handler unchanged."""
    handler = configure(filename=log_path, durability="memory")
    log_ai_response(question="before", response="x", platform="p", model="m")

    result = run_plan(plan_for(server, 1))

    assert result.filename == str(log_path)
    assert handler.get_stats()["accepted"] == 1 + 3
    assert len(read_lines(log_path)) == 4


def test_dead_worker_is_noticed_though_somebody_holds_its_pipe_open():
    """A child that the application forked at the wrong moment keeps the pipe open; nobody waits for it."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    worker = object.__new__(_Worker)
    worker.is_over, worker._process = False, process
    worker.progress, held_open = multiprocessing.Pipe(duplex=False)
    with worker.progress, held_open:
        held_open.send("its last message")
        has_more = not worker.has_ended()
        worker.progress.recv()
        assert has_more
        assert worker.has_ended()
