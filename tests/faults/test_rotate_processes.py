from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept, assert_sums, lock_file, writer
from helpers import assert_all_there_once, child_process, log_files, read_lines

from ai_response_logging import read_log
from ai_response_logging.verify import verify_log

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PROCESSES, RECORDS = 8, 2000
MAX_BYTES = 200_000

# Logs as fast as it can and then says what it counted, and which files it has rotated. argv: log, options, name,
# how many records.
BURST = """
import json, logging, os, sys
from ai_response_logging import _rotate, _shared_file
from ai_response_logging.handler import AIResponseHandler

log, options, name, records = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
logging.raiseExceptions = False
rotated, rotate = [], _rotate.rotate
_rotate.rotate = lambda path, **how: rotated.append(rotate(path, **how)) or rotated[-1]
handler = AIResponseHandler(log, **options)
print("ready", flush=True)
sys.stdin.readline()
statuses = {}
for number in range(records):
    done = handler.submit_fields({"record_id": f"{name}-{number}", "response": "x" * 2500 + os.urandom(120).hex()})
    statuses[done.status] = statuses.get(done.status, 0) + 1
handler.close()
print(json.dumps({"stats": handler.get_stats(), "rotated": rotated, "statuses": statuses}))
"""

# Logs records of forced times when it is told to. argv: log, options; then a line for each block: [[id, time], ...].
TIMED = """
import json, logging, sys
from ai_response_logging.handler import AIResponseHandler

logging.raiseExceptions = False
handler = AIResponseHandler(sys.argv[1], **json.loads(sys.argv[2]))
for line in sys.stdin:
    for record_id, created in json.loads(line):
        record = {"msg": "m", "record_id": record_id, "created": created, "response": "x" * 500}
        handler.handle(logging.makeLogRecord(record))
    print(json.dumps(handler.flush()), flush=True)
handler.close()
print(json.dumps(handler.get_stats()), flush=True)
"""


