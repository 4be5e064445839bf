"""``ai-responses replay``: what killed processes left comes home now, and what stays is said."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import assert_all_there_once, child_process, is_root, run_child

from ai_response_logging._journal import Journal
from ai_response_logging._options import Options
from ai_response_logging.record import seal, tail_of

if TYPE_CHECKING:
    from .conftest import Cli

USER = 4243
MAIN = "from ai_response_logging.cli import main; main()"
# argv: the log, a prefix, how many, the handler's options. Logs, says so, and lives until it is told to end.
WRITER = """
import json, logging, sys
from ai_response_logging.handler import AIResponseHandler
options = {"batch_size": 10_000, "flush_interval": 1000, **json.loads(sys.argv[4])}
logger = logging.getLogger("ai_responses")
logger.setLevel(logging.INFO)
logger.addHandler(AIResponseHandler(sys.argv[1], **options))
for number in range(int(sys.argv[3])):
    logger.info("m", extra={"record_id": f"{sys.argv[2]}-{number}", "response": "x" * 500})
print("logged", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def living(log: Path, prefix: str, count: int, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Give the block a process that has logged *count* records, all in its journal."""
    with child_process(WRITER, log, prefix, count, json.dumps(options)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "logged\n", process.stderr.read()
        yield process


def killed(log: Path, prefix: str, count: int, **options: object) -> list[str]:
    """Let a process log *count* records and be killed; return their ids."""
    with living(log, prefix, count, **options) as process:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    return [f"{prefix}-{number}" for number in range(count)]


def journals(log: Path) -> Path:
    """Return where the journals of *log* are."""
    return log.with_name(f"{log.name}.journal")


def leave(log: Path, count: int, size: int) -> list[str]:
    """Leave a large journal of a writer that is gone; return the ids in it."""
    gone = "host-1-18c-0123456789abcdef"
    log.touch()
    journal = Journal(str(journals(log)), gone, Options(journal_max_bytes=1 << 30))
    journal.begin(0)
    body = b'{"record_id":"b-%%d","response":"%b"' % (b"x" * size)
    assert journal.store([seal(body % seq, tail_of(gone), seq) for seq in range(count)]) == count
    journal.close()
    return [f"b-{seq}" for seq in range(count)]


@pytest.fixture
def open_log() -> Iterator[Path]:
    """Return a log's path in a directory that every user can enter."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        yield folder / "log.jsonl"
    finally:
        shutil.rmtree(folder)


def test_nothing_orphaned_is_well_and_needs_no_rights(cli: Cli, log_path: Path):
    """A log without journals: nothing is done, nothing is made, exit code 0."""
    log_path.touch()
    ended = cli("replay", "--file", log_path)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"nothing to bring home: no journal of {log_path} is orphaned\n"
    assert os.listdir(log_path.parent) == [log_path.name]


def test_log_that_is_not_there_is_an_error_and_is_not_made(cli: Cli, log_path: Path):
    """A wrong name is exit code 3, and no file of that name."""
    ended = cli("replay", "--file", log_path)

    assert ended.code == 3
    assert "no such file" in ended.err
    assert not log_path.exists()


@pytest.mark.slow
@pytest.mark.faults
def test_killed_processes_records_come_home_once_from_every_directory(cli: Cli, log_path: Path, tmp_path: Path):
    """How many of how many writers came home is said, and from where; a second time there is nothing to do."""
    ids = killed(log_path, "beside", 20) + killed(log_path, "elsewhere", 5, journal_directory=str(tmp_path / "own"))

    ended = cli("replay", "--file", log_path)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("25 records of 2 writers came home, from\n") or ended.out.startswith("5 records of 1")
    assert str(tmp_path / "own") in ended.out
    assert_all_there_once(log_path, ids)
    assert cli("replay", "--file", log_path).out.startswith("nothing to bring home")
    assert_all_there_once(log_path, ids)


@pytest.mark.slow
@pytest.mark.faults
def test_log_that_was_moved_away_is_begun_anew(cli: Cli, log_path: Path):
    """A journal is enough: the log is made for what is in it."""
    ids = killed(log_path, "r", 7)
    log_path.unlink()

    ended = cli("replay", "--file", log_path, "--json")

    assert ended.code == 0
    assert json.loads(ended.out) == {
        "log": str(log_path), "records": 7, "writers": 1, "directories": {str(journals(log_path)): 7}, "stayed": [],
    }  # fmt: skip
    assert_all_there_once(log_path, ids)


@pytest.mark.slow
@pytest.mark.faults
def test_living_writer_keeps_its_journal_and_is_named(cli: Cli, log_path: Path):
    """Beside a living writer an orphan comes home, the living one's records stay its own, and all is well."""
    with living(log_path, "living", 3) as process:
        ids = killed(log_path, "gone", 4)
        ended = cli("replay", "--file", log_path)
        assert ended.code == 0
        assert "4 records of 1 writer came home" in ended.out
        assert f"held by pid {process.pid} " in ended.out
        assert_all_there_once(log_path, ids)
        document = json.loads(cli("replay", "--file", log_path, "--json").out)
        assert (document["records"], [one["why"] for one in document["stayed"]]) == (0, ["held"])
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0

    assert_all_there_once(log_path, [*ids, *(f"living-{number}" for number in range(3))])


@pytest.mark.slow
@pytest.mark.faults
def test_log_that_refuses_leaves_the_records_where_they_are(log_path: Path):
    """A log that takes nothing more: exit code 1, how many records stay and why; the next replay brings them home."""
    ids = [*killed(log_path, "r", 9), "fill"]
    log_path.write_bytes(seal(b'{"record_id":"fill","response":"%b"' % (b"x" * 200_000), tail_of("filler"), 0))
    limits = (150_000, resource.RLIM_INFINITY)
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, {limits!r}); {MAIN}"

    text = run_child(code, "replay", "--file", log_path, expect=1).stdout
    document = json.loads(run_child(code, "replay", "--file", log_path, "--json", expect=1).stdout)

    assert "9 records stay, since the log refuses" in text
    assert "errno 27" in text
    assert "run this again" in text
    assert [(one["why"], one["records"]) for one in document["stayed"]] == [("refused", 9)]
    run_child(MAIN, "replay", "--file", log_path)
    assert_all_there_once(log_path, ids)


@pytest.mark.slow
@pytest.mark.faults
@is_root
@pytest.mark.parametrize("private", ["directory", "lock", "log"])
def test_journal_that_may_not_be_opened_is_said_with_path_and_owner(open_log: Path, private: str):
    """Another user's journal, or log, is never skipped silently: path, owner and what now, and exit code 1."""
    ids = killed(open_log, "r", 3, file_mode=0o666, directory_mode=0o777)
    (lock,) = journals(open_log).glob("*.lock")
    closed = {"directory": journals(open_log), "lock": lock, "log": open_log}[private]
    closed.chmod(0o700 if private == "directory" else 0o600)
    # What the command needs is imported before: the interpreter need not be readable for everybody.
    become = f"""
import contextlib, os, pwd, ai_response_logging.writer
from ai_response_logging.cli import main
with contextlib.suppress(SystemExit):
    main(["replay", "--file", {str(open_log.with_name("none"))!r}])
os.setgroups([])
os.setgid({USER})
os.setuid({USER})
main()
"""

    out = run_child(become, "replay", "--file", open_log, expect=1).stdout

    assert f"{closed} is owned by root with mode {closed.stat().st_mode & 0o777:04o}" in out
    assert f"this process runs as user {USER}" in out
    assert "nothing to bring home" not in out
    assert ("3 records stay" in out) == (private == "log")
    run_child(MAIN, "replay", "--file", open_log)
    assert_all_there_once(open_log, ids)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("end", ["together", "one killed"])
def test_two_replays_at_once_bring_each_record_home_once(log_path: Path, end: str):
    """Two replays that meet, and one that is killed in the middle, double and lose nothing."""
    ids = leave(log_path, 12_000, 1000)
    # Both start when both are there; the one that is to die does so in its third block.
    code = """
import os, signal, sys
from ai_response_logging.writer import BatchFileHandler
attempt, calls, dies = BatchFileHandler.attempt, [], "die" in sys.argv


def counted(*args, **options):
    calls.append(1)
    if len(calls) == 3 and dies:
        os.kill(os.getpid(), signal.SIGKILL)
    attempt(*args, **options)


BatchFileHandler.attempt = counted
print("here", flush=True)
sys.stdin.readline()
import ai_response_logging.cli as cli
cli.main([one for one in sys.argv[1:] if one != "die"])
"""
    dies = ["die"] if end == "one killed" else []
    with (
        child_process(code, "replay", "--file", log_path, *dies) as one,
        child_process(code, "replay", "--file", log_path, *dies) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        codes = sorted([one.wait(), two.wait()])

    assert codes == [0, 0] if end == "together" else codes[0] == -signal.SIGKILL
    run_child(MAIN, "replay", "--file", log_path)
    assert_all_there_once(log_path, ids)


@pytest.mark.slow
def test_bar_only_on_a_terminal(log_path: Path):
    """Output that nobody watches has no bar in it, however long the backlog."""
    ids = leave(log_path, 3000, 1000)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "replay", "--file", str(log_path)], capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert done.stdout == f"3,000 records of 1 writer came home, from\n  {journals(log_path)}\n"
    assert_all_there_once(log_path, ids)
