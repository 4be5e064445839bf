from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from _children import PREAMBLE, Notes
from helpers import assert_all_there_once, child_process, run_child

from ai_response_logging import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]

# Nothing but the end brings these home: no batch is ever full, and no interval is ever over.
OPTIONS = json.dumps({"batch_size": 10_000, "flush_interval": 1000})

BURST = """
attach()
for number in range(300):
    log(f"burst-{number}")
"""

ENDS = {
    "falls off the end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "unhandled exception": ("raise ValueError('the application fails')", 1),
    "raise SystemExit in a function": ("(lambda: sys.exit(0))()", 0),
    "sys.exit in a thread": ("t = threading.Thread(target=sys.exit); t.start(); t.join()", 0),
    "non-daemon thread still at work": (
        """
main = threading.main_thread()
def work():
    main.join()
    for number in range(50):
        log(f"thread-{number}")
threading.Thread(target=work).start()
""",
        0,
    ),
    "handled SIGTERM": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.raise_signal(signal.SIGTERM)",
        0,
    ),
    "SIGTERM handler that logs": (
        """
def bye(*_):
    log("bye")
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
signal.raise_signal(signal.SIGTERM)
""",
        0,
    ),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
    "logging.shutdown called by hand": ("logging.shutdown(); log('after')", 0),
    "handler closed by hand": ("handler.close(); log('after')", 0),
    "handler dropped": ("logger.removeHandler(handler); del handler; import gc; gc.collect()", 0),
    "del of the logger's handler and a second one": (
        "logger.removeHandler(handler); attach(); log('second'); handler.close()",
        0,
    ),
    "excepthook that logs": (
        "sys.excepthook = lambda *error: log('hook')\nraise ValueError",
        1,
    ),
    "object whose __del__ logs": (
        """
class Late:
    def __del__(self, log=log):
        log("late")
late = Late()
""",
        0,
    ),
}


def ids_of(notes: Notes) -> list[str]:
    """Return what was accepted, and make sure that the burst was."""
    ids = notes.ids()
    assert sum(id_.startswith("burst") for id_ in ids) == 300
    assert not notes.ids("failed")
    return ids


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
def test_program_that_ends_has_all_its_records_in_the_file(log_path: Path, notes: Notes, end: str, code: int):
    """However a program ends that runs its own exit, nothing but the end is needed to bring its records home."""
    run_child(PREAMBLE + BURST + end, log_path, notes.path, OPTIONS, expect=code)

    assert_all_there_once(log_path, ids_of(notes))


def test_sigterm_from_outside_with_a_handler_keeps_everything(log_path: Path, notes: Notes):
    """A process manager's SIGTERM, handled by sys.exit, costs no record."""
    code = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()
"""
    with child_process(PREAMBLE + BURST + code, log_path, notes.path, OPTIONS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0

    assert_all_there_once(log_path, ids_of(notes))


def test_ctrl_c_from_outside_while_logging_keeps_what_was_accepted(log_path: Path, notes: Notes):
    """Ctrl-C at any moment leaves each record whole or absent, and none whose call had returned is lost."""
    code = """
print("ready", flush=True)
number = 0
while True:
    log(f"more-{number}")
    number += 1
"""
    with child_process(PREAMBLE + BURST + code, log_path, notes.path, OPTIONS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT

    # One record more may be in the file: that of the call which Ctrl-C ended after it was taken.
    assert_all_there_once(log_path, ids_of(notes), others=True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_atexit_callback_that_logs_loses_nothing(log_path: Path, notes: Notes, when: str):
    """What an exit callback logs is in the file, whether it was registered before or after the handler was made."""
    register = "atexit.register(lambda: [log(f'atexit-{number}') for number in range(50)])\n"
    code = register + BURST if when == "before" else BURST + register
    run_child(PREAMBLE + code, log_path, notes.path, OPTIONS)

    ids = ids_of(notes)
    assert sum(id_.startswith("atexit") for id_ in ids) == 50
    assert_all_there_once(log_path, ids)


def test_first_record_logged_in_an_atexit_callback_is_written_by_the_caller(log_path: Path, notes: Notes):
    """Where no thread can be started any more (3.12 refuses one at exit), the caller writes the record itself."""
    run_child(PREAMBLE + "attach()\natexit.register(lambda: log('late'))\n", log_path, notes.path, OPTIONS)

    assert notes.ids("written", "queued") == ["late"]
    assert_all_there_once(log_path, ["late"])


def test_daemon_thread_that_goes_on_logging_tears_nothing_at_the_end(log_path: Path, notes: Notes):
    """A daemon thread stopped in the middle of a call leaves whole lines only, and loses none that it was told of."""
    code = """
