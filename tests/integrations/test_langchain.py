"""LangChain's models with our handler, against the local server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ai_response_logging import ConfigError
from ai_response_logging.testing import LocalModelServer, Reply

from ._sdks import KEY, is_installed
from ._situations import CALLS, JOINED_CALLS, QUESTION, TEXT, Gate

if not (is_installed("langchain_core") and is_installed("langchain_openai")):
    pytest.skip("langchain-core and langchain-openai are not installed", allow_module_level=True)

from langchain_openai import ChatOpenAI

from ai_response_logging.integrations import langchain

Records = Callable[[], list[dict[str, Any]]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GOOD = Reply(text=TEXT, chunk_chars=8)
BUSY = Reply(status=429, retry_after_s=0.01)
DOWN = Reply(status=500, retry_after_s=0.01)


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Return a server that gives one good answer after the other."""
    with LocalModelServer() as server:
        server.reply_always(GOOD)
        yield server


def model(server: LocalModelServer, *, recorded: bool = True, **options: Any) -> ChatOpenAI:
    """Return a model of LangChain's, with our handler."""
    callbacks = [langchain.AIResponseCallbackHandler()] if recorded else []
    return ChatOpenAI(
        model="m", base_url=server.base_url, api_key=KEY, callbacks=callbacks, **{"max_retries": 0, **options}
    )


async def _invoke(chat: ChatOpenAI, *, is_async: bool) -> Any:
    return await chat.ainvoke(QUESTION) if is_async else chat.invoke(QUESTION)


async def _chunks(chat: ChatOpenAI, count: int, *, is_async: bool) -> list[str]:
    """Read *count* chunks of a stream, and let go of it."""
    texts: list[str] = []
    if is_async:
        async with contextlib.aclosing(chat.astream(QUESTION)) as stream:
            async for chunk in stream:
                texts.append(chunk.text)
                if len(texts) == count:
                    break
        return texts
    with contextlib.closing(chat.stream(QUESTION)) as stream:
        for chunk in stream:
            texts.append(chunk.text)
            if len(texts) == count:
                break
    return texts


def seen(chat: ChatOpenAI, how: str, *, is_async: bool) -> tuple[str, str]:
    """Return what the application sees of a call: its text, or its error."""
    try:
        if how == "plain":
            return "", asyncio.run(_invoke(chat, is_async=is_async)).text
        return "", "".join(asyncio.run(_chunks(chat, 4 if how == "break" else 1000, is_async=is_async)))
    except Exception as error:  # noqa: BLE001  # whatever comes is compared
        return type(error).__qualname__, str(error)


CASES = [
    ("plain", (GOOD,), {}, {"event": "response", "success": True, "response": TEXT}),
    (
        "plain",
        (Reply(tool_calls=CALLS),),
        {},
        {"event": "response", "success": True, "tool_calls": JOINED_CALLS, "finish_reasons": ["tool_calls"]},
    ),
    ("plain", (BUSY, GOOD), {"max_retries": 2}, {"event": "response", "success": True, "response": TEXT}),
    ("plain", (DOWN,), {}, {"event": "response", "success": False, "error_type": "server_error"}),
    ("plain", (Reply(text=TEXT, cut_after_bytes=20),), {}, {"success": False, "error_type": "connection"}),
    ("plain", (Reply(html=True),), {}, {"event": "response", "success": False}),
    ("plain", (Reply(delay_s=5),), {"timeout": 0.3}, {"success": False, "error_type": "timeout"}),
    ("read", (GOOD,), {}, {"event": "response", "success": True, "response": TEXT, "stream_end": "complete"}),
    ("break", (GOOD,), {}, {"event": "tombstone", "stream_end": "closed"}),
    ("read", (Reply(text=TEXT, chunk_chars=8, cut_after_chunks=5),), {}, {"success": False, "stream_end": "cut"}),
]
IDS = ["plain", "tools", "429", "500", "cut", "html", "timeout", "stream", "broken_off", "stream_cut"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_call_is_announced_and_ended_once_and_the_application_sees_no_difference(
    case: tuple[str, tuple[Reply, ...], dict[str, Any], dict[str, Any]], is_async: bool, recorded: Records
):
    """
    Whatever becomes of a call, there is a start and one end that says so, and the application sees the same.
    """
    how, replies, options, expected = case
    sights = []
    for is_recorded in (False, True):
        with LocalModelServer() as server:  # one for each: LangChain keeps a connection for each address
            server.reply_with(*replies)
            sights.append(seen(model(server, recorded=is_recorded, **options), how, is_async=is_async))
    bare, hooked = sights

    assert hooked == bare
    first, last = recorded()
    assert (first["event"], first["question"], first["model"]) == ("start", QUESTION, "m")
    assert last["call_id"] == first["call_id"]
    assert {name: last.get(name) for name in expected} == expected
    if last.get("stream_end") in {"closed", "cut"}:
        assert last["response"]
        assert TEXT.startswith(last["response"])


def test_cancelled_call_ends_with_its_task(server: LocalModelServer, recorded: Records):
    """
    LangChain never says that a call was cancelled; the end of the task does.
    """
    gate = Gate()
    server.reply_with(Reply(hold=gate))

    async def main() -> None:
        task = asyncio.create_task(model(server).ainvoke(QUESTION))
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    first, last = recorded()
    assert (first["event"], last["event"], last["error_type"]) == ("start", "tombstone", "cancelled")


def test_instrument_records_every_model_until_it_is_undone(server: LocalModelServer, recorded: Records):
    """
    It reaches models that know nothing of it, refuses to be called twice, and ends.
    """
    chat = model(server, recorded=False)
    langchain.instrument()
    try:
        with pytest.raises(ConfigError, match="twice would record every call twice"):
            langchain.instrument()
        chat.invoke(QUESTION)
        asyncio.run(chat.ainvoke(QUESTION))
    finally:
        langchain.uninstrument()
    chat.invoke(QUESTION)
    langchain.uninstrument()
    gc.collect()

    assert [line["event"] for line in recorded()] == ["start", "response"] * 2
