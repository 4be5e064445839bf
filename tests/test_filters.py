"""Which records are wanted: :mod:`ai_response_logging.filters`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from ai_response_logging.filters import Filters, parse_time

RECORD = {
    "event": "response",
    "execution_id": "exec_1",
    "platform": "DeepSeek",
    "provider": "deepseek",
    "model": "deepseek-chat",
    "brand": "品牌",
    "success": True,
    "unix_timestamp": 1000.0,
    "metadata": {"deep": [{"note": "needle"}]},
}
NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(execution_id="exec_1", platform="DEEPSEEK", model="DeepSeek-Chat", brand="品牌"),
        Filters(platform="deepseek"),
        Filters(since=1000.0, until=1000.5),
        Filters(grep=re.compile("need")),
    ],
)
def test_a_record_is_wanted(filters: Filters) -> None:
    """All that is asked holds of it."""
    assert filters.match(RECORD)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(execution_id="exec"),
        Filters(platform="openai"),
        Filters(model="deepseek"),
        Filters(brand="其他"),
        Filters(failed=True),
        Filters(since=1000.1),
        Filters(until=1000.0),
        Filters(grep=re.compile("^eedle")),
    ],
)
def test_a_record_is_not_wanted(filters: Filters) -> None:
    """One thing asked does not hold of it."""
    assert not filters.match(RECORD)


def test_a_failure_is_the_end_of_a_call_without_success() -> None:
    """As in the statistics: no success counts as failed, and neither a start nor an attempt is an end."""
    failed = Filters(failed=True)
    assert failed.match({"event": "tombstone"})
    assert failed.match({"success": False})
    assert not failed.match({"event": "attempt", "success": False})
    assert not failed.match({"event": "start"})


def test_a_record_without_a_time_is_in_no_time() -> None:
    """Neither since nor until takes it, nor one whose time is no number."""
    for record in ({}, {"unix_timestamp": "1000"}, {"unix_timestamp": True}):
        assert not Filters(since=0.0).match(record)
        assert not Filters(until=2000.0).match(record)


def test_whether_anything_is_asked() -> None:
    """Nothing asked is false, so that a reader may skip the work."""
    assert not Filters()
    assert Filters(failed=True)
    assert Filters(since=0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("1.5 H", NOW - timedelta(minutes=90)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-01-31T08:00:00+08:00", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T00:00:00Z", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31 08:00", datetime(2026, 1, 31, 8).astimezone()),
        ("2026-01-31", datetime(2026, 1, 31).astimezone()),
    ],
)
def test_times_as_people_write_them(text: str, expected: datetime) -> None:
    """Spans before now, dates, and RFC 3339; local where no offset is given."""
    assert parse_time(text, NOW) == expected.timestamp()


def test_a_date_as_an_end_is_its_last_moment() -> None:
    """``--until 2026-01-31`` takes the whole of that day; one with a time is taken as it is."""
    assert parse_time("2026-01-31", NOW, end=True) == datetime(2026, 2, 1).astimezone().timestamp()
    assert parse_time("2026-01-31T08:00", NOW, end=True) == datetime(2026, 1, 31, 8).astimezone().timestamp()


def test_days_by_name() -> None:
    """They begin at local midnight."""
    today = NOW.astimezone().replace(hour=0, minute=0, tzinfo=None)
    assert parse_time("today", NOW) == today.timestamp()
    assert parse_time("Yesterday", NOW) == (today - timedelta(days=1)).timestamp()
    assert parse_time("yesterday", NOW, end=True) == today.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "2x", "2026-13-01", "9" * 400 + "d", "25:00"])
def test_what_is_no_time_says_what_would_be(text: str) -> None:
    """The message teaches the forms."""
    with pytest.raises(ValueError, match=r"is no time: give a span before now \(90s, 15m, 2h, 3d, 1w\), a date"):
        parse_time(text, NOW)
