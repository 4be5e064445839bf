"""What a plan is made of: a question, a model, a platform's limits, a budget; each checks itself."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ._checks import Check, keep_checked, mapping, number, text, texts, url, whole

MOST_AT_ONCE: Final = 10_000
_MOST_COUNTED: Final = 10**12  # tokens; more is a slip
BUSINESS_KEYS: Final[dict[str, Check]] = {
    "brand": text,
    "competitors": texts,
    "industry": text,
    "question_category": text,
}
LIMIT_KEYS: Final[dict[str, Check]] = {
    "timeout_seconds": number(0.001, 86_400, " seconds"),
    "max_retries": whole(0, 100),
}
QUESTION_KEYS: Final[dict[str, Check]] = {"text": text, **BUSINESS_KEYS}
MODEL_KEYS: Final[dict[str, Check]] = {
    "platform": text,
    "model": text,
    "base_url": url,
    "api_key_env": text,
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "max_tokens": whole(1, 10_000_000),
    "seed": whole(-(2**63), 2**63 - 1),
    "stop": texts,
    "extra_body": mapping,
    **LIMIT_KEYS,
}
PLATFORM_KEYS: Final[dict[str, Check]] = {
    "concurrency": whole(1, MOST_AT_ONCE),
    "calls_per_minute": whole(1, 1_000_000),
    "tokens_per_minute": whole(1, _MOST_COUNTED),
}
BUDGET_KEYS: Final[dict[str, Check]] = {"max_calls": whole(1, 1_000_000_000), "max_tokens": whole(1, _MOST_COUNTED)}


@dataclass(frozen=True, slots=True)
class Question:
    """
    One question, and the business context that goes with it into the log (the plan's where it is not set here).

    Args:
        text: What is asked; may hold ``{brandName}`` and ``{competitorBrand}``.
        brand: Fills in ``{brandName}``.
        competitors: A text or several; joined by ", " they fill in ``{competitorBrand}`` and are the record's
            ``competitor``.
        industry: As it shall stand in the log.
        question_category: As it shall stand in the log.

    Raises:
        ConfigError: A field is empty or no text.

    .. versionadded:: 0.1.0
    """

    text: str
    brand: str | None = None
    competitors: Sequence[str] | str | None = None
    industry: str | None = None
    question_category: str | None = None

    def __post_init__(self) -> None:
        keep_checked(self, QUESTION_KEYS)

    @property
    def competitor(self) -> str | None:
        """The competitors as one text, as it stands in the log and for ``{competitorBrand}``: ``"A, B"``."""
        return ", ".join(self.competitors) if self.competitors else None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """
    One model and where it answers; what is None is left to the endpoint, or to the plan.

    Args:
        platform: As it shall stand in the log.
        model: The name the endpoint knows it by.
        base_url: An OpenAI-compatible endpoint; None: the SDK's own (``OPENAI_BASE_URL``, else OpenAI's).
        api_key_env: The environment variable that holds the key. None: `OPENAI_API_KEY` where *base_url* is None too,
            and no key where *base_url* is on this machine; anything else needs one.
        temperature: 0 to 2.
        top_p: 0 to 1.
        max_tokens: Of the answer, from 1.
        seed: Of the sampling.
        stop: One text or several at which the answer ends.
        extra_body: More keys for the request's body, as the endpoint documents them.
        timeout_seconds: The plan's unless said.
        max_retries: The plan's unless said.

    Raises:
        ConfigError: A field is of the wrong type or out of its range.

    .. versionadded:: 0.1.0
    """

    platform: str
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: Sequence[str] | None = None
    extra_body: Mapping[str, Any] | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None

    def __post_init__(self) -> None:
        keep_checked(self, MODEL_KEYS)

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine's loopback."""
        host = urllib.parse.urlsplit(self.base_url or "").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class PlatformLimits:
    """
    What one platform may be asked, over all its models and all processes of a run together; None: no limit.

    Args:
        concurrency: Calls in flight at once, from 1.
        calls_per_minute: Spread evenly: 60 means one each second, and never a burst. The SDK's retries count.
        tokens_per_minute: Of prompts and answers; spread evenly, too. A call counts as estimated when it starts, and
            as reported when it has ended.

    Raises:
        ConfigError: A field is of the wrong type or out of its range.

    .. versionadded:: 0.1.0
    """

    concurrency: int | None = None
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        keep_checked(self, PLATFORM_KEYS)


@dataclass(frozen=True, slots=True)
class Budget:
    """
    After what a run, or one resume of it, starts no more cells; None: no limit.

    Args:
        max_calls: Cells asked.
        max_tokens: Tokens of prompts and answers as reported (estimated, where an endpoint reports none). A cell is
            not started if what was used, what those in flight are expected to use, and what it is expected to use
            itself come to more.

    Raises:
        ConfigError: A field is of the wrong type or out of its range.

    .. versionadded:: 0.1.0
    """

    max_calls: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        keep_checked(self, BUDGET_KEYS)
