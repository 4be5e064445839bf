"""From a YAML file, or what it held, to a plan; each complaint names the key's full path."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import ConfigError
from .plan import ModelSpec, Plan, Question

_Part = TypeVar("_Part", Plan, ModelSpec, Question)


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """
    Read a plan from a YAML file.

    Raises:
        ConfigError: It cannot be read, is no YAML, or is no plan; the message names file and key.

    .. versionadded:: 0.1.0
    """
    import yaml

    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the plan {name} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the plan {name} is no YAML: {' '.join(str(error).split())}") from error
    return plan_of(content, source=name)


def plan_of(content: object, *, source: str = "the plan") -> Plan:
    """
    Make a plan of what a YAML or JSON file held; *source* is named in errors.

    Raises:
        ConfigError: It is no plan; ``where`` is the key's full path and *source*.
    """
    try:
        top = _known_keys(content, Plan, "")
        questions = [_question_of(item, f"questions[{at}]") for at, item in enumerate(_list_in(top, "questions"))]
        models = [_made(ModelSpec, item, f"models[{at}]") for at, item in enumerate(_list_in(top, "models"))]
        return Plan(**{**top, "questions": questions, "models": models})
    except ConfigError as error:
        where = f"{error.where} in {source}" if error.where else source
        raise ConfigError(error.problem, where) from None


def _question_of(item: object, path: str) -> Question:
    if isinstance(item, Mapping):
        return _made(Question, item, path)
    if not isinstance(item, str) or not item.strip():
        raise ConfigError(f"a question must be a text (in quotes) or a mapping with the key text, got {item!r}", path)
    return Question(item)


def _made(kind: type[_Part], item: object, path: str) -> _Part:
    keys = _known_keys(item, kind, path)
    try:
        return kind(**keys)
    except ConfigError as error:
        raise ConfigError(error.problem, f"{path}.{error.where}") from None


def _list_in(top: Mapping[str, Any], key: str) -> list[Any]:
    items = top[key]
    if not isinstance(items, list) or not items:
        raise ConfigError(f"{key} must be a list of at least one, got {items!r}", key)
    return items


def _known_keys(item: object, kind: type[_Part], path: str) -> dict[str, Any]:
    """Return *item* as keyword arguments of *kind*, if it is a mapping with all the keys it needs and no others."""
    if not isinstance(item, Mapping):
        raise ConfigError(f"a mapping of keys to values is needed here, got {item!r}", path)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in item:
        if key not in fields:
            raise ConfigError(_unknown(key, list(fields)), f"{path}.{key}" if path else str(key))
    given = {str(key): value for key, value in item.items() if value is not None}  # `seed:` with nothing behind it
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in given:
            raise ConfigError(f"{name} is missing", f"{path}.{name}" if path else name)
    return given


def _unknown(key: object, allowed: list[str]) -> str:
    if key == "api_key":
        return "a key does not belong into a plan: put it into an environment variable and name that as api_key_env"
    near = difflib.get_close_matches(str(key), allowed, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{key!r} is no key of a plan{hint}; allowed here: {', '.join(allowed)}"
