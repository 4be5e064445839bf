from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from _children import PREAMBLE, Notes, assert_kept, assert_sums, holding_the_lock
from helpers import assert_all_there_once, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]

OPTIONS = {"batch_size": 10_000, "flush_interval": 1000}


def run(code: str, log: Path, notes: Notes, **options: object) -> str:
    """Run *code* in a process whose handler writes at its end only, and return what it said on stderr."""
    end = "\nhandler.close()\nstats()\n"
    given = json.dumps({**OPTIONS, **options})
    return run_child(PREAMBLE + "import logging.config\n" + dedent(code) + end, log, notes.path, given).stderr


def test_shutdown_is_a_drain_and_the_next_record_is_taken(log_path: Path, notes: Notes):
    """logging.shutdown brings home what waits, and whoever logs after it loses nothing."""
    code = """
    attach()
    for round in range(3):
        for number in range(20):
            log(f"round{round}-{number}")
        logging.shutdown()
        after = stats()
        assert after["pending"] == 0, after
        assert not after["worker_alive"], after
    """
    run(code, log_path, notes)

    assert len(notes.ids("queued")) == 60
    assert_kept(log_path, notes)


@pytest.mark.parametrize("disable", [True, False])
def test_somebodys_dict_config_neither_loses_nor_stops_records(log_path: Path, notes: Notes, disable: bool):
    """A dictConfig that knows nothing of us closes our handler but leaves it attached: it goes on to record."""
    code = f"""
    attach()
    log("before")
    logging.config.dictConfig({{"version": 1, "disable_existing_loggers": {disable}}})
    assert stats()["pending"] == 0
    assert handler in logger.handlers
    assert logger.disabled is {disable}
    logger.disabled = False
    for number in range(20):
        log(f"after-{{number}}")
    """
    run(code, log_path, notes)

    assert len(notes.ids()) == 21
    assert_kept(log_path, notes)


def test_functions_go_on_while_somebodys_dict_config_has_disabled_the_logger(log_path: Path, notes: Notes):
    """log_ai_response uses the handler of its logger also while that logger is disabled."""
    code = """
    from ai_response_logging import log_ai_response
    attach()
    logging.config.dictConfig({"version": 1})
    assert logger.disabled
    for number in range(20):
        result = log_ai_response(record_id=f"call-{number}", response="x")
        note(id=result["record_id"], status=result["status"])
    """
    run(code, log_path, notes)

    assert len(notes.ids("queued")) == 20
    assert_kept(log_path, notes)


def test_our_own_dict_config_again_and_again_loses_nothing(log_path: Path, notes: Notes):
    """Running the same configuration again replaces the handler, and what the old one held is in the file."""
    code = """
    config = {
        "version": 1, "disable_existing_loggers": False,
        "handlers": {"ai": {"class": "ai_response_logging.AIResponseHandler", "filename": LOG, "durability": "memory",
                            **OPTIONS}},
        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ai"], "propagate": False}},
    }
    threads_before = threading.active_count()
    for round in range(5):
        logging.config.dictConfig(config)
        logger = logging.getLogger("ai_responses")
        (handler,) = logger.handlers
        for number in range(20):
            log(f"round{round}-{number}")
    assert threading.active_count() == threads_before + 1
    """
    run(code, log_path, notes)

    assert len(notes.ids("queued")) == 100
    assert_sums(*notes.stats())
    assert_all_there_once(log_path, notes.ids())


def test_shutdown_amid_logging_threads_loses_nothing(log_path: Path, notes: Notes):
    """Threads that log while somebody shuts logging down, again and again, keep every record they were told of."""
    code = """
    attach()
    begun = threading.Barrier(5)
    def work(name):
        begun.wait()
        for number in range(200):
            log(f"{name}-{number}")
    threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    while any(thread.is_alive() for thread in threads):
        logging.shutdown()
    for thread in threads:
        thread.join()
    """
    run(code, log_path, notes, batch_size=3, flush_interval=0.01)

    assert len(notes.ids()) == 800
    assert_kept(log_path, notes)


def test_shutdown_under_a_strangers_lock_takes_one_budget_and_says_what_is_left(log_path: Path, notes: Notes):
    """Flush and close of all handlers share close_timeout; the records that wait are told of and come home later."""
    code = """
    from ai_response_logging import _lock
    waited = []
    class Clock:
        monotonic = _lock.time.monotonic
        @staticmethod
        def sleep(seconds, _sleep=_lock.time.sleep):
            waited.append((threading.current_thread(), seconds))
            _sleep(seconds)
    _lock.time = Clock
    logging.raiseExceptions = True
    attach()
    for number in range(7):
        log(f"waits-{number}")
    logging.shutdown()
    mine = sum(seconds for thread, seconds in waited if thread is threading.current_thread())
    assert mine <= 0.2 * 1.01, mine
    assert stats()["pending"] == 7
    print(file=sys.stderr)
    os.kill(int(os.environ["STRANGER"]), signal.SIGKILL)
    assert handler.flush(10)
    """
    with holding_the_lock(log_path) as stranger:
        given = json.dumps({**OPTIONS, "close_timeout": 0.2, "retry_delay": 0.01})
        source = PREAMBLE + dedent(code) + "\nhandler.close()\nstats()\n"
        done = run_child(source, log_path, notes.path, given, env={"STRANGER": str(stranger.pid)})

    assert "no lock on" in done.stderr
    assert "7 records wait" in done.stderr
    assert_kept(log_path, notes)


def test_flush_and_close_may_be_called_from_anywhere_and_twice(log_path: Path, notes: Notes):
    """From a signal handler, a forked child, the listener's own thread, and once more: no harm and no hang."""
    code = """
    attach()
    def both(*_):
        handler.flush()
        handler.close()
        handler.flush()
        handler.close()
    signal.signal(signal.SIGUSR1, both)
    log("first")
    signal.raise_signal(signal.SIGUSR1)
    log("second")
    pid = os.fork()
    if pid == 0:
        both()
        log("child")
        both()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    writer = handler._pipeline.writer
    done = threading.Event()
    drain = writer.drain
    def drain_and_close(**options):
        result = drain(**options)
        if threading.current_thread().name == "ai-response-listener" and not done.is_set():
            handler.close()
            done.set()
        return result
    writer.drain = drain_and_close
    handler._pipeline.queue.wake()
    assert done.wait(10)
    del writer.drain
    log("third")
    """
    run(code, log_path, notes)

    assert_kept(log_path, notes)
