"""The bytes of the local model server's answers, plain and streamed; pure."""

from __future__ import annotations

import json
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
_MALFORMED: Final = b'{"id": "chatcmpl-'


def body_of(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """Make the whole body: one piece for a plain answer, one for each event of a stream."""
    if reply.status >= HTTP_ERROR:
        yield to_json(error_body(reply.status, reply.text, reply.error_code))
    elif request.stream:
        yield from _events(request, reply, number)
    elif reply.malformed:
        yield _MALFORMED
    else:
        message = {"role": "assistant", "content": _answer_text(request, reply), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        head = _head(request, number, "chat.completion")
        usage = _usage(request, reply)
        yield to_json({**head, "choices": [choice]} | ({"usage": usage} if usage else {}))


def _events(request: SeenRequest, reply: Reply, number: int) -> Iterator[bytes]:
    """The events of a stream: the role, the text in pieces, the finish reason, the usage if asked for, the end."""
    head = _head(request, number, "chat.completion.chunk")
    text = _answer_text(request, reply)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[at : at + reply.chunk_chars]} for at in range(0, len(text), reply.chunk_chars)]
    for at, delta in enumerate([*deltas, {}]):
        reason = reply.finish_reason if at == len(deltas) else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        if reply.malformed and at == 1:
            yield b"data: %b\n\n" % _MALFORMED
            return
        yield b"data: %b\n\n" % to_json({**head, "choices": [choice]})
    usage, options = _usage(request, reply), request.body.get("stream_options")
    if usage and isinstance(options, dict) and options.get("include_usage"):
        yield b"data: %b\n\n" % to_json({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


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


def _answer_text(request: SeenRequest, reply: Reply) -> str:
    return f"{request.model} answers: {request.question}" if reply.text is None else reply.text


def _usage(request: SeenRequest, reply: Reply) -> dict[str, Any]:
    if reply.usage is not None:
        return dict(reply.usage)
    asked = sum(_tokens_in(text_of(message)) for message in request.messages)
    answered = _tokens_in(_answer_text(request, reply))
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _tokens_in(text: str) -> int:
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
