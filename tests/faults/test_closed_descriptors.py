"""The application closes descriptors that are ours, as daemonisers do, and opens its own files under their numbers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept
from helpers import assert_all_there_once, child_process, has_fork, run_child

from ai_response_logging._adopt import orphans

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow, has_fork]

EVERYTHING = 1 << 16

# Told to close everything, or a part of it, it opens its notes again and then so many files of its own.
CLOSING = OBEY.replace(
    "for line in sys.stdin",
    '''
_idle, _wait = threading.Event(), handler._pipeline.queue.wait


def wait(timeout):
    _idle.set()
    try:
        return _wait(timeout)
    finally:
        _idle.clear()


handler._pipeline.queue.wait = wait


def close_all(start, stop, opens=0):
    global _notes, own
    assert _idle.wait(15)  # else the listener may be about to close a number, as of a directory that it lists
    os.closerange(start, stop)
    _notes = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    own = [open(f"{NOTES}.{number}", "w+b", buffering=0) for number in range(opens)]


def own_files():
    return [os.fstat(one.fileno()).st_size for one in own]


def lose_lock():
    os.close(handler._pipeline.queue.journal._lock.fileno())


import fcntl


def lose_lock_at_note():
    """Lose the lock when an append is about to be noted, to somebody who then has the journal."""
    queue = handler._pipeline.queue
    real = queue.note

    def noting(intent):
        global taken
        queue.note = real
        lose_lock()
        fcntl.fcntl(0, fcntl.F_DUPFD, 512)  # takes its number: the other one is to be as another process
        taken = orphans(f"{LOG}.journal", 0o600)
        assert next(taken).first(1)
        real(intent)

    queue.note = noting


def leave():
    taken.close()


from ai_response_logging._adopt import orphans
does |= {"lose_lock_at_note": lose_lock_at_note, "leave": leave,
         "replay": lambda: handler._pipeline.writer.tidy_up(lambda: False, 5.0)}
does |= {"close_all": close_all, "own_files": own_files, "lose_lock": lose_lock}
for line in sys.stdin''',
)
OPTIONS = {"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01}


@contextlib.contextmanager
def closing(log: Path, notes: Notes, *, begin: str = "", **options: object) -> Iterator[Writer]:
    """Start a writer that closes descriptors when it is told to."""
    with child_process(begin + PREAMBLE + CLOSING, log, notes.path, json.dumps({**OPTIONS, **options})) as process:
        yield Writer(process)


def kill(one: Writer) -> None:
    """Kill a writer and reap it."""
    one.process.send_signal(signal.SIGKILL)
    assert one.process.wait() == -signal.SIGKILL


def open_and_close(log: Path, code: str = "") -> None:
    """Let another process open the log, which brings home what a writer that is gone has left; *code* runs before."""
    run_child(
        f"""
        import os, sys
        from ai_response_logging import _append
        from ai_response_logging.handler import AIResponseHandler

        {code}
        AIResponseHandler(sys.argv[1]).close()
        """,
        log,
        expect=None,
    )


@pytest.mark.parametrize(("stop", "opens"), [(256, 12), (EVERYTHING, 0), (EVERYTHING, 12)])
def test_killed_after_everything_was_closed_keeps_its_records(log_path: Path, notes: Notes, stop: int, opens: int):
    """What is logged before and after the application closes all descriptors survives a kill, its files too."""
    with closing(log_path, notes) as one:
        one.log("before", 3)
        one.ask("close_all", 3, stop, opens)
        one.log("after", 3)
        assert one.ask("own_files") == [0] * opens
        kill(one)
    open_and_close(log_path)

    assert notes.statuses() == {"queued"}
    assert_all_there_once(log_path, notes.ids())


@pytest.mark.parametrize("stop", [256, EVERYTHING])
def test_goes_on_writing_after_everything_was_closed(log_path: Path, notes: Notes, stop: int):
    """A flush and an end after all descriptors were closed leave each record in the log once, and no file of others."""
    with closing(log_path, notes) as one:
        one.log("before", 3)
        one.ask("close_all", 3, stop, 12)
        assert one.ask("flush")
        one.log("after", 3)
        log_path.rename(f"{log_path}.1")  # so that its own descriptor is closed, too
        assert one.ask("flush")
        assert one.ask("own_files") == [0] * 12
        one.end()

    assert_kept(log_path, notes)
    assert list(log_path.parent.glob("*.journal")) == []


def test_descriptor_that_the_application_got_is_not_closed(log_path: Path, notes: Notes):
    """Where a low limit leaves only low numbers, a file that the application has under one of ours stays open."""
    low = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
    with closing(log_path, notes, begin=low, durability="memory") as one:
        one.log("before", 3)
        assert one.ask("flush")
        one.ask("close_all", 3, 40, 33)
        log_path.rename(f"{log_path}.1")
        one.log("after", 3)
        one.ask("flush")  # with no descriptor left it may fail
        assert one.ask("own_files") == [0] * 33


@pytest.mark.parametrize("logs_between", [True, False])
@pytest.mark.parametrize("how", ["close_all", "lose_lock"])
def test_journal_that_another_process_brought_home_is_not_written_again(
    log_path: Path, notes: Notes, how: str, logs_between: bool
):
    """Records that another process took for a dead one's while their lock was closed are in the log once."""
    with closing(log_path, notes) as one:
        one.log("before", 3)
        one.ask(*(("close_all", 3, EVERYTHING) if how == "close_all" else ("lose_lock",)))
        open_and_close(log_path)
        assert_all_there_once(log_path, notes.ids())
        if logs_between:
            one.log("between", 3)
        assert one.ask("flush")
        one.log("after", 3)
        kill(one)
    open_and_close(log_path)

    assert_all_there_once(log_path, notes.ids())


