from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.matrix import Budget, ModelSpec, Plan, PlatformLimits
from ai_response_logging.matrix.cells import CellIndex, cells_of
from ai_response_logging.matrix.dealing import hands_of
from ai_response_logging.matrix.estimate import expected_tokens
from ai_response_logging.matrix.schedule import Pace, Schedule

TOKENS = expected_tokens(Plan(["q1"], [ModelSpec("p", "m")]), CellIndex(1, 1)).prompt


def plan_of(questions: int, *platforms: str, **options: object) -> Plan:
    """Make a plan of so many questions and a model for each of *platforms*."""
    models = [ModelSpec(name, f"m{at}") for at, name in enumerate(platforms)]
    return Plan([f"q{at}" for at in range(1, questions + 1)], models, **options)  # type: ignore[arg-type]


def started_at(schedule: Schedule, *, call_s: float, tokens: int | None = None) -> dict[CellIndex, float]:
    """Ask every cell by a clock that only this test moves; each call takes *call_s*. Returns when each began."""
    now_s, begun, ends = 0.0, {}, {}
    while not schedule.is_over:
        while (cell := schedule.take(now_s)) is not None:
            begun[cell], ends[cell] = now_s, now_s + call_s
        if schedule.is_over:
            break
        next_s = min(now_s + schedule.wait_s(now_s), *ends.values(), math.inf)
        assert next_s < math.inf, "it would wait for ever"
        now_s = next_s
        for cell in [cell for cell, end_s in ends.items() if end_s <= now_s]:
            del ends[cell]
            schedule.end(cell, tokens)
    return begun


def most_at_once(begun: dict[CellIndex, float], call_s: float) -> int:
    """Return how many calls were in flight at once at most."""
    return max(sum(start <= at < start + call_s for start in begun.values()) for at in begun.values())


def test_cells_come_in_order_and_no_more_at_once_than_allowed():
    """Without limits of platforms the order is that of the plan, question by question."""
    plan = plan_of(3, "a", "b", concurrency=2)

    begun = started_at(Schedule(plan, cells_of(plan)), call_s=1)

    assert list(begun) == cells_of(plan)
    assert most_at_once(begun, 1) == 2


def test_platform_at_its_limit_keeps_no_other_waiting():
    """While one platform may have a single call, all the other slots go to the other."""
    plan = plan_of(4, "slow", "fast", concurrency=4, platforms={"slow": PlatformLimits(concurrency=1)})

    begun = started_at(Schedule(plan, cells_of(plan)), call_s=1)

    slow = {cell: at for cell, at in begun.items() if cell.model_index == 1}
    assert most_at_once(slow, 1) == 1
    assert [at for cell, at in begun.items() if cell.model_index == 2] == [0.0, 0.0, 0.0, 1.0]


def test_calls_are_spread_evenly_over_the_minute():
    """Thirty a minute is one every two seconds, from the first."""
    plan = plan_of(5, "p", platforms={"p": PlatformLimits(calls_per_minute=30)})

    begun = started_at(Schedule(plan, cells_of(plan)), call_s=0.5)

    assert list(begun.values()) == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_retries_take_their_turn_too():
    """An attempt of the SDK's own counts against the limit, and the next cell waits for it."""
    plan = plan_of(2, "p", platforms={"p": PlatformLimits(calls_per_minute=60)})
    schedule = Schedule(plan, cells_of(plan))
    first = schedule.take(0.0)
    assert first

    assert schedule.retry(first, 0.25) == 0.75
    assert schedule.wait_s(0.25) == 1.75


@given(st.integers(1, 200), st.lists(st.floats(0, 100), max_size=60))
def test_no_minute_sees_more_than_allowed(per_minute: int, gaps_s: list[float]):
    """However calls come, no sixty seconds, wherever they begin, see more of them than the limit."""
    pace, now_s, times = Pace(per_minute), 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        times.append(now_s + pace.take(now_s))

    for start_s in times:
        assert sum(start_s <= at < start_s + 60 - 1e-6 for at in times) <= per_minute


def test_tokens_count_as_expected_at_first_and_as_reported_in_the_end():
    """A call that used more than its prompt makes the next one wait for what it took."""
    limits = {"p": PlatformLimits(tokens_per_minute=60)}
    plan = plan_of(2, "p", platforms=limits)
    schedule = Schedule(plan, cells_of(plan))
    first = schedule.take(0.0)
    assert first

    assert schedule.wait_s(0.0) == TOKENS
    schedule.end(first, 30)
    assert schedule.wait_s(0.0) == 30.0
    second = schedule.take(30.0)
    assert second
    assert schedule.is_over is False


