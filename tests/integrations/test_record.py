"""The block and the decorator for anything that has no hook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from ai_response_logging.integrations import ai_context, record

Records = Callable[[], list[dict[str, Any]]]


def test_block_records_what_was_set(recorded: Records):
    """
    What is known before and what is set inside become one record, with its duration.
    """
    with record(question="Why?", platform="DeepSeek", model="m") as r:
        r.response = "Because."
        r.tokens_used = 7

    (line,) = recorded()
    expected = {
        "event": "response",
        "question": "Why?",
        "provider": "deepseek",
        "model": "m",
        "response": "Because.",
        "tokens_used": 7,
        "success": True,
    }
    assert expected.items() <= line.items()
    assert line["latency_ms"] >= 0
    assert line["call_id"] == r.call_id


def test_block_that_raises_records_the_failure_and_the_exception_goes_on(recorded: Records):
    """
    A failure is recorded with what had come, and the application gets its own exception.
    """
    error = TimeoutError("too slow")

    def ask() -> None:
        with record(question="Why?") as r:
            r.add("Bec")
            raise error

    with pytest.raises(TimeoutError) as caught:
        ask()

    assert caught.value is error
    (line,) = recorded()
    assert (line["event"], line["success"], line["response"], line["stream_end"]) == ("response", False, "Bec", "cut")
    assert (line["error_type"], line["error_class"], line["error_message"]) == ("timeout", "TimeoutError", "too slow")


def test_start_announces_the_call(recorded: Records):
    """
    With start=True a process that is killed inside leaves a trace.
    """
    with record(start=True, question="Why?"):
        assert [line["event"] for line in recorded()] == ["start"]

    first, last = recorded()
    assert (last["event"], last["call_id"]) == ("response", first["call_id"])


def test_cancelled_block_is_a_tombstone(recorded: Records):
    """
    A task that is cancelled in the block ends its call.
    """

    async def ask() -> None:
        async with record(question="Why?") as r:
            r.add("Bec")
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(ask())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    entered = asyncio.Event()
    asyncio.run(main())

    (line,) = recorded()
    assert (line["event"], line["error_type"], line["response"]) == ("tombstone", "cancelled", "Bec")
    assert (line["success"], line["stream_end"]) == (False, "cancelled")


def test_decorated_functions_of_every_kind_record_question_and_answer(recorded: Records):
    """
    Functions, coroutine functions and both kinds of generators: the argument is the question, the result the answer.
    """

    @record(platform="own")
    def plain(question: str) -> str:
        return f"{question} plain"

    @record(platform="own")
    async def awaited(question: str) -> str:
        return f"{question} awaited"

    @record(platform="own")
    def pieces(question: str) -> Iterator[str]:
        yield from (question, " pieces")

    @record(platform="own")
    async def async_pieces(question: str) -> AsyncIterator[str]:
        for piece in (question, " async"):
            yield piece

    async def main() -> str:
        assert await awaited("Q") == "Q awaited"
        return "".join([piece async for piece in async_pieces(question="Q")])

    assert (plain("Q"), "".join(pieces("Q")), asyncio.run(main())) == ("Q plain", "Q pieces", "Q async")
    lines = recorded()
    assert {line["question"] for line in lines} == {"Q"}
    assert [line["response"] for line in lines] == ["Q plain", "Q pieces", "Q awaited", "Q async"]
    assert [line.get("stream_end") for line in lines] == [None, "complete", None, "complete"]


def test_generator_that_is_broken_off_keeps_what_came(recorded: Records):
    """
    Whoever stops reading leaves a tombstone with the text so far.
    """

    @record()
    def pieces(question: str) -> Iterator[str]:
        yield question
        yield "never read"

    reading = pieces("Q")
    next(reading)
    reading.close()

    (line,) = recorded()
    assert (line["event"], line["response"], line["stream_end"]) == ("tombstone", "Q", "closed")


def test_result_that_is_no_text_is_kept_as_it_is(recorded: Records):
    """
    Anything a function returns is in the record.
    """

    @record()
    def ask(question: str) -> dict[str, int]:
        return {"score": len(question)}

    assert ask("four") == {"score": 4}
    (line,) = recorded()
    assert (line["raw_response"], line["response"]) == ({"score": 4}, "")


def test_context_reaches_the_record_and_what_the_call_says_counts_more(recorded: Records):
    """
    The block around gives what the call does not say itself.
    """
    with ai_context(brand="Acme", execution_id="exec_1"), record(brand="Own"):
        pass

    (line,) = recorded()
    assert (line["brand"], line["execution_id"]) == ("Own", "exec_1")


def test_value_that_breaks_is_no_fault_of_the_application(recorded: Records):
    """
    What cannot be encoded is replaced in the record, and nothing is raised.
    """

    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    with record(question="Why?") as r:
        r.response = Broken()

    (line,) = recorded()
    assert (line["question"], line["response"]) == ("Why?", "<Broken>")


def test_decorated_generator_is_the_one_within(recorded: Records):
    """
    What is sent and thrown into it arrives, its result comes back, and what it holds is let go of when it is closed.
    """
    closed: list[str] = []

    @record(model="m")
    def ask(question: str) -> Generator[str, str, str]:
        try:
            try:
                got = yield "a"
            except ValueError:
                got = yield "b"
            yield got
        finally:
            closed.append(question)
        return "result"

    one = ask("sent")
    assert (next(one), one.send("c")) == ("a", "c")
    with pytest.raises(StopIteration) as ended:
        next(one)
    assert ended.value.value == "result"
    other = ask("thrown")
    assert (next(other), other.throw(ValueError()), other.send("d")) == ("a", "b", "d")
    other.close()

    assert closed == ["sent", "thrown"]
    assert [(line["response"], line["stream_end"]) for line in recorded()] == [("ac", "complete"), ("abd", "closed")]


def test_decorated_async_generator_is_the_one_within(recorded: Records):
    """
    The same in an event loop: closed means closed, not left to the collector.
    """
    closed: list[str] = []

    @record(model="m")
    async def ask(question: str) -> AsyncGenerator[str, str]:
        try:
            try:
                got = yield "a"
            except ValueError:
                got = yield "b"
            yield got
        finally:
            closed.append(question)

    async def asked() -> None:
        one = ask("sent")
        assert (await anext(one), await one.asend("c")) == ("a", "c")
        assert [piece async for piece in one] == []
        other = ask("thrown")
        assert (await anext(other), await other.athrow(ValueError()), await other.asend("d")) == ("a", "b", "d")
        await other.aclose()
        assert closed == ["sent", "thrown"]

    asyncio.run(asked())
    assert [(line["response"], line["stream_end"]) for line in recorded()] == [("ac", "complete"), ("abd", "closed")]


def test_anything_that_can_be_called_can_be_decorated(recorded: Records):
    """
    An object whose call is a coroutine is waited for; what has no signature has no question.
    """

    class Model:
        async def __call__(self, question: str) -> str:
            return f"{question}!"

    assert asyncio.run(record(model="m")(Model())("q")) == "q!"
    assert record(model="m")(dict)(a=1) == {"a": 1}

    said, made = recorded()
    assert (said["question"], said["response"]) == ("q", "q!")
    assert made["raw_response"] == {"a": 1}


def test_pieces_without_a_truth_are_recorded(recorded: Records):
    """
    A piece that cannot be asked whether it is empty, as an array cannot, does not break the generator.
    """

    class Array:
        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

        def __str__(self) -> str:
            return "[1 2]"

    @record(model="m")
    def ask() -> Iterator[Any]:
        yield Array()

    assert len(list(ask())) == 1
    assert recorded()[0]["response"] == "[1 2]"
