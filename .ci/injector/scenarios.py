"""What a process does while a fault is injected: some records, by each way that a record can go."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ai_response_logging import _append
from ai_response_logging.handler import AIResponseHandler

from . import shim

__all__ = ["SCENARIOS", "Scenario", "World", "die_at_append"]

_LOST: Final = re.compile(r"(\d+) are lost when this process ends")
# Nothing happens by itself: each step that the listener makes is one that somebody asked for.
_OPTIONS: Final[dict[str, Any]] = {"flush_interval": 1000.0, "retry_delay": 0.001, "durability": "crash"}


class World:
    """
    One process and its log.

    Args:
        folder: All that the process touches lies in it.
        descriptor: Where it notes what became of its records; it outlives the process.
        options: For its handlers, on top of what a scenario says.
        is_checked: Whether the counters are added up after each call.
    """

    def __init__(self, folder: str, descriptor: int, options: dict[str, Any], *, is_checked: bool) -> None:
        self.folder, self.log = folder, os.path.join(folder, "logs", "log.jsonl")
        self.prefix = "p"
        self.more: dict[str, str] = {}  # fields of every record
        self._descriptor, self._options, self._is_checked = descriptor, options, is_checked
        self._count = 0
        # In a child of our own; which handler tells it does not matter.
        logging.Handler.handleError = lambda _, record: self._hear(record)  # type: ignore[method-assign, assignment]

    def _hear(self, record: logging.LogRecord) -> None:
        if told := _LOST.search(str(record.msg)):
            self.note("lost", told[1])

    def note(self, *words: str) -> None:
        """Note some words, in one write."""
        os.write(self._descriptor, " ".join(words).encode() + b"\n")

    def open(self, **options: Any) -> AIResponseHandler:
        """Return a handler on the log."""
        return AIResponseHandler(self.log, **{**_OPTIONS, **options, **self._options})

    def record(self, handler: AIResponseHandler, count: int = 1, size: int = 60, **more: str) -> None:
        """Log so many records, with *more* fields, and note each as soon as its call has returned."""
        for _ in range(count):
            record_id = f"{self.prefix}-{self._count}"
            fields = {"msg": "m", "record_id": record_id, "response": "x" * size, **self.more, **more}
            self.note("record", record_id, handler.submit(logging.makeLogRecord(fields)))
            self._count += 1
            self.check(handler)

    def check(self, handler: AIResponseHandler) -> None:
        """Add up the counters."""
        if not self._is_checked:
            return
        one = handler.get_stats()
        if one["accepted"] != one["written"] + one["written_sync"] + one["pending"] + one["failed"]:
            self.note("problem", f"the counters do not add up: {one}")
        if one["durability"] == "memory":
            self.note("memory")

    def end(self, handler: AIResponseHandler) -> None:
        """Close."""
        handler.close()
        self.check(handler)

    def fork(self, work: Callable[[], None]) -> None:
        """Do *work* in a child, whose records have names of their own, and wait for its end."""
        if pid := os.fork():
            os.waitpid(pid, 0)
            return
        try:
            self.prefix, self._count = "c", 0
            work()
        except BaseException as error:  # noqa: BLE001  nothing may come out of the child
            self.note("problem", f"a forked child raised {error!r}")
        finally:
            os._exit(0)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Let the log take nothing as long as the block lasts; its journal takes what it gets."""
        library = shim.library()
        library.shim_refuse(b"write", errno.ENOSPC)
        yield
        library.shim_refuse(None, 0)


class Scenario(NamedTuple):
    """What a process does, and what it finds."""

    name: str
    play: Callable[[World], None]
    prepare: Callable[[World], None] | None = None
    """What a process did that died before; its records are among those that must be there."""
    options: dict[str, Any] = {}  # noqa: RUF012  never changed
    """What whoever comes next uses as well."""


def _plain(world: World, **options: Any) -> None:
    handler = world.open(batch_size=3, **options)
    world.record(handler, 5)
    handler.flush()
    world.record(handler, 2)
    world.end(handler)


def _one_by_one(world: World) -> None:
    handler = world.open(flush_interval=0)
    world.record(handler, 4)
    world.end(handler)


def _full_queue(world: World) -> None:
    handler = world.open(queue_max_size=2)
    world.record(handler, 6)
    world.end(handler)


def _rotated(world: World) -> None:
    handler = world.open(max_bytes=700)
    world.record(handler, 3)
    handler.flush()
    world.record(handler, 3)
    world.end(handler)


def _compressed(world: World) -> None:
    handler = world.open(max_bytes=700, compress=True, backup_count=50)
    world.record(handler, 5)
    world.end(handler)


