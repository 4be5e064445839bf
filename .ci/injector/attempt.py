"""One injection: play a scenario with one fault in a forked child, open the log again in another, and judge."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from helpers import CHECKSUM, log_files, read_lines  # type: ignore[import-not-found]  # of the tests

import ai_response_logging
from ai_response_logging import errors
from ai_response_logging.handler import AIResponseHandler

from .scenarios import SCENARIOS, Scenario, World
from .shim import CALLS, Fault, library

__all__ = ["Outcome", "Point", "attempt", "count_points", "prepare", "warm"]

_PACKAGE: Final = os.path.dirname(ai_response_logging.__file__ or "")
_MODULES: Final = (
    "handler", "_pipeline", "_exit", "_queue", "_kept", "_prepared", "_journal", "_journal_space", "_journal_files",
    "_journal_place", "_adopt", "_append", "_rotate", "_shared_file", "_arrived", "_compress", "writer", "_caller",
    "_journalling", "listener",
)  # fmt: skip
_TRACED: Final = frozenset(os.path.join(_PACKAGE, f"{name}.py") for name in _MODULES)
_HANG_S: Final = 30.0  # a busy machine is not one that hangs
_SHORT: Final[dict[str, Any]] = {"close_timeout": 0.05, "lock_timeout": 0.02, "caller_timeout": 0.02, "max_retries": 1}
_IN_THE_CALL: Final = ("p", "c")  # whose next record may be there, since its call had not returned

Trace = Callable[[FrameType, str, Any], Any]


class Line(NamedTuple):
    """Killed before so many lines of ours have been executed."""

    at: int


Point = Line | Fault


class Outcome(NamedTuple):
    """What came of an injection."""

    fired: int
    where: str
    problem: str
    """Empty where all is well."""
    folder: str = ""
    """Kept where there is a problem."""


class _Notes:
    """What the processes of one run noted, before they ended or were killed."""

    def __init__(self, text: str) -> None:
        self.status: dict[str, str] = {}
        self.problems: list[str] = []
        self.lines = self.lost = 0
        self.at: list[str] = []
        self.is_memory = False
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "record":
                record_id, self.status[record_id] = rest.split()
            elif kind == "problem":
                self.problems.append(rest.replace("\x1f", "\n"))
            elif kind == "lines":
                self.lines = int(rest)
            elif kind == "lost":
                self.lost += int(rest)
            elif kind == "at":
                self.at.append(rest)
            elif kind == "memory":
                self.is_memory = True


def _in_child(work: Callable[[int], None]) -> tuple[int, str]:
    """Run *work* in a forked child; return its exit code and what it and its children wrote until all had ended."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setpgid(0, 0)
            os.close(read_end)
            work(write_end)
            code = 0
        except BaseException:  # noqa: BLE001  nothing may come out of the child
            os.write(write_end, b"problem " + traceback.format_exc().replace("\n", "\x1f").encode() + b"\n")
        finally:
            os._exit(code)
    os.close(write_end)
    pieces, give_up_s = [], time.monotonic() + _HANG_S
    # The end of the pipe, not of the child: its own children count as well.
    with open(read_end, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, give_up_s - time.monotonic()))[0]:
            if not (piece := pipe.read(1 << 16)):
                break
            pieces.append(piece)
        else:
            pieces.append(b"\nproblem a process hangs: " + _stacks_of(pid, pipe))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), b"".join(pieces).decode("utf-8", "replace")


def _stacks_of(pid: int, pipe: Any) -> bytes:
    """Return where the threads of a hanging child are, and end it and its children."""
    os.kill(pid, signal.SIGUSR1)
    text = b""
    while select.select([pipe], [], [], 0.5)[0] and (piece := pipe.read(1 << 16)):
        text += piece
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return text.replace(b"\n", b"\x1f") + b"\n"


# -- in the child


