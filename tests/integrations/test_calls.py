"""What a recording client makes of retries, ends, forks, secrets and kills; with whichever OpenAI SDK is installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, read_lines, run_child

from ai_response_logging import AIResponseHandler, ConfigError
from ai_response_logging.integrations import _recorder, ai_context
from ai_response_logging.testing import LocalModelServer, Reply
from ai_response_logging.verify import verify_log

from ._sdks import KEY, is_installed
from ._situations import QUESTION, TEXT, Gate

if not is_installed("openai"):
    pytest.skip("openai is not installed", allow_module_level=True)

import openai

from ai_response_logging.integrations.openai import recording_async_client, recording_client

Records = Callable[[], list[dict[str, Any]]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BUSY = Reply(status=429, retry_after_s=0.01)


@pytest.fixture
def server(handler: AIResponseHandler) -> Iterator[LocalModelServer]:  # noqa: ARG001  # the log comes first
    """Return a server that gives one good answer after the other."""
    with LocalModelServer() as server:
        server.reply_always(Reply(text=TEXT))
        yield server


def client_for(server: LocalModelServer, *, told: int = 2, **options: Any) -> openai.OpenAI:
    """Return a client whose recorder was *told* how often it tries again."""
    http = recording_client(max_retries=told, verify=False)
    return openai.OpenAI(base_url=server.base_url, api_key=KEY, http_client=http, **options)


def ask(client: openai.OpenAI, question: str = QUESTION, **options: Any) -> Any:
    """Ask *question*."""
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}], **options)


def test_call_that_tries_less_than_told_ends_when_the_client_is_closed(server: LocalModelServer, recorded: Records):
    """
    What was expected to be tried again, and is not, has failed: the record says so at the latest on close.
    """
    server.reply_with(BUSY)
    client = client_for(server, told=2, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        ask(client)
    assert [line["event"] for line in recorded()] == ["attempt"]

    client.close()

    attempt, end = recorded()
    assert (end["event"], end["success"], end["error_type"]) == ("response", False, "rate_limit")
    assert (end["call_id"], end["retry_count"]) == (attempt["call_id"], 0)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("failures", [4, 6])
def test_call_that_tries_more_often_than_told_has_one_outcome(
    failures: int, is_async: bool, server: LocalModelServer, recorded: Records
):
    """
    The SDK is asked how often it tries a call that has a number of its own: no outcome before its last try.
    """
    server.reply_with(*[Reply(status=500, headers={"retry-after-ms": "1"})] * failures)
    told = {"base_url": server.base_url, "api_key": KEY, "max_retries": 5}
    messages: Any = [{"role": "user", "content": QUESTION}]

    async def ask_async() -> None:
        async with openai.AsyncOpenAI(http_client=recording_async_client(verify=False), **told) as client:
            await client.chat.completions.create(model="m", messages=messages)

    with contextlib.suppress(openai.InternalServerError):
        if is_async:
            asyncio.run(ask_async())
        else:
            with client_for(server, told=2) as client:
                ask(client.with_options(max_retries=5))

    *tries, end = recorded()
    assert [line["event"] for line in tries] == ["attempt"] * min(failures, 5)
    assert (end["event"], end["success"], end["retry_count"]) == ("response", failures <= 5, min(failures, 5))
    assert len({line["call_id"] for line in [*tries, end]}) == 1


def test_call_whose_text_changes_between_two_tries_has_one_outcome(server: LocalModelServer, recorded: Records):
    """
    A client that counts its tries in the request, say, makes tries of one call that differ.
    """

    class Counting(openai.OpenAI):
        tries = 0

        def _prepare_options(self, options: Any) -> Any:
            self.tries += 1
            return options.model_copy(update={"json_data": {**options.json_data, "user": f"try-{self.tries}"}})

    server.reply_with(*[Reply(status=500, headers={"retry-after-ms": "1"})] * 2)
    http = recording_client(verify=False)
    with Counting(base_url=server.base_url, api_key=KEY, http_client=http) as client:
        ask(client)

    assert [request.body["user"] for request in server.requests] == ["try-1", "try-2", "try-3"]
    *tries, end = recorded()
    assert [line["event"] for line in tries] == ["attempt"] * 2
    assert (end["event"], end["success"], end["retry_count"]) == ("response", True, 2)
    assert len({line["call_id"] for line in [*tries, end]}) == 1


def test_same_question_asked_again_ends_the_call_before_it(server: LocalModelServer, recorded: Records):
    """
    A first try from the same thread says that the SDK has given the last call up.
    """
    server.reply_with(BUSY)
    client = client_for(server, told=2, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        ask(client)
    ask(client)
    client.close()

    lines = recorded()
    assert [line["event"] for line in lines] == ["attempt", "response", "response"]
    assert [line["call_id"] == lines[0]["call_id"] for line in lines] == [True, True, False]


def test_call_for_which_no_further_try_comes_ends_by_itself(
    server: LocalModelServer, recorded: Records, monkeypatch: pytest.MonkeyPatch
):
    """
    When no try has come for 75 s (here: 0.05 s), the call has failed.
    """
    monkeypatch.setattr(_recorder, "_NEXT_TRY_S", 0.05)
    server.reply_with(BUSY)
    client = client_for(server, told=2, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        ask(client)
    until_s = time.monotonic() + 15
    while len(lines := recorded()) < 2 and time.monotonic() < until_s:
        pass
    client.close()

    assert [line["event"] for line in lines] == ["attempt", "response"]


def test_call_that_is_cancelled_between_two_tries_ends_with_its_task(server: LocalModelServer, recorded: Records):
    """
    While the SDK waits nothing passes by; the end of the task says that no further try will come.
    """
    server.reply_with(Reply(status=429, retry_after_s=60))

    async def main() -> None:
        http = recording_async_client(verify=False)
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, http_client=http)
        task = asyncio.create_task(ask(client))
        while not recorded():  # noqa: ASYNC110  # the record is what is waited for
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)  # what a task's end calls, the loop calls next
        assert [line["event"] for line in recorded()] == ["attempt", "tombstone"]
        await client.close()

    asyncio.run(main())

    first, last = recorded()
    assert (last["call_id"], last["error_type"], last["success"]) == (first["call_id"], "cancelled", False)


def test_calls_of_many_threads_with_one_question_keep_their_tries_apart(server: LocalModelServer, recorded: Records):
    """
    Equal requests at the same time, each tried again, are as many calls with two tries each.
    """
    server.reply_with(*[BUSY] * 8)
    client = client_for(server)
    asyncio.run(_in_threads(8, lambda: ask(client)))
    client.close()

    lines = recorded()
    ends = [line for line in lines if line["event"] == "response"]
    assert len({line["call_id"] for line in lines}) == len(ends) == 8
    assert all(line["success"] for line in ends)
    assert sum(line["retry_count"] for line in ends) == 8


async def _in_threads(count: int, function: Callable[[], object]) -> None:
    await asyncio.gather(*(asyncio.to_thread(function) for _ in range(count)))


def test_several_choices_and_usage_of_a_stream_are_kept(server: LocalModelServer, recorded: Records):
    """
    All choices are in the record, the first one's text is the response, and usage is as reported.
    """
    client = client_for(server)
    for _ in ask(client, stream=True, n=2, stream_options={"include_usage": True}):
        pass
    client.close()

    line = recorded()[-1]
    assert (line["response"], line["finish_reasons"]) == (TEXT, ["stop", "stop"])
    assert [choice["message"]["content"] for choice in line["choices"]] == [TEXT, TEXT]
    assert line["tokens_used"] == line["prompt_tokens"] + line["completion_tokens"]
    assert 0 < line["ttft_ms"] <= line["latency_ms"]
    assert line["request_id"].startswith("req_")


def test_embeddings_are_recorded_and_other_requests_are_not(server: LocalModelServer, recorded: Records):
    """
    A call to an embedding model is one record; the list of models is none.
    """
    client = client_for(server)
    client.embeddings.create(model="e", input=["one", "two"])
    client.models.list()
    client.close()

    (line,) = recorded()
    assert (line["operation"], line["question"], line["prompt_tokens"]) == ("embeddings", "one\ntwo", 2)


def test_fields_of_the_block_in_which_a_call_began_are_its_own(server: LocalModelServer, recorded: Records):
    """
    A stream that is read in another block has the fields of its own, start and end alike.
    """
    client = client_for(server)
    with ai_context(brand="Acme", question_index=1):
        stream = ask(client, stream=True)
    with ai_context(brand="Other", execution_id="not its own"):
        for _ in stream:
            pass
    client.close()

    said = [(line["brand"], line["question_index"], line.get("execution_id")) for line in recorded()]
    assert said == [("Acme", 1, None)] * 2


def test_long_stream_is_recorded_whole(server: LocalModelServer, recorded: Records):
    """
    More than the 1 MiB that is held back comes out whole, Chinese text cut anywhere by the network included.
    """
    text = "为什么天空是蓝色的？" * 12_000
    server.reply_with(Reply(text=text, chunk_chars=500))
    client = client_for(server)
    for _ in ask(client, stream=True):
        pass
    client.close()

    assert recorded()[-1]["response"] == text


def test_no_secret_of_headers_or_addresses_is_in_any_file(log_path: Path, server: LocalModelServer, recorded: Records):
    """
    Keys in headers, in the address and in what the endpoint repeats of them are in no file, journal included.
    """
    secrets = ["planted-key-000001", "planted-org-0002", "planted-query-03", "planted-user-0004", "planted-header-05"]
    key, organization, query, user, header = secrets
    # A name and a password in the address take the place of the key, so that is a client of its own.
    for url in (server.base_url, server.base_url.replace("//", f"//{user}:{user}@")):
        repeated = user if user in url else key
        complaint = Reply(status=401, text=f"Incorrect API key provided: {repeated}; see ?token={query}")
        server.reply_with(complaint, Reply(text="ok"))
        client = openai.OpenAI(
            base_url=url,
            api_key=key,
            organization=organization,
            default_query={"token": query},
            default_headers={"x-internal": header},
            http_client=recording_client(verify=False, starts="all", keep_raw=True),
        )
        with pytest.raises(openai.AuthenticationError):
            ask(client)
        ask(client)
        client.close()

    assert [line["event"] for line in recorded()] == ["start", "response"] * 4
    files = [path for path in log_path.parent.rglob("*") if path.is_file()]
    found = [(secret, path.name) for path in files for secret in secrets if secret.encode() in path.read_bytes()]
    assert len(files) >= 2
    assert found == []


def test_recorder_that_breaks_does_not_break_the_call(
    server: LocalModelServer, handler: AIResponseHandler, monkeypatch: pytest.MonkeyPatch
):
    """
    A fault of ours is counted as a refused record, and the application gets its answer.
    """
    monkeypatch.setattr("logging.raiseExceptions", False)
    client = client_for(server)
    monkeypatch.setattr("ai_response_logging.integrations._body.Body.fields_of_answer", lambda _: 1 / 0)
    assert ask(client).choices[0].message.content == TEXT
    monkeypatch.setattr("ai_response_logging.integrations._recorder.Recorder.begin", lambda *_: 1 / 0)
    assert ask(client).choices[0].message.content == TEXT
    client.close()

    assert handler.get_stats()["failed"] == 2


def test_stream_that_a_forked_child_inherits_is_its_parents_to_record(server: LocalModelServer, recorded: Records):
    """
    The child lets go of its copy without a word; the parent reads on, and its call has one end.
    """
    client = client_for(server)
    stream = ask(client, stream=True)
    next(stream)
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            stream.response.stream._stream._watch.end("closed")
        os._exit(0)
    os.waitpid(pid, 0)
    for _ in stream:
        pass
    client.close()

    assert [(line["event"], line.get("stream_end")) for line in recorded()] == [
        ("start", None),
        ("response", "complete"),
    ]


KILLED = """
import asyncio, os, sys
import openai
from ai_response_logging.integrations.openai import recording_async_client

