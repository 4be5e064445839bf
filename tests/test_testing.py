from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ai_response_logging.testing import LocalModelServer, Reply, SeenRequest
from ai_response_logging.testing.server import _Server

ASK = [{"role": "system", "content": "be short"}, {"role": "user", "content": "why is the sky blue?"}]


@pytest.fixture
def server() -> Iterator[LocalModelServer]:
    """Run a server for the length of a test."""
    with LocalModelServer(models=("m", "n")) as running:
        yield running


@pytest.fixture
def client(server: LocalModelServer) -> Iterator[openai.OpenAI]:
    """Make a client of that server which tries once."""
    with client_of(server) as made:
        yield made


def client_of(server: LocalModelServer, *, max_retries: int = 0, timeout: float = 10) -> openai.OpenAI:
    """Make a client of *server*; closing it is the caller's."""
    return openai.OpenAI(base_url=server.base_url, api_key="sk-very-secret", max_retries=max_retries, timeout=timeout)


def ask(client: openai.OpenAI, model: str = "m", **options: Any) -> Any:
    """Ask *model* the one question."""
    return client.chat.completions.create(model=model, messages=ASK, **options)


def is_cut(error: BaseException) -> bool:
    """Say whether a stream broke off: openai 2 lets httpx's error through, openai 3 wraps it."""
    return "incomplete chunked read" in f"{error} {error.__cause__}"


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    """Run *work* beside the test; its result or its error stands in the list once it is joined."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001  # the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_plain_chat_answers_the_question_with_counted_tokens(client: openai.OpenAI):
    """The SDK gets a whole completion whose usage adds up."""
    completion = ask(client)

    assert completion.choices[0].message.content == "m answers: why is the sky blue?"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "m"
    assert completion.usage.prompt_tokens == 2 + 5
    assert completion.usage.completion_tokens == 8
    assert completion.usage.total_tokens == 15
    assert completion._request_id == "req_000001"


def test_equal_requests_get_equal_answers(client: openai.OpenAI):
    """Nothing in an answer's text or token counts depends on time or chance."""
    first, second = ask(client), ask(client)

    assert first.choices == second.choices
    assert first.usage == second.usage


def test_stream_ends_with_usage_when_asked_for(client: openai.OpenAI):
    """A stream's pieces join to the plain answer, and its last chunk carries the usage."""
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "m answers: why is the sky blue?"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [15]
    assert chunks[-1].choices == []
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_stream_without_usage_ends_with_done(server: LocalModelServer):
    """The raw stream ends in `[DONE]`, and says nothing of usage unless asked."""
    body = json.dumps({"model": "m", "messages": ASK, "stream": True}).encode()
    request = urllib.request.Request(f"{server.base_url}/chat/completions", data=body)  # noqa: S310  # our own server
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        events = answer.read().decode().split("\n\n")

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert events[-2:] == ["data: [DONE]", ""]
    assert not any("usage" in event for event in events)


def test_models_are_listed(client: openai.OpenAI):
    """The list of models is the one the server was made with."""
    assert [model.id for model in client.models.list()] == ["m", "n"]


def test_scripted_replies_are_given_in_order_then_the_standing_one(server: LocalModelServer, client: openai.OpenAI):
    """A model's own replies come before everybody's, each once, and the standing reply fills in after them."""
    server.reply_with(Reply(text="any 1"), Reply(text="any 2"))
    server.reply_with(Reply(text="only n"), model="n")
    server.reply_always(Reply(text="standing m"), model="m")
    server.reply_always(Reply(text="standing"))

    models = ["m", "n", "n", "m", "other"]
    texts = [ask(client, model).choices[0].message.content for model in models]

    assert texts == ["any 1", "only n", "any 2", "standing m", "standing"]


