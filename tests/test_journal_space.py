"""The journal's next segment: made ready by whoever writes to the log, so that the call that needs it need not."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers import has_fork, has_proc

from ai_response_logging import AIResponseHandler, _append, _journal, _journal_space, _libc
from ai_response_logging._adopt import orphans
from ai_response_logging._journal import Journal
from ai_response_logging._journal_format import segment_name, segments_among, seq_of, whole_lines
from ai_response_logging._journal_read import journal_lines
from ai_response_logging._options import Options
from ai_response_logging.errors import LogPathError
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
HALF = 400_000  # two lines of this size fill a segment

pytestmark = pytest.mark.skipif(_libc.rename_holding() is None, reason="the C library has no renameat2")


def line_of(seq: int, size: int = HALF) -> bytes:
    """Return a finished line."""
    return seal(b'{"response":"%b"' % (b"x" * size), tail_of(WRITER), seq)


def keep(journal: Journal, *numbers: int) -> None:
    """Store lines one by one."""
    for seq in numbers:
        journal.keep(line_of(seq), seq)


def filled(directory: Path, kind: str) -> Journal:
    """Make a journal whose last segment is full, with lines 4 and 5; with *kind* ``spare`` there was one before."""
    journal = Journal(str(directory), WRITER, Options())
    first_seq = 4 if kind == "fresh" else 0
    journal.begin(first_seq)
    keep(journal, *range(first_seq, 6))
    if kind == "spare":
        journal.mark(4, None)
    return journal


@pytest.fixture(autouse=True)
def _no_disk_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine two stores in a row may take as long as on one; then no call takes what is ready."""
    monkeypatch.setattr(_journal, "_SLOW_S", float("inf"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the journal is to be."""
    return tmp_path / "a.jsonl.journal"


@pytest.fixture(params=["fresh", "spare"])
def journal(directory: Path, request: pytest.FixtureRequest) -> Iterator[Journal]:
    """Make a journal whose segment has lines 4 and 5, the last but those; what is ready is a new one or was spare."""
    made = filled(directory, request.param)
    made.prepare()
    assert made._ready is not None
    yield made
    made.close()


def names(directory: Path) -> list[str]:
    """Return the names of all segments, whoever holds them."""
    return [name for _, name in segments_among(os.listdir(directory), WRITER)]


def waiting(directory: Path) -> list[int]:
    """Return the numbers of the lines from 4 on that any reader finds, in order; each must be whole."""
    found = list(journal_lines(str(directory).removesuffix(".journal"), lambda *fault: pytest.fail(str(fault))))
    assert all(one.line == line_of(one.seq) for one in found)
    return [one.seq for one in found if one.seq >= 4]


def brought_home(directory: Path) -> list[int]:
    """Bring the journal home as the next program does, and return the numbers of its lines from 4 on."""
    with contextlib.closing(orphans(str(directory), 0o600)) as found:
        orphan = next(found)
        lines = orphan.first(1_000_000)
        assert all(line == line_of(seq_of(line)) for line in lines)
        orphan.consume(len(lines))
        orphan.remove()
    assert not directory.exists()
    return [seq for line in lines if (seq := seq_of(line)) >= 4]


# --- the call ------------------------------------------------------------------------------------------------------


def test_call_that_needs_a_new_segment_only_gives_the_ready_one_its_name(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """No open, no link, no close, no look at a descriptor; the segment is reserved and has the right name."""
    assert journal._ready is not None
    before = journal._ready[1]
    inode = (directory / before).stat().st_ino
    for module in (_journal, _journal_space):
        monkeypatch.setattr(module, "open_regular", None)
        monkeypatch.setattr(module, "let_go", None)
        monkeypatch.setattr(module, "os", None)
    real, ready = journal._rename, journal._ready[0]
    monkeypatch.setattr(type(ready), "is_ours", None)
    monkeypatch.setattr(journal, "_path", lambda name: f"{directory}/{name}")
    renamed: list[tuple[str, str]] = []

    def rename(old: str, new: str) -> int:
        assert real is not None
        renamed.append((Path(old).name, Path(new).name))
        return real(old, new)

    journal._rename = rename
    keep(journal, 6, 7)
    monkeypatch.undo()

    assert renamed == [(before, segment_name(WRITER, 6))]
    place = directory / segment_name(WRITER, 6)
    assert (place.stat().st_ino, place.stat().st_size) == (inode, _journal.SEGMENT_BYTES)
    assert [one.line for one in whole_lines(place.read_bytes(), WRITER, 6)] == [line_of(6), line_of(7)]
    assert before not in names(directory)
    assert waiting(directory) == [4, 5, 6, 7]


def test_nothing_ready_is_the_old_way(journal: Journal, directory: Path):
    """A burst that is quicker than whoever writes, and a line that no segment holds, lose nothing for it."""
    keep(journal, 6, 7, 8, 9)
    journal.prepare()
    journal.keep(line_of(10, 1 << 21), 10)
    assert journal._ready is not None
    keep(journal, 11)
    assert journal._ready is None
    journal.close()

    with contextlib.closing(orphans(str(directory), 0o600)) as found:
        lines = next(found).first(100)
    assert [seq_of(line) for line in lines][-8:] == list(range(4, 12))
    assert (directory / segment_name(WRITER, 10)).stat().st_size > 1 << 21


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "file"])
def test_what_stands_in_the_next_segments_place_is_not_replaced(journal: Journal, directory: Path, kind: str):
    """Also where a segment is ready: it is given a name only if nothing has it."""
    place, victim = directory / segment_name(WRITER, 6), directory.parent / "victim"
    victim.write_bytes(b"precious")
    made = {"link": lambda: place.symlink_to(victim), "fifo": lambda: os.mkfifo(place), "directory": place.mkdir}
    made.get(kind, place.touch)()
    inode = place.lstat().st_ino

    with contextlib.nullcontext() if kind == "file" else pytest.raises(LogPathError):
        keep(journal, 6)

    assert victim.read_bytes() == b"precious"
    assert place.lstat().st_ino == inode
    if kind == "file":  # an interrupted call's own, which it has made before
        assert waiting(directory) == [4, 5, 6]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_file_system_that_cannot_rename_so_is_asked_once(journal: Journal, directory: Path, number: int):
    """NFS, most of FUSE, an old kernel: each call makes its segment as it did before."""
    asked: list[str] = []

    def rename(old: str, _new: str) -> int:
        asked.append(old)
        return number

    journal._rename = rename
    for seq in (6, 8, 10):
        keep(journal, seq, seq + 1)
        journal.prepare()

    assert len(asked) == 1
    assert journal._ready is None
    assert waiting(directory) == list(range(4, 12))


def test_disk_that_makes_calls_wait_is_not_asked_with_the_interpreter_lock_held(journal: Journal, directory: Path):
    """As a store that goes another way then: the call makes its segment in calls that let the others run."""
    journal._outside_until_s = float("inf")
    journal._rename = lambda *_: pytest.fail("it was renamed")
    keep(journal, 6)

    assert journal._ready is not None
    assert waiting(directory) == [4, 5, 6]


# --- whoever writes ------------------------------------------------------------------------------------------------


@has_proc
def test_listener_has_the_next_segment_ready_and_lets_go_of_the_old_one(log_path: Path):
    """Behind each block one segment is ready, however many have been filled; a handler has six descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    handler = AIResponseHandler(log_path, batch_size=10_000, flush_interval=1000)
    descriptors: set[int] = set()
    for number in range(8):
        for part in range(2):
            handler.submit(logging.makeLogRecord({"msg": "m", "record_id": f"{number}-{part}", "response": "x" * HALF}))
        assert handler.flush()
        keeper = handler._pipeline.queue.keeper
        assert keeper is not None
        assert keeper._ready is not None
        assert keeper._left == []
        descriptors.add(len(os.listdir("/proc/self/fd")) - before)
    assert descriptors == {6}
    assert keeper.size <= 4 << 20
    handler.close()

    assert not Path(f"{log_path}.journal").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_writer_of_a_few_records_reserves_nothing_ahead(log_path: Path):
    """A script that logs now and then takes one segment, as before."""
    handler = AIResponseHandler(log_path, batch_size=10_000, flush_interval=1000)
    handler.submit(logging.makeLogRecord({"msg": "m", "response": "x" * 1000}))
    assert handler.flush()
    keeper = handler._pipeline.queue.keeper
    assert keeper is not None
    assert keeper._ready is None
    assert keeper.size == 1 << 20
    handler.close()


def test_small_journal_keeps_its_room_for_what_waits(directory: Path):
    """A new segment is made ready only while half of journal_max_bytes is free; it counts, and it is room."""
    journal = Journal(str(directory), WRITER, Options.checked({"journal_max_bytes": 3 << 20}))
    journal.begin(0)
    keep(journal, 0, 1)
    journal.prepare()
    assert (journal._ready, journal.size) == (None, 1 << 20)

    journal.max_bytes = 4 << 20
    journal.prepare()
    assert journal._ready is not None
    assert journal.size == 2 << 20
    journal.max_bytes = 1 << 20
    assert journal.has_room(HALF)
    keep(journal, 2, 3)
    assert not journal.has_room(HALF)
    journal.remove()
    assert not directory.exists()


def test_segment_that_is_ready_is_open_to_its_owner_alone(journal: Journal, directory: Path):
    """It will hold answers: it is made like all other segments."""
    assert journal._ready is not None
    assert stat.S_IMODE((directory / journal._ready[1]).stat().st_mode) == 0o600


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_nothing_is_made_where_the_journal_is_no_longer(directory: Path, way: str):
    """What stands at the journal's path by then may be another's: nobody would remove what we made there."""
    journal = Journal(str(directory), WRITER, Options())
    journal.begin(0)
    keep(journal, 0, 1)
    if way == "moved":
        directory.rename(f"{directory}.old")
        directory.mkdir()
    else:
        for name in os.listdir(directory):
            (directory / name).unlink()

    journal.prepare()

    assert journal._ready is None
    assert os.listdir(directory) == []
    journal.close()


def test_journal_that_is_closed_while_a_segment_is_made_ready_keeps_no_descriptor(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another thread closes it in between: one of the two lets go of it."""
    journal = Journal(str(directory), WRITER, Options())
    journal.begin(0)
    keep(journal, 0, 1)
    real, opened = _journal_space.reserve, []

    def reserve(file: Any, size: int) -> None:
        real(file, size)
        opened.append(file)
        journal.close()

    monkeypatch.setattr(_journal_space, "reserve", reserve)
    journal.prepare()

    assert journal._ready is None
    assert [file.closed for file in opened] == [True]


def test_disk_that_gives_no_segment_is_no_fault(journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever writes has nothing to say of it: the call that needs one will find out, or the next block tries again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    keep(journal, 6)
    monkeypatch.setattr(_journal_space, "open_regular", refuse)
    journal.prepare()
    assert journal._ready is None
    monkeypatch.undo()
    journal.prepare()

    assert journal._ready is not None
    assert waiting(directory) == [4, 5, 6]


# --- whoever comes next --------------------------------------------------------------------------------------------


@has_fork
@pytest.mark.parametrize("kind", ["fresh", "spare"])
@pytest.mark.parametrize("when", ["ready", "taken", "renamed"])
def test_killed_with_a_segment_ready_everything_comes_home_once_and_nothing_stays(
    directory: Path, kind: str, when: str
):
    """Before its name is given, right behind that, and behind the line: all lines, and no file is left."""
    pid = os.fork()
    if not pid:  # pragma: no cover  in the child
        try:
            journal = filled(directory, kind)
            journal.prepare()
            assert journal._ready is not None
            if when == "renamed":
                journal._pwrite = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, return-value]
            if when != "ready":
                keep(journal, 6)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    lines = [4, 5, 6] if when == "taken" else [4, 5]
    assert waiting(directory) == lines
    assert brought_home(directory) == lines


def test_segment_that_is_ready_lets_no_other_go(journal: Journal, directory: Path):
    """An adopter removes a segment when the next one's lines come: the name of what is ready counts for no line."""
    journal.close()
    with contextlib.closing(orphans(str(directory), 0o600)) as found:
        orphan = next(found)
        orphan.first(100)
        orphan.mark(5, None)

    assert waiting(directory) == [5]
    assert brought_home(directory) == [5]


@has_fork
@has_proc
def test_child_lets_go_of_its_copy_and_the_parents_stays_ready(journal: Journal, directory: Path):
    """A forked child has neither the descriptor nor the segment."""
    assert journal._ready is not None
    number = journal._ready[0].fileno()
    pid = os.fork()
    if not pid:  # pragma: no cover  in the child
        os._exit(journal._ready is not None or os.path.lexists(f"/proc/self/fd/{number}"))
    assert os.waitpid(pid, 0)[1] == 0
    keep(journal, 6, 7)

    assert journal._descriptor == number
    assert waiting(directory) == [4, 5, 6, 7]


@pytest.mark.parametrize("leave", ["remove", "renounce and adopt", "close and adopt"])
def test_journal_that_is_left_takes_what_is_ready_along(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch, leave: str
):
    """Removed also where the directory cannot be listed; its descriptor is closed in each case."""
    assert journal._ready is not None
    file, _ = journal._ready
    if leave == "remove":
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "no more")))
            journal.remove()
    elif leave == "close and adopt":
        journal.close()
        assert brought_home(directory) == [4, 5]
    else:
        journal.renounce()
        assert brought_home(directory) == []

    assert file.closed
    assert not directory.exists()


