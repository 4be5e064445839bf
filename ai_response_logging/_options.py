"""The handler's options, with their units and ranges."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from ._redaction_rules import DEFAULT_RULES, rules_of
from .errors import ConfigError
from .record import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DURABILITIES", "WHEN", "Options", "checked_option"]

WHEN: Final = ("S", "M", "H", "D", "midnight", *(f"W{day}" for day in range(7)))
DURABILITIES: Final = ("memory", "crash", "power")
_SIZE: Final = 1 << 62
_TIME: Final = 1e9  # seconds; some thirty years, and still a timeout the kernel takes

# name -> (kind, least, most, what it is, with its unit)
_RANGES: Final[dict[str, tuple[type, float, float, str]]] = {
    "queue_max_size": (int, 1, 10_000_000, "records that may wait in memory"),
    "queue_max_bytes": (int, 1, _SIZE, "bytes that may wait in memory"),
    "batch_size": (int, 1, 10_000, "records; so many that wait are written at once"),
    "flush_interval": (float, 0, _TIME, "seconds that a record waits at most for a batch"),
    "max_retries": (int, 0, 1_000_000, "attempts after a failed write"),
    "retry_delay": (float, 0, _TIME, "seconds; the n-th retry waits n times as long"),
    "lock_timeout": (float, 0, _TIME, "seconds the listener waits for the lock"),
    "caller_timeout": (float, 0, _TIME, "seconds a log call may take when the queue is full"),
    "close_timeout": (float, 0, _TIME, "seconds that flush() and close() take at most"),
    "max_bytes": (int, 0, _SIZE, "bytes at which a new file is begun; 0 for never"),
    "interval": (int, 1, 100_000, "how many of the unit that `when` names make a file"),
    "backup_count": (int, 0, _SIZE, "rotated files to keep; 0 keeps all"),
    "retain_days": (float, 0, 100_000, "days that a rotated file is kept; 0 keeps all"),
    "max_total_bytes": (int, 0, _SIZE, "bytes that the log and its rotated files may have together; 0 for any"),
    "journal_max_bytes": (int, 1 << 20, _SIZE, "bytes that a process's journal may take on the disk"),
    "max_inline_bytes": (
        int,
        0,
        _SIZE,
        "bytes of a line beyond which large texts go to files of their own; 0 for never",
    ),
    "file_mode": (int, 0, 0o777, "permissions of files, octal"),
    "directory_mode": (int, 0, 0o777, "permissions of directories, octal"),
}


class Options:
    """
    What can be set on :class:`~ai_response_logging.AIResponseHandler`, validated; it stays as it was checked.

    Written out: a dataclass of so many fields takes 2 ms to make, in every program that logs.

    Raises:
        ConfigError: A value is of the wrong kind or out of its range, or there is no such option: the text names the
            nearest one.
    """

    queue_max_size: int = 1000
    queue_max_bytes: int = 64 << 20
    batch_size: int = 10
    flush_interval: float = 5.0
    max_retries: int = 3
    retry_delay: float = 0.5
    durability: str = "crash"
    lock_timeout: float = 10.0
    caller_timeout: float = 1.0
    close_timeout: float = 10.0
    max_bytes: int = 0
    when: str = ""
    interval: int = 1
    utc: bool = False
    backup_count: int = 0
    retain_days: float = 0.0
    max_total_bytes: int = 0
    compress: bool = False
    file_mode: int = 0o600
    directory_mode: int = 0o700
    journal_directory: str | None = None
    journal_max_bytes: int = 64 << 20
    max_inline_bytes: int = 1 << 20
    redact: Any = DEFAULT_RULES

    def __init__(self, **options: Any) -> None:
        for name in options:
            if name not in _CHECKS:
                raise _unknown(name)
        for name, check in _CHECKS.items():
            vars(self)[name] = check(name, options.get(name, getattr(type(self), name)))

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"{name} cannot be set to {value!r}: options stay as they were checked"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"{name} cannot be taken away: options stay as they were checked"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, Options) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # nobody keeps them in a set

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Return *options* validated."""
        return cls(**options)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(cls.__annotations__)


def checked_option(name: str, value: Any) -> Any:
    """
    Return the *value* of one option validated.

    Raises:
        ConfigError: As :class:`Options` does.
    """
    if name not in _CHECKS:
        raise _unknown(name)
    return _CHECKS[name](name, value)


def _complaint(name: str, allowed: str, found: object) -> ConfigError:
    return ConfigError(f"{name} must be {allowed}, got {found!r}", name)


def _unknown(name: str) -> ConfigError:
    from difflib import get_close_matches  # 3 ms that only a mistake is worth

    near = get_close_matches(str(name), Options.names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(Options.names())}"
    return ConfigError(f"there is no option {name!r}: {hint}", name)


def _number(name: str, value: Any) -> float:
    kind, least, most, meaning = _RANGES[name]
    if name.endswith("_mode"):
        value = _octal(name, value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # The bounds before anything that makes a float of it: an integer of 400 digits would overflow there.
    if not is_number or not least <= value <= most or (kind is int and value != int(value)):
        raise _complaint(name, f"{_shown(name, least)} to {_shown(name, most)} ({meaning})", value)
    return int(value) if kind is int else float(value)


def _shown(name: str, bound: float) -> str:
    return f"0o{int(bound):o}" if name.endswith("_mode") else f"{bound:g}" if bound < 1e5 else str(int(bound))  # noqa: PLR2004  a number people can read


def _durability(name: str, value: Any) -> Any:
    if value not in DURABILITIES:
        raise _complaint(name, f"one of {', '.join(DURABILITIES)}", value)
    return value


def _unit_of_time(name: str, value: Any) -> str:
    """Return *value* as `TimedRotatingFileHandler` names it, in whatever case it was written; empty for never."""
    if value is None or value == "":
        return ""
    for unit in WHEN:
        if isinstance(value, str) and value.upper() == unit.upper():
            return unit
    raise _complaint(name, f"empty (never by time) or one of {', '.join(WHEN)}", value)


def _directory(name: str, value: Any) -> str | None:
    """Return *value* absolute: later the process may be somewhere else."""
    if value is None:
        return None
    path = path_of(value)
    if not path or "\n" in path:
        raise _complaint(name, "the path of a directory, without a newline in it", value)
    return os.path.abspath(path)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _complaint(name, "true or false", value)
    return value


def _octal(name: str, value: Any) -> Any:
    """Return a mode as a number; YAML 1.1 reads 0600 as octal but hands 0o600 over as text."""
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise _complaint(name, "permissions in octal, such as 0600", value) from None
    return value


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys(_RANGES, _number),
    "durability": _durability,
    "when": _unit_of_time,
    "redact": lambda _name, value: rules_of(value),
    "journal_directory": _directory,
    "compress": _flag,
    "utc": _flag,
}
