"""A whole application's logging configuration looked at: what is wrong, what is not meant, and what holds where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._config_check import Complaint, complaints_of
from ._config_place import complaints_at, durability_at
from ._config_review import OurHandler, complaints_between, our_handlers, reviewed
from .config import load
from .errors import ConfigError

__all__ = ["Review", "review"]


@dataclass(frozen=True)
class Review:
    """
    What :func:`review` found.

    Attributes:
        complaints: What is wrong or not meant, with the source it stands in.
        notes: What holds, for people: file systems, durabilities.
    """

    complaints: list[tuple[str, Complaint]]
    notes: list[tuple[str, str]]


def review(sources: Mapping[str, str | os.PathLike[str] | Mapping[str, Any]]) -> Review:
    """
    Look at whole configurations, and at what they make of one log together: the files of an application's processes.

    Beside what :func:`check` finds: keys that `logging` ignores, levels that drop records, handlers that nobody uses,
    records that are recorded twice, loggers that will be disabled, two settings for one log, places that cannot be
    written, and what the durability asked for is worth on its file system. Tries that out with a small file, which is
    removed at once.

    Args:
        sources: What to look at, by the name that complaints give it.

    .. versionadded:: 0.1.0
    """
    found = Review([], [])
    handlers: list[OurHandler] = []
    for name, source in sources.items():
        try:
            mapping = load(source)
        except ConfigError as error:
            found.complaints.append((name, Complaint("", str(error))))
            continue
        complaints = [*complaints_of(mapping)]
        ours = our_handlers(mapping, name)
        if not isinstance(source, dict):
            complaints += _doubled_keys(source)
        known = {one.where for one in complaints}
        complaints += (one for one in reviewed(mapping) if one.where not in known)
        for handler in ours:
            complaints += complaints_at(handler.where, handler.filename, handler.options)
            notes, less = durability_at(handler.where, handler.filename, handler.options)
            complaints += less
            found.notes.extend((name, f"{handler.where}: {note}") for note in notes)
        handlers += ours
        found.complaints.extend((name, one) for one in dict.fromkeys(complaints))
    found.complaints.extend(complaints_between(handlers, between_sources=True))
    return found


def _doubled_keys(source: str | os.PathLike[str] | Mapping[str, Any]) -> list[Complaint]:
    """Return the keys that stand twice in a YAML file: of two, the parser takes the last without a word."""
    import yaml  # 15 ms that only those pay who read a file

    try:
        with open(os.fspath(source), encoding="utf-8") as file:  # type: ignore[arg-type]  # a mapping has no text
            root = yaml.compose(file, Loader=yaml.SafeLoader)
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        return []
    found: list[Complaint] = []
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        where, node = waiting.pop()
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            path = f"{where}.{key.value}" if where else str(key.value)
            line = key.start_mark.line + 1
            if str(key.value) in lines:
                first = lines[str(key.value)]
                found.append(Complaint(path, f"it stands twice, in lines {first} and {line}, and only the last counts"))
            lines[str(key.value)] = line
            waiting.append((path, value))
    return found
