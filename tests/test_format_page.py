"""docs/reference/format.md tells enough to get every record back without this library: its reader is run."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from helpers import run_child

from ai_response_logging._options import Options

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "format.md"

# A writer that logs, rotates, and is killed while what it logged last is in its journal alone. argv: the log.
DIES = """
import logging, os, signal, sys
from ai_response_logging.handler import AIResponseHandler

handler = AIResponseHandler(sys.argv[1], batch_size=1000, flush_interval=1000, max_bytes=2000)
for number in range(9):
    handler.handle(logging.makeLogRecord({"msg": "m", "record_id": str(number), "response": "x" * 300}))
    if number == 5:
        assert handler.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_reader_of_the_page_gives_every_record_of_log_and_journal_once(log_path: Path):
    """Log, rotated and compressed files and a dead writer's journal, with nothing but what the page says."""
    (reader,) = re.findall(r"<!-- read-it -->\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    run_child(DIES, log_path, expect=-9)
    oldest = min(log_path.parent.glob(f"{log_path.name}.2*"))
    oldest.with_name(f"{oldest.name}.gz").write_bytes(gzip.compress(oldest.read_bytes()))
    oldest.unlink()
    with log_path.open("ab") as torn:
        torn.write(b'{"torn":')

    printed = run_child(reader, log_path).stdout.splitlines()

    assert sorted(json.loads(line)["record_id"] for line in printed) == [str(number) for number in range(9)]
    assert list(Path(f"{log_path}.journal").glob("*.jsonl"))


@pytest.mark.parametrize("name", ["file_mode", "directory_mode"])
def test_modes_on_the_page_are_the_defaults(name: str):
    """Who may read the files is said right."""
    assert f"`{name}` ({Options().__dict__[name]:04o})" in PAGE.read_text("utf-8")
