"""Which records become data, and for which reason each other one does not; pure but for the library that compares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigError, MissingExtraError
from ._conversation import Conversation, conversation_of

__all__ = ["REASONS", "Selection", "Selector", "is_refusal"]

REASONS: Final[Mapping[str, str]] = {
    "not_an_answer": "announces a call or keeps a failed try; the call's end is another record",
    "doubled": "a line that stands in the log twice",
    "failed": "the call did not succeed",
    "incomplete": "the answer was cut off: by max_tokens, or in the middle of its stream",
    "no_question": "what was asked is not in the record",
    "empty": "neither a text nor a call of a tool came back",
    "refusal": "the model declined to answer",
    "too_short": "shorter than asked for",
    "too_long": "longer than asked for",
    "duplicate": "the same prompt and the same answer as a record before",
    "near_duplicate": "nearly the same prompt and answer as a record before",
    "not_text": "has pictures or calls of tools, which this format has no place for",
    "no_score": "says nothing by which it could be preferred",
    "no_rival": "no other answer to its prompt that is better or worse",
    "in_between": "neither the best nor the worst answer to its prompt",
    "unknown_operation": "of a kind of call that this format has no place for",
}
"""Every reason for which a record may be left out."""

_REFUSAL_CHARS: Final = 600  # a longer answer has more in it than a refusal
_REFUSALS: Final = re.compile(
    # I'm sorry, but as an AI language model, I can't help ...
    r"\s*(?:(?:i['’]?m|i am)? ?(?:very |really )?sorry|i apologi[sz]e|unfortunately)?[,.!:; ]*(?:but )?"
    r"(?:as an ai(?: language model| assistant)?,? ?)?"
    r"i(?: can['’]?t| cannot| can not| won['’]?t| will not|(?: am|['’]?m) (?:not able|unable) to)"
    r" (?:assist|help|answer|provide|do|comply|fulfil|discuss|create|generate|engage|continue|respond|support)"
    # The same in Chinese.
    r"|\s*(?:(?:很|非常|十分)?(?:抱歉|对不起)|不好意思)?[，,。！ ]*但?"
    r"(?:作为(?:一个|一名)?(?:AI|人工智能)[^，,。]{0,20}[，,]但?)?"
    r"我(?:无法|不能|没办法|不可以|不便)(?:[为给向][您你])?(?:提供|回答|协助|帮助|满足|讨论|生成|继续|执行|完成)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    What is left out, besides what no format can use.

    Attributes:
        keep_failed: Failed calls too.
        keep_incomplete: Answers that were cut off too.
        keep_refusals: Answers that decline too.
        keep_duplicates: The same prompt with the same answer again and again.
        near_duplicates: Leave out what is so similar to a record before: a share from 0.5 to 1 of common five-character
            pieces (estimated by MinHash with 128 permutations); None compares whole texts only.
        min_chars: Of the answer.
        max_chars: Of prompt and answer together; None for any.
        everything: Nothing is left out at all, not even what is no answer; for tables of the whole log.
    """

    keep_failed: bool = False
    keep_incomplete: bool = False
    keep_refusals: bool = False
    keep_duplicates: bool = False
    near_duplicates: float | None = None
    min_chars: int = 1
    max_chars: int | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates < 1:  # noqa: PLR2004  less is chance
            raise ConfigError(f"near_duplicates must be 0.5 to 0.999, got {self.near_duplicates!r}", "near_duplicates")


