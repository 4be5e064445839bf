from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_response_logging import _append
from ai_response_logging._append import append_block, arrived_lines, cut_back, fill_holes, holed_lines, repair_tail
from ai_response_logging._paths import make_directory, open_regular, utc_suffix
from ai_response_logging.errors import AppendError, LogPathError

BLOCK = b'{"a":1}\n{"b":22}\n{"c":333}\n'


def open_log(path: str, file_mode: int) -> FileIO:
    """Open the log as the writer does."""
    return open_regular(path, os.O_RDWR | os.O_APPEND, file_mode)


@pytest.fixture
def descriptor(log_path: Path) -> Iterator[int]:
    """Return the log's descriptor."""
    with open_log(str(log_path), 0o600) as stream:
        yield stream.fileno()


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Return what sets the process's umask until the test ends."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permissions of *path*."""
    return stat.S_IMODE(path.lstat().st_mode)


def torn_files(log: Path) -> list[Path]:
    """Return the files that hold torn tails of *log*."""
    return sorted(log.parent.glob(f"{log.name}.torn-*"))


class Kernel:
    """Stands in for os.write: takes the bytes that a plan says, for real, or raises."""

    def __init__(self, *plan: int | OSError) -> None:
        self.plan = list(plan)
        self.calls: list[bytes] = []
        self._write = os.write

    def __call__(self, descriptor: int, data: memoryview) -> int:
        """Play the next step of the plan; what follows its end is written whole."""
        self.calls.append(bytes(data))
        step: int | OSError = self.plan.pop(0) if self.plan else len(data)
        if isinstance(step, OSError):
            raise step
        return self._write(descriptor, data[:step]) if step else 0


# --- directories and files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
@pytest.mark.parametrize("wanted", [0o700, 0o755, 0o770])
def test_missing_directories_are_made_with_exactly_the_mode_asked_for(
    tmp_path: Path, umask: Callable[[int], int], mask: int, wanted: int
):
    """Every directory that was missing has the mode asked for, whatever the umask says."""
    umask(mask)

    make_directory(str(tmp_path / "a" / "b" / "c"), wanted)

    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [wanted] * 3


def test_directory_that_is_there_keeps_its_mode(tmp_path: Path):
    """What somebody else made is theirs."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)

    make_directory(str(tmp_path / "a" / "b"), 0o700)

    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("wanted", [0o600, 0o640, 0o666])
def test_new_log_has_exactly_the_mode_asked_for(log_path: Path, umask: Callable[[int], int], mask: int, wanted: int):
    """A log is made with the mode asked for, not with what a umask leaves of it."""
    umask(mask)

    open_log(str(log_path), wanted).close()

    assert mode(log_path) == wanted


def test_log_that_is_renamed_just_after_it_was_opened_is_made_anew(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What another process rotates between our open and our look at its name is not written to."""
    real, moved = os.lstat, log_path.with_name("moved")

    def rotate_first(path: str) -> os.stat_result:
        if not moved.exists():
            log_path.rename(moved)
        return real(path)

    monkeypatch.setattr(os, "lstat", rotate_first)
    with open_log(str(log_path), 0o600) as stream:
        assert os.path.samestat(os.fstat(stream.fileno()), log_path.stat())


def test_new_log_is_never_open_to_others_not_even_for_a_moment(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file comes into being with the owner's rights alone; wider ones are added once it is ours."""
    seen = []
    fchmod = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda *args: (seen.append(mode(log_path)), fchmod(*args)))

    open_log(str(log_path), 0o666).close()

    assert seen == [0o600]


def test_existing_log_keeps_its_bytes_and_its_mode(log_path: Path):
    """Opening a log changes nothing about it."""
    log_path.write_bytes(BLOCK)
    log_path.chmod(0o640)

    open_log(str(log_path), 0o600).close()

    assert (log_path.read_bytes(), mode(log_path)) == (BLOCK, 0o640)