def test_budget_of_tokens_begins_no_cell_that_may_go_beyond_it():
    """With max_tokens at the model nothing is begun whose answer could be too long, also while others are in flight."""
    plan = Plan([f"q{at}" for at in range(1, 10)], [ModelSpec("p", "m", max_tokens=10)], concurrency=9)
    schedule = Schedule(plan, cells_of(plan), max_tokens=3 * (TOKENS + 10))

    begun = [cell for cell in iter(lambda: schedule.take(0.0), None) if cell]

    assert len(begun) == 3
    assert schedule.closed_by is None
    assert schedule.wait_s(0.0) == math.inf
    for cell in begun:
        schedule.end(cell, TOKENS + 10)
    assert schedule.take(0.0) is None
    assert (schedule.closed_by, schedule.is_over, schedule.left) == ("max_tokens", True, 6)


def test_cheaper_answers_leave_room_for_more_cells():
    """What a call did not use of what was set aside for it goes to another."""
    plan = Plan([f"q{at}" for at in range(1, 10)], [ModelSpec("p", "m", max_tokens=10)], concurrency=9)

    begun = started_at(Schedule(plan, cells_of(plan), max_tokens=3 * (TOKENS + 10)), call_s=1, tokens=TOKENS)

    assert len(begun) > 3


def test_without_a_bound_answers_count_as_long_as_those_before():
    """Where no max_tokens says it, the mean of this model's answers so far does."""
    plan = plan_of(5, "p", concurrency=1)
    schedule = Schedule(plan, cells_of(plan), max_tokens=250)

    begun = started_at(schedule, call_s=1, tokens=100)

    assert len(begun) == 2
    assert schedule.closed_by == "max_tokens"


def test_answer_without_a_usage_counts_as_expected():
    """An endpoint that reports nothing does not make the budget endless."""
    plan = plan_of(9, "p", concurrency=1)
    schedule = Schedule(plan, cells_of(plan), max_tokens=2 * TOKENS)

    begun = started_at(schedule, call_s=1, tokens=None)

    assert (len(begun), schedule.closed_by) == (2, "max_tokens")


def test_closed_schedule_gives_out_nothing_and_keeps_its_first_reason():
    """Closing leaves what is in flight alone; closing what has come to its end is none."""
    plan = plan_of(3, "p", concurrency=1)
    schedule = Schedule(plan, cells_of(plan))
    cell = schedule.take(0.0)
    assert cell

    schedule.close("interrupted")
    schedule.close("refused")
    schedule.end(cell, None)

    assert (schedule.take(0.0), schedule.is_over, schedule.closed_by) == (None, True, "interrupted")
    done = Schedule(plan, [])
    done.close("interrupted")
    assert (done.closed_by, done.is_over) == (None, True)


@given(
    st.integers(1, 6),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.builds(PlatformLimits, st.sampled_from([None, 1, 2, 3, 7]), calls_per_minute=st.sampled_from([None, 1, 5, 60])),
)
def test_hands_hold_each_cell_once_and_keep_every_limit_together(
    questions: int, platforms: list[str], concurrency: int, processes: int, limits: PlatformLimits
):
    """Whatever is dealt to however many processes, their parts of a limit come to the limit, and none has nothing."""
    budget = Budget(max_tokens=1000)
    plan = plan_of(questions, *platforms, concurrency=concurrency, platforms={platforms[0]: limits}, budget=budget)

    hands = hands_of(plan, cells_of(plan), processes)

    assert sorted(cell for hand in hands for cell in hand.cells) == cells_of(plan)
    assert 1 <= len(hands) <= min(processes, concurrency)
    assert sum(hand.concurrency for hand in hands) == concurrency
    assert sum(hand.max_tokens or 0 for hand in hands) == 1000
    parts = [hand.platforms[platforms[0]] for hand in hands if platforms[0] in hand.platforms]
    assert sum(part.concurrency or 0 for part in parts) == (limits.concurrency or 0)
    assert sum(part.calls_per_minute or 0 for part in parts) == (limits.calls_per_minute or 0)
    for hand in hands:
        assert hand.cells
        assert hand.concurrency >= 1
        begun = started_at(hand.schedule(plan_of(questions, *platforms, concurrency=concurrency)), call_s=1)
        assert Counter(begun.keys()) == Counter(hand.cells)


def test_hand_without_limits_is_dealt_as_always():
    """Each process has some cells of each model, so that a slow one is shared."""
    plan = plan_of(4, "a", "b", "c", "d", concurrency=8)

    hands = hands_of(plan, cells_of(plan), 4)

    assert [{cell.model_index for cell in hand.cells} for hand in hands] == [{1, 2, 3, 4}] * 4


@pytest.mark.parametrize("cells", [0, 1])
def test_few_cells_need_few_hands(cells: int):
    """No process is started that would have nothing to do."""
    plan = plan_of(2, "a")

    assert len(hands_of(plan, cells_of(plan)[:cells], 8)) == cells
