from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
from helpers import assert_all_there_once, read_lines, run_child

from ai_response_logging import _pipeline
from ai_response_logging.handler import AIResponseHandler


def make(log: Path, **options: Any) -> AIResponseHandler:
    """Make a handler that writes only when told to."""
    defaults = {"durability": "memory", "batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.001}
    return AIResponseHandler(log, **{**defaults, **options})


def record(record_id: str) -> logging.LogRecord:
    """Make a record to log."""
    return logging.makeLogRecord({"msg": "m", "record_id": record_id})


def test_thread_starts_with_the_first_record_and_not_before(log_path: Path):
    """A process that imports and configures but never logs has no thread of ours."""
    threads = threading.active_count()
    handler = make(log_path)
    assert threading.active_count() == threads
    assert not handler.get_stats()["worker_alive"]

    handler.submit(record("a"))
    assert threading.active_count() == threads + 1
    handler.close()
    assert threading.active_count() == threads


def test_first_records_of_many_threads_start_one_thread(log_path: Path):
    """However many threads log first, one listener serves them."""
    handler = make(log_path)
    begin, threads = threading.Barrier(8), threading.active_count()

    def work(name: int) -> None:
        begin.wait()
        handler.submit(record(str(name)))

    workers = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert threading.active_count() == threads + 1
    handler.close()
    assert_all_there_once(log_path, map(str, range(8)))


def test_listener_that_ends_between_two_looks_costs_no_record(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A record that is put while the listener ends finds that nobody listens, and starts it again."""
    handler = make(log_path)
    pipeline = handler._pipeline
    handler.submit(record("a"))
    put = pipeline.queue.put

    def ends_meanwhile(*args: Any, **options: Any) -> bytes | None:
        pipeline.listener.stop()
        return put(*args, **options)

    monkeypatch.setattr(pipeline.queue, "put", ends_meanwhile)
    assert handler.submit(record("b")) == "queued"
    monkeypatch.undo()

    assert handler.get_stats()["worker_alive"]
    handler.close()
    assert_all_there_once(log_path, "ab")


def test_no_thread_and_a_refusing_log_leave_the_record_waiting_if_there_is_room(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without a thread and with a full disk a record waits in its place; the next one brings it home."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = make(log_path, queue_max_size=2)
    writer = handler._pipeline.writer

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def no_space(*_: Any) -> int:
        raise OSError(28, "no space")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with monkeypatch.context() as full:
        full.setattr(os, "write", no_space)
        assert [handler.submit(record(one)) for one in "abc"] == ["queued", "queued", "failed"]
        assert handler.get_stats()["pending"] == 2

    assert handler.submit(record("d")) == "written"
    assert writer.queue.empty()
    handler.close()
    assert_all_there_once(log_path, "abd")


def test_faults_are_told_by_the_users_own_handle_error(log_path: Path):
    """Who overrides handleError on the handler hears of the writer's faults there, and nowhere else."""
    told: list[str] = []

    class Mine(AIResponseHandler):
        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the parent's name
            told.append(record.getMessage())

    handler = Mine(log_path, durability="memory", max_retries=0, close_timeout=0.02, flush_interval=1000)
    handler.submit(record("a"))
    log_path.rename(log_path.with_name("moved"))
    log_path.mkdir()
    assert handler.flush(0.01) is False
    log_path.rmdir()
    handler.close()

    assert len(told) == 1
    assert "a directory" in told[0]
    assert "1 records wait" in told[0] or "1 record waits" in told[0]


def test_fault_without_any_handler_of_loggings_own_is_printed(log_path: Path, capsys: pytest.CaptureFixture[str]):
    """By default a fault is reported through logging's own error handling, on stderr."""
    handler = make(log_path, max_retries=0)
    handler.submit(record("a"))
    log_path.rename(log_path.with_name("moved"))
    log_path.mkdir()
    handler.flush(0.01)
    log_path.rmdir()
    handler.close()

    assert "a directory" in capsys.readouterr().err
    assert_all_there_once(log_path, "a")


def test_flush_and_the_close_behind_it_share_one_budget(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As logging.shutdown calls them, both together take at most close_timeout."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = make(log_path, close_timeout=8.0)
    now, budgets = [1000.0], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def drain(budget_s: float) -> bool:
        budgets.append(budget_s)
        now[0] += min(budget_s, 5.0)
        return False

    handler.submit(record("a"))
    with monkeypatch.context() as slow:
        slow.setattr(_pipeline, "time", Clock)
        slow.setattr(handler._pipeline.listener, "drain", drain)
        slow.setattr(handler._pipeline.listener, "stop", budgets.append)
        slow.setattr(handler._pipeline.writer, "close_files", budgets.append)
        handler.flush()
        handler.close()

    assert budgets[0] == 8.0
    assert budgets[1] == pytest.approx(3.0)
    assert budgets[2:] == pytest.approx([0.0, 0.0])
    handler.close()


def test_dropped_handlers_leave_no_pipeline_and_no_thread(log_path: Path):
    """A handler that was closed and forgotten takes everything with it."""
    handler = make(log_path)
    handler.submit(record("a"))
    handler.close()
    gone = weakref.ref(handler._pipeline)
    del handler
    gc.collect()

    assert gone() is None


def test_shutdown_in_one_thread_and_dict_config_in_another_do_not_wait_for_each_other(log_path: Path):
    """`logging.shutdown` closes handlers under their locks, dictConfig takes it under `logging`'s. Ours has none."""
    code = """
import logging, sys, threading, weakref
from ai_response_logging import AIResponseHandler
handler = AIResponseHandler(sys.argv[1])
handler.handle(logging.makeLogRecord({"msg": "m", "record_id": "a"}))
configuring = threading.Event()
def configure():
    with logging._lock:
        configuring.set()
        handler.acquire()
        handler.release()
close = handler._pipeline.close
def close_beside_it(*args):
    close(*args)
    threading.Thread(target=configure).start()
    configuring.wait()
handler._pipeline.close = close_beside_it
logging.shutdown([weakref.ref(handler)])
handler._pipeline.close = close
"""
    run_child(code, log_path)

    assert_all_there_once(log_path, ["a"])


def test_close_says_nothing_of_what_another_thread_logs_meanwhile(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A record that comes when the thread has ended starts it once more; it is not told as one that was left behind."""
    handler = make(log_path)
    told: list[object] = []
    monkeypatch.setattr(handler, "handleError", told.append)
    handler.submit(record("before"))
    pipeline = handler._pipeline
    stop, drain = pipeline.listener.stop, pipeline.writer.drain
    go_on = threading.Event()

    def stop_and_log(timeout: float | None = None) -> None:
        stop(timeout)
        # Nobody takes it off the queue until close() has looked at that.
        monkeypatch.setattr(pipeline.writer, "drain", lambda **options: go_on.wait() and drain(**options))
        other = threading.Thread(target=handler.submit, args=(record("meanwhile"),))
        other.start()
        other.join()
        monkeypatch.setattr(pipeline.writer, "tidy_up", lambda *_: None)

    monkeypatch.setattr(pipeline.listener, "stop", stop_and_log)
    monkeypatch.setattr(pipeline.writer, "close_files", lambda _: go_on.set())
    handler.close()
    monkeypatch.undo()
    handler.close()

    assert told == []
    assert_all_there_once(log_path, ["before", "meanwhile"])


def test_handler_made_after_the_last_one_was_closed_is_a_writer_of_its_own(log_path: Path):
    """What a closed handler counted is not the next one's."""
    first = make(log_path)
    first.submit(record("a"))
    first.close()
    second = make(log_path, queue_max_size=5)
    second.submit(record("b"))
    second.close()

    assert second.get_stats()["accepted"] == 1
    assert len({line["writer_id"] for line in read_lines(log_path)}) == 2


@pytest.mark.slow
def test_many_files_end_together_within_one_timeout(tmp_path: Path):
    """At the end of a process all its writers share the longest close_timeout; what is refused is told for each."""
    code = """
    import json, logging, os, sys
    from ai_response_logging import _pipeline
    from ai_response_logging.handler import AIResponseHandler
    handlers = []
    for number in range(3):
        path = f"{sys.argv[1]}/log{number}.jsonl"
        handler = AIResponseHandler(path, durability="memory", flush_interval=1000, close_timeout=0.2, retry_delay=0.01)
        handler.handle(logging.makeLogRecord({"msg": "m", "record_id": str(number)}))
        handlers.append(handler)
    os.rename(f"{sys.argv[1]}/log0.jsonl", f"{sys.argv[1]}/moved")
    os.mkdir(f"{sys.argv[1]}/log0.jsonl")
    budgets = []
    for handler in handlers:
        drain = handler._pipeline.writer.drain
        def noted(*, budget_s=None, drain=drain, **options):
            budgets.append(budget_s)
            return drain(budget_s=budget_s, **options)
        handler._pipeline.writer.drain = noted
    _pipeline._exit.end()
    assert max(budget for budget in budgets if budget is not None) <= 0.2, budgets
    print(json.dumps([handler.get_stats()["pending"] for handler in handlers]))
    """
    done = run_child(code, tmp_path)

    assert json.loads(done.stdout) == [1, 0, 0]
    assert "1 record" in done.stderr
    assert_all_there_once(tmp_path / "log1.jsonl", ["1"])
    assert_all_there_once(tmp_path / "log2.jsonl", ["2"])


TWO_AT_ONCE = """
import logging, sys, threading
from ai_response_logging import AIResponseHandler, _pipeline

begun, held, real = threading.Event(), threading.Event(), _pipeline._new

def slowly(path, options):
    begun.set()
    held.wait()
    return real(path, options)

_pipeline._new = slowly
other = threading.Thread(target=AIResponseHandler, args=(sys.argv[1] + "/other.jsonl",))
other.start()
begun.wait()
with logging._lock:  # as dictConfig holds it from its first line to its last
    held.set()
    AIResponseHandler(sys.argv[1] + "/mine.jsonl").close()
other.join()
"""


def test_a_handler_made_beside_somebodys_dict_config_does_not_hang(tmp_path: Path):
    """One thread configures `logging`, another makes its first handler: neither waits for the other."""
    run_child(TWO_AT_ONCE, tmp_path)


def test_threads_that_make_the_first_handler_at_once_share_one_writer(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever comes second finds the other's writer, and leaves nothing of its own behind."""
    both, real = threading.Barrier(2), _pipeline._new
    handlers: list[AIResponseHandler] = []

    def together(path: str, options: Any) -> Any:
        made = real(path, options)
        both.wait()
        return made

    monkeypatch.setattr(_pipeline, "_new", together)
    makers = [threading.Thread(target=lambda: handlers.append(AIResponseHandler(log_path))) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    for number, handler in enumerate(handlers):
        handler.submit(record(str(number)))
    for handler in handlers:
        handler.close()

    assert len({line["writer_id"] for line in read_lines(log_path)}) == 1
    assert_all_there_once(log_path, "01")
    assert not Path(f"{log_path}.journal").exists()


def test_a_handler_that_is_flushed_and_closed_while_it_is_made_works(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another thread's dictConfig closes each handler that `logging` knows, also one that is not made to the end."""
    real = logging.Handler.__init__

    def met_early(self: logging.Handler, level: int | str = 0) -> None:
        real(self, level)
        self.flush()
        self.close()

    monkeypatch.setattr(logging.Handler, "__init__", met_early)
    handler = make(log_path)
    monkeypatch.undo()

    assert handler.submit(record("a")) == "queued"
    handler.close()
    assert_all_there_once(log_path, ["a"])


def test_master_of_a_server_that_forks_in_c_gets_no_thread_of_ours(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker that uWSGI forks beside a thread of ours would wait for ever: in its master the call itself writes."""
    server = types.ModuleType("uwsgi")
    server.masterpid, server.worker_id = os.getpid, int  # type: ignore[attr-defined]  # made by the server, too
    monkeypatch.setitem(sys.modules, "uwsgi", server)
    handler = AIResponseHandler(log_path)
    threads = threading.active_count()

    assert handler.submit(logging.makeLogRecord({"msg": "m", "record_id": "one"})) == "written"
    assert threading.active_count() == threads
    handler.close()
    assert_all_there_once(log_path, ["one"])
