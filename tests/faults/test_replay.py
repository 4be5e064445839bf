from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import json
import logging
import os
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _children import PREAMBLE, Notes, Writer, assert_kept, holding_the_lock, lock_file, writer
from helpers import (
    assert_all_there_once,
    child_process,
    has_fork,
    has_strace,
    is_root,
    log_files,
    read_lines,
    run_child,
)

from ai_response_logging import _rotate, read_log
from ai_response_logging._journal import Journal
from ai_response_logging._journal_format import Intent, lock_name, mark_name, segment_name, seq_of
from ai_response_logging._options import Options
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.record import seal, tail_of
from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GONE = "host-1-18c-0123456789abcdef"
ALSO_GONE = "host-1-18c-fedcba9876543210"
QUICK: dict[str, Any] = {"durability": "memory", "retry_delay": 0.01, "close_timeout": 5.0}
LIMIT = 200_000  # bytes a file may have where the log refuses: the log has more, a journal and the notes have less


def journals(log: Path) -> Path:
    """Return where the journals of *log* are."""
    return log.with_name(f"{log.name}.journal")


def lines_of(count: int, first_seq: int = 0, size: int = 50, writer_id: str = GONE) -> list[bytes]:
    """Return finished lines of a writer that is gone; their ids are `<end of the writer id>-<seq>`."""
    body = b'{"record_id":"%b-%%d","response":"%b"' % (writer_id[-3:].encode(), b"x" * size)
    return [seal(body % seq, tail_of(writer_id), seq) for seq in range(first_seq, first_seq + count)]


def ids_of(lines: list[bytes]) -> list[str]:
    """Return the ids of *lines*."""
    return [json.loads(line)["record_id"] for line in lines]


def leave(log: Path, *stores: list[bytes], mark: tuple[int, Intent | None] | None = None, gone: str = GONE) -> None:
    """Leave the journal of a writer that stored *stores*, one segment each, noted *mark*, and is gone."""
    journal = Journal(str(journals(log)), gone, Options.checked({"durability": "memory"}))
    for lines in stores:
        journal._begin_segment(seq_of(lines[0]), 0)
        assert journal.store(lines) == len(lines)
    if mark is not None:
        journal.mark(*mark)
    journal.close()


def open_and_close(log: Path, **options: Any) -> None:
    """Open the log as the next program does, log nothing, and close it."""
    handler = AIResponseHandler(log, **{**QUICK, **options})
    handler.close()


@contextlib.contextmanager
def refusing(log: Path, process: Writer) -> Iterator[None]:
    """Let *log* take nothing more from *process* (EFBIG) as long as the block lasts; smaller files still grow."""
    if not log.exists() or log.stat().st_size < LIMIT:
        open_and_close(log)
        with log.open("ab") as file:
            file.write(seal(b'{"record_id":"fill","response":"%b"' % (b"x" * LIMIT), tail_of("filler"), 0))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def assert_home(log: Path, notes: Notes) -> None:
    """Assert that each accepted record is there once, whole, and that no journal is left."""
    assert not journals(log).exists()
    if notes.stats():
        assert_kept(log, notes, sure=notes.ids())
    assert_all_there_once(log, notes.ids(), others=True)
    there = {record["record_id"] for file in log_files(log) for record in read_lines(file)}
    assert there.isdisjoint(notes.ids("failed")), "a record that was refused is in the log"


# --- a process ends while its log refuses --------------------------------------------------------------------------


def end_refused(log: Path, notes: Notes, prefix: str, **options: Any) -> None:
    """Let a process log and end while the log is too large for it."""
    with writer(log, notes, close_timeout=0.2, max_retries=0, **options) as one, refusing(log, one):
        assert set(one.log(prefix, 20)) == {"queued"}
        one.end()
    assert journals(log).is_dir()


def test_process_that_ends_refused_gives_its_records_to_the_next(log_path: Path, notes: Notes):
    """What a process could not write to its end stands in the log, once, after the next program has used it."""
    end_refused(log_path, notes, "first")

    with writer(log_path, notes) as two:
        two.log("second", 3)
        assert two.ask("flush")
        two.end()

    assert_home(log_path, notes)


