from __future__ import annotations

import errno
import fcntl
import gzip
import itertools
import json
import logging
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import child_process, has_fork, has_proc, has_strace, is_root, log_files, run_child

from ai_response_logging import _compress, read_log
from ai_response_logging._compress import compress_steps
from ai_response_logging._rotate import ROTATED, uncompressed_files
from ai_response_logging.errors import AppendError, LogPathError
from ai_response_logging.handler import AIResponseHandler
from ai_response_logging.writer import BatchFileHandler

PIECE = 256 << 10
STAMP = "20260101T000000.000000Z"
LATER = "20260102T000000.000000Z"
DICE = random.Random(7)

COMPRESS = """
import sys
from ai_response_logging._compress import compress_steps
for _ in compress_steps(sys.argv[1], 0o600):
    pass
"""


class Old:
    """A log with one rotated file that is to be compressed, and what stands beside it."""

    def __init__(self, log: Path, ids: list[str]) -> None:
        self.log, self.ids = log, ids
        self.plain = Path(f"{log}.{STAMP}")
        self.packed = Path(f"{self.plain}.gz")
        self.part = Path(f"{self.plain}.gz.part")
        self.bytes = self.plain.read_bytes()

    def pack(self, data: bytes | None = None) -> None:
        """Let the compressed file stand, with the same bytes or with *data*."""
        self.packed.write_bytes(gzip.compress(self.bytes if data is None else data, 1))

    def standing(self) -> set[str]:
        """Return which of the three forms stand."""
        return {path.suffix for path in (self.plain, self.packed, self.part) if os.path.lexists(path)}

    def assert_each_once(self) -> None:
        """Assert that a reader finds every record of the log once, and no bad line."""
        bad: list[object] = []
        found = Counter(record["record_id"] for record in read_log(self.log, on_bad=bad.append))
        assert bad == []
        assert found == Counter(self.ids)

    def assert_done(self) -> None:
        """Assert that only the compressed file stands, with all bytes."""
        assert self.standing() == {".gz"}
        assert gzip.decompress(self.packed.read_bytes()) == self.bytes
        self.assert_each_once()


