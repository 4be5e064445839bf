"""
Presets, configuration files, and :func:`configure`.

A configuration is an ordinary :mod:`logging.config` dictionary. The YAML files in ``config/`` are printed from the
presets here; a test compares the two.
"""

from __future__ import annotations

import copy
import logging
import logging.config
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ._options import Options
from .errors import ConfigError
from .handler import AIResponseHandler
from .record import DEFAULT_LOG_FILE, LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PRESET_NAMES", "attach_default", "check", "configure", "load", "preset_yaml"]

_HANDLER_PATHS: Final = ("ai_response_logging.AIResponseHandler", "ai_response_logging.handler.AIResponseHandler")


@dataclass(frozen=True)
class Preset:
    """Named options: what it is for, and what differs from the defaults."""

    purpose: tuple[str, ...]
    queue_max_size: int = 1000
    batch_size: int = 10
    flush_interval: int = 5
    max_retries: int = 3
    retry_delay: float = 0.5


_PRESETS: Final[Mapping[str, Preset]] = {
    "default": Preset(("For most applications: one answer a second or a hundred, from a few processes.",)),
    "high_concurrency": Preset(
        ("For runs of N questions x M models above 50 calls at once: more may wait, larger batches, fewer locks.",),
        queue_max_size=2000, batch_size=20, flush_interval=3,
    ),
    "low_latency": Preset(
        ("For watching the log live: smaller batches, in the file after two seconds at the latest.",),
        queue_max_size=500, batch_size=5, flush_interval=2,
    ),
    "high_reliability": Preset(
        (
            "`durability: power` is the step further: it survives loss of power, and each call waits for one fsync.",
            "For disks and network mounts that refuse writes now and then: tries longer before it reports.",
        ),
        max_retries=5, retry_delay=1,
    ),
}  # fmt: skip
PRESET_NAMES: Final = tuple(_PRESETS)

_YAML: Final = """\
{purpose}
version: 1
disable_existing_loggers: false
handlers:
  ai_responses:
    class: ai_response_logging.AIResponseHandler
    filename: {filename}
    queue_max_size: {queue_max_size:<8} # records that may wait in memory
    batch_size: {batch_size:<12} # write as soon as so many wait ...
    flush_interval: {flush_interval:<8} # ... or after so many seconds, whichever comes first
    max_retries: {max_retries:<11} # attempts after a failed write; the n-th waits n x retry_delay
    retry_delay: {retry_delay:<11} # seconds
    durability: crash        # memory | crash | power
loggers:
  ai_responses:
    level: INFO
    handlers: [ai_responses]
    propagate: false
"""


def preset_yaml(name: str) -> str:
    """
    Return the preset *name* as the text of a configuration file.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in _PRESETS:
        raise ConfigError(f"there is no preset {name!r}; the presets are {', '.join(PRESET_NAMES)}")
    values: dict[str, Any] = dict(vars(_PRESETS[name]))
    purpose = "\n".join(f"# {line}" for line in values.pop("purpose"))
    return _YAML.format(purpose=purpose, filename=DEFAULT_LOG_FILE, **values)


def load(source: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Return *source* as a dictionary for :func:`logging.config.dictConfig`; the caller may change it.

    Args:
        source: A preset's name, a YAML file, a mapping, or None for ``AI_RESPONSES_CONFIG``, else ``default``.

    Raises:
        ConfigError: It cannot be read, or is no configuration.
    """
    if source is None:
        source = os.environ.get("AI_RESPONSES_CONFIG") or "default"
    if not isinstance(source, (str, os.PathLike)):
        return copy.deepcopy(dict(source))
    name = os.fspath(source)
    if name in _PRESETS:
        return _parse(preset_yaml(name), f"preset {name}")
    try:
        with open(name, encoding="utf-8") as file:
            return _parse(file.read(), name)
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(PRESET_NAMES)
        raise ConfigError(f"{name} is neither a preset ({known}) nor a file that can be read: {error}") from error


def _parse(text: str, name: str) -> dict[str, Any]:
    import yaml

    try:
        mapping = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{name} must hold a mapping with the keys version, handlers and loggers, got {mapping!r}")
    return mapping


def configure(source: str | os.PathLike[str] | Mapping[str, Any] | None = None, **options: Any) -> AIResponseHandler:
    """
    Configure `logging` from *source* and return the handler that records.

    Args:
        source: A preset's name, a YAML file, a mapping, or None for ``AI_RESPONSES_CONFIG``, else ``default``.
        options: Options of :class:`AIResponseHandler` that override those of *source*; None leaves one as it is.

    Returns:
        The handler of the logger ``ai_responses``, or the only one there is.

    Raises:
        ConfigError: The configuration is wrong; the text names the key's full path. What was configured before
            goes on.

    Threads: One at a time. A second call brings home what the first one's handler holds before it replaces it.

    .. versionadded:: 0.1.0
    """
    mapping = load(source)
    name = _our_handler_of(mapping)
    section = mapping["handlers"][name]
    section.update({key: value for key, value in options.items() if value is not None})
    complaints = list(_section_complaints(name, section))
    if complaints:
        raise ConfigError(complaints[0])
    for handler in _our_handlers():
        handler.flush()
    try:
        logging.config.dictConfig(mapping)
    except ValueError as error:
        raise _with_path(error, name) from error
    return next(handler for handler in _our_handlers(mapping) if handler.name == name)