def test_set_up_that_never_logs_brings_them_home_too(log_path: Path, notes: Notes):
    """Opening the log is enough."""
    end_refused(log_path, notes, "first")

    with writer(log_path, notes) as two:
        two.end()

    assert_home(log_path, notes)
    assert notes.stats()[-1]["replayed"] == 20
    assert notes.stats()[-1]["accepted"] == 0, "others' records are not ours"


def test_several_processes_that_end_refused_all_come_home(log_path: Path, notes: Notes):
    """Journals of many writers lie beside each other."""
    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(writer(log_path, notes, close_timeout=0.2, max_retries=0)) for _ in range(4)]
        for number, one in enumerate(ones):
            stack.enter_context(refusing(log_path, one))
            one.log(f"w{number}", 10)
        for one in ones:
            one.process.stdin.close()  # all at once
        for one in ones:
            assert one.process.wait() == 0, one.process.stderr.read()

    open_and_close(log_path)

    assert len(notes.ids()) == 40
    assert_home(log_path, notes)


def test_lock_that_is_never_free_is_outlived_by_the_records(log_path: Path, notes: Notes):
    """A stranger who never lets go of the lock costs no record of a process that ends meanwhile."""
    with writer(log_path, notes, close_timeout=0.2, lock_timeout=0.05) as one:
        with holding_the_lock(log_path):
            one.log("held", 20)
            one.end()
        assert journals(log_path).is_dir()

    open_and_close(log_path)

    assert_home(log_path, notes)


@pytest.mark.parametrize("when", ["before logging closes", "after logging has closed"])
def test_record_logged_after_the_end_is_never_lost(log_path: Path, notes: Notes, when: str):
    """What an exit callback logs while the log refuses is kept like all the rest, however late it comes."""
    late = "import atexit\natexit.register(lambda: log('late'))\n"
    code = late + PREAMBLE if when == "after logging has closed" else PREAMBLE + late
    options = json.dumps({"close_timeout": 0.2, "lock_timeout": 0.05, "caller_timeout": 0.05, "flush_interval": 1000})
    open_and_close(log_path)
    with holding_the_lock(log_path):
        run_child(code + "\nattach()\nlog('early')\n", log_path, notes.path, options)

    assert len(notes.ids()) == 2
    open_and_close(log_path)
    assert_home(log_path, notes)


# argv as in PREAMBLE
_LATE_THREADS = """
def some(number):
    begin.wait()
    for count in range(5):
        log(f"late-{number}-{count}")


def all_late():
    begin.wait()
    for thread in threads:
        thread.join()


begin = threading.Barrier(7)
threads = [threading.Thread(target=some, args=(number,), daemon=True) for number in range(6)]
for thread in threads:
    thread.start()
attach()
log("early")
handler.close()
"""


def test_threads_that_log_at_the_end_are_told_the_truth(log_path: Path, notes: Notes):
    """Threads that log while the process ends and the log refuses: what is kept comes home once, what failed never."""
    options = {"close_timeout": 0.1, "lock_timeout": 0.01, "caller_timeout": 0.01, "flush_interval": 1000}
    code = f"import atexit\natexit.register(lambda: all_late())\n{PREAMBLE}{_LATE_THREADS}"
    open_and_close(log_path)
    with holding_the_lock(log_path):
        run_child(code, log_path, notes.path, json.dumps(options))

    assert len([note for note in notes.read() if "id" in note]) == 31
    open_and_close(log_path)
    assert_home(log_path, notes)


def test_writer_on_its_own_keeps_what_is_refused(log_path: Path):
    """A BatchFileHandler behind a stock listener leaves a journal just as the whole chain does."""
    code = """
    import logging, sys
    from ai_response_logging.writer import BatchFileHandler
    logging.raiseExceptions = False
    handler = BatchFileHandler(sys.argv[1], durability="memory", close_timeout=0.1, lock_timeout=0.02, max_retries=0)
    for number in range(5):
        handler.handle(logging.makeLogRecord({"msg": "m", "record_id": f"r-{number}"}))
    handler.close()
    """
    open_and_close(log_path)
    with holding_the_lock(log_path):
        run_child(code, log_path)

    open_and_close(log_path)
    assert_all_there_once(log_path, [f"r-{number}" for number in range(5)])


# --- a process goes on ---------------------------------------------------------------------------------------------


