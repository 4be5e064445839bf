"""The eyes of the endurance run: they see a leak of some bytes a record, and take no allocator's reserve for one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from helpers import ROOT, has_proc, run_child

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    has_proc,
    pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="there is no glibc 2.33 or later"),
]

# So many records between two samples as a writer logs in 2 s.  Closed before each, so that nothing is half done; the
# samples go to the disk, else they would be what grows.
RECORDS_OF = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from enduring.held import Teller
from enduring.watch import Sample, Watched, steep, take
from ai_response_logging.handler import AIResponseHandler

folder, every_s, each, at_last = Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5]
handler = AIResponseHandler(folder / "log.jsonl", batch_size=10, max_bytes=20_000, compress=True)
tells, samples, kept, scope = folder / "held", folder / "samples", [], {}
teller = Teller(str(tells))
for number in range(30):
    for _ in range(30):
        handler.submit_fields({"response": "x" * 200})
        if each:
            kept.append(eval(each))
    if number == 19:
        exec(at_last, scope)
    handler.close()
    teller._due_s = 0.0
    teller.tell()
    with samples.open("a") as file:
        print(json.dumps(take(Watched(os.getpid(), tells), number * every_s)), file=file)
curve = [Sample(*json.loads(line)) for line in samples.read_text().splitlines()]
print("FOUND", [line.split("  ")[0] for line in steep({"writer": curve})])
"""
# Pieces that malloc cannot give back to the system, since one behind them is in use: as a thread's arena has them.
RESERVE = """
pieces = [bytes(60_000) for _ in range(200)]
kept = bytes(60_000)
del pieces
"""


def found(folder: Path, *, each: str = "", at_last: str = "", every_s: float = 2.0) -> str:
    """Let a process log, evaluating *each* for every record and keeping it; return which of its curves are steep."""
    done = run_child(RECORDS_OF, ROOT / ".ci", folder, every_s, each, at_last, timeout=60)
    return done.stdout.rpartition("FOUND ")[2].strip()


def test_curves_are_flat(tmp_path: Path):
    """Logging, rotating and compressing keep nothing alive."""
    assert found(tmp_path) == "[]"


@pytest.mark.parametrize(
    ("each", "steep"),
    [
        ("os.urandom(8)", "objects"),
        ("bytes(1_000)", "malloc'ed MiB"),
        ("[threading.Lock()]", "objects"),
        ("os.dup(1)", "descriptors"),
    ],
)
def test_leak_is_noticed(tmp_path: Path, each: str, steep: str):
    """Something small that each record leaves behind is found, in as many records as a minute has."""
    assert steep in found(tmp_path, each=each)


def test_reserve_is_no_leak(tmp_path: Path):
    """What malloc keeps for the next time is not in use; only when it does not come to an end is it too much."""
    for name in ("minute", "hour"):
        (tmp_path / name).mkdir()
    assert found(tmp_path / "minute", at_last=RESERVE) == "[]"
    assert found(tmp_path / "hour", at_last=RESERVE, every_s=60.0) == "['resident MiB']"


FINALIZED = """
import logging, os, sys, weakref
sys.path.insert(0, sys.argv[1])
from enduring.processes import is_amid_a_finalizer

class Handler(logging.Handler):
    pass

def tell(*_):
    told.append(is_amid_a_finalizer(sys._getframe()))

told, handler, kept = [], Handler(), weakref.WeakSet()
tell()
weakref.finalize(handler, tell)
sys.setprofile(lambda frame, event, _: tell() if event == "call" and frame.f_code.co_name in names else None)
names = {"_removeHandlerRef", "_remove"}
kept.add(handler)
del handler
sys.setprofile(None)
print(told[0], all(told[1:]), len(told) > 3)
"""


def test_alarm_amid_a_finalizer_is_told_from_one_in_a_call():
    """Python prints what is raised there and goes on: an application that is interrupted there learns nothing of it."""
    ended = run_child(FINALIZED, ROOT / ".ci")

    assert ended.stdout == "False True True\n"