class Selector:
    """
    Applies a selection, one record after the other, and remembers what it has seen.

    Memory: 16 bytes' worth of a set's entry a record; with near_duplicates about 10 kB a record that is kept.
    """

    def __init__(self, selection: Selection, *, needs_conversation: bool) -> None:
        self._selection, self._needs_conversation = selection, needs_conversation
        self._ids: set[str] = set()
        self._hashes: set[bytes] = set()
        self._similar = None if selection.near_duplicates is None else _Similar(selection.near_duplicates)

    def reason_against(self, record: Mapping[str, Any]) -> tuple[str | None, Conversation | None]:
        """Return why *record* is left out, None if it is not, and its conversation as far as it has one."""
        if self._selection.everything:
            return None, conversation_of(record)
        reason = self._of_the_call(record)
        if reason:
            return reason, None
        conversation = conversation_of(record)
        if conversation is None:
            return ("no_question" if self._needs_conversation else None), None
        return self._of_the_text(record, conversation), conversation

    def _of_the_call(self, record: Mapping[str, Any]) -> str | None:
        if record.get("event", "response") not in {"response", "tombstone"}:
            return "not_an_answer"
        record_id = record.get("record_id")
        if isinstance(record_id, str):
            if record_id in self._ids:
                return "doubled"
            self._ids.add(record_id)
        if not self._selection.keep_failed and record.get("success") is not True:
            return "failed"
        if not self._selection.keep_incomplete and _is_cut_off(record):
            return "incomplete"
        return None

    def _of_the_text(self, record: Mapping[str, Any], conversation: Conversation) -> str | None:
        chosen, answer = self._selection, conversation.answer
        text = answer["content"]
        if record.get("success") is not True:  # kept on request, and has no answer to be judged
            return None
        if not text.strip() and "tool_calls" not in answer:
            return "empty"
        if not chosen.keep_refusals and is_refusal(record, text):
            return "refusal"
        if "tool_calls" not in answer and len(text) < chosen.min_chars:
            return "too_short"
        if chosen.max_chars is not None and _chars(conversation) > chosen.max_chars:
            return "too_long"
        if chosen.keep_duplicates:
            return None
        if conversation.hash in self._hashes:
            return "duplicate"
        if self._similar and self._similar.has(_whole_text(conversation)):
            return "near_duplicate"
        self._hashes.add(conversation.hash)
        return None


def _is_cut_off(record: Mapping[str, Any]) -> bool:
    reasons = record.get("finish_reasons")
    return record.get("stream_end", "complete") != "complete" or (isinstance(reasons, list) and "length" in reasons)


def is_refusal(record: Mapping[str, Any], text: str) -> bool:
    """Say whether the model declined, by the provider's word for it or by a short answer's first words."""
    reasons = record.get("finish_reasons")
    if isinstance(reasons, list) and {"content_filter", "refusal"} & {
        reason for reason in reasons if type(reason) is str
    }:
        return True
    return len(text) <= _REFUSAL_CHARS and _REFUSALS.match(text) is not None


def _whole_text(conversation: Conversation) -> str:
    return "\n".join(str(message.get("content")) for message in (*conversation.prompt, conversation.answer))


def _chars(conversation: Conversation) -> int:
    return len(_whole_text(conversation))


class _Similar:
    """What is nearly the same as something before."""

    _PERMUTATIONS: Final = 128
    _PIECE: Final = 5  # characters: words do not tell where Chinese is written

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise MissingExtraError("datasketch", "export") from None
        self._make, self._threshold = MinHash, threshold
        # It proposes; the estimate decides.
        self._seen = MinHashLSH(threshold=threshold, num_perm=self._PERMUTATIONS)
        self._sketches: list[Any] = []

    def has(self, text: str) -> bool:
        """Say whether there was such a text before; if not, remember this one."""
        sketch = self._make(num_perm=self._PERMUTATIONS)
        # The hash seed of a process must not decide what is left out: the pieces go in as bytes, in any order.
        sketch.update_batch(
            [
                piece.encode("utf-8", "replace")
                for piece in {text[at : at + self._PIECE] for at in range(max(1, len(text) - self._PIECE + 1))}
            ]
        )
        if any(sketch.jaccard(self._sketches[at]) >= self._threshold for at in self._seen.query(sketch)):
            return True
        self._seen.insert(len(self._sketches), sketch)
        self._sketches.append(sketch)
        return False