def test_process_that_goes_on_after_close_doubles_nothing(log_path: Path, notes: Notes):
    """A log that accepts again gets what waited from the process itself; its journal is gone then."""
    with writer(log_path, notes, durability="memory", close_timeout=0.2, max_retries=0) as one:
        with refusing(log_path, one):
            one.log("before", 20)
            one.ask("close")
            assert journals(log_path).is_dir()
        one.log("after", 5)
        assert one.ask("flush")
        assert not journals(log_path).exists()
        one.end()

    open_and_close(log_path)
    assert_home(log_path, notes)


def test_process_that_is_killed_after_close_keeps_what_it_stored(log_path: Path, notes: Notes):
    """From the close on, what waited survives SIGKILL as well, in part at home or not."""
    with writer(log_path, notes, close_timeout=0.2, max_retries=0) as one:
        with refusing(log_path, one):
            one.log("before", 20)
            one.ask("close")
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()

    open_and_close(log_path)
    assert_home(log_path, notes)


def test_close_again_and_again_while_refused_keeps_all(log_path: Path, notes: Notes):
    """Each close stores what has come since the last; nothing is stored twice."""
    with writer(log_path, notes, close_timeout=0.1, max_retries=0) as one, refusing(log_path, one):
        for number in range(4):
            one.log(f"round{number}", 5)
            one.ask("close")
        one.end()

    open_and_close(log_path)
    assert_home(log_path, notes)


@has_fork
def test_child_of_a_process_with_a_journal_neither_doubles_nor_holds_it(log_path: Path, notes: Notes):
    """A forked child logs as a writer of its own, and its parent's records come home while it lives."""
    code = (
        PREAMBLE
        + """
attach()
log('parent')
handler.close()  # refused: a journal
child = os.fork()
if child == 0:
    log('child')
    handler.close()
    print('stored', flush=True)
    sys.stdin.read()
sys.stdin.read()
"""
    )
    options = json.dumps({"close_timeout": 0.1, "lock_timeout": 0.02, "flush_interval": 1000})
    open_and_close(log_path)
    with contextlib.ExitStack() as stack:
        with holding_the_lock(log_path):
            parent = stack.enter_context(child_process(code, log_path, notes.path, options, is_fresh=True))
            assert parent.stdout.readline() == "stored\n"
            os.kill(parent.pid, signal.SIGKILL)
            os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)  # its group stays ours to end
        open_and_close(log_path)
        assert "parent" in [line["record_id"] for line in read_lines(log_path)]
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.read()  # until the child is gone as well

    open_and_close(log_path)
    assert_home(log_path, notes)


# --- adopters ------------------------------------------------------------------------------------------------------


def test_twenty_thousand_lines_come_home_in_bounded_memory(log_path: Path):
    """One program that opens the log and closes it brings a long journal home, a segment at a time."""
    lines = lines_of(20_000, size=2000)
    leave(log_path, lines)
    code = """
    import resource, sys
    from ai_response_logging.handler import AIResponseHandler
    AIResponseHandler(sys.argv[1], durability="memory").close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = AIResponseHandler(sys.argv[2], durability="memory", close_timeout=15)
    handler.close()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
    """

    grown_mib = int(run_child(code, log_path.with_name("empty"), log_path).stdout)

    assert_all_there_once(log_path, ids_of(lines))
    assert not journals(log_path).exists()
    assert grown_mib < 20, "the journal has 44 MiB"


def test_program_that_ends_while_it_brings_lines_home_finishes_first(log_path: Path):
    """An adopter whose close finds its thread in the middle of a journal does not leave the rest to the next."""
    lines = lines_of(12, size=900_000)
    leave(log_path, lines)

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))
    assert not journals(log_path).exists()


def test_two_adopters_at_once_bring_each_line_once(log_path: Path, notes: Notes):
    """Programs that start together share the work or leave it to one; none does it twice."""
    gone = {GONE: lines_of(500), ALSO_GONE: lines_of(500, writer_id=ALSO_GONE)}
    for writer_id, lines in gone.items():
        leave(log_path, *(lines[at : at + 25] for at in range(0, 500, 25)), gone=writer_id)

    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(writer(log_path, notes, max_bytes=20_000)) for _ in range(3)]
        for one in ones:
            one.send("flush")
        for one in ones:
            assert one.answer()
            one.end()

    open_and_close(log_path)
    assert_all_there_once(log_path, [id_ for lines in gone.values() for id_ in ids_of(lines)])
    assert not journals(log_path).exists()