def test_log_is_opened_for_appending_and_closed_in_programs_that_follow(descriptor: int):
    """Nobody's position decides where bytes go, and no program that is started inherits the log."""
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    assert not os.get_inheritable(descriptor)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        pytest.param(lambda path: path.symlink_to(path.with_name("other")), "a symbolic link", id="symlink"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "a symbolic link", id="dangling symlink"),
        pytest.param(Path.mkdir, "a directory", id="directory"),
        pytest.param(os.mkfifo, "a FIFO", id="fifo"),
        pytest.param(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "a socket", id="socket"),
    ],
)
def test_anything_but_a_regular_file_is_refused_by_name(log_path: Path, make: Callable[[Path], object], found: str):
    """What stands in the log's place is named, left as it is, and no descriptor stays open."""
    other = log_path.with_name("other")
    other.write_bytes(b"somebody's own")
    make(log_path)
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(LogPathError) as caught:
        open_log(str(log_path), 0o600)

    assert (caught.value.path, caught.value.found) == (str(log_path), found)
    assert len(os.listdir("/proc/self/fd")) == before
    assert other.read_bytes() == b"somebody's own"


def test_missing_directory_is_the_kernels_error(log_path: Path):
    """Who opens the log decides what to do about a directory that is not there."""
    with pytest.raises(FileNotFoundError):
        open_log(str(log_path / "below" / "log"), 0o600)


