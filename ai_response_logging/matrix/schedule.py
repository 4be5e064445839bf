"""Which cell starts when: concurrency, limits of platforms and the budget; pure, with the clock passed in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from .cells import CellIndex
from .estimate import expected_tokens
from .parts import PlatformLimits
from .plan import Plan

_MINUTE_S: Final = 60.0
_NO_LIMITS: Final = PlatformLimits()


class Pace:
    """
    So many units a minute, spread evenly over it.

    Never a burst: what was not used before is not made up for, so that no minute, wherever it begins, sees more than
    allowed. Providers enforce limits over a second as well as over a minute.
    """

    def __init__(self, per_minute: int) -> None:
        self._unit_s = _MINUTE_S / per_minute
        self._free_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Return how long the next must still wait, in seconds."""
        return max(0.0, self._free_s - now_s)

    def take(self, now_s: float, units: float = 1.0) -> float:
        """Take *units* at the first moment there are any; return how long that is from now, in seconds."""
        wait_s = self.wait_s(now_s)
        self._free_s = now_s + wait_s + units * self._unit_s
        return wait_s

    def correct(self, units: float) -> None:
        """Take so many more after all, or give some back (negative)."""
        self._free_s += units * self._unit_s


class _Lane:
    """The cells of one platform that wait, in order, and what its limits allow."""

    def __init__(self, limits: PlatformLimits) -> None:
        self.waiting: deque[CellIndex] = deque()
        self.in_flight = 0
        self._most = limits.concurrency or math.inf
        self.calls = Pace(limits.calls_per_minute) if limits.calls_per_minute else None
        self.tokens = Pace(limits.tokens_per_minute) if limits.tokens_per_minute else None

    def wait_s(self, now_s: float) -> float:
        """Return how long its next cell must wait, in seconds; infinity until a call ends."""
        if not self.waiting or self.in_flight >= self._most:
            return math.inf
        return max((pace.wait_s(now_s) for pace in (self.calls, self.tokens) if pace is not None), default=0.0)


class Schedule:
    """
    Gives out cells to be asked, each once, none before its time.

    Cells come in the order of *cells*, as far as limits allow; a platform that has reached its limits keeps none of
    another one waiting.

    Args:
        plan: What the cells are of.
        cells: What to ask.
        concurrency: Calls in flight at once; None: the plan's.
        platforms: Limits of platforms; None: the plan's.
        max_tokens: After how many no more cells are given out; None: no limit.

    Attributes:
        closed_by: Why no more cells are given out though some are left; None while that is not so.
        in_flight: How many have been given out and have not ended.
        left: How many have not been given out.

    Threads: One.
    """

    def __init__(
        self,
        plan: Plan,
        cells: Iterable[CellIndex],
        *,
        concurrency: int | None = None,
        platforms: Mapping[str, PlatformLimits] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._plan = plan
        self._most = concurrency or plan.concurrency
        self._max_tokens = math.inf if max_tokens is None else max_tokens
        limits = (plan.platforms if platforms is None else platforms) or {}
        self._lanes = {spec.platform: _Lane(limits.get(spec.platform, _NO_LIMITS)) for spec in plan.models}
        self.left = 0
        for cell in cells:
            self._lane_of(cell).waiting.append(cell)
            self.left += 1
        self._expected: dict[CellIndex, float] = {}  # tokens of the cells in flight
        self._bound_tokens = 0.0  # used, and expected to be
        # Of each model: answers, and their tokens beyond the prompt's estimate.
        self._answers: dict[int, tuple[int, float]] = {}
        self.closed_by: str | None = None

    @property
    def in_flight(self) -> int:
        """How many cells have been given out and have not ended."""
        return len(self._expected)

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight, and nothing will be any more."""
        return not self._expected and (self.left == 0 or self.closed_by is not None)

    def close(self, reason: str) -> None:
        """Give out no more cells; the first reason counts, and none if there are no more."""
        if self.left and self.closed_by is None:
            self.closed_by = reason

    def take(self, now_s: float) -> CellIndex | None:
        """Give out a cell to be asked now; None if there is none, or none may start yet."""
        if self.closed_by is not None or self.in_flight >= self._most:
            return None
        ready = [lane for lane in self._lanes.values() if lane.wait_s(now_s) <= 0]
        if not ready:
            return None
        lane = min(ready, key=lambda each: each.waiting[0])
        cell = lane.waiting[0]
        tokens = self._tokens_of(cell, lane)
        if self._bound_tokens + tokens > self._max_tokens:
            if not self._expected:  # else one in flight may turn out to be cheaper
                self.close("max_tokens")
            return None
        lane.waiting.popleft()
        lane.in_flight += 1
        self.left -= 1
        self._expected[cell] = tokens
        self._bound_tokens += tokens
        if lane.calls is not None:
            lane.calls.take(now_s)
        if lane.tokens is not None:
            lane.tokens.take(now_s, tokens)
        return cell

    def wait_s(self, now_s: float) -> float:
        """Return how long nothing can be given out unless a call ends first, in seconds; may be infinite."""
        if self.closed_by is not None or self.in_flight >= self._most:
            return math.inf
        wait_s = min(lane.wait_s(now_s) for lane in self._lanes.values())
        return wait_s if wait_s > 0 else math.inf  # a cell that could start but for the budget

    def retry(self, cell: CellIndex, now_s: float) -> float:
        """Count one more attempt of a call in flight; return how long it must wait, in seconds."""
        calls = self._lane_of(cell).calls
        return 0.0 if calls is None else calls.take(now_s)

    def end(self, cell: CellIndex, tokens_used: int | None) -> None:
        """Take back a cell that has been asked; *tokens_used* as reported, None where nothing was."""
        expected = self._expected.pop(cell)
        lane = self._lane_of(cell)
        lane.in_flight -= 1
        if not self._counts_tokens(lane):
            return
        used = expected if tokens_used is None else tokens_used
        self._bound_tokens += used - expected
        if lane.tokens is not None:
            lane.tokens.correct(used - expected)
        if tokens_used is not None:
            count, tokens = self._answers.get(cell.model_index, (0, 0.0))
            answered = max(0, tokens_used - expected_tokens(self._plan, cell).prompt)
            self._answers[cell.model_index] = (count + 1, tokens + answered)

    def _counts_tokens(self, lane: _Lane) -> bool:
        return lane.tokens is not None or self._max_tokens < math.inf

    def _tokens_of(self, cell: CellIndex, lane: _Lane) -> float:
        """Return what a cell is expected to use: its prompt, and all that the model may answer, or usually does."""
        if not self._counts_tokens(lane):
            return 0.0
        expected = expected_tokens(self._plan, cell)
        if expected.most_answered is not None:
            return expected.prompt + expected.most_answered
        count, tokens = self._answers.get(cell.model_index, (0, 0.0))
        return expected.prompt + (tokens / count if count else 0.0)

    def _lane_of(self, cell: CellIndex) -> _Lane:
        return self._lanes[self._plan.models[cell.model_index - 1].platform]
