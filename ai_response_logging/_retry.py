"""How long to wait before each further attempt; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["naps", "pauses"]


def pauses(max_retries: int, retry_delay: float) -> Iterator[float]:
    """Yield the pause in seconds before each attempt that follows a failed one: the n-th waits n x *retry_delay*."""
    for attempt in range(1, max_retries + 1):
        yield attempt * retry_delay


def naps(budget_s: float, shortest_s: float = 0.0005, longest_s: float = 0.02) -> Iterator[float]:
    """
    Yield short, growing waits for a lock that add up to *budget_s* seconds.

    The first are short because a lock is usually held for less than a millisecond; the longest stay short
    because a waiter that sleeps past the release lets others overtake it without limit.
    """
    left, nap = budget_s, shortest_s
    while left > 0:
        nap = min(nap, left)
        yield nap
        left -= nap
        nap = min(nap * 1.5, longest_s)
