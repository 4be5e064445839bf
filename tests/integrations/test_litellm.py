"""LiteLLM with our logger, against the local server."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines, run_child

from ai_response_logging import ConfigError
from ai_response_logging.testing import LocalModelServer, Reply

from ._sdks import KEY, is_installed
from ._situations import CALLS, JOINED_CALLS, QUESTION, TEXT, Gate

if not is_installed("litellm"):
    pytest.skip("litellm is not installed", allow_module_level=True)

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it asks the network for one otherwise, on import
import litellm

from ai_response_logging.integrations import litellm as recording

Records = Callable[[], list[dict[str, Any]]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("default"),  # LiteLLM itself warns of a lot
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GOOD = Reply(text=TEXT, chunk_chars=8)
BUSY = Reply(status=429, retry_after_s=0.01)
DOWN = Reply(status=500, retry_after_s=0.01)


@pytest.fixture(scope="module", autouse=True)
def _threads_of_litellm() -> None:
    """Have LiteLLM start the threads that it keeps before a test counts them."""
    pool = litellm.utils.executor
    together = threading.Barrier(pool._max_workers)
    for started in [pool.submit(together.wait, 30) for _ in range(pool._max_workers)]:
        started.result()


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Return a server that gives one good answer after the other."""
    with LocalModelServer() as server:
        server.reply_always(GOOD)
        yield server


@pytest.fixture
def instrumented(handler: object) -> Iterator[None]:  # noqa: ARG001  # the log comes first
    """Record all of LiteLLM."""
    recording.instrument()
    yield
    recording.uninstrument()


def ask(server: LocalModelServer, *, is_async: bool = False, **options: Any) -> Any:
    """Ask through LiteLLM."""
    call = litellm.acompletion if is_async else litellm.completion
    messages = [{"role": "user", "content": QUESTION}]
    options = {"max_retries": 0, **options}
    return call(model="openai/m", messages=messages, api_base=server.base_url, api_key=KEY, **options)


def seen(server: LocalModelServer, *, is_async: bool, **options: Any) -> tuple[str, str]:
    """Return what the application sees: the text, or the error."""

    async def awaited() -> str:
        answer = await ask(server, is_async=True, **options)
        if options.get("stream"):
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
        return answer.choices[0].message.content or ""

    try:
        if is_async:
            return "", asyncio.run(awaited())
        answer = ask(server, **options)
        if options.get("stream"):
            return "", "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        return "", answer.choices[0].message.content or ""
    except Exception as error:  # noqa: BLE001  # whatever comes is compared
        return type(error).__qualname__, re.sub(r"time taken=[\d.]+", "time taken=...", str(error))


def ended(recorded: Records, count: int) -> list[dict[str, Any]]:
    """Return the records once *count* have come: LiteLLM reports in threads of its own."""
    for _ in range(2000):
        records = recorded()
        if len(records) >= count:
            return records
        gc.collect()
        litellm.utils.executor.submit(int).result()
    raise AssertionError(f"only {len(records)} of {count} records came: {records}")


CASES = [
    ((GOOD,), {}, {"event": "response", "success": True, "response": TEXT}),
    ((Reply(tool_calls=CALLS),), {}, {"success": True, "tool_calls": JOINED_CALLS}),
    ((BUSY, GOOD), {"max_retries": 2}, {"event": "response", "success": True, "response": TEXT}),
    ((DOWN,), {}, {"event": "response", "success": False, "error_type": "server_error"}),
    ((Reply(status=401),), {}, {"event": "response", "success": False, "error_type": "auth"}),
    ((Reply(delay_s=5),), {"timeout": 0.3}, {"success": False, "error_type": "timeout"}),
    ((GOOD,), {"stream": True}, {"success": True, "response": TEXT, "stream": True, "stream_end": "complete"}),
]
IDS = ["plain", "tools", "429", "500", "401", "timeout", "stream"]


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_call_is_announced_and_ended_once_and_the_application_sees_no_difference(
    case: tuple[tuple[Reply, ...], dict[str, Any], dict[str, Any]],
    is_async: bool,
    server: LocalModelServer,
    recorded: Records,
):
    """
    Whatever becomes of a call, there is a start and one end that says so, and the application sees the same.
    """
    replies, options, expected = case
    server.reply_with(*replies)
    bare = seen(server, is_async=is_async, **options)
    server.reply_with(*replies)
    recording.instrument()
    try:
        hooked = seen(server, is_async=is_async, **options)
        first, last = ended(recorded, 2)
    finally:
        recording.uninstrument()

    assert hooked == bare
    assert (first["event"], first["question"], first["model"]) == ("start", QUESTION, "m")
    assert last["call_id"] == first["call_id"]
    assert {name: last.get(name) for name in expected} == expected


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("count", [0, 2], ids=["never_read", "broken_off"])
def test_stream_that_is_not_read_to_its_end_is_a_tombstone(
    count: int, is_async: bool, server: LocalModelServer, recorded: Records
):
    """
    LiteLLM never says so; the end of its own object for the call does.
    """

    async def awaited() -> None:
        stream = await ask(server, is_async=True, stream=True)
        for _ in range(count):
            await anext(stream)

    if is_async:
        asyncio.run(awaited())
    else:
        stream = ask(server, stream=True)
        for _ in range(count):
            next(stream)
        del stream

    first, last = ended(recorded, 2)
    assert (first["event"], last["event"], last["stream_end"]) == ("start", "tombstone", "abandoned")


@pytest.mark.usefixtures("instrumented")
def test_cancelled_call_ends_with_its_task(server: LocalModelServer, recorded: Records):
    """
    LiteLLM never says that a call was cancelled; the end of the task does.
    """
    gate = Gate()
    server.reply_with(Reply(hold=gate))

    async def main() -> None:
        task = asyncio.create_task(ask(server, is_async=True))
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    first, last = ended(recorded, 2)
    assert (first["event"], last["event"], last["error_type"]) == ("start", "tombstone", "cancelled")


def test_answers_at_the_end_of_the_loop_are_all_recorded(log_path: Path):
    """
    LiteLLM drops what it has not reported when the loop ends; a plain answer is recorded before that.
    """
    run_child(
        """
        import asyncio, litellm
        from ai_response_logging.integrations.litellm import instrument
        from ai_response_logging.testing import LocalModelServer

        instrument()
        messages = [{"role": "user", "content": "Hi"}]

        async def main(url):
            await asyncio.gather(*(
                litellm.acompletion(model="openai/m", messages=messages, api_base=url, api_key="k") for _ in range(20)
            ))

        with LocalModelServer() as server:
            asyncio.run(main(server.base_url))
        """,
        env={"AI_RESPONSES_FILE": str(log_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        timeout=55,
    )

    assert [line["event"] for line in read_lines(log_path)].count("response") == 20


@pytest.mark.usefixtures("handler")
def test_instrument_twice_is_refused_and_uninstrument_ends_it(server: LocalModelServer, recorded: Records):
    """
    It refuses to record twice, and when it is undone nothing is recorded any more.
    """
    recording.instrument()
    try:
        with pytest.raises(ConfigError, match="twice would record every call twice"):
            recording.instrument()
        ask(server)
        ended(recorded, 2)
    finally:
        recording.uninstrument()
    ask(server)
    for _ in range(20):
        litellm.utils.executor.submit(int).result()

    assert [line["event"] for line in recorded()] == ["start", "response"]
