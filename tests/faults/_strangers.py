"""What the tests of strangers share: a process that records both ways while somebody else configures `logging`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from textwrap import dedent

import pytest
from _children import PREAMBLE, Notes, assert_sums
from helpers import assert_all_there_once, run_child

__all__ = ["APPLICATION", "END", "OPTIONS", "assert_all_kept", "needs", "options", "run"]

# Nothing but a flush, a close or the end brings these home: what a stranger cuts off would be missing.
OPTIONS = {"batch_size": 10_000, "flush_interval": 1000}

# An application's own set-up. `both` records through the Logger and through the function, and notes each record.
APPLICATION = (
    PREAMBLE
    + """
import logging.config
from ai_response_logging import configure, log_ai_response

OURS = {"class": "ai_response_logging.AIResponseHandler", "filename": LOG, "durability": "memory", **OPTIONS}
logger = logging.getLogger("ai_responses")


def set_up():
    global handler
    handler = configure({
        "version": 1, "disable_existing_loggers": False, "handlers": {"ours": OURS},
        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ours"], "propagate": False}},
    })
    return handler


def through_logger(name, count=10, to=logger):
    for number in range(count):
        record_id = f"{name}-logger-{number}"
        to.info("answer %d", number, extra={"record_id": record_id, "response": "x"})
        note(id=record_id, status="logged")


def through_function(name, count=10):
    for number in range(count):
        result = log_ai_response(record_id=f"{name}-function-{number}", response="x")
        note(id=result["record_id"], status=result["status"])
        assert result["status"] in {"queued", "written", "written_sync"}, result


def both(name, count=10):
    through_logger(name, count)
    through_function(name, count)
"""
)

# The end of a child that still has its handler: what it counted is noted when nothing waits any more.
END = "\nhandler.close()\nstats()\n"


def options(**more: object) -> str:
    """Return the handler's options as a child takes them."""
    return json.dumps({**OPTIONS, **more})


def run(
    code: str,
    log: Path,
    notes: Notes,
    *,
    begin: str = "",
    end: str = "",
    python_options: tuple[str, ...] = (),
    **more: object,
) -> str:
    """
    Run an application to its end and return what it printed on stderr.

    Args:
        code: What it does once our package is imported; dedented.
        log: Where it logs.
        notes: Where it notes what it logged.
        begin: What it does before anything else.
        end: What it does last.
        python_options: The interpreter's.
        more: Options of the handler.
    """
    source = begin + APPLICATION + dedent(code) + end
    # Away from the repository: a record that falls back on the default place must not be found there by chance.
    return run_child(source, log, notes.path, options(**more), cwd=log.parent, options=python_options).stderr


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test where *package* is absent; it is not imported here, only in the test's child."""
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def assert_all_kept(log: Path, notes: Notes, count: int) -> None:
    """Assert that *count* records were accepted and each is in the log once, and that no other log was begun."""
    assert len(notes.ids()) == count
    assert not notes.ids("failed")
    if notes.stats():
        assert_sums(*notes.stats())
    assert_all_there_once(log, notes.ids())
    assert not (log.parent / "data").exists(), "records went to the default place"
