"""The OpenAI Responses API over the wire; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._outcome import filtered_fields, known, usage_fields
from ._wire import Wire, items_of, mapping_of, question_fields, settings_fields, text_of

__all__ = ["RESPONSES"]

_TERMINAL: Final = frozenset({"response.completed", "response.failed", "response.incomplete", "response.cancelled"})
# Names of what `response` and `tool_calls` hold already; an output with more than that is kept whole.
_SAID: Final = frozenset({"message", "function_call"})


def _request(body: Mapping[str, Any]) -> dict[str, Any]:
    instructions = body.get("instructions")
    asked = question_fields(body.get("input"), instructions if isinstance(instructions, str) else "")
    return {**settings_fields(body), **asked}


def _answer(body: Mapping[str, Any]) -> dict[str, Any] | None:
    if not isinstance(body.get("output"), list):
        return None
    output = items_of(body["output"])
    status = body.get("status")
    reason = mapping_of(body.get("incomplete_details")).get("reason") or status
    reasons = [str(reason)] if reason else []
    fields = {
        "success": True,
        "response": "".join(text_of(item.get("content")) for item in output if item.get("type") == "message"),
        "response_model": body.get("model"),
        "response_id": body.get("id"),
        "finish_reasons": reasons or None,
        "tool_calls": [_call_of(item) for item in output if item.get("type") == "function_call"] or None,
        "choices": output if _has_more(output) else None,
        **usage_fields(body.get("usage")),
        **filtered_fields(reasons),
    }
    error = body.get("error")
    return known({**fields, "error": error if error or status != "failed" else {"message": "the response failed"}})


def _has_more(output: list[Mapping[str, Any]]) -> bool:
    parts = [part for item in output for part in items_of(item.get("content"))]
    is_text = all(part.get("type") == "output_text" and not part.get("annotations") for part in parts)
    messages = [item for item in output if item.get("type") == "message"]
    return len(messages) > 1 or not is_text or any(item.get("type") not in _SAID for item in output)


def _call_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function call as the chat API has it."""
    function = {"name": item.get("name") or "", "arguments": item.get("arguments") or ""}
    return {"id": item.get("call_id") or item.get("id") or "", "type": "function", "function": function}


class _Fold:
    """The terminal event holds the whole answer; until it comes, the pieces are what there is."""

    def __init__(self) -> None:
        self.has_content = self.is_complete = False
        self._whole: Mapping[str, Any] = {}
        self._texts: list[str] = []
        self._calls: dict[object, dict[str, Any]] = {}
        self._arguments: dict[object, list[str]] = {}
        self._error: object = None

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        kind = str(data.get("type") or name)
        if data.get("error") or kind == "error":
            self._error = data.get("error") or data
        self._whole = mapping_of(data.get("response")) or self._whole
        self.is_complete = self.is_complete or kind in _TERMINAL
        delta, at = data.get("delta"), str(data.get("output_index", 0))
        if kind == "response.output_text.delta" and isinstance(delta, str):
            self._texts.append(delta)
        elif kind == "response.function_call_arguments.delta" and isinstance(delta, str):
            self._arguments.setdefault(at, []).append(delta)
        elif kind == "response.output_item.added" and mapping_of(data.get("item")).get("type") == "function_call":
            self._calls[at] = dict(data["item"])
        self.has_content = self.has_content or isinstance(delta, str)

    def finish(self) -> None:
        """Nothing: this API has its own terminal events, and some endpoints send the marker behind them as well."""

    def fields(self) -> dict[str, Any]:
        whole = dict(self._whole)
        if not self.is_complete:
            text = {"type": "output_text", "text": "".join(self._texts)}
            calls = [
                {**call, "arguments": "".join(self._arguments.get(at, []))}
                for at, call in sorted(self._calls.items(), key=str)
            ]
            whole |= {"output": [{"type": "message", "content": [text]}, *calls], "status": None}
        fields = _answer(whole) or {"response": "", "success": True}
        return {**fields, "error": self._error} if self._error else fields


RESPONSES: Final = Wire("responses", _request, _answer, _Fold)
