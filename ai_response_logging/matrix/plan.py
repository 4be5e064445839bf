"""What a run asks of whom: N questions x M models; ``docs/reference/plan.md`` describes every key."""

from __future__ import annotations

import dataclasses
import ipaddress
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..errors import ConfigError
from ._checks import Check, keep_checked, mapping, number, text, texts, url, whole

# What a server on this machine gets for a key: the SDK insists on one.
PLACEHOLDER_KEY: Final = "no-key-needed"
DEFAULT_KEY_ENV: Final = "OPENAI_API_KEY"

_BUSINESS: Final[dict[str, Check]] = dict.fromkeys(("brand", "competitor", "industry", "question_category"), text)
_LIMITS: Final[dict[str, Check]] = {"timeout_seconds": number(0.001, 86_400, " seconds"), "max_retries": whole(0, 100)}
_QUESTION: Final[dict[str, Check]] = {"text": text, **_BUSINESS}
_MODEL: Final[dict[str, Check]] = {
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
    **_LIMITS,
}
_PLAN: Final[dict[str, Check]] = {**_BUSINESS, "system": text, "concurrency": whole(1, 10_000), **_LIMITS}


@dataclass(frozen=True, slots=True)
class Question:
    """
    One question, and the business context that goes with it into the log (the plan's where it is not set here).

    Raises:
        ConfigError: A field is empty or no text.

    .. versionadded:: 0.1.0
    """

    text: str
    brand: str | None = None
    competitor: str | None = None
    industry: str | None = None
    question_category: str | None = None

    def __post_init__(self) -> None:
        keep_checked(self, _QUESTION)


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
        keep_checked(self, _MODEL)

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


class Limits(NamedTuple):
    """What one call may take: seconds of silence in one attempt, and further attempts."""

    timeout_s: float
    max_retries: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Every question asked of every model: question i of model j is one cell.

    Args:
        questions: Texts or `Question` objects, at least one; numbered from 1 in the log.
        models: At least one; numbered from 1 in the log.
        system: A system message before each question.
        brand: Business context of all questions, as the next three.
        competitor: See *brand*.
        industry: See *brand*.
        question_category: See *brand*.
        concurrency: Calls in flight at once, over all processes together (each process has at least one).
        timeout_seconds: How long an endpoint may be silent during one attempt, in seconds.
        max_retries: Further attempts that the SDK makes after 408, 409, 429, 5xx and connection errors.

    Raises:
        ConfigError: A field is of the wrong type or out of its range; ``where`` is the field's path.

    Threads: Frozen. Picklable, and holds no key.

    .. versionadded:: 0.1.0
    """

    questions: Sequence[Question | str]
    models: Sequence[ModelSpec]
    system: str | None = None
    brand: str | None = None
    competitor: str | None = None
    industry: str | None = None
    question_category: str | None = None
    concurrency: int = 8
    timeout_seconds: float = 60.0
    max_retries: int = 2

    def __post_init__(self) -> None:
        for name, kinds, wanted in (("questions", (Question, str), "question"), ("models", (ModelSpec,), "model")):
            items = getattr(self, name)
            if isinstance(items, str) or not isinstance(items, Sequence) or not items:
                raise ConfigError(f"{name} must be a list of at least one {wanted}, got {items!r}", name)
            for at, item in enumerate(items):
                if not isinstance(item, kinds):
                    raise ConfigError(f"{name}[{at}] must be a {wanted}, got {item!r}", f"{name}[{at}]")
        object.__setattr__(self, "questions", tuple(map(_as_question, range(len(self.questions)), self.questions)))
        object.__setattr__(self, "models", tuple(self.models))
        keep_checked(self, _PLAN)

    @property
    def cell_count(self) -> int:
        """How many calls make the run: questions x models."""
        return len(self.questions) * len(self.models)

    def question(self, question_index: int) -> Question:
        """Return the question with that number, from 1, with the plan's business context where it has none."""
        question = self.questions[question_index - 1]
        assert isinstance(question, Question)  # noqa: S101  # __post_init__ made it one
        return dataclasses.replace(question, **{
            name: getattr(self, name) for name in _BUSINESS if getattr(question, name) is None
        })  # fmt: skip

    def limits(self, model_index: int) -> Limits:
        """Return the limits of the model with that number, from 1: its own, else the plan's."""
        spec = self.models[model_index - 1]
        timeout_s = self.timeout_seconds if spec.timeout_seconds is None else spec.timeout_seconds
        return Limits(timeout_s, self.max_retries if spec.max_retries is None else spec.max_retries)


def api_key_of(spec: ModelSpec, environ: Mapping[str, str], *, where: str = "api_key_env") -> str:
    """
    Return the key for *spec*: from its variable in *environ*, or a placeholder for an endpoint on this machine.

    Raises:
        ConfigError: There is none; the message names the variable and *where* in the plan.
    """
    variable = spec.api_key_env or (None if spec.base_url else DEFAULT_KEY_ENV)
    if variable is None:
        if spec.is_local:
            return PLACEHOLDER_KEY
        raise ConfigError(
            f"api_key_env is missing: {spec.base_url} is not on this machine, so name the variable", where
        )
    key = environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set, and {spec.platform} needs its key", where)
    return key


def check_keys(plan: Plan, environ: Mapping[str, str]) -> None:
    """
    See to it that every model has its key before the first call is paid for.

    Raises:
        ConfigError: The first model without one, see `api_key_of`.
    """
    for at, spec in enumerate(plan.models):
        api_key_of(spec, environ, where=f"models[{at}].api_key_env")


def _as_question(at: int, item: Question | str) -> Question:
    if isinstance(item, Question):
        return item
    text(f"questions[{at}]", item)
    return Question(item)
