"""What each process of a run gets: its cells, and its part of every limit, so that all keep within them; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .cells import CellIndex, deal
from .parts import PlatformLimits
from .plan import Plan
from .schedule import Schedule


@dataclass(frozen=True, slots=True)
class Hand:
    """The cells of one process, and its part of the limits."""

    cells: Sequence[CellIndex]
    concurrency: int
    platforms: dict[str, PlatformLimits]
    max_tokens: int | None

    def schedule(self, plan: Plan) -> Schedule:
        """Return the order in which the process asks its cells."""
        return Schedule(
            plan, self.cells, concurrency=self.concurrency, platforms=self.platforms, max_tokens=self.max_tokens
        )


def hands_of(plan: Plan, cells: Sequence[CellIndex], processes: int) -> list[Hand]:
    """
    Deal *cells* to at most *processes* hands.

    There are no more hands than the plan allows calls at once, and a platform goes to no more hands than it allows
    calls, at once or in a minute: a limit that every process kept for itself would be none.
    """
    dealt = _dealt(plan, cells, min(processes, plan.concurrency, len(cells)))
    users: dict[str, list[int]] = defaultdict(list)
    for at, hand in enumerate(dealt):
        for platform in _platforms_in(plan, hand):
            users[platform].append(at)
    max_tokens = plan.budget.max_tokens if plan.budget else None
    return [
        Hand(
            hand,
            _share(plan.concurrency, len(dealt), at),
            {
                platform: _part_of(plan.limits_of(platform), len(users[platform]), users[platform].index(at))
                for platform in _platforms_in(plan, hand)
            },
            None if max_tokens is None else _share(max_tokens, len(dealt), at),
        )
        for at, hand in enumerate(dealt)
    ]


def _dealt(plan: Plan, cells: Sequence[CellIndex], processes: int) -> list[list[CellIndex]]:
    most = {spec.platform: _most_hands(plan.limits_of(spec.platform)) for spec in plan.models}
    limited: dict[str, list[CellIndex]] = defaultdict(list)
    free: list[CellIndex] = []
    for cell in cells:
        platform = plan.models[cell.model_index - 1].platform
        (limited[platform] if most[platform] < processes else free).append(cell)
    hands = deal(free, processes)
    hands += [[] for _ in range(processes - len(hands))]
    for platform, theirs in limited.items():
        emptiest = sorted(range(processes), key=lambda at: len(hands[at]))[: most[platform]]
        for at, part in zip(emptiest, deal(theirs, len(emptiest)), strict=False):
            hands[at] += part
    return [sorted(hand) for hand in hands if hand]


def _most_hands(limits: PlatformLimits) -> int:
    counts = (limits.concurrency, limits.calls_per_minute, limits.tokens_per_minute)
    return min((count for count in counts if count is not None), default=10**9)


def _platforms_in(plan: Plan, cells: Sequence[CellIndex]) -> dict[str, None]:
    return dict.fromkeys(plan.models[cell.model_index - 1].platform for cell in cells)


def _part_of(limits: PlatformLimits, users: int, at: int) -> PlatformLimits:
    def part(whole: int | None) -> int | None:
        return None if whole is None else _share(whole, users, at)

    return PlatformLimits(part(limits.concurrency), part(limits.calls_per_minute), part(limits.tokens_per_minute))


def _share(whole: int, users: int, at: int) -> int:
    """Return the part of user *at*, from 0: all parts make the whole, and differ by one at most."""
    return len(range(at, whole, users))
