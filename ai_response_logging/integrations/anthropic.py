"""
HTTP clients for the official Anthropic SDK that record every call.

    from anthropic import Anthropic
    from ai_response_logging.integrations.anthropic import recording_client

    client = Anthropic(http_client=recording_client())

Messages, plain and streamed; whatever else the client asks passes through and is not recorded.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ._anthropic_middleware import middleware_for
from ._clients import RecordingClientFactory, Starts, recorder_of
from ._extra import brought_by

__all__ = ["recording_async_client", "recording_client", "recording_middleware"]

# However long a Retry-After, the SDK tries again; beyond 60 s after a pause of its own (anthropic 2.14).
_LONGEST_PAUSE_S: Final = math.inf


recording_client: Final = RecordingClientFactory("anthropic", "DefaultHttpxClient", _LONGEST_PAUSE_S)
recording_async_client: Final = RecordingClientFactory("anthropic", "DefaultAsyncHttpxClient", _LONGEST_PAUSE_S)


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
    sdk = brought_by("anthropic", "anthropic")
    module, recorder = recorder_of(
        sdk,
        longest_pause_s=_LONGEST_PAUSE_S,
        max_retries=max_retries,
        starts=starts,
        platform=platform,
        keep_raw=keep_raw,
    )
    return middleware_for(sdk, module, recorder)
