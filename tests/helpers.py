"""What tests share: real children that are always reaped, and the two questions every log is asked."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from warm import Unavailable, warm_child

import ai_response_logging
from ai_response_logging import _snapshot
from ai_response_logging._snapshot import LogFile, LogSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CHECKSUM = re.compile(rb'(?P<prefix>\{.*),"checksum":"(?P<checksum>[0-9a-f]{8})"\}', re.DOTALL)
# Beside a log lie files that are not the log: its lock, torn tails set aside, a journal.
ROTATED = re.compile(r"(\.(sealed-)?(\d{8}T\d{6}\.\d{6}Z|\d+)|-\d{8,10}(\.backup)?)(\.gz)?")
KILL_GRACE_S = 5.0


# --- what this machine can do ----------------------------------------------------------------------------------


@functools.cache
def can_trace() -> bool:
    """Say whether strace is here and allowed to trace (a container may forbid ptrace)."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


has_strace = pytest.mark.skipif(not can_trace(), reason="strace cannot trace here")
has_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
has_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
has_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
has_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not beside this clone")
is_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
is_not_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do everything")


# --- children --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def child_process(
    code_or_script: str | Path,
    *args: object,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
    options: Iterable[str] = (),
    is_fresh: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """
    Start a real child and give it to the block; on every way out it is dead and reaped.

    The processes it started die with it, unless the block has waited for it already.

    Args:
        code_or_script: Python source (dedented and run by ``-c``) or the path of a script.
        args: Become its ``sys.argv[1:]``, each through ``str``.
        python: The interpreter.
        env: On top of this process's environment.
        cwd: Where it runs; here unless told.
        options: For the interpreter, such as ``("-X", "dev")``.
        is_fresh: Whether it is never forked by :mod:`warm`: for a block that waits for it by :mod:`os`.
    """
    is_script = isinstance(code_or_script, Path)
    source = [str(code_or_script)] if is_script else ["-c", textwrap.dedent(str(code_or_script))]
    command = [python, *options, *source, *map(str, args)]
    environment = {**os.environ, **_import_path(), **(env or {})}
    with _start(command, environment, str(cwd or Path.cwd()), is_fresh=is_fresh) as process:
        try:
            yield process
        finally:
            # Until it is reaped its process id is its own, and so is the group.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(KILL_GRACE_S)


def _start(command: list[str], env: dict[str, str], cwd: str, *, is_fresh: bool) -> subprocess.Popen[str]:
    """Start a child in a session of its own, so that its children die with it, whatever it did."""
    if not is_fresh and command[0] == sys.executable:
        with contextlib.suppress(Unavailable):
            return warm_child(command[1:], usual={**os.environ, **_import_path()}, env=env, cwd=cwd)
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def run_child(
    code_or_script: str | Path,
    *args: object,
    python: str = sys.executable,
    timeout: float = 15.0,
    expect: int | None = 0,
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
    options: Iterable[str] = (),
    is_fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """
    Run a real child process to its end and return what it printed; it is always reaped.

    Args:
        code_or_script: Python source (dedented and run by ``-c``) or the path of a script.
        args: Become its ``sys.argv[1:]``, each through ``str``.
        python: The interpreter.
        timeout: Seconds until it counts as hung, is killed and fails the test.
        expect: The exit code it must have, negative for a signal; None takes any.
        env: On top of this process's environment.
        cwd: Where it runs; here unless told.
        options: For the interpreter, such as ``("-X", "dev")``.
        is_fresh: Whether it is never forked by :mod:`warm`: where an interpreter's own end is what is tried.
    """
    with child_process(
        code_or_script, *args, python=python, env=env, cwd=cwd, options=options, is_fresh=is_fresh
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"the child hung for {timeout} s\n--- stdout\n{out}\n--- stderr\n{err}")
    if expect is not None and process.returncode != expect:
        pytest.fail(f"the child ended with {process.returncode}, not {expect}\n--- stdout\n{out}\n--- stderr\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _import_path() -> dict[str, str]:
    """Let a child import the package these tests import, installed or not."""
    origin = Path(ai_response_logging.__file__ or "").resolve().parent.parent
    if origin != ROOT:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(origin), os.environ.get("PYTHONPATH")]))}


# --- what is in a log ------------------------------------------------------------------------------------------


def log_files(path: str | Path) -> list[Path]:
    """
    Return the log and its rotated files, plain or compressed, oldest name first and the log itself last.

    Of a file that stands both plain and compressed, after a kill between the two, the plain one counts.
    """
    path = Path(path)
    rotated = [other for other in path.parent.glob(f"{path.name}*") if ROTATED.fullmatch(other.name[len(path.name) :])]
    counted = {one for one in rotated if one.suffix != ".gz" or one.with_suffix("") not in rotated}
    return sorted(counted) + ([path] if path.exists() else [])


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """
    Return the records of one file in its order, and fail on a line that is not whole.

    Whole means: ended by a newline, one JSON object as the standard library reads it, no key twice, no NaN, and the
    checksum, computed here and not by the code under test, is right.
    """
    data = gzip.decompress(Path(path).read_bytes()) if str(path).endswith(".gz") else Path(path).read_bytes()
    *lines, tail = data.split(b"\n")
    assert tail == b"", f"{path}: torn last line: {tail[:200]!r}"
    return [_whole_line(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def assert_all_there_once(
    path: str | Path, ids: Iterable[str], *, key: str = "record_id", others: bool = False
) -> None:
    """
    Assert that every id stands exactly once in the log (rotated files included) and that no line is torn.

    Args:
        path: The log.
        ids: What was accepted, as *key* has it.
        key: The field that holds the id.
        others: Whether the log may hold other records; none of them twice either.
    """
    expected = set(ids)
    found = Counter(record.get(key) for file in log_files(path) for record in read_lines(file))
    lost = sorted(expected - found.keys())
    doubled = sorted(str(one) for one, count in found.items() if count > 1)
    foreign = [] if others else sorted(map(str, found.keys() - expected))
    assert (lost, doubled, foreign) == ([], [], []), (
        f"{path}: of {len(expected)} accepted {len(lost)} lost {lost[:5]}, "
        f"{len(doubled)} doubled {doubled[:5]}, {len(foreign)} never accepted {foreign[:5]}"
    )


def _whole_line(line: bytes, where: str) -> dict[str, Any]:
    whole = CHECKSUM.fullmatch(line)
    assert whole, f"{where}: no line of ours: {line[:200]!r}"
    assert int(whole["checksum"], 16) == zlib.crc32(whole["prefix"]), f"{where}: wrong checksum: {line[:200]!r}"
    record = json.loads(line, object_pairs_hook=functools.partial(_no_key_twice, where), parse_constant=_no_constant)
    assert isinstance(record, dict), f"{where}: no object: {line[:200]!r}"
    return record


def _no_key_twice(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), f"{where}: a key stands twice: {[key for key, _ in pairs]}"
    return dict(pairs)


def _no_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


def compress_late_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a snapshot hold its newest file only, and each other one compressed just before it is opened."""
    real, done = LogSnapshot.open, []

    def open_late(snapshot: LogSnapshot, file: LogFile) -> Any:
        if file.path not in done and not file.is_live and not file.is_compressed:
            done.append(file.path)
            Path(f"{file.path}.gz").write_bytes(gzip.compress(Path(file.path).read_bytes()))
            os.unlink(file.path)
        return real(snapshot, file)

    monkeypatch.setattr(_snapshot, "_HELD_FILES", 1)
    monkeypatch.setattr(LogSnapshot, "open", open_late)
    return done
