from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest
from _children import Notes
from _strangers import APPLICATION, assert_all_kept, options, run
from helpers import read_lines, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Our writer behind a queue that the application owns; `ended` says what must hold once its listener has stopped.
CHAIN = """
import logging.handlers, multiprocessing, queue
from ai_response_logging import BatchFileHandler, BatchQueueListener, ResponseQueueHandler

def begin(source, listener_class, front_class):
    global file, listener
    file = BatchFileHandler(LOG, durability="memory", **OPTIONS)
    listener = listener_class(source, file)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(front_class(source))
    listener.start()

def in_threads(name, threads=4):
    started = [threading.Thread(target=through_logger, args=(f"{name}{number}", 50)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()

def ended(count):
    listener.stop()
    after = file.get_stats()
    note(stats=after)
    assert (after["accepted"], after["pending"], after["failed"]) == (count, 0, 0), after
"""
FRONTS = ["logging.handlers.QueueHandler", "ResponseQueueHandler"]
LISTENERS = ["logging.handlers.QueueListener", "BatchQueueListener"]
IN_THREADS = """
source = {kind}()
begin(source, {listener}, {front})
in_threads("first")
ended(200)
listener.start()
in_threads("second")
ended(400)
"""


@pytest.mark.parametrize("kind", ["queue.Queue", "queue.SimpleQueue", "multiprocessing.Queue"])
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_any_listener_on_any_queue_in_front_of_our_writer_keeps_every_record(
    log_path: Path, notes: Notes, listener: str, front: str, kind: str
):
    """A listener of theirs or ours, a queue of theirs, our file: stop() drains, and it all starts again."""
    run(CHAIN + IN_THREADS.format(listener=listener, front=front, kind=kind), log_path, notes)

    assert_all_kept(log_path, notes, 400)
    assert {one["message"] for one in read_lines(log_path)} == {f"answer {number}" for number in range(50)}


@pytest.mark.parametrize("end", ["", "logging.shutdown()"], ids=["program ends", "logging.shutdown"])
def test_writer_that_nobody_closes_has_written_what_a_listener_brought(log_path: Path, notes: Notes, end: str):
    """What the listener has handed over is in the file, whether or not anybody closes the writer."""
    code = f"""
    source = queue.Queue()
    begin(source, BatchQueueListener, logging.handlers.QueueHandler)
    in_threads("only")
    source.join()
    {end}
    """
    run(CHAIN + dedent(code), log_path, notes)

    assert_all_kept(log_path, notes, 200)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("front", FRONTS)
def test_producers_in_other_processes_reach_our_listener_through_a_process_queue(
    tmp_path: Path, log_path: Path, notes: Notes, front: str, method: str
):
    """Several processes log into one multiprocessing.Queue, one writes: each record is there once, with its own pid."""
    code = f"""
    def produce(source, name):
        logger.handlers[:] = [{front}(source)]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        in_threads(name, 2)

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        source = context.Queue()
        begin(source, BatchQueueListener, {front})
        producers = [context.Process(target=produce, args=(source, f"child{{n}}-")) for n in range(3)]
        for one in producers:
            one.start()
        in_threads("parent", 1)
        for one in producers:
            one.join()
        assert [one.exitcode for one in producers] == [0] * 3
        ended(350)
    """
    script = tmp_path / "script.py"
    script.write_text(APPLICATION + CHAIN + dedent(code), "utf-8")
    run_child(script, log_path, notes.path, options(), cwd=tmp_path)

    assert_all_kept(log_path, notes, 350)
    pids = {one["record_id"]: one["pid"] for one in read_lines(log_path)}
    assert pids == {note["id"]: note["pid"] for note in notes.read() if "id" in note}
    assert len(set(pids.values())) == 4


# --- the explicit form of dictConfig ---------------------------------------------------------------------------------

EXPLICIT = """
import logging.handlers
FILE = {"class": "ai_response_logging.BatchFileHandler", "filename": LOG, "durability": "memory", **OPTIONS}
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "handlers": {
        "file": FILE,
        "queue": {"class": "logging.handlers.QueueHandler", "listener": "ai_response_logging.BatchQueueListener",
                  "handlers": ["file"], "respect_handler_level": True},
    },
    "loggers": {"ai_responses": {"level": "INFO", "handlers": ["queue"], "propagate": False}},
})
(front,) = logger.handlers
file = logging.getHandlerByName("file")
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes listeners from 3.12 on")
def test_explicit_form_of_dict_config_drains_when_the_application_stops_its_listener(log_path: Path, notes: Notes):
    """What was logged before the application starts the listener that dictConfig made, and until stop(), is there."""
    code = """
    from ai_response_logging import BatchQueueListener
    assert type(front.listener) is BatchQueueListener
    assert not front.listener.is_alive, "dictConfig makes listeners but does not start them"
    through_logger("before")
    for round in range(3):
        front.listener.start()
        through_logger(f"round{round}")
        front.listener.stop()
        assert file.get_stats()["accepted"] == 20 + 10 * round
        assert file.get_stats()["pending"] == 0
    """
    run(EXPLICIT + dedent(code), log_path, notes)

    assert_all_kept(log_path, notes, 40)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes listeners from 3.12 on")
def test_explicit_form_keeps_its_records_through_a_strangers_dict_config(log_path: Path, notes: Notes):
    """Somebody's dictConfig closes the writer in mid-run; the listener goes on, and the writer opens its file again."""
    code = """
    front.listener.start()
    through_logger("before")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    through_logger("after")
    front.listener.stop()
    """
    run(EXPLICIT + dedent(code), log_path, notes)

    assert_all_kept(log_path, notes, 20)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 and later know listeners in dictConfig")
def test_explicit_form_before_dict_config_knew_it_is_refused_and_loses_nothing(log_path: Path, notes: Notes):
    """On 3.11 the explicit form is an error at set-up, never a chain that silently records nothing."""
    code = f"""
    set_up()
    both("before")
    try:
        exec({EXPLICIT!r})
    except ValueError as error:
        assert "queue" in str(error), error
    else:
        raise AssertionError("dictConfig took it")
    logger.handlers[:] = [handler]
    both("after")
    """
    run(code, log_path, notes)

    assert_all_kept(log_path, notes, 40)
