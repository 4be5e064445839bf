"""Files that are there whole or not at all: :mod:`ai_response_logging._whole_file`, and who writes with it."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import stat
import textwrap
from pathlib import Path

import pytest
from helpers import has_fork, run_child

from ai_response_logging import _whole_file
from ai_response_logging._whole_file import Output, WholeFile
from ai_response_logging.errors import ConfigError, OutputError
from ai_response_logging.export import export
from ai_response_logging.export._files import directory_in_the_making

COMMANDS = {
    "convert": ["convert"],
    "export": ["export", "--format", "csv"],
    "parquet": ["export", "--format", "parquet"],
    "report": ["report"],
}
MAIN = "import sys; from ai_response_logging.cli import main; main(sys.argv[1:])"
KILL = "import os; kill = lambda *_, **__: os.kill(os.getpid(), 9); "
each_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def log(log_path: Path) -> Path:
    """Return a log whose every output is larger than a small disk."""
    with log_path.open("w") as file:
        for number in range(300):
            record = {"schema_version": "1.0", "record_id": f"id-{number}", "event": "response", "seq": number}
            record |= {"unix_timestamp": 1.5, "success": True, "question": f"{number}?", "writer_id": "w"}
            file.write(json.dumps(record | {"response": os.urandom(500).hex()}) + "\n")
    return log_path


def arguments(command: str, log: Path, out: Path) -> list[str]:
    """Return the words of a command that writes *out*, whatever is there."""
    name, *more = COMMANDS[command]
    return [name, "-o", str(out), "--force", *(["--file", str(log)]), *more]


def content(place: Path) -> dict[str, bytes]:
    """Return each file at or below *place*, by its name."""
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return {str(file.relative_to(place)): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.slow
@each_command
@pytest.mark.parametrize("is_there", [False, True])
def test_killed_before_it_has_its_name_the_place_is_as_it_was(
    log: Path, tmp_path: Path, command: str, *, is_there: bool
) -> None:
    """SIGKILL behind the last byte and before the rename: the old file, or none; the next run is none the worse."""
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    if is_there:
        run_child(MAIN, *arguments(command, log, out))
    before = content(out) if is_there else {}

    run_child(f"{KILL} os.replace = os.rename = kill; {MAIN}", *arguments(command, log, out), expect=-signal.SIGKILL)

    assert out.exists() == is_there
    assert (content(out) if is_there else {}) == before
    left = [path.name for path in out.parent.iterdir() if not path.name.startswith(("out.manifest.json", "out."))]
    assert left == (["out"] if is_there else [])
    assert [path for path in out.parent.iterdir() if path.name.endswith(".new")]
    run_child(MAIN, *arguments(command, log, out))
    assert content(out)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "report"])
def test_killed_behind_its_name_all_of_it_is_there(log: Path, tmp_path: Path, command: str) -> None:
    """SIGKILL in the instant behind the rename."""
    out, again = tmp_path / "out", tmp_path / "again"
    kill = f"{KILL} from ai_response_logging import _whole_file; _whole_file.sync_directory = kill; "
    run_child(kill + MAIN, *arguments(command, log, out), expect=-signal.SIGKILL)
    run_child(MAIN, *arguments(command, log, again))
    if command == "convert":
        assert out.read_bytes() == again.read_bytes()
    else:
        assert out.read_text("utf-8").rstrip().endswith("</html>")


@pytest.mark.slow
@each_command
@pytest.mark.parametrize("is_there", [False, True])
def test_full_disk_is_said_and_nothing_of_it_is_left(
    log: Path, tmp_path: Path, command: str, *, is_there: bool
) -> None:
    """One line that says which file and why, exit code 1, and in the place what was there."""
    if command == "parquet":
        pytest.importorskip("duckdb")
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    if is_there:
        run_child(MAIN, *arguments(command, log, out))
    before = content(out.parent)
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY)); "

    ended = run_child(full + MAIN, *arguments(command, log, out), expect=1)

    said = f"{out} could not be written: {os.strerror(errno.EFBIG)}; the log is untouched and whole"
    assert said in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert content(out.parent) == before


@pytest.mark.slow
def test_full_disk_that_duckdb_finds_is_said_as_well(log: Path, tmp_path: Path) -> None:
    """It has errors of its own, which are none of the operating system's."""
    pytest.importorskip("duckdb")
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    full = """
        import duckdb, resource
        connect = duckdb.connect
        def when_full(**options):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            return connect(**options)
        duckdb.connect = when_full
    """

    ended = run_child(textwrap.dedent(full) + MAIN, *arguments("parquet", log, out), expect=1)

    assert f"{out} could not be written: " in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert os.listdir(out.parent) == []


@pytest.mark.slow
@each_command
def test_place_that_cannot_be_written_is_said(log: Path, tmp_path: Path, command: str) -> None:
    """A directory that is none: used wrongly, exit code 2, no traceback."""
    (tmp_path / "file").touch()
    ended = run_child(MAIN, *arguments(command, log, tmp_path / "file" / "out"), expect=2)
    assert "Traceback" not in ended.stderr
    assert str(tmp_path / "file") in " ".join(ended.stderr.split())


