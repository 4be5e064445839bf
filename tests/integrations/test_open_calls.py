"""Calls that a library reports by a key of its own: :mod:`ai_response_logging.integrations._open_calls`."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest
from helpers import has_fork

from ai_response_logging.integrations import ai_context
from ai_response_logging.integrations._open_calls import OpenCalls

Records = Callable[[], list[dict[str, Any]]]


def said(record: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """Return some fields of a record."""
    return tuple(record.get(name) for name in names)


def test_first_to_end_a_call_has_ended_it(recorded: Records) -> None:
    """A library may report the same end twice, in two ways; one record says how the call ended."""
    calls = OpenCalls()
    calls.begin("key", {"question": "q"})
    calls.end("key", {"response": "a", "success": True})
    calls.fail("key", ValueError("too late"))
    calls.leave("key")

    start, end = recorded()
    assert said(start, "event", "question") == ("start", "q")
    assert said(end, "event", "response", "success", "question") == ("response", "a", True, "q")
    assert start["call_id"] == end["call_id"]
    assert end["latency_ms"] >= 0


def test_further_try_of_a_library_is_the_same_call(recorded: Records) -> None:
    """Begun again under its key it has one start, one id and one end, with the time of all its tries."""
    calls = OpenCalls()
    calls.begin("key", {"question": "first"})
    calls.begin("key", {"question": "second"})
    calls.end("key", {"response": "a"})

    start, end = recorded()
    assert said(start, "event", "question") == ("start", "first")
    assert said(end, "event", "question", "call_id") == ("response", "second", start["call_id"])


def test_pieces_of_a_stream_that_breaks_are_kept(recorded: Records) -> None:
    """What had come is the response, and how it ended is said."""
    calls = OpenCalls()
    calls.begin("key", {}, start=False)
    calls.note_piece("key", "Hel")
    calls.note_piece("key", "lo")
    calls.fail("key", ConnectionError("cut"))

    (end,) = recorded()
    assert said(end, "event", "response", "stream_end") == ("response", "Hello", "cut")
    assert end["ttft_ms"] <= end["latency_ms"]


@pytest.mark.parametrize(
    ("is_read", "how"), [(True, "closed"), (False, "abandoned")], ids=["was being read", "was never read"]
)
def test_stream_that_is_left_says_how_far_it_was_read(recorded: Records, how: str, *, is_read: bool) -> None:
    """Whoever stops reading has what he wanted; whoever never began has nothing. Neither is called a failure."""
    calls = OpenCalls()
    calls.begin("key", {"stream": True}, start=False)
    if is_read:
        calls.note_piece("key", "text")
    calls.leave("key")

    (end,) = recorded()
    assert said(end, "event", "stream_end", "success") == ("tombstone", how, None)


def test_call_that_is_left_without_an_answer_has_failed(recorded: Records) -> None:
    """It is no stream of which the application may have had enough."""
    calls = OpenCalls()
    calls.begin("key", {}, start=False)
    calls.leave("key")

    (end,) = recorded()
    assert said(end, "event", "error_type", "success") == ("tombstone", "cancelled", False)


def test_holder_that_goes_away_ends_its_call(recorded: Records) -> None:
    """The library's own object for it is collected: nobody can ask for the answer any more."""

    class Holder:
        pass

    calls, holder = OpenCalls(), Holder()
    calls.begin("key", {"stream": True}, start=False)
    calls.leave_with(holder, "key")
    del holder
    gc.collect()

    (end,) = recorded()
    assert said(end, "event", "stream_end") == ("tombstone", "abandoned")


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_task_that_ends_ends_its_calls(recorded: Records, *, is_cancelled: bool) -> None:
    """Cancelled or just over: the call that it had begun has an end."""
    calls = OpenCalls()

    async def ask() -> None:
        calls.begin("key", {}, start=False)
        if is_cancelled:
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())

    (end,) = recorded()
    assert said(end, "event", "error_type") == ("tombstone", "cancelled")
    assert not calls.is_open("key")


def test_stream_outlives_the_task_in_which_it_began(recorded: Records) -> None:
    """It may be handed on and read elsewhere."""
    calls = OpenCalls()

    async def ask() -> None:
        calls.begin("key", {"stream": True}, start=False)

    asyncio.run(ask())
    assert recorded() == []
    calls.note_piece("key", "text")
    calls.end("key", {})
    (end,) = recorded()
    assert said(end, "response", "stream_end") == ("text", "complete")


def test_fields_are_those_of_the_block_in_which_it_began(recorded: Records) -> None:
    """However late, and wherever, the library says how it ended."""
    calls = OpenCalls()
    with ai_context(brand="first"):
        calls.begin("key", {})
    with ai_context(brand="second"):
        calls.end("key", {"response": "a"})
    assert [record["brand"] for record in recorded()] == ["first", "first"]


@has_fork
def test_forked_child_does_not_end_its_parents_calls(recorded: Records) -> None:
    """The parent ends them itself: twice would be two outcomes of one call."""
    calls = OpenCalls()
    calls.begin("key", {}, start=False)
    child = os.fork()
    if not child:
        open_there = calls.is_open("key")
        calls.end("key", {"response": "the child's"})
        os._exit(1 if open_there else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    calls.end("key", {"response": "the parent's"})

    (end,) = recorded()
    assert end["response"] == "the parent's"
