"""What the interpreter's end does to daemon threads: it stops them wherever they are, with what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _children import PREAMBLE, Notes
from helpers import assert_all_there_once, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Registered before logging's own hook and ours, and so called behind both.
FIRST = """
import atexit, threading
is_closed, is_held = threading.Event(), threading.Event()

@atexit.register
def behind_the_end():
    is_closed.set()
    assert is_held.wait(10)
"""


@pytest.mark.parametrize(
    ("held", "durability"),
    [
        ("queue.lock", "crash"),
        ("queue._stashing", "crash"),
        ("writer.turn._lock", "crash"),
        ("writer.turn._lock", "power"),
        ("writer.turn._lock, queue._syncs._turn", "power"),
        ("_exit.lock", "memory"),
    ],
)
def test_lock_of_a_thread_that_the_end_has_stopped_neither_hangs_nor_loses_what_a_del_logs(
    log_path: Path, notes: Notes, held: str, durability: str
):
    """
    The interpreter ends while a daemon thread is in the middle of a log call; an object that goes last logs, too.

    Nobody will ever free what that thread holds, and the process must end all the same, with the record kept.
    """
    code = f"""
import types
from ai_response_logging._pipeline import _exit

def hold():
    pipeline = handler._pipeline
    queue, writer = pipeline.queue, pipeline.writer
    is_closed.wait()
    with {held}:
        is_held.set()
        time.sleep(1000)

attach()
log("first")
threading.Thread(target=hold, daemon=True).start()

class Late:
    def __init__(self):  # all that it needs: by then the module's own names are gone
        self.names = {{**globals()}}
        self.record = logger.makeRecord("ai_responses", 20, "", 0, "late", (), None, extra={{"record_id": "late"}})

    def __del__(self):
        exec(
            "logger.handle(record); note(id='late', status=record.ai_status); handler.close(); handler.get_stats()",
            {{**self.names, "record": self.record}},
        )

sys.modules["m"] = types.ModuleType("m")
sys.modules["m"].it = Late()
"""
    options = {"durability": durability, "close_timeout": 60.0, "caller_timeout": 60.0}
    said = run_child(FIRST + PREAMBLE + code, log_path, notes.path, json.dumps(options)).stderr

    assert "Traceback" not in said
    assert notes.ids("queued", "written", "spilled") == ["first", "late"]
    run_child(PREAMBLE + "attach(); handler.close()", log_path, notes.path.with_name("none"), json.dumps({}))
    assert_all_there_once(log_path, notes.ids())