def test_what_comes_after_another_process_took_an_empty_journal_is_kept(log_path: Path, notes: Notes):
    """A journal that was removed as a dead one's, with nothing waiting, is made anew before the next call returns."""
    with closing(log_path, notes) as one:
        one.log("before", 3)
        assert one.ask("flush")
        one.ask("close_all", 3, EVERYTHING)
        open_and_close(log_path)
        one.log("after", 3)
        kill(one)
    open_and_close(log_path)

    assert_all_there_once(log_path, notes.ids())


@pytest.mark.parametrize("when", ["before", "behind"])
def test_other_process_that_is_killed_while_it_brings_home_doubles_nothing(log_path: Path, notes: Notes, when: str):
    """A journal taken over, and left by a kill around the append, is taken back: each record is in the log once."""
    die = f"""
        real = _append.append_block

        def dying(*args, **options):
            {"real(*args, **options)" if when == "behind" else "pass"}
            os._exit(1)

        _append.append_block = dying
    """
    with closing(log_path, notes) as one:
        one.log("before", 3)
        one.ask("close_all", 3, EVERYTHING)
        open_and_close(log_path, die)
        assert log_path.read_bytes().count(b"\n") == (3 if when == "behind" else 0)
        one.log("between", 3)
        assert one.ask("flush")
        one.log("after", 3)
        kill(one)
    open_and_close(log_path)

    assert_all_there_once(log_path, notes.ids())


def test_own_journal_is_not_taken_for_a_dead_ones(log_path: Path, notes: Notes):
    """A process that has lost its lock and looks for dead writers' journals does not bring home its own beside it."""
    with closing(log_path, notes) as one:
        one.log("before", 3)
        one.ask("lose_lock")
        one.ask("replay")
        one.log("between", 3)
        assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)
    assert notes.stats()[-1]["replayed"] == 0


def test_lock_that_is_lost_in_the_middle_of_an_attempt_doubles_nothing(log_path: Path, notes: Notes):
    """An append is not begun once the journal that was to note it is somebody else's, and that one loses nothing."""
    with closing(log_path, notes, close_timeout=1) as one:
        one.log("before", 3)
        one.ask("lose_lock_at_note")
        assert not one.ask("flush")
        assert not log_path.read_bytes()
        one.ask("leave")
        assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)


def test_waits_while_another_process_has_its_journal(log_path: Path, notes: Notes):
    """While another process brings our journal home nothing of it is written by us; when that one leaves it, all is."""
    with closing(log_path, notes, close_timeout=1) as one:
        one.log("before", 3)
        one.ask("close_all", 3, EVERYTHING)
        with contextlib.closing(orphans(f"{log_path}.journal", 0o600)) as found:
            assert next(found).first(3)
            one.log("between", 3)
            assert not one.ask("flush")
            assert not log_path.exists() or not log_path.read_bytes()
        assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)


def test_child_forked_while_a_journal_is_made_does_not_hold_its_lock(log_path: Path, notes: Notes):
    """A child forked right behind the locking keeps nobody from bringing home what its killed parent left."""
    begin = """
        from ai_response_logging import _lock

        real = _lock.try_acquire

        def forking(lock):
            is_locked = real(lock)
            if not os.fork():
                signal.pause()
            return is_locked

        _lock.try_acquire = forking
    """
    with child_process(
        PREAMBLE + "import textwrap; exec(textwrap.dedent(OPTIONS.pop('begin')))" + OBEY,
        log_path,
        notes.path,
        json.dumps({**OPTIONS, "begin": begin}),
        is_fresh=True,
    ) as process:
        Writer(process).log("parent", 3)
        os.kill(process.pid, signal.SIGKILL)  # its children live on until the block ends
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        open_and_close(log_path)
        assert_all_there_once(log_path, notes.ids())
