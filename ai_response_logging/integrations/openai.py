"""
HTTP clients for the official OpenAI SDK, 2 and 3, that record every call.

    from openai import OpenAI
    from ai_response_logging.integrations.openai import recording_client

    client = OpenAI(http_client=recording_client())

Chat completions, Responses, legacy completions and embeddings, plain and streamed, of any endpoint that speaks the
API; whatever else the client asks passes through and is not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._clients import Starts, recorded

if TYPE_CHECKING:
    import httpx2

__all__ = ["recording_async_client", "recording_client"]

# A Retry-After beyond this, in seconds, is not waited for (openai 2.54 and 3.57, _constants.py).
_LONGEST_PAUSE_S: Final = 120.0


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
    Return an HTTP client with the SDK's own defaults that records every call, for ``OpenAI(http_client=...)``.

    Requests, answers and exceptions stay what they are. No header is recorded, and no address but the host.

    Args:
        max_retries: What the SDK's client was told, 0 or more; it says when a call that fails has failed for good. If
            the SDK tries fewer times, such a call is recorded when this client is closed or 75 s later.
        starts: Which calls are announced by a ``start`` record: ``streams``, ``all`` or ``none``.
        platform: As the records name it; None: known hosts by their name, others by host.
        keep_raw: Whether ``raw_request`` and ``raw_response`` are recorded as well.
        client: A client of your own to record with instead of a new one; it is changed and returned.
        options: For ``openai.DefaultHttpxClient``: ``timeout``, ``proxy``, ``verify``, ...

    Raises:
        MissingExtraError: The SDK is not installed.
        ConfigError: An argument is wrong.

    Durability: As the handler says. An answer is recorded before the SDK learns that it is over.
    Threads: Any. A call that began before a fork is its parent's to record.

    .. versionadded:: 0.1.0
    """
    return recorded(  # type: ignore[no-any-return]  # the SDK's release decides which
        "openai",
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
    Return an async HTTP client, for ``AsyncOpenAI(http_client=...)``; see `recording_client`.

    Threads: Any event loop; at ``durability: power`` it goes on while an answer is synced.

    .. versionadded:: 0.1.0
    """
    return recorded(  # type: ignore[no-any-return]  # the SDK's release decides which
        "openai",
        "DefaultAsyncHttpxClient",
        options=options,
        client=client,
        longest_pause_s=_LONGEST_PAUSE_S,
        max_retries=max_retries,
        starts=starts,
        platform=platform,
        keep_raw=keep_raw,
    )
