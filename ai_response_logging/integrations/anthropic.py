"""
HTTP clients for the official Anthropic SDK that record every call.

    from anthropic import Anthropic
    from ai_response_logging.integrations.anthropic import recording_client

    client = Anthropic(http_client=recording_client())

Messages, plain and streamed; whatever else the client asks passes through and is not recorded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ._anthropic_middleware import middleware_for
from ._clients import Starts, recorded, recorder_of, sdk_of

if TYPE_CHECKING:
    import httpx2

__all__ = ["recording_async_client", "recording_client", "recording_middleware"]

# However long a Retry-After, the SDK tries again; beyond 60 s after a pause of its own (anthropic 2.14).
_LONGEST_PAUSE_S: Final = math.inf


def recording_client(
    *,
    max_retries: int = 2,
    starts: Starts = "streams",
    platform: str | None = None,
    keep_raw: bool = False,
    client: Any = None,
    **options: Any,
) -> httpx2.Client:
    """
    Return an HTTP client with the SDK's own defaults that records every call, for ``Anthropic(http_client=...)``.

    Requests, answers and exceptions stay what they are. No header is recorded, and no address but the host.

    Args:
        max_retries: What the SDK's client was told, 0 or more; it says when a call that fails has failed for good. If
            the SDK tries fewer times, such a call is recorded when this client is closed or 75 s later.
        starts: Which calls are announced by a ``start`` record: ``streams``, ``all`` or ``none``.
        platform: As the records name it; None: known hosts by their name, others by host.
        keep_raw: Whether ``raw_request`` and ``raw_response`` are recorded as well.
        client: A client of your own to record with instead of a new one; it is changed and returned.
        options: For ``anthropic.DefaultHttpxClient``: ``timeout``, ``proxy``, ``verify``, ...

    Raises:
        MissingExtraError: The SDK is not installed.
        ConfigError: An argument is wrong.

    Durability: As the handler says. An answer is recorded before the SDK learns that it is over.
    Threads: Any. A call that began before a fork is its parent's to record.

    .. versionadded:: 0.1.0
    """
    return recorded(  # type: ignore[no-any-return]  # the SDK's release decides which
        "anthropic",
        "DefaultHttpxClient",
        options=options,
        client=client,
        longest_pause_s=_LONGEST_PAUSE_S,
        max_retries=max_retries,
        starts=starts,
        platform=platform,
        keep_raw=keep_raw,
    )


def recording_async_client(
    *,
    max_retries: int = 2,
    starts: Starts = "streams",
    platform: str | None = None,
    keep_raw: bool = False,
    client: Any = None,
    **options: Any,
) -> httpx2.AsyncClient:
    """
    Return an async HTTP client, for ``AsyncAnthropic(http_client=...)``; see `recording_client`.

    Threads: Any event loop; at ``durability: power`` it goes on while an answer is synced.

    .. versionadded:: 0.1.0
    """
    return recorded(  # type: ignore[no-any-return]  # the SDK's release decides which
        "anthropic",
        "DefaultAsyncHttpxClient",
        options=options,
        client=client,
        longest_pause_s=_LONGEST_PAUSE_S,
        max_retries=max_retries,
        starts=starts,
        platform=platform,
        keep_raw=keep_raw,
    )


def recording_middleware(
    *, max_retries: int = 2, starts: Starts = "streams", platform: str = "anthropic", keep_raw: bool = False
) -> Any:
    """
    Return a middleware that records every call, for ``Anthropic(middleware=[...])`` and ``AsyncAnthropic`` alike.

    For clients that do not speak HTTP by a client of `recording_client`'s kind (those of cloud providers, or one of
    your own), and to record what other middleware has made of a request: put it innermost, that is last. Use this or
    `recording_client`, not both: each records the call. It sees what the SDK sees, so its records have no host; calls
    of which only failed tries are known end after 75 s, or with the process.

    Args:
        max_retries: As for `recording_client`; a call's own number, where it has one, counts more.
        starts: The same.
        platform: The same.
        keep_raw: The same.

    Raises:
        MissingExtraError: The SDK is not installed.
        ConfigError: An argument is wrong.

    .. versionadded:: 0.1.0
    """
    sdk = sdk_of("anthropic", "anthropic")
    module, recorder = recorder_of(
        sdk,
        longest_pause_s=_LONGEST_PAUSE_S,
        max_retries=max_retries,
        starts=starts,
        platform=platform,
        keep_raw=keep_raw,
    )
    return middleware_for(sdk, module, recorder)
