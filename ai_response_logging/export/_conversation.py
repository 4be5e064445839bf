"""One record as what training data is made of: what was asked, and what was answered; pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Conversation", "conversation_of", "text_of"]

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_HASH_SPAN: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Conversation:
    """
    One call, as OpenAI's chat API has it.

    Attributes:
        prompt: The messages that were sent, the system's first.
        answer: The message that came back.
        tools: What the model might call; empty where nothing is known of it.
    """

    prompt: list[dict[str, Any]]
    answer: dict[str, Any]
    tools: list[Any] = field(default_factory=list)

    @property
    def prompt_hash(self) -> bytes:
        """The same for the same prompt, whatever the order of keys: 32 bytes."""
        return _hash(self.prompt)

    @property
    def hash(self) -> bytes:
        """The same for the same prompt and answer: 32 bytes."""
        return _hash([*self.prompt, self.answer])

    def is_in(self, share: float) -> bool:
        """Say whether this prompt falls into the first *share* of all prompts; always the same for the same prompt."""
        return int.from_bytes(self.prompt_hash[:8]) < share * _HASH_SPAN


def _hash(messages: list[dict[str, Any]]) -> bytes:
    return hashlib.sha256(json.dumps(messages, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).digest()


def conversation_of(record: Mapping[str, Any]) -> Conversation | None:
    """Return what *record*, a flat one, says was asked and answered; None where nobody can tell what was asked."""
    prompt = _prompt_of(record)
    if not prompt:
        return None
    answer: dict[str, Any] = {"role": "assistant", "content": _text(record.get("response"))}
    calls = record.get("tool_calls")
    if isinstance(calls, list) and calls:
        answer["tool_calls"] = calls
    tools = record.get("tools")
    return Conversation(prompt, answer, tools if isinstance(tools, list) else [])


def _prompt_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = record.get("messages")
    if not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
        question = _text(record.get("question"))
        messages = [{"role": "user", "content": question}] if question.strip() else []
    system = _text(record.get("system"))
    if messages and system and messages[0].get("role") not in {"system", "developer"}:
        messages = [{"role": "system", "content": system}, *messages]
    return list(messages)


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _ROLES


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def text_of(message: Mapping[str, Any]) -> str | None:
    """Return a message's text; None where it is more than text (a picture, a call of a tool)."""
    content = message.get("content")
    if message.get("tool_calls") or message.get("role") in {"tool", "function"}:
        return None
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(_text(part.get("text")) for part in content)
    return "" if content is None else None
