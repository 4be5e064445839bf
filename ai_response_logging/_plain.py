"""
Any Python value as plain JSON values, with a list of what had to be replaced.

The careful way of the formatter: slow, and never failing. Whatever a model client or an application hands over
comes out as something that is strictly valid JSON; nothing is dropped without being named.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import uuid
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final

from ._fast_json import memory_can_end

__all__ = ["MAX_DEPTH", "MAX_NAMED", "dataclass_fields", "has_unfaithful_null", "plain_fields"]

MAX_DEPTH: Final = 100  # orjson stops at 254 and readers at less; an answer nested deeper is not data
MAX_NAMED: Final = 100  # entries of encode_errors; a million bad values must not make the line explode
_PATH_NAME_CHARS: Final = 200  # of a key, in the path of what is below it: each value there gets a copy
_MOST_STR_BITS: Final = 10_000  # str() refuses integers of 4,300 digits and more
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what orjson writes, and what typed readers hold


def has_unfaithful_null(value: object) -> bool:
    """Say whether a NaN or an infinity hides in *value*, which nobody else has: orjson writes both as ``null``."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(has_unfaithful_null, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(has_unfaithful_null, value))
    return False


def plain_fields(fields: Mapping[Any, object]) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Return *fields* as plain JSON values and the list of replacements, ``{"path": ..., "type": ...}`` each."""
    plainer = _Plainer()
    result = plainer.mapping(fields, "", 0)
    if plainer.unnamed:
        plainer.named.append({"path": "", "type": f"and {plainer.unnamed} more"})
    return result, plainer.named


def dataclass_fields(value: Any) -> dict[str, object]:
    """Return the fields of a dataclass instance, those with a leading underscore included."""
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


class _Plainer:
    """One pass over one record."""

    def __init__(self) -> None:
        self.named: list[dict[str, str]] = []
        self.unnamed = 0
        self._open: set[int] = set()

    def name(self, path: str, kind: str) -> None:
        if len(self.named) < MAX_NAMED:
            self.named.append({"path": path, "type": kind})
        else:
            self.unnamed += 1

    def value(self, value: object, path: str, depth: int) -> object:
        """Return *value* as something that JSON has a form for."""
        if value is None or value is True or value is False:
            return value
        try:
            if isinstance(value, enum.Enum):
                return self.value(value.value, path, depth)
            if isinstance(value, str):
                return self.text(value, path)
            if isinstance(value, int):
                return self.integer(value, path)
            if isinstance(value, float):
                return self.number(value, path)
            if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
                return value.isoformat()
            if isinstance(value, (uuid.UUID, PurePath)):
                return self.text(str(value), path)
            return self.container(value, path, depth)
        except Exception as error:  # values run foreign code: whatever it raises, the record goes on
            if isinstance(error, MemoryError) and memory_can_end():
                raise  # the caller is told, and has the answer still; else a name would be all that is kept of it
            self.name(path, type(error).__name__)
            return f"<{type(value).__name__}>"

    def text(self, value: str, path: str) -> str:
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.name(path, "surrogate")
            # Through UTF-16, so that two halves of one character that were cut apart and joined again are one.
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def integer(self, value: int, path: str) -> object:
        number = int.__index__(value)
        if _INT_MIN <= number <= _INT_MAX:
            return number
        self.name(path, "integer")
        return str(number) if number.bit_length() < _MOST_STR_BITS else hex(number)

    def number(self, value: float, path: str) -> object:
        number = float.__float__(value)
        if math.isfinite(number):
            return number
        self.name(path, "float")
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"

    def container(self, value: object, path: str, depth: int) -> object:
        if depth >= MAX_DEPTH:
            self.name(path, "depth")
            return f"<nested deeper than {MAX_DEPTH} levels>"
        if id(value) in self._open:
            self.name(path, "cycle")
            return "<cycle>"
        self._open.add(id(value))
        try:
            return self.members(value, path, depth)
        finally:
            self._open.discard(id(value))

    def members(self, value: object, path: str, depth: int) -> object:
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth)
        if isinstance(value, (list, tuple)):
            return self.sequence(value, path, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.mapping(dataclass_fields(value), path, depth)
        self.name(path, type(value).__name__)
        if isinstance(value, (AbstractSet, deque)):
            return self.sequence(list(value), path, depth)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return b64encode(bytes(value)).decode("ascii")
        if isinstance(value, (Decimal, complex)):
            return str(value)
        return self.stranger(value, path, depth)

    def stranger(self, value: object, path: str, depth: int) -> object:
        """Ask an object of an unknown class for its data (pydantic, numpy, pandas), else for its text."""
        if not isinstance(value, type):
            for method in ("model_dump", "tolist", "item"):
                ask = getattr(value, method, None)
                if callable(ask):
                    return self.value(ask(), path, depth + 1)
        return self.text(str(value), path)

    def sequence(self, values: list[Any] | tuple[Any, ...], path: str, depth: int) -> list[object]:
        return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(values)]

    def mapping(self, values: Mapping[Any, object], path: str, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        spares: dict[str, int] = {}  # remembered: of ten thousand keys alike the last must not try all numbers again
        # A dict is copied in one step: another thread, or code run by a garbage collection, may change it meanwhile.
        for key, item in dict.copy(values).items() if isinstance(values, dict) else list(values.items()):
            given = name = self.key(key, path)
            while name in result:  # 1 and "1" are two keys in Python and one in JSON
                spares[given] = spares.get(given, 1) + 1
                name = f"{given}#{spares[given]}"
            short = name if len(name) <= _PATH_NAME_CHARS else f"{name[:_PATH_NAME_CHARS]}..."
            result[name] = self.value(item, f"{path}.{short}" if path else short, depth + 1)
        return result

    def key(self, key: object, path: str) -> str:
        if type(key) is str:
            return self.text(key, f"{path} key")
        self.name(f"{path} key".strip(), type(key).__name__)
        if key is None or isinstance(key, bool):
            return {None: "null", True: "true", False: "false"}[key]
        try:
            return self.text(str(key.value if isinstance(key, enum.Enum) else key), path)
        except Exception:  # noqa: BLE001  the same: a key's __str__ is foreign code
            return f"<{type(key).__name__}>"
