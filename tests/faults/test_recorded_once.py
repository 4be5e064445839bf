"""One log call is one record, however many handlers it passes and whatever its record carries."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from helpers import assert_all_there_once

from ai_response_logging import AIResponseHandler

pytestmark = pytest.mark.faults


@pytest.fixture
def logger() -> logging.Logger:
    """Return a logger that nobody else has."""
    own = logging.Logger("own", logging.INFO)  # noqa: LOG001  one that no other test sees
    own.propagate = False
    return own


def test_handler_that_somebody_closed_and_left_attached_doubles_nothing_beside_the_next(
    log_path: Path, logger: logging.Logger
):
    """A configuration closes our handler, leaves it attached and makes another: each call is there once."""
    left = AIResponseHandler(log_path)
    logger.addHandler(left)
    logger.info("m", extra={"record_id": "before"})
    left.close()
    made = AIResponseHandler(log_path)
    logger.addHandler(made)
    logger.info("m", extra={"record_id": "behind"})
    left.close()
    made.close()

    assert_all_there_once(log_path, ["before", "behind"])


def test_record_with_the_status_of_another_among_its_fields_is_recorded(log_path: Path, logger: logging.Logger):
    """Whoever passes on the fields of a record that was recorded, the status among them, logs a new record."""
    handler = AIResponseHandler(log_path)
    first = logger.makeRecord("own", logging.INFO, "", 0, "m", (), None, extra={"record_id": "first"})
    first.created -= 1.0
    handler.handle(first)
    status = first.__dict__["ai_status"]
    logger.addHandler(handler)
    logger.info("m", extra={"record_id": "second", "ai_status": status})
    handler.close()

    assert status == "queued"
    assert_all_there_once(log_path, ["first", "second"])
