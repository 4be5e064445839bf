"""The fixture ``ai_responses``, in real runs of pytest."""

from __future__ import annotations

import configparser
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
from helpers import ROOT, run_child

PLUGIN = "ai_response_logging.pytest_plugin"
PASSED = "1 passed"


def run(tmp_path: Path, code: str, *arguments: str, expect: str = PASSED) -> str:
    """Run a file of tests in a pytest of its own, with warnings as errors, and assert how it ends."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(code), "utf-8")
    child = run_child(
        "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))",
        "-q", "-W", "error", "-p", "no:cacheprovider", "-p", PLUGIN, *arguments, "test_it.py",
        cwd=tmp_path, expect=None, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=30,
    )  # fmt: skip
    assert expect in child.stdout, child.stdout + child.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["test_it.py"]
    return child.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "logging.getLogger('ai_responses').info('m', extra=FIELDS)",
        "log_ai_response(**FIELDS)",
        "asyncio.run(alog_ai_response(**FIELDS))",
        "get_async_logger().log_response(**FIELDS)",
        "configure('default'); logging.getLogger('ai_responses').info('m', extra=FIELDS)",
        "configure('default', filename='mine.jsonl', durability='power'); log_ai_response(**FIELDS)",
        "logging.config.dictConfig(MAPPING); logging.getLogger('app.deep').info('m', extra=FIELDS)",
        "logging.config.dictConfig(MAPPING); log_ai_response(**FIELDS)",
        "AIResponseHandler('x.jsonl').handle(logging.makeLogRecord({'msg': 'm', **FIELDS}))",
    ],
)
def test_records_are_seen_whatever_logs_them(tmp_path: Path, body: str):
    """
    The logger, the functions, configured or not, propagating or not; nothing goes to the application's own file.
    """
    run(tmp_path, f"""
        import asyncio, logging, logging.config
        from ai_response_logging import *
        FIELDS = {{"question": "问题", "response": "r", "model": "m", "success": True}}
        MAPPING = {{
            "version": 1, "disable_existing_loggers": False,
            "handlers": {{"ai": {{"class": "ai_response_logging.AIResponseHandler", "filename": "app.jsonl"}}}},
            "loggers": {{"app": {{"level": "INFO", "handlers": ["ai"], "propagate": False}}}},
            "root": {{"level": "INFO", "handlers": ["ai"]}},
        }}
        def test_it(ai_responses, caplog):
            assert len(ai_responses) == 0 and ai_responses == []
            {body}
            assert [{{key: one[key] for key in FIELDS}} for one in ai_responses] == [FIELDS]
            assert ai_responses[-1]["event"] == "response" and len(ai_responses[0:]) == 1
            assert ai_responses[0]["checksum"]
    """)  # fmt: skip


@pytest.mark.slow
def test_handlers_made_before_write_to_the_test_and_then_to_their_own_file_again(tmp_path: Path):
    """
    An application that is configured on import: each test sees its own records, and its file only those between.
    """
    log = tmp_path.parent / f"{tmp_path.name}-app.jsonl"
    code = f"""
        import logging
        from ai_response_logging import AIResponseHandler, log_ai_response
        handler = AIResponseHandler({str(log)!r}, level="WARNING")
        logger = logging.getLogger("ai_responses")
        logger.addHandler(handler); logger.setLevel("INFO"); logger.propagate = False
        keep = [*logger.handlers]

        def test_one(ai_responses):
            logger.warning("one"); handler.flush()
            assert [one["message"] for one in ai_responses] == ["one"]
            assert handler.filename == ai_responses.filename != {str(log)!r}

        def test_without():
            assert [one for one in logger.handlers if isinstance(one, AIResponseHandler)] == keep
            logger.warning("without")

        def test_two(ai_responses):
            logger.warning("two")
            assert [one["message"] for one in ai_responses] == ["two"]

        def test_end():
            handler.flush()
            assert handler.filename == {str(log)!r}
            assert handler.get_stats()["accepted"] == 1
            handler.close(); logger.removeHandler(handler)
    """
    run(tmp_path, code, "-p", "no:randomly", expect="4 passed")

    assert log.read_text().count('"message":') == 1
    assert '"message":"without"' in log.read_text()


@pytest.mark.slow
@pytest.mark.faults
def test_records_of_children_are_seen_when_they_have_ended(tmp_path: Path):
    """
    Forked, and started anew with the environment.
    """
    run(tmp_path, """
        import multiprocessing, os, subprocess, sys
        from ai_response_logging import log_ai_response
        def test_it(ai_responses):
            child = multiprocessing.get_context("fork").Process(target=log_ai_response, kwargs={"response": "forked"})
            child.start(); child.join()
            code = "from ai_response_logging import log_ai_response; log_ai_response(response='new')"
            subprocess.run([sys.executable, "-c", code], check=True)
            assert sorted(one["response"] for one in ai_responses) == ["forked", "new"]
            assert child.exitcode == 0
    """, "-W", "ignore::DeprecationWarning")  # fmt: skip


@pytest.mark.slow
def test_logger_is_left_as_it_was(tmp_path: Path):
    """
    Handlers, level, environment and threads.
    """
    run(tmp_path, """
        import logging, os, threading
        from ai_response_logging import configure
        logger = logging.getLogger("ai_responses")
        def state():
            handlers = [one for one in logger.handlers if "ai_response_logging" in type(one).__module__]
            return handlers, logger.level, os.environ.get("AI_RESPONSES_FILE"), threading.active_count()
        before = state()
        def test_it(ai_responses):
            logger.info("x")
            assert len(ai_responses) == 1
        def test_then():
            assert state() == before
    """, "-p", "no:randomly", expect="2 passed")  # fmt: skip


@pytest.mark.slow
def test_failing_assertion_shows_the_records(tmp_path: Path):
    """
    What was logged stands in pytest's own report.
    """
    out = run(tmp_path, """
        from ai_response_logging import log_ai_response
        def test_it(ai_responses):
            log_ai_response(response="seen in the report")
            assert ai_responses == []
    """, expect="1 failed")  # fmt: skip

    assert "seen in the report" in out


@pytest.mark.slow
def test_suite_that_does_not_use_it_pays_nothing(tmp_path: Path):
    """
    No handler, no reader, no thread: pytest and the package's front door is all that is loaded.
    """
    run(tmp_path, """
        import sys
        def test_it():
            mine = {name for name in sys.modules if name.startswith("ai_response_logging")}
            assert mine == {"ai_response_logging", "ai_response_logging.pytest_plugin"}
            assert not {"orjson", "concurrent_log_handler", "yaml", "rich"} & set(sys.modules)
    """)  # fmt: skip


def test_entry_point_leads_to_the_plugin_and_the_core_does_not_import_pytest():
    """
    What setup.cfg names exists, and using the library does not need pytest.
    """
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, module = setup["options.entry_points"]["pytest11"].strip().partition(" = ")

    assert (name, module) == ("ai_response_logging", PLUGIN)
    assert import_module(module).ai_responses
    code = """
        import sys
        from ai_response_logging import *
        import ai_response_logging.cli
        assert "pytest" not in sys.modules
    """
    run_child(code)
    assert sys.modules["pytest"]
