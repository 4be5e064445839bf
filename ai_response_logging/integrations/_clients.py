"""What the recording clients of all SDKs have in common: their options, their making, and what is missing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal

from ..errors import ConfigError
from ._extra import brought_by
from ._recorder import Recorder
from ._transport import decoder_of, record_async_client, record_client

__all__ = ["RecordingClientFactory", "Starts", "recorder_of"]

Starts = Literal["streams", "all", "none"]

_STARTS: Final = ("streams", "all", "none")
_HTTP_LIBRARIES: Final = ("httpx", "httpx2")


@dataclass(frozen=True)
class RecordingClientFactory:
    """
    Makes HTTP clients with an SDK's own defaults that record every call.

    Attributes:
        package: The SDK.
        factory: Its own maker of such clients.
        longest_pause_s: The SDK does not wait longer than that for its next try.
    """

    package: str
    factory: str
    longest_pause_s: float

    def __call__(
        self,
        *,
        max_retries: int = 2,
        starts: Starts = "streams",
        platform: str | None = None,
        keep_raw: bool = False,
        client: Any = None,
        **options: Any,
    ) -> Any:
        """
        Return an HTTP client that records every call, for the SDK's ``http_client=``.

        Requests, answers and exceptions stay what they are. No header is recorded, and no address but the host.

        Args:
            max_retries: What the SDK's client was told, 0 or more; it says when a call that fails has failed for
                good. A call with a higher number of its own is waited for as well. If the SDK tries fewer times, such
                a call is recorded when the next like it begins in the same thread or task, when that task or this
                client ends, or 75 s later.
            starts: Which calls are announced by a ``start`` record: ``streams``, ``all`` or ``none``.
            platform: As the records name it; None: known hosts by their name, others by host.
            keep_raw: Whether ``raw_request`` and ``raw_response`` are recorded as well.
            client: A client of your own to record with instead of a new one; it is changed and returned.
            options: For the SDK's own factory: ``timeout``, ``proxy``, ``verify``, ...

        Raises:
            MissingExtraError: The SDK is not installed.
            ConfigError: An argument is wrong.

        Durability: As the handler says. An answer is recorded before the SDK learns that it is over; in an event loop,
        which goes on while it is synced at ``power``.
        Threads: Any, and any event loop. A call that began before a fork is its parent's to record.

        .. versionadded:: 0.1.0
        """
        recording: dict[str, Any] = {
            "max_retries": max_retries,
            "starts": starts,
            "platform": platform,
            "keep_raw": keep_raw,
        }
        _check(**recording)
        if client is not None and options:
            raise ConfigError(f"client= is a finished client, and takes no further options; got {', '.join(options)}")
        made = client
        if client is None:
            made = getattr(brought_by(self.package, self.package), self.factory)(**options)
        module = _library_of(type(made), "client=")
        is_async = isinstance(made, module.AsyncClient)
        if is_async != ("Async" in self.factory):
            wanted = "a sync" if is_async else "an async"
            raise ConfigError(f"client= must be {wanted} client, got a {type(made).__qualname__}")
        recorder = Recorder(**recording, longest_pause_s=self.longest_pause_s, decode=decoder_of(module))
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
