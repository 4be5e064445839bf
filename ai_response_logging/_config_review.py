"""
What `logging` takes without a word and an application does not mean: of one configuration, or of several on one log.

Pure: mappings in, complaints out. What a handler of ours would refuse is :mod:`._config_check`'s.
"""

from __future__ import annotations

import inspect
import logging
import logging.handlers
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from ._config_check import Complaint, is_ours
from ._options import Options, checked_option
from .errors import ConfigError
from .record import LOGGER_NAME, default_log_path, path_of

__all__ = ["OurHandler", "complaints_between", "our_handlers", "reviewed"]

_TOP: Final = (
    "version", "disable_existing_loggers", "incremental", "formatters", "filters", "handlers", "loggers", "root",
)  # fmt: skip
_LOGGER_KEYS: Final = ("level", "propagate", "filters", "handlers")
_HANDLER_KEYS: Final = ("class", "()", "level", "formatter", "filters", ".")
_FORMATTER_KEYS: Final = ("class", "()", "format", "datefmt", "style", "validate", "defaults")
_FOR_ROTATION: Final = ("backup_count", "retain_days", "max_total_bytes", "compress")


class OurHandler(NamedTuple):
    """One of our handlers as a configuration has it: the path of its section, the log, and what is set."""

    where: str
    filename: str
    options: Mapping[str, Any]
    source: str = ""


def our_handlers(mapping: Mapping[str, Any], source: str = "") -> list[OurHandler]:
    """Return our handlers in *mapping*, as far as they can be understood; *source* is where it was read."""
    found = []
    for name, section in _sections(mapping, "handlers"):
        filename = section.get("filename")
        if is_ours(section) and (filename is None or path_of(filename) is not None):
            options = {key: value for key, value in section.items() if _is_option(key, value)}
            found.append(OurHandler(f"handlers.{name}", default_log_path(filename), options, source))
    return found


def _is_option(key: object, value: object) -> bool:
    """Say whether *value* can be used as the option *key*; if not, that is told already."""
    try:
        checked_option(str(key), value)
    except ConfigError:
        return False
    return True


