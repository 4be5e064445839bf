"""At `crash` a call leaves its record in the journal, whatever happens to that one in mid-call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ai_response_logging import AIResponseHandler, _lock
from ai_response_logging._journal import Journal

pytestmark = pytest.mark.faults


class TooLate(Exception):  # noqa: N818  as Celery names its soft time limit
    """What somebody's alarm throws."""


def stored(handler: AIResponseHandler) -> int:
    """Return the number below which all records of *handler* are in its journal; what is newer dies with a kill."""
    journal = handler._pipeline.queue.keeper
    return -1 if journal is None else journal.next_seq


def make(log: Path) -> AIResponseHandler:
    """Make a handler that keeps its records waiting."""
    return AIResponseHandler(log, batch_size=10_000, flush_interval=1000)


@pytest.mark.parametrize("thrown", [TooLate(), TimeoutError("an alarm's"), RecursionError(), MemoryError()])
def test_exception_thrown_into_the_store_leaves_that_record_and_the_next_in_the_journal(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, thrown: Exception
):
    """A soft time limit or a full stack in the middle of a store does not take the journal away from what follows."""
    handler = make(log_path)
    fields: dict[str, Any] = {"response": "x"}
    handler.submit_fields(dict(fields))
    fired = []

    def throw(*_: Any) -> None:
        fired.append(thrown)
        monkeypatch.undo()
        raise thrown

    monkeypatch.setattr(Journal, "keep", throw)
    assert handler.submit_fields(dict(fields)).status == "queued"
    assert (stored(handler), fired) == (2, [thrown])
    handler.submit_fields(dict(fields))
    assert stored(handler) == 3
    assert handler.get_stats()["durability"] == "crash"

    handler.close()
    assert log_path.read_bytes().count(b"\n") == 3


def test_journal_that_a_close_takes_away_in_mid_call_is_there_when_the_call_returns(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thread that ends removes the journal after another has looked for it and before that one's record is in it."""
    handler = make(log_path)
    pipeline = handler._pipeline
    put = pipeline.queue.put
    monkeypatch.setattr(pipeline.writer, "tidy_up", lambda *_: True)  # where the thread opens it again, a bit later

    def taken_away(*args: Any, **options: Any) -> bytes | None:
        pipeline.writer.close_files(1.0)
        assert pipeline.queue.keeper is None
        return put(*args, **options)

    monkeypatch.setattr(pipeline.queue, "put", taken_away)
    handler.submit_fields({"response": "x"})

    assert stored(handler) == 1
    handler.close()


def test_journal_that_a_close_takes_away_while_it_is_looked_at_refuses_no_record(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thread that ends closes the journal in the middle of another's look at it: that one's record is kept."""
    handler = make(log_path)
    queue, identity = handler._pipeline.queue, _lock.identity

    def taken_away(file: int | str) -> tuple[int, int]:
        found = identity(file)
        monkeypatch.undo()
        queue.drop_journal()
        return found

    monkeypatch.setattr(_lock, "identity", taken_away)
    assert handler.submit_fields({"response": "x"}).status == "queued"

    assert _lock.identity is identity, "nobody looked"
    assert stored(handler) == 1
    handler.close()
