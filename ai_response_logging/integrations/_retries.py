"""Whether the official SDKs try a request again, as their sources say; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["is_retried", "retry_count_of"]

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


def _pause_s(headers: Mapping[str, str]) -> float:
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return float(headers.get(name, "")) / divisor
        except ValueError:
            continue
    return 0.0
