"""LiteLLM with our logger, against the local server."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines, run_child

from ai_response_logging import ConfigError
from ai_response_logging.testing import LocalModelServer, Reply

from ._hooks import Differs, EndsWith, LiteLLM, check_records, told
from ._play import play
from ._sdks import KEY, is_installed
from ._situations import GOOD, QUESTION, SITUATIONS, TEXT, Situation

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


def ended(recorded: Records, count: int) -> list[dict[str, Any]]:
    """Return the records once *count* have come: LiteLLM reports in threads of its own."""
    for _ in range(2000):
        records = recorded()
        if len(records) >= count:
            return records
        gc.collect()
        litellm.utils.executor.submit(int).result()
    raise AssertionError(f"only {len(records)} of {count} records came: {records}")


LITELLM = LiteLLM()
# What LiteLLM makes of a situation that is not what the SDK below it does.
DIFFERS: dict[str, Differs] = {
    # It makes an error with a status of 500 of its own of an answer of 200, and nothing says that there was none.
    "html": Differs({"error_type": "server_error"}),
    # It gives the application an empty answer that ended well, and that is what is recorded.
    "stream_html": Differs({"success": True, "error_type": None, "stream_end": "complete"}),
    "stream_error": Differs({"error_message": EndsWith("it is too much")}),
}


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=[one.name for one in SITUATIONS])
def test_a_call_is_announced_and_ended_once_and_the_application_sees_no_difference(
    situation: Situation, is_async: bool, recorded: Records
):
    """
    Whatever becomes of a call, there is a start and one end that says so, and the application sees the same.
    """
    bare = play(LITELLM, situation, is_async=is_async, recorded=False)
    recording.instrument()
    try:
        hooked = play(LITELLM, situation, is_async=is_async, recorded=True)
        records = ended(recorded, 2)
    finally:
        recording.uninstrument()

    assert (hooked.answers, told(hooked.error), hooked.requests) == (bare.answers, told(bare.error), bare.requests)
    check_records(records, situation, DIFFERS.get(situation.name, Differs()))


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_stream_that_is_dropped_has_the_text_that_was_read(is_async: bool, server: LocalModelServer, recorded: Records):
    """
    Nobody closes it: it is abandoned, as one of the SDK's is, and what had been read is not lost.
    """

    async def aread() -> str:
        stream = await ask(server, is_async=True, stream=True)
        return "".join([(await anext(stream)).choices[0].delta.content or "" for _ in range(3)])

    def read() -> str:
        stream = ask(server, stream=True)
        return "".join([next(stream).choices[0].delta.content or "" for _ in range(3)])

    text = asyncio.run(aread()) if is_async else read()

    first, last = ended(recorded, 2)
    assert (first["event"], last["event"], last["stream_end"]) == ("start", "tombstone", "abandoned")
    assert last["response"] == text != ""


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_stream_is_recorded_before_its_reader_knows_the_end(
    is_async: bool, server: LocalModelServer, recorded: Records
):
    """
    LiteLLM reports it some time later, and not at all where the event loop ends before.
    """

    async def aread() -> list[dict[str, Any]]:
        async for _ in await ask(server, is_async=True, stream=True):
            pass
        return recorded()

    def read() -> list[dict[str, Any]]:
        for _ in ask(server, stream=True):
            pass
        return recorded()

    records = asyncio.run(aread()) if is_async else read()

    assert [(one["event"], one.get("stream_end"), one["response"]) for one in records if one["event"] != "start"] == [
        ("response", "complete", TEXT)
    ]
    litellm.utils.executor.submit(int).result()
    assert len(ended(recorded, 2)) == 2


@pytest.mark.usefixtures("instrumented")
def test_what_the_reader_sees_counts_whatever_is_reported_before(server: LocalModelServer, recorded: Records):
    """
    LiteLLM reports in threads of its own, so that its word may come before the reader is told.
    """
    logger = next(one for one in litellm.callbacks if isinstance(one, recording.AIResponseLogger))
    stream = ask(server, stream=True)
    next(stream)
    told_early = {"litellm_call_id": stream.logging_obj.litellm_call_id, "exception": RuntimeError("reported early")}
    logger.log_failure_event(told_early, None, None, None)
    logger.log_success_event(told_early, {"choices": []}, None, None)
    for _ in stream:
        pass

    first, last = ended(recorded, 2)
    assert (first["event"], last["event"], last["success"], last["response"]) == ("start", "response", True, TEXT)


@pytest.mark.usefixtures("instrumented")
def test_error_that_the_application_was_handling_is_not_the_call_s(server: LocalModelServer, recorded: Records):
    """
    Python chains it to LiteLLM's own error, whose kind is told by what it was made of.
    """
    server.reply_with(Reply(html=True))
    try:
        int("the application's own")
    except ValueError:
        with pytest.raises(litellm.InternalServerError):
            ask(server)

    assert ended(recorded, 2)[-1]["error_type"] == "server_error"


def test_uninstrument_leaves_the_streams_as_they_were():
    """
    Its methods are those of LiteLLM again, unless somebody else has put theirs around ours.
    """
    kind = litellm.CustomStreamWrapper
    before = dict(vars(kind))
    recording.instrument()
    changed = {name for name in before if vars(kind)[name] is not before[name]}
    recording.uninstrument()

    assert changed == {"__next__", "__anext__", "close", "aclose"}
    assert dict(vars(kind)) == before


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
