from __future__ import annotations

import logging
import os
import time
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path

import pytest
from helpers import log_files, read_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_response_logging import _rotate, _shared_file
from ai_response_logging._options import WHEN, Options
from ai_response_logging._paths import utc_suffix
from ai_response_logging._rotate import next_rollover, period, remove_surplus, rotate
from ai_response_logging.writer import BatchFileHandler

DAY_S = 86_400
UNITS = {"S": 1, "M": 60, "H": 3600, "D": DAY_S}
WEEKDAYS = [f"W{day}" for day in range(7)]
# As POSIX writes rules, so that no database of zones is needed.
ZONES = {
    "none": "UTC0",
    "central Europe: at 2 and 3 in the night": "CET-1CEST,M3.5.0,M10.5.0/3",
    "Brazil: midnight is skipped, and 23 o'clock comes twice": "<-03>3<-02>,M10.3.0/0,M2.3.0/0",
    "Cuba: midnight is skipped, and comes twice": "CST5CDT,M3.2.0/0,M11.1.0/1",
    "Newfoundland: a minute past midnight, back over it": "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01",
    "Lord Howe: half an hour": "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "far east": "<+14>-14",
    "a quarter of an hour": "<+0545>-5:45",
}
EUROPE, BRAZIL, CUBA, NEWFOUNDLAND = list(ZONES.values())[1:5]


@pytest.fixture
def live_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Give a function that moves this process into a time zone for the length of the test."""

    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    with monkeypatch.context():
        yield move
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    """Return the Unix time of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def local(text: str, fold: int = 0) -> float:
    """Return the Unix time of a moment by this process's clock; *fold* 1 is the second of two."""
    return datetime.fromisoformat(text).replace(fold=fold).timestamp()


def local_day(at_s: float) -> tuple[int, ...]:
    """Return year, month and day by this process's calendar."""
    return time.localtime(at_s)[:3]


# --- when a file is over, as a pure function ------------------------------------------------------------------------


@pytest.mark.parametrize("when", UNITS)
@pytest.mark.parametrize("interval", [1, 2, 7, 100_000])
@pytest.mark.parametrize("utc", [False, True])
def test_fixed_units_last_so_long_from_the_first_record_on(
    live_in: Callable[[str], None], when: str, interval: int, utc: bool
):
    """S, M, H and D are lengths: neither the full hour nor a change of the clocks makes them shorter or longer."""
    live_in(EUROPE)
    for start_s in (at("2026-03-29T00:59:59.5"), at("2026-10-25T00:30:00"), 0.0, 1.25):
        assert next_rollover(start_s, when, interval, utc=utc) == start_s + interval * UNITS[when]


@pytest.mark.parametrize("utc", [False, True])
def test_no_unit_means_never(utc: bool):
    """Without `when` no file is ever over."""
    assert next_rollover(at("2026-01-01T00:00"), "", 1, utc=utc) == float("inf")
    assert period(5.0, Options(utc=utc)) == (5.0, float("inf"))


@pytest.mark.parametrize("when", ["midnight", *WEEKDAYS])
def test_days_and_weeks_in_utc_end_where_the_standard_librarys_do(log_path: Path, when: str):
    """Whoever comes from TimedRotatingFileHandler finds the same midnights and the same days of the week."""
    stock = TimedRotatingFileHandler(log_path, when=when, utc=True, delay=True)
    for day in range(15):
        for second in (0, 1, 43_200, DAY_S - 1):
            start_s = int(at("2026-02-20T00:00")) + day * DAY_S + second
            assert next_rollover(start_s, when, 1, utc=True) == stock.computeRollover(start_s)
    stock.close()


@pytest.mark.parametrize(
    ("when", "ends"), [(day, f"2026-11-{number}T00:00") for number, day in enumerate(WEEKDAYS, 24)]
)
def test_week_ends_at_the_midnight_that_ends_its_day(when: str, ends: str):
    """W0 is Monday, and the file is over when that Monday is (2026-11-23 is one)."""
    assert next_rollover(at("2026-11-23T00:00"), when, 1, utc=True) == at(ends)
    last_s = at(ends) - 0.000001
    assert next_rollover(last_s, when, 1, utc=True) == at(ends)
    assert next_rollover(at(ends), when, 1, utc=True) == at(ends) + 7 * DAY_S


