"""Logs to make pages of, and the browser to open them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

from ai_response_logging.report import Report, report

Record = dict[str, Any]
FIRST_S = 1_767_225_600.0


def call(number: int, **fields: Any) -> Record:
    """Return one call that succeeded, as a record of today."""
    return {
        "schema_version": "1.0",
        "record_id": f"00000000-0000-7000-8000-{number:012d}",
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "unix_timestamp": FIRST_S + number,
        "event": "response",
        "writer_id": "host-1-1",
        "seq": number,
        "platform": "local",
        "model": "oak",
        "question": f"question {number}",
        "response": f"answer {number}",
        "success": True,
        "latency_ms": 100.0 + number,
        "tokens_used": 10,
    } | fields


def run_of(questions: int, models: int, **fields: Any) -> list[Record]:
    """Return a whole run: every question asked of every model."""
    return [
        call(
            question * models + model,
            execution_id="exec_1",
            question_index=question + 1,
            model_index=model + 1,
            total_models=models,
            total_questions=questions * models,
            model=f"model-{model}",
            question=f"question {question + 1}",
            **fields,
        )
        for question in range(questions)
        for model in range(models)
    ]


@pytest.fixture
def page_of(log_path: Path, tmp_path: Path) -> Callable[..., tuple[Path, Report]]:
    """Return a function that writes records as a log, and makes the page of it."""

    def make(records: list[Record], **options: Any) -> tuple[Path, Report]:
        # Half a surrogate pair is in no UTF-8: as in a real log it is an escape.
        lines = (json.dumps(one, ensure_ascii=True).encode() + b"\n" for one in records)
        log_path.write_bytes(b"".join(lines))
        out = tmp_path / "report.html"
        return out, report(log_path, out, force=True, **options)

    return make


@pytest.fixture(scope="package")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start one browser for all tests of the page; skip where there is none."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Browser:
    """Return the browser in light colours, with nothing noted yet."""
    one_browser.ask("Emulation.setEmulatedMedia", media="", features=[])
    one_browser.console.clear()
    one_browser.requests.clear()
    return one_browser
