"""Checks of one value each: what passes comes back, what does not says what is allowed; pure."""

from __future__ import annotations

import dataclasses
import datetime
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Check:
    """
    What one key may hold: a function for us, and the same as JSON Schema for editors.

    ``keep`` takes the key's name and its value; it returns what to keep, or raises `ConfigError` with the name as
    ``where``.
    """

    keep: Callable[[str, Any], Any]
    schema: Mapping[str, Any]

    def __call__(self, name: str, value: Any) -> Any:
        """Return what to keep of *value*."""
        return self.keep(name, value)


def whole(least: int, most: int) -> Check:
    """Make a check for whole numbers; True is none."""

    def keep(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}", name)
        return value

    return Check(keep, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float, unit: str = "") -> Check:
    """Make a check for numbers; True is none, and NaN is out of every range."""

    def keep(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"{name} must be a number from {least:g} to {most:g}{unit}, got {value!r}", name)
        return value

    return Check(keep, {"type": "number", "minimum": least, "maximum": most})


def made_of(kind: type[Any], checks: Mapping[str, Check]) -> Check:
    """Make a check for an object of *kind*, a dataclass whose fields have *checks*."""

    def keep(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise ConfigError(f"{name} must be a {kind.__name__}, got {value!r}", name)
        return value

    return Check(keep, object_schema(kind, checks))


def by_name(what: str, kind: type[Any], checks: Mapping[str, Check]) -> Check:
    """Make a check for a mapping from names of *what* to objects of *kind*, as a dict of its own."""
    inner = made_of(kind, checks)

    def keep(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{name} must be a mapping from {what} to limits, got {value!r}", name)
        return {key: inner(f"{name}.{key}", item) for key, item in value.items()}

    return Check(keep, {"type": "object", "additionalProperties": inner.schema})


def object_schema(kind: type[Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return the JSON Schema of a mapping that becomes a *kind*; a key without a value counts as not set."""
    fields = [field for field in dataclasses.fields(kind) if field.init and field.name in checks]
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    return {
        "type": "object",
        "properties": {
            field.name: dict(checks[field.name].schema)
            if field.name in needed
            else {"anyOf": [dict(checks[field.name].schema), {"type": "null"}]}
            for field in fields
        },
        **({"required": needed} if needed else {}),
        "additionalProperties": False,
    }


def keep_checked(holder: Any, checks: Mapping[str, Check]) -> None:
    """Check a frozen dataclass field by field, and keep what came of it; None may stand where it is the default."""
    for field in dataclasses.fields(holder):
        if field.name not in checks:
            continue
        value = getattr(holder, field.name)
        if not (value is None and field.default is None):
            object.__setattr__(holder, field.name, checks[field.name](field.name, value))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        # YAML reads NO as False, 1.10 as 1.1 and 2026-01-01 as a day.
        hint = "; quotes make it a text" if isinstance(value, bool | int | float | datetime.date) else ""
        raise ConfigError(f"{name} must be a text that is not empty, got {value!r}{hint}", name)
    return value


def _url(name: str, value: Any) -> str:
    problem = f"{name} must be an http or https address such as https://api.example.com/v1, got {value!r}"
    try:
        parts = urllib.parse.urlsplit(_text(name, value))
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ConfigError:
        raise
    except ValueError:  # of the standard library: half of an IPv6 address, a port that is no number
        is_good = False
    if not is_good or any(char.isspace() for char in value):
        raise ConfigError(problem, name)
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items:
        raise ConfigError(f"{name} must be a text or a list of texts, got {value!r}", name)
    return tuple(_text(name if items is not value else f"{name}[{at}]", item) for at, item in enumerate(items))


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} must be a mapping with texts as keys, got {value!r}", name)
    return dict(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}", name)
    return value


_A_TEXT: Final = {"type": "string", "pattern": r"\S"}

text: Final = Check(_text, _A_TEXT)
"""Lets a text pass that is more than white space."""
url: Final = Check(_url, {"type": "string", "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#]\S*$"})
"""Lets an http or https address pass."""
texts: Final = Check(_texts, {"anyOf": [_A_TEXT, {"type": "array", "items": _A_TEXT, "minItems": 1}]})
"""Lets a text or a list of texts pass, as a tuple."""
mapping: Final = Check(_mapping, {"type": "object"})
"""Lets a mapping pass whose keys are texts, as a dict of its own."""
flag: Final = Check(_flag, {"type": "boolean"})
"""Lets true and false pass."""