def _kill_at_line(at: int, note: Callable[..., None]) -> Callable[[], int]:
    """Kill this process before its *at*-th line of ours; return how to end that and learn how many there were."""
    count = itertools.count(1).__next__

    def each(frame: FrameType, event: str, _: Any) -> Trace:
        if event == "line" and count() == at:
            note("at", f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
            os.kill(os.getpid(), signal.SIGKILL)
        return each

    def enter(frame: FrameType, _event: str, _: Any) -> Trace | None:
        return each if frame.f_code.co_filename in _TRACED else None

    def stop() -> int:
        sys.settrace(None)
        threading.settrace(None)
        return count() - 1

    threading.settrace(enter)
    sys.settrace(enter)
    return stop


def _play(scenario: Scenario, point: Point, folder: str, descriptor: int) -> None:
    import faulthandler

    faulthandler.register(signal.SIGUSR1, descriptor)
    failing = point if isinstance(point, Fault) and not point.is_kill else None
    options = _SHORT if failing and failing.for_good else {}
    world = World(folder, descriptor, options, is_checked=failing is not None)
    if isinstance(point, Fault):
        point.begin(folder)
    else:
        library().shim_begin(os.fsencode(folder), None, 0, 0, 0, 0)
    stop = _kill_at_line(point.at, world.note) if isinstance(point, Line) else None
    try:
        scenario.play(world)
    except errors.ConfigError:
        if failing is None:
            raise
    if stop is not None:
        world.note("lines", str(stop()))
    library().shim_heal()
    if failing and not failing.for_good:
        _go_on(world, scenario)


def _go_on(world: World, scenario: Scenario) -> None:
    """Log on after the fault, without a restart, and close."""
    handler = world.open(**scenario.options)
    world.record(handler, 2)
    if not handler.flush(10.0):
        world.note("problem", f"a flush after the fault brought not all home: {handler.get_stats()['last_error']}")
    world.end(handler)


def _reopen(log: str, options: dict[str, Any], descriptor: int) -> None:
    library().shim_stop()
    handler = AIResponseHandler(log, close_timeout=_HANG_S, retry_delay=0.001, **options)
    is_home = handler.flush()
    handler.close()
    if not is_home:
        os.write(descriptor, f"problem {handler.get_stats()['last_error']}\n".encode())


# -- in the parent


def warm(base: str) -> None:
    """Load and look up here what each child would have to: it is a third of what an injection costs."""
    with tempfile.TemporaryDirectory(dir=base) as folder, open(os.devnull, "wb") as null:
        for scenario in SCENARIOS[:5]:
            scenario.play(World(folder, null.fileno(), {}, is_checked=False))
    gc.collect()
    gc.freeze()  # or each child copies every page that its collector looks at


def prepare(scenario: Scenario, folder: str) -> dict[str, str]:
    """Have a process die that leaves in *folder* what the scenario begins with; return the status of its records."""
    if scenario.prepare is None:
        return {}
    play = scenario.prepare

    def work(descriptor: int) -> None:
        library().shim_stop()
        play(World(folder, descriptor, {}, is_checked=False))

    notes = _Notes(_in_child(work)[1])
    if notes.problems or not notes.status:
        sys.exit(f"{scenario.name}: what it begins with could not be made: {notes.problems}")
    return notes.status


def count_points(scenario: Scenario, template: str) -> tuple[int, dict[str, int]]:
    """Return how many lines of ours a scenario executes without a fault, and how many of each call it makes."""
    # Two runs: a trace function is slow, and then threads take turns in another way.
    lines = _dry_run(scenario, Line(0), template).lines
    _dry_run(scenario, Fault("open", "before", 0), template)
    return lines, {call: library().shim_count(call.encode()) for call in CALLS}


def _dry_run(scenario: Scenario, point: Point, template: str) -> _Notes:
    with tempfile.TemporaryDirectory(dir=os.path.dirname(template)) as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        code, text = _in_child(lambda descriptor: _play(scenario, point, folder, descriptor))
    notes = _Notes(text)
    if code or notes.problems or not notes.status:
        sys.exit(f"{scenario.name}: it fails without any fault ({code}): {text}")
    return notes


def attempt(scenario: Scenario, point: Point, template: str, before: dict[str, str]) -> Outcome:
    """Inject one fault, and judge what is left. *before* is the status of the records that *template* holds."""
    folder = tempfile.mkdtemp(prefix="point-", dir=os.path.dirname(template))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    code, text = _in_child(lambda descriptor: _play(scenario, point, folder, descriptor))
    notes = _Notes(text)
    where = notes.at[0] if notes.at else library().shim_where().decode("utf-8", "replace")
    fired = len(notes.at) if isinstance(point, Line) else library().shim_fired()
    problems = notes.problems
    is_kill = isinstance(point, Line) or point.is_kill
    if code and not (code == -signal.SIGKILL and is_kill):
        problems.append(f"the process ended with {code}")
    if not problems:
        try:
            _judge(folder, scenario, point, before, notes)
        except AssertionError as error:
            problems.append(str(error))
    if problems:
        return Outcome(fired, where, "; ".join(problems), folder)
    shutil.rmtree(folder)
    return Outcome(fired, where, "")


def _judge(folder: str, scenario: Scenario, point: Point, before: dict[str, str], notes: _Notes) -> None:
    log = os.path.join(folder, "logs", "log.jsonl")
    options, is_kill = dict(scenario.options), isinstance(point, Line) or point.is_kill
    if not is_kill and os.path.isdir(os.path.join(folder, "elsewhere")):
        # That the journals are elsewhere is noted beside the log, and that note may be what failed.
        options["journal_directory"] = os.path.join(folder, "elsewhere")
    if isinstance(point, Fault) and not is_kill and not point.for_good:
        _compare("before anybody else came", notes.status, _ids_in(log, may_be_closed=bool(before)), {*before})
    code, text = _in_child(lambda descriptor: _reopen(log, options, descriptor))
    assert not code, f"whoever came next ended with {code}: {text}"
    assert not (problems := _Notes(text).problems), f"whoever came next: {problems}"
    # At `memory`, which it then says it is, what the log refuses to the end is lost, and it says how many.
    lost = notes.lost if notes.is_memory else 0
    others = {f"{prefix}-{sum(one.startswith(prefix) for one in notes.status)}" for prefix in _IN_THE_CALL}
    found = _ids_in(log, may_be_closed=bool(before) and not is_kill)
    _compare("in the end", {**before, **notes.status}, found, others if is_kill else set(), may_lose=lost)
    places = Path(f"{log}.journal"), Path(folder, "elsewhere")
    left = [str(path) for place in places for path in place.rglob("*") if path.is_file() and path.name != "location"]
    assert not left, f"nobody lives, and there is {left}"


def _ids_in(log: str, *, may_be_closed: bool) -> Counter[str]:
    """
    Return the ids in the log; AssertionError for a line that is torn.

    *may_be_closed*: a process that died left a torn line, and where that one cannot be set aside, for want of a file to
    put it in, it is closed where it is: the log must go on.
    """
    ids: Counter[str] = Counter()
    for file in log_files(log):
        content = file.read_bytes()
        if may_be_closed and file.suffix != ".gz":
            content = b"".join(line for line in content.splitlines(keepends=True) if CHECKSUM.fullmatch(line[:-1]))
            file = file.with_suffix(".whole")  # noqa: PLW2901  the same without that line
            file.write_bytes(content)
        ids.update(str(record.get("record_id")) for record in read_lines(file))
    return ids


def _compare(when: str, status: dict[str, str], found: Counter[str], others: set[str], may_lose: int = 0) -> None:
    """Compare the records noted with those found; *others* may be there as well."""
    wanted = {record_id for record_id, one in status.items() if one != "failed"}
    lost = sorted(wanted - found.keys())
    doubled = sorted(record_id for record_id, count in found.items() if count > 1)
    refused = sorted(found.keys() & (status.keys() - wanted))
    foreign = sorted(found.keys() - status.keys() - others)
    assert (len(lost) <= may_lose, doubled, refused, foreign) == (True, [], [], []), (
        f"{when}: lost {lost} (told of {may_lose}), doubled {doubled}, there although failed {refused}, "
        f"never logged {foreign}"
    )