@pytest.mark.parametrize("zone", ZONES.values(), ids=ZONES)
@pytest.mark.parametrize("when", ["midnight", "W0", "W6"])
@pytest.mark.parametrize("utc", [False, True])
def test_interval_counts_midnights_and_weeks_one_by_one(
    live_in: Callable[[str], None], zone: str, when: str, utc: bool
):
    """Every n-th midnight is reached by n single ones, over changes of the clocks as well."""
    live_in(zone)
    for start in ("2026-02-13T23:59:59", "2026-03-07T12:00", "2026-10-16T00:00", "2026-10-31T01:30"):
        one_by_one_s = at(start)
        for interval in range(1, 40):
            one_by_one_s = next_rollover(one_by_one_s, when, 1, utc=utc)
            assert next_rollover(at(start), when, interval, utc=utc) == one_by_one_s


@pytest.mark.parametrize("zone", ZONES.values(), ids=ZONES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(start_ms=st.integers(DAY_S * 1000, int(at("2099-12-31T00:00")) * 1000))
def test_any_local_day_ends_when_the_calendar_first_shows_another(
    live_in: Callable[[str], None], zone: str, start_ms: int
):
    """Wherever and whenever a file begins, it is over at the first instant of the next day, after it began."""
    live_in(zone)
    start_s = start_ms / 1000
    end_s = next_rollover(start_s, "midnight", 1, utc=False)

    assert start_s < end_s <= start_s + 25.5 * 3600
    assert local_day(end_s) > local_day(start_s)
    for step in range(100):
        assert local_day(start_s + (end_s - start_s) * step / 100) <= local_day(start_s)
    assert local_day(end_s - 0.0005) <= local_day(start_s)


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        pytest.param(EUROPE, "2026-03-29T00:00", 23, id="spring"),
        pytest.param(EUROPE, "2026-10-25T00:00", 25, id="autumn"),
        pytest.param(EUROPE, "2026-10-24T00:00", 24, id="the day before"),
        pytest.param(BRAZIL, "2026-10-17T22:00", 2, id="the midnight to come is skipped"),
        pytest.param(BRAZIL, "2026-10-18T01:00", 23, id="a day that begins at one"),
        pytest.param(BRAZIL, "2026-02-14T22:00", 3, id="an hour twice before midnight"),
        pytest.param(CUBA, "2026-11-01T00:30", 24.5, id="begun in the first of two midnight hours"),
        pytest.param(CUBA, "2026-10-31T23:00", 1, id="over at the first of two midnights"),
        pytest.param(NEWFOUNDLAND, "2026-10-31T23:30", 0.5, id="before a minute of the next day"),
        pytest.param(NEWFOUNDLAND, "2026-11-01T00:00:30", 25 - 30 / 3600, id="in that minute"),
    ],
)
def test_local_midnight_minds_the_clocks(live_in: Callable[[str], None], zone: str, start: str, hours: float):
    """A local day has the hours that it has, also where it is midnight itself that is skipped or comes twice."""
    live_in(zone)
    assert next_rollover(local(start), "midnight", 1, utc=False) == local(start) + hours * 3600


def test_clocks_that_go_back_over_midnight_do_not_end_a_file_before_it_began(live_in: Callable[[str], None]):
    """The second 23:30 of a day ends at the second midnight: the first lies behind it."""
    live_in(NEWFOUNDLAND)
    start_s = local("2026-10-31T23:30", fold=1)
    assert start_s == local("2026-10-31T23:30") + 3600

    assert next_rollover(start_s, "midnight", 1, utc=False) == start_s + 1800


def test_skipped_midnight_does_not_depend_on_what_was_asked_before(live_in: Callable[[str], None]):
    """All processes agree on a midnight that is skipped, whatever times they have looked at before."""
    live_in(BRAZIL)
    start_s = local("2026-10-17T22:00")
    answers = set()
    for before in ("2026-01-10T12:00", "2026-07-10T12:00"):
        next_rollover(local(before), "midnight", 1, utc=False)
        answers.add(next_rollover(start_s, "midnight", 1, utc=False))

    assert answers == {start_s + 2 * 3600}


def test_skipped_day_belongs_to_the_file_before_it(live_in: Callable[[str], None]):
    """Samoa had no 2011-12-30: the 29th is over when the 31st begins."""
    if not Path("/usr/share/zoneinfo/Pacific/Apia").exists():
        pytest.skip("this machine has no database of time zones")
    live_in("Pacific/Apia")
    start_s = at("2011-12-30T05:00")
    assert local_day(start_s) == (2011, 12, 29)

    assert next_rollover(start_s, "midnight", 1, utc=False) == at("2011-12-30T10:00")