def test_respond_decides_by_request_and_none_means_as_scripted():
    """A callable sees each request and may leave the choice to the script."""

    def respond(request: SeenRequest) -> Reply | None:
        return Reply(text="chosen", usage={}) if request.model == "n" else None

    with LocalModelServer(respond) as server, client_of(server) as client:
        chosen, echoed = ask(client, "n"), ask(client, "m")

    assert chosen.choices[0].message.content == "chosen"
    assert chosen.usage is None
    assert echoed.choices[0].message.content.startswith("m answers")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, (openai.BadRequestError, "bad_request")),
        (401, (openai.AuthenticationError, "invalid_api_key")),
        (404, (openai.NotFoundError, "not_found")),
        (429, (openai.RateLimitError, "rate_limit_exceeded")),
        (500, (openai.InternalServerError, "server_error")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_scripted_status_raises_the_sdks_error(
    server: LocalModelServer,
    client: openai.OpenAI,
    status: int,
    expected: tuple[type[openai.APIStatusError], str],
    stream: bool,
):
    """Each status arrives as the SDK's own exception, with message, code and request id."""
    error_class, code = expected
    server.reply_with(Reply(status=status, text="told to"))

    with pytest.raises(error_class) as caught:
        ask(client, stream=stream)

    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.request_id == "req_000001"
    assert "told to" in str(caught.value)


def test_retry_after_is_sent_and_a_retrying_client_is_counted_twice(server: LocalModelServer):
    """The SDK comes back after a 429, and both tries are in `requests`."""
    server.reply_with(Reply(status=429, retry_after_s=0.01), Reply(text="better now"))

    with client_of(server, max_retries=1) as client:
        answer = ask(client).choices[0].message.content

    assert answer == "better now"
    assert len(server.requests) == 2


def test_retry_after_stands_in_the_head(server: LocalModelServer, client: openai.OpenAI):
    """`Retry-After` is what the reply says, in seconds."""
    server.reply_with(Reply(status=429, retry_after_s=7))

    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)

    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [False, True])
def test_malformed_answer_cannot_be_decoded(server: LocalModelServer, client: openai.OpenAI, stream: bool):
    """A malformed body or event is a decoding error in the SDK, and the next call works."""
    server.reply_with(Reply(malformed=True))

    with pytest.raises((json.JSONDecodeError, openai.APIError)):
        list(ask(client, stream=stream))

    assert ask(client).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("cut", [{"cut_after_bytes": 0}, {"cut_after_bytes": 20}, {"cut_after_chunks": 0}])
def test_cut_plain_answer_is_a_connection_error(server: LocalModelServer, client: openai.OpenAI, cut: dict[str, int]):
    """A connection dropped before or inside an answer is a connection error, and the server lives on."""
    server.reply_with(Reply(**cut))

    with pytest.raises(openai.APIConnectionError):
        ask(client)

    assert ask(client).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("cut", "texts"), [(1, []), (2, ["m answers: "]), (3, ["m answers: ", "why is the "])])
def test_stream_cut_after_chunks_gives_exactly_those(
    server: LocalModelServer, client: openai.OpenAI, cut: int, texts: list[str]
):
    """The client gets the chunks before the cut whole, then an error instead of the end."""
    server.reply_with(Reply(cut_after_chunks=cut, chunk_chars=11))
    seen = []

    with pytest.raises(Exception) as caught:  # noqa: PT011, PT012  # its class differs with the SDK's release
        for chunk in ask(client, stream=True):
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401  # a comprehension would lose them

    assert is_cut(caught.value)
    assert [text for text in seen if text] == texts


def test_stream_cut_inside_an_event_never_ends_well(server: LocalModelServer, client: openai.OpenAI):
    """A cut after so many bytes falls inside an event, and the stream has no end."""
    server.reply_with(Reply(cut_after_bytes=100))

    with pytest.raises(Exception) as caught:  # noqa: PT011  # its class differs with the SDK's release
        list(ask(client, stream=True))

    assert is_cut(caught.value)


def test_held_request_is_answered_only_after_the_release(server: LocalModelServer, client: openai.OpenAI):
    """A held call is in flight until its event is set, while other calls go on."""
    gate = threading.Event()
    server.reply_with(Reply(text="released", hold=gate), model="held")

    thread, outcome = in_thread(lambda: ask(client, "held").choices[0].message.content)
    server.wait_for_requests(1)
    ask(client, "m")
    was_waiting = not outcome
    gate.set()
    thread.join()

    assert was_waiting
    assert outcome == ["released"]


