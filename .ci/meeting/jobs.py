"""What a process does that meets another on the same log: every feature that touches a log's files."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from injector.scenarios import World
from typer.testing import CliRunner

from ai_response_logging import forget as forgetting
from ai_response_logging.cli import app
from ai_response_logging.convert import convert_log
from ai_response_logging.errors import LogReadError, WriteError
from ai_response_logging.follow import Follower
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log

from .grounds import KEPT, TEXT

__all__ = ["JOBS", "SHORT", "Guest", "Job"]

SHORT: Final[dict[str, Any]] = {
    "close_timeout": 0.2, "lock_timeout": 0.05, "caller_timeout": 0.05, "max_retries": 1, "retry_delay": 0.001
}  # fmt: skip
"""Whoever is held may have a lock, and then the other one gives up soon."""
_BOB: Final = forgetting.Selector(user_id="bob")
_EVERYTHING: Final = 1_000_000
_LOOKS: Final = 40


class Guest(World):
    """
    One of the two, which knows what it need not find.

    Args:
        may_miss: Says of a record whether a reader may be without it, because the other one takes it out.
        may_lack: Whether what stands before a number may be gone, because the other one deletes old files.
        notes: Where both note their records, and all that were there before are noted.
    """

    def __init__(
        self, folder: str, notes: str, prefix: str, may_miss: Callable[[str], bool], *, may_lack: bool = False
    ) -> None:
        self.notes = notes
        super().__init__(folder, os.open(notes, os.O_WRONLY | os.O_APPEND), SHORT, is_checked=True)
        self.prefix, self.may_miss, self.may_lack = prefix, may_miss, may_lack

    def accepted(self) -> set[str]:
        """Return the records whose calls have returned by now, and that a reader must show."""
        words = [line.split() for line in Path(self.notes).read_text("utf-8").splitlines()]
        return {one[1] for one in words if one[0] == "record" and one[2] != "failed" and not self.may_miss(one[1])}

    def expect(self, wanted: set[str], shown: Iterable[str]) -> None:
        """Note a problem where a wanted record was not shown, or any twice."""
        counts = Counter(shown)
        missed, twice = sorted(wanted - counts.keys()), sorted(one for one, count in counts.items() if count > 1)
        if missed or twice:
            self.note("problem", f"{self.prefix}: not shown {missed}, shown twice {twice}")


# -- writers


def _log(world: Guest, size: int = 60, **options: Any) -> None:
    handler = world.open(batch_size=2, **options)
    world.record(handler, 2, size)
    handler.flush()
    world.record(handler, 2, size)
    world.end(handler)


def _log_one_by_one(world: Guest) -> None:
    handler = world.open(flush_interval=0)
    world.record(handler, 3)
    world.end(handler)


def _log_through_full_queue(world: Guest) -> None:
    handler = world.open(queue_max_size=2)
    world.record(handler, 5)
    world.end(handler)


def _log_segments(world: Guest) -> None:
    handler = world.open()
    for _ in range(2):
        world.record(handler, 2, size=600_000)
        handler.flush()
    world.record(handler)
    world.end(handler)


def _log_text(world: Guest) -> None:
    handler = world.open(max_inline_bytes=2000)
    world.record(handler, response=TEXT)
    world.end(handler)


def _close_twice(world: Guest) -> None:
    handler = world.open()
    world.record(handler)
    world.end(handler)
    world.record(handler)
    world.end(handler)


def _fork(world: Guest) -> None:
    handler, name = world.open(), f"{world.prefix}c"
    world.record(handler)

    def child() -> None:
        world.prefix = name
        world.record(handler, 2)
        world.end(handler)

    world.fork(child)
    world.record(handler)
    world.end(handler)


def _open_and_close(world: Guest) -> None:
    handler = AIResponseHandler(world.log, flush_interval=1000.0, **SHORT)
    handler.flush()
    handler.close()


# -- those that change what is there


def _forget(world: Guest) -> None:
    vars(forgetting).update(_LOCK_TIMEOUT_S=0.02, _PAUSE_S=0.02)
    # One that meets a lock tells so, and is completed by the next.
    with contextlib.suppress(WriteError):
        forgetting.forget(world.log, _BOB, wait_s=0.1)


def _replay(world: Guest) -> None:
    CliRunner().invoke(app, ["replay", "--file", world.log])


def _rename_as_logrotate(world: Guest) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{world.log}.1", f"{world.log}.2")
    with contextlib.suppress(FileNotFoundError):
        os.rename(world.log, f"{world.log}.1")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(world.log, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


# -- those that read


def _read(world: Guest) -> None:
    wanted = world.accepted()
    bad: list[object] = []
    with _may_be_moving(world):
        world.expect(wanted, _ids(read_log(world.log, on_bad=bad.append)))
    if bad:
        world.note("problem", f"{world.prefix}: a reader met {bad}")


def _verify(world: Guest) -> None:
    with _may_be_moving(world):
        report = verify_log(world.log)
        found = [one for one in report.problems if not (world.may_lack and is_deleted(one.kind, one.detail))]
        if found:
            world.note("problem", f"{world.prefix}: verify tells of {found}".replace("\n", " "))


def _convert(world: Guest) -> None:
    wanted = world.accepted()
    out = os.path.join(world.folder, f"converted-{world.prefix}.jsonl")
    with _may_be_moving(world):
        done = convert_log(world.log, out)
        world.expect(wanted, _ids(read_log(out)))
        if not done.is_proven or done.bad_lines:
            world.note("problem", f"{world.prefix}: converted {done.to_dict()}")


def _follow(world: Guest) -> None:
    wanted, bad = world.accepted(), []
    shown: list[str] = []
    with Follower(world.log, lambda *what: bad.append(what)) as follower:
        with _may_be_moving(world):
            shown += _ids(follower.newest(_EVERYTHING, lambda _: True))
        for number in range(_LOOKS):
            wanted |= world.accepted()
            with _may_be_moving(world):
                shown += _ids(follower.look())
            if number > 2 and wanted <= {*shown}:  # noqa: PLR2004  some, to be held in
                break
    world.expect(wanted, shown)
    if bad:
        world.note("problem", f"{world.prefix}: who follows met {bad}")


def _ids(records: Iterable[dict[str, Any]]) -> list[str]:
    return [record["record_id"] for record in records if record.get("event") != "forgotten"]


def is_deleted(kind: str, detail: str) -> bool:
    """Say whether a problem of `verify` is one of old files that were deleted as somebody wished."""
    return kind == "gap" and "removed by backup_count" in detail


def _may_be_moving(world: Guest) -> contextlib.AbstractContextManager[None]:
    """Let a reader say that it could not keep up, where the other one deletes files."""
    return contextlib.suppress(LogReadError) if world.may_lack else contextlib.nullcontext()


class Job(NamedTuple):
    """What one of the two does."""

    name: str
    play: Callable[[Guest], None]
    is_reader: bool = False
    forgets: bool = False
    deletes: bool = False
    is_in_memory: bool = False
    """What it has logged no other process need find before it is in the log."""
    packs: bool = False
    """It compresses old files; what its end leaves half done, the next one who does so ends."""
    is_variant: bool = False
    """One more way to log: it meets those that change files, and no other way to log."""
    is_stranger: bool = False
    """None of ours: two of them lose what they like."""
    fills_files: bool = False
    """So many files that of those that are deleted nobody can tell which should be there."""

    def meets(self, other: Job) -> bool:
        """Say whether a meeting could show anything: one at least changes something."""
        pairs = (
            (self.is_reader, other.is_reader),
            (self.is_variant, other.is_variant),
            (self.is_stranger, other.is_stranger),
            (self.fills_files, other.deletes),
            (self.deletes, other.fills_files),
        )
        return not any(map(all, pairs))


_FULL: Final[dict[str, Any]] = {"max_bytes": 3500, "size": 600}  # so that two meet few rotations

JOBS: Final = {
    job.name: job
    for job in (
        Job("log", _log),
        Job("log-memory", lambda world: _log(world, durability="memory"), is_variant=True, is_in_memory=True),
        Job("log-power", lambda world: _log(world, durability="power"), is_variant=True),
        Job("one-by-one", _log_one_by_one, is_variant=True),
        Job("full-queue", _log_through_full_queue, is_variant=True),
        Job("segments", _log_segments, is_variant=True, fills_files=True),
        Job("text", _log_text),
        Job("close-twice", _close_twice, is_variant=True),
        Job("fork", _fork, is_variant=True),
        Job("rotate", lambda world: _log(world, **_FULL)),
        Job("compress", lambda world: _log(world, compress=True, **_FULL), packs=True),
        Job("delete", lambda world: _log(world, backup_count=KEPT, **_FULL), deletes=True),
        Job(
            "delete-packed",
            lambda world: _log(world, backup_count=KEPT, compress=True, **_FULL),
            deletes=True,
            packs=True,
        ),
        Job("adopt", _open_and_close),
        Job("replay", _replay),
        Job("forget", _forget, forgets=True),
        Job("logrotate", _rename_as_logrotate, is_stranger=True),
        Job("read", _read, is_reader=True),
        Job("verify", _verify, is_reader=True),
        Job("convert", _convert, is_reader=True),
        Job("follow", _follow, is_reader=True),
    )
}