async def ask(client, number):
    messages = [{"role": "user", "content": f"question {number}"}]
    async for _ in await client.chat.completions.create(model="m", messages=messages, stream=True):
        pass

async def main(url):
    client = openai.AsyncOpenAI(base_url=url, api_key="k", http_client=recording_async_client(verify=False))
    tasks = [asyncio.create_task(ask(client, number)) for number in range(200)]
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks[::5]:
        task.cancel()
    await asyncio.gather(*tasks[::5], return_exceptions=True)
    print("cancelled", flush=True)
    await asyncio.gather(*tasks, return_exceptions=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_of_200_streams_in_one_loop_every_call_is_there_after_a_kill(log_path: Path):
    """
    20 % are cancelled, some are read to their end, the process is killed: each is response, tombstone or start.
    """
    gate = Gate()

    def respond(request: Any) -> Reply:
        number = int(request.question.split()[-1])
        return Reply(text=TEXT, chunk_chars=8, hold=gate, hold_after_chunks=3) if number % 2 == 0 else Reply(text=TEXT)

    with LocalModelServer(respond) as server:
        env = {"AI_RESPONSES_FILE": str(log_path)}
        with child_process(KILLED, server.base_url, env=env) as child:
            server.wait_for_requests(200, timeout_s=90)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "cancelled\n"
            os.kill(child.pid, signal.SIGKILL)
            child.wait(10)
    with contextlib.closing(AIResponseHandler(log_path)) as handler:  # brings the journal home
        assert handler.flush()

    by_call: dict[str, list[str]] = {}
    questions = Counter()
    for line in read_lines(log_path):
        by_call.setdefault(line["call_id"], []).append(line["event"])
        questions[line["question"]] += line["event"] == "start"
    ends = Counter(events[-1] for events in by_call.values())
    assert questions == Counter({f"question {number}": 1 for number in range(200)})
    assert all(events in (["start"], ["start", "response"], ["start", "tombstone"]) for events in by_call.values())
    assert 20 <= ends["tombstone"] <= 40  # those that are held, at least
    assert ends["start"] >= 1
    assert sum(ends.values()) == 200
    report = verify_log(log_path)
    assert (report.whole, report.open_calls) == (True, ends["start"])


def test_transports_are_where_we_look_for_them():
    """
    The private names of the HTTP library that we rely on are there, and a client without them says so.
    """
    for client in (openai.DefaultHttpxClient(verify=False), openai.DefaultAsyncHttpxClient(verify=False)):
        assert client._transport is not None
        assert isinstance(client._mounts, dict)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_retries": -1}, "max_retries must be 0 or more, got -1"),
        ({"starts": "some"}, "starts must be one of streams, all, none, got 'some'"),
        ({"client": object()}, "client= must be a client of httpx or httpx2"),
    ],
)
def test_wrong_argument_says_what_is_allowed(options: dict[str, Any], says: str):
    """
    A client that cannot be is refused when it is made.
    """
    with pytest.raises(ConfigError, match=says):
        recording_client(**options)


def test_client_of_the_other_kind_is_refused():
    """
    A sync client cannot record async calls, nor the other way round.
    """
    with openai.DefaultHttpxClient(verify=False) as client, pytest.raises(ConfigError, match="must be an async client"):
        recording_async_client(client=client)


@pytest.mark.parametrize(
    ("module", "package", "says"),
    [
        ("openai", "openai", "ai-response-logging[openai]"),
        ("anthropic", "anthropic", "ai-response-logging[anthropic]"),
        ("litellm", "litellm", "ai-response-logging[litellm]"),
        ("langchain", "langchain_core", "ai-response-logging[langchain]"),
    ],
)
def test_missing_sdk_says_how_to_install_it(module: str, package: str, says: str):
    """
    Without the library the error names the command that brings it.
    """
    done = run_child(
        f"""
        import importlib.abc, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        from ai_response_logging import MissingExtraError
        try:
            from ai_response_logging.integrations import {module} as hooks
            hooks.recording_client()
        except MissingExtraError as error:
            print(error)
        """
    )

    assert f"pip install '{says}'" in done.stdout
