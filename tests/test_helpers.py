"""The tests' own tools: an assertion that cannot fail would prove nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest
from helpers import ROOT, assert_all_there_once, child_process, log_files, read_lines, run_child

if TYPE_CHECKING:
    from pathlib import Path

LEAKS = """
import subprocess, sys, threading
held = []
def test_thread():
    held.append(threading.Event())
    threading.Thread(target=held[0].wait, args=(30,), name="forgotten", daemon=True).start()
def test_child():
    held.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
def test_tidy():
    pass
"""


def sealed(body: str) -> bytes:
    """Close a line as the record's format says, written here by hand."""
    return f'{body},"checksum":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


A, B = sealed('{"record_id":"a"'), sealed('{"record_id":"b"')


def test_whole_lines_read_back(log_path: Path) -> None:
    """Lines that are whole are returned in the order of the file."""
    log_path.write_bytes(A + B)

    assert [record["record_id"] for record in read_lines(log_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(A + B[:-1], "torn last line", id="tail without newline"),
        pytest.param(A[:9] + B, "no line of ours|wrong checksum", id="half a line glued to a whole one"),
        pytest.param(A.replace(b'"a"', b'"c"'), "wrong checksum", id="changed byte"),
        pytest.param(A + b'{"foreign":1}\n', "no line of ours", id="no checksum"),
        pytest.param(sealed('{"a":1,"a":1'), "stands twice", id="key twice"),
        pytest.param(sealed('{"a":NaN'), "NaN is no JSON", id="NaN"),
        pytest.param(A + b"\n" + B, "no line of ours", id="empty line"),
    ],
)
def test_a_line_that_is_not_whole_fails_the_reader(log_path: Path, data: bytes, complaint: str) -> None:
    """No kind of damage passes for a whole log."""
    log_path.write_bytes(data)

    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        read_lines(log_path)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [(["a", "b", "c"], "1 lost"), (["a"], "1 never accepted"), (["a", "b"], "1 doubled")],
)
def test_lost_doubled_and_foreign_records_fail_the_count(log_path: Path, ids: list[str], complaint: str) -> None:
    """The shared assertion counts across rotated files, and sees what is missing, double, or nobody's."""
    rotated = log_path.with_name(f"{log_path.name}.20260102T030405.000006Z")
    rotated.write_bytes(A + (B if complaint == "1 doubled" else b""))
    log_path.write_bytes(B)

    assert log_files(log_path) == [rotated, log_path]
    with pytest.raises(AssertionError, match=complaint):
        assert_all_there_once(log_path, ids)


def test_what_was_set_aside_is_not_the_log(log_path: Path) -> None:
    """A torn tail set aside and a lock are no part of the log; sealed and numbered files are."""
    suffixes = (".torn-20260102T030405.000006Z", ".lock", ".sealed-20260102T030405.000006Z", ".1", ".2.gz")
    for suffix in suffixes:
        log_path.with_name(log_path.name + suffix).touch()

    assert [file.name[len(log_path.name) :] for file in log_files(log_path)] == sorted(suffixes[2:])


@pytest.mark.slow
def test_a_child_that_hangs_is_killed_with_its_children_and_fails_the_test() -> None:
    """No child outlives its test, and neither does what the child started."""
    code = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE).wait()
    """
    with pytest.raises(pytest.fail.Exception, match="hung"):
        run_child(code, timeout=0.5)


@pytest.mark.slow
def test_a_child_that_ends_wrongly_fails_the_test() -> None:
    """The exit code is looked at, and what the child said is shown."""
    with pytest.raises(pytest.fail.Exception, match=r"(?s)ended with 3, not 0.*told you"):
        run_child("import sys; print('told you'); sys.exit(3)")


@pytest.mark.slow
def test_a_child_left_in_the_middle_is_reaped() -> None:
    """Leaving the block early, by an exception as well, leaves no process."""

    def leave_in_the_middle() -> None:
        with child_process("print('ready', flush=True); input()") as process:
            started.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            _ = 1 // 0

    started: list[subprocess.Popen[str]] = []
    with pytest.raises(ZeroDivisionError):
        leave_in_the_middle()

    process = started[0]
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.slow
def test_threads_and_children_left_behind_fail_their_test(tmp_path: Path) -> None:
    """The fixture that watches every test sees a forgotten thread and a forgotten child, and blames nobody else."""
    inner = ROOT / "tests" / "conftest.py"
    (tmp_path / "conftest.py").write_text(inner.read_text("utf-8").replace("GRACE_S = 5.0", "GRACE_S = 0.1"), "utf-8")
    (tmp_path / "test_leaks.py").write_text(LEAKS, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert "3 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert "forgotten" in done.stdout
    assert "child " in done.stdout