def test_log_that_refuses_the_adopter_too_keeps_the_journal(log_path: Path, notes: Notes):
    """An adopter that may not write either leaves all as it was; the next one brings it home, once."""
    lines = lines_of(20)
    leave(log_path, lines)

    one_left = writer(log_path, notes, close_timeout=0.2, max_retries=0, lock_timeout=0.05)
    with one_left as one, holding_the_lock(log_path):
        one.ask("flush")
        one.log("mine", 3)
        one.end()
    open_and_close(log_path)

    assert_all_there_once(log_path, [*ids_of(lines), *notes.ids()])
    assert not journals(log_path).exists()


@is_root
def test_journal_of_another_user_stays_and_hurts_nobody(log_path: Path):
    """Whoever may write the log but not open the journal beside it logs as ever; its owner brings it home later."""
    lines = lines_of(5)
    open_and_close(log_path, file_mode=0o666)
    leave(log_path, lines)
    for parent in [log_path.parent, *log_path.parent.parents]:
        parent.chmod(parent.stat().st_mode | 0o055)
    log_path.parent.chmod(0o777)
    code = """
    import logging, os, sys
    from ai_response_logging.handler import AIResponseHandler
    os.setuid(65534)
    handler = AIResponseHandler(sys.argv[1], durability="memory")
    print(handler.submit(logging.makeLogRecord({"msg": "m", "record_id": "other"})), handler.flush())
    handler.close()
    """

    assert run_child(code, log_path).stdout.split() == ["queued", "True"]
    assert_all_there_once(log_path, ["other"])

    open_and_close(log_path)
    assert_all_there_once(log_path, ["other", *ids_of(lines)])


def test_journal_that_cannot_be_read_does_not_keep_the_others_back(log_path: Path):
    """One segment that is no file any more costs no other writer's lines."""
    leave(log_path, lines_of(5))
    leave(log_path, others := lines_of(5, writer_id=ALSO_GONE), gone=ALSO_GONE)
    broken = journals(log_path) / segment_name(GONE, 0)
    broken.unlink()
    broken.mkdir()

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(others))
    assert (journals(log_path) / lock_name(GONE)).exists()


def test_tail_that_is_half_written_costs_only_itself(log_path: Path):
    """A writer killed in the middle of a store leaves half a line: nothing of it reaches the log."""
    lines = lines_of(10)
    leave(log_path, lines)
    with (journals(log_path) / segment_name(GONE, 0)).open("ab") as segment:
        segment.write(lines_of(1, 10)[0][:-5])

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))
    assert not journals(log_path).exists()


# --- what became of the log meanwhile ------------------------------------------------------------------------------


def write_log(log: Path, *lines: bytes) -> tuple[int, int, int]:
    """Append *lines* to the log as another writer would; return device, inode and where they begin."""
    with log.open("ab") as file:
        start = file.tell()
        file.write(b"".join(lines))
        info = os.fstat(file.fileno())
    return info.st_dev, info.st_ino, start


def rotate(log: Path) -> Path:
    """Rename the log as a rotation does."""
    return log.rename(f"{log}.20261124T000000.000000Z")


def compress(path: Path) -> None:
    """Put a compressed file in the place of *path*."""
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def becomes_another(log: Path, number: int) -> None:
    """Let the log be replaced by one that has grown as a busy log does, perhaps under the old one's inode."""
    write_log(log, *lines_of(30, size=100, writer_id=f"busy-{number}"))