@pytest.mark.parametrize("zone", ZONES.values(), ids=ZONES)
def test_utc_days_are_the_same_in_every_zone(live_in: Callable[[str], None], zone: str):
    """With `utc` the machine's own zone does not matter."""
    live_in(zone)
    assert next_rollover(at("2026-03-29T01:30"), "midnight", 1, utc=True) == at("2026-03-30T00:00")
    assert next_rollover(at("2026-03-29T01:30"), "W6", 1, utc=True) == at("2026-03-30T00:00")


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("year", [1972, 2040])
@pytest.mark.parametrize("utc", [False, True])
def test_clocks_of_1972_and_2040_have_midnights_too(live_in: Callable[[str], None], when: str, year: int, utc: bool):
    """A clock without a battery, and one behind 2038, make no error and no file without an end."""
    live_in(EUROPE)
    start_s = at(f"{year}-02-29T12:00")

    assert 0 < next_rollover(start_s, when, 1, utc=utc) - start_s <= 7 * DAY_S + 3600


@pytest.mark.parametrize("when", ["midnight", "W3"])
@pytest.mark.parametrize("began_s", [1e12, 1e30, float("inf")])
@pytest.mark.parametrize("utc", [False, True])
def test_time_that_no_calendar_has_costs_no_record(when: str, began_s: float, utc: bool):
    """A first record that says a time beyond all calendars makes a file that ends, or never does; never an error."""
    began, over = period(began_s, Options(when=when, utc=utc))

    assert began == began_s
    assert over >= began


def test_interval_past_the_end_of_the_calendar_means_never():
    """The longest interval of weeks is an option as good as any."""
    assert period(at("9990-01-01T00:00"), Options(when="W0", interval=100_000)) == (
        at("9990-01-01T00:00"),
        float("inf"),
    )


