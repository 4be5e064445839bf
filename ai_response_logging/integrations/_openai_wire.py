"""The OpenAI API over the wire: chat completions, legacy completions and embeddings; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ._outcome import filtered_fields, known, usage_fields
from ._wire import Wire, items_of, mapping_of, question_fields, settings_fields, text_of

__all__ = ["CHAT", "COMPLETIONS", "EMBEDDINGS", "joined_calls"]

# What `response`, `tool_calls` and `finish_reasons` hold already; a choice with more than that is kept whole.
_SAID: Final = frozenset({"role", "content", "tool_calls"})


def _chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings_fields(body), **question_fields(body.get("messages"))}


def _prompt_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """A legacy completion's ``prompt`` or an embedding's ``input``: a text, or several, or tokens."""
    asked = body.get("prompt", body.get("input"))
    texts = [asked] if isinstance(asked, str) else asked
    is_text = isinstance(texts, list) and all(isinstance(one, str) for one in texts)
    question = "\n".join(texts) if is_text and isinstance(texts, list) else ""
    return known(
        {
            **settings_fields(body),
            "question": question,
            "messages": None if isinstance(asked, str) else asked,
        }
    )


def _chat_answer(body: Mapping[str, Any]) -> dict[str, Any] | None:
    choices = items_of(body.get("choices"))
    if not choices:
        return None
    return {**_head(body), **_choices_fields(choices), **usage_fields(body.get("usage"))}


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    return known({"success": True, "response_model": body.get("model"), "response_id": body.get("id")})


def _choices_fields(choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what *choices* say; the first is the answer, and all are kept where they say more."""
    messages = [mapping_of(choice.get("message")) for choice in choices]
    reasons = [str(choice["finish_reason"]) for choice in choices if choice.get("finish_reason")]
    text = text_of(messages[0].get("content")) or str(choices[0].get("text") or "")
    has_more = len(choices) > 1 or any(
        value for message in messages for name, value in message.items() if name not in _SAID
    )
    has_more = has_more or bool(choices[0].get("logprobs")) or isinstance(messages[0].get("content"), list)
    return known(
        {
            "response": text,
            "tool_calls": messages[0].get("tool_calls") or None,
            "finish_reasons": reasons or None,
            "choices": choices if has_more else None,
            **filtered_fields(reasons),
        }
    )


class _ChatFold:
    """Choices whose text and tool calls come in pieces."""

    def __init__(self) -> None:
        self.has_content = self.is_complete = False
        self._head: dict[str, Any] = {}
        self._usage: object = None
        self._error: object = None
        self._choices: dict[int, _ChoiceFold] = {}

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        if data.get("error") or name == "error":
            self._error = data.get("error") or data
        self._head.update({key: data[key] for key in ("id", "model") if data.get(key)})
        self._usage = data.get("usage") or self._usage
        for choice in items_of(data.get("choices")):
            index = choice.get("index")
            fold = self._choices.setdefault(index if isinstance(index, int) else 0, _ChoiceFold())
            self.has_content = fold.take(choice) or self.has_content

    def finish(self) -> None:
        self.is_complete = True

    def fields(self) -> dict[str, Any]:
        # Some endpoints close the connection without the marker; every choice has said why it ended all the same.
        if self._choices and all(one.finish_reason for one in self._choices.values()):
            self.is_complete = True
        choices = [{"index": index, **fold.whole()} for index, fold in sorted(self._choices.items())]
        fields = _choices_fields(choices) if choices else {"response": ""}
        fields = {**_head(self._head), **fields, **usage_fields(self._usage)}
        return {**fields, "error": self._error} if self._error else fields


class _ChoiceFold:
    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._logprobs: list[Any] = []
        self._calls: list[Mapping[str, Any]] = []
        self._is_legacy = False

    def take(self, choice: Mapping[str, Any]) -> bool:
        """Take in one piece; return whether there was anything of the answer in it."""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._logprobs += items_of(mapping_of(choice.get("logprobs")).get("content"))
        delta = dict(mapping_of(choice.get("delta")))
        if isinstance(choice.get("text"), str):  # a legacy completion
            delta, self._is_legacy = {"content": choice["text"]}, True
        calls = items_of(delta.pop("tool_calls", None))
        self._calls += calls
        found = bool(calls)
        for name, value in delta.items():
            if isinstance(value, str) and name != "role":
                self._texts.setdefault(name, []).append(value)
                found = found or bool(value)
            elif value is not None:
                self._others[name] = value
        return found

    def whole(self) -> dict[str, Any]:
        """Return the choice as a plain answer would have it."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        logprobs = {"logprobs": {"content": self._logprobs}} if self._logprobs else {}
        if self._is_legacy:
            return {"text": texts.get("content", ""), "finish_reason": self.finish_reason}
        calls = {"tool_calls": joined_calls(self._calls)} if self._calls else {}
        return {"message": {**self._others, **texts, **calls}, "finish_reason": self.finish_reason, **logprobs}


def joined_calls(deltas: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the pieces of tool calls: id, type and name as they come first, the arguments one behind the other."""
    calls: dict[str, dict[str, Any]] = {}
    last = "0"
    for delta in deltas:
        last = str(delta.get("index", last))
        call = calls.setdefault(last, {})
        _fill(call, {key: value for key, value in delta.items() if key not in {"index", "function"}})
        if "function" in delta:
            function = call.setdefault("function", {"name": "", "arguments": ""})
            inner = dict(mapping_of(delta["function"]))
            arguments = inner.pop("arguments", None)
            _fill(function, inner)
            function["arguments"] += arguments if isinstance(arguments, str) else ""
    return list(calls.values())


def _fill(holder: dict[str, Any], new: Mapping[str, Any]) -> None:
    holder.update({key: value for key, value in new.items() if value and not holder.get(key)})


def _embeddings_answer(body: Mapping[str, Any]) -> dict[str, Any] | None:
    if not isinstance(body.get("data"), list):
        return None
    return {**_head(body), "response": "", **usage_fields(body.get("usage"))}


CHAT: Final = Wire("chat", _chat_request, _chat_answer, _ChatFold)
COMPLETIONS: Final = Wire("text_completion", _prompt_request, _chat_answer, _ChatFold)
EMBEDDINGS: Final = Wire("embeddings", _prompt_request, _embeddings_answer, _ChatFold)
