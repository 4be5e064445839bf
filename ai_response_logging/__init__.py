"""Records every answer from an AI model as one line of JSON, through standard ``logging``, and loses none."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._context import ai_context
    from ._typed import ResponseFields, Snapshot
    from .api import (
        AsyncAIResponseLogger,
        alog_ai_response,
        get_async_logger,
        log_ai_response,
        log_ai_response_async,
        log_ai_response_enhanced,
    )
    from .config import configure
    from .errors import (
        AIResponseLoggingError,
        AppendError,
        ConfigError,
        ConfigWarning,
        DurabilityWarning,
        LockTimeoutError,
        LogPathError,
        LogReadError,
        MissingExtraError,
        OutputError,
        QueryError,
        RefusedError,
        WriteError,
    )
    from .formatter import AIResponseFormatter
    from .handler import AIResponseHandler, ResponseQueueHandler
    from .listener import BatchQueueListener
    from .reader import read_log
    from .writer import BatchFileHandler

__version__ = "0.1.0"

# Loaded when first asked for: an application that imports us pays for the file locking and the YAML reader when it
# logs or configures, not before (PEP 562).
_HOMES = {
    "AIResponseFormatter": "formatter",
    "AIResponseHandler": "handler",
    "AIResponseLoggingError": "errors",
    "AppendError": "errors",
    "AsyncAIResponseLogger": "api",
    "BatchFileHandler": "writer",
    "BatchQueueListener": "listener",
    "ConfigError": "errors",
    "ConfigWarning": "errors",
    "DurabilityWarning": "errors",
    "LockTimeoutError": "errors",
    "LogPathError": "errors",
    "LogReadError": "errors",
    "MissingExtraError": "errors",
    "OutputError": "errors",
    "QueryError": "errors",
    "RefusedError": "errors",
    "ResponseFields": "_typed",
    "ResponseQueueHandler": "handler",
    "Snapshot": "_typed",
    "WriteError": "errors",
    "ai_context": "_context",
    "alog_ai_response": "api",
    "configure": "config",
    "get_async_logger": "api",
    "log_ai_response": "api",
    "log_ai_response_async": "api",
    "log_ai_response_enhanced": "api",
    "read_log": "reader",
}

__all__ = [
    "AIResponseFormatter",
    "AIResponseHandler",
    "AIResponseLoggingError",
    "AppendError",
    "AsyncAIResponseLogger",
    "BatchFileHandler",
    "BatchQueueListener",
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
    "ResponseFields",
    "ResponseQueueHandler",
    "Snapshot",
    "WriteError",
    "__version__",
    "ai_context",
    "alog_ai_response",
    "configure",
    "get_async_logger",
    "log_ai_response",
    "log_ai_response_async",
    "log_ai_response_enhanced",
    "read_log",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