def put(handler: BatchFileHandler, ids: list[str], size: int = 10_000) -> None:
    """Write a record of *size* bytes that hardly compress for each id."""
    with handler.batch():
        for one in ids:
            extra = {"record_id": one, "response": DICE.randbytes(size // 2).hex()}
            handler.emit(logging.makeLogRecord({"msg": "m", **extra}))


def steps_of(old: Old) -> Iterator[None]:
    """Return the steps of compressing its plain file."""
    return compress_steps(str(old.plain), 0o600)


def run_all(old: Old) -> int:
    """Compress its plain file in this process, and return in how many steps."""
    return sum(1 for _ in steps_of(old))


def finish(log: Path) -> None:
    """Let the next process that opens the log do what was left."""
    handler = BatchFileHandler(log, durability="memory", compress=True)
    assert handler.tidy_up(lambda: False)
    assert handler.get_stats()["last_error"] in {"", None}
    handler.close()


@pytest.fixture
def old(log_path: Path) -> Old:
    """Make a log of a live file and a rotated one of about 700 kB."""
    handler = BatchFileHandler(log_path, durability="memory")
    ids = [f"old-{number}" for number in range(70)]
    put(handler, ids)
    log_path.rename(f"{log_path}.{STAMP}")
    put(handler, ["live-0", "live-1"])
    handler.close()
    return Old(log_path, [*ids, "live-0", "live-1"])


# --- what it makes ---------------------------------------------------------------------------------------------------


def test_compressed_file_holds_the_same_bytes_in_small_steps(old: Old):
    """A step is a piece of 256 KiB; at the end the plain file and the part file are gone."""
    assert run_all(old) == -(-len(old.bytes) // PIECE) == 3

    old.assert_done()
    assert re.match(ROTATED, old.packed.name.removeprefix(f"{old.log.name}."))


@pytest.mark.skipif(shutil.which("gzip") is None, reason="there is no gzip")
def test_compressed_file_is_one_that_gzip_itself_takes(old: Old):
    """Whoever has only gzip(1) can read it, and its check of the file passes."""
    run_all(old)

    subprocess.run(["gzip", "-t", old.packed], check=True)
    assert subprocess.run(["gzip", "-dc", old.packed], check=True, capture_output=True).stdout == old.bytes


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * PIECE, b"x" * (PIECE + 1), bytes(3 * PIECE)])
def test_any_bytes_come_back(old: Old, data: bytes):
    """Empty files, files of exactly one piece, and what is no log at all are compressed as they are."""
    old.plain.write_bytes(data)
    run_all(old)

    assert old.standing() == {".gz"}
    assert gzip.decompress(old.packed.read_bytes()) == data


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_compressed_file_has_the_mode_of_the_plain_one(old: Old, mode: int, umask: int):
    """Who could read the plain file can read the compressed one, and nobody else can, not even for a moment."""
    old.plain.chmod(mode)
    before = os.umask(umask)
    try:
        steps = steps_of(old)
        next(steps)
        meanwhile = stat.S_IMODE(old.part.stat().st_mode)
        assert sum(1 for _ in steps) == 2
    finally:
        os.umask(before)

    assert (stat.S_IMODE(old.packed.stat().st_mode), meanwhile) == (mode, mode)


@is_root
def test_compressed_file_belongs_to_whom_the_plain_one_did(old: Old):
    """Root's process that tidies up does not take a user's log away."""
    os.chown(old.plain, 12_345, 23_456)
    run_all(old)

    info = old.packed.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (12_345, 23_456, 0o600)


# --- cut short -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_closed_early_leaves_the_plain_file_alone(old: Old, steps: int):
    """Whoever has no more time leaves everything as it was, and another can begin at once."""
    begun = steps_of(old)
    assert sum(1 for _ in itertools.islice(begun, steps)) == steps
    begun.close()

    assert old.standing() == {f".{STAMP.split('.')[1]}"}
    old.assert_each_once()
    run_all(old)
    old.assert_done()


# How often each is called at least; those that write not at all where the compressed file stands already.
ALWAYS = {"openat": 2, "fsync": 1, "unlink": 1, "flock": 1, "close": 2}
WHILE_WRITING = {"write": 2, "rename": 1, "ftruncate": 1, "fchmod": 1, "fchown": 1}
BEGINNINGS = {"plain": ALWAYS | WHILE_WRITING, "orphan": ALWAYS | WHILE_WRITING, "both and orphan": ALWAYS}
if "AI_RESPONSES_TEST_EVERY_POINT" in os.environ:  # the full run: it has nothing that the last one lacks
    BEGINNINGS["both"] = ALWAYS


def prepare(old: Old, begin: str) -> None:
    """Let the log stand as an earlier kill has left it."""
    if "both" in begin:
        old.pack()
    if "orphan" in begin:
        old.part.write_bytes(DICE.randbytes(2_000_000))


@has_strace
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("begin", "call", "least"),
    [(begin, call, least) for begin, calls in BEGINNINGS.items() for call, least in calls.items()],
)
def test_killed_at_any_system_call_no_record_is_lost_or_doubled(
    old: Old, tmp_path: Path, begin: str, call: str, least: int
):
    """Whatever call SIGKILL falls on, each record is readable once, and the next who opens the log finishes."""
    keep = tmp_path / "keep"
    prepare(old, begin)
    keep.mkdir()
    for file in old.log.parent.glob(f"{old.log.name}*"):
        shutil.copy2(file, keep)
    for number in itertools.count(1):
        for file in old.log.parent.glob(f"{old.log.name}*"):
            file.unlink()
        shutil.copytree(keep, old.log.parent, dirs_exist_ok=True)
        if not killed_at(call, number, old):
            break
        old.assert_each_once()
        finish(old.log)
        old.assert_done()

    assert number - 1 >= least, f"{call} was reached less often than it should be"
    old.assert_done()


