from __future__ import annotations

import errno
import json
import textwrap
from pathlib import Path

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept, lock_file, writer
from helpers import child_process, has_strace

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


class Injector:
    """Makes a system call fail on one file, in a writer and all its threads."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def wrap(self, call: str, fault: str, on: Path) -> list[str]:
        """Return the command to put in front of the interpreter."""
        return [
            *("strace", "-qq", "-f", "-o", str(self.trace), "-P", str(on)),
            *("-e", f"trace={call}", "-e", f"inject={call}:{fault}"),
        ]

    def fired(self) -> int:
        """Return how often the call failed because we said so."""
        return self.trace.read_text("utf-8").count("(INJECTED)")


@pytest.fixture
def injector(tmp_path: Path) -> Injector:
    """Return what makes system calls fail."""
    return Injector(tmp_path / "trace")


@has_strace
@pytest.mark.parametrize("error", ["EIO", "EDQUOT", "EAGAIN", "EROFS", "EINTR"])
def test_write_refused_a_few_times_is_tried_again_and_nothing_is_doubled(
    log_path: Path, notes: Notes, injector: Injector, error: str
):
    """A log that refuses three writes in a row gets every record once, by the attempts that follow."""
    with writer(log_path, notes, wrap=injector.wrap("write", f"error={error}:when=2..4", log_path)) as one:
        one.log("first", 3)
        assert one.ask("flush")
        one.log("second", 3)
        assert one.ask("flush")
        one.log("third", 3)
        one.end()

    assert injector.fired() == 3
    assert_kept(log_path, notes)
    # The interpreter itself tries again after EINTR (PEP 475).
    assert notes.stats()[-1]["retried"] == (0 if error == "EINTR" else 3)


@has_strace
def test_every_other_write_refused_keeps_the_order_and_each_record_once(
    log_path: Path, notes: Notes, injector: Injector
):
    """Under an error that comes again and again, with a listener at work, each record still arrives exactly once."""
    wrap = injector.wrap("write", "error=EIO:when=1+2", log_path)
    with writer(log_path, notes, wrap=wrap, batch_size=2, flush_interval=0.01) as one:
        for number in range(10):
            one.log(f"group{number}", 3)
        assert one.ask("all_home")
        one.end()

    assert injector.fired() >= 1
    assert_kept(log_path, notes)


@has_strace
def test_write_refused_for_good_is_counted_and_the_rest_comes_home_at_the_end(
    log_path: Path, notes: Notes, injector: Injector, durability: str
):
    """While every write fails, what no longer fits is refused or in the journal; what was refused is nowhere later."""
    wrap = injector.wrap("write", "error=EIO:when=1..16", log_path)  # of each thread
    with writer(log_path, notes, wrap=wrap, queue_max_size=5, max_retries=0) as one:
        statuses = one.log("refused", 20)
        one.end()

    failed, spilled = (15, 0) if durability == "memory" else (0, 15)
    assert statuses == ["queued"] * 5 + ["failed"] * failed + ["spilled"] * spilled
    assert injector.fired() >= 15
    assert (notes.stats()[-1]["failed"], notes.stats()[-1]["spilled"]) == (failed, spilled)
    assert_kept(log_path, notes)


@has_strace
def test_no_locks_to_be_had_for_a_while_delays_and_loses_nothing(log_path: Path, notes: Notes, injector: Injector):
    """A kernel that is out of locks (ENOLCK) is asked again; nobody writes without the lock."""
    wrap = injector.wrap("flock", "error=ENOLCK:when=1..4", lock_file(log_path))
    with writer(log_path, notes, wrap=wrap) as one:
        one.log("records", 5)
        assert one.ask("flush", 0.005) is False
        assert not log_path.read_bytes()
        assert one.ask("flush")
        one.end()

    assert injector.fired() == 4
    assert_kept(log_path, notes)


@has_strace
def test_tail_that_cannot_be_read_stops_the_writing_until_it_can(log_path: Path, notes: Notes, injector: Injector):
    """Without having seen the log's last byte nobody appends: it might be the middle of somebody's line."""
    log_path.write_bytes(b'{"torn":')
    with writer(log_path, notes, wrap=injector.wrap("pread64", "error=EIO:when=1..2", log_path)) as one:
        one.log("records", 5)
        assert one.ask("flush", 0.005) is False
        assert log_path.read_bytes() == b'{"torn":'
        assert one.ask("flush")
        one.end()

    assert injector.fired() >= 1
    assert_kept(log_path, notes)


def test_full_descriptor_table_after_the_start_does_not_matter(log_path: Path, notes: Notes):
    """All descriptors are open once the handler is made: a process without a free one goes on logging."""
    fill = """
    def fill_table():
        import resource
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                held.append(os.dup(0))
        except OSError as error:
            globals()["_held"] = held
            return error.errno
    """
    code = PREAMBLE + textwrap.dedent(fill) + OBEY.replace("does = {", 'does = {"fill": fill_table, ')
    options = json.dumps({"batch_size": 10_000, "flush_interval": 1000})
    with child_process(code, log_path, notes.path, options) as process:
        one = Writer(process)
        assert one.ask("fill") == errno.EMFILE
        one.log("records", 5)
        assert one.ask("flush")
        one.end()

    assert_kept(log_path, notes)
