"""At durability power: what is synced, in which order, and what the next program makes of what loss of power left."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import pytest

from ai_response_logging._journal import Journal
from ai_response_logging._journal_format import Intent
from ai_response_logging._options import Options
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.record import seal, tail_of

WRITER = "host-1-18c-0123456789abcdef"
POWER: Final[dict[str, Any]] = {
    "durability": "power",
    "batch_size": 10_000,
    "flush_interval": 1000,
    "retry_delay": 0.001,
}


def log(handler: AIResponseHandler, record_id: str) -> str:
    """Log one record; return its status."""
    return handler.submit(logging.makeLogRecord({"msg": "m", "record_id": record_id}))


def left_behind(log_path: Path, count: int, *, stored: int | None = None) -> list[bytes]:
    """Leave the journal of a writer that was about to append *count* lines at the start of the log when it ended."""
    tail = tail_of(WRITER)
    lines = [seal(b'{"record_id":"left-%d","response":"%b"' % (seq, b"x" * 600), tail, seq) for seq in range(count)]
    log_path.touch()
    there = log_path.stat()
    journal = Journal(f"{log_path}.journal", WRITER, Options.checked({"durability": "power"}))
    journal.store(lines[:stored])
    journal.mark(0, Intent(there.st_dev, there.st_ino, 0, count, 0))
    journal.close()
    return lines


@pytest.mark.parametrize("behind", [b"", b'{"record_id":"another"}\n'], ids=["nothing", "another's"])
@pytest.mark.parametrize("whole", [0, 1, 2])
def test_holes_in_a_block_are_filled_also_when_somebody_has_logged_behind_them(
    log_path: Path, whole: int, behind: bytes
):
    """What came back first and logged behind the remains of a block makes no line twice, and leaves none torn."""
    lines = left_behind(log_path, 4)
    kept, taken, rest = b"".join(lines[:whole]), len(lines[whole]) + 100, b"".join(lines)
    log_path.write_bytes(kept + bytes(taken) + rest[len(kept) + taken :] + behind)

    handler = AIResponseHandler(log_path, **POWER)
    log(handler, "after")
    handler.close()

    there = [json.loads(line)["record_id"] for line in log_path.read_bytes().splitlines()]
    assert sorted(there) == sorted([*(f"left-{n}" for n in range(4)), "after", *(["another"] if behind else [])])
    assert not list(Path(f"{log_path}.journal").glob("*"))
