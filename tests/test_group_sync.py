"""One sync for all that wait for one, and nobody told by a sync that began before his write."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ai_response_logging._group_sync import GroupSync

LIMIT_S = 15.0


class Disk:
    """A disk whose syncs begin and end when the test says so."""

    def __init__(self) -> None:
        self.stored = self.syncs = 0
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: OSError | None = None
        self.group = GroupSync(self.sync)

    def store(self) -> int:
        """Store one more line and return its number."""
        self.stored += 1
        return self.stored - 1

    def sync(self) -> int:
        """Make durable what was stored before."""
        durable = self.stored
        self.begun.release()
        assert self.may_end.acquire(timeout=LIMIT_S)
        self.syncs += 1
        if self.error is not None:
            raise self.error
        return durable

    def in_row(self, count: int) -> bool:
        """Wait until *count* threads wait for the next sync."""
        pause = threading.Event()
        return any(len(self.group._waiting) >= count or pause.wait(0.01) for _ in range(int(LIMIT_S * 100)))


@pytest.fixture
def disk() -> Disk:
    """Return a disk on which nothing is stored."""
    return Disk()


@pytest.fixture
def start() -> Iterator[Callable[..., threading.Thread]]:
    """Return what runs a function in a thread, which is joined at the end."""
    threads: list[threading.Thread] = []

    def start(work: Callable[..., object], *args: object) -> threading.Thread:
        threads.append(threading.Thread(target=work, args=args))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_sync_that_began_before_a_write_tells_nobody_of_it(disk: Disk, start: Callable[..., threading.Thread]):
    """At `power` a record is acknowledged only by a sync that began after its write."""
    told: list[int] = []

    def log() -> None:
        seq = disk.store()
        assert disk.group.wait(seq)
        told.append(seq)

    first = start(log)
    assert disk.begun.acquire(timeout=LIMIT_S)
    start(log)
    assert disk.in_row(1)
    disk.may_end.release()
    first.join(LIMIT_S)
    assert disk.begun.acquire(timeout=LIMIT_S)  # the second needs a sync of its own, and has not been told yet
    assert told == [0]
    disk.may_end.release()


def test_all_that_wait_share_one_sync(disk: Disk, start: Callable[..., threading.Thread]):
    """Group commit: however many threads came during one sync, the next one serves them all."""

    def log() -> None:
        assert disk.group.wait(disk.store())

    start(log)
    assert disk.begun.acquire(timeout=LIMIT_S)
    others = [start(log) for _ in range(20)]
    assert disk.in_row(20)
    for _ in range(2):
        disk.may_end.release()
    for other in others:
        other.join(LIMIT_S)

    assert disk.syncs == 2


def test_sync_that_fails_is_told_to_each_by_its_own_attempt(disk: Disk):
    """No thread takes another's failed sync for its own success, and none sleeps on."""
    disk.error = OSError(errno.EIO, "no more")
    for _ in range(9):
        disk.may_end.release()
    with ThreadPoolExecutor(9) as pool:
        failed = [pool.submit(disk.group.wait, disk.store()) for _ in range(9)]
        errors = [one.exception(LIMIT_S) for one in failed]

    assert [type(error) for error in errors] == [OSError] * 9


def test_line_that_nobody_has_stored_is_not_durable(disk: Disk):
    """Whoever asks for a line that the journal had no room for is told so, and does not wait for ever."""
    disk.may_end.release()

    assert not disk.group.wait(7)


def test_call_in_the_middle_of_ones_own_sync_makes_its_own(disk: Disk):
    """A signal handler that logs while its thread syncs waits neither for itself nor for a sync that is too old."""
    sync, told = disk.sync, []

    def interrupted() -> int:
        disk.group._sync = sync  # once
        durable = disk.stored
        told.append(disk.group.wait(disk.store()))
        return durable

    disk.group._sync = interrupted
    disk.may_end.release()

    assert disk.group.wait(disk.store())
    assert told == [True]
    assert disk.group.durable_seq == 2


def test_exception_thrown_into_the_one_who_leads_leaves_the_others_a_leader(
    disk: Disk, start: Callable[..., threading.Thread]
):
    """A Ctrl-C in the middle of a sync neither keeps the turn nor lets those who wait sleep on."""

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            disk.group.wait(disk.store())

    def interrupted() -> int:
        disk.group._sync = disk.sync
        disk.begun.release()
        assert disk.may_end.acquire(timeout=LIMIT_S)
        raise KeyboardInterrupt

    disk.group._sync = interrupted
    start(lead)
    assert disk.begun.acquire(timeout=LIMIT_S)
    told: list[bool] = []
    other = start(lambda: told.append(disk.group.wait(disk.store())))
    assert disk.in_row(1)
    for _ in range(2):
        disk.may_end.release()
    other.join(LIMIT_S)

    assert told == [True]
