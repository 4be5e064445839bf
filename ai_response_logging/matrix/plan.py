"""What a run asks of whom: N questions x M models; ``docs/reference/plan.md`` describes every key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import ConfigError
from ._checks import Check, by_name, flag, keep_checked, made_of, text, whole
from .parts import (
    BUDGET_KEYS,
    BUSINESS_KEYS,
    LIMIT_KEYS,
    MOST_AT_ONCE,
    PLATFORM_KEYS,
    Budget,
    ModelSpec,
    PlatformLimits,
    Question,
)
from .placeholders import filled

# What a server on this machine gets for a key: the SDK insists on one.
PLACEHOLDER_KEY: Final = "no-key-needed"
DEFAULT_KEY_ENV: Final = "OPENAI_API_KEY"

PLAN_KEYS: Final[dict[str, Check]] = {
    **BUSINESS_KEYS,
    "system": text,
    "concurrency": whole(1, MOST_AT_ONCE),
    "platforms": by_name("platforms", PlatformLimits, PLATFORM_KEYS),
    **LIMIT_KEYS,
    "budget": made_of(Budget, BUDGET_KEYS),
    "placeholders": flag,
}


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
        models: At least one, and none twice; numbered from 1 in the log.
        system: A system message before each question; may hold placeholders.
        brand: Business context of all questions, as the next three.
        competitors: See *brand*.
        industry: See *brand*.
        question_category: See *brand*.
        concurrency: Calls in flight at once, over all processes together.
        platforms: Limits of single platforms, by the name that the models give them.
        timeout_seconds: How long an endpoint may be silent during one attempt, in seconds.
        max_retries: Further attempts that the SDK makes after 408, 409, 429, 5xx and connection errors.
        budget: After what no more cells are started.
        placeholders: Whether ``{brandName}`` and ``{competitorBrand}`` are filled in, and other names refused.

    Attributes:
        asked: The questions as they will be asked: placeholders filled in, the plan's context where they had none.

    Raises:
        ConfigError: A field is of the wrong type or out of its range, a model stands there twice, a placeholder cannot
            be filled in; ``where`` is the field's path.

    Threads: Frozen. Picklable, and holds no key.

    .. versionadded:: 0.1.0
    """

    questions: Sequence[Question | str]
    models: Sequence[ModelSpec]
    system: str | None = None
    brand: str | None = None
    competitors: Sequence[str] | str | None = None
    industry: str | None = None
    question_category: str | None = None
    concurrency: int = 8
    platforms: Mapping[str, PlatformLimits] | None = None
    timeout_seconds: float = 60.0
    max_retries: int = 2
    budget: Budget | None = None
    placeholders: bool = True
    asked: tuple[Question, ...] = dataclasses.field(init=False, repr=False, compare=False)

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
        keep_checked(self, PLAN_KEYS)
        _check_models(self.models)
        _check_platforms(self.platforms or {}, self.models)
        object.__setattr__(self, "asked", tuple(self._asked(at) for at in range(len(self.questions))))

    @property
    def cell_count(self) -> int:
        """How many calls make the run: questions x models."""
        return len(self.questions) * len(self.models)

    def question(self, question_index: int) -> Question:
        """Return the question with that number, from 1, as it will be asked."""
        return self.asked[question_index - 1]

    def system_for(self, question_index: int) -> str | None:
        """Return the system message that goes before the question with that number, from 1."""
        if self.system is None:
            return None
        return self._filled(self.system, self.asked[question_index - 1], "system")

    def limits_of(self, platform: str) -> PlatformLimits:
        """Return what *platform* may be asked."""
        return (self.platforms or {}).get(platform, _NO_LIMITS)

    def _asked(self, at: int) -> Question:
        question = self.questions[at]
        assert isinstance(question, Question)  # noqa: S101  # __post_init__ made it one
        missing = {name: getattr(self, name) for name in BUSINESS_KEYS if getattr(question, name) is None}
        if any(value is not None for value in missing.values()):
            question = dataclasses.replace(question, **missing)
        if self.system is not None:
            try:
                self._filled(self.system, question, "system")
            except ConfigError as error:
                raise ConfigError(f"before questions[{at}], {error.problem}", error.where) from None
        if "{" not in question.text:
            return question
        return dataclasses.replace(question, text=self._filled(question.text, question, f"questions[{at}]"))

    def _filled(self, template: str, question: Question, where: str) -> str:
        if not self.placeholders:
            return template
        return filled(template, {"brandName": question.brand, "competitorBrand": question.competitor}, where=where)

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


def _check_models(models: Sequence[ModelSpec]) -> None:
    first: list[ModelSpec] = []
    for at, spec in enumerate(models):
        if spec in first:
            raise ConfigError(
                f"{spec.platform} {spec.model} stands here with the same settings as in models[{first.index(spec)}]; "
                "each cell would be asked, and paid for, twice",
                f"models[{at}]",
            )
        first.append(spec)


def _check_platforms(platforms: Mapping[str, PlatformLimits], models: Sequence[ModelSpec]) -> None:
    names = dict.fromkeys(spec.platform for spec in models)
    for platform in platforms:
        if platform not in names:
            raise ConfigError(
                f"no model is of the platform {platform!r}; there are {', '.join(names)}", f"platforms.{platform}"
            )


_NO_LIMITS: Final = PlatformLimits()