# --- descriptors that the application closes ------------------------------------------------------------------------


def test_ready_descriptor_that_was_closed_is_noticed_by_the_store(journal: Journal, directory: Path):
    """The line goes to the same segment, by a descriptor of its own."""
    assert journal._ready is not None
    os.close(journal._ready[0].fileno())
    keep(journal, 6, 7)

    assert waiting(directory) == [4, 5, 6, 7]


def test_where_all_descriptors_were_closed_the_ready_one_is_not_used(journal: Journal, directory: Path):
    """Its number may be a file's of the application, which is neither written to nor closed."""
    assert journal._ready is not None
    assert journal._segment is not None
    number = journal._ready[0].fileno()
    os.close(journal._segment.fileno())
    stranger = os.open(directory.parent / "strangers", os.O_RDWR | os.O_CREAT)
    os.dup2(stranger, number)
    os.close(stranger)
    journal.keep(line_of(6, 10), 6)

    assert os.fstat(number).st_size == 0
    os.close(number)
    assert [one.seq for one in journal_lines(str(directory).removesuffix(".journal"), pytest.fail)][-1] == 6


def test_lock_that_was_closed_and_taken_again_drops_what_was_ready(journal: Journal, directory: Path):
    """So does a journal that is taken back from another process, which may have removed it."""
    os.close(journal._lock.fileno())
    journal.retake()

    assert journal._ready is None
    keep(journal, 6)
    assert waiting(directory) == [4, 5, 6]


