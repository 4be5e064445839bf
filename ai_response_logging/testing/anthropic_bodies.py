"""The bytes of the Anthropic Messages API's answers, plain and streamed; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .bodies import MALFORMED, answer_text, asked_tokens, to_json, tokens_in
from .script import Reply, SeenRequest

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens"}


def anthropic_error(status: int, message: str | None, code: str | None = None) -> dict[str, Any]:
    """Make the error object this API answers with."""
    text = f"the local model server was told to answer {status}" if message is None else message
    return {"type": "error", "error": {"type": code or _ERROR_TYPES.get(status, "api_error"), "message": text}}


def message_body(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the body of a message: one piece for a plain answer, one for each event of a stream."""
    whole = _whole(request, reply, number)
    if not request.stream:
        yield to_json(whole)
        return
    for at, event in enumerate(_events(whole, reply)):
        if reply.malformed and at == 1:
            yield b"event: content_block_start\ndata: %b\n\n" % MALFORMED
            return
        yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(event))


def _whole(request: SeenRequest, reply: Reply, number: int) -> dict[str, Any]:
    usage = {
        "input_tokens": asked_tokens(request),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens_in(answer_text(request, reply)),
    }
    reason = _STOP_REASONS.get(reply.finish_reason, reply.finish_reason)
    return {
        "id": f"msg_local_{number:06d}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": _blocks(request, reply),
        "stop_reason": "tool_use" if reply.tool_calls else reason,
        "stop_sequence": None,
        "usage": usage if reply.usage is None else dict(reply.usage),
    }


def _blocks(request: SeenRequest, reply: Reply) -> list[dict[str, Any]]:
    text = reply.text if reply.tool_calls else answer_text(request, reply)
    calls = [
        {
            "type": "tool_use",
            "id": call.get("id", f"toolu_local_{at}"),
            "name": call["name"],
            "input": json.loads(call["arguments"]),
        }
        for at, call in enumerate(reply.tool_calls)
    ]
    return [*([{"type": "text", "text": text}] if text else []), *calls]


def _events(whole: Mapping[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    asked = {**whole["usage"], "output_tokens": 1}
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": asked}}
    for at, block in enumerate(whole["content"]):
        yield from _block_events(at, block, reply)
        if at == 0:
            yield {"type": "ping"}
    if reply.stream_error is not None:
        yield {"type": "error", "error": {"type": "overloaded_error", "message": reply.stream_error}}
        return
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": whole["usage"].get("output_tokens", 0)}}
    if reply.end_marker:
        yield {"type": "message_stop"}


def _block_events(at: int, block: Mapping[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    is_text = block["type"] == "text"
    yield {
        "type": "content_block_start",
        "index": at,
        "content_block": {**block, **({"text": ""} if is_text else {"input": {}})},
    }
    text = block["text"] if is_text else json.dumps(block["input"], ensure_ascii=False)
    for begin in range(0, len(text), reply.chunk_chars):
        piece = text[begin : begin + reply.chunk_chars]
        delta = (
            {"type": "text_delta", "text": piece} if is_text else {"type": "input_json_delta", "partial_json": piece}
        )
        yield {"type": "content_block_delta", "index": at, "delta": delta}
    yield {"type": "content_block_stop", "index": at}
