"""Which records a deletion request means; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ..blobs import named_in
from ..errors import ConfigError
from ..reader import parse_line

__all__ = ["Choice", "Selector"]

# Where a record of today has it, and where older ones have it.
_PLACES: Final = ((), ("context",), ("metadata",))
_CALL_ID: Final = re.compile(rb'"call_id":\s*("(?:[^"\\]|\\.)*")')
_TELLING: Final = 6  # characters from which on a value that stands in a text is no chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """
    Whose records are to be forgotten: those that have all that is given here.

    Attributes:
        user_id: As logged, in ``user_id``, or in ``context`` or ``metadata`` as older lines have it.
        session_id: The same.
        record_id: One record.

    Raises:
        ConfigError: Nothing is given, which would be every record, or an empty text.
    """

    user_id: str | None = None
    session_id: str | None = None
    record_id: str | None = None

    def __post_init__(self) -> None:
        if not self.wanted:
            raise ConfigError("say which records are to be forgotten: by user_id, session_id or record_id")
        if not all(self.wanted.values()):
            raise ConfigError(f"{next(name for name, value in self.wanted.items() if not value)} must not be empty")

    @property
    def wanted(self) -> dict[str, str]:
        """What is given."""
        fields = {"user_id": self.user_id, "session_id": self.session_id, "record_id": self.record_id}
        return {name: value for name, value in fields.items() if value is not None}

    def match(self, record: Mapping[str, Any]) -> bool:
        """Say whether *record*, of any shape, is meant."""
        return all(value in _values(record, name) for name, value in self.wanted.items())

    def needles(self) -> list[bytes]:
        """Return bytes one of which stands in every line that can match, however it was encoded."""
        value = next(iter(self.wanted.values()))
        return [orjson.dumps(value)[1:-1], json.dumps(value)[1:-1].encode()]


def _values(record: Mapping[str, Any], name: str) -> list[str]:
    found = []
    for place in _PLACES:
        part: Any = record
        for key in place:
            part = part.get(key)
        value = part.get(name) if isinstance(part, Mapping) else None
        if isinstance(value, str | int) and not isinstance(value, bool):
            found.append(str(value))
    return found


@dataclass(slots=True)
class Choice:
    """
    What the selector means in one log: the records that match, and the other records of their calls.

    A ``start`` or an ``attempt`` may know the user where the ``response`` does not. One that names another user stays.
    """

    selector: Selector
    call_ids: set[str] = field(default_factory=set)
    record_ids: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    """The SHA-256 of each large text that such a record names."""
    _needles: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._needles = self.selector.needles()

    def take_in(self, record: Mapping[str, Any]) -> None:
        """Note which call a record that matches belongs to."""
        if isinstance(call_id := record.get("call_id"), str) and call_id and "record_id" not in self.selector.wanted:
            self.call_ids.add(call_id)
        if isinstance(record_id := record.get("record_id"), str) and record_id:
            self.record_ids.add(record_id)
        self.take_texts(record)

    def take_texts(self, record: Mapping[str, Any]) -> None:
        """Note which large texts a record that goes has beside the log."""
        self.texts.update(named_in(record))

    def drops(self, line: bytes) -> dict[str, Any] | None:
        """Return the record that *line* holds if it is to be forgotten."""
        if any(needle in line for needle in self._needles):
            with suppress(ValueError):
                record = parse_line(line)
                if self.selector.match(record):
                    return record
        return self._of_a_call(line) if self.call_ids else None

    def _of_a_call(self, line: bytes) -> dict[str, Any] | None:
        found = _CALL_ID.search(line)
        if found is None:
            return None
        with suppress(ValueError):
            if orjson.loads(found[1]) in self.call_ids:
                record = parse_line(line)
                names_others = any(
                    (values := _values(record, name)) and value not in values
                    for name, value in self.selector.wanted.items()
                )
                if record.get("call_id") in self.call_ids and not names_others:
                    return record
        return None

    def names(self, data: bytes) -> bool:
        """Say whether *data*, which is no whole record, is a piece of one that is meant."""
        quoted = [b'"%b"' % needle for needle in self._needles]
        return any(one in data for one in quoted) or any(one.encode() in data for one in self.record_ids)

    def mentions(self, line: bytes) -> bool:
        """Say whether a line that stays has the value somewhere in its texts."""
        return len(self._needles[0]) >= _TELLING and any(needle in line for needle in self._needles)