def killed_at(call: str, number: int, old: Old) -> bool:
    """Compress in a process that is killed when it enters its *number*-th *call* on one of the files; say if it was."""
    paths = [part for path in (old.plain, old.packed, old.part, old.log.parent) for part in ("-P", str(path))]
    wrap = ["-qq", "-o", os.devnull, *paths, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    done = run_child(COMPRESS, old.plain, python="strace", options=[*wrap, sys.executable], expect=None)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


# --- in company ------------------------------------------------------------------------------------------------------


def test_orphaned_part_file_is_begun_anew(old: Old):
    """What a killed process left in a part file, longer than the whole, does not get into the compressed one."""
    prepare(old, "orphan")
    run_all(old)

    old.assert_done()


def test_orphaned_part_file_of_a_file_that_is_gone_is_removed(old: Old):
    """A part file whose plain file was deleted or is compressed already does not lie there for ever."""
    prepare(old, "both and orphan")
    old.plain.unlink()
    assert uncompressed_files(str(old.log)) == [str(old.plain)]
    run_all(old)

    old.assert_done()


def test_second_to_come_leaves_the_first_alone(old: Old):
    """While a process compresses a file, another one finds it taken, changes nothing and does not wait."""
    first = steps_of(old)
    next(first)
    inode = old.part.stat().st_ino

    assert run_all(old) == 0
    assert old.part.stat().st_ino == inode
    assert sum(1 for _ in first) == 2
    old.assert_done()


@pytest.mark.slow
def test_several_processes_at_once_compress_each_file_once(log_path: Path):
    """Processes that tidy up the same old files at the same time lose and double nothing, and leave none over."""
    handler = BatchFileHandler(log_path, durability="memory", max_bytes=60_000)
    ids = [str(number) for number in range(200)]
    put(handler, ids, 3000)
    handler.close()
    code = """
    import sys
    from ai_response_logging.writer import BatchFileHandler
    handler = BatchFileHandler(sys.argv[1], durability="memory", compress=True)
    print("ready", flush=True)
    sys.stdin.readline()
    handler.tidy_up(lambda: False)
    handler.close()
    print(handler.get_stats()["last_error"] or "well")
    """
    with (
        child_process(code, log_path) as one,
        child_process(code, log_path) as two,
        child_process(code, log_path) as three,
    ):
        processes = (one, two, three)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate()[0] for process in processes] == ["well\n"] * 3

    names = os.listdir(log_path.parent)
    assert not [name for name in names if name.endswith(".part")]
    assert uncompressed_files(str(log_path)) == []
    assert len(log_files(log_path)) > 5
    assert Counter(record["record_id"] for record in read_log(log_path)) == Counter(ids)


@has_fork
@pytest.mark.slow
@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)", "del steps", "steps.close()"])
def test_forked_child_leaves_its_parents_part_file_alone(old: Old, end: str):
    """Whatever a child does with its copy of a compression, the parent's goes on undisturbed."""
    code = f"""
    import os, sys
    from ai_response_logging._compress import compress_steps
    steps = compress_steps(sys.argv[1], 0o600)
    next(steps)
    child = os.fork()
    if child == 0:
        {end}
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.exists(sys.argv[1] + ".gz.part")
    for _ in steps:
        pass
    """
    assert run_child(code, old.plain).stderr == ""

    old.assert_done()


@has_fork
@has_proc
@pytest.mark.slow
def test_child_forked_in_mid_compression_holds_none_of_its_files(old: Old):
    """A child that lives long keeps neither a deleted file's room on the disk nor the lock of a part file."""
    code = """
    import os, sys, threading
    from ai_response_logging import _compress
    from ai_response_logging.handler import AIResponseHandler
    reached, go_on, fsync = threading.Event(), threading.Event(), os.fsync

    def wait_there(descriptor):
        reached.set()
        go_on.wait()
        fsync(descriptor)

    _compress.os = type("os", (), {**vars(os), "fsync": staticmethod(wait_there)})
    handler = AIResponseHandler(sys.argv[1], durability="memory", compress=True, flush_interval=0.01)
    handler.submit_fields({"record_id": "more"})
    assert reached.wait(10)
    child = os.fork()
    if child == 0:
        held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{name}")]
        print(*[name for name in held if "Z" in os.path.basename(name)], flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    go_on.set()
    handler.close()
    """
    done = run_child(code, old.log)

    assert done.stdout.strip() == ""
    old.ids.append("more")
    old.assert_done()


