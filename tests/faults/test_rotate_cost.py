"""What a rotation costs, and what it costs whoever follows the log while it happens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from _children import Notes, assert_kept, writer
from helpers import has_strace, log_files, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# argv: the log, options. Says which part begins by a call that nobody else makes.
PARTS = """
import json, os, sys
from ai_response_logging.handler import AIResponseHandler


def begin(part):
    os.path.exists("/part/" + part)


def log(number):
    handler.submit_fields({"record_id": str(number), "response": "x" * 700})
    assert handler.flush()


begin("start-up")
handler = AIResponseHandler(sys.argv[1], flush_interval=1000, **json.loads(sys.argv[2]))
begin("first record")
log(0)
begin("first rotation")
log(1)
begin("rotation")
log(2)
begin("end")
assert handler.get_stats()["rotations"] == 2
handler.close()
"""
CALLED = re.compile(r"\d+ +(\w+)\(")
NOISE = 40
TRACED = (
    "openat,read,write,pread64,pwrite64,lseek,close,newfstatat,fstat,stat,lstat,access,rename,renameat,unlink,unlinkat"
)
TRACED += ",mkdir,fchmod,fchown,ftruncate,fallocate,fsync,fdatasync,flock,getdents64,ioctl,fcntl,dup,dup2"


def calls(folder: Path, kept: int, **options: Any) -> dict[str, Counter[str]]:
    """Return what each part of a run beside so many old files asks the kernel to do with files."""
    folder.mkdir()
    log, trace = folder / "log.jsonl", folder.with_suffix(".trace")
    for number in range(kept):
        log.with_name(f"{log.name}.20250101T000000.{number:06}Z").write_bytes(b"{}\n")
    log.touch()
    strace = ["-f", "-qq", "-o", str(trace), "-e", f"trace={TRACED}", sys.executable]
    run_child(PARTS, log, json.dumps({"max_bytes": 1000, **options}), python="strace", options=strace)
    parts: dict[str, Counter[str]] = {}
    part = ""
    for row in trace.read_text("utf-8", "replace").splitlines():
        if found := re.search(r'"/part/([^"]*)"', row):
            part = found[1]
        elif (called := CALLED.match(row)) and part:
            parts.setdefault(part, Counter())[called[1]] += 1
    return parts


@has_strace
@pytest.mark.parametrize("options", [{}, {"backup_count": 5000}], ids=["kept for good", "retention"])
def test_start_up_and_rotation_cost_the_same_however_many_files_are_kept(tmp_path: Path, options: dict[str, int]):
    """
    Beside 2,000 old files they make as many calls as beside 10.

    Left out is getdents64, by which one listing of a directory is read in pieces. Without retention no rotation but
    the first lists it at all, and that one only where the lock file does not have the last name yet.
    """
    few, many = (calls(tmp_path / f"{kept}", kept, **options) for kept in (10, 2000))

    listings = {part: (few[part].pop("getdents64", 0), many[part].pop("getdents64", 0)) for part in few}
    # The listener's thread looks after other things meanwhile, now earlier, now later: some calls in another part.
    # One for each old file would be 1,990 more.
    costs = {part: (sum(few[part].values()), sum(many[part].values())) for part in few}
    assert all(one > 0 and abs(many - one) < NOISE for one, many in costs.values()), costs
    # What is listed beside our directory, such as the journal's, is as long in both.
    is_longer = {part: many > few for part, (few, many) in listings.items()}
    assert is_longer["first rotation"]
    assert is_longer["rotation"] == bool(options)


@pytest.mark.skipif(shutil.which("tail") is None, reason="there is no tail")
@pytest.mark.parametrize("compress", [False, True])
def test_tail_that_follows_the_name_shows_every_line_over_rotations(log_path: Path, notes: Notes, compress: bool):
    """`tail -F` reads an old file to its end and goes on with the new one: each line once, in order."""
    with writer(log_path, notes, max_bytes=2000, compress=compress) as one:
        one.log("first")
        assert one.ask("flush")
        command = ["tail", "-F", "-n", "+1", "-s", "0.05", str(log_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tail:
            try:
                assert tail.stdout is not None
                seen = [json.loads(tail.stdout.readline())["record_id"]]
                for number in range(8):
                    one.log(f"r{number}", 3, 300)
                    assert one.ask("flush")
                    # Two rotations within one look of its own are more than it can follow, whoever rotates.
                    seen += [json.loads(tail.stdout.readline())["record_id"] for _ in range(3)]
            finally:
                tail.kill()
        one.end()

    assert_kept(log_path, notes)
    assert seen == notes.ids()
    assert len(log_files(log_path)) > 4
