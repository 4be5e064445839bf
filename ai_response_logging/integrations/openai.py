"""
HTTP clients for the official OpenAI SDK, 2 and 3, that record every call.

    from openai import OpenAI
    from ai_response_logging.integrations.openai import recording_client

    client = OpenAI(http_client=recording_client())

Chat completions, Responses, legacy completions and embeddings, plain and streamed, of any endpoint that speaks the
API; whatever else the client asks passes through and is not recorded.
"""

from __future__ import annotations

from typing import Final

from ._clients import RecordingClientFactory

__all__ = ["recording_async_client", "recording_client"]

# A Retry-After beyond this, in seconds, is not waited for (openai 2.54 and 3.57, _constants.py).
_LONGEST_PAUSE_S: Final = 120.0


recording_client: Final = RecordingClientFactory("openai", "DefaultHttpxClient", _LONGEST_PAUSE_S)
recording_async_client: Final = RecordingClientFactory("openai", "DefaultAsyncHttpxClient", _LONGEST_PAUSE_S)
