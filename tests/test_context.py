"""Fields that a block gives to every record made in it."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import read_lines

import ai_response_logging
from ai_response_logging import ai_context, log_ai_response
from ai_response_logging._context import context_fields


def test_blocks_nest_and_end():
    """
    The inner block counts more, None takes away, and each ends where it ends.
    """
    with ai_context(execution_id="e", brand="Acme"):
        with ai_context(brand="Other", question_index=2, execution_id=None):
            assert dict(context_fields()) == {"brand": "Other", "question_index": 2}
        assert dict(context_fields()) == {"execution_id": "e", "brand": "Acme"}
    assert dict(context_fields()) == {}


def test_functions_take_the_fields_up(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    log_ai_response inside a block records its fields; its own keywords count more.
    """
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))
    with ai_context(execution_id="e", brand="Acme"):
        log_ai_response(question="Q", brand="Own")
        asyncio.run(ai_response_logging.alog_ai_response(question="Q"))
    log_ai_response(question="Q")
    assert ai_response_logging.get_async_logger().flush()

    lines = read_lines(log_path)
    assert [(line.get("execution_id"), line.get("brand")) for line in lines] == [
        ("e", "Own"),
        ("e", "Acme"),
        (None, None),
    ]


def test_tasks_inherit_the_fields_of_where_they_are_made():
    """
    A task has the fields of the block it was made in, whatever becomes of that block, and changes nobody else's.
    """

    async def look() -> dict[str, Any]:
        await asyncio.sleep(0)
        return dict(context_fields())

    async def main() -> list[dict[str, Any]]:
        with ai_context(brand="A"):
            first = asyncio.create_task(look())
        with ai_context(brand="B"):
            second = asyncio.create_task(look())
        return [await first, await second, await look()]

    assert asyncio.run(main()) == [{"brand": "A"}, {"brand": "B"}, {}]


def test_threads_have_the_fields_where_asked():
    """
    A thread starts with none; what carry() returns has those of where it was made, in many threads at once.
    """

    def look(_: int) -> dict[str, Any]:
        return dict(context_fields())

    with ThreadPoolExecutor(4) as pool, ai_context(brand="A"):
        assert list(pool.map(look, range(4))) == [{}] * 4
        assert list(pool.map(ai_context.carry(look), range(40))) == [{"brand": "A"}] * 40
        assert list(pool.map(look, range(4))) == [{}] * 4


def test_decorated_functions_run_in_a_block_of_their_own():
    """
    Each call of a decorated function or coroutine function has the fields, at the same time as others.
    """

    @ai_context(brand="A")
    def plain() -> dict[str, Any]:
        return dict(context_fields())

    @ai_context(brand="B")
    async def awaited() -> dict[str, Any]:
        await asyncio.sleep(0)
        return dict(context_fields())

    async def main() -> list[dict[str, Any]]:
        return await asyncio.gather(*(awaited() for _ in range(3)))

    assert (plain(), asyncio.run(main())) == ({"brand": "A"}, [{"brand": "B"}] * 3)
    assert dict(context_fields()) == {}


def _opentelemetry(*, is_valid: bool) -> ModuleType:
    """Stand in for OpenTelemetry's API as far as it is used; the real one is tested where it is installed."""
    module = ModuleType("opentelemetry.trace")
    ids = SimpleNamespace(is_valid=is_valid, trace_id=0xABC, span_id=0xDEF)
    module.get_current_span = lambda: SimpleNamespace(get_span_context=lambda: ids)  # type: ignore[attr-defined]
    return module


def test_trace_ids_come_from_opentelemetry_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch):
    """
    The current span's ids are fields, as 32 and 16 hex digits; outside of one there are none.
    """
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", _opentelemetry(is_valid=True))
    assert dict(context_fields()) == {"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"}

    monkeypatch.setitem(sys.modules, "opentelemetry.trace", _opentelemetry(is_valid=False))
    assert dict(context_fields()) == {}


def test_opentelemetry_that_is_broken_costs_no_record(monkeypatch: pytest.MonkeyPatch):
    """
    A module that is half imported or another's is passed over.
    """
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))

    with ai_context(brand="A"):
        assert dict(context_fields()) == {"brand": "A"}


def test_real_opentelemetry_gives_its_ids():
    """
    The ids are those that the library itself reports.
    """
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")

    with sdk.TracerProvider().get_tracer("tests").start_as_current_span("call") as span:
        ids = span.get_span_context()
        assert dict(context_fields()) == {"trace_id": f"{ids.trace_id:032x}", "span_id": f"{ids.span_id:016x}"}
