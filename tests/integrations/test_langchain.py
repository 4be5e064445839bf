"""LangChain's models with our handler, against the local server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ai_response_logging import ConfigError
from ai_response_logging.testing import LocalModelServer

from ._hooks import Differs, LangChain, check_records, told
from ._play import play
from ._sdks import KEY, is_installed
from ._situations import GOOD, QUESTION, SITUATIONS, Situation

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


LANGCHAIN = LangChain()
# What LangChain makes of a situation that is not what the SDK below it does.
DIFFERS: dict[str, Differs] = {
    # Its streams are generators: one that nobody starts to read has asked nobody.
    "stream_never_read": Differs(is_never_asked=True),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=[one.name for one in SITUATIONS])
def test_a_call_is_announced_and_ended_once_and_the_application_sees_no_difference(
    situation: Situation, is_async: bool, recorded: Records
):
    """
    Whatever becomes of a call, there is a start and one end that says so, and the application sees the same.
    """
    differs = DIFFERS.get(situation.name, Differs())
    bare = play(LANGCHAIN, situation, is_async=is_async, recorded=False)
    hooked = play(LANGCHAIN, situation, is_async=is_async, recorded=True)

    assert (hooked.answers, told(hooked.error), hooked.requests) == (bare.answers, told(bare.error), bare.requests)
    if differs.is_never_asked:
        assert (hooked.requests, recorded()) == ([], [])
    else:
        check_records(recorded(), situation, differs)


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