def test_line_of_a_segment_that_another_process_has_removed_is_in_a_new_one(journal: Journal, directory: Path):
    """Its name cannot be given to a file that has none."""
    assert journal._ready is not None
    (directory / journal._ready[1]).unlink()
    keep(journal, 6)

    assert waiting(directory) == [4, 5, 6]


# --- interrupted anywhere --------------------------------------------------------------------------------------------


def interrupt_rename(journal: Journal, when: str, *numbers: int) -> None:
    """Store lines as a signal handler would, before or after the next segment gets its name."""
    real = journal._rename
    assert real is not None

    def rename(old: str, new: str) -> int:
        journal._rename = real
        if when == "before":
            keep(journal, *numbers)
        failed = real(old, new)
        if when == "after":
            keep(journal, *numbers)
        return failed

    journal._rename = rename


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nested", [1, 5])
def test_signal_handler_that_logs_while_the_segment_gets_its_name_loses_nothing(
    journal: Journal, directory: Path, when: str, nested: int
):
    """It stores the line that it interrupts first, then its own, also into other segments; nobody shares one."""
    interrupt_rename(journal, when, *range(6, 7 + nested))
    keep(journal, 6)
    keep(journal, 7 + nested, 8 + nested)
    journal.close()

    assert brought_home(directory) == list(range(4, 9 + nested))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nested", [1, 5])
