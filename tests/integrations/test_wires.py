"""What is said over the wire, however the network cuts it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.integrations._body import FOLD_BYTES, Body
from ai_response_logging.integrations._endpoints import platform_of, wire_of
from ai_response_logging.integrations._outcome import (
    UnexpectedAnswerError,
    error_type_of,
    error_type_of_wire,
    usage_fields,
)
from ai_response_logging.integrations._recorder import _asked
from ai_response_logging.integrations._retries import is_retried, retry_count_of
from ai_response_logging.integrations._sse import EventParser
from ai_response_logging.integrations._wire import Wire, question_fields
from ai_response_logging.testing import Reply, SeenRequest
from ai_response_logging.testing.apis import APIS

from ._situations import CALLS, TEXT

STREAMED = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "prompt": "Why?", "input": "Why?"}
# Kinds of events and blocks, so that what has one of them is looked into.
KINDS = [
    "",
    "user",
    "response.completed",
    "response.output_text.delta",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "function_call",
    "message",
    "message_start",
    "message_delta",
    "content_block_start",
    "content_block_delta",
    "text_delta",
    "citations_delta",
    "input_json_delta",
    "tool_use",
]


def body_for(wire: Wire) -> Body:
    """Return an empty stream."""
    return Body(wire, is_events=True, encoding="", decode=lambda raw, _: raw, keep_raw=False)


def stream_of(path: str, **reply: Any) -> bytes:
    """Return a whole stream of the local server."""
    request = SeenRequest("POST", path, {}, {**ASKED, "model": "m", "stream": True}, 0.0)
    return b"".join(APIS[path].body_of(request, Reply(text=TEXT, chunk_chars=5, **reply), 1))


@pytest.mark.parametrize("path", STREAMED)
@given(data=st.data())
def test_stream_says_the_same_however_it_is_cut_into_pieces(path: str, data: st.DataObject):
    """
    Pieces may end inside a character, an escape or between two line feeds: text, calls and end are the same.
    """
    tools = {} if path.endswith("/v1/completions") else {"tool_calls": CALLS}
    raw, wire = stream_of(path, **tools), wire_of("POST", path)
    assert wire is not None
    places = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    whole, cut = body_for(wire), body_for(wire)
    whole.take(raw)
    for begin, end in zip([0, *places], [*places, len(raw)], strict=True):
        cut.take(raw[begin:end])

    fields = whole.fields_of_events()
    assert cut.fields_of_events() == fields
    assert (fields["response"], cut.is_complete) == (TEXT, True)
    assert len(fields.get("tool_calls", [])) == (2 if tools else 0)


@pytest.mark.parametrize("path", STREAMED)
@given(share=st.floats(0, 1))
def test_stream_that_ends_anywhere_gives_the_beginning_of_its_text(path: str, share: float):
    """
    What has come is kept, and never more than that.
    """
    raw, wire = stream_of(path), wire_of("POST", path)
    assert wire is not None
    body = body_for(wire)
    body.take(raw[: int(len(raw) * share * 0.999)])

    assert TEXT.startswith(body.fields_of_events().get("response", ""))


def test_long_stream_is_held_back_to_a_bound_only():
    """
    Memory has the text, and no more than 1 MiB of what came besides.
    """
    wire = wire_of("POST", "/v1/chat/completions")
    assert wire is not None
    body = body_for(wire)
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 1000 + b'"}}]}\n\n'
    held = []
    for _ in range(3 * FOLD_BYTES // len(piece)):
        body.take(piece)
        held.append(sum(len(raw) for _, raw in body._pieces))

    assert max(held) < FOLD_BYTES
    assert len(body.fields_of_events()["response"]) == 1000 * len(held)


@given(lines=st.lists(st.sampled_from(["data: a", "data:b", "event: e", ": note", "", "id: 1"])), end=st.integers(0, 2))
def test_events_are_the_same_with_every_kind_of_line_end(lines: list[str], end: int):
    """
    Line feed, carriage return or both, and the pieces one byte each.
    """
    parsers = EventParser(), EventParser()
    text = "\n".join([*lines, "", ""]).encode()
    other = text.replace(b"\n", [b"\n", b"\r", b"\r\n"][end])

    whole = parsers[0].feed(text + b"x")
    cut = [event for at in range(len(other)) for event in parsers[1].feed(other[at : at + 1])]
    assert [*cut, *parsers[1].feed(b"x")] == whole


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(KINDS),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "message",
                        "content",
                        "index",
                        "type",
                        "output",
                        "response",
                        "usage",
                        "error",
                        "text",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_an_endpoint_sends_is_read_without_an_error(said: Any):
    """
    Any JSON in the place of an answer, an event or a request gives fields or none, and raises nothing.
    """
    for path in (*STREAMED, "/v1/embeddings"):
        wire = wire_of("POST", path)
        assert wire is not None
        plain = Body(wire, is_events=False, encoding="", decode=lambda raw, _: raw, keep_raw=False)
        plain.take(json.dumps(said).encode())
        with contextlib.suppress(UnexpectedAnswerError):
            plain.fields_of_answer()
        if isinstance(said, dict):
            _asked(wire, said)
        body = body_for(wire)
        body.take(b"data: " + json.dumps(said).encode() + b"\n\n")
        body.fields_of_events()


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/openai/deployments/d/chat/completions", "chat"),
        ("POST", "/v1/messages", "chat"),
        ("POST", "/v1/responses/", "responses"),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/messages/count_tokens", None),
        ("POST", "/v1/files", None),
    ],
)
def test_requests_that_ask_a_model_are_told_from_others(method: str, path: str, operation: str | None):
    """
    Only what asks a model is a call.
    """
    wire = wire_of(method, path)
    assert (wire.operation if wire else None) == operation


def test_platform_is_known_by_the_host():
    """
    Known hosts have their platform's name, others are it.
    """
    hosts = ["api.deepseek.com", "me.openai.azure.com", "ark.cn-beijing.volces.com", "localhost"]
    assert [platform_of(host) for host in hosts] == ["deepseek", "azure.openai", "doubao", "localhost"]


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, True),
        (500, {}, True),
        (400, {}, False),
        (400, {"x-should-retry": "true"}, True),
        (500, {"x-should-retry": "false"}, False),
        (429, {"retry-after": "121"}, False),
        (429, {"retry-after-ms": "119000"}, True),
    ],
)
def test_answers_that_are_asked_for_again(status: int, headers: dict[str, str], expected: bool):
    """
    As the SDKs decide.
    """
    assert is_retried(status, headers, 120.0) is expected
    assert [retry_count_of({"x-stainless-retry-count": said}) for said in ("2", "", "x")] == [2, None, None]


def test_errors_have_one_name_wherever_they_come_from():
    """
    Python's, the HTTP libraries' and the providers' own names come to the same few.
    """
    assert [error_type_of(error) for error in (TimeoutError(), ConnectionResetError(), ValueError())] == [
        "timeout",
        "connection",
        "exception",
    ]
    said = [{"type": "rate_limit_error"}, {"code": "content_filter"}, {"type": "overloaded_error"}, {}]
    assert [error_type_of_wire(one) for one in said] == ["rate_limit", "content_filter", "server_error", "server_error"]


def test_usage_is_as_reported_under_each_name():
    """
    OpenAI's, DeepSeek's and Anthropic's names; nothing is added up.
    """
    assert usage_fields({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cached_tokens": 2,
    }
    assert usage_fields({"prompt_cache_hit_tokens": 1})["cached_tokens"] == 1
    assert usage_fields(None) == {}


def test_messages_are_kept_where_they_say_more_than_the_question():
    """
    One question, with or without instructions, needs no second copy.
    """
    user, system = {"role": "user", "content": "Q"}, {"role": "system", "content": "S"}
    assert question_fields([system, user]) == {"question": "Q", "system": "S"}
    assert question_fields([user, {"role": "assistant", "content": "A"}, user])["messages"]
    picture = {"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {}}]}
    assert question_fields([picture]) == {"question": "Q", "messages": [picture]}
