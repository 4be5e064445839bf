"""
What goes over the wire to a model and back, as fields of a record: what all APIs share; pure.

An API is a `Wire`: it reads a request, a whole answer, and the events of a stream one by one (a `Fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ._outcome import known

__all__ = ["Fold", "Wire", "items_of", "mapping_of", "question_fields", "settings_fields", "text_of"]

# The record's name <- the APIs' names.
_SETTINGS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "user": "user_id",
    "tools": "tools",
}
# What stands elsewhere in the record, or says nothing about the question.
_ELSEWHERE: Final = frozenset({"model", "messages", "input", "prompt", "system", "instructions", "stream", "stop"})


class Fold(Protocol):
    """An answer that comes in events."""

    has_content: bool
    """Whether anything of the answer itself has come."""
    is_complete: bool
    """Whether its terminal event has come."""

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        """Take in one event."""
        ...

    def finish(self) -> None:
        """Take in the marker ``[DONE]``."""
        ...

    def fields(self) -> dict[str, Any]:
        """Return what has come so far, as fields of the record."""
        ...


@dataclass(frozen=True, slots=True)
class Wire:
    """
    One API.

    Attributes:
        operation: As the record names it.
        request_fields: What a request's JSON object says.
        answer_fields: What a whole answer's says; None if it is no answer.
        fold: Makes what takes in a stream.
    """

    operation: str
    request_fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    answer_fields: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    fold: Callable[[], Fold]


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return *value* if it is a JSON object, else an empty one: what comes over the wire may be anything."""
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def items_of(value: object) -> list[Mapping[str, Any]]:
    """Return the JSON objects in *value*, if it is a list."""
    # The exact type first: asking an abstract class takes as long as reading the event.
    return [one for one in value if type(one) is dict or isinstance(one, Mapping)] if isinstance(value, list) else []


def text_of(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in items_of(content) if isinstance(part.get("text"), str))


def settings_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a request wants to be answered; what has no field of its own goes to ``parameters`` as it came."""
    stop = body.get("stop", body.get("stop_sequences"))
    fields = {name: body.get(key) for key, name in _SETTINGS.items() if body.get(key) is not None}
    others = {
        key: value
        for key, value in body.items()
        if key not in _SETTINGS and key not in _ELSEWHERE and key != "stop_sequences" and value is not None
    }
    model = body.get("model")
    return known(
        {
            "model": model if isinstance(model, str) else None,
            "stream": True if body.get("stream") else None,
            "stop": [stop] if isinstance(stop, str) else stop,
            **fields,
            "parameters": others or None,
        }
    )


def question_fields(messages: object, system: str = "") -> dict[str, Any]:
    """
    Return what is asked: ``question``, ``system``, and the ``messages`` where they hold more than those two say.

    Args:
        messages: As in the chat API.
        system: Instructions that stand beside the messages.
    """
    if isinstance(messages, str):
        return known({"question": messages, "system": system or None})
    listed = items_of(messages)
    asked = [one for one in listed if one.get("role") == "user"]
    instructions = [one for one in listed if one.get("role") in {"system", "developer"}]
    is_plain = len(asked) + len(instructions) == len(listed) == len(_only_text(listed)) and len(asked) <= 1
    return known(
        {
            "question": text_of(asked[-1].get("content")) if asked else "",
            "system": "\n".join(filter(None, [system, *(text_of(one.get("content")) for one in instructions)])) or None,
            "messages": None if is_plain and len(instructions) <= 1 else messages,
        }
    )


def _only_text(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        one for one in messages if isinstance(one.get("content"), str) and one.keys() <= {"role", "content", "type"}
    ]