@pytest.mark.slow
def test_compression_that_is_stopped_keeps_nobody_from_writing(old: Old):
    """Another process writes, rotates and compresses while one is stopped by SIGSTOP in the middle of a file."""
    code = """
    import os, signal, sys
    from ai_response_logging import _append, _compress
    from ai_response_logging.handler import AIResponseHandler
    append = _append.append_block

    def stop_after_a_piece(descriptor, block, *, path):
        append(descriptor, block, path=path)
        if path.endswith(".gz.part"):
            _append.append_block = append
            signal.raise_signal(signal.SIGSTOP)

    _append.append_block = stop_after_a_piece
    handler = AIResponseHandler(sys.argv[1], durability="memory", compress=True)
    handler.close()
    """
    with child_process(code, old.log, is_fresh=True) as stopped:
        assert os.WIFSTOPPED(os.waitpid(stopped.pid, os.WUNTRACED)[1])
        assert 0 < old.part.stat().st_size < old.plain.stat().st_size
        handler = AIResponseHandler(old.log, durability="memory", compress=True, max_bytes=50_000, lock_timeout=0.5)
        more = [f"more-{number}" for number in range(20)]
        for one in more:
            handler.submit_fields({"record_id": one, "response": "x" * 10_000})
        assert handler.flush(5)
        handler.close()
        assert handler.get_stats()["failed"] == 0
        assert handler.get_stats()["rotations"] > 2
        packed = [file for file in log_files(old.log) if file.suffix == ".gz"]
        assert len(packed) > 2
        assert old.plain.exists()
        old.ids += more
        old.assert_each_once()
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(15) == 0

    old.assert_done()
    assert uncompressed_files(str(old.log)) == []


# --- both stand ------------------------------------------------------------------------------------------------------


def test_plain_file_goes_when_the_compressed_one_proves_to_hold_the_same(old: Old):
    """Somebody was killed between the last two steps: the compressed file stays as it is, the plain one goes."""
    old.pack()
    inode = old.packed.stat().st_ino
    old.assert_each_once()
    assert run_all(old) == 3

    assert old.packed.stat().st_ino == inode
    old.assert_done()


@pytest.mark.parametrize("wrong", ["shorter", "longer", "other", "empty", "cut", "no gzip", "bad check", "no bytes"])
def test_plain_file_stays_when_the_compressed_one_differs(old: Old, wrong: str):
    """Both stay, untouched, and the error names them: only a person can say which of them is right."""
    packed = gzip.compress(old.bytes, 1)
    contents = {
        "shorter": gzip.compress(old.bytes[:-1], 1),
        "longer": gzip.compress(old.bytes + b"\n", 1),
        "other": gzip.compress(old.bytes[:-2] + b"?\n", 1),
        "empty": gzip.compress(b""),
        "cut": packed[:-9],
        "no gzip": b"no gzip at all",
        "bad check": packed[:-8] + b"????" + packed[-4:],
        "no bytes": b"",
    }
    old.packed.write_bytes(contents[wrong])

    with pytest.raises(FileExistsError, match="both stay") as raised:
        run_all(old)
    assert str(old.packed) in str(raised.value)
    assert (old.plain.read_bytes(), old.packed.read_bytes()) == (old.bytes, contents[wrong])
    assert not old.part.exists()
    old.assert_each_once()


@pytest.mark.parametrize("place", ["packed", "part"])
@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "fifo", "directory"])
def test_something_else_in_the_way_is_left_alone(old: Old, tmp_path: Path, place: str, kind: str):
    """Nothing is written to, read from or waited for at what stands in the way; the plain file stays."""
    other, there, packed = tmp_path / "other", getattr(old, place), gzip.compress(old.bytes)
    if kind == "symlink":
        other.write_bytes(packed)
    {
        "symlink": lambda: there.symlink_to(other),
        "dangling symlink": lambda: there.symlink_to(other),
        "fifo": lambda: os.mkfifo(there),
        "directory": there.mkdir,
    }[kind]()
    before = there.lstat().st_ino

    with pytest.raises(LogPathError):
        run_all(old)
    assert there.lstat().st_ino == before
    assert old.plain.read_bytes() == old.bytes
    assert other.read_bytes() == packed if kind == "symlink" else not other.exists()


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_file_that_somebody_deletes_does_not_come_back(old: Old, when: str):
    """A file that retention, or a person, deleted is not there again, compressed, when its compression is done."""
    steps = steps_of(old)
    if when == "meanwhile":
        next(steps)
    old.plain.unlink()
    for _ in steps:
        pass

    assert old.standing() == set()