def test_rotation_under_a_clock_that_stands_still_finds_a_free_name(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A test of our users that freezes the time does not hang in the second rotation."""
    frozen = at("2026-11-23T12:00")
    monkeypatch.setattr(_rotate.time, "time", lambda: frozen)
    suffix = _rotate.utc_suffix
    monkeypatch.setattr(_rotate, "utc_suffix", lambda time_s=frozen: suffix(time_s))
    for number in range(3):
        log_path.write_text(f"{number}\n")
        rotate(str(log_path))

    assert [file.read_text() for file in log_files(log_path)] == ["0\n", "1\n", "2\n"]


@pytest.fixture
def rotate_at(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Give a function that rotates a log, with its lock file, when the clock says so; it returns the new name."""
    with log_path.with_name("lock").open("w+b", buffering=0) as lock_file:

        def rotate_it(moment: str) -> str:
            now_s = at(moment)
            monkeypatch.setattr(_rotate, "utc_suffix", lambda time_s=now_s: utc_suffix(time_s))
            monkeypatch.setattr(_rotate.time, "time", lambda: now_s)
            log_path.write_bytes(b"x\n")
            return rotate(str(log_path), lock_file=lock_file)

        yield rotate_it


CLOCKS = {
    "an hour back": ["2026-11-23T12:00", "2026-11-23T11:00", "2026-11-23T11:01", "2026-11-23T12:02"],
    "a day ahead and back": ["2026-11-23T12:00", "2026-11-24T12:00", "2026-11-23T12:01", "2026-11-23T12:02"],
    "1972 and back": ["2026-11-23T12:00", "1972-01-01T00:00", "1972-01-01T00:01", "2026-11-23T12:02"],
    "2040 and back": ["2026-11-23T12:00", "2040-11-24T12:00", "2026-11-23T12:01", "2026-11-23T12:02"],
    "the end of the calendar": ["2026-11-23T12:00", "9999-12-31T23:59:59", "2026-11-23T12:01"],
}


@pytest.mark.parametrize("lose", [False, True], ids=["noted", "the lock file is new each time"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_names_sort_as_files_were_rotated_whatever_the_clock_did(
    log_path: Path, rotate_at: Callable[[str], str], clock: str, lose: bool
):
    """A clock that is set gives no file a place before an older one, and retention deletes the oldest first."""
    names = []
    for moment in CLOCKS[clock]:
        names.append(rotate_at(moment))
        if lose:
            os.truncate(log_path.with_name("lock"), 0)

    assert names == sorted(names)
    assert list(map(str, log_files(log_path))) == names
    assert remove_surplus(str(log_path), Options(backup_count=1)) == names[:-1]


def test_name_that_no_calendar_has_is_passed_over(log_path: Path, rotate_at: Callable[[str], str]):
    """A stranger's file with an impossible time in its name does not stop rotation."""
    Path(f"{log_path}.99999999T999999.999999Z").touch()

    assert rotate_at("2026-11-23T12:00") == f"{log_path}.20261123T120000.000000Z"


@pytest.mark.parametrize("foreign", [b"4711\n", b"\xff" * 23, b"99999999T999999.999999Z", b"20261123T120000.000000Z!"])
def test_foreign_file_in_the_locks_place_is_not_written_to(
    log_path: Path, rotate_at: Callable[[str], str], foreign: bytes
):
    """Then the names in the directory keep the order, and every byte of the stranger's stays."""
    log_path.with_name("lock").write_bytes(foreign)

    names = [rotate_at(moment) for moment in CLOCKS["an hour back"]]
    assert names == sorted(names)
    assert log_path.with_name("lock").read_bytes() == foreign


@pytest.mark.parametrize("packed", [False, True])
def test_age_of_a_file_whose_name_is_ahead_is_that_of_its_last_change(
    log_path: Path, rotate_at: Callable[[str], str], packed: bool
):
    """After a clock in 2040 `retain_days` still deletes what is old, and nothing that is new or of unknown age."""
    unknown, old, new = (rotate_at(moment) for moment in ("2040-01-01T00:00", "2026-11-01T00:00", "2026-11-23T00:00"))
    for file, changed in (unknown, "2040-01-01T00:00"), (old, "2026-11-01T00:00"), (new, "2026-11-23T00:00"):
        os.utime(file, (at(changed), at(changed)))
        if packed:
            os.rename(file, f"{file}.gz")

    assert remove_surplus(str(log_path), Options(retain_days=7)) == [old + ".gz" * packed]


def test_clock_that_jumps_ahead_makes_no_file_old_until_it_has_lasted_a_day(monkeypatch: pytest.MonkeyPatch):
    """A mistake of some hours deletes nothing; one that woke up in 1972 and learns the time has it a day later."""
    clock = types.SimpleNamespace(at_s=1000.0, lead_s=500.0)
    monkeypatch.setattr(
        _rotate,
        "time",
        types.SimpleNamespace(time=lambda: clock.at_s + clock.lead_s, monotonic=lambda: clock.at_s),
    )
    calendar = _rotate._Calendar()
    assert calendar.now_s() == 1500
    clock.lead_s += 50
    assert calendar.now_s() == 1550  # put right
    clock.lead_s -= 3600
    assert calendar.now_s() == -2050  # set back: at once
    clock.lead_s = 1e9
    for at_s in (1000.0, 50_000.0, 87_399.0):
        clock.at_s = at_s
        assert calendar.now_s() == at_s + 500
    clock.lead_s = 500
    assert calendar.now_s() == 87_899  # it was a mistake
    clock.lead_s = 1e9
    for at_s, now_s in ((90_000.0, 90_500), (176_399.0, 176_899), (176_400.0, 1_000_176_400)):
        clock.at_s = at_s
        assert calendar.now_s() == now_s


# --- in the writer --------------------------------------------------------------------------------------------------


def put(handler: BatchFileHandler, *created_s: float) -> None:
    """Write a record for each time, one after the other; its id is the time it is logged at."""
    for one in created_s:
        handler.emit(logging.makeLogRecord({"msg": "m", "record_id": str(one), "created": one}))


def times_in(log: Path) -> list[list[float]]:
    """Return for each file, oldest first, the times of its records in its order."""
    return [[float(record["record_id"]) for record in read_lines(file)] for file in log_files(log)]


@pytest.fixture
def daily(log_path: Path) -> Iterator[BatchFileHandler]:
    """Make a writer with a file for each day in UTC."""
    made = BatchFileHandler(log_path, durability="memory", when="midnight", utc=True, max_retries=0)
    yield made
    made.close()


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that sets the clock that the writer asks."""

    def set_it(now_s: float) -> None:
        monkeypatch.setattr(_shared_file, "time", types.SimpleNamespace(time=lambda: now_s, monotonic=time.monotonic))

    return set_it


MONDAY, TUESDAY, WEDNESDAY = (at(f"2025-11-0{day}T00:00") for day in (3, 4, 5))


def test_file_is_over_with_the_period_of_its_first_record(log_path: Path, daily: BatchFileHandler):
    """The last microsecond of a day belongs to it; the first of the next begins a new file."""
    put(daily, MONDAY + 40_000, TUESDAY - 0.000001, TUESDAY, TUESDAY + 5, WEDNESDAY + 1)

    assert times_in(log_path) == [
        [MONDAY + 40_000, TUESDAY - 0.000001],
        [TUESDAY, TUESDAY + 5],
        [WEDNESDAY + 1],
    ]
    assert daily.get_stats()["rotations"] == 2


@pytest.mark.parametrize("when", UNITS)
@pytest.mark.parametrize("interval", [1, 3])
def test_file_of_a_fixed_length_begins_with_its_first_record(log_path: Path, when: str, interval: int):
    """With S, M, H and D a file holds so much time from its first record on; a pause makes no empty files."""
    length_s = UNITS[when] * interval
    begin_s, later_s = MONDAY + 0.25, MONDAY + 0.25 + 10 * length_s
    handler = BatchFileHandler(log_path, durability="memory", when=when, interval=interval)
    put(handler, begin_s, begin_s + length_s - 0.001, begin_s + length_s, later_s, later_s + length_s - 0.001)
    handler.close()

    assert times_in(log_path) == [
        [begin_s, begin_s + length_s - 0.001],
        [begin_s + length_s],
        [later_s, later_s + length_s - 0.001],
    ]


def test_local_days_are_those_of_the_machine(log_path: Path, live_in: Callable[[str], None]):
    """Without `utc` a day ends at the machine's midnight, in a week with a change of the clocks too."""
    live_in(EUROPE)
    handler = BatchFileHandler(log_path, durability="memory", when="midnight")
    days = [
        [local(f"2025-10-{day}T00:00"), local(f"2025-10-{day}T02:30", fold=1), local(f"2025-10-{day}T23:59:59")]
        for day in (25, 26, 27)
    ]
    put(handler, *(moment for day in days for moment in day))
    handler.close()

    assert times_in(log_path) == days


@pytest.mark.parametrize("mtime", [MONDAY - 9 * DAY_S, TUESDAY + 500])
def test_period_is_known_to_whoever_opens_the_file_whatever_its_own_times_say(log_path: Path, mtime: float):
    """A process started later, after a copy or a touch, sees the same period: it is written in the first record."""
    for moments in ([MONDAY + 1], [MONDAY + 2], [TUESDAY + 1], [TUESDAY + 2]):
        handler = BatchFileHandler(log_path, durability="memory", when="midnight", utc=True)
        put(handler, *moments)
        handler.close()
        os.utime(log_path, (mtime, mtime))

    assert times_in(log_path) == [[MONDAY + 1, MONDAY + 2], [TUESDAY + 1, TUESDAY + 2]]


def test_block_that_crosses_midnights_is_split_at_them(log_path: Path, daily: BatchFileHandler):
    """A backlog of several days, written at once, stands in one file for each day."""
    days = [[day + second for second in (0, 1, 40_000, DAY_S - 1)] for day in (MONDAY, TUESDAY, WEDNESDAY)]
    put(daily, MONDAY)
    with daily.batch():
        put(daily, *days[0][1:], *days[1], *days[2])

    assert times_in(log_path) == days
    assert daily.get_stats()["pending"] == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(seconds=st.lists(st.integers(0, 5 * DAY_S), min_size=1, max_size=30), cut=st.integers(0, 30))
def test_any_backlog_in_order_stands_in_a_file_for_each_day(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], cut: int
):
    """However records of several days are spread over two writes, each file holds exactly its day's."""
    log = tmp_path_factory.mktemp("any") / "log.jsonl"
    moments = [MONDAY + second for second in sorted(seconds)]
    handler = BatchFileHandler(log, durability="memory", when="midnight", utc=True)
    for half in (moments[:cut], moments[cut:]):
        with handler.batch():
            put(handler, *half)
    handler.close()

    assert [*chain(*times_in(log))] == moments
    for day in times_in(log):
        assert len({moment // DAY_S for moment in day}) == 1
    assert len(times_in(log)) == len({moment // DAY_S for moment in moments})


def test_late_line_of_yesterday_stays_in_todays_file(log_path: Path, daily: BatchFileHandler):
    """A record that was long on its way opens no old file again and begins no new one."""
    put(daily, MONDAY + 5, TUESDAY + 5, MONDAY + 6, TUESDAY + 6)
    with daily.batch():
        put(daily, MONDAY + 7, TUESDAY + 7, MONDAY + 8)

    assert times_in(log_path) == [
        [MONDAY + 5],
        [TUESDAY + 5, MONDAY + 6, TUESDAY + 6, MONDAY + 7, TUESDAY + 7, MONDAY + 8],
    ]


def test_late_line_at_the_end_of_a_block_that_is_split_is_there_once(log_path: Path, daily: BatchFileHandler):
    """What comes behind the split goes into the new file, in the order in which it was logged."""
    with daily.batch():
        put(daily, MONDAY + 5, TUESDAY + 5, MONDAY + 6, WEDNESDAY + 5, MONDAY + 7)

    assert times_in(log_path) == [[MONDAY + 5], [TUESDAY + 5, MONDAY + 6], [WEDNESDAY + 5, MONDAY + 7]]


def test_two_writers_on_one_file_change_days_once(log_path: Path):
    """Whoever comes first after midnight rotates; the other one notices and does not."""
    writers = [BatchFileHandler(log_path, durability="memory", when="midnight", utc=True) for _ in range(2)]
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        for second in range(3):
            for number, one in enumerate(writers):
                put(one, day + second + number / 2)
    for one in writers:
        one.close()

    assert times_in(log_path) == [[day + half / 2 for half in range(6)] for day in (MONDAY, TUESDAY, WEDNESDAY)]
    assert sum(one.get_stats()["rotations"] for one in writers) == 2


def test_size_and_time_both_end_a_file(log_path: Path):
    """With both set, whichever comes first begins the new file."""
    handler = BatchFileHandler(log_path, durability="memory", when="midnight", utc=True, max_bytes=1500)
    put(handler, *(day + second for day in (MONDAY, TUESDAY) for second in range(20)))
    handler.close()

    assert all(file.stat().st_size <= 1500 for file in log_files(log_path))
    assert all(len({moment // DAY_S for moment in file}) == 1 for file in times_in(log_path))
    assert len([*chain(*times_in(log_path))]) == 40


def test_file_begun_under_a_clock_years_ahead_is_rotated_once(
    log_path: Path, daily: BatchFileHandler, set_clock: Callable[[float], None]
):
    """Once the clock is right again nobody waits until 2040, and the file after that one is an ordinary one."""
    ahead = at("2040-06-01T12:00")
    set_clock(ahead)
    put(daily, ahead, ahead + 1)
    set_clock(TUESDAY)
    put(daily, TUESDAY, TUESDAY + 1, TUESDAY + 2)

    assert times_in(log_path) == [[ahead, ahead + 1], [TUESDAY, TUESDAY + 1, TUESDAY + 2]]


@pytest.mark.parametrize("when", [*UNITS, "midnight", "W0"])
@pytest.mark.parametrize("begin", ["2025-11-04T12:00", "2025-11-04T23:50"])
def test_clock_an_hour_back_does_not_rotate(log_path: Path, set_clock: Callable[[float], None], when: str, begin: str):
    """A clock that is put back for a while makes no new file: the records join those that were there."""
    handler = BatchFileHandler(log_path, durability="memory", when=when, utc=True)
    set_clock(at(begin))
    put(handler, at(begin))
    set_clock(at(begin) - 3600)
    put(handler, at(begin) - 3600, at(begin) - 3599.5)
    handler.close()

    assert len(log_files(log_path)) == 1


def test_file_of_a_clock_in_1972_is_over_when_the_clock_is_right(
    log_path: Path, daily: BatchFileHandler, set_clock: Callable[[float], None]
):
    """A machine that wakes up in 1972 has files by its own days, and begins a new one when it learns the time."""
    then = at("1972-03-01T12:00")
    set_clock(then)
    put(daily, then, then + 1, then + DAY_S)
    set_clock(TUESDAY)
    put(daily, TUESDAY, TUESDAY + 1)

    assert times_in(log_path) == [[then, then + 1], [then + DAY_S], [TUESDAY, TUESDAY + 1]]


def test_days_of_2040_follow_each_other(log_path: Path, daily: BatchFileHandler, set_clock: Callable[[float], None]):
    """Behind the end of 32-bit time a day is a day."""
    begin = at("2040-02-28T12:00")
    for moment in (begin, begin + DAY_S, begin + DAY_S + 1, begin + 2 * DAY_S):
        set_clock(moment)
        put(daily, moment)

    assert times_in(log_path) == [[begin], [begin + DAY_S, begin + DAY_S + 1], [begin + 2 * DAY_S]]


@pytest.mark.parametrize(("mtime", "files"), [(MONDAY + 5, 2), (TUESDAY + 5, 1)])
@pytest.mark.parametrize("first", [b'{"a":1}\n', b"\n", b"no JSON\n", b"\xff\n", b'{"unix_timestamp":"today"}\n'])
def test_first_line_that_says_no_time_leaves_it_to_the_files_last_change(
    log_path: Path, daily: BatchFileHandler, mtime: float, files: int, first: bytes
):
    """A file that begins with somebody else's line is over when the period of its last change is."""
    log_path.write_bytes(first)
    os.utime(log_path, (mtime, mtime))
    put(daily, TUESDAY + 10, TUESDAY + 11)
    daily.close()

    assert len(log_files(log_path)) == files
    assert log_files(log_path)[0].read_bytes().startswith(first)


def test_time_inside_a_callers_text_is_not_the_records(log_path: Path, daily: BatchFileHandler):
    """What a caller writes into a field in front of the time is no time."""
    trick = '","unix_timestamp":1,"x":"'
    for second in range(3):
        daily.emit(logging.makeLogRecord({"msg": "m", "record_id": f"{trick}{second}", "created": TUESDAY + second}))

    assert len(log_files(log_path)) == 1
    assert [record["unix_timestamp"] for record in read_lines(log_path)] == [TUESDAY, TUESDAY + 1, TUESDAY + 2]


def test_log_that_somebody_emptied_has_the_period_of_its_new_first_record(log_path: Path, daily: BatchFileHandler):
    """Nobody goes by the first record that is no longer there, and rotates today's file as if it were Monday's."""
    put(daily, MONDAY)
    put(daily, MONDAY + 1)
    os.truncate(log_path, 0)
    put(daily, TUESDAY, TUESDAY + 1, TUESDAY + 2)

    assert times_in(log_path) == [[TUESDAY, TUESDAY + 1, TUESDAY + 2]]


def test_new_log_that_got_a_deleted_ones_number_has_its_own_period(log_path: Path, daily: BatchFileHandler):
    """File systems give the number of a deleted file to the next one: that one is another file all the same."""
    put(daily, MONDAY, MONDAY + 1)
    number = log_path.stat().st_ino
    daily.close()
    log_path.unlink()
    put(daily, TUESDAY)
    if log_path.stat().st_ino != number:
        pytest.skip("this file system gave the new log another number")
    put(daily, TUESDAY + 1, TUESDAY + 2)

    assert times_in(log_path) == [[TUESDAY, TUESDAY + 1, TUESDAY + 2]]


def test_log_that_may_not_be_renamed_takes_a_backlog_of_several_days_whole(
    log_path: Path, daily: BatchFileHandler, monkeypatch: pytest.MonkeyPatch
):
    """Rotation by time that is refused costs the new file, never a record."""

    def refuse(*_: str) -> None:
        raise PermissionError(13, "refused")

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    moments = [day + second for day in (MONDAY, TUESDAY, WEDNESDAY) for second in range(3)]
    with daily.batch():
        put(daily, *moments)

    assert times_in(log_path) == [moments]
    assert daily.get_stats()["pending"] == 0
    assert "refused" in str(daily.get_stats()["last_error"])


@pytest.mark.parametrize(("now", "is_over"), [(TUESDAY - 1, False), (TUESDAY, True)])
def test_should_rollover_says_what_the_next_record_would_find(
    daily: BatchFileHandler, set_clock: Callable[[float], None], now: float, is_over: bool
):
    """concurrent-log-handler's question has our answer."""
    set_clock(MONDAY)
    assert daily.shouldRollover() is False
    put(daily, MONDAY)
    set_clock(now)

    assert daily.shouldRollover() is is_over
