"""Readers see what is still in journals at once, each record once, whatever writers and adopters do meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from _children import PREAMBLE, Notes, assert_kept, writer
from helpers import is_root, log_files, run_child

from ai_response_logging import _journal_read, reader, verify
from ai_response_logging._journal import Journal
from ai_response_logging._options import Options
from ai_response_logging.errors import LogReadError
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.reader import BadLine, read_log
from ai_response_logging.record import seal, tail_of
from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GONE = "host-1-18c-0123456789abcdef"


def journals(log: Path) -> Path:
    """Return where the journals of *log* are."""
    return log.with_name(f"{log.name}.journal")


def ids_in(log: Path) -> list[str]:
    """Return the ids that a reader sees, in its order; fails on what it could not read."""
    return [record["record_id"] for record in read_log(log, on_bad=lambda bad: pytest.fail(str(bad)))]


def kill(log: Path, notes: Notes, prefix: str, count: int = 20, **options: Any) -> None:
    """Let a process log and be killed with all of it in its journal."""
    with writer(log, notes, durability="crash", **options) as one:
        assert set(one.log(prefix, count)) == {"queued"}
        one.process.send_signal(signal.SIGKILL)
        assert one.process.wait() == -signal.SIGKILL


def open_and_close(log: Path) -> None:
    """Open the log as the next program does, which brings home what is orphaned, and close it."""
    AIResponseHandler(log, durability="memory").close()


def journalled(log: Path) -> list[bytes]:
    """Return the whole lines in the journals of *log*."""
    lines = b"".join(file.read_bytes() for file in sorted(journals(log).glob("*.jsonl"))).splitlines(keepends=True)
    return [line for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]


def leave(log: Path, count: int, writer_id: str = GONE) -> list[str]:
    """Leave the journal of a writer that is gone, with *count* lines; return their ids."""
    log.touch()
    journal = Journal(str(journals(log)), writer_id, Options())
    journal.begin(0)
    body = b'{"record_id":"%b-%%d"' % writer_id[-4:].encode()
    assert journal.store([seal(body % seq, tail_of(writer_id), seq) for seq in range(count)]) == count
    journal.close()
    return [f"{writer_id[-4:]}-{seq}" for seq in range(count)]


# --- what a killed process left --------------------------------------------------------------------------------------


def test_records_of_a_killed_process_are_seen_before_anybody_brings_them_home(log_path: Path, notes: Notes):
    """What only a journal holds is read, counted as such, and neither a gap nor damage; reading changes nothing."""
    kill(log_path, notes, "gone")
    before = {path: path.read_bytes() for path in [log_path, *journals(log_path).iterdir()]}

    assert ids_in(log_path) == ids_in(log_path) == notes.ids()
    report = verify_log(log_path)

    assert (report.whole, report.records, report.in_journals) == (True, 0, 20)
    assert [(one.first, one.last, one.missing_count) for one in report.writers] == [(0, 19, 0)]
    assert {path: path.read_bytes() for path in [log_path, *journals(log_path).iterdir()]} == before
    open_and_close(log_path)
    assert ids_in(log_path) == notes.ids()
    report = verify_log(log_path)
    assert (report.whole, report.records, report.in_journals) == (True, 20, 0)


def test_records_of_a_living_process_are_seen_before_it_writes_them(log_path: Path, notes: Notes):
    """Half in the log, half on the way: the log's come first, and a writer's numbers have no gap between the two."""
    with writer(log_path, notes, durability="crash") as one:
        one.log("home", 5)
        assert one.ask("flush")
        one.log("waits", 7)

        assert ids_in(log_path) == notes.ids()
        report = verify_log(log_path)
        one.end()

    assert (report.whole, report.records, report.in_journals) == (True, 5, 7)
    assert [(writer.last, writer.missing_count) for writer in report.writers] == [(11, 0)]


@pytest.mark.parametrize("place", ["beside the log", "elsewhere"])
def test_log_that_does_not_exist_yet_is_read_from_journals_alone(
    log_path: Path, tmp_path: Path, notes: Notes, place: str
):
    """Where the log was moved away and only a journal is left, in a directory of its own too, its records are read."""
    options = {"journal_directory": str(tmp_path / "own")} if place == "elsewhere" else {}
    kill(log_path, notes, "gone", **options)
    log_path.unlink()

    assert ids_in(log_path) == notes.ids()
    report = verify_log(log_path)

    assert (report.whole, report.files, report.in_journals) == (True, (), 20)
    assert not log_path.exists()


def test_no_log_and_no_journal_is_said_or_nothing_as_asked(log_path: Path):
    """A wrong name is an error, unless the caller says that there may be none."""
    with pytest.raises(LogReadError, match="no such file"):
        list(read_log(log_path))
    assert list(read_log(log_path, missing_ok=True)) == []
    log_path.mkdir()
    with pytest.raises(LogReadError, match="not a regular file"):
        list(read_log(log_path, missing_ok=True))


def test_journals_copy_is_shown_once_and_a_doubled_line_of_the_log_twice(log_path: Path, notes: Notes):
    """A line that is in the log already is not shown again; what stands twice in the log itself is never hidden."""
    kill(log_path, notes, "gone")
    lines = journalled(log_path)
    assert len(lines) == 20
    log_path.write_bytes(b"".join([*lines[:12], lines[3]]))

    expected = notes.ids()[:12] + notes.ids()[3:4] + notes.ids()[12:]
    assert ids_in(log_path) == expected
    report = verify_log(log_path)

    assert (report.records, report.in_journals, report.problem_counts) == (13, 8, {"duplicate": 1})


def test_gap_before_a_journals_first_line_is_found_and_named(log_path: Path):
    """What neither the log nor a journal has is missing, and the place named is the journal's."""
    leave(log_path, 5)
    (segment,) = journals(log_path).glob("*.jsonl")
    journal = Journal(str(journals(log_path)), GONE, Options())
    journal.mark(2, None)
    journal.close()

    [problem] = verify_log(log_path).problems

    assert (problem.kind, problem.file, problem.line) == ("gap", str(segment), 3)
    assert segment.read_bytes()[problem.offset :].startswith(b'{"record_id":"cdef-2"')
    assert "numbers 0 to 1" in problem.detail


