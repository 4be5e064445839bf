"""How long a log call keeps an event loop from its other tasks."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from _children import PREAMBLE, Notes, assert_kept, holding_the_lock
from helpers import child_process

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]

# Reads one line to go on, where the test has let the stranger go.
LOOP = """
import asyncio
from ai_response_logging import alog_ai_response, log_ai_response

attach()

def call(name):
    began_s = time.monotonic()
    result = log_ai_response(record_id=name, response="x" * 100)
    note(id=name, status=result["status"], took_s=time.monotonic() - began_s)
    return result["status"]

async def awaited(name):
    result = await alog_ai_response(record_id=name, response="x" * 100)
    note(id=name, status=result["status"])
    return result["status"]
"""
END = """
handler.close()
stats()
"""


def play(log: Path, notes: Notes, code: str, **options: float) -> list[str]:
    """Run *code* beside a stranger who holds the lock until it asks for the end of that; return what it printed."""
    chosen = json.dumps({"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01, **options})
    with (
        holding_the_lock(log) as stranger,
        child_process(PREAMBLE + LOOP + dedent(code) + END, log, notes.path, chosen) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()
        stranger.kill()
        stranger.wait()
        out, err = process.communicate("go\n", timeout=15)
        assert process.returncode == 0, out + err
        return [said.strip(), *out.split()]


def test_a_call_in_a_coroutine_waits_for_nobody_while_the_queue_has_room(log_path: Path, notes: Notes):
    """Neither form waits for a lock that somebody else holds: with a minute to wait they would hang here."""
    said = play(
        log_path,
        notes,
        """
        async def main():
            statuses = {call("plain"), await awaited("awaited")}
            print(*statuses, flush=True)

        asyncio.run(main())
        sys.stdin.readline()
        """,
        caller_timeout=60,
        lock_timeout=60,
    )

    assert said == ["queued"]
    assert_kept(log_path, notes)


def test_a_plain_call_at_a_full_queue_holds_the_loop_at_most_caller_timeout(
    log_path: Path, notes: Notes, durability: str
):
    """The loop stands still for caller_timeout, and not for the minute that the listener would wait for the lock."""
    said = play(
        log_path,
        notes,
        """
        async def main():
            statuses = [call(f"plain-{number}") for number in range(4)]
            print(statuses[-1], flush=True)

        asyncio.run(main())
        sys.stdin.readline()
        """,
        queue_max_size=3,
        caller_timeout=0.2,
        lock_timeout=60,
    )

    assert said == ["failed" if durability == "memory" else "spilled"]
    assert notes.slowest_s() < 0.2 + 5
    assert_kept(log_path, notes)


def test_an_awaited_call_at_a_full_queue_lets_the_loop_go_on(log_path: Path, notes: Notes):
    """While an awaited call waits for room, other tasks run: one of them ends what it waits for."""
    said = play(
        log_path,
        notes,
        """
        async def main():
            for number in range(3):
                await awaited(f"first-{number}")
            waiting = asyncio.ensure_future(awaited("waits"))
            for _ in range(50):
                await asyncio.sleep(0.001)
            # Another task of the loop, while that one waits up to a minute for the lock.
            print("waits" if not waiting.done() else "does-not-wait", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            print(await waiting, flush=True)

        asyncio.run(main())
        """,
        queue_max_size=3,
        caller_timeout=60,
        lock_timeout=60,
    )

    assert said == ["waits", "written_sync"]
    assert_kept(log_path, notes)
