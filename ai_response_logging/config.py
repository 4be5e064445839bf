"""
Presets, configuration files, and :func:`configure`.

A configuration is an ordinary :mod:`logging.config` dictionary. The YAML files in ``config/`` are printed from the
presets here; a test compares the two.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final

from ._config_check import complaints_of, our_handler_of
from ._options import Options
from .errors import ConfigError
from .handler import AIResponseHandler
from .record import DEFAULT_LOG_FILE, LOGGER_NAME

__all__ = ["PRESET_NAMES", "attach_default", "check", "configure", "load", "make_default", "preset_yaml"]


# What each is for, in the lines of its file's comment, and what differs in it from the default.
_PRESETS: Final[Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]]] = {
    "default": (("For most applications: one answer a second or a hundred, from a few processes.",), {}),
    "high_concurrency": (
        ("For runs of N questions x M models above 50 calls at once: more may wait, larger batches, fewer locks.",),
        {"queue_max_size": 2000, "batch_size": 20, "flush_interval": 3},
    ),
    "low_latency": (
        ("For watching the log live: smaller batches, in the file after two seconds at the latest.",),
        {"queue_max_size": 500, "batch_size": 5, "flush_interval": 2},
    ),
    "high_reliability": (
        (
            "`durability: power` is the step further: it survives loss of power, and each call waits for one fsync.",
            "For disks and network mounts that refuse writes now and then: tries longer before it reports.",
        ),
        {"max_retries": 5, "retry_delay": 1},
    ),
}
_IN_EACH: Final = {"queue_max_size": 1000, "batch_size": 10, "flush_interval": 5, "max_retries": 3, "retry_delay": 0.5}
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
    purpose, differing = _PRESETS[name]
    comment = "\n".join(f"# {line}" for line in purpose)
    return _YAML.format(purpose=comment, filename=DEFAULT_LOG_FILE, **{**_IN_EACH, **differing})


def load(source: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Return *source* as a dictionary for :func:`logging.config.dictConfig`; the caller may change it.

    Args:
        source: A preset's name, a YAML or JSON file, a mapping, or None for ``AI_RESPONSES_CONFIG``, else ``default``.

    Raises:
        ConfigError: It cannot be read, or is no configuration.
    """
    if source is None:
        source = os.environ.get("AI_RESPONSES_CONFIG") or "default"
    if isinstance(source, Mapping):
        copied: dict[str, Any] = _structure_of(dict(source))
        return copied
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(f"a configuration is a mapping, a preset's name or a file, got {source!r}")
    name = os.fspath(source)
    if name in _PRESETS:
        mapping = _preset(name)
        if os.environ.get("AI_RESPONSES_FILE"):  # comes before the default place, which is where a preset's log is
            del mapping["handlers"]["ai_responses"]["filename"]
        return mapping
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError) as error:  # not UTF-8, or its name is none
        known = ", ".join(PRESET_NAMES)
        raise ConfigError(f"{name} is neither a preset ({known}) nor a file that can be read: {error}") from error
    return _parse(text, name)


def _preset(name: str) -> dict[str, Any]:
    """Return what :func:`preset_yaml` says, without the reading of it: a program that names no file needs no YAML."""
    _, differing = _PRESETS[name]
    ours = {"class": "ai_response_logging.AIResponseHandler", "filename": DEFAULT_LOG_FILE, **_IN_EACH, **differing}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"ai_responses": {**ours, "durability": "crash"}},
        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ai_responses"], "propagate": False}},
    }


def _parse(text: str, name: str) -> dict[str, Any]:
    import yaml  # 15 ms that only those pay who read a file

    try:
        # Nearly all JSON is YAML, but a tab is not.
        mapping = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{name} must hold a mapping with the keys version, handlers and loggers, got {mapping!r}")
    return mapping