ready = threading.Event()
def work():
    number = 0
    while True:
        log(f"daemon-{number}")
        number += 1
        if number == 20:
            ready.set()
threading.Thread(target=work, daemon=True).start()
ready.wait()
"""
    run_child(PREAMBLE + BURST + code, log_path, notes.path, OPTIONS)

    ids = ids_of(notes)
    assert sum(id_.startswith("daemon") for id_ in ids) >= 20
    AIResponseHandler(log_path, durability="memory").close()  # what the end had no time for is in the journal
    assert_all_there_once(log_path, ids, others=True)


@pytest.mark.parametrize("look", ["Pipeline.flush", "BatchQueueListener._retire"])
def test_end_is_not_kept_waiting_by_a_thread_that_goes_on_logging(log_path: Path, notes: Notes, look: str):
    """One more record comes each time that the end looks whether all is home; it ends before the 100th."""
    kind, name = look.split(".")
    code = f"""
from ai_response_logging._pipeline import Pipeline
from ai_response_logging.listener import BatchQueueListener
wanted, logged = threading.Semaphore(0), threading.Semaphore(0)
def work():
    for number in range(100):
        wanted.acquire()
        log(f"late-{{number}}")
        logged.release()
threading.Thread(target=work, daemon=True).start()
attach()
log("first")
original = {look}
def one_more(*args, **options):
    result = original(*args, **options) if {name == "flush"} else None
    wanted.release()
    logged.acquire(timeout=5)
    return original(*args, **options) if result is None else result
{kind}.{name} = one_more
"""
    run_child(PREAMBLE + code, log_path, notes.path, OPTIONS)

    ids = [id_ for id_ in notes.ids() if id_.startswith("late")]
    assert 0 < len(ids) < 20
    assert_all_there_once(log_path, ["first", *ids])


def test_end_with_the_log_refused_says_how_many_records_are_lost(log_path: Path, notes: Notes):
    """A process that cannot bring its records home says so once on stderr, with their number, and still ends."""
    code = """
attach()
logging.raiseExceptions = True
os.mkdir(LOG + ".d")
log("first")
handler.flush()
os.rename(LOG, LOG + ".d/kept")
os.mkdir(LOG)
for number in range(7):
    log(f"lost-{number}")
"""
    options = json.dumps({**json.loads(OPTIONS), "close_timeout": 0.05, "retry_delay": 0.01})
    done = run_child(PREAMBLE + code, log_path, notes.path, options)

    assert "7 records" in done.stderr
    assert_all_there_once(log_path.with_name(f"{log_path.name}.d") / "kept", ["first"])


def test_end_of_a_multiprocessing_child_by_exception_keeps_its_records(tmp_path: Path, log_path: Path, notes: Notes):
    """A child that fails with an exception leaves through multiprocessing's exit, and loses nothing either."""
    script = tmp_path / "script.py"
    code = """
import multiprocessing
def child():
    for number in range(300):
        log(f"burst-{number}")
    raise ValueError("the child fails")
attach()
one = multiprocessing.get_context("fork").Process(target=child)
one.start()
one.join()
assert one.exitcode == 1
"""
    script.write_text(PREAMBLE + code, "utf-8")
    run_child(script, log_path, notes.path, OPTIONS)

    assert_all_there_once(log_path, ids_of(notes))
