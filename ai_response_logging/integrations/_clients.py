"""What the recording clients of all SDKs have in common: their options, their making, and what is missing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final, Literal

from ..errors import ConfigError, MissingExtraError
from ._recorder import Recorder
from ._transport import decoder_of, record_async_client, record_client

__all__ = ["Starts", "recorded", "recorder_of", "sdk_of"]

Starts = Literal["streams", "all", "none"]

_STARTS: Final = ("streams", "all", "none")
_HTTP_LIBRARIES: Final = ("httpx", "httpx2")


def sdk_of(package: str, extra: str) -> ModuleType:
    """
    Return the module *package*.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise  # it is there, and something that it needs is not: that has a message of its own
        raise MissingExtraError(package, extra) from None


def recorded(
    package: str, factory: str, *, options: dict[str, Any], client: Any, longest_pause_s: float, **recording: Any
) -> Any:
    """
    Return *client*, or else a new one by the *factory* of the SDK *package*, with every transport of it recording.

    Raises:
        MissingExtraError: The SDK is not installed.
        ConfigError: An argument is wrong.
    """
    _check(**recording)
    if client is not None and options:
        raise ConfigError(f"client= is a finished client, and takes no further options; got {', '.join(options)}")
    made = getattr(sdk_of(package, package), factory)(**options) if client is None else client
    module = _library_of(type(made), "client=")
    is_async = isinstance(made, module.AsyncClient)
    if is_async != ("Async" in factory):
        raise ConfigError(f"client= must be {'an async' if 'Async' in factory else 'a sync'} client, got {made!r}")
    recorder = Recorder(**recording, longest_pause_s=longest_pause_s, decode=decoder_of(module))
    (record_async_client if is_async else record_client)(made, module, recorder)
    return made


def recorder_of(sdk: ModuleType, *, longest_pause_s: float, **recording: Any) -> tuple[ModuleType, Recorder]:
    """
    Return the HTTP library that *sdk* builds on, and a recorder for something else than a client of it.

    Raises:
        ConfigError: An argument is wrong.
    """
    _check(**recording)
    module = _library_of(sdk.DefaultHttpxClient, "the SDK's client")
    return module, Recorder(**recording, longest_pause_s=longest_pause_s, decode=decoder_of(module))


def _check(*, max_retries: object, starts: object, **_: object) -> None:
    if not isinstance(max_retries, int) or max_retries < 0:
        raise ConfigError(f"max_retries must be 0 or more, got {max_retries!r}")
    if starts not in _STARTS:
        raise ConfigError(f"starts must be one of {', '.join(_STARTS)}, got {starts!r}")


def _library_of(kind: type, name: str) -> ModuleType:
    """Return the HTTP library that *kind* is of: SDKs of this year and the last have different ones."""
    for cls in kind.__mro__:
        root = cls.__module__.partition(".")[0]
        if root in _HTTP_LIBRARIES:
            return sys.modules[root]
    raise ConfigError(f"{name} must be a client of {' or '.join(_HTTP_LIBRARIES)}, got a {kind.__qualname__}")
