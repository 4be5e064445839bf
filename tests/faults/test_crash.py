"""Durability `crash`: a record whose call has returned outlives its process, however that one ends."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from _children import PREAMBLE, Notes, SmallDisk, assert_kept, holding_the_lock, writer
from helpers import assert_all_there_once, is_root, run_child

from ai_response_logging import AIResponseHandler

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def journals(log: Path) -> Path:
    """Return where the journals of *log* are."""
    return log.with_name(f"{log.name}.journal")


def open_and_close(log: Path) -> None:
    """Open the log as the next program does, and close it."""
    AIResponseHandler(log).close()


def assert_all_home(log: Path, notes: Notes) -> None:
    """Assert that after the next program has opened the log each record is there, once, and no journal is left."""
    open_and_close(log)
    assert not journals(log).exists()
    assert_all_there_once(log, notes.ids(), others=True)


@pytest.mark.parametrize("count", [1, 20, 999, 3000])
def test_killed_after_its_calls_returned_all_records_come_home_once(log_path: Path, notes: Notes, count: int):
    """SIGKILL with records in the queue, none of them flushed: all are in the log after the next program."""
    with writer(log_path, notes, durability="crash") as one:
        assert set(one.log("r", count, 500)) <= {"queued", "written_sync"}
        one.process.send_signal(signal.SIGKILL)
        assert one.process.wait() == -signal.SIGKILL
    assert len(notes.ids()) == count
    before = log_path.read_bytes().count(b"\n")
    assert before < count, "the kill came too late to show anything"

    assert_all_home(log_path, notes)


@pytest.mark.parametrize("end", ["os._exit(9)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_signal_handler_that_logs_while_the_journal_is_opened_and_ends_the_process_loses_nothing(
    log_path: Path, notes: Notes, end: str
):
    """What a handler logs is kept although the opening that it interrupts never comes to its end."""
    code = f"""
from ai_response_logging import _journalling
attach(batch_size=10_000, flush_interval=1000)
log("first")
handler.close()  # as somebody's dictConfig does; the next record opens the journal again

def on_signal(*_):
    log("last words")
    {end}

def interrupted(*arguments, **named):
    _journalling.Journal = real
    signal.raise_signal(signal.SIGTERM)

handler._pipeline.writer.tidy_up = lambda *_: True  # the listener is not so quick as to open it meanwhile
signal.signal(signal.SIGTERM, on_signal)
real, _journalling.Journal = _journalling.Journal, interrupted
log("interrupted")
"""
    run_child(PREAMBLE + code, log_path, notes.path, "{}", expect=None)

    run_child(PREAMBLE + "attach(); handler.close()", log_path, notes.path.with_name("none"), "{}")
    assert notes.ids("queued", "written") == ["first", "last words"]
    assert_all_there_once(log_path, notes.ids(), others=True)


def test_recursion_that_logs_until_the_stack_is_full_and_is_killed_keeps_what_was_accepted(
    log_path: Path, notes: Notes
):
    """A call that has just enough stack to take its record has enough to keep it as well."""
    code = """
attach(batch_size=10_000, flush_interval=1000)

def deeper(name):
    record = logger.makeRecord("ai_responses", 20, "", 0, "deep", (), None, extra={"record_id": name})
    handler.handle(record)
    os.write(_notes, b'{"pid": 1, "id": "%b", "status": "%b"}\\n' % (name.encode(), record.ai_status.encode()))
    deeper(name + "x")

for start in "abc":
    try:
        deeper(start)
    except RecursionError:
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_child(PREAMBLE + code, log_path, notes.path, "{}", expect=-signal.SIGKILL)

    run_child(PREAMBLE + "attach(); handler.close()", log_path, notes.path.with_name("none"), "{}")
    assert len(notes.ids("queued")) > 300
    # Others: where a call has returned, and there was no stack to note it.
    assert_all_there_once(log_path, notes.ids("queued"), others=True)