MEANWHILE = {
    "nothing": Path.touch,
    "others wrote": lambda log: becomes_another(log, 0),
    "rotated": rotate,
    "rotated, others wrote": lambda log: (rotate(log), becomes_another(log, 0)),
    "rotated and compressed": lambda log: compress(rotate(log)),
    "compressed, others wrote": lambda log: (compress(rotate(log)), becomes_another(log, 0)),
    "renamed by logrotate": lambda log: (log.rename(f"{log}.1"), becomes_another(log, 0)),
    "renamed and compressed by logrotate": lambda log: (compress(log.rename(f"{log}.1")), becomes_another(log, 0)),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("arrived", [10, 4, 0])
def test_intent_that_was_not_settled_brings_what_is_missing(log_path: Path, arrived: int, meanwhile: str):
    """Of a block that was being appended when its writer was killed, the bytes decide, wherever they lie by now."""
    lines, old, busy = lines_of(20), lines_of(7, writer_id="old"), lines_of(30, writer_id="busy-0")
    write_log(log_path, *old)
    device, inode, start = write_log(log_path, *lines[:arrived])
    leave(log_path, lines[:12], lines[12:], mark=(0, Intent(device, inode, start, 10, 0)))
    MEANWHILE[meanwhile](log_path)

    open_and_close(log_path)

    have_others_written = "wrote" in meanwhile or "logrotate" in meanwhile
    assert_all_there_once(log_path, ids_of([*lines, *old, *(busy if have_others_written else [])]))
    assert not journals(log_path).exists()


def test_block_that_was_torn_in_a_line_is_made_whole(log_path: Path):
    """A writer killed in the middle of a line: that line comes once, the piece of it is set aside."""
    lines = lines_of(20)
    device, inode, start = write_log(log_path, *lines[:4], lines[4][:30])
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))
    assert [path.read_bytes() for path in log_path.parent.glob("*.torn-*")] == [lines[4][:30]]


@pytest.mark.parametrize("others", [False, True], ids=["alone", "others wrote"])
@pytest.mark.parametrize(("arrived", "piece"), [(4, 30), (4, 1), (4, -1), (0, 30), (0, -1)])
def test_log_renamed_behind_a_writer_killed_in_mid_line_keeps_no_piece_of_it(
    log_path: Path, arrived: int, piece: int, others: bool
):
    """A rename right after the kill: the line comes once, and no reader meets its piece in the old file."""
    lines = lines_of(20)
    device, inode, start = write_log(log_path, *lines[:arrived], lines[arrived][:piece])
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    log_path.rename(f"{log_path}.1")
    if others:
        becomes_another(log_path, 0)

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of([*lines, *(lines_of(30, writer_id="busy-0") if others else [])]))
    assert Path(f"{log_path}.1").read_bytes() == b"".join(lines[:arrived])
    assert verify_log(log_path).whole


@pytest.mark.parametrize("tail", ["another's", "no piece of it", "locked", "in another file"])
def test_torn_tail_of_a_renamed_log_that_may_be_somebody_elses_is_left_alone(log_path: Path, tail: str):
    """Cut off is only what is a piece of the very next line, in the very file, with nobody at work there."""
    lines = lines_of(20)
    device, inode, start = write_log(log_path, *lines[:4] if tail != "in another file" else [])
    torn = {"another's": b"torn", "no piece of it": lines[4][:30] + b"!"}.get(tail, lines[4][:30])
    if tail == "in another file":
        torn, inode = lines[0][:30], inode + 1
    with log_path.open("ab") as file:
        file.write(torn)
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    renamed = log_path.rename(f"{log_path}.1")
    with renamed.open("rb") as file:
        if tail == "locked":
            fcntl.flock(file, fcntl.LOCK_EX)
        open_and_close(log_path)

    assert renamed.read_bytes().endswith(torn)
    assert Counter(record["record_id"] for record in read_log(log_path)) == Counter(ids_of(lines))


@pytest.mark.parametrize("meanwhile", ["rotated", "compressed"])
def test_inode_that_the_next_log_has_got_does_not_hide_what_arrived(log_path: Path, meanwhile: str):
    """File systems give a freed inode to the next file; the intent's bytes are still where they went."""
    lines = lines_of(10)
    device, _, start = write_log(log_path, *lines)
    rotated = rotate(log_path)
    if meanwhile == "compressed":
        compress(rotated)
    _, inode, _ = write_log(log_path, *lines_of(30, size=100, writer_id="busy-0"))
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))

    open_and_close(log_path)

    assert_all_there_once(log_path, [*ids_of(lines), *ids_of(lines_of(30, writer_id="busy-0"))])


def test_device_that_has_another_number_since_does_not_hide_what_arrived(log_path: Path):
    """A container that starts again, or a disk mounted again, has another device number; the file is the same."""
    lines = lines_of(10)
    device, inode, start = write_log(log_path, *lines)
    leave(log_path, lines, mark=(0, Intent(device + 1, inode, start, 10, 0)))

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))