def burst(log: Path, **options: Any) -> list[dict[str, Any]]:
    """Let all processes begin at the same moment and log all they have; return what each said at its end."""
    # On a busy machine a caller may wait for longer than the second after which its record would be refused.
    options = {"caller_timeout": 60, "lock_timeout": 60, "close_timeout": 60, **options}
    with ExitStack() as stack:
        children = [
            stack.enter_context(child_process(BURST, log, json.dumps(options), name, RECORDS))
            for name in range(PROCESSES)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        said = [child.communicate() for child in children]
        assert [child.returncode for child in children] == [0] * PROCESSES, said
    reports = [json.loads(out) for out, _ in said]
    assert_sums(*(report["stats"] for report in reports))
    assert all("failed" not in report["statuses"] for report in reports)
    assert all(report["stats"]["pending"] == 0 for report in reports)
    return reports


def rotated_by(reports: list[dict[str, Any]]) -> list[str]:
    """Return every name that any process gave a rotated file, oldest first; none of them twice."""
    names = sorted(name for report in reports for name in report["rotated"])
    assert len(set(names)) == len(names) == sum(report["stats"]["rotations"] for report in reports)
    return names


def modes_beside(log: Path) -> dict[str, str]:
    """Return all names beside the log with their permissions."""
    return {entry.name: oct(stat.S_IMODE(entry.stat().st_mode)) for entry in os.scandir(log.parent)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compress", [False, True])
def test_many_processes_that_rotate_keep_every_record_once(log_path: Path, compress: bool):
    """8 processes, 2,000 records of 3 kB each, 200 kB a file: every one is there once, and the log is whole."""
    reports = burst(log_path, max_bytes=MAX_BYTES, compress=compress)

    names = rotated_by(reports)
    suffix = ".gz" if compress else ""
    assert {str(file) for file in log_files(log_path)} == {str(log_path), *(f"{name}{suffix}" for name in names)}
    assert len(names) > PROCESSES * RECORDS * 2800 / MAX_BYTES
    assert set(modes_beside(log_path)) == {file.name for file in log_files(log_path)} | {lock_file(log_path).name}
    assert set(modes_beside(log_path).values()) == {"0o600"}
    if not compress:
        assert max(file.stat().st_size for file in log_files(log_path)) <= MAX_BYTES
    expected = [f"{name}-{number}" for name in range(PROCESSES) for number in range(RECORDS)]
    assert Counter(record["record_id"] for record in read_log(log_path)) == Counter(expected)
    report = verify_log(log_path)
    assert (report.whole, report.records) == (True, len(expected)), report.problems[:5]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compress", [False, True])
def test_many_processes_that_rotate_and_delete_keep_exactly_the_newest_files(log_path: Path, compress: bool):
    """With `backup_count` 3 the live file and the three newest stay, all others and every part file are gone."""
    reports = burst(log_path, max_bytes=MAX_BYTES, backup_count=3, compress=compress)

    names = rotated_by(reports)
    suffix = ".gz" if compress else ""
    assert {str(file) for file in log_files(log_path)} == {str(log_path), *(f"{name}{suffix}" for name in names[-3:])}
    assert set(modes_beside(log_path)) == {file.name for file in log_files(log_path)} | {lock_file(log_path).name}
    # The files are the newest, so of each writer that is in them they hold the last records, without a gap.
    kept: dict[str, list[int]] = {}
    for file in log_files(log_path):
        for record in read_lines(file):
            name, number = record["record_id"].split("-")
            kept.setdefault(name, []).append(int(number))
    assert sum(map(len, kept.values())) >= 3 * (MAX_BYTES // 3000)
    for numbers in kept.values():
        assert numbers == list(range(numbers[0], RECORDS))


BASE_S = 1_700_000_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("compress", [False, True])
def test_processes_that_reach_a_new_period_together_begin_one_file(log_path: Path, compress: bool):
    """4 processes on `when: S`, second by second: each file holds exactly its second's records, all of them."""
    with ExitStack() as stack:
        options = json.dumps({"when": "S", "compress": compress})
        children = [stack.enter_context(child_process(TIMED, log_path, options)) for _ in range(4)]
        for second in range(4):
            block = [BASE_S + second] * 100
            for name, child in enumerate(children):
                tell(child, [(f"{second}-{name}-{number}", at_s) for number, at_s in enumerate(block)])
            for child in children:
                assert answer(child) is True
        stats = [end(child) for child in children]

    assert sum(one["rotations"] for one in stats) == 3
    assert_sums(*stats)
    seconds = [{record["record_id"][0] for record in read_lines(file)} for file in log_files(log_path)]
    assert seconds == [{"0"}, {"1"}, {"2"}, {"3"}]
    expected = [f"{second}-{name}-{number}" for second in range(4) for name in range(4) for number in range(100)]
    assert_all_there_once(log_path, expected)
    assert verify_log(log_path).whole


@pytest.mark.timeout(60)
def test_processes_that_are_not_together_in_time_rotate_once_a_period(log_path: Path):
    """4 processes on `when: S`, each at its own pace: the first to reach a second begins its file."""
    with ExitStack() as stack:
        options = json.dumps({"when": "S", "batch_size": 7, "flush_interval": 0.01, "queue_max_size": 50})
        children = [stack.enter_context(child_process(TIMED, log_path, options)) for _ in range(4)]
        for name, child in enumerate(children):
            tell(child, [(f"{number // 200}-{name}-{number}", BASE_S + number // 200) for number in range(600)])
        for child in children:
            assert answer(child) is True
        stats = [end(child) for child in children]

    assert sum(one["rotations"] for one in stats) == 2
    files = [[int(record["record_id"][0]) for record in read_lines(file)] for file in log_files(log_path)]
    assert [(file[0], max(file)) for file in files] == [(0, 0), (1, 1), (2, 2)]
    assert_all_there_once(log_path, [f"{n // 200}-{name}-{n}" for name in range(4) for n in range(600)])
    assert verify_log(log_path).whole


def tell(child: subprocess.Popen[str], what: object) -> None:
    """Give a child a line."""
    assert child.stdin is not None
    child.stdin.write(json.dumps(what) + "\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[str]) -> Any:
    """Read a line from a child."""
    assert child.stdout is not None
    assert child.stderr is not None
    line = child.stdout.readline()
    assert line, f"the child ended early:\n{child.stderr.read()}"
    return json.loads(line)


def end(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Let a child close its handler, and return its counters."""
    out, err = child.communicate()
    assert child.returncode == 0, err
    snapshot: dict[str, Any] = json.loads(out)
    return snapshot


# --- strangers that rotate -------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="alone"),
        pytest.param({"max_bytes": 20_000, "compress": True}, id="beside our own rotation"),
        pytest.param({"when": "D"}, id="beside our own days"),
    ],
)
@pytest.mark.parametrize("mode", ["create 0600", "nocreate"])
def test_real_logrotate_in_the_middle_of_all_writers_work_loses_nothing(
    tmp_path: Path, notes: Notes, options: dict[str, Any], mode: str
):
    """logrotate(8) with `create` or `nocreate`, again and again under load: each record is in one of the files."""
    folder = tmp_path / "log"
    folder.mkdir(mode=0o755)
    log, configuration = folder / "log.jsonl", tmp_path / "logrotate.conf"
    rules = ["rotate 999", "missingok", "nocompress", "size 1", mode]
    configuration.write_text(f"{log} {{\n" + "\n".join(rules) + "\n}\n")
    configuration.chmod(0o600)
    command = ["logrotate", "-f", "-s", str(tmp_path / "state"), str(configuration)]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(writer(log, notes, batch_size=3, flush_interval=0.01, **options)) for _ in range(4)
        ]
        for one in writers:
            one.log(f"first{one.pid}")
            assert one.ask("flush")
        # Beside our own rotation it may find the log gone between its look and its rename, and complain.
        check = "max_bytes" not in options
        subprocess.run(command, check=check, capture_output=True)
        for round_ in range(6):
            for number, one in enumerate(writers):
                one.send("log", f"w{number}-{round_}", 60, 500)
            subprocess.run(command, check=check, capture_output=True)
            for one in writers:
                one.answer()
                assert one.ask("flush")
        for one in writers:
            one.end()

    # One for sure: in the rounds, our own rotation may just have taken the log away when logrotate looks.
    assert [name for name in modes_beside(log) if name.removeprefix(f"{log.name}.").isdigit()]
    assert len(notes.ids()) == 4 * (1 + 6 * 60)
    assert_kept(log, notes)
    assert verify_log(log).whole
    assert {modes for name, modes in modes_beside(log).items() if name.startswith(log.name)} == {"0o600"}


# The child stops itself between the decision to rotate and the rename.
STOP_BEFORE_RENAME = """
rename = os.rename


def stop_first(source, target):
    os.rename = rename
    signal.raise_signal(signal.SIGSTOP)
    rename(source, target)


os.rename = stop_first
"""
STOP_AFTER_RENAME = STOP_BEFORE_RENAME.replace(
    "    signal.raise_signal(signal.SIGSTOP)\n    rename(source, target)",
    "    rename(source, target)\n    signal.raise_signal(signal.SIGSTOP)",
)


def replace(log: Path, kind: str, other: Path) -> None:
    """Put something else in the log's place; its records stay under a numbered name that readers know."""
    if kind == "directory removed":
        # Without the journal: what the process still has in its own would stand in the copy as well.
        shutil.copytree(log.parent, other, ignore=shutil.ignore_patterns("*.journal"))
        shutil.rmtree(log.parent)
        return
    if log.exists():
        log.rename(log.with_name(f"{log.name}.1"))
    if kind == "symlink":
        other.write_bytes(b"somebody's own\n")
        log.symlink_to(other)
    elif kind == "foreign file":
        log.write_bytes(b'{"somebody":"else"}\n')
    elif kind == "directory":
        log.mkdir()
        (log / "file").touch()
    elif kind == "fifo":
        os.mkfifo(log)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", ["renamed", "symlink", "foreign file", "directory", "fifo", "directory removed"])
def test_log_replaced_while_it_is_rotated_keeps_every_record(tmp_path: Path, notes: Notes, kind: str, moment: str):
    """Whatever takes the log's place right before or after the rename: no record is lost, and nobody's file written."""
    log, other = tmp_path / "log" / "log.jsonl", tmp_path / "other"
    code = PREAMBLE + (STOP_BEFORE_RENAME if moment == "before" else STOP_AFTER_RENAME) + OBEY
    options = {"batch_size": 10_000, "flush_interval": 1000, "max_bytes": 2000, "retry_delay": 0.01, "max_retries": 0}
    options |= {"backup_count": 0, "compress": False}
    with child_process(code, log, notes.path, json.dumps(options), is_fresh=True) as process:
        one = Writer(process)
        one.log("before", 2, 500)
        assert one.ask("flush")
        one.log("after", 2, 500)
        one.send("flush", 0.5)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        replace(log, kind, other)
        process.send_signal(signal.SIGCONT)
        one.answer()
        remove_what_is_in_the_way(log)
        assert one.ask("flush")
        one.end()

    assert_sums(*notes.stats())
    found = Counter(record.get("record_id") for record in read_log(log))
    if kind == "directory removed":
        # What was destroyed with it is gone; nothing that was not in it.
        found += Counter(record["record_id"] for record in read_log(other / log.name))
    assert found - Counter([None]) == Counter(notes.ids())
    if kind == "symlink":
        assert other.read_bytes() == b"somebody's own\n"
    if kind == "foreign file" and moment == "before":
        assert [file for file in log_files(log) if file.read_bytes() == b'{"somebody":"else"}\n']


def remove_what_is_in_the_way(log: Path) -> None:
    """Clear the log's place of what is no file, as whoever put it there would in the end."""
    if log.is_symlink() or log.is_fifo():
        log.unlink()
    elif log.is_dir():
        assert [path.name for path in log.iterdir()] == ["file"]
        shutil.rmtree(log)


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink"])
def test_what_was_rotated_away_in_the_logs_place_is_no_old_file_of_ours(tmp_path: Path, notes: Notes, kind: str):
    """A thing that was put in the log's place at the very moment of the rename is neither deleted nor compressed."""
    log, other = tmp_path / "log" / "log.jsonl", tmp_path / "other"
    options = {"batch_size": 10_000, "flush_interval": 1000, "max_bytes": 2000, "backup_count": 1, "compress": True}
    with child_process(
        PREAMBLE + STOP_BEFORE_RENAME + OBEY, log, notes.path, json.dumps(options), is_fresh=True
    ) as process:
        one = Writer(process)
        one.log("before", 2, 500)
        assert one.ask("flush")
        one.log("after", 2, 500)
        one.send("flush")
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        replace(log, kind, other)
        process.send_signal(signal.SIGCONT)
        one.answer()
        one.log("later", 20, 500)
        assert one.ask("flush")
        one.end()

    there = [path for path in log.parent.iterdir() if path.name.startswith(f"{log.name}.2")]
    mine = [path for path in there if path.is_file() and not path.is_symlink()]
    strange = [path for path in there if path not in mine]
    assert len(strange) == 1
    assert stat.S_IFMT(strange[0].lstat().st_mode) == {
        "directory": stat.S_IFDIR, "fifo": stat.S_IFIFO, "symlink": stat.S_IFLNK
    }[kind]  # fmt: skip
    assert [path.suffix for path in mine] == [".gz"]


def test_directory_removed_while_old_files_are_compressed_keeps_what_is_logged_then(tmp_path: Path, notes: Notes):
    """Whoever removes everything in the middle of a compression finds the records that are logged from then on."""
    log = tmp_path / "log" / "log.jsonl"
    stop = """
    _fsync = os.fsync


    def stop_first(descriptor):
        os.fsync = _fsync
        signal.raise_signal(signal.SIGSTOP)
        _fsync(descriptor)


    os.fsync = stop_first
    """
    options = {"batch_size": 10_000, "flush_interval": 0.01, "max_bytes": 2000, "compress": True}
    code = PREAMBLE + "\n".join(line[4:] for line in stop.splitlines()) + OBEY
    with child_process(code, log, notes.path, json.dumps(options), is_fresh=True) as process:
        one = Writer(process)
        one.send("log", "gone", 5, 500)
        # It answers, or stops, whichever comes first: the listener compresses as soon as it has rotated.
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        shutil.rmtree(log.parent)
        process.send_signal(signal.SIGCONT)
        one.answer()
        assert one.ask("flush")
        one.log("kept", 20, 500)
        assert one.ask("flush")
        one.end()

    assert_kept(log, notes, sure=[f"kept-{number}" for number in range(20)])
    assert not [path for path in log.parent.iterdir() if path.suffix == ".part"]
