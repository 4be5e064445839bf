"""What two processes find that meet: a log with old files, large texts, and, or not, what a killed writer left."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from injector.scenarios import World, die_at_append

__all__ = ["GROUNDS", "KEPT", "OLD", "TEXT"]

TEXT: Final = "y" * 40_000
"""A text of bob's and of ann's, and of whoever logs it again; its file was used long ago."""
_OLDEST: Final = 5
OLD: Final = tuple(f"old-{number}" for number in range(_OLDEST))
"""The records in the oldest files, one each, of which ``backup_count`` may delete as many as are rotated meanwhile."""
KEPT: Final = _OLDEST + 2
"""How many old files there are."""
_TEXT_OF_BOB: Final = "z" * 40_000
_INLINE: Final[dict[str, Any]] = {"max_inline_bytes": 2000}
_STAMP: Final = "20260101T00000{}.000000Z"
_HOUR_S: Final = 3600


def _files(world: World) -> None:
    """Leave old files, compressed and plain, the log, and two texts; every second record is bob's."""
    world.prefix = "old"
    for number in range(_OLDEST + 3):
        handler = world.open(**_INLINE)
        world.record(handler, user_id="ann" if number % 2 else "bob")
        if number >= _OLDEST:
            world.record(handler, user_id="bob")
            world.record(handler, user_id="ann")
        if number == _OLDEST + 1:
            world.record(handler, response=TEXT, user_id="bob")
            world.record(handler, response=_TEXT_OF_BOB, user_id="bob")
        world.end(handler)
        if number < _OLDEST + 2:  # the last one stays the log
            _put_aside(world.log, number)
    long_ago_s = time.time() - _HOUR_S
    for text in Path(f"{world.log}.blobs").rglob("*"):
        if text.is_file():
            os.utime(text, (long_ago_s, long_ago_s))


def _put_aside(log: str, number: int) -> None:
    rotated = Path(f"{log}.{_STAMP.format(number)}")
    os.rename(log, rotated)
    if number < _OLDEST - 1:
        Path(f"{rotated}.gz").write_bytes(gzip.compress(rotated.read_bytes()))
        rotated.unlink()


def _calm(world: World) -> None:
    _files(world)


def _orphaned(world: World) -> None:
    """Two were killed in the middle of an append that the log holds whole, or to a half: of neither is that noted."""
    _files(world)
    journal, aside = f"{world.log}.journal", f"{world.log}.aside"
    world.more = {"user_id": "ann"}
    world.fork(lambda: die_at_append(world, 4, "dead"))
    os.rename(journal, aside)  # or the next one would bring it home
    world.more = {"user_id": "bob"}
    world.fork(lambda: die_at_append(world, 2, "gone"))
    for name in os.listdir(aside):
        os.rename(os.path.join(aside, name), os.path.join(journal, name))
    os.rmdir(aside)


GROUNDS: Final[dict[str, Callable[[World], None]]] = {"calm": _calm, "orphaned": _orphaned}
