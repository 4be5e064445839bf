"""
Every error and warning of this package, in one tree.

::

    AIResponseLoggingError
    ├── ConfigError          (ValueError)   an option or a configuration file cannot be used
    ├── MissingExtraError    (ImportError)  an optional package is not installed
    ├── WriteError                          the log did not take lines; none of them is lost by it
    │   ├── AppendError                     the kernel refused a write
    │   ├── LockTimeoutError                another writer held the lock too long
    │   └── LogPathError                    something that is not our log stands at its path
    ├── QueryError           (ValueError)   an SQL query cannot be run
    ├── RefusedError                        a record could not be held anywhere: its status is ``failed``
    ├── LogReadError                        a log cannot be read
    └── OutputError                         what was made of a log could not be written

    Warning
    └── UserWarning
        ├── DurabilityWarning               what was asked for survives less than it says
        └── ConfigWarning                   an option is set that will not act as written

Facts are attributes and the text is made from them, so that an error keeps its meaning when it is
pickled into another process.
"""

from __future__ import annotations

import os

__all__ = [
    "AIResponseLoggingError",
    "AppendError",
    "ConfigError",
    "ConfigWarning",
    "DurabilityWarning",
    "LockTimeoutError",
    "LogPathError",
    "LogReadError",
    "MissingExtraError",
    "OutputError",
    "QueryError",
    "RefusedError",
    "WriteError",
]


class AIResponseLoggingError(Exception):
    """The base of every error that this package raises."""


class ConfigError(AIResponseLoggingError, ValueError):
    """
    An option or a configuration file cannot be used.

    Attributes:
        problem: What is wrong, what was found and what is allowed.
        where: The full path of the key, or the file; may be empty.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem, where)
        self.problem = problem
        self.where = where

    def __str__(self) -> str:
        return f"{self.problem}; it is set under {self.where}" if self.where else self.problem


class MissingExtraError(AIResponseLoggingError, ImportError):
    """
    A feature needs a package that is not installed.

    Attributes:
        package: The package that cannot be imported.
        extra: The extra of this distribution that brings it.
        command: What installs it where the extra does not.
    """

    def __init__(self, package: str, extra: str, command: str = "") -> None:
        super().__init__(package, extra, command)
        self.package = package
        self.extra = extra
        self.command = command or f"pip install 'ai-response-logging[{extra}]'"

    def __str__(self) -> str:
        return f"{self.package} is not installed; run: {self.command}"


class WriteError(AIResponseLoggingError):
    """The log did not take lines; they stay where they were and go out with a later attempt."""


class AppendError(WriteError):
    """
    The kernel refused a write.

    Attributes:
        path: The log.
        errno: The kernel's error number.
        written_bytes: How much of the block stood in the file when it refused.
        block_bytes: How much was to be written.
    """

    def __init__(self, path: str, errno: int, written_bytes: int = 0, block_bytes: int = 0) -> None:
        super().__init__(path, errno, written_bytes, block_bytes)
        self.path = path
        self.errno = errno
        self.written_bytes = written_bytes
        self.block_bytes = block_bytes

    def __str__(self) -> str:
        return (
            f"{self.path}: only {self.written_bytes} of {self.block_bytes} bytes appended "
            f"(errno {self.errno}, {os.strerror(self.errno)}); whole lines among them count as written, "
            "the rest is kept and tried again"
        )


class LockTimeoutError(WriteError):
    """
    Another writer held the lock for longer than we may wait.

    Attributes:
        path: The log.
        waited_s: For how long, in seconds, over all attempts since the last that got it.
        holder: Who holds it, as far as the machine tells; may be empty.
        remedy: What a person can do; may be empty.
    """

    def __init__(self, path: str, waited_s: float, holder: str = "", remedy: str = "") -> None:
        super().__init__(path, waited_s, holder, remedy)
        self.path = path
        self.waited_s = waited_s
        self.holder = holder
        self.remedy = remedy

    def __str__(self) -> str:
        by = f", held by {self.holder}" if self.holder else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return (
            f"no lock on {self.path} after {self.waited_s:.1f} s{by}; the records that wait are kept while this "
            f"process runs, and come home when the lock is free{remedy}"
        )


class LogPathError(WriteError):
    """
    Something that is not our log stands at its path, and nothing is written to it.

    Attributes:
        path: The path.
        found: What stands there, as in "a symbolic link".
    """

    def __init__(self, path: str, found: str) -> None:
        super().__init__(path, found)
        self.path = path
        self.found = found

    def __str__(self) -> str:
        return (
            f"{self.path} is {self.found}, not a regular file; nothing was written to it: "
            "move it away or set another filename"
        )


class RefusedError(AIResponseLoggingError):
    """
    A record could not be held anywhere; it is counted as ``failed``.

    Attributes:
        path: The log.
        reason: Why.
        record_id: Which record.
    """

    def __init__(self, path: str, reason: str, record_id: str = "") -> None:
        super().__init__(path, reason, record_id)
        self.path = path
        self.reason = reason
        self.record_id = record_id

    def __str__(self) -> str:
        return f"{self.path}: record {self.record_id or '(no id)'} was refused and is not in the log: {self.reason}"


class LogReadError(AIResponseLoggingError):
    """
    A log cannot be read.

    Attributes:
        path: The log.
        reason: Why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.reason}"


class OutputError(AIResponseLoggingError):
    """
    A file made of a log could not be written: the disk is full, or refuses.

    Attributes:
        path: The file.
        reason: Why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.path} could not be written: {self.reason}; the log is untouched and whole, and no half file was "
            "left: make room or name another place, and run this again"
        )


class QueryError(AIResponseLoggingError, ValueError):
    """
    An SQL query cannot be run.

    Attributes:
        reason: Why, as far as possible with the query's place that is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class DurabilityWarning(UserWarning):
    """Records survive less than the configured durability says; the text says what is missing."""


class ConfigWarning(UserWarning):
    """An option is set that will not act as written; the text says which and why."""
