"""Whether the official SDKs try a request again, as their sources say; pure but for a look at who is calling."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Final

__all__ = ["is_retried", "retries_of_caller", "retry_count_of"]

_SDKS: Final = frozenset({"openai._base_client", "anthropic._base_client"})

_RETRIED: Final = frozenset({408, 409, 429})
_SERVER_ERROR: Final = 500


def is_retried(status: int, headers: Mapping[str, str], longest_pause_s: float) -> bool:
    """
    Say whether an answer of *status* is one that the SDK asks for again, as long as it may.

    It gives up where it is told to wait longer than *longest_pause_s*.

    Source: ``_should_retry`` in ``_base_client.py`` of openai 2.54 and 3.57 and of anthropic 2.14.
    """
    if _pause_s(headers) > longest_pause_s:
        return False
    said = headers.get("x-should-retry")
    if said in {"true", "false"}:
        return said == "true"
    return status in _RETRIED or status >= _SERVER_ERROR


def retry_count_of(headers: Mapping[str, str]) -> int | None:
    """Return how many tries of the same call came before; None where it is no SDK that says so."""
    said = headers.get("x-stainless-retry-count", "")
    return int(said) if said.isascii() and said.isdigit() else None


def retries_of_caller() -> int | None:
    """
    Return how many further tries the SDK makes of the call in which this is asked; None where it cannot be told.

    Each call may have a number of its own (``with_options(max_retries=5)``), which no request says: it is a local
    variable of the SDK's ``request``, up this thread's or task's stack; a contract test holds it.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # documented, if only for CPython
    while frame is not None:
        if frame.f_code.co_name == "request" and frame.f_globals.get("__name__") in _SDKS:
            most = frame.f_locals.get("max_retries")
            return most if isinstance(most, int) else None
        frame = frame.f_back
    return None


def _pause_s(headers: Mapping[str, str]) -> float:
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return float(headers.get(name, "")) / divisor
        except ValueError:
            continue
    return 0.0