def test_killed_under_load_while_the_listener_writes_loses_nothing(log_path: Path, notes: Notes):
    """SIGKILL at a random moment between appends, marks and stores, several times over, adopters included."""
    for round_number in range(6):
        with ExitStack() as stack:
            options = {"durability": "crash", "batch_size": 3, "flush_interval": 0.001}
            ones = [stack.enter_context(writer(log_path, notes, **options)) for _ in range(3)]
            for number, one in enumerate(ones):
                one.log(f"first{round_number}-{number}", 1)
                one.send("log", f"load{round_number}-{number}", 100_000, 1000)
            while len(notes.read()) < (round_number + 1) * 300:
                assert all(one.process.poll() is None for one in ones)
            for one in ones:
                one.process.send_signal(signal.SIGKILL)
                one.process.wait()

    assert_all_home(log_path, notes)


ENDS = {
    "os._exit": "os._exit(7)",
    "abort": "os.abort()",
    "execv": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "default SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "crash in C": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("end", ENDS)
def test_process_that_ends_without_a_word_keeps_its_records(log_path: Path, notes: Notes, end: str):
    """Ends that run no hook of ours take nothing along."""
    code = f'{PREAMBLE}\nattach(durability="crash")\nfor n in range(20):\n    log(f"r-{{n}}")\n{ENDS[end]}\n'
    run_child(code, log_path, notes.path, '{"batch_size": 10000, "flush_interval": 1000}', expect=None)

    assert notes.ids() == [f"r-{number}" for number in range(20)]
    assert log_path.read_bytes() == b""
    assert_all_home(log_path, notes)


def test_killed_child_of_a_fork_and_its_parent_both_keep_theirs(log_path: Path, notes: Notes):
    """A forked child has a journal of its own; killed beside its parent, neither loses nor doubles a record."""
    code = f"""{PREAMBLE}
attach(durability="crash")
for n in range(5):
    log(f"parent-{{n}}")
if not os.fork():
    for n in range(5):
        log(f"child-{{n}}")
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
for n in range(5, 10):
    log(f"parent-{{n}}")
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_child(code, log_path, notes.path, '{"batch_size": 10000, "flush_interval": 1000}', expect=-signal.SIGKILL)

    assert len(notes.ids()) == 15
    assert_all_home(log_path, notes)


def test_spilled_records_of_a_killed_process_come_home(log_path: Path, notes: Notes):
    """Queue full, log locked by a stranger, then SIGKILL: what the calls said was spilled is there, once."""
    options = {"queue_max_size": 5, "caller_timeout": 0.01, "lock_timeout": 0.01}
    with writer(log_path, notes, durability="crash", **options) as one, holding_the_lock(log_path):
        statuses = one.log("r", 40)
        assert (statuses.count("queued"), statuses.count("spilled")) == (5, 35)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()

    assert_all_home(log_path, notes)


def test_full_disk_spills_and_comes_home_without_a_restart(small_disk: SmallDisk, tmp_path: Path, notes: Notes):
    """A log whose disk is full spills into a journal on another one, and gets all of it when there is room again."""
    log = small_disk.path / "a.jsonl"
    options = {"queue_max_size": 5, "journal_directory": str(tmp_path / "elsewhere"), "flush_interval": 0.05}
    with writer(log, notes, durability="crash", **options) as one:
        one.log("before", 3)
        assert one.ask("flush")
        small_disk.fill()
        statuses = one.log("r", 100, 1000)
        assert statuses.count("spilled") > 50
        assert "failed" not in statuses
        small_disk.clear()
        assert one.ask("all_home")
        one.end()

    assert_all_there_once(log, notes.ids())


@is_root
def test_process_that_gives_up_its_rights_goes_on_and_is_honest(others_directory: Path):
    """A server that starts as root and then becomes nobody: it keeps records as long as it can, then says so."""
    code = f"""{PREAMBLE}
attach(durability="crash")
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
log("first")
assert stats()["durability"] == "crash"
for number in range(20):
    log(f"r-{{number}}", 100_000)
assert stats()["durability"] == "memory"
handler.close()
stats()
"""
    notes, log = Notes(others_directory / "notes"), others_directory / "log.jsonl"
    run_child(code, log, notes.path, '{"batch_size": 10000, "flush_interval": 1000}')

    assert_kept(log, notes, sure=notes.ids())
    assert set(notes.ids()) == {"first", *(f"r-{number}" for number in range(20))}