def test_what_a_signal_handler_stores_meanwhile_is_synced(
    directory: Path, when: str, nested: int, monkeypatch: pytest.MonkeyPatch
):
    """At power: the segment that it has begun is not left out of the next sync, which tells of its lines as durable."""
    journal = Journal(str(directory), WRITER, Options(durability="power"))
    journal.begin(4)
    keep(journal, 4, 5)
    journal.prepare()
    synced = set[int]()
    interrupt_rename(journal, when, *range(6, 7 + nested))
    monkeypatch.setattr(_append, "sync_file", lambda number: synced.add(os.fstat(number).st_ino))
    keep(journal, 6)

    assert journal.sync(contextlib.nullcontext()) == journal.next_seq == 7 + nested
    assert {(directory / name).stat().st_ino for name in names(directory)} <= synced
    assert journal._synced_end == (journal._segments[-1][1], journal._position)
    assert waiting(directory) == list(range(4, 7 + nested))
    journal.remove()


class ThrownIn(BaseException):
    """Stands for whatever a signal's handler raises."""


def interrupted_at(place: int, call: Callable[[], object]) -> bool:
    """
    Make *call* and throw an exception into it before its *place*-th line of ours; say whether it had so many.

    In a thread of its own: an exception that is thrown where another one's handling ends leaves that one the thread's
    current one for good, with all that it holds, and no signal can come there.
    """
    package, seen = str(Path(_journal.__file__).parent), 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            seen += 1
            if seen == place:
                raise ThrownIn
        return trace

    def attempt() -> None:
        sys.settrace(trace)
        with contextlib.suppress(ThrownIn):
            call()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(attempt).result()
    return seen >= place


