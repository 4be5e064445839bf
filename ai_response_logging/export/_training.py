"""Training data: one call, or two answers to one prompt, as a row; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigError
from ._conversation import Conversation, text_of
from ._files import Manifest

__all__ = ["PAIR_ROWS", "SINGLE_ROWS", "Preference", "pairs_of"]

Row = dict[str, Any]


def _openai_chat(conversation: Conversation) -> Row:
    row: Row = {"messages": [*conversation.prompt, conversation.answer]}
    if conversation.tools:
        row["tools"] = conversation.tools
    return row


def _trl_prompt_completion(conversation: Conversation) -> Row:
    row: Row = {"prompt": conversation.prompt, "completion": [conversation.answer]}
    if conversation.tools:
        row["tools"] = conversation.tools
    return row


def _alpaca(conversation: Conversation) -> Row | None:
    """Return the row, with ``system`` and ``history`` where there are any; None where it is more than text."""
    texts = [(message["role"], text_of(message)) for message in (*conversation.prompt, conversation.answer)]
    if any(text is None for _, text in texts):
        return None
    system = "\n".join(text or "" for role, text in texts if role in {"system", "developer"})
    turns = [(role, text or "") for role, text in texts if role not in {"system", "developer"}]
    # Users and the model take turns, the user first; anything else has no place in history.
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        return None
    row: Row = {"instruction": turns[-2][1], "input": "", "output": turns[-1][1]}
    if system:
        row["system"] = system
    if len(turns) > 2:  # noqa: PLR2004  a turn is a question and an answer
        row["history"] = [[turns[at][1], turns[at + 1][1]] for at in range(0, len(turns) - 2, 2)]
    return row


SINGLE_ROWS: Final[Mapping[str, Callable[[Conversation], Row | None]]] = {
    "openai-chat": _openai_chat,
    "trl": _openai_chat,
    "trl-prompt-completion": _trl_prompt_completion,
    "alpaca": _alpaca,
}
"""Format -> what makes a row of one call."""


def _openai_dpo(chosen: Conversation, rejected: Conversation) -> Row:
    asked: Row = {"messages": chosen.prompt}
    if chosen.tools:
        asked["tools"] = chosen.tools
    return {"input": asked, "preferred_output": [chosen.answer], "non_preferred_output": [rejected.answer]}


def _trl_preference(chosen: Conversation, rejected: Conversation) -> Row:
    return {"prompt": chosen.prompt, "chosen": [chosen.answer], "rejected": [rejected.answer]}


PAIR_ROWS: Final[Mapping[str, Callable[[Conversation, Conversation], Row]]] = {
    "openai-dpo": _openai_dpo,
    "trl-preference": _trl_preference,
}
"""Format -> what makes a row of a better and a worse answer to the same prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """
    What makes one answer better than another.

    Attributes:
        field: A number at the top of the record; more is better.
        models: Where given, the first of them is the best, and no other counts.
    """

    field: str = "response_quality_score"
    models: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.models and len(self.models) < 2:  # noqa: PLR2004  one has no rival
            raise ConfigError("prefer_models needs two models or more, the best first", "prefer_models")

    def score(self, record: Mapping[str, Any]) -> float | None:
        """Return how good the record's answer is; None where nothing tells."""
        if self.models:
            model = record.get("model")
            return -float(self.models.index(model)) if model in self.models else None
        value = record.get(self.field)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def pairs_of(
    scored: Iterator[tuple[float | None, Conversation]], manifest: Manifest
) -> Iterator[tuple[Conversation, Conversation]]:
    """
    Yield the best and the worst answer to each prompt that has two; count the others in *manifest*.

    Memory: two answers for each prompt, with the prompt.
    """
    prompts: dict[bytes, list[tuple[float, Conversation]]] = {}
    for score, conversation in scored:
        if score is None:
            manifest.leave_out("no_score")
            continue
        found = prompts.setdefault(conversation.prompt_hash, [])
        found.append((score, conversation))
        if len(found) > 2:  # noqa: PLR2004  the best and the worst
            found.sort(key=lambda entry: entry[0], reverse=True)
            del found[1]
            manifest.leave_out("in_between")
    for found in prompts.values():
        found.sort(key=lambda entry: entry[0], reverse=True)
        if len(found) < 2 or found[0][0] == found[-1][0]:  # noqa: PLR2004  as above
            manifest.leave_out("no_rival", len(found))
            continue
        manifest.used += 2
        yield found[0][1], found[1][1]
