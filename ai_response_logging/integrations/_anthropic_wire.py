"""The Anthropic Messages API over the wire; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ._outcome import filtered_fields, known, usage_fields
from ._wire import Wire, items_of, mapping_of, question_fields, settings_fields, text_of

__all__ = ["MESSAGES"]

# Kinds of blocks that `response` and `tool_calls` hold already; a message with more than that is kept whole.
_SAID: Final = frozenset({"text", "tool_use"})
# Where the pieces of a block go, by the kind of the piece.
_PIECES: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def _request(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings_fields(body), **question_fields(body.get("messages"), text_of(body.get("system")))}


def _answer(body: Mapping[str, Any]) -> dict[str, Any] | None:
    if not isinstance(body.get("content"), list):
        return None
    blocks = items_of(body["content"])
    reasons = [str(body["stop_reason"])] if body.get("stop_reason") else []
    has_more = any(block.get("type") not in _SAID or block.get("citations") for block in blocks)
    message = {"role": body.get("role"), "content": blocks}
    return known(
        {
            "success": True,
            "response": text_of(blocks),
            "response_model": body.get("model"),
            "response_id": body.get("id"),
            "finish_reasons": reasons or None,
            "tool_calls": [_call_of(block) for block in blocks if block.get("type") == "tool_use"] or None,
            "choices": [{"index": 0, "message": message, **({"finish_reason": reasons[0]} if reasons else {})}]
            if has_more
            else None,
            **usage_fields(body.get("usage")),
            **filtered_fields(reasons),
        }
    )


def _call_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's use as the chat API has it; its input, cut off in the middle, as the text that came."""
    arguments = block.get("partial_json") or json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": block.get("name") or "", "arguments": arguments}
    return {"id": block.get("id") or "", "type": "function", "function": function}


class _Fold:
    """Blocks whose text and input come in pieces, between the beginning and the end of the message."""

    def __init__(self) -> None:
        self.has_content = self.is_complete = False
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._error: object = None

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        kind, index = data.get("type") or name, data.get("index")
        at = index if isinstance(index, int) else 0
        if kind == "error":
            self._error = data.get("error") or data
        elif kind == "message_start":
            self._message = dict(mapping_of(data.get("message")))
            self._usage.update(mapping_of(self._message.get("usage")))
        elif kind == "content_block_start":
            self._blocks[at] = dict(mapping_of(data.get("content_block")))
        elif kind == "content_block_delta":
            self._take_piece(at, mapping_of(data.get("delta")))
        elif kind == "message_delta":
            self._message.update(mapping_of(data.get("delta")))
            self._usage.update(known(mapping_of(data.get("usage"))))
        elif kind == "message_stop":
            self.is_complete = True

    def _take_piece(self, at: int, delta: Mapping[str, Any]) -> None:
        key = _PIECES.get(str(delta.get("type")), "")
        piece = delta.get(key)
        if isinstance(piece, str):
            self._pieces.setdefault((at, key), []).append(piece)
            self.has_content = self.has_content or bool(piece)
        elif delta.get("type") == "citations_delta":
            self._blocks.setdefault(at, {}).setdefault("citations", None)
            self._blocks[at]["citations"] = [*(self._blocks[at]["citations"] or []), delta.get("citation")]

    def finish(self) -> None:
        """Nothing: this API has a terminal event of its own."""

    def fields(self) -> dict[str, Any]:
        for (at, key), pieces in self._pieces.items():
            block = self._blocks.setdefault(at, {"type": "text"})
            block[key] = "".join(pieces)
        for block in self._blocks.values():
            if "partial_json" in block:
                self._parse_input(block)
        blocks = [block for _, block in sorted(self._blocks.items())]
        fields = _answer({**self._message, "content": blocks, "usage": self._usage}) or {}
        return {**fields, "error": self._error} if self._error else fields

    def _parse_input(self, block: dict[str, Any]) -> None:
        try:
            block["input"] = json.loads(block["partial_json"] or "{}")
        except ValueError:  # cut off in the middle: the text says how far it came
            return
        del block["partial_json"]


MESSAGES: Final = Wire("chat", _request, _answer, _Fold)