@pytest.mark.parametrize("packed", [False, True])
def test_stranger_who_appended_between_look_and_write_does_not_hide_what_arrived(log_path: Path, packed: bool):
    """An `echo >>` takes no lock: a block that it has shifted before its writer was killed comes home once."""
    lines, strangers = lines_of(10), lines_of(1, size=5000, writer_id="stranger")
    device, inode, start = write_log(log_path, *strangers, *lines[:6])
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    if packed:
        compress(rotate(log_path))

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of([*lines, *strangers]))


@pytest.mark.parametrize("moves", ["rename", "compress", "compress by logrotate"])
def test_file_that_moves_while_it_is_looked_for_does_not_hide_what_arrived(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, moves: str
):
    """Old files are renamed and compressed without our lock, also between an adopter's listing and its look."""
    lines, list_files, listings = lines_of(10), _rotate.files_of, []
    device, inode, start = write_log(log_path, *lines)
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    first = log_path.rename(f"{log_path}.1") if moves != "compress" else rotate(log_path)
    write_log(log_path, *lines_of(1, writer_id="busy-0"))

    def move_behind(path: str) -> list[str]:
        found = list_files(path)
        if sys._getframe(1).f_code is _rotate.numbered.__code__ and not listings:
            if moves == "rename":
                first.rename(f"{log_path}.2")
            else:
                compress(first)
        listings.append(found)
        return found

    monkeypatch.setattr(_rotate, "files_of", move_behind)
    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of([*lines, *lines_of(1, writer_id="busy-0")]))
    assert listings


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_compressed_file_that_cannot_be_read_now_is_asked_again_before_anything_is_doubled(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """Where nobody can say what has arrived, the journal waits for who can."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    lines = lines_of(10)
    device, inode, start = write_log(log_path, *lines)
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    compress(rotate(log_path))

    def refuse(*_: object) -> None:
        raise OSError(number, "not now")

    with monkeypatch.context() as refusing:
        refusing.setattr(gzip, "open", refuse)
        open_and_close(log_path)
        assert journals(log_path).exists()

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))
    assert not journals(log_path).exists()


def test_log_deleted_with_an_open_intent_gets_all_that_the_journal_has(log_path: Path):
    """What somebody deleted is gone, and what is still in the journal comes home."""
    lines = lines_of(10)
    device, inode, start = write_log(log_path, *lines[:6])
    leave(log_path, lines, mark=(0, Intent(device, inode, start, 10, 0)))
    log_path.unlink()

    open_and_close(log_path)

    assert_all_there_once(log_path, ids_of(lines))


# --- killed at each call -------------------------------------------------------------------------------------------

_ADOPT = (
    PREAMBLE
    + """
attach()
handler.flush()
handler.close()
"""
)
_ADOPTING = {"durability": "memory", "max_bytes": 2500, "flush_interval": 1000}


def killing(trace: Path, call: str, number: int, paths: list[Path]) -> list[str]:
    """Return the command that kills a process, with all its threads, at the *number*-th such call on one of *paths*."""
    on = [word for path in paths for word in ("-P", str(path))]
    pattern = f"/^{call}(at|at2)?$" if call in {"rename", "unlink", "mkdir"} else call
    inject = ("-e", f"trace={pattern}", "-e", f"inject={pattern}:signal=SIGKILL:when={number}")
    return ["strace", "-qq", "-f", "-o", str(trace), *on, *inject]


def numbers(every: int) -> range:
    """Return at which of its calls a process is killed: all in a full run, else each *every*-th from any on."""
    every = 1 if "AI_RESPONSES_TEST_EVERY_POINT" in os.environ else every
    return range(random.SystemRandom().randint(1, every), 100, every)


def scene(log: Path) -> list[str]:
    """Leave a log with a torn tail, and a journal of three segments whose first block has arrived in part."""
    lines, old = lines_of(60), lines_of(5, writer_id="old")
    device, inode, start = write_log(log, *old, *lines[:4])
    write_log(log, lines[4][:40])
    start += len(b"".join(old))
    leave(log, lines[:20], lines[20:40], lines[40:], mark=(0, Intent(device, inode, start, 10, 0)))
    return [*ids_of(lines), *ids_of(old)]


@has_strace
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("call", "least", "every"),
    [
        ("openat", 6, 3), ("pwrite64", 4, 1), ("write", 3, 1), ("flock", 6, 3), ("unlink", 3, 1), ("ftruncate", 1, 1),
        ("rename", 1, 1),
    ],
)  # fmt: skip
def test_adopter_killed_at_any_call_leaves_each_record_once(
    tmp_path: Path, notes: Notes, call: str, least: int, every: int
):
    """Whichever call an adopter is killed at, a third process finds each record exactly once."""
    fired = 0
    for number in numbers(every):
        log = tmp_path / str(number) / "ai_responses.jsonl"
        log.parent.mkdir()
        expected = scene(log)
        names = [mark_name(GONE), lock_name(GONE), *(segment_name(GONE, seq) for seq in (0, 20, 40))]
        paths = [log, lock_file(log), *(journals(log) / name for name in names)]
        command, *options = [*killing(tmp_path / "trace", call, number, paths)]
        done = run_child(
            _ADOPT, log, notes.path, json.dumps(_ADOPTING), python=command, options=[*options, sys.executable],
            expect=None,
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        fired += 1
        open_and_close(log, max_bytes=2500)
        assert not journals(log).exists(), f"left at {call} {number}: {os.listdir(journals(log))}"
        assert_all_there_once(log, expected)

    assert fired >= least // every
    assert_all_there_once(log, expected)


_STASH = (
    PREAMBLE
    + f"""
from ai_response_logging import _queue
_queue.new_writer_id = lambda: {GONE!r}
attach()
for number in range(20):
    log(f"r-{{number}}")
handler.close()
"""
)


@has_strace
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("call", "least", "every"),
    [("openat", 2, 1), ("mkdir", 1, 1), ("pwrite64", 20, 5), ("fallocate", 1, 1), ("flock", 1, 1), ("fchmod", 2, 1)],
)
def test_writer_killed_while_it_stashes_leaves_nothing_half(tmp_path: Path, call: str, least: int, every: int):
    """Killed at any call of the stash: what was stored comes home, once and whole, and nothing stands in the way."""
    fired = 0
    for number in numbers(every):
        log, notes = tmp_path / str(number) / "ai_responses.jsonl", Notes(tmp_path / f"notes{number}")
        open_and_close(log)
        paths = [journals(log), *(journals(log) / name for name in (lock_name(GONE), segment_name(GONE, 0)))]
        command, *options = killing(tmp_path / "trace", call, number, paths)
        chosen = {"close_timeout": 0.05, "lock_timeout": 0.02, "flush_interval": 1000, "batch_size": 1000}
        with holding_the_lock(log):
            done = run_child(
                _STASH, log, notes.path, json.dumps(chosen), python=command, options=[*options, sys.executable],
                expect=None,
            )  # fmt: skip
        open_and_close(log)
        assert os.listdir(journals(log)) == [] if journals(log).exists() else True
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        fired += 1
        there = [line["record_id"] for line in read_lines(log)]
        assert there == [f"r-{number}" for number in range(len(there))]

    assert fired >= least // every
    assert len(notes.ids()) == 20
    assert_all_there_once(log, [f"r-{number}" for number in range(20)])


# Argument 1: the log. Three processes are killed that have 300 answers of 64 KiB under way each.
MANY_LARGE_LEFT = """
import os, sys
from ai_response_logging import configure, log_ai_response

children = []
for number in range(3):
    if not (pid := os.fork()):
        configure(filename=sys.argv[1], batch_size=10_000, flush_interval=1000, queue_max_size=10_000)
        for answer in range(300):
            log_ai_response(record_id=f"{number}-{answer}", response="x" * 65536)
        os.kill(os.getpid(), 9)
    children.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
"""
BRING_HOME = """
import sys
from ai_response_logging import configure
configure(filename=sys.argv[1]).close()
"""


@has_strace
def test_much_that_was_left_comes_home_in_few_writes(tmp_path: Path, log_path: Path):
    """Fewer than twenty, marks included: at each of them whoever brings it home may be killed, and the rest waits."""
    assert run_child(MANY_LARGE_LEFT, log_path).stdout == "[-9, -9, -9]\n"
    calls = "write,writev,pwrite64,pwritev"
    strace = ["-qq", "-f", "-y", "-e", f"trace={calls}", "-o", str(tmp_path / "trace"), sys.executable]

    run_child(BRING_HOME, log_path, python="strace", options=strace)

    assert_all_there_once(log_path, {f"{number}-{answer}" for number in range(3) for answer in range(300)})
    trace = (tmp_path / "trace").read_text("utf-8", "replace")
    assert sum(str(log_path) in row for row in trace.splitlines()) < 20
