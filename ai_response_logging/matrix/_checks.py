"""Checks of one value each: what passes comes back, what does not says what is allowed; pure."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError

Check = Callable[[str, Any], Any]
"""Takes the key's name and its value; returns what to keep, or raises `ConfigError` with the name as ``where``."""


def text(name: str, value: Any) -> str:
    """Let a text pass that is more than white space."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name} must be a text that is not empty, got {value!r}", name)
    return value


def whole(least: int, most: int) -> Check:
    """Make a check for whole numbers; True is none."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}", name)
        return value

    return check


def number(least: float, most: float, unit: str = "") -> Check:
    """Make a check for numbers; True is none, and NaN is out of every range."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"{name} must be a number from {least:g} to {most:g}{unit}, got {value!r}", name)
        return value

    return check


def url(name: str, value: Any) -> str:
    """Let an http or https address pass."""
    parts = urllib.parse.urlsplit(text(name, value))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"{name} must be an http or https address such as https://api.example.com/v1, got {value!r}", name
        )
    return str(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Let a text or a list of texts pass, as a tuple."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items:
        raise ConfigError(f"{name} must be a text or a list of texts, got {value!r}", name)
    return tuple(text(f"{name}[{at}]", item) for at, item in enumerate(items))


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Let a mapping pass whose keys are texts, as a dict of its own."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} must be a mapping with texts as keys, got {value!r}", name)
    return dict(value)


def keep_checked(holder: Any, checks: Mapping[str, Check]) -> None:
    """Check a frozen dataclass field by field, and keep what came of it; None may stand where it is the default."""
    for field in dataclasses.fields(holder):
        value = getattr(holder, field.name)
        if field.name in checks and not (value is None and field.default is None):
            object.__setattr__(holder, field.name, checks[field.name](field.name, value))
