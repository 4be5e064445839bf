"""The bytes of the OpenAI Responses API's answers, plain and streamed; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from .bodies import MALFORMED, answer_text, asked_tokens, to_json, tokens_in
from .script import Reply, SeenRequest


def response_body(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the body of a response: one piece for a plain answer, one for each event of a stream."""
    whole = _whole(request, reply, number)
    if not request.stream:
        yield to_json(whole)
        return
    numbers = count()
    for at, event in enumerate(_events(reply, whole)):
        if reply.malformed and at == 1:
            yield b"data: %b\n\n" % MALFORMED
            return
        numbered = {**event, "sequence_number": next(numbers)}
        yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(numbered))


def _whole(request: SeenRequest, reply: Reply, number: int) -> dict[str, Any]:
    asked, answered = asked_tokens(request), tokens_in(answer_text(request, reply))
    usage = {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + answered,
    }
    return {
        "id": f"resp_local_{number:06d}",
        "object": "response",
        "created_at": int(request.received_at),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": request.body.get("instructions"),
        "model": request.model,
        "output": _output(request, reply),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.body.get("tools") or [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "usage": usage if reply.usage is None else dict(reply.usage),
    }


def _output(request: SeenRequest, reply: Reply) -> list[dict[str, Any]]:
    text = reply.text if reply.tool_calls else answer_text(request, reply)
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": "msg_local", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    calls = [
        {
            "id": f"fc_local_{at}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.get("id", f"call_local_{at}"),
            "name": call["name"],
            "arguments": call["arguments"],
        }
        for at, call in enumerate(reply.tool_calls)
    ]
    return [*([message] if text else []), *calls]


def _events(reply: Reply, whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for at, item in enumerate(whole["output"]):
        yield from _item_events(at, item, reply)
    if reply.stream_error is not None:
        yield {"type": "error", "code": "server_error", "message": reply.stream_error, "param": None}
    elif reply.end_marker:
        yield {"type": "response.completed", "response": whole}


def _item_events(at: int, item: Mapping[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    place: dict[str, Any] = {"output_index": at, "item_id": item["id"]}
    is_message = item["type"] == "message"
    emptied: dict[str, Any] = {"content": []} if is_message else {"arguments": ""}
    yield {
        "type": "response.output_item.added",
        "output_index": at,
        "item": {**item, **emptied, "status": "in_progress"},
    }
    text = item["content"][0]["text"] if is_message else item["arguments"]
    if is_message:
        place["content_index"] = 0
        yield {"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}}
    kind = "response.output_text" if is_message else "response.function_call_arguments"
    for begin in range(0, len(text), reply.chunk_chars):
        delta = {"delta": text[begin : begin + reply.chunk_chars]}
        yield {"type": f"{kind}.delta", **place, **delta, **({"logprobs": []} if is_message else {})}
    if is_message:
        yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": item["content"][0]}
    else:
        yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": text}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}