def test_stream_held_after_chunks_has_sent_them(server: LocalModelServer, client: openai.OpenAI):
    """The chunks before the hold are with the client while the rest waits."""
    gate = threading.Event()
    server.reply_with(Reply(text="ab", chunk_chars=1, hold=gate, hold_after_chunks=2))

    stream = iter(ask(client, stream=True))
    before = [next(stream).choices[0].delta.content for _ in range(2)]
    gate.set()
    after = [chunk.choices[0].delta.content for chunk in stream]

    assert before == ["", "a"]
    assert after == ["b", None]


def test_client_that_gives_up_on_a_held_call_times_out(server: LocalModelServer):
    """The SDK's timeout fires while the server holds, and the server serves on."""
    server.reply_with(Reply(hold=threading.Event()))

    with client_of(server, timeout=0.05) as impatient, pytest.raises(openai.APITimeoutError):
        ask(impatient)

    with client_of(server) as patient:
        assert ask(patient).choices[0].finish_reason == "stop"


def test_delay_lets_the_clients_timeout_fire(server: LocalModelServer):
    """A reply delayed beyond the client's timeout never reaches it."""
    server.reply_with(Reply(delay_s=30))

    with client_of(server, timeout=0.05) as client, pytest.raises(openai.APITimeoutError):
        ask(client)


def test_a_call_that_is_held_looks_ever_less_often(server: LocalModelServer, client: openai.OpenAI):
    """A thousand of them, each of which looked fifty times a second, left no time for any other call."""
    looks_s: list[float | None] = []

    class Held(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks_s.append(timeout)
            return len(looks_s) == 10

    server.reply_with(Reply(hold=Held()))
    ask(client)

    assert looks_s == sorted(looks_s)
    assert looks_s[-1] == 0.5


def test_a_burst_finds_room_to_knock_while_the_server_has_no_time(monkeypatch: pytest.MonkeyPatch):
    """Who is turned away comes again after a second, then two, then four."""
    room, taken = Path("/proc/sys/net/core/somaxconn"), threading.Event()
    if room.exists() and int(room.read_text()) < 400:
        pytest.skip("this system has not so much room")
    take = _Server.get_request
    monkeypatch.setattr(_Server, "get_request", lambda one: (taken.wait(15), take(one))[1])
    with LocalModelServer() as server:
        address = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
        with contextlib.ExitStack() as burst:
            for _ in range(400):
                burst.enter_context(socket.create_connection(address, timeout=0.9))
        taken.set()


@pytest.mark.parametrize("reply", [Reply(hold=threading.Event()), Reply(delay_s=60)])
def test_closing_ends_a_call_in_flight(reply: Reply):
    """`close` returns although a call is held, and the caller sees a broken connection."""
    server = LocalModelServer().start()
    with client_of(server) as client:
        server.reply_with(reply)
        thread, outcome = in_thread(lambda: ask(client))
        server.wait_for_requests(1)
        server.close()
        thread.join()

    assert isinstance(outcome[0], openai.APIConnectionError)


def test_closing_twice_and_with_an_idle_connection_returns(server: LocalModelServer, client: openai.OpenAI):
    """Idle keep-alive connections do not hold `close` up, and a second one does nothing."""
    ask(client)

    server.close()
    server.close()

    with pytest.raises(openai.APIConnectionError):
        ask(client)


def test_connections_are_kept_alive():
    """Several calls of one client use one connection."""
    with LocalModelServer() as server:
        host = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host[0], int(host[1]))) as raw, raw.makefile("rb") as answers:
            statuses = []
            for _ in range(2):
                raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: local\r\n\r\n")
                statuses.append(answers.readline())
                length = next(int(line.split(b":")[1]) for line in answers if line.startswith(b"Content-Length"))
                while answers.readline() != b"\r\n":
                    pass
                answers.read(length)

    assert statuses == [b"HTTP/1.1 200 OK\r\n"] * 2