def test_call_that_ended_in_a_journal_is_not_open(log_path: Path):
    """A call that began in the log and ended in a journal has ended."""
    tail = tail_of(GONE)
    start = seal(b'{"record_id":"a","event":"start","call_id":"c"', tail, 0)
    end = seal(b'{"record_id":"b","event":"response","call_id":"c"', tail, 1)
    log_path.write_bytes(start)
    assert verify_log(log_path).open_calls == 1
    journal = Journal(str(journals(log_path)), GONE, Options())
    journal.begin(1)
    assert journal.store([end]) == 1
    journal.close()

    assert verify_log(log_path).open_calls == 0


def test_half_a_line_at_a_journals_end_is_no_record_and_no_damage(log_path: Path):
    """A kill in the middle of a store leaves what no caller was told is kept."""
    ids = leave(log_path, 5)
    (segment,) = journals(log_path).glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-20])

    assert ids_in(log_path) == ids[:-1]
    assert verify_log(log_path).whole


# --- more than may be held -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", [0, 300])
def test_backlog_that_may_not_be_held_is_shown_once_all_the_same(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, home: int
):
    """What is more than memory may take comes before the log, and its copies there are passed over."""
    monkeypatch.setattr(_journal_read, "_HELD_BYTES", 20_000)
    ids = leave(log_path, 500)
    lines = journalled(log_path)
    log_path.write_bytes(b"".join([*lines[:home], *lines[7:home:1000]]))
    doubled = ids[7:home:1000]

    seen = ids_in(log_path)

    assert Counter(seen) == Counter([*ids, *doubled])
    assert seen[0] != ids[0], "nothing came early, so this shows nothing"


# argv: the log
MEASURE = """
import resource, sys
from ai_response_logging.reader import read_log
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
count = sum(1 for _ in read_log(sys.argv[1]))
print(count, peak() - before)
"""


