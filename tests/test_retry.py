from __future__ import annotations

import math
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging._retry import naps, pauses


def test_the_nth_pause_is_n_times_the_delay() -> None:
    """`max_retries: 3` with `retry_delay: 0.5` waits half a second, one, and one and a half."""
    assert list(pauses(3, 0.5)) == [0.5, 1.0, 1.5]


def test_without_retries_there_is_no_pause() -> None:
    """`max_retries: 0` is one attempt and no waiting."""
    assert list(pauses(0, 0.5)) == []


def test_a_million_retries_cost_nothing_in_advance() -> None:
    """The pauses are made one at a time: an outage that lasts fills no memory."""
    assert list(islice(pauses(10**9, 2.0), 2)) == [2.0, 4.0]


@given(st.floats(0, 5))
def test_naps_add_up_to_the_budget(budget_s: float) -> None:
    """Who waits for the lock waits as long as it may, not longer."""
    taken = list(naps(budget_s))

    assert math.isclose(sum(taken), budget_s, abs_tol=1e-9)
    assert all(nap > 0 for nap in taken)


def test_naps_begin_short_grow_and_stay_short() -> None:
    """A lock is mostly free within a millisecond; a long sleeper would be overtaken for ever."""
    taken = list(naps(1.0))[:-1]

    assert taken[0] == 0.0005
    assert all(shorter <= longer for shorter, longer in pairwise(taken))
    assert taken[3] > taken[0]
    assert max(taken) == 0.02


@pytest.mark.parametrize("budget_s", [0.0, -1.0])
def test_without_a_budget_there_is_no_nap(budget_s: float) -> None:
    """A budget that is spent gives one look at the lock and no wait."""
    assert list(naps(budget_s)) == []
