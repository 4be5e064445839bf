"""Why there is no journal is remembered, and nothing else of the call that found it."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_response_logging import _append
from ai_response_logging._journal import Journal
from ai_response_logging.errors import DurabilityWarning
from ai_response_logging.handler import AIResponseHandler


class Large:
    """Something of the application's, which a function has while it logs."""


def refuse(*_: object, **__: object) -> None:
    """Be a disk that takes nothing."""
    raise OSError(errno.EIO, "refused")


@pytest.mark.parametrize(
    ("owner", "name", "durability"),
    [(Journal, "keep", "crash"), (Journal, "begin", "crash"), (_append, "sync_file", "power")],
)
@pytest.mark.filterwarnings(f"ignore::{DurabilityWarning.__module__}.{DurabilityWarning.__name__}")
def test_failed_journal_keeps_nothing_of_its_caller_alive(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, durability: str
):
    """A disk may be broken for days; what a function had when its call found that out ends with the function."""

    def call(log: Callable[[AIResponseHandler], object]) -> weakref.ref[Large]:
        large = Large()
        log(handler)
        return weakref.ref(large)

    handler = AIResponseHandler(log_path, durability=durability, batch_size=1000, flush_interval=1000)
    try:
        handler.close()  # then the call makes its journal
        monkeypatch.setattr(owner, name, refuse)
        left = call(lambda one: one.submit_fields({"response": "r"}))
        gc.collect()

        assert isinstance(handler._pipeline.queue.journal_error, OSError)
        assert left() is None
    finally:
        monkeypatch.undo()
        handler.close()