def test_long_backlog_is_read_in_bounded_memory(log_path: Path):
    """A backlog of 60 MB in journals takes no more than 32 MB to read."""
    log_path.touch()
    journal = Journal(str(journals(log_path)), GONE, Options())
    journal.begin(0)
    body = b'{"record_id":"%%d","response":"%b"' % (b"x" * 900)
    tail = tail_of(GONE)
    assert journal.store([seal(body % seq, tail, seq) for seq in range(60_000)]) == 60_000
    journal.close()

    count, grown = map(int, run_child(MEASURE, log_path).stdout.split())

    assert count == 60_000
    assert grown < 32_000, "kB"


# --- while lines move ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["read_log", "verify_log"])
def test_what_moves_to_the_log_while_it_is_read_is_neither_missed_nor_doubled(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
):
    """All journals come home between a reader's two looks, whichever it takes first: each record is seen once."""
    ids = leave(log_path, 20)
    module: Any = reader if of == "read_log" else verify
    name = "journal_lines" if of == "read_log" else "Journals"
    looks: list[str] = []

    def between(look: str, made: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if looks:
                open_and_close(log_path)
                assert not journals(log_path).exists()
            looks.append(look)
            result = made(*args, **options)
            return iter(list(result)) if look == "journal_lines" else result

        return wrapped

    for one in (name, "LogSnapshot"):
        monkeypatch.setattr(module, one, between(one, getattr(module, one)))

    if of == "read_log":
        assert sorted(ids_in(log_path)) == sorted(ids)
    else:
        report = verify_log(log_path)
        assert (report.whole, report.records, report.in_journals) == (True, 20, 0)
    assert len(looks) == 2


@pytest.mark.parametrize("max_bytes", [0, 3_000_000], ids=["one file", "rotation"])
def test_each_look_beside_busy_writers_shows_all_that_was_accepted_once(log_path: Path, notes: Notes, max_bytes: int):
    """While lines move, segments are used again and files rotated, no accepted record is ever missing or doubled."""
    options = {"durability": "crash", "batch_size": 20, "flush_interval": 0.01, "max_bytes": max_bytes}
    looks = 0
    with ExitStack() as stack:
        ones = [stack.enter_context(writer(log_path, notes, **options)) for _ in range(2)]
        for number, one in enumerate(ones):
            one.log(f"first-{number}")
            one.send("log", f"w{number}", 1500, 4000)
        while looks < 3 or len(notes.ids()) < 3000:
            accepted = notes.ids()
            seen = Counter(ids_in(log_path))
            assert set(accepted) <= seen.keys()
            assert max(seen.values()) == 1
            report = verify_log(log_path)
            assert report.whole, report.problems
            assert report.records + report.in_journals >= len(accepted)
            looks += 1
        for one in ones:
            one.answer()
            one.end()

    assert looks > 2
    assert_kept(log_path, notes)


@pytest.mark.parametrize(
    "hole", [(0, 3), (4, 7), (0, 1), (8, 9)], ids=["at its begin", "in it", "its first", "one line"]
)
def test_segment_that_is_written_to_while_it_is_read_has_no_hole(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, hole: tuple[int, int]
):
    """A read passes a page before its lines are stored, and the next one behind that: what it missed is there."""
    log_path.touch()
    ids = leave(log_path, 12)
    real, looks = _journal_read.content, []
    lines = journalled(log_path)
    begin, end, seen = (sum(map(len, lines[:count])) for count in (*hole, 10))

    def content(path: str) -> bytes:
        data = real(path)
        if not path.endswith(".jsonl") or looks:
            return data
        looks.append(path)
        return data[:begin] + bytes(end - begin) + data[end:seen] + bytes(len(data) - seen)

    monkeypatch.setattr(_journal_read, "content", content)
    report = verify_log(log_path)
    assert (report.whole, report.in_journals) == (True, 10), report.problems
    looks.clear()
    assert ids_in(log_path) == ids[:10]
    assert looks


# --- what may not be read --------------------------------------------------------------------------------------------

USER = 4243
# argv: the log
READ_AS_USER = f"""
import json, os, sys
from ai_response_logging.cli import main
from ai_response_logging.reader import read_log
from ai_response_logging.verify import verify_log
os.setgroups([]); os.setgid({USER}); os.setuid({USER})
bad = []
ids = [record["record_id"] for record in read_log(sys.argv[1], on_bad=bad.append)]
report = verify_log(sys.argv[1])
print(json.dumps([ids, bad, report.to_dict()]))
"""


@pytest.fixture
def open_log() -> Iterator[Path]:
    """Return a log's path in a directory that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        if not all(os.stat(parent).st_mode & stat.S_IXOTH for parent in folder.parents):
            pytest.skip("other users cannot reach the directory for temporary files")
        yield folder / "log.jsonl"
    finally:
        shutil.rmtree(folder)


@is_root
@pytest.mark.parametrize("private", ["directory", "segment", "location"])
def test_journal_that_may_not_be_read_is_said_with_its_owner(open_log: Path, notes: Notes, private: str):
    """A reader who may not see a journal is told which and whose, and the rest is read; the log is not proven whole."""
    with writer(open_log, notes, durability="crash", file_mode=0o644, directory_mode=0o755) as one:
        one.log("home", 3)
        assert one.ask("flush")
        one.log("gone", 3)
        one.process.kill()
        one.process.wait()
    (segment,) = journals(open_log).glob("*.jsonl")
    location = journals(open_log) / "location"
    location.touch()
    closed = {"directory": journals(open_log), "segment": segment, "location": location}[private]
    closed.chmod(0)

    ids, bad, report = json.loads(run_child(READ_AS_USER, open_log).stdout)

    told = [BadLine(*one) for one in bad]
    shut = [location, closed] if private == "directory" else [closed]
    assert ids == notes.ids() if private == "location" else ids == notes.ids()[:3]
    assert [(one.file, one.line) for one in told] == [(str(path), 0) for path in shut]
    assert f"{closed} is owned by root with mode 0000" in told[-1].reason
    assert not report["whole"]
    assert [(one["kind"], one["file"]) for one in report["problems"]] == [("unread", str(path)) for path in shut]
    assert len(log_files(open_log)) == 1


def test_stranger_in_a_journals_place_is_said(log_path: Path):
    """A link where a segment is to be is not followed, and not passed over in silence."""
    ids = leave(log_path, 3)
    (segment,) = journals(log_path).glob("*.jsonl")
    other = "host-1-18c-ffffffffffffffff"
    leave(log_path, 2, other)
    segment.rename(segment.with_suffix(".moved"))
    segment.symlink_to(segment.with_suffix(".moved"))
    bad: list[BadLine] = []

    seen = [record["record_id"] for record in read_log(log_path, on_bad=bad.append)]

    assert seen == ["ffff-0", "ffff-1"]
    assert set(seen).isdisjoint(ids)
    assert [(one.file, one.line) for one in bad] == [(str(segment), 0)]
    assert "a symbolic link" in bad[0].reason


# --- the parent of children that are killed --------------------------------------------------------------------------

# argv as in PREAMBLE; the parent does nothing once its child is gone but wait for its own listener.
PARENT = """
attach(durability="crash", flush_interval=0.1)
log("parent")
handler.flush()
child = os.fork()
if not child:
    attach(durability="crash", flush_interval=1000, batch_size=10_000)
    for number in range(5):
        log(f"child-{number}")
    os.kill(os.getpid(), signal.SIGKILL)
home, replayed = threading.Event(), handler._pipeline.writer.bring_home


def bring_home(*args):
    replayed(*args)
    if handler.get_stats()["replayed"] == 5:
        home.set()


handler._pipeline.writer.bring_home = bring_home
assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it is the application's to reap"
assert home.wait(12), "less than the 30 s after which any listener looks"
stats()
"""


def test_idle_parent_brings_home_what_its_killed_child_left(log_path: Path, notes: Notes):
    """As soon as a child that it forked is gone a process brings that one's records home, with its next idle look."""
    run_child(PREAMBLE + PARENT, log_path, notes.path, "{}", timeout=18)

    assert notes.stats()[-1]["replayed"] == 5
    assert len(notes.ids()) == 6
    assert_kept(log_path, notes)


def test_only_a_process_that_has_forked_itself_looks_for_children():
    """The parent looks after its children, the child has none yet."""
    code = """
import os
from ai_response_logging._fork import has_forked
assert not has_forked()
for _ in range(2):  # the second one's parent has forked before
    child = os.fork()
    if not child:
        os._exit(has_forked())
    assert has_forked()
    assert os.waitpid(child, 0)[1] == 0
"""
    run_child(code)
