from __future__ import annotations

import json
from pathlib import Path

import pytest
from _children import PREAMBLE, Notes, assert_kept, assert_sums, holding_the_lock, writer
from helpers import run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


def test_full_queue_the_caller_writes_all_that_waits_and_itself(log_path: Path, notes: Notes):
    """Past the bound a call writes its record itself, with all that waited, so that none is dropped."""
    with writer(log_path, notes, queue_max_size=5) as one:
        statuses = one.log("record", 12)
        snapshot = one.ask("stats")
        one.end()

    assert statuses == (["queued"] * 5 + ["written_sync"]) * 2
    assert (snapshot["written"], snapshot["written_sync"], snapshot["pending"]) == (10, 2, 0)
    assert_kept(log_path, notes)


def test_queue_full_by_bytes_the_caller_writes(log_path: Path, notes: Notes):
    """The bound in bytes acts as the one in records does; a single record beyond it is written at once."""
    with writer(log_path, notes, queue_max_bytes=10_000) as one:
        assert one.log("small", 3) == ["queued"] * 3
        assert one.log("large", 1, 20_000) == ["written_sync"]
        assert one.log("small-again", 3) == ["queued"] * 3
        one.end()

    assert_kept(log_path, notes)


def test_full_queue_and_a_stranger_holds_the_lock_the_call_ends_as_durability_says(
    log_path: Path, notes: Notes, durability: str
):
    """No call waits longer than caller_timeout: what finds no room is spilled, or refused and told."""
    with writer(log_path, notes, queue_max_size=5, caller_timeout=0.02) as one:
        with holding_the_lock(log_path):
            statuses = one.log("held", 9)
            meanwhile = one.ask("stats")
        after = one.log("free", 6)
        one.end()

    failed, spilled = (4, 0) if durability == "memory" else (0, 4)
    assert statuses == ["queued"] * 5 + ["failed"] * failed + ["spilled"] * spilled
    assert (meanwhile["accepted"], meanwhile["pending"]) == (9, 9 - failed)
    assert (meanwhile["failed"], meanwhile["spilled"]) == (failed, spilled)
    assert "no lock" in meanwhile["last_error"] or "busy" in meanwhile["last_error"]
    assert after[0] == "written_sync"
    assert_kept(log_path, notes)


def test_full_queue_while_the_listener_waits_for_the_lock_bounds_every_thread(
    log_path: Path, notes: Notes, durability: str
):
    """Many threads at a full queue, whose listener is stuck behind a stranger's lock, all come back with a status."""
    code = """
    attach()
    threads = [threading.Thread(target=lambda n=n: [log(f"t{n}-{k}") for k in range(3)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats()
    print("done", flush=True)
    sys.stdin.readline()
    assert handler.flush()
    handler.close()
    stats()
    """
    options = json.dumps(
        {"batch_size": 1, "flush_interval": 1000, "queue_max_size": 4, "caller_timeout": 0.02, "retry_delay": 0.01}
    )
    from textwrap import dedent

    from helpers import child_process

    with (
        holding_the_lock(log_path) as stranger,
        child_process(PREAMBLE + dedent(code), log_path, notes.path, options) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        stranger.kill()
        out, err = process.communicate("\n")
        assert process.returncode == 0, out + err

    first, last = notes.stats()
    assert first["accepted"] == 24
    failed, spilled = (20, 0) if durability == "memory" else (0, 20)
    assert (first["pending"], last["pending"]) == (24 - failed, 0)
    assert (first["failed"], first["spilled"]) == (failed, spilled)
    assert_kept(log_path, notes)


def test_full_queue_holder_gone_in_time_the_caller_gets_its_turn(log_path: Path, notes: Notes):
    """A caller that waits for the lock writes as soon as the holder is gone, within its own bound."""
    with writer(log_path, notes, queue_max_size=2, caller_timeout=60) as one:
        with holding_the_lock(log_path) as stranger:
            one.log("first", 2)
            one.send("log", "waits", 1, 100)
            stranger.kill()
            stranger.wait()
        assert one.answer() == ["written_sync"]
        one.end()

    assert_kept(log_path, notes)


def test_full_queue_under_many_threads_keeps_every_record(log_path: Path, notes: Notes):
    """With a tiny queue and many threads the callers do most of the writing, and nothing is lost or doubled."""
    code = """
    attach()
    threads = [threading.Thread(target=lambda n=n: [log(f"t{n}-{k}") for k in range(100)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    stats()
    """
    options = json.dumps({"batch_size": 2, "flush_interval": 0.01, "queue_max_size": 3, "caller_timeout": 15})
    from textwrap import dedent

    run_child(PREAMBLE + dedent(code), log_path, notes.path, options)

    (snapshot,) = notes.stats()
    assert snapshot["written_sync"] == len(notes.ids("written_sync")) > 0
    assert snapshot["written"] + snapshot["written_sync"] == 800
    assert_sums(snapshot)
    assert_kept(log_path, notes)
