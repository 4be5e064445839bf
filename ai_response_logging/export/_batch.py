"""OpenAI's batch files: the requests as they were asked, and the answers as a batch would give them; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._conversation import Conversation

__all__ = ["batch_input", "batch_output"]

_URLS: Final[Mapping[str, str]] = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "text_completion": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
_SETTINGS: Final = ("temperature", "top_p", "max_tokens", "seed", "stop", "tools")
_OK: Final = 200


def batch_input(record: Mapping[str, Any], conversation: Conversation | None) -> dict[str, Any] | None:
    """Return the request that asks again what *record* asked; None where a batch has no such call."""
    operation = record.get("operation", "chat")
    url, model = _URLS.get(operation), record.get("model")
    if url is None or conversation is None or not isinstance(model, str):
        return None
    body: dict[str, Any] = {"model": model}
    if operation == "chat":
        body["messages"] = conversation.prompt
    elif operation == "text_completion":
        body["prompt"] = record.get("question")
    else:
        body["input"] = conversation.prompt if operation == "responses" else record.get("question")
    if operation != "embeddings":
        names = {"max_tokens": "max_output_tokens"} if operation == "responses" else {}
        body.update({names.get(name, name): record[name] for name in _SETTINGS if record.get(name) is not None})
    return {"custom_id": str(record.get("record_id")), "method": "POST", "url": url, "body": body}


def batch_output(record: Mapping[str, Any], conversation: Conversation | None) -> dict[str, Any] | None:
    """Return what a batch would have given for *record*; None where a batch has no such call."""
    if record.get("operation", "chat") != "chat":
        return None
    identity = str(record.get("record_id"))
    line: dict[str, Any] = {"id": f"batch_req_{identity}", "custom_id": identity, "response": None, "error": None}
    if record.get("success") is not True:
        code = str(record.get("error_type") or "exception")
        line["error"] = {"code": code, "message": str(record.get("error_message") or code)}
        return line
    if conversation is None:
        return None
    body: Any = record.get("raw_response")
    if not (isinstance(body, dict) and isinstance(body.get("choices"), list)):
        body = _completion(record, conversation, identity)
    line["response"] = {"status_code": _OK, "request_id": str(record.get("request_id") or ""), "body": body}
    return line


def _completion(record: Mapping[str, Any], conversation: Conversation, identity: str) -> dict[str, Any]:
    reasons, created = record.get("finish_reasons"), record.get("unix_timestamp")
    reason = reasons[0] if isinstance(reasons, list) and reasons and isinstance(reasons[0], str) else "stop"
    completion: dict[str, Any] = {
        "id": str(record.get("response_id") or f"chatcmpl-{identity}"),
        "object": "chat.completion",
        "created": int(created) if isinstance(created, int | float) else 0,
        "model": str(record.get("response_model") or record.get("model") or ""),
        "choices": [
            {"index": 0, "message": {"refusal": None, **conversation.answer}, "logprobs": None, "finish_reason": reason}
        ],
    }
    counts = [record.get(name) for name in ("prompt_tokens", "completion_tokens", "tokens_used")]
    if all(isinstance(count, int) for count in counts):
        completion["usage"] = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), counts, strict=True))
    return completion