def _spilled(world: World) -> None:
    handler = world.open(queue_max_size=2, max_retries=0)
    with world.refusing():
        world.record(handler, 4)
    handler.flush()
    world.record(handler)
    world.end(handler)


def _refused_to_the_end(world: World) -> None:
    handler = world.open(max_retries=0, close_timeout=0.01)
    with world.refusing():
        world.record(handler, 3)
        world.end(handler)


def _closed_twice(world: World) -> None:
    handler = world.open()
    world.record(handler, 2)
    world.end(handler)
    world.record(handler, 2)
    world.end(handler)


def _forked(world: World) -> None:
    handler = world.open(batch_size=2)
    world.record(handler, 1)

    def child() -> None:
        world.record(handler, 2)
        world.end(handler)

    world.fork(child)
    world.record(handler, 1)
    world.end(handler)


def _large(world: World) -> None:
    handler = world.open()
    world.record(handler)
    world.record(handler, size=1_200_000)
    world.record(handler)
    world.end(handler)


def _segments(world: World, **options: Any) -> None:
    handler = world.open(**options)
    for _ in range(3):
        world.record(handler, 2, size=500_000)
        handler.flush()
    world.record(handler)
    world.end(handler)


def _elsewhere(world: World) -> None:
    handler = world.open(journal_directory=os.path.join(world.folder, "elsewhere"))
    world.record(handler, 3)
    world.end(handler)


def _adopt(world: World, **options: Any) -> None:
    handler = world.open(**options)
    world.record(handler)
    world.end(handler)


# -- what a process left that died


def die_at_append(world: World, lines: float, prefix: str = "old") -> None:
    """Log some records and die when so many *lines* of a block of four are in the log."""
    world.prefix = prefix

    def append(descriptor: int, block: bytes, *, path: str) -> None:  # noqa: ARG001  the one it stands for
        there = block.splitlines(keepends=True)
        whole, piece = there[: int(lines)], b"".join(there[int(lines) : int(lines) + 1])
        os.write(descriptor, b"".join(whole) + piece[: int(len(piece) * (lines % 1))])
        os.kill(os.getpid(), signal.SIGKILL)

    handler = world.open()
    world.record(handler, 2)
    handler.flush()
    world.record(handler, 4)
    _append.append_block = append
    handler.flush()


def _one_dead(world: World) -> None:
    die_at_append(world, 2.5)


def _two_dead(world: World) -> None:
    world.fork(lambda: die_at_append(world, 4, "old"))
    world.fork(lambda: die_at_append(world, 0, "older"))


def _dead_and_rotated(world: World) -> None:
    world.fork(lambda: die_at_append(world, 3))
    os.rename(world.log, f"{world.log}.20260101T000000.000000Z")
    Path(world.log).touch(0o600)


def _dead_and_torn(world: World) -> None:
    die_at_append(world, 0.3)


_SMALL: Final[dict[str, Any]] = {"max_bytes": 700}
_POWER: Final[dict[str, Any]] = {"durability": "power"}

SCENARIOS: Final = (
    Scenario("plain", _plain),
    Scenario("power", lambda world: _plain(world, **_POWER), options=_POWER),
    Scenario("power-rotated", lambda world: _plain(world, **_SMALL, **_POWER), options=_POWER),
    Scenario("one-by-one", _one_by_one),
    Scenario("full-queue", _full_queue),
    Scenario("rotated", _rotated, options=_SMALL),
    Scenario("compressed", _compressed, options={**_SMALL, "compress": True}),
    Scenario("spilled", _spilled),
    Scenario("refused", _refused_to_the_end),
    Scenario("closed-twice", _closed_twice),
    Scenario("forked", _forked),
    Scenario("large", _large),
    Scenario("segments", _segments),
    Scenario("power-segments", lambda world: _segments(world, **_POWER), options=_POWER),
    Scenario("elsewhere", _elsewhere),
    Scenario("adopt", _adopt, _one_dead),
    Scenario("power-adopt", lambda world: _adopt(world, **_POWER), _one_dead, _POWER),
    Scenario("adopt-torn", _adopt, _dead_and_torn),
    Scenario("adopt-two", _adopt, _two_dead),
    Scenario("adopt-rotating", lambda world: _adopt(world, **_SMALL), _one_dead, _SMALL),
    Scenario("adopt-rotated", _adopt, _dead_and_rotated),
    Scenario(
        "adopt-compressing",
        lambda world: _adopt(world, max_bytes=700, compress=True),
        _dead_and_rotated,
        {**_SMALL, "compress": True},
    ),
)
