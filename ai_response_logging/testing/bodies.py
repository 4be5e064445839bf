"""The bytes of the OpenAI API's answers, plain and streamed, and what all answers share; pure."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .script import Reply, SeenRequest, text_of

HTTP_ERROR: Final = 400
_ERROR_CODES: Final = {
    400: ("invalid_request_error", "bad_request"),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
MALFORMED: Final = b'{"id": "chatcmpl-'


def chat_body(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the body of a chat completion: one piece for a plain answer, one for each event of a stream."""
    head = _head(request, number, "chat.completion.chunk" if request.stream else "chat.completion")
    if request.stream:
        yield from _events(request, reply, head, _chat_deltas(request, reply), legacy=False)
        return
    message: dict[str, Any] = {"role": "assistant", "content": answer_text(request, reply), "refusal": None}
    if reply.tool_calls:
        message |= {"content": reply.text, "tool_calls": [_tool_call(*one) for one in enumerate(reply.tool_calls)]}
    rest = {"logprobs": None, "finish_reason": _finish_reason(reply)}
    choices = [{"index": at, "message": message, **rest} for at in range(_choice_count(request))]
    yield to_json({**head, "choices": choices} | _usage_of(request, reply))


def completion_body(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the body of a legacy completion."""
    head = {**_head(request, number, "text_completion"), "id": f"cmpl-local-{number:06d}"}
    if request.stream:
        yield from _events(request, reply, head, _pieces_of(answer_text(request, reply), reply), legacy=True)
        return
    rest = {"text": answer_text(request, reply), "logprobs": None, "finish_reason": reply.finish_reason}
    choices = [{"index": at, **rest} for at in range(_choice_count(request))]
    yield to_json({**head, "choices": choices} | _usage_of(request, reply))


def embedding_body(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the body of an embedding: three figures for each input, as Base64 if so asked."""
    asked = request.body.get("input")
    count = len(asked) if isinstance(asked, list) else 1
    vector: object = [0.25, -0.5, number % 2]
    if request.body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", 0.25, -0.5, number % 2)).decode()
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(count)]
    usage = dict(reply.usage) if reply.usage is not None else {"prompt_tokens": count, "total_tokens": count}
    yield to_json({"object": "list", "data": data, "model": request.model, "usage": usage})


def _events(
    request: SeenRequest, reply: Reply, head: Mapping[str, Any], deltas: list[Any], *, legacy: bool
) -> Iterator[bytes]:
    """The events of a stream: the text in pieces, the finish reason, the usage if asked for, the end."""
    count = _choice_count(request)
    last: Any = "" if legacy else {}
    for at, delta in enumerate([*deltas, last]):
        if at == len(deltas) and reply.stream_error is not None:
            yield b"data: %b\n\n" % to_json({"error": {"message": reply.stream_error, "type": "server_error"}})
            return
        if reply.malformed and at == 1:
            yield b"data: %b\n\n" % MALFORMED
            return
        rest = {"logprobs": None, "finish_reason": _finish_reason(reply) if at == len(deltas) else None}
        for index in range(count):
            choice = {"index": index, "text" if legacy else "delta": delta, **rest}
            yield b"data: %b\n\n" % to_json({**head, "choices": [choice]})
    options = request.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") and _usage_of(request, reply):
        yield b"data: %b\n\n" % to_json({**head, "choices": []} | _usage_of(request, reply))
    if reply.end_marker:
        yield b"data: [DONE]\n\n"


def _chat_deltas(request: SeenRequest, reply: Reply) -> list[dict[str, Any]]:
    text = (reply.text or "") if reply.tool_calls else answer_text(request, reply)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _pieces_of(text, reply)]
    for at, call in enumerate(reply.tool_calls):
        whole = _tool_call(at, call)
        deltas.append({"tool_calls": [{"index": at, **whole, "function": {"name": call["name"], "arguments": ""}}]})
        for piece in _pieces_of(call["arguments"], reply):
            deltas.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    return deltas


def _pieces_of(text: str, reply: Reply) -> list[str]:
    return [text[at : at + reply.chunk_chars] for at in range(0, len(text), reply.chunk_chars)]


def _tool_call(at: int, call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call.get("id", f"call_local_{at}"), "type": "function", "function": function}


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls and reply.finish_reason == "stop" else reply.finish_reason


def _choice_count(request: SeenRequest) -> int:
    count = request.body.get("n")
    return count if isinstance(count, int) and count > 0 else 1


def until_cut(pieces: list[bytes], reply: Reply) -> tuple[list[bytes], bool]:
    """Return what of *pieces* is sent before the connection is dropped, and whether it is dropped at all."""
    if reply.cut_after_chunks is not None:
        pieces = pieces[: reply.cut_after_chunks]
    if reply.cut_after_bytes is None:
        return pieces, reply.cut_after_chunks is not None
    kept, room = [], reply.cut_after_bytes
    for piece in pieces:
        if room <= 0:
            break
        kept.append(piece[:room])
        room -= len(piece)
    return kept, True


def _head(request: SeenRequest, number: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-local-{number:06d}",
        "object": kind,
        "created": int(request.received_at),
        "model": request.model,
        "system_fingerprint": "fp_local",
    }


def answer_text(request: SeenRequest, reply: Reply) -> str:
    """Return the answer: as scripted, or an echo."""
    return f"{request.model} answers: {request.question}" if reply.text is None else reply.text


def _usage_of(request: SeenRequest, reply: Reply) -> dict[str, Any]:
    usage = dict(reply.usage) if reply.usage is not None else _counted(request, reply)
    return {"usage": usage} if usage else {}


def _counted(request: SeenRequest, reply: Reply) -> dict[str, Any]:
    asked = asked_tokens(request)
    answered = tokens_in(answer_text(request, reply))
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def asked_tokens(request: SeenRequest) -> int:
    """Count what is asked."""
    texts = [text_of(message) for message in request.messages] or [request.question]
    return sum(tokens_in(text) for text in texts)


def tokens_in(text: str) -> int:
    """A count that grows with the text and never changes: a token for each four bytes of UTF-8, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def error_body(status: int, message: str | None, code: str | None = None) -> dict[str, Any]:
    """Make the error object the API answers with."""
    kind, usual_code = _ERROR_CODES.get(status, ("server_error", "server_error"))
    text = f"the local model server was told to answer {status}" if message is None else message
    return {"error": {"message": text, "type": kind, "param": None, "code": code or usual_code}}


def to_json(content: Mapping[str, Any]) -> bytes:
    """Encode as ASCII, so that a lone surrogate in a question comes back as it came."""
    return json.dumps(content).encode()
