"""
json_default and json_encoder: how an application says in which form its own classes are written.

It is asked where :mod:`._plain` knows no form that JSON has for a value, and would replace and name it. So a record
without such a value goes the short way with these options as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from ._plain import MAX_DEPTH, _Plainer
from .errors import ConfigError, ConfigWarning

__all__ = ["Ask", "ask_by", "plain_fields_asking"]

Ask = Callable[[Any], object]
"""Returns the form of a value, or raises TypeError where it knows none."""


def ask_by(default: Any, encoder: Any) -> Ask | None:
    """Return what is asked for a value that JSON has no form for; of the two options json_default, as in json."""
    if default is not None and not callable(default):
        raise ConfigError(f"json_default must be a function, got {default!r}; in a dictConfig write ext://module.name")
    if encoder is None:
        return default  # type: ignore[no-any-return]  # checked above
    import json

    try:
        ask: Any = encoder().default
    except Exception as error:
        raise ConfigError(
            f"json_encoder must be a json.JSONEncoder that can be made without arguments, got {encoder!r}: {error}; "
            "in a dictConfig write ext://module.name"
        ) from error
    for name in ("encode", "iterencode"):
        if getattr(encoder, name, None) is not getattr(json.JSONEncoder, name):
            text = f"json_encoder={encoder!r}: its {name} has no effect, only its default is asked"
            warnings.warn(text, ConfigWarning, stacklevel=4)
    return default or ask  # type: ignore[no-any-return]  # a JSONEncoder's default is a function


def plain_fields_asking(ask: Ask, fields: Mapping[Any, object]) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Return what :func:`~._plain.plain_fields` does, with *ask* asked before a value is replaced."""
    plainer = _Asking(ask)
    # A field for which the answer is None is as unknown as any that is None.
    plain = {name: value for name, value in plainer.mapping(fields, "", 0).items() if value is not None}
    if plainer.unnamed:
        plainer.named.append({"path": "", "type": f"and {plainer.unnamed} more"})
    return plain, plainer.named


class _Asking(_Plainer):
    """Asks json_default for a value that has no form in JSON, before it is replaced and named."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask: Ask | None = ask
        self._answers = 0

    def container(self, value: object, path: str, depth: int) -> object:
        if self._answers and (depth >= MAX_DEPTH or id(value) in self._open):
            self._ask = None  # an answer without end: with two objects in each, asking on would take for ever
        return super().container(value, path, depth)

    def members(self, value: object, path: str, depth: int) -> object:
        has_form = isinstance(value, (Mapping, list, tuple)) or (is_dataclass(value) and not isinstance(value, type))
        if has_form or self._ask is None:
            return super().members(value, path, depth)
        self._answers += 1
        try:
            answer = self._ask(value)
            if type(answer) is not type(value):
                return self.value(answer, path, depth + 1)
        except TypeError:  # how a default says that it does not know the class
            pass
        except Exception as error:  # noqa: BLE001  foreign code: whatever it raises, the record goes on
            self.name(path, type(error).__name__)
        finally:
            self._answers -= 1
        return super().members(value, path, depth)
