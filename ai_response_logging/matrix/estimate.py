"""How many tokens a run will take, before anything is asked: an estimate from the texts alone; pure."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from .cells import CellIndex
from .plan import Plan

# Tokenizers differ by half; these are the rules of thumb of their makers: about four characters of English a token, one
# of Chinese, Japanese or Korean, two of other scripts, and a few tokens around each message.
_ASCII_CHARS: Final = 4
_OTHER_CHARS: Final = 2
_MESSAGE_TOKENS: Final = 4


class ExpectedTokens(NamedTuple):
    """Of one call: the prompt's as estimated, and how many the model may answer; None where nothing bounds it."""

    prompt: int
    most_answered: int | None


@dataclass(frozen=True, slots=True)
class PlatformEstimate:
    """
    What a run would ask of one platform.

    Attributes:
        platform: Its name.
        calls: Cells to ask.
        prompt_tokens: Estimated.
        max_answer_tokens: What all answers may have together; None where a model has no ``max_tokens``.
        least_minutes: How long its limits per minute make the run last at least; 0.0 without any.
    """

    platform: str
    calls: int
    prompt_tokens: int
    max_answer_tokens: int | None
    least_minutes: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    What a run would ask, without having asked anything.

    Attributes:
        execution_id: Of the run to be resumed; None for a new one.
        filename: The log's absolute path.
        expected: Cells of the plan.
        calls: Cells that would be asked: those that the log lacks, as far as ``max_calls`` allows.
        platforms: The same by platform, in the plan's order.
        repeated_questions: How many questions are the same as one before them, which may be meant.

    .. versionadded:: 0.1.0
    """

    execution_id: str | None
    filename: str
    expected: int
    calls: int
    platforms: Sequence[PlatformEstimate]
    repeated_questions: int

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, estimated."""
        return sum(each.prompt_tokens for each in self.platforms)

    @property
    def max_answer_tokens(self) -> int | None:
        """What all answers may have together; None where nothing bounds them."""
        most = [each.max_answer_tokens for each in self.platforms]
        return None if None in most else sum(each for each in most if each is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as ``ai-responses run --dry-run --json`` prints them."""
        totals = {"prompt_tokens": self.prompt_tokens, "max_answer_tokens": self.max_answer_tokens}
        return {**asdict(self), **totals}


def text_tokens(text: str) -> int:
    """Estimate the tokens of *text*."""
    if text.isascii():
        return math.ceil(len(text) / _ASCII_CHARS)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    ascii_chars = sum(char.isascii() for char in text)
    return math.ceil(wide + ascii_chars / _ASCII_CHARS + (len(text) - wide - ascii_chars) / _OTHER_CHARS)


def expected_tokens(plan: Plan, cell: CellIndex) -> ExpectedTokens:
    """Estimate the tokens of one call."""
    prompt = text_tokens(plan.question(cell.question_index).text) + _MESSAGE_TOKENS
    system = plan.system_for(cell.question_index)
    if system is not None:
        prompt += text_tokens(system) + _MESSAGE_TOKENS
    return ExpectedTokens(prompt, plan.models[cell.model_index - 1].max_tokens)


def estimate_of(plan: Plan, cells: Iterable[CellIndex], *, execution_id: str | None, filename: str) -> Estimate:
    """Add up what asking *cells* would take."""
    calls: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    answers: dict[str, int | None] = {}
    for cell in cells:
        platform = plan.models[cell.model_index - 1].platform
        prompt, most = expected_tokens(plan, cell)
        calls[platform] += 1
        prompts[platform] += prompt
        before = answers.get(platform, 0)
        answers[platform] = None if before is None or most is None else before + most
    platforms = [
        PlatformEstimate(name, count, prompts[name], answers[name], _least_minutes(plan, name, count, prompts[name]))
        for name in dict.fromkeys(spec.platform for spec in plan.models)
        if (count := calls[name])
    ]
    return Estimate(
        execution_id, filename, plan.cell_count, calls.total(), platforms, len(plan.asked) - len(set(plan.asked))
    )


def _least_minutes(plan: Plan, platform: str, calls: int, prompt_tokens: int) -> float:
    limits = plan.limits_of(platform)
    by_calls = (calls - 1) / limits.calls_per_minute if limits.calls_per_minute else 0.0
    by_tokens = prompt_tokens / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
    return round(max(by_calls, by_tokens), 3)