def attach_default() -> AIResponseHandler:
    """
    Give the logger ``ai_responses`` the handler that :func:`configure` would, and leave all other logging alone.

    For the functions, when nobody has configured anything: a whole ``dictConfig`` in the middle of somebody's
    program would close handlers that are not ours.
    """
    mapping = load()
    name = _our_handler_of(mapping)
    section = {
        key: value for key, value in mapping["handlers"][name].items() if key in {*Options.names(), "filename", "level"}
    }
    handler = AIResponseHandler(**section)
    handler.name = name
    logger = logging.getLogger(LOGGER_NAME)
    logger.addHandler(handler)
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return handler


def check(source: str | os.PathLike[str] | Mapping[str, Any]) -> list[str]:
    """Return what is wrong with *source*, each complaint with the key's full path; nothing if all is well."""
    try:
        mapping = load(source)
    except ConfigError as error:
        return [str(error)]
    return list(_complaints(mapping))


def _complaints(mapping: Mapping[str, Any]) -> Iterator[str]:
    if mapping.get("version") != 1:
        yield f"version must be 1, got {mapping.get('version')!r}"
    for key in ("handlers", "loggers"):
        if not isinstance(mapping.get(key, {}), dict):
            yield f"{key} must be a mapping, got {mapping[key]!r}"
            return
    sections = mapping.get("handlers", {})
    if not any(map(_is_ours, sections.values())):
        yield f"handlers has no entry with class: {_HANDLER_PATHS[0]}"
    for name, section in sections.items():
        if _is_ours(section):
            yield from _section_complaints(name, section)
    for logger, settings in {**mapping.get("loggers", {}), "": mapping.get("root", {})}.items():
        yield from _logger_complaints(f"loggers.{logger}" if logger else "root", settings, sections)


def _logger_complaints(path: str, settings: object, sections: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(settings, dict):
        yield f"{path} must be a mapping, got {settings!r}"
        return
    for name in settings.get("handlers") or ():
        if name not in sections:
            yield f"{path}.handlers names {name!r}, which is not under handlers"


def _section_complaints(name: str, section: Mapping[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        if key in {"class", "()", "level", "formatter", "filters"}:
            continue
        if key == "filename":
            if value is not None and not isinstance(value, (str, os.PathLike)):
                yield f"handlers.{name}.filename must be a path, got {value!r}"
            continue
        try:
            Options.checked({key: value})
        except ConfigError as error:
            yield f"{error.problem}; it is set under handlers.{name}.{key}"


def _is_ours(section: object) -> bool:
    if not isinstance(section, dict):
        return False
    kind = section.get("class", section.get("()"))
    return kind in _HANDLER_PATHS or kind is AIResponseHandler


def _our_handler_of(mapping: Mapping[str, Any]) -> str:
    """Return the name of the handler that records: that of the logger ``ai_responses``, else the first of ours."""
    sections = mapping.get("handlers")
    ours: list[str] = [key for key, one in sections.items() if _is_ours(one)] if isinstance(sections, dict) else []
    if not ours:
        raise ConfigError(f"handlers must have an entry with class: {_HANDLER_PATHS[0]}, got {sections!r}")
    loggers = mapping.get("loggers")
    settings = loggers.get(LOGGER_NAME) if isinstance(loggers, dict) else None
    named = settings.get("handlers") if isinstance(settings, dict) else None
    return next((name for name in named or () if name in ours), ours[0])


def _our_handlers(mapping: Mapping[str, Any] | None = None) -> list[AIResponseHandler]:
    names = [LOGGER_NAME, *((mapping or {}).get("loggers") or ())]
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    return [handler for logger in loggers for handler in logger.handlers if isinstance(handler, AIResponseHandler)]


def _with_path(error: BaseException, name: str) -> ConfigError:
    """Return dictConfig's error with what is behind it and where that is set."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return ConfigError(cause.problem, f"handlers.{name}.{cause.where}" if cause.where else f"handlers.{name}")
        cause = cause.__cause__
    found = re.search(r"'([^']+)'", str(error))
    detail = f" ({error.__cause__})" if error.__cause__ else ""
    return ConfigError(f"{error}{detail}", found.group(1) if found else "")