@pytest.mark.parametrize("call", ["keep", "prepare"])
@pytest.mark.parametrize("kind", ["fresh", "spare"])
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the collector closes what an exception leaves
def test_exception_before_any_line_of_it_loses_doubles_and_leaves_nothing(tmp_path: Path, kind: str, call: str):
    """Ctrl-C while a segment is made ready or taken: the same line is stored by the next call, and all files go."""
    place, goes_on = 0, True
    while goes_on:
        place += 1
        directory = tmp_path / f"{place}.journal"
        journal = filled(directory, kind)
        if call == "prepare":
            goes_on = interrupted_at(place, journal.prepare)
        else:
            journal.prepare()
            goes_on = interrupted_at(place, partial(keep, journal, 6))
        keep(journal, *range(max(6, journal.next_seq), 8))
        journal.prepare()
        assert journal._ready is not None
        keep(journal, 8, 9)
        assert waiting(directory) == list(range(4, 10)), place
        journal.mark(10, None)
        journal.remove()
        assert not directory.exists()
    assert place > 10


# --- the call into the C library -----------------------------------------------------------------------------------


def test_rename_that_holds_the_lock_says_why_not(tmp_path: Path):
    """It never replaces, and tells the errno of the kernel; names are the file system's own bytes."""
    rename = _libc.rename_holding()
    assert rename is not None
    old, new = tmp_path / "old-é", tmp_path / os.fsdecode(b"new-\xff")
    old.write_bytes(b"1")

    assert rename(str(old), str(new)) == 0
    assert new.read_bytes() == b"1"
    assert rename(str(old), str(new)) == errno.ENOENT
    old.write_bytes(b"2")
    assert rename(str(old), str(new)) == errno.EEXIST
    assert (old.read_bytes(), new.read_bytes()) == (b"2", b"1")


def test_library_without_it_has_nothing_ready(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """MacOS, an old C library: each call makes its segment."""
    monkeypatch.setattr(ctypes, "PyDLL", lambda *_, **__: {})
    monkeypatch.setattr(_journal_space, "rename_holding", _libc.rename_holding.__wrapped__)
    monkeypatch.setattr(_libc, "_function", lambda _: None)
    journal = Journal(str(directory), WRITER, Options())
    journal.begin(4)
    keep(journal, 4, 5)
    journal.prepare()
    assert journal._ready is None
    keep(journal, 6)

    assert waiting(directory) == [4, 5, 6]
    journal.remove()
