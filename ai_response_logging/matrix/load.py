"""From a YAML file, or what it held, to a plan; each complaint names the key's full path, and the line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from ..errors import ConfigError
from ._yaml import read_yaml
from .parts import Budget, ModelSpec, PlatformLimits, Question
from .plan import Plan
from .questions import QuestionLine, known_keys, question_lines

_Part = TypeVar("_Part", Plan, ModelSpec, Question, PlatformLimits, Budget)

QUESTIONS_FILE: Final = "questions_file"
"""The one key of a file that `Plan` does not have: it stands for `questions`."""


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """
    Read a plan from a YAML file; its ``questions_file`` is looked for beside it.

    Raises:
        ConfigError: It cannot be read, is no YAML, or is no plan; the message names file, key and line.

    .. versionadded:: 0.1.0
    """
    name = os.fspath(path)
    content, lines = read_yaml(name)
    return plan_of(content, source=name, folder=os.path.dirname(name), lines=lines)


def plan_of(
    content: object, *, source: str = "the plan", folder: str = "", lines: Mapping[str, int] | None = None
) -> Plan:
    """
    Make a plan of what a YAML or JSON file held.

    Args:
        content: A mapping with the keys that ``docs/reference/plan.md`` lists.
        source: Named in errors.
        folder: Where a relative ``questions_file`` is looked for; empty: the current directory.
        lines: The line of each key, by its path, for errors.

    Raises:
        ConfigError: It is no plan; ``where`` is the key's full path, *source* and line.

    .. versionadded:: 0.1.0
    """
    from_file: Sequence[QuestionLine] = ()
    questions_name = ""
    try:
        top = _keys_of(content, Plan, "", extra=(QUESTIONS_FILE,), may_lack=("questions",))
        if QUESTIONS_FILE in top:
            questions_name = _questions_name(top, folder)
            from_file = question_lines(questions_name)
            top["questions"] = [each.question for each in from_file]
        else:
            top["questions"] = [
                _question_of(item, f"questions[{at}]") for at, item in enumerate(_list_in(top, "questions"))
            ]
        top["models"] = [_made(ModelSpec, item, f"models[{at}]") for at, item in enumerate(_list_in(top, "models"))]
        if "platforms" in top:
            top["platforms"] = _platforms_of(top["platforms"])
        if "budget" in top:
            top["budget"] = _made(Budget, top["budget"], "budget")
        return Plan(**top)
    except ConfigError as error:
        where = _where(error.where, source, lines or {}, questions_name, from_file)
        raise ConfigError(error.problem, where) from None


def _where(
    path: str, source: str, lines: Mapping[str, int], questions_name: str, from_file: Sequence[QuestionLine]
) -> str:
    """Return where something stands: the key's path in *source* and its line, or the line in the questions' file."""
    if questions_name and path.startswith(questions_name):
        return path
    at = path.removeprefix("questions[").removesuffix("]")
    if from_file and at.isdigit() and int(at) < len(from_file):
        return f"{questions_name}, line {from_file[int(at)].line}"
    known = path
    while known and known not in lines:  # a key that is missing: the line of what lacks it
        known = known[: max(known.rfind("."), known.rfind("["), 0)]
    line = f", line {lines[known]}" if known else ""
    return f"{path} in {source}{line}" if path else source


def _questions_name(top: dict[str, Any], folder: str) -> str:
    name = top.pop(QUESTIONS_FILE)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{QUESTIONS_FILE} must be the name of a file, got {name!r}", QUESTIONS_FILE)
    if "questions" in top:
        raise ConfigError("questions stand in the plan already; leave one of the two out", QUESTIONS_FILE)
    return os.path.join(folder, name)


def _question_of(item: object, path: str) -> Question:
    if isinstance(item, Mapping):
        return _made(Question, item, path)
    if not isinstance(item, str) or not item.strip():
        raise ConfigError(f"a question must be a text (in quotes) or a mapping with the key text, got {item!r}", path)
    return Question(item)


def _platforms_of(item: object) -> dict[str, PlatformLimits]:
    if not isinstance(item, Mapping):
        raise ConfigError(f"platforms must be a mapping from a platform to its limits, got {item!r}", "platforms")
    return {str(name): _made(PlatformLimits, limits, f"platforms.{name}") for name, limits in item.items()}


def _made(kind: type[_Part], item: object, path: str) -> _Part:
    keys = _keys_of(item, kind, path)
    try:
        return kind(**keys)
    except ConfigError as error:
        raise ConfigError(error.problem, f"{path}.{error.where}") from None


def _list_in(top: Mapping[str, Any], key: str) -> list[Any]:
    if key not in top:
        raise ConfigError(f"{key} is missing; {key} or {QUESTIONS_FILE} is needed", key)
    items = top[key]
    if not isinstance(items, list) or not items:
        raise ConfigError(f"{key} must be a list of at least one, got {items!r}", key)
    return items


def _keys_of(
    item: object, kind: type[_Part], path: str, *, extra: Sequence[str] = (), may_lack: Sequence[str] = ()
) -> dict[str, Any]:
    """Return *item* as keyword arguments of *kind*, if it is a mapping with all the keys it needs and no others."""
    if not isinstance(item, Mapping):
        raise ConfigError(f"a mapping of keys to values is needed here, got {item!r}", path)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    allowed = {**fields, **dict.fromkeys(extra)}
    given = known_keys(item, allowed, lambda key: f"{path}.{key}" if path else str(key))
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in given and name not in may_lack:
            raise ConfigError(f"{name} is missing", f"{path}.{name}" if path else name)
    return given
