from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import has_fork, is_root, run_child

from ai_response_logging import _fork, _journal, _journal_files, _journal_place, _lock
from ai_response_logging._adopt import Orphan, has_journals, orphans
from ai_response_logging._journal import Journal
from ai_response_logging._journal_format import (
    MARK_BYTES,
    Intent,
    Mark,
    find_mark,
    lock_name,
    mark_name,
    segment_name,
    segments_among,
    whole_lines,
)
from ai_response_logging._options import Options
from ai_response_logging.errors import LogPathError
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
OTHER = "host-1-18c-fedcba9876543210"
INTENT = Intent(1, 2, 3, 4, 5)


def lines_of(count: int, first_seq: int = 0, size: int = 10, writer: str = WRITER) -> list[bytes]:
    """Return finished lines, numbered from *first_seq* on."""
    fill = b"x" * size
    return [seal(b'{"response":"%b"' % fill, tail_of(writer), seq) for seq in range(first_seq, first_seq + count)]


def make(directory: Path, writer: str = WRITER, **options: Any) -> Journal:
    """Make a journal."""
    return Journal(str(directory), writer, Options.checked({"durability": "memory", **options}))


_adopted: list[Any] = []


def adopt(directory: Path) -> Orphan:
    """Return the first orphan there is; it is ours until it is closed, at the latest when the test ends."""
    found = orphans(str(directory), 0o600)
    _adopted.append(found)
    return next(iter(found))


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Let go of what a test adopted."""
    yield
    while _adopted:
        _adopted.pop().close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the journals are to be."""
    return tmp_path / "a.jsonl.journal"


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    """Make a journal."""
    made = make(directory)
    yield made
    made.close()


def stored(directory: Path, writer: str = WRITER) -> list[list[bytes]]:
    """Return the lines that count in each segment."""
    segments = segments_among(os.listdir(directory), writer)
    return [[one.line for one in whole_lines((directory / name).read_bytes(), writer, seq)] for seq, name in segments]


def noted(directory: Path) -> Mark:
    """Return the mark that a stranger would find."""
    return find_mark((directory / mark_name(WRITER)).read_bytes())


def all_home(orphan: Orphan) -> list[bytes]:
    """Take all lines of *orphan* as the writer takes them, and remove it."""
    found = []
    while not orphan.empty():
        lines = orphan.head(1 << 20)
        orphan.note(INTENT)
        found += lines
        orphan.consume(len(lines))
    orphan.remove()
    return found


# --- stored --------------------------------------------------------------------------------------------------------


def test_lines_stored_are_found_by_whoever_adopts_them(journal: Journal, directory: Path):
    """What a writer stored comes back in its order, byte for byte, and then nothing is left."""
    assert journal.store(lines_of(20)) == 20
    assert journal.next_seq == 20
    journal.close()

    assert all_home(adopt(directory)) == lines_of(20)
    assert not directory.exists()


def test_several_stores_come_back_as_one(journal: Journal, directory: Path):
    """A writer that stashes again and again has one journal."""
    for first_seq in (0, 5, 10):
        assert journal.store(lines_of(5, first_seq)) == 5
    journal.close()

    assert all_home(adopt(directory)) == lines_of(15)


def test_segment_ends_before_a_mebibyte_is_full(journal: Journal, directory: Path):
    """Segments stay of a size that an adopter can hold in memory."""
    lines = lines_of(300, size=10_000)

    assert journal.store(lines) == 300

    assert len(stored(directory)) == 3
    assert [line for segment in stored(directory) for line in segment] == lines
    assert all(path.stat().st_size <= _journal.SEGMENT_BYTES for path in directory.iterdir())


def test_line_larger_than_a_segment_has_one_of_its_own(journal: Journal, directory: Path):
    """No record is too large to be kept."""
    lines = [*lines_of(1), *lines_of(1, 1, size=_journal.SEGMENT_BYTES + 1), *lines_of(1, 2)]

    assert journal.store(lines) == 3
    assert [len(segment) for segment in stored(directory)] == [1, 1, 1]


def test_gap_in_the_numbers_begins_another_segment(journal: Journal, directory: Path):
    """A record that was taken back in between costs none of those behind it."""
    lines = [*lines_of(3), *lines_of(3, 7), *lines_of(1, 11)]

    assert journal.store(lines) == 7
    journal.close()

    assert [len(segment) for segment in stored(directory)] == [3, 3, 1]
    assert all_home(adopt(directory)) == lines


