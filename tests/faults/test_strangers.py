from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest
from _children import Notes
from _strangers import APPLICATION, END, assert_all_kept, options, run
from helpers import assert_all_there_once, has_proc, read_lines, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# --- somebody else configures logging --------------------------------------------------------------------------------

FILE_CONFIG = """
import configparser
def file_config(disable, loggers="root", more=""):
    parser = configparser.RawConfigParser()
    parser.read_string(f'''
[loggers]
keys = {loggers}
[handlers]
keys = screen{",ours" if more else ""}
[formatters]
keys =
[logger_root]
level = WARNING
handlers = screen
[handler_screen]
class = StreamHandler
args = (sys.stdout,)
{more}''')
    logging.config.fileConfig(parser, disable_existing_loggers=disable)
"""

# Each runs between two rounds of records, and leaves our logger able to log.
STRANGERS = {
    "fileConfig": FILE_CONFIG + "file_config(disable=False)",
    "fileConfig that names our handler": FILE_CONFIG
    + '''file_config(disable=True, loggers="root,ai", more=f"""
[logger_ai]
qualname = ai_responses
level = INFO
propagate = 0
handlers = ours
[handler_ours]
class = ai_response_logging.AIResponseHandler
args = ({LOG!r},)
kwargs = {{"durability": "memory", "batch_size": 10_000, "flush_interval": 1000}}
""")''',
    "basicConfig by force": "logging.basicConfig(force=True, level=logging.ERROR, stream=sys.stdout)",
    "shutdown twice": "logging.shutdown(); logging.shutdown()",
    "incremental dictConfig": (
        'logging.config.dictConfig({"version": 1, "incremental": True,'
        ' "loggers": {"ai_responses": {"level": "DEBUG"}}})'
    ),
    "dictConfig that makes our handler anew": (
        'logging.config.dictConfig({"version": 1, "handlers": {"theirs": OURS},'
        ' "loggers": {"ai_responses": {"level": "INFO", "handlers": ["theirs"]}}})'
    ),
    "dictConfig that puts a handler of ours on another logger": """
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "handlers": {"theirs": OURS},
                           "loggers": {"theirs": {"level": "INFO", "handlers": ["theirs"]}}})
through_logger(f"theirs{round}", to=logging.getLogger("theirs"))
""",
    "dictConfig that leaves our handler on the root alone": """
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "handlers": {"theirs": OURS},
                           "root": {"level": "INFO", "handlers": ["theirs"]},
                           "loggers": {"ai_responses": {"propagate": True}}})
""",
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_somebody_configures_logging_and_nothing_before_or_after_is_lost(log_path: Path, notes: Notes, stranger: str):
    """Whoever configures or shuts down logging in mid-run: each record, by Logger or by function, is there once."""
    rounds = "".join(f"round = {number}\n{stranger}\nboth('after{number}')\n" for number in (1, 2))
    err = run(f"set_up()\nboth('before')\n{rounds}", log_path, notes)

    assert_all_kept(log_path, notes, 80 if "through_logger" in stranger else 60)
    assert "ConfigWarning" not in err


def test_file_config_that_disables_our_logger_leaves_the_functions_at_work(log_path: Path, notes: Notes):
    """Somebody's fileConfig disables by default what it does not name: log_ai_response records all the same."""
    code = f"""
    set_up()
    both("before")
    exec({FILE_CONFIG!r})
    file_config(disable=True)
    assert logger.disabled
    through_function("after")
    """
    run(code, log_path, notes)

    assert_all_kept(log_path, notes, 30)


def test_basic_config_by_force_takes_our_root_handler_off_and_its_records_home(log_path: Path, notes: Notes):
    """Our handler on the root is closed when somebody takes it off: what waited in it is in the file at once."""
    code = """
    handler = configure({"version": 1, "disable_existing_loggers": False, "handlers": {"ours": OURS},
                         "root": {"level": "INFO", "handlers": ["ours"]}})
    through_logger("root", to=logging.getLogger("some.module"))
    assert stats()["pending"] == 10
    logging.basicConfig(force=True, stream=sys.stdout)
    assert handler not in logging.getLogger().handlers
    after = stats()
    assert (after["pending"], after["worker_alive"]) == (0, False), after
    """
    run(code, log_path, notes)

    assert_all_kept(log_path, notes, 10)


# --- one warning where our logger was disabled -----------------------------------------------------------------------

DISABLED = 'logging.config.dictConfig({"version": 1}); assert logger.disabled\n'


def warnings_of(err: str) -> list[str]:
    """Return the first lines of our warnings in what a child said."""
    return [line for line in err.splitlines() if "ConfigWarning: " in line]


def test_disabled_logger_is_warned_of_once_by_the_function_which_records(log_path: Path, notes: Notes):
    """The first call that sees the logger disabled says what that costs and what to set, at the caller's line."""
    err = run(
        f"set_up()\nboth('before')\n{DISABLED}through_function('after')\n{DISABLED}through_function('again')\n",
        log_path,
        notes,
    )

    assert_all_kept(log_path, notes, 40)
    (warning,) = warnings_of(err)
    assert warning.startswith("<string>:"), "the warning must point at whoever called"
    assert "ai_responses" in warning
    assert "disable_existing_loggers: false" in warning


def test_disabled_logger_where_warnings_are_errors_costs_no_record(log_path: Path, notes: Notes):
    """The warning never becomes an exception in the application, and never a failed record."""
    run(f"set_up()\n{DISABLED}through_function('after')\n", log_path, notes, python_options=("-W", "error"))

    assert_all_kept(log_path, notes, 10)


@pytest.mark.parametrize("before", ["", "both('before')"], ids=["nothing recorded", "recorded before"])
def test_disabled_logger_of_a_program_without_the_functions_is_warned_of_at_its_end(
    log_path: Path, notes: Notes, before: str
):
    """Who logs through the Logger alone hears at the end that `logging` dropped records, and keeps those before."""
    err = run(f"set_up()\n{before}\n{DISABLED}logger.info('dropped by logging itself')\n", log_path, notes)

    if before:
        assert_all_kept(log_path, notes, 20)
    (warning,) = warnings_of(err)
    assert "disable_existing_loggers: false" in warning


def test_logger_that_nobody_disabled_is_not_warned_of(log_path: Path, notes: Notes):
    """No stranger, or one that disables others only: no warning."""
    code = """
    set_up()
    logging.getLogger("other").disabled = True
    both("before")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    both("after")
    """

    assert not warnings_of(run(code, log_path, notes))
    assert_all_kept(log_path, notes, 40)


# --- handlers, levels and filters beside ours ------------------------------------------------------------------------


def test_root_handler_beside_ours_prints_what_it_prints_without_ours(log_path: Path, notes: Notes):
    """With propagate the console shows the same text to the byte, and each record is recorded once."""
    code = """
    if sys.argv[4:]:
        set_up()
    logger.setLevel(logging.INFO)
    logger.propagate = True
    screen = logging.StreamHandler(sys.stdout)
    form = "%(levelname)s %(name)s %(threadName)s %(message)s %(brand)s"
    screen.setFormatter(logging.Formatter(form, defaults={"brand": "-"}))
    logging.getLogger().addHandler(screen)
    through_logger("console")
    logger.debug("too low")
    logger.warning("%s of %s", 1, [2], extra={"brand": "b", "record_id": "warning"})
    try:
        raise ValueError("the model said no")
    except ValueError:
        logger.exception("failed", extra={"record_id": "error"}, stack_info=True)
    """
    source = APPLICATION + dedent(code)
    printed = [
        run_child(source, log_path, notes.path, options(), *ours, cwd=log_path.parent).stdout for ours in ([], ["ours"])
    ]

    assert printed[0] == printed[1]
    assert "the model said no" in printed[0]
    assert_all_there_once(log_path, {*notes.ids(), "warning", "error"})


def test_levels_of_logger_and_handler_keep_out_what_they_should(log_path: Path, notes: Notes):
    """A record must reach the logger's level and the handler's; the function's, which is INFO, the handler's only."""
    code = """
    set_up()
    logger.setLevel(logging.WARNING)
    logger.info("below the logger's")
    logger.warning("kept", extra={"record_id": "warning"})
    through_function("function")
    handler.setLevel(logging.ERROR)
    logger.warning("below the handler's")
    logger.error("kept", extra={"record_id": "error"})
    assert log_ai_response(response="x")["status"] == "filtered"
    assert handler.get_stats()["accepted"] == 12
    """
    run(code, log_path, notes)

    assert_all_there_once(log_path, {*notes.ids(), "warning", "error"})


@pytest.mark.parametrize("place", ["logger", "handler"])
def test_filters_reject_and_change_what_is_recorded(log_path: Path, notes: Notes, place: str):
    """What a filter rejects is absent, what it changes is there as changed; the function hears the handler's only."""
    code = f"""
    set_up()
    seen = []
    def choose(record):
        seen.append(record)
        if "secret" in getattr(record, "response", ""):
            return False
        record.brand, record.response = "set by a filter", record.response.upper()
        return True
    {place}.addFilter(choose)
    through_logger("changed")
    logger.info("rejected", extra={{"response": "a secret"}})
    through_function("function")
    rejected = log_ai_response(record_id="from the function", response="a secret")
    assert rejected["status"] == ("filtered" if {place!r} == "handler" else "queued"), rejected
    {place}.removeFilter(choose)
    both("plain")
    """
    run(code, log_path, notes)

    kept = set() if place == "handler" else {"from the function"}
    assert_all_there_once(log_path, {*notes.ids(), *kept})
    changed = {one["record_id"] for one in read_lines(log_path) if one.get("brand") == "set by a filter"}
    by_function = {f"function-function-{number}" for number in range(10)} if place == "handler" else set()
    assert changed == {f"changed-logger-{number}" for number in range(10)} | by_function
    assert {one["response"] for one in read_lines(log_path) if one["record_id"] in changed} == {"X"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters may return a record from 3.12 on")
@pytest.mark.parametrize("place", ["logger", "handler"])
def test_record_that_a_filter_puts_in_anothers_place_is_the_one_recorded(log_path: Path, notes: Notes, place: str):
    """A filter that hands on a copy keeps its changes to itself: the copy is recorded, once, the original nowhere."""
    code = f"""
    import copy
    set_up()
    def redacted(record):
        other = copy.copy(record)
        other.record_id, other.response = f"copy of {{record.record_id}}", "redacted"
        return other
    {place}.addFilter(redacted)
    through_logger("original")
    """
    run(code, log_path, notes)

    assert_all_there_once(log_path, [f"copy of {one}" for one in notes.ids()])
    assert {one["response"] for one in read_lines(log_path)} == {"redacted"}


# --- many handlers ---------------------------------------------------------------------------------------------------


@has_proc
def test_fifty_handlers_on_fifty_files_keep_apart_and_end_without_a_trace(log_path: Path, notes: Notes):
    """Each record once in its own file, a thread for each handler at most; after close no thread, no descriptor."""
    code = """
    logger.propagate = False
    from ai_response_logging import AIResponseHandler
    def listeners():
        return [thread for thread in threading.enumerate() if thread.name == "ai-response-listener"]
    before = len(os.listdir("/proc/self/fd"))
    handlers = []
    for file in range(50):
        one = AIResponseHandler(f"{LOG}.{file}.jsonl", durability="memory", batch_size=7, flush_interval=0.05)
        own = logging.getLogger(f"file{file}")
        own.propagate = False
        own.setLevel(logging.INFO)
        own.addHandler(one)
        handlers.append(one)
    most = 0
    def work(name):
        global most
        for number in range(5):
            for file in range(50):
                logging.getLogger(f"file{file}").info("m", extra={"record_id": f"{file}-{name}-{number}"})
            most = max(most, len(listeners()))
    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < most <= 50, most
    for one in handlers:
        one.close()
        note(stats=one.get_stats())
    assert not listeners()
    assert len(os.listdir("/proc/self/fd")) == before
    """
    run(code, log_path, notes)

    for file in range(50):
        ids = {f"{file}-{name}-{number}" for name in range(8) for number in range(5)}
        assert_all_there_once(f"{log_path}.{file}.jsonl", ids)
    assert [one["written"] + one["written_sync"] for one in notes.stats()] == [40] * 50


def test_two_handlers_on_one_file_for_two_loggers_record_each_call_once(log_path: Path, notes: Notes):
    """Two loggers with a handler each on one file share one writer: each call is there once, no number is missing."""
    code = """
    set_up()
    from ai_response_logging import AIResponseHandler
    other = logging.getLogger("other")
    other.propagate = False
    other.setLevel(logging.INFO)
    other.addHandler(AIResponseHandler(LOG, durability="memory", **OPTIONS))
    threads = [threading.Thread(target=through_logger, args=(str(n), 50, (logger, other)[n % 2])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    through_function("function")
    other.handlers[0].close()
    through_logger("after", to=other)
    """
    run(code, log_path, notes, end=END)

    assert_all_kept(log_path, notes, 220)
    assert sorted(one["seq"] for one in read_lines(log_path)) == list(range(220))