def test_two_that_make_the_log_at_once_open_one_file(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever finds that another process was quicker opens the file that is there."""
    real = os.open

    def another_is_quicker(path: str, flags: int, *args: int) -> int:
        if flags & os.O_EXCL:
            log_path.write_bytes(BLOCK)
        return real(path, flags, *args)

    monkeypatch.setattr(os, "open", another_is_quicker)
    with open_log(str(log_path), 0o600) as stream:
        assert os.pread(stream.fileno(), 100, 0) == BLOCK


# --- appending -----------------------------------------------------------------------------------------------------


def test_block_is_appended_whole_behind_what_is_there(log_path: Path, descriptor: int):
    """One call, one block, at the end."""
    log_path.write_bytes(b"before\n")

    append_block(descriptor, BLOCK, path=str(log_path))

    assert log_path.read_bytes() == b"before\n" + BLOCK


@pytest.mark.parametrize("steps", [(1,), (5, 3), (8, 9, 10), tuple([1] * len(BLOCK))])
def test_short_writes_go_on_with_the_rest_of_the_same_block(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]
):
    """After a short write the rest follows, and never a byte again that was taken."""
    kernel = Kernel(*steps)
    monkeypatch.setattr(os, "write", kernel)

    append_block(descriptor, BLOCK, path=str(log_path))

    assert log_path.read_bytes() == BLOCK
    assert kernel.calls[1] == BLOCK[steps[0] :]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EROFS])
def test_refusal_says_how_many_bytes_stand_in_the_file(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch, code: int
):
    """The error carries what the kernel said and exactly what it had taken by then."""
    monkeypatch.setattr(os, "write", Kernel(5, 3, OSError(code, "refused")))

    with pytest.raises(AppendError) as caught:
        append_block(descriptor, BLOCK, path=str(log_path))

    error = caught.value
    assert (error.errno, error.written_bytes, error.block_bytes) == (code, 8, len(BLOCK))
    assert log_path.read_bytes() == BLOCK[:8]
    assert f"only 8 of {len(BLOCK)} bytes" in str(error)


def test_kernel_that_takes_nothing_and_says_nothing_ends_the_attempt(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
):
    """A write of 0 bytes without an error is a refusal, not a reason to ask for ever."""
    monkeypatch.setattr(os, "write", Kernel(5, 0))

    with pytest.raises(AppendError) as caught:
        append_block(descriptor, BLOCK, path=str(log_path))

    assert caught.value.written_bytes == 5


# --- what has arrived, and cutting back ----------------------------------------------------------------------------

LINES = BLOCK.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("there", "arrived"),
    [
        pytest.param(BLOCK, 3, id="all"),
        pytest.param(BLOCK + b"another's\n", 3, id="all, and another's behind them"),
        pytest.param(LINES[0] + LINES[1], 2, id="two"),
        pytest.param(LINES[0] + LINES[1][:-1], 1, id="one and a half"),
        pytest.param(LINES[0] + b"another's\n" + LINES[2], 1, id="another's after the first"),
        pytest.param(LINES[1] + LINES[2], 0, id="not the first"),
        pytest.param(b"a stranger's\n" + BLOCK, 3, id="all, behind a stranger's"),
        pytest.param(b"a stranger's\n" + LINES[0], 1, id="one, behind a stranger's"),
        pytest.param(b"", 0, id="none"),
    ],
)
def test_arrived_is_the_longest_run_of_whole_equal_lines(log_path: Path, descriptor: int, there: bytes, arrived: int):
    """The bytes found at the place decide, line by line and in order."""
    log_path.write_bytes(b"before\n" + there)

    assert arrived_lines(descriptor, len(b"before\n"), LINES) == arrived


@pytest.mark.parametrize(
    ("there", "holed"),
    [
        pytest.param(bytes(8) + BLOCK[8:], 3, id="the first taken"),
        pytest.param(LINES[0] + bytes(4) + BLOCK[12:], 3, id="a part of the second taken"),
        pytest.param(LINES[0] + bytes(4) + BLOCK[12:] + b"another's\n", 3, id="another's behind them"),
        pytest.param(bytes(4) + BLOCK[4:17] + b"another's\n", 2, id="another's behind two"),
        pytest.param(bytes(10), 2, id="a size, and nothing else"),
        pytest.param(BLOCK, 0, id="all whole"),
        pytest.param(BLOCK[:10], 0, id="torn, without a hole"),
        pytest.param(BLOCK[:8] + b"another's\n\0", 0, id="another's hole"),
        pytest.param(b"another's\n" + bytes(4), 0, id="another's"),
        pytest.param(b"", 0, id="nothing"),
    ],
)
def test_holes_that_loss_of_power_made_in_a_block_are_told_and_filled(
    log_path: Path, descriptor: int, there: bytes, holed: int
):
    """Where only a block's own bytes and zeros stand, its lines are written over them; all else is left alone."""
    log_path.write_bytes(b"before\n" + there)

    assert holed_lines(descriptor, len(b"before\n"), LINES) == holed

    filled = b"".join(LINES[:holed])
    with log_path.open("r+b", buffering=0) as file:
        fill_holes(file.fileno(), len(b"before\n"), LINES[:holed])
    assert log_path.read_bytes() == b"before\n" + filled + there[len(filled) :]


def test_failed_append_is_cut_back_to_its_whole_lines(log_path: Path, descriptor: int):
    """The piece behind the last whole line goes; the lines before it stay."""
    log_path.write_bytes(BLOCK[:-4])

    assert cut_back(descriptor, len(LINES[0] + LINES[1]), expected=len(BLOCK) - 4)
    assert log_path.read_bytes() == LINES[0] + LINES[1]


def test_file_of_another_length_than_expected_is_not_cut(log_path: Path, descriptor: int):
    """Bytes of somebody who takes no lock are not ours to cut off."""
    log_path.write_bytes(BLOCK + b"somebody's\n")

    assert not cut_back(descriptor, 8, expected=len(BLOCK))
    assert log_path.read_bytes() == BLOCK + b"somebody's\n"


def test_cutting_that_the_kernel_refuses_is_said_not_raised(log_path: Path):
    """Where nothing can be cut off the piece stays, and whoever appends next repairs the tail."""
    log_path.write_bytes(BLOCK)
    with log_path.open("rb") as read_only:
        assert not cut_back(read_only.fileno(), 8, expected=len(BLOCK))

    assert log_path.read_bytes() == BLOCK


# --- torn tails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\n", BLOCK])
def test_whole_tail_is_left_alone(log_path: Path, descriptor: int, data: bytes):
    """A log that is empty or ends in a newline needs no repair."""
    log_path.write_bytes(data)

    assert repair_tail(descriptor, str(log_path), 0o600) == ""
    assert log_path.read_bytes() == data
    assert not torn_files(log_path)


@pytest.mark.parametrize("torn", [b"x", b'{"half":"', b"y" * (1 << 16), b"z" * ((1 << 17) + 1)], ids=len)
@pytest.mark.parametrize("before", [b"", b"\n", BLOCK, b"w" * 70_000 + b"\n"], ids=len)
def test_torn_line_moves_aside_byte_for_byte(log_path: Path, descriptor: int, before: bytes, torn: bytes):
    """What stands behind the last newline is in a file of its own afterwards, and the log ends with its whole lines."""
    log_path.write_bytes(before + torn)

    name = repair_tail(descriptor, str(log_path), 0o600)

    assert log_path.read_bytes() == before
    assert [str(path) for path in torn_files(log_path)] == [name]
    assert Path(name).read_bytes() == torn
    assert repair_tail(descriptor, str(log_path), 0o600) == ""


@pytest.mark.slow
@given(data=st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\0", b"\xff"])).map(b"".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tail_is_repaired_without_losing_a_byte(tmp_path: Path, data: bytes):
    """Log and torn file together are the bytes that were there, and the log ends in a newline or is empty."""
    log = tmp_path / "log"
    for old in [log, *torn_files(log)]:
        old.unlink(missing_ok=True)
    log.write_bytes(data)
    with open_log(str(log), 0o600) as stream:
        repair_tail(stream.fileno(), str(log), 0o600)

    left = log.read_bytes()
    assert left + b"".join(path.read_bytes() for path in torn_files(log)) == data
    assert not left or left.endswith(b"\n")


def test_torn_lines_under_a_clock_that_stands_still_have_files_of_their_own(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
):
    """A clock that is frozen, or set back to the same moment, does not make a second torn line stay in the log."""
    monkeypatch.setattr(_append, "utc_suffix", lambda: "20261123T120000.000000Z")
    for number in range(3):
        os.write(descriptor, b"torn %d" % number)
        assert repair_tail(descriptor, str(log_path), 0o600)

    assert sorted(file.read_bytes() for file in torn_files(log_path)) == [b"torn 0", b"torn 1", b"torn 2"]
    assert log_path.read_bytes() == b""


@pytest.mark.parametrize("mask", [0, 0o077])
def test_torn_file_has_the_logs_mode(log_path: Path, descriptor: int, umask: Callable[[int], int], mask: int):
    """Half an answer is as private as a whole one."""
    umask(mask)
    log_path.write_bytes(b"torn")

    name = repair_tail(descriptor, str(log_path), 0o640)

    assert mode(Path(name)) == 0o640


def refuse_torn_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no torn file be made."""
    real = os.open

    def refuse(path: str, *args: int) -> int:
        if ".torn-" in path:
            raise OSError(errno.ENOSPC, "no room")
        return real(path, *args)

    monkeypatch.setattr(os, "open", refuse)


def refuse_cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be cut off."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EPERM, "append only")

    monkeypatch.setattr(os, "ftruncate", refuse)


def refuse_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the torn file be made, but take no byte."""
    monkeypatch.setattr(os, "write", Kernel(OSError(errno.ENOSPC, "no room")))


def refuse_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the copy never become durable."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("refuse", [refuse_torn_files, refuse_cutting, refuse_copying, refuse_syncing])
def test_torn_line_that_cannot_move_aside_is_ended_where_it_stands(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[pytest.MonkeyPatch], None]
):
    """Whatever is refused on the way, no byte is lost, none stands twice, and the next record begins its own line."""
    log_path.write_bytes(BLOCK + b"torn")
    refuse(monkeypatch)

    assert repair_tail(descriptor, str(log_path), 0o600) == ""

    assert log_path.read_bytes() == BLOCK + b"torn\n"
    assert not torn_files(log_path)


def test_torn_line_on_a_disk_that_takes_nothing_is_an_error(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
):
    """Where not even a newline can be written nobody may append, so the attempt must end."""
    log_path.write_bytes(b"torn")
    monkeypatch.setattr(os, "write", Kernel(*[OSError(errno.EIO, "disk")] * 2))

    with pytest.raises(AppendError):
        repair_tail(descriptor, str(log_path), 0o600)

    assert log_path.read_bytes() == b"torn"


def test_torn_bytes_are_synced_before_they_are_cut_off(
    log_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
):
    """Loss of power between the two steps leaves the torn line twice rather than nowhere."""
    steps = []
    for name in ("fsync", "ftruncate"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (steps.append(name), real(*args)))
    log_path.write_bytes(b"torn")

    repair_tail(descriptor, str(log_path), 0o600)

    assert steps == ["fsync", "ftruncate"]


def test_time_in_names_is_utc_to_the_microsecond_and_sorts():
    """Names carry UTC as the file formats say, so that the order of names is the order of time."""
    first, second = utc_suffix(), utc_suffix()

    assert datetime.strptime(first, "%Y%m%dT%H%M%S.%fZ")  # noqa: DTZ007  the Z is checked as text
    assert first <= second
    assert len(first) == len("20261123T190541.000123Z")
