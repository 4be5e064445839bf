"""A log of the test's own, and what was recorded in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines

import ai_response_logging
from ai_response_logging import AIResponseHandler

pytest.register_assert_rewrite(f"{__package__}._hooks")


@pytest.fixture
def handler(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> AIResponseHandler:
    """Return the default handler, on a log of the test's own."""
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    ai_response_logging.configure()
    handler = importlib.import_module("ai_response_logging.api")._default_handler()
    assert handler.filename == str(log_path)
    return handler


@pytest.fixture
def recorded(handler: AIResponseHandler) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that gives what has been recorded so far, in its order."""

    def records() -> list[dict[str, Any]]:
        assert handler.flush()
        lines = read_lines(handler.filename) if Path(handler.filename).exists() else []
        return sorted(lines, key=lambda record: record["seq"])

    return records