@pytest.mark.slow
def test_exception_thrown_in_at_any_point_leaves_the_old_file_or_the_new_one_and_no_other(tmp_path: Path) -> None:
    """Ctrl-C at each instruction of the module in turn."""
    program = """
        import gc, os, sys
        from ai_response_logging import _whole_file
        place = sys.argv[1]
        path = os.path.join(place, "file")
        left = 0
        class Thrown(BaseException): pass
        def trace(frame, event, _):
            global left
            if frame.f_code.co_filename != _whole_file.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left == 0:
                    raise Thrown
            return trace
        def write():
            with _whole_file.WholeFile(path) as file:
                file.write(b"new")
                file.sync()
                file.take_name()
        for point in range(1, 5000):
            with open(path, "wb") as old:
                old.write(b"old")
            left, thrown = point, False
            sys.settrace(trace)
            try:
                write()
            except Thrown:
                thrown = True
            finally:
                sys.settrace(None)
            gc.collect()
            assert os.listdir(place) == ["file"], (point, os.listdir(place))
            found = open(path, "rb").read()
            assert found in (b"old", b"new"), point
            if not thrown and left > 0:
                print(point)
                break
    """
    place = tmp_path / "place"
    place.mkdir()
    points = int(run_child(program, place, options=["-W", "ignore"]).stdout)
    assert points > 100


@has_fork
def test_child_forked_meanwhile_leaves_its_parents_file_alone(tmp_path: Path) -> None:
    """What a forked child drops is its copy."""
    with WholeFile(str(tmp_path / "file")) as file:
        file.write(b"new")
        child = os.fork()
        if not child:
            file.discard()
            os._exit(0)
        os.waitpid(child, 0)
        file.take_name()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("has_links", [True, False])
def test_file_that_somebody_makes_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    """Unless told to replace it, also where the file system knows no links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    with Output(str(path), replace=False) as output:
        output.write(b"ours")
        output.finish()
        path.write_bytes(b"theirs")
        with pytest.raises(ConfigError, match="was made by somebody else meanwhile, and is not replaced"):
            output.take_name()
    assert path.read_bytes() == b"theirs"
    path.unlink()
    with Output(str(path), replace=False) as output:
        output.write(b"ours")
        output.finish()
        output.take_name()
    assert path.read_bytes() == b"ours"
    assert os.listdir(tmp_path) == ["file"]


def test_it_is_for_its_owner_alone_from_the_first_byte_on(tmp_path: Path) -> None:
    """What is in the log is for few eyes, and so is what is made of it, whatever the umask."""
    umask = os.umask(0)
    try:
        with Output(str(tmp_path / "file"), replace=False) as output:
            (making,) = tmp_path.iterdir()
            assert stat.S_IMODE(making.stat().st_mode) == 0o600
            output.finish()
            output.take_name()
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_its_bytes_are_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the name behind that; in any other order a loss of power leaves an empty file under it."""
    done: list[str] = []
    monkeypatch.setattr(
        _whole_file, "sync_file", lambda descriptor: done.append(f"sync {os.fstat(descriptor).st_size}")
    )
    monkeypatch.setattr(_whole_file, "sync_directory", lambda path: done.append(f"sync name {os.path.exists(path)}"))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), real(*names)))
    with Output(str(tmp_path / "file"), replace=True) as output:
        output.write(b"12345")
        output.finish()
        output.take_name()
    assert done == ["sync 5", "name", "sync name True"]


def test_compressed_it_is_the_same_bytes_each_time_and_reads_back(tmp_path: Path) -> None:
    """Whoever compares two exports of one log sees no difference in time or name."""
    data = [os.urandom(100_000), b"x" * 1_000_000, b""]
    for name in ("a.gz", "b.gz"):
        with Output(str(tmp_path / name), replace=False) as output:
            for piece in data:
                output.write(piece)
            output.finish()
            with output.reading() as file:
                assert file.read() == b"".join(data)
            output.take_name()
            assert output.size == (tmp_path / name).stat().st_size
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"".join(data)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_damage_on_the_disk_is_an_error_of_the_file(tmp_path: Path) -> None:
    """What was written is read again by whoever proves it; what comes back may not even be compressed."""
    with Output(str(tmp_path / "a.gz"), replace=False) as output:
        output.write(b"x" * 1000)
        output.finish()
        (making,) = tmp_path.iterdir()
        making.write_bytes(making.read_bytes()[:-9])
        with pytest.raises(OutputError, match=r"a\.gz could not be written"), output.reading() as file:
            file.read()


def test_all_files_of_an_export_get_their_names_or_none(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set for training without the one for validation, or without what says where it is from, is worse than none."""
    real, finished = Output.finish, 0

    def finish(self: Output) -> None:
        nonlocal finished
        finished += 1
        if finished == 3:
            raise OutputError(self.path, "full")
        real(self)

    monkeypatch.setattr(Output, "finish", finish)
    (tmp_path / "place").mkdir()
    with pytest.raises(OutputError, match=r"manifest\.json could not be written: full"):
        export(log, tmp_path / "place" / "out", format="openai-chat", validation=0.5)
    assert os.listdir(tmp_path / "place") == []


@pytest.mark.parametrize("at", [1, 2])
def test_directory_that_cannot_get_its_name_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """It takes two renames, and the second may fail: then the first is undone."""
    path = tmp_path / "out"
    with directory_in_the_making(str(path)) as making:
        Path(making, "a").write_text("old")
    real, renamed = os.rename, 0

    def rename(*names: str) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == at:
            raise OSError(errno.EIO, "refused")
        real(*names)

    monkeypatch.setattr(os, "rename", rename)
    with (
        pytest.raises(OutputError, match="out could not be written: refused"),
        directory_in_the_making(str(path)) as making,
    ):
        Path(making, "a").write_text("new")
    monkeypatch.undo()
    assert (path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]
    with directory_in_the_making(str(path)) as making:
        Path(making, "a").write_text("new")
    assert (path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_directory_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file in it, every directory, and then the name."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with directory_in_the_making(str(tmp_path / "out")) as making:
        Path(making, "inner").mkdir()
        Path(making, "inner", "a").write_text("x")
    places = ["out/inner/a", "out/inner", "out", "."]
    assert synced == [(tmp_path / place).stat().st_ino for place in places]