def _structure_of(value: Any) -> Any:
    """Return a copy of the dicts and lists in *value*; live objects in them (streams, filters) stay themselves."""
    if type(value) is dict:
        return {key: _structure_of(item) for key, item in value.items()}
    if type(value) is list:
        return [_structure_of(item) for item in value]
    return value


def configure(source: str | os.PathLike[str] | Mapping[str, Any] | None = None, **options: Any) -> AIResponseHandler:
    """
    Configure `logging` from *source* and return the handler that records.

    Args:
        source: A preset's name, a YAML file, a mapping, or None for ``AI_RESPONSES_CONFIG``, else ``default``.
        options: Options of :class:`AIResponseHandler` that override those of *source*; None leaves one as it is.

    Returns:
        The handler of the logger ``ai_responses``, else the first of ours.

    Raises:
        ConfigError: The configuration is wrong; the text names the key's full path. What was configured before
            goes on.

    Threads: One at a time. A second call brings home what the first one's handler holds before it replaces it.

    .. versionadded:: 0.1.0
    """
    mapping = load(source)
    first = next(complaints_of(mapping), None)
    name = "" if first else our_handler_of(mapping)
    if not first:
        mapping["handlers"][name].update({key: value for key, value in options.items() if value is not None})
        first = next(complaints_of(mapping), None)
    if first:
        raise ConfigError(first.problem, first.where)
    for before in _our_handlers():
        before.flush()
    _run_dict_config(mapping)
    handler: AIResponseHandler = _handler_named(name)
    return handler


def _run_dict_config(mapping: dict[str, Any]) -> None:
    from logging.config import dictConfig  # its sockets' servers are nothing for those who call the functions

    before = set(_our_handlers())
    try:
        dictConfig(mapping)
    except ValueError as error:
        for name in mapping["handlers"]:
            made = _handler_named(name)
            if isinstance(made, AIResponseHandler) and made not in before:
                made.close()
        raise _with_path(error) from error


def make_default() -> tuple[str, AIResponseHandler]:
    """Return the handler that :func:`configure` would make, and its name, for :func:`attach_default`."""
    mapping = load()
    name = our_handler_of(mapping)
    known = {*Options.names(), "filename", "level"}
    options = {key: value for key, value in mapping["handlers"][name].items() if key in known}
    try:
        handler = AIResponseHandler(**options)
    except Warning:  # warnings are errors here, and nobody asked for this handler by name: record all the same
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handler = AIResponseHandler(**options)
    return name, handler


def attach_default(name: str, handler: AIResponseHandler) -> AIResponseHandler:
    """
    Give the logger ``ai_responses`` the *handler* of :func:`make_default`, and leave all other logging alone.

    For the functions, when nobody has configured anything: a whole ``dictConfig`` in the middle of somebody's
    program would close handlers that are not ours.
    """
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
    return [str(complaint) for complaint in complaints_of(mapping)]


def _our_handlers() -> list[AIResponseHandler]:
    loggers = (logging.getLogger(), logging.getLogger(LOGGER_NAME))
    return [handler for logger in loggers for handler in logger.handlers if isinstance(handler, AIResponseHandler)]


def _handler_named(name: str) -> Any:
    # getHandlerByName, which 3.11 does not have yet. Not by walking the loggers: ours may stand behind another
    # handler, as the target of a MemoryHandler.
    return logging._handlers.get(name)  # type: ignore[attr-defined]  # noqa: SLF001


def _with_path(error: BaseException) -> ConfigError:
    """Return dictConfig's error with what is behind it and where that is set."""
    found = re.search(r"Unable to configure (handler|logger|formatter|filter) '([^']+)'|root logger", str(error))
    where = f"{found.group(1)}s.{found.group(2)}" if found and found.group(1) else "root" if found else ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return ConfigError(cause.problem, f"{where}.{cause.where}" if cause.where else where)
        cause = cause.__cause__
    detail = f" ({error.__cause__})" if error.__cause__ else ""
    return ConfigError(f"{error}{detail}", where)
