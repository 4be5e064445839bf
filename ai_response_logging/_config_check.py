"""What is wrong with a dictConfig mapping, each complaint with its key's full path; pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ._options import checked_option
from .errors import ConfigError
from .record import LOGGER_NAME, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HANDLER_PATHS", "Complaint", "complaints_of", "is_ours", "our_handler_of"]

HANDLER_PATHS: Final = ("ai_response_logging.AIResponseHandler", "ai_response_logging.handler.AIResponseHandler")
_SECTIONS: Final = ("formatters", "filters", "handlers", "loggers")


class Complaint(NamedTuple):
    """One mistake: the full path of the key, and what is wrong there."""

    where: str
    problem: str

    def __str__(self) -> str:
        return str(ConfigError(self.problem, self.where))


def our_handler_of(mapping: Mapping[str, Any]) -> str:
    """Return the name of the handler that records: that of the logger ``ai_responses``, else the first; or nothing."""
    ours: list[str] = [name for name, section in mapping.get("handlers", {}).items() if is_ours(section)]
    named = mapping.get("loggers", {}).get(LOGGER_NAME, {}).get("handlers") or ()
    return next((name for name in named if name in ours), ours[0] if ours else "")


def complaints_of(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what `logging` or a handler of ours would refuse, as far as the mapping alone tells."""
    if mapping.get("version") != 1:
        yield Complaint("version", f"version must be 1, got {mapping.get('version')!r}")
    broken = [Complaint(key, _no_mapping(key, mapping[key])) for key in _SECTIONS if not _is_mapping(mapping, key)]
    if broken:
        yield from broken
        return
    handlers = mapping.get("handlers", {})
    if not any(map(is_ours, handlers.values())):
        yield Complaint("handlers", f"handlers must have an entry with class: {HANDLER_PATHS[0]}")
    for name, section in handlers.items():
        yield from _in_handler(f"handlers.{name}", section, mapping)
    for name, settings in mapping.get("loggers", {}).items():
        yield from _in_logger(f"loggers.{name}", settings, mapping)
    yield from _in_logger("root", mapping.get("root", {}), mapping)


def _in_handler(path: str, section: object, mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    if not isinstance(section, dict):
        yield Complaint(path, _no_mapping(path, section))
        return
    yield from _level(path, section)
    yield from _unknown(f"{path}.filters", section.get("filters"), mapping, "filters")
    formatter = section.get("formatter")
    yield from _unknown(f"{path}.formatter", [formatter] if formatter else None, mapping, "formatters")
    if is_ours(section):
        yield from _options(path, section)


def _options(path: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    for key, value in section.items():
        if key in {"class", "()", "level", "formatter", "filters"}:
            continue
        if key == "filename":
            if value is not None and path_of(value) is None:
                yield Complaint(f"{path}.filename", f"filename must be a path, got {value!r}")
            continue
        try:
            checked_option(key, value)
        except ConfigError as error:
            yield Complaint(f"{path}.{key}", error.problem)


def _in_logger(path: str, settings: object, mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    if not isinstance(settings, dict):
        yield Complaint(path, _no_mapping(path, settings))
        return
    yield from _level(path, settings)
    yield from _unknown(f"{path}.handlers", settings.get("handlers"), mapping, "handlers")
    yield from _unknown(f"{path}.filters", settings.get("filters"), mapping, "filters")


def _level(path: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    level = section.get("level")
    if isinstance(level, str) and level not in logging.getLevelNamesMapping():
        known = ", ".join(logging.getLevelNamesMapping())
        yield Complaint(f"{path}.level", f"level must be one of {known}, or a number, got {level!r}")


def _unknown(path: str, names: object, mapping: Mapping[str, Any], kind: str) -> Iterator[Complaint]:
    """Complain of *names* that the section *kind* does not have; live objects among them are fine."""
    if names is None:
        return
    if not isinstance(names, (list, tuple)):
        yield Complaint(path, f"{path.rpartition('.')[2]} must be a list of names, got {names!r}")
        return
    known = mapping.get(kind, {})
    for name in names:
        if isinstance(name, str) and name not in known:
            listed = ", ".join(map(str, known)) or "nothing"
            yield Complaint(path, f"{name!r} is not under {kind}, where there is {listed}")


def _is_mapping(mapping: Mapping[str, Any], key: str) -> bool:
    return isinstance(mapping.get(key, {}), dict)


def _no_mapping(key: str, found: object) -> str:
    return f"{key.rpartition('.')[2]} must be a mapping, got {found!r}"


def is_ours(section: object) -> bool:
    """Say whether a handler's *section* makes one of ours."""
    if not isinstance(section, dict):
        return False
    kind = section.get("class", section.get("()"))
    return kind in HANDLER_PATHS or getattr(kind, "__qualname__", "") == "AIResponseHandler"