def reviewed(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what is not meant in *mapping*, a configuration for dictConfig."""
    yield from _top(mapping)
    for name, section in _sections(mapping, "formatters"):
        if "()" not in section and "class" not in section:
            yield from _keys(f"formatters.{name}", section, _FORMATTER_KEYS)
    for name, section in _sections(mapping, "handlers"):
        yield from _handler(f"handlers.{name}", section)
    for where, section in _loggers(mapping):
        yield from _logger(where, section)
    yield from _unused(mapping)
    yield from _dropped(mapping)
    yield from _doubled(mapping)
    for _, complaint in complaints_between(our_handlers(mapping)):
        yield complaint
    yield from _strangers_on_our_files(mapping)


def _top(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    yield from _keys("", mapping, _TOP)
    for key in ("disable_existing_loggers", "incremental"):
        if not isinstance(mapping.get(key, False), bool):
            yield Complaint(key, f"{key} must be true or false, got {mapping[key]!r}")
    if mapping.get("incremental") is True:
        yield Complaint("incremental", "incremental is true, so dictConfig makes none of the handlers here")
    if mapping.get("disable_existing_loggers", True) is True:
        yield Complaint(
            "disable_existing_loggers",
            "disable_existing_loggers is true, which it is where nothing is said: loggers that modules have made "
            "before, and that are neither under loggers nor below one that is, drop their records without a word; "
            "set it to false",
        )


def _logger(where: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    yield from _keys(where, section, _LOGGER_KEYS)
    if not isinstance(section.get("propagate", True), bool):
        yield Complaint(
            f"{where}.propagate",
            f"propagate must be true or false, got {section['propagate']!r}, which logging takes for "
            f"{'true' if section['propagate'] else 'false'}",
        )


def _sections(mapping: Mapping[str, Any], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    sections = mapping.get(kind)
    if not isinstance(sections, Mapping):
        return []
    return [(str(name), section) for name, section in sections.items() if isinstance(section, Mapping)]


def _loggers(mapping: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [(f"loggers.{name}", section) for name, section in _sections(mapping, "loggers")]
    root = mapping.get("root")
    return [*found, ("root", root)] if isinstance(root, Mapping) else found


def _keys(where: str, section: Mapping[str, Any], known: Sequence[str]) -> Iterator[Complaint]:
    for key in section:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
            yield Complaint(f"{where}.{key}" if where else str(key), f"logging knows no key {key!r} here: {hint}")


# -- handlers


def _handler(where: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    kind = section.get("class")
    if kind is None and "()" not in section:
        yield Complaint(where, "a handler needs a class, or a factory under '()'")
    elif is_ours(section):
        yield from _without_rotation(where, section)
    elif isinstance(kind, str) and kind.startswith("logging."):
        yield from _of_stdlib(where, kind, section)


def _of_stdlib(where: str, kind: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what is wrong with a handler of the standard library, whose parameters are known without importing."""
    module, _, name = kind.rpartition(".")
    home = {"logging": logging, "logging.handlers": logging.handlers}.get(module)
    made = getattr(home, name, None)
    if not isinstance(made, type) or not issubclass(made, logging.Handler):
        places = {"logging": logging, "logging.handlers": logging.handlers}
        every = [f"{at}.{one}" for at, here in places.items() for one in vars(here) if one.endswith("Handler")]
        near = get_close_matches(kind, every, n=1)
        yield Complaint(f"{where}.class", f"there is no {kind}" + (f": did you mean {near[0]}?" if near else ""))
        return
    parameters = inspect.signature(made).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        extra = ("handlers", "listener", "queue") if name == "QueueHandler" else ()
        yield from _keys(where, section, (*_HANDLER_KEYS, *parameters, *extra))


def _without_rotation(where: str, section: Mapping[str, Any]) -> Iterator[Complaint]:
    if not section.get("max_bytes") and not section.get("when"):
        for key in _FOR_ROTATION:
            if section.get(key):
                yield Complaint(
                    f"{where}.{key}", f"{key} is set, but nothing is ever rotated: set max_bytes or when, too"
                )
    if section.get("interval", 1) != 1 and not section.get("when"):
        yield Complaint(f"{where}.interval", "interval counts the unit that `when` names, and when is not set")


def _unused(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    used: set[str] = set()
    for _, section in _loggers(mapping):
        names = section.get("handlers")
        used.update(str(name) for name in names) if isinstance(names, list | tuple) else None
    for _, section in _sections(mapping, "handlers"):
        names = section.get("handlers")  # a QueueHandler's
        used.update(str(name) for name in names) if isinstance(names, list | tuple) else None
        target = section.get("target")  # a MemoryHandler's
        used.update({str(target), str(target).removeprefix("cfg://handlers.")} if target else ())
    for name, _ in _sections(mapping, "handlers"):
        if name not in used:
            yield Complaint(f"handlers.{name}", "no logger has this handler, so nothing comes to it")


# -- what reaches a handler of ours


def _levels(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return logging.getLevelNamesMapping().get(value) if isinstance(value, str) else None


def _effective(mapping: Mapping[str, Any], name: str) -> tuple[int, str]:
    """Return the level that holds for the logger *name*, and where it is set."""
    known = dict(_sections(mapping, "loggers"))
    parts = name.split(".") if name else []
    for count in range(len(parts), 0, -1):
        above = ".".join(parts[:count])
        if (level := _levels(known.get(above, {}).get("level"))) not in (None, logging.NOTSET):
            return level or 0, f"loggers.{above}.level"
    root = mapping.get("root")
    level = _levels(root.get("level")) if isinstance(root, Mapping) else None
    return (level, "root.level") if level is not None else (logging.WARNING, "")


def _with_ours(mapping: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each logger that has handlers of ours: its section's path, its name, theirs."""
    ours = {name for name, section in _sections(mapping, "handlers") if is_ours(section)}
    for where, section in _loggers(mapping):
        names = section.get("handlers")
        names = names if isinstance(names, list | tuple) else ()
        if mine := [name for name in names if isinstance(name, str) and name in ours]:
            yield where, where.partition(".")[2], mine


def _dropped(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    sections = dict(_sections(mapping, "handlers"))
    for where, name, handlers in _with_ours(mapping):
        level, set_at = _effective(mapping, name)
        if level > logging.INFO:
            why = f"{set_at} is" if set_at else "no level is set, so root's default holds,"
            yield Complaint(
                set_at or f"{where}.level",
                f"{why} {logging.getLevelName(level)}: answers that are logged with info() to {name or 'root'} are "
                "dropped before they reach the handler; set level: INFO",
            )
        for handler in handlers:
            level = _levels(sections[handler].get("level")) or 0
            if level > logging.INFO:
                yield Complaint(
                    f"handlers.{handler}.level",
                    f"level is {logging.getLevelName(level)}, so answers that are logged with info(), and all that "
                    "log_ai_response() logs, are dropped",
                )


def _doubled(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    known = dict(_loggers(mapping))
    told: set[str] = set()
    for where, name, handlers in _with_ours(mapping):
        for above in _reached(known, name):
            others = known[above].get("handlers")
            names = [str(one) for one in others] if isinstance(others, list | tuple) else []
            # Ours records each once, however often it is met.
            strangers = [one for one in names if one not in handlers]
            if strangers and where not in told:
                told.add(where)
                yield Complaint(
                    f"{where}.propagate",
                    f"propagate is true, so each answer goes to {', '.join(strangers)} of {above} as well; set "
                    "propagate: false if that is not meant",
                )
    if LOGGER_NAME not in dict(_sections(mapping, "loggers")) and not any(
        name == "" for _, name, _ in _with_ours(mapping)
    ):
        yield Complaint(
            f"loggers.{LOGGER_NAME}",
            f"there is no logger {LOGGER_NAME!r}, so log_ai_response() and what is logged to it find no handler here, "
            "and make one of their own at the default place",
        )


def _reached(known: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[str]:
    """Yield the loggers above *name* to which its records go on, by the paths of their sections."""
    section = known.get(f"loggers.{name}" if name else "root", {})
    while name and section.get("propagate", True):
        name = name.rpartition(".")[0]
        where = f"loggers.{name}" if name else "root"
        section = known.get(where, {})
        if where in known:
            yield where


# -- several on one log


def complaints_between(
    handlers: Sequence[OurHandler], *, between_sources: bool = False
) -> Iterator[tuple[str, Complaint]]:
    """Yield where two handlers on one log, of one source or of two, do not agree, with the source of the second."""
    first: dict[str, OurHandler] = {}
    for handler in handlers:
        other = first.setdefault(handler.filename, handler)
        in_one = other.source == handler.source
        if other is handler or in_one is between_sources:
            continue
        for key in Options.names():
            default = getattr(Options, key, None)
            mine, theirs = handler.options.get(key, default), other.options.get(key, default)
            if mine != theirs and (in_one or key in _SHARED):
                what = "the first handler's holds for both" if in_one else "whoever writes next acts by its own"
                of = f" of {other.source}" if not in_one else ""
                problem = (
                    f"{key} is {mine!r} here and {theirs!r} under {other.where}{of}, on the same log "
                    f"{handler.filename}: {what}"
                )
                yield handler.source, Complaint(f"{handler.where}.{key}", problem)


# What acts on the files, and so on the other processes' as well.
_SHARED: Final = (
    "max_bytes", "when", "interval", "utc", "backup_count", "retain_days", "max_total_bytes", "compress", "file_mode",
    "directory_mode", "journal_directory", "durability",
)  # fmt: skip


def _strangers_on_our_files(mapping: Mapping[str, Any]) -> Iterator[Complaint]:
    ours = {handler.filename: handler.where for handler in our_handlers(mapping)}
    for name, section in _sections(mapping, "handlers"):
        kind, filename = str(section.get("class", "")), section.get("filename")
        if not is_ours(section) and (path := path_of(filename)) and default_log_path(path) in ours:
            yield Complaint(
                f"handlers.{name}.filename",
                f"{kind or 'this handler'} writes to the log of {ours[default_log_path(path)]}: lines that are no "
                "records, and a rotation behind our back; give it a file of its own",
            )