def test_requests_keep_what_came_but_no_key(server: LocalModelServer, client: openai.OpenAI):
    """Model, messages, headers, body and time are kept; the key is not."""
    ask(client, temperature=0.5)

    [request] = server.requests
    assert (request.method, request.path, request.model) == ("POST", "/v1/chat/completions", "m")
    assert request.messages == ASK
    assert request.question == "why is the sky blue?"
    assert request.body["temperature"] == 0.5
    assert request.stream is False
    assert request.headers["authorization"] == "(hidden)"
    assert "sk-very-secret" not in repr(request)
    assert request.received_at > 1_700_000_000


def test_content_in_parts_is_read_as_text(client: openai.OpenAI):
    """A question given as a list of parts is echoed as its text."""
    parts = [{"type": "text", "text": "part one, "}, {"type": "text", "text": "part two"}]

    completion = client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])

    assert completion.choices[0].message.content == "m answers: part one, part two"


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b'{"model": "m"}', b'{"messages": [{}]}', b'{"model": "m", "messages": ["x"]}']
)
def test_request_that_is_no_chat_is_refused(server: LocalModelServer, body: bytes):
    """What is not a chat request gets a 400 with the API's error object."""
    request = urllib.request.Request(f"{server.base_url}/chat/completions", data=body, method="POST")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)  # noqa: S310

    with caught.value as answer:
        assert answer.code == 400
        assert json.load(answer)["error"]["code"] == "bad_request"


def test_unknown_path_is_not_found(client: openai.OpenAI):
    """What the server does not speak answers 404, so that nobody waits for it."""
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")


def test_waiting_for_requests_that_never_come_says_how_many_did(server: LocalModelServer, client: openai.OpenAI):
    """The time-out's message tells how far it got."""
    ask(client)

    with pytest.raises(TimeoutError, match="1 of 2 requests"):
        server.wait_for_requests(2, timeout_s=0.01)


@pytest.mark.slow
def test_many_clients_at_once_are_all_answered_and_counted(server: LocalModelServer):
    """No request of 40 threads is lost, refused or mixed up."""
    with client_of(server) as client:
        running = [in_thread(lambda name=f"m{i}": ask(client, name).choices[0].message.content) for i in range(40)]
        for thread, _ in running:
            thread.join()

    assert [outcome for _, outcome in running] == [[f"m{i} answers: why is the sky blue?"] for i in range(40)]
    assert {request.model for request in server.requests} == {f"m{i}" for i in range(40)}
    assert len(server.requests) == 40


def _ask_from_a_child(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=10) as client:
        ask(client, "from-child")


@pytest.mark.slow
def test_other_process_is_served(server: LocalModelServer):
    """A spawned process reaches the server through its URL."""
    child = multiprocessing.get_context("spawn").Process(target=_ask_from_a_child, args=(server.base_url,))
    child.start()
    child.join()

    assert child.exitcode == 0
    assert [request.model for request in server.requests] == ["from-child"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_closing_in_a_forked_child_returns_and_leaves_the_parents_server_running(
    server: LocalModelServer, client: openai.OpenAI
):
    """A child that closes its copy neither hangs nor stops the parent."""
    pid = os.fork()
    if pid == 0:
        server.close()
        os._exit(7)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 7
    assert ask(client).choices[0].finish_reason == "stop"


def test_using_it_out_of_order_is_refused():
    """No address before the start, and no second start."""
    server = LocalModelServer()
    with pytest.raises(RuntimeError, match="no address"):
        _ = server.base_url
    server.close()  # never started: nothing to do
    with server, pytest.raises(RuntimeError, match="started already"):
        server.start()


@pytest.mark.parametrize(
    "wrong", [{"chunk_chars": 0}, {"delay_s": -1}, {"status": 99}, {"cut_after_bytes": -1}, {"retry_after_s": -1}]
)
def test_reply_out_of_range_is_refused_by_name(wrong: dict[str, Any]):
    """A reply that makes no sense fails where it is made, naming the field."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Reply(**wrong)