def test_nothing_to_store_makes_no_segment(journal: Journal, directory: Path):
    """An empty queue leaves nothing behind."""
    assert journal.store([]) == 0
    assert stored(directory) == []


@pytest.mark.parametrize("mode", [0o600, 0o640])
@pytest.mark.parametrize("directory_mode", [0o700, 0o750])
def test_files_and_directory_have_exactly_the_modes_asked_for(directory: Path, mode: int, directory_mode: int):
    """Nobody else reads what waits, whatever the umask says."""
    before = os.umask(0o027)
    try:
        journal = make(directory, file_mode=mode, directory_mode=directory_mode)
        journal.store(lines_of(1))
        journal.mark(0, INTENT)
        journal.close()
    finally:
        os.umask(before)

    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {mode}
    assert len(list(directory.iterdir())) == 3
    assert stat.S_IMODE(directory.stat().st_mode) == directory_mode


# --- the disk takes no more ----------------------------------------------------------------------------------------

# argv: directory, limit in bytes for each file, lines, what to do then
_LIMITED = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[5])
from pathlib import Path
from test_journal import lines_of, make
directory, limit, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
journal = make(directory)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
first = journal.store(lines_of(count))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
second = journal.store(lines_of(count - first, first)) if sys.argv[4] == "again" else 0
print(json.dumps([first, second, journal.next_seq]))
"""


def limited(directory: Path, limit: int, count: int, then: str = "") -> list[int]:
    """Store *count* lines in a process whose files may have *limit* bytes; return what it stored, then and later."""
    path = json.dumps([str(Path(__file__).parent)])
    return json.loads(run_child(_LIMITED, directory, limit, count, then, path).stdout)


@pytest.mark.slow
def test_limit_on_the_size_of_a_file_makes_more_files(directory: Path):
    """A limit that the log met is one for each file: the lines go on in another."""
    size = len(lines_of(1)[0])

    assert limited(directory, 3 * size + 5, 9) == [9, 0, 9]

    assert [len(segment) for segment in stored(directory)] == [3, 3, 3]
    assert all_home(adopt(directory)) == lines_of(9)


@pytest.mark.slow
def test_no_room_for_a_single_line_stores_none_and_says_so(directory: Path):
    """What is not on disk is not called kept."""
    assert limited(directory, 20, 3) == [0, 0, 0]
    assert all_home(adopt(directory)) == []
    assert not directory.exists()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1, 20])
def test_store_refused_once_is_tried_again_and_taken(directory: Path, limit: int):
    """Room that comes back is used: nothing of the attempt that failed stands in the way."""
    assert limited(directory, limit, 5, "again") == [0, 5, 5]
    assert all_home(adopt(directory)) == lines_of(5)


@pytest.mark.slow
def test_disk_that_fills_up_in_the_middle_keeps_the_lines_before(directory: Path):
    """A store that is cut off in the middle of a line says how many stand whole; the rest comes with the next."""
    size = len(lines_of(1)[0])
    large = [*lines_of(4), *lines_of(1, 4, size=10 * size), *lines_of(2, 5)]
    code = _LIMITED.replace("lines_of(count)", "LINES").replace("lines_of(count - first, first)", "LINES[first:]")
    code = code.replace("journal = ", f"LINES = {large!r}\njournal = ")

    done = run_child(code, directory, 6 * size, 7, "again", json.dumps([str(Path(__file__).parent)]))

    assert json.loads(done.stdout) == [4, 3, 7]
    assert all_home(adopt(directory)) == large


def test_store_that_is_interrupted_comes_home_once(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C behind a write, before it is noted what was stored: stored again, doubled never."""
    journal = make(directory)
    write = journal._write

    def interrupted(line: bytes, size: int) -> bool:
        write(line, size)
        if line == lines_of(6)[3]:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(journal, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.store(lines_of(6))
    assert journal.next_seq == 3

    assert journal.store(lines_of(3, 3)) == 3
    journal.close()

    assert all_home(adopt(directory)) == lines_of(6)


# --- marks ---------------------------------------------------------------------------------------------------------


def test_mark_outlives_the_process_at_once(journal: Journal, directory: Path):
    """What is noted is in the kernel when the call returns."""
    journal.mark(3, INTENT)
    assert noted(directory) == Mark(0, 3, INTENT)

    journal.mark(7, None)
    assert noted(directory) == Mark(1, 7, None)


def test_mark_that_says_less_than_the_last_is_left_out(journal: Journal, directory: Path):
    """Of two threads that note, the one that knows more wins, whichever comes first."""
    journal.mark(7, None)
    journal.mark(3, INTENT)

    assert noted(directory) == Mark(0, 7, None)


def test_segments_whose_lines_have_all_arrived_are_removed(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """A long journal gives its room back as it comes home."""
    monkeypatch.setattr(_journal, "SEGMENT_BYTES", 5 * len(lines_of(1)[0]) + 5)
    for first_seq in (0, 5, 10):
        journal.store(lines_of(5, first_seq))

    journal.mark(4, None)
    assert len(stored(directory)) == 3
    journal.mark(5, None)
    assert len(stored(directory)) == 2
    journal.mark(15, None)
    assert len(stored(directory)) == 1, "the last may still be written to"


@pytest.mark.slow
def test_mark_that_the_disk_takes_only_in_part_is_an_error(directory: Path):
    """Half a mark would let a record be appended whose place nobody knows."""
    code = _LIMITED.replace(
        "first = ",
        "journal.mark(1, None)\ntry:\n    journal.mark(2, None)\nexcept OSError as error:\n"
        "    print(error.errno)\nfirst = ",
    )  # fmt: skip

    done = run_child(code, directory, MARK_BYTES + 10, 0, "", json.dumps([str(Path(__file__).parent)]))

    assert done.stdout.split("\n")[0] == str(errno.ENOSPC)
    assert noted(directory) == Mark(0, 1, None)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_mark_is_not_written_into_what_stands_in_its_place(journal: Journal, directory: Path, kind: str):
    """A link, a FIFO or a directory in the place of a mark is refused, and what it leads to stays as it is."""
    place, victim = directory / mark_name(WRITER), directory.parent / "victim"
    victim.write_bytes(b"precious")
    {"link": lambda: place.symlink_to(victim), "fifo": lambda: os.mkfifo(place), "directory": place.mkdir}[kind]()

    with pytest.raises(LogPathError):
        journal.mark(1, None)

    assert victim.read_bytes() == b"precious"


# --- the lock ------------------------------------------------------------------------------------------------------


def test_journal_of_a_living_writer_is_no_orphan(journal: Journal, directory: Path):
    """As long as the writer has its lock, nobody else takes its lines."""
    journal.store(lines_of(3))

    assert list(orphans(str(directory), 0o600)) == []
    assert has_journals(str(directory))


def test_orphan_has_one_adopter_at_a_time(journal: Journal, directory: Path):
    """The second to come finds it taken; when the first gives up, the lines are still there."""
    journal.store(lines_of(3))
    journal.close()
    first = adopt(directory)

    assert list(orphans(str(directory), 0o600)) == []
    first.close()
    assert all_home(adopt(directory)) == lines_of(3)


def test_adopter_that_goes_on_after_another_begins_where_that_one_stopped(journal: Journal, directory: Path):
    """What one adopter brought home the next does not bring again; an intent that was open is handed on."""
    journal.store(lines_of(6))
    journal.close()
    with adopt(directory) as first:
        assert first.head(1) == lines_of(1)
        first.consume(4)
        first.note(INTENT)

    second = adopt(directory)

    assert second.intent == INTENT
    assert second.first(9) == lines_of(2, 4)
    second.consume(0)
    assert second.intent is None
    assert noted(directory).intent == INTENT  # until the next one, or the last line, replaces it
    second.consume(2)
    assert (noted(directory).consumed, noted(directory).intent) == (6, None)


def test_adopter_that_stops_half_way_leaves_nothing_that_the_next_would_count_again(journal: Journal, directory: Path):
    """What has arrived is noted when an adopter hands over: each line is counted by whoever brought it home."""
    journal.store(lines_of(6))
    journal.close()
    with adopt(directory) as first:
        assert first.first(4) == lines_of(4)
        first.note(INTENT)
        first.consume(4)

    second = adopt(directory)

    assert (second.intent, second.first(9)) == (None, lines_of(2, 4))


def test_long_orphan_comes_home_to_its_last_segment(journal: Journal, directory: Path):
    """Segments are removed while those behind them are still to be read, and none is left out."""
    lines = lines_of(60, size=100_000)
    journal.store(lines)
    journal.close()
    assert len(stored(directory)) > 5

    assert all_home(adopt(directory)) == lines


def test_orphan_holds_a_segment_at_a_time(journal: Journal, directory: Path):
    """A long journal is not read into memory at once."""
    journal.store(lines_of(60, size=100_000))
    journal.close()
    orphan = adopt(directory)

    assert orphan.head(1)
    assert sum(map(len, orphan._lines)) <= _journal.SEGMENT_BYTES


def test_lock_that_is_taken_while_it_is_made_is_made_again(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """An adopter that takes a journal in the making for an orphan, and removes it, costs the writer nothing."""
    real = _lock.try_acquire
    taken: list[Path] = []

    def first_somebody_else(lock: Any) -> bool:
        if not taken:
            taken.append(directory / lock_name(WRITER))
            taken[0].unlink()
            directory.rmdir()
        return real(lock)

    monkeypatch.setattr(_journal._lock, "try_acquire", first_somebody_else)
    journal = make(directory)

    assert taken
    assert journal.store(lines_of(1)) == 1
    assert list(orphans(str(directory), 0o600)) == []
    journal.close()


def test_adopter_that_holds_a_lock_in_the_making_is_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """An adopter needs a moment to see that a journal is empty; the writer does not give up meanwhile."""
    directory.mkdir()
    path = directory / lock_name(WRITER)
    adopter = path.open("w")
    fcntl.flock(adopter, fcntl.LOCK_EX)
    real, tries = _lock.try_acquire, []

    def counting(lock: Any) -> bool:
        tries.append(lock)
        if len(tries) == 15:  # of tries without a pause as many would be over in a tenth of a millisecond
            path.unlink()
            adopter.close()
        return real(lock)

    monkeypatch.setattr(_journal._lock, "try_acquire", counting)
    journal = make(directory)

    assert len(tries) > 15
    assert path.exists()
    journal.close()


def test_lock_that_somebody_holds_for_ever_is_an_error(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """Then the lines are lost with this process, and whoever stashes must hear of it."""
    monkeypatch.setattr(_journal_place, "_LOCK_BUDGET_S", 0.01)
    directory.mkdir()
    with (directory / lock_name(WRITER)).open("w") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="again and again") as caught:
            make(directory)

    assert caught.value.errno == errno.EAGAIN


def test_journal_in_a_directory_behind_a_symbolic_link_is_refused(directory: Path, tmp_path: Path):
    """A link in the journal's place is not followed: nothing of ours is written where somebody else wants it."""
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(LogPathError):
        make(directory)

    assert list((tmp_path / "elsewhere").iterdir()) == []


@contextlib.contextmanager
def living_child() -> Iterator[None]:
    """Fork a child that runs, and has all that we had open, until the block ends."""
    (over, end), (ready, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.write(begun, b".")
        os.read(over, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        yield
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for descriptor in (over, ready, begun):
            os.close(descriptor)


@has_fork
def test_child_of_a_fork_neither_holds_the_lock_nor_removes_anything(journal: Journal, directory: Path):
    """A child that outlives its parent does not keep the parent's lines from coming home."""
    journal.store(lines_of(3))
    with living_child():
        journal.close()
        assert all_home(adopt(directory)) == lines_of(3)


@has_fork
def test_child_forked_while_an_orphan_is_adopted_does_not_hold_it(journal: Journal, directory: Path):
    """A worker that is forked while its parent brings a journal home does not keep the next adopter from it."""
    journal.store(lines_of(3))
    journal.close()
    first = adopt(directory)
    with living_child():
        first.close()
        assert all_home(adopt(directory)) == lines_of(3)


@has_fork
def test_child_that_uses_its_parents_journal_is_refused(journal: Journal, directory: Path):
    """In the child it is closed: what the child would store or note would be under the parent's name."""
    journal.store(lines_of(2))
    journal.mark(0, INTENT)
    child = os.fork()
    if child == 0:
        try:
            refused = journal.store(lines_of(1, 2)) == 0
            journal.mark(2, None)
            os._exit(2)
        except OSError:
            os._exit(0 if refused else 3)
    assert os.waitpid(child, 0)[1] == 0

    assert noted(directory) == Mark(0, 0, INTENT)
    assert stored(directory) == [lines_of(2)]


# --- removed -------------------------------------------------------------------------------------------------------


def test_removed_journal_leaves_nothing_behind(journal: Journal, directory: Path):
    """Neither files nor the directory stay when all has arrived."""
    journal.store(lines_of(3))
    journal.mark(3, None)

    journal.remove()

    assert not directory.exists()
    journal.remove()  # twice does no harm


def test_removed_journal_leaves_those_of_others_alone(journal: Journal, directory: Path):
    """The directory stays as long as somebody else has lines in it."""
    other = make(directory, OTHER)
    other.store(lines_of(2, writer=OTHER))
    journal.store(lines_of(2))

    journal.remove()

    assert all(name.startswith(OTHER) for name in os.listdir(directory))
    other.close()
    assert all_home(adopt(directory)) == lines_of(2, writer=OTHER)


def test_nothing_is_stored_in_a_journal_that_was_removed(journal: Journal, directory: Path):
    """Without its lock nobody would find it: better to say that it is not kept."""
    other = make(directory, OTHER)  # so that the directory stays
    journal.store(lines_of(2))
    journal.mark(2, None)
    journal.remove()

    assert journal.store(lines_of(2, 2)) == 0
    with pytest.raises(OSError, match="closed"):
        journal.mark(4, None)
    assert segments_among(os.listdir(directory), WRITER) == []
    other.close()


def test_journal_made_again_outranks_what_was_left_of_the_first(directory: Path):
    """Marks of an earlier journal of the same writer, which could not be removed, do not hide those of this one."""
    first = make(directory)
    first.store(lines_of(3))
    for consumed in (1, 2, 3):
        first.mark(consumed, None)
    first.close()

    again = make(directory)
    again.store(lines_of(3, 3))
    again.mark(4, INTENT)
    again.close()

    orphan = adopt(directory)
    assert orphan.intent == INTENT
    assert all_home(orphan) == lines_of(2, 4)
    assert not directory.exists()


@pytest.mark.parametrize("at_once", [1, 100])
def test_lines_in_used_space_whose_new_name_the_power_took_hide_no_others(directory: Path, at_once: int):
    """What was stored there last stands under its old name, before all others: it comes home behind them."""
    journal = make(directory)
    for first_seq in (0, 2, 4):
        journal._begin_segment(first_seq, 0)
        journal.store(lines_of(2, first_seq))
    journal.mark(2, None)
    journal._begin_segment(6, 0)
    journal.store(lines_of(1, 6))
    journal.close()
    (directory / segment_name(WRITER, 6)).rename(directory / segment_name(WRITER, 0))

    orphan = adopt(directory)
    found = []
    while lines := orphan.first(at_once):
        found += lines
        orphan.consume(len(lines))
    orphan.remove()

    assert found == lines_of(5, 2)
    assert not directory.exists()


@pytest.mark.parametrize("left", ["lock", "lock and mark", "no first segment"])
def test_journal_whose_removal_was_cut_off_is_removed_by_the_next(journal: Journal, directory: Path, left: str):
    """Killed at any step of the removal, nothing comes home twice and nothing stays."""
    journal.store(lines_of(3))
    journal.store(lines_of(3, 3))
    journal.mark(6, None)
    names = [name for _, name in segments_among(os.listdir(directory), WRITER)]
    journal.close()
    for name in names[: 1 if left == "no first segment" else None]:
        (directory / name).unlink()
    if left == "lock":
        (directory / mark_name(WRITER)).unlink()

    assert all_home(adopt(directory)) == []
    assert not directory.exists()


def test_mark_holds_though_a_segment_cannot_be_removed(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is noted is noted: a file that may not be removed keeps no record from its way."""
    journal.store(lines_of(2))
    journal.store(lines_of(2, 2))
    monkeypatch.setattr(_journal.os, "unlink", _not_permitted)

    journal.mark(3, INTENT)

    assert noted(directory) == Mark(0, 3, INTENT)
    monkeypatch.undo()
    journal.mark(4, None)
    journal.remove()
    assert not directory.exists()


def _not_permitted(path: str) -> None:
    raise PermissionError(errno.EPERM, "not permitted", path)


# --- what others left there ----------------------------------------------------------------------------------------


@is_root
@pytest.mark.slow
def test_directory_that_may_not_be_read_has_no_journals_for_us(directory: Path):
    """Another user's journals are theirs: looking for orphans there is no error."""
    make(directory).close()
    directory.parent.chmod(0o755)
    code = """
    import os, sys
    from ai_response_logging._adopt import has_journals, orphans
    os.setuid(65534)
    print(has_journals(sys.argv[1]), list(orphans(sys.argv[1], 0o600)))
    """
    parents = [parent for parent in directory.parents if parent.stat().st_mode & 0o005 != 0o005]
    if parents:
        for parent in parents:
            parent.chmod(parent.stat().st_mode | 0o055)

    assert run_child(code, directory).stdout.split() == ["False", "[]"]


@pytest.mark.parametrize("what", ["lock", "mark"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_journal_that_is_not_made_of_files_stays_and_the_others_come_home(directory: Path, what: str, kind: str):
    """One journal that cannot be opened keeps nobody else's lines from coming home, and is not touched."""
    for writer in (WRITER, OTHER):
        journal = make(directory, writer)
        journal.store(lines_of(2, writer=writer))
        journal.close()
    place = directory / (lock_name(WRITER) if what == "lock" else mark_name(WRITER))
    place.unlink(missing_ok=True)
    victim = directory.parent / "victim"
    victim.write_bytes(b"precious")
    {"link": lambda: place.symlink_to(victim), "fifo": lambda: os.mkfifo(place), "directory": place.mkdir}[kind]()

    found = [all_home(orphan) for orphan in orphans(str(directory), 0o600)]

    assert found == [lines_of(2, writer=OTHER)]
    assert stored(directory) == [lines_of(2)]
    assert victim.read_bytes() == b"precious"


def test_writers_that_make_their_journals_at_once_in_one_directory_all_get_theirs(directory: Path):
    """Many processes that close at once, while others look for orphans, are not in each other's way."""
    over, failed = threading.Event(), []

    def look() -> None:
        while not over.is_set():
            for orphan in orphans(str(directory), 0o600):
                orphan.remove()

    def make_some(number: int) -> None:
        try:
            for count in range(30):
                journal = make(directory, f"host-{number}-{count}")
                journal.store(lines_of(1))
                journal.remove()
        except OSError as error:
            failed.append(error)

    looker = threading.Thread(target=look)
    makers = [threading.Thread(target=make_some, args=(number,)) for number in range(3)]
    for thread in (looker, *makers):
        thread.start()
    for thread in makers:
        thread.join()
    over.set()
    looker.join()

    assert failed == []


@has_fork
def test_fork_beside_a_journal_that_could_not_be_made_forgets_everything(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """A fault half-way, or another thread at just that point, does not let the child go on in its parent's journal."""
    kept: list[OSError] = []

    def refuse(_marks: bytes) -> None:
        raise OSError(errno.EMFILE, "no descriptor")

    with monkeypatch.context() as patched:
        patched.setattr(_journal_files, "find_mark", refuse)
        patched.setattr(_journal_files, "content", lambda _path: b"")
        with pytest.raises(OSError, match="no descriptor") as caught:
            Journal(str(directory), WRITER, Options())
        kept.append(caught.value)  # as a queue keeps the last one, and with it what was half made
    half_made = [owner for owner in _fork._registered if isinstance(owner, Journal) and owner._is_closed is False]
    assert half_made
    for owner in half_made:
        owner.after_fork_in_child()


@has_fork
def test_owner_that_cannot_forget_keeps_no_other_from_it():
    """The child is told of the fault, and has dropped all else of its parent's."""
    code = """
    import os
    from ai_response_logging import _fork

    class Owner:
        def __init__(self, name): self.name = name
        def after_fork_in_child(self):
            os.write(1, self.name)
            raise ValueError

    owners = [Owner(b"a"), Owner(b"b"), Owner(b"c")]
    for owner in owners: _fork.forget_in_child(owner)
    if not os.fork():
        _fork.notice_fork()
        os._exit(0)
    os.wait()
    """
    done = run_child(code)

    assert sorted(done.stdout) == ["a", "b", "c"]
    assert "ValueError" in done.stderr