def test_compressed_file_deleted_while_it_is_compared_costs_nothing(old: Old, monkeypatch: pytest.MonkeyPatch):
    """If the compressed file vanishes before it could be looked at, the plain one stays."""
    old.pack()

    def vanish(*args: object, **options: object) -> object:
        if args[0] == str(old.packed):
            old.packed.unlink()
        return opened(*args, **options)  # type: ignore[arg-type]

    opened = _compress.open_regular
    monkeypatch.setattr(_compress, "open_regular", vanish)
    run_all(old)

    assert old.plain.read_bytes() == old.bytes
    assert not old.part.exists()


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "ftruncate"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_refused_call_leaves_the_plain_file_and_no_part_file(
    old: Old, monkeypatch: pytest.MonkeyPatch, call: str, error: int
):
    """A full disk or a broken one costs the compression, and nothing else."""
    original = getattr(os, call)

    def refuse(target: int | str, *rest: object) -> object:
        name = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
        if name.endswith(".part"):
            raise OSError(error, os.strerror(error))
        return original(target, *rest)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises((OSError, AppendError)):
        run_all(old)
    monkeypatch.undo()

    assert old.standing() == {f".{STAMP.split('.')[1]}"}
    old.assert_each_once()
    run_all(old)
    old.assert_done()


def test_file_that_may_not_be_read_stays_as_it_is(old: Old, monkeypatch: pytest.MonkeyPatch):
    """Another user's file, which we may not read, is left to that user's processes."""

    def refuse(path: str, *args: object, **options: object) -> object:
        if path == str(old.plain):
            raise PermissionError(errno.EACCES, "refused", path)
        return opened(path, *args, **options)  # type: ignore[arg-type]

    opened = _compress.open_regular
    monkeypatch.setattr(_compress, "open_regular", refuse)
    with pytest.raises(PermissionError):
        run_all(old)

    assert old.standing() == {f".{STAMP.split('.')[1]}"}


def test_plain_file_that_cannot_be_removed_is_read_once(old: Old, monkeypatch: pytest.MonkeyPatch):
    """In a directory where we may not delete, both files stand; a reader takes one of them."""
    unlink = os.unlink

    def refuse(path: str) -> None:
        if path == str(old.plain):
            raise PermissionError(errno.EPERM, "refused", path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError):
        run_all(old)

    assert not old.part.exists()
    assert gzip.decompress(old.packed.read_bytes()) == old.bytes
    old.assert_each_once()


# --- in the writer ---------------------------------------------------------------------------------------------------


def test_nothing_is_compressed_unless_told(old: Old):
    """The default leaves rotated files as they are."""
    handler = BatchFileHandler(old.log, durability="memory", max_bytes=1000)
    put(handler, ["more"])
    assert handler.tidy_up(lambda: False)
    handler.close()

    assert not list(old.log.parent.glob("*.gz*"))


def test_handler_compresses_what_it_rotates_and_what_it_finds(old: Old):
    """After close only the live file is plain, also of what an earlier process left."""
    handler = AIResponseHandler(old.log, durability="memory", max_bytes=30_000, compress=True)
    more = [str(number) for number in range(20)]
    for one in more:
        handler.submit_fields({"record_id": one, "response": "x" * 10_000})
    handler.close()

    old.ids += more
    assert [file for file in log_files(old.log) if file.suffix != ".gz"] == [old.log]
    assert len(log_files(old.log)) > 5
    old.assert_done()


def test_handler_that_logs_nothing_compresses_what_it_finds(old: Old):
    """Opening and closing is enough for what a killed process left."""
    prepare(old, "orphan")
    AIResponseHandler(old.log, durability="memory", compress=True).close()

    old.assert_done()


def test_records_that_wait_interrupt_the_compression_which_goes_on_later(old: Old):
    """A step is made even when the writer is needed, so that old files do not pile up; the rest comes later."""
    handler = BatchFileHandler(old.log, durability="memory", compress=True)
    steps = 0
    while not handler.tidy_up(lambda: True):
        steps += 1
        assert old.plain.exists()
        assert steps < 10
    handler.close()

    assert steps == 3
    old.assert_done()


def test_rotations_in_between_do_not_make_a_compression_begin_again_and_again(old: Old):
    """Under a load that rotates more often than a file is compressed, old files still get compressed one by one."""
    handler = BatchFileHandler(old.log, durability="memory", compress=True, max_bytes=1000)
    for _ in range(10):
        handler.doRollover()
        old.log.touch()
        handler.tidy_up(lambda: True)
    packed_under_load = old.packed.exists()
    handler.tidy_up(lambda: False)
    handler.close()

    assert packed_under_load
    assert not old.plain.exists()
    old.assert_each_once()


