"""A wall clock that somebody sets, in a real process, while it logs: only what is written as a time may change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _children import Notes, assert_kept, holding_the_lock, run_or_skip, writer
from helpers import has_gcc, log_files, read_lines

from ai_response_logging import read_log
from ai_response_logging.record import new_writer_id, uuid7
from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_gcc]

SHIM = Path(__file__).with_name("clock.c")
HOUR_S, DAY_S = 3600, 86_400
IN_2040_S = 14 * 365 * DAY_S
# As clock.c reads them.
JUMPS = {
    "an hour back": f"-{HOUR_S}",
    "a day ahead": f"+{DAY_S}",
    "1972": f"-{54 * 365 * DAY_S}",
    "2040": f"+{IN_2040_S}",
    "stands still": f"={int(time.time())}",
    "stands still in 1972": "=63072000",
}
AT_ONCE = {"batch_size": 3, "flush_interval": 0.02}
DST = "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim that gives a process a clock of its own; see there."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    run_or_skip("gcc", "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl")
    return library


class Clock:
    """The wall clock of a test's children."""

    def __init__(self, library: Path, file: Path) -> None:
        self.env = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(file)}
        self._file = file

    def set(self, what: str) -> None:
        """Set it, at once and in one step; see clock.c for *what*."""
        new = self._file.with_suffix(".new")
        new.write_text(what, "ascii")
        new.rename(self._file)


@pytest.fixture
def clock(clock_library: Path, tmp_path: Path) -> Clock:
    """Return the clock of this test's children, which is right until it is set."""
    return Clock(clock_library, tmp_path / "clock")


def times_of(log: Path) -> list[float]:
    """Return the times of all records, in the order of a reader."""
    return [record["unix_timestamp"] for record in read_log(log)]


def ids_of(log: Path) -> list[str]:
    """Return the records, in the order of a reader."""
    return [record["record_id"] for record in read_log(log)]


@pytest.mark.usefixtures("durability")
@pytest.mark.parametrize("jump", JUMPS)
def test_clock_that_is_set_in_mid_run_loses_nothing_and_stops_nobody(
    log_path: Path, notes: Notes, clock: Clock, jump: str
):
    """The listener brings home what waits by itself, before, after, and when the clock is right again."""
    with writer(log_path, notes, env=clock.env, **AT_ONCE) as one:
        for number, setting in enumerate(["", JUMPS[jump], "", JUMPS[jump]]):
            clock.set(setting)
            one.log(f"r{number}", 4)  # one more than a batch: only the interval brings the last
            assert one.ask("all_home")
        one.end()

    assert_kept(log_path, notes)
    assert verify_log(log_path).whole
    times = times_of(log_path)
    assert abs(times[4] - times[0]) > HOUR_S / 2 or jump == "stands still"  # the clock was really set


@pytest.mark.parametrize("jump", JUMPS)
def test_clock_that_is_set_while_somebody_waits_makes_no_wait_longer(
    log_path: Path, notes: Notes, clock: Clock, jump: str
):
    """The budget of a flush, the wait for the lock and the pauses go by the clock that nobody sets."""
    with writer(log_path, notes, env=clock.env, max_retries=2, lock_timeout=0.2) as one:
        one.log("first")
        with holding_the_lock(log_path):
            one.send("flush", 0.6)
            clock.set(JUMPS[jump])
            assert one.answer() is False
            one.send("flush", 0.6)
            clock.set("")
            assert one.answer() is False
        clock.set(JUMPS[jump])
        assert one.ask("flush", 10)
        one.end()

    assert_kept(log_path, notes)


TO_AND_FRO = ["", *(setting for jump in JUMPS.values() for setting in (jump, ""))]


@pytest.mark.parametrize("limit", [{"backup_count": 3}, {"max_total_bytes": 8000}, {"retain_days": 1}])
def test_retention_deletes_the_oldest_whatever_the_clock_says(
    log_path: Path, notes: Notes, clock: Clock, limit: dict[str, int]
):
    """Under a clock that is set to and fro what stays is the newest, in the order in which it was logged."""
    with writer(log_path, notes, env=clock.env, max_bytes=2000, **limit) as one:
        for number, setting in enumerate(TO_AND_FRO):
            clock.set(setting)
            for part in range(3):
                one.log(f"r{number}-{part}", 2, 700)
                assert one.ask("flush")
                logged, left = notes.ids(), ids_of(log_path)
                assert left == logged[-len(left) :]
                assert len(left) == len(logged) if "retain_days" in limit else min(len(logged), 4) <= len(left) < 12
        one.end()

    assert verify_log(log_path).problem_counts.get("torn", 0) == 0


@pytest.mark.parametrize("when", ["S", "midnight"])
def test_rotation_by_time_under_a_clock_that_is_set_keeps_every_record_in_order(
    log_path: Path, notes: Notes, clock: Clock, when: str
):
    """No file too many, none without records, and readers see them as they were logged."""
    with writer(log_path, notes, env=clock.env, when=when, interval=5 if when == "S" else 1, utc=True) as one:
        for number, setting in enumerate(TO_AND_FRO):
            clock.set(setting)
            for part in range(2):
                one.log(f"r{number}-{part}", 3)
                assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)
    assert ids_of(log_path) == notes.ids()
    # At most one for each time that the clock was set, and one where the day, or five seconds, ended just then.
    assert len(log_files(log_path)) <= len(TO_AND_FRO) + 1
    assert all(read_lines(file) for file in log_files(log_path))


@pytest.mark.parametrize("moment", ["2026-03-29T00:59:59", "2026-10-25T00:59:59", "2026-10-24T22:59:59"])
def test_summer_time_that_begins_or_ends_in_mid_run_changes_nothing(
    log_path: Path, notes: Notes, clock: Clock, moment: str
):
    """Names and records are in UTC: the hour that comes twice, or not at all, is only on the wall."""
    start_s = int(time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))) - time.timezone
    with writer(log_path, notes, env={**clock.env, "TZ": DST}, when="midnight", max_bytes=2000) as one:
        for second in (0, 2, HOUR_S, HOUR_S + 2):
            clock.set(f"={start_s + second}")
            one.log(f"r{second}", 3, 700)
            assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)
    assert ids_of(log_path) == notes.ids()
    assert [round(one - start_s) for one in times_of(log_path)][::3] == [0, 2, HOUR_S, HOUR_S + 2]


@pytest.mark.parametrize("jump", JUMPS)
def test_writer_killed_under_one_clock_is_brought_home_under_another(
    log_path: Path, notes: Notes, clock: Clock, jump: str
):
    """What a dead writer left is taken over at once, whether its files are of 1972 or of tomorrow."""
    clock.set(JUMPS[jump])
    with writer(log_path, notes, env=clock.env) as dead:
        dead.log("left", 5)
        dead.process.kill()
        dead.process.wait()
    with writer(log_path, notes) as heir:
        heir.log("own", 2)
        heir.end()

    assert_kept(log_path, notes)
    assert not list(log_path.parent.glob("*.journal"))


@pytest.mark.parametrize("name", [uuid7, new_writer_id])
@pytest.mark.parametrize("now", [lambda: 0, lambda: time.monotonic_ns() * -1 % 10**18], ids=["frozen", "backwards"])
def test_ids_are_unique_under_any_clock(
    monkeypatch: pytest.MonkeyPatch, name: Callable[[], str], now: Callable[[], int]
):
    """The time in an id is for people and for sorting; its random bits make it one of a kind."""
    monkeypatch.setattr(time, "time_ns", now)
    count = 20_000

    assert len({name() for _ in range(count)}) == count
