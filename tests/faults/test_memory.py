"""Memory that ends while answers are recorded: by a limit that the process sets itself, as ``ulimit -v`` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import read_lines, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Arguments 1: the log; 2: bytes of room from now on; 3: whether the heap's free pieces are used up, too; 4: characters.
# Prints the status of each record, or what its call raised.
LIMITED = """
import json, os, resource, sys
from ai_response_logging import configure, log_ai_response

log, room, is_used_up, size = sys.argv[1], *map(int, sys.argv[2:])
deep = "d" * size
for _ in range(60):
    deep = [deep]
records = [
    {"text": "x" * size}, {"text": "漢" * size}, {"text": "\\x01" * size}, {"deep": deep}, {"raw": b"x" * size},
    {"messages": [{"role": "user", "content": "z" * size}]}, {"text": "y" * size, "odd": {1}},
    {"text": "k" * size + " my key is sk-" + "a1B2c3D4e5F6g7H8" * 3}, {"half": "\\ud83d" + "h" * size},
]
handler = configure(filename=log, max_inline_bytes=0)
log_ai_response(name="before", text="a record of before")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
statuses, held, piece = [], [], 1 << 20
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, -1))
while is_used_up and piece >= 1 << 16:
    try:
        held.append(bytes(piece))
    except MemoryError:
        piece //= 2
for number, record in enumerate(records):
    try:
        statuses.append(log_ai_response(name=number, **record)["status"])
    except BaseException as error:
        statuses.append(type(error).__name__)
held.clear()
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
handler.close()
print(json.dumps(statuses))
"""
RECORDS = 9


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [20_000, 600_000])
@pytest.mark.parametrize("is_used_up", [False, True])
def test_memory_that_ends_ends_no_process_and_costs_no_answer_unsaid(tmp_path: Path, size: int, *, is_used_up: bool):
    """Each record is in the log as it was given, or its status says that it failed; the application goes on."""
    refused = 0
    for factor in (0, 0.5, 2, 5, 9, 14, 30, 100):
        log = tmp_path / f"{factor}" / "log.jsonl"
        done = run_child(LIMITED, log, int(size * factor), int(is_used_up), size, timeout=30)
        statuses = json.loads(done.stdout)
        found = {line["name"]: line for line in read_lines(log)}

        assert set(statuses) <= {"queued", "written", "written_sync", "failed"}, done.stderr
        assert len(statuses) == RECORDS
        assert set(found) == {"before", *(number for number, status in enumerate(statuses) if status != "failed")}
        for number, line in found.items():
            errors = [] if number in {"before", 4, 6, 8} else line.get("encode_errors", [])
            assert not errors, (number, errors)
            assert number == "before" or size <= len(json.dumps(line, ensure_ascii=False)), number
        refused += statuses.count("failed")
    assert refused  # else there was room enough each time