@pytest.mark.parametrize("wrong", ["differs", "a directory is in the way", "refused"])
def test_file_that_cannot_be_compressed_keeps_no_other_from_it(old: Old, monkeypatch: pytest.MonkeyPatch, wrong: str):
    """One old file with which something is wrong does not stop the compression of all that follow, for ever."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    later = Path(f"{old.log}.{LATER}")
    later.write_bytes(old.bytes)
    if wrong == "differs":
        old.pack(b"other\n")
    elif wrong == "refused":
        monkeypatch.setattr(_compress, "open_regular", refusing(old.plain))
    else:
        old.packed.mkdir()
    handler = BatchFileHandler(old.log, durability="memory", compress=True)
    handler.tidy_up(lambda: False)
    handler.close()

    assert handler.get_stats()["last_error"]
    assert old.plain.read_bytes() == old.bytes
    assert gzip.decompress(Path(f"{later}.gz").read_bytes()) == old.bytes
    assert not later.exists()


def refusing(file: Path) -> Callable[..., object]:
    """Return an `open_regular` that may not open *file*."""
    opened = _compress.open_regular

    def refuse(path: str, *args: object, **options: object) -> object:
        if path == str(file):
            raise PermissionError(errno.EACCES, "refused", path)
        return opened(path, *args, **options)  # type: ignore[arg-type]

    return refuse


@pytest.mark.parametrize("who", ["a signal handler", "another thread"])
def test_closing_in_the_middle_of_a_compression_raises_nothing(old: Old, monkeypatch: pytest.MonkeyPatch, who: str):
    """Whoever closes while a compression is at work, from another thread or a signal handler, gets no exception."""
    handler = BatchFileHandler(old.log, durability="memory", compress=True)
    errors: list[BaseException] = []
    fsync = os.fsync

    def close_again() -> None:
        try:
            handler.tidy_up(lambda: True)
            handler.close()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is too much
            errors.append(error)

    def interrupted(descriptor: int) -> None:
        if who == "another thread":
            thread = threading.Thread(target=close_again)
            thread.start()
            thread.join()
        else:
            close_again()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    handler.tidy_up(lambda: False)
    monkeypatch.undo()
    handler.close()

    assert errors == []
    old.assert_done()


@has_strace
@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
def test_no_room_for_a_compressed_file_loses_no_record(old: Old, tmp_path: Path, error: str):
    """While there is no room for a compressed file the plain one stands and records go on; later it is made."""
    code = """
    import json, logging, sys
    from ai_response_logging.handler import AIResponseHandler
    logging.raiseExceptions = False
    handler = AIResponseHandler(sys.argv[1], durability="memory", compress=True)
    handler.submit_fields({"record_id": "more"})
    handler.close()
    print(json.dumps(handler.get_stats()))
    """
    trace = tmp_path / "trace"
    wrap = ["-qq", "-f", "-o", str(trace), "-P", str(old.part)]
    wrap += ["-e", "trace=write", "-e", f"inject=write:error={error}:when=2+"]
    done = run_child(code, old.log, python="strace", options=[*wrap, sys.executable])

    stats = json.loads(done.stdout)
    assert trace.read_text().count("(INJECTED)") >= 1
    assert f"errno {getattr(errno, error)}" in stats["last_error"]
    assert (stats["written"], stats["pending"], stats["failed"]) == (1, 0, 0)
    assert old.standing() == {f".{STAMP.split('.')[1]}"}
    old.ids.append("more")
    old.assert_each_once()
    finish(old.log)
    old.assert_done()


def test_part_file_of_a_living_process_is_not_taken_for_an_orphan(old: Old):
    """While somebody holds its lock, a part file stays as it is, whatever is in it; then it is one."""
    prepare(old, "orphan")
    before = old.part.read_bytes()
    with old.part.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        finish(old.log)
        assert old.part.read_bytes() == before
        assert old.plain.exists()
    finish(old.log)

    old.assert_done()


def test_close_without_time_leaves_the_plain_file_and_no_part_file(old: Old):
    """A closed handler, though still attached to a logger, holds nothing that keeps others from finishing its work."""
    handler = AIResponseHandler(old.log, durability="memory", compress=True, close_timeout=0)
    handler.close()

    assert old.standing() == {f".{STAMP.split('.')[1]}"}
    finish(old.log)
    old.assert_done()
    assert handler.get_stats()["failed"] == 0
