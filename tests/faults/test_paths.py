from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept, lock_file, writer
from helpers import assert_all_there_once, child_process, read_lines

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("durability")]


def ids_in(log: Path) -> list[str]:
    """Return the records of one file, in its order."""
    return [record["record_id"] for record in read_lines(log)]


def modes_below(folder: Path) -> dict[str, str]:
    """Return the permissions of all files and directories in *folder*."""
    return {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in folder.rglob("*")}


def test_directory_removed_while_running_is_made_again(tmp_path: Path, notes: Notes):
    """Who removes the log's directory loses what was in it, and nothing that is logged from then on."""
    log = tmp_path / "a" / "b" / "log.jsonl"
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log, notes)) for _ in range(2)]
        for one in writers:
            one.log(f"gone{one.pid}")
            assert one.ask("flush")
        shutil.rmtree(tmp_path / "a")
        for one in writers:
            one.log(f"kept{one.pid}", 10)
            assert one.ask("flush")
        for one in writers:
            one.end()

    assert modes_below(tmp_path / "a") == {"b": "0o700", log.name: "0o600", lock_file(log).name: "0o600"}
    assert_kept(log, notes, sure=[id_ for id_ in notes.ids() if id_.startswith("kept")])
    assert len(ids_in(log)) == 20


def test_directory_that_cannot_be_made_again_for_a_while_keeps_the_records_waiting(tmp_path: Path, notes: Notes):
    """While a file stands where the directory was, records wait, in every thread; then they come home."""
    log = tmp_path / "a" / "log.jsonl"
    with writer(log, notes, lock_timeout=0.05) as one:
        one.log("gone")
        assert one.ask("flush")
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a").touch()

        assert one.log("waits", 10) == ["queued"] * 10
        assert one.ask("flush", 0.02) is False
        (tmp_path / "a").unlink()
        assert one.ask("flush")
        assert one.log("later") == ["queued"]
        one.end()

    assert_all_there_once(log, [id_ for id_ in notes.ids() if id_ != "gone-0"])


def test_directory_replaced_by_a_file_hangs_no_other_thread(tmp_path: Path, notes: Notes):
    """A fault in one thread's attempt leaves no lock held: the listener's next attempt ends as well."""
    log = tmp_path / "a" / "log.jsonl"
    with writer(log, notes, batch_size=1, flush_interval=0.01, lock_timeout=0.05, max_retries=0) as one:
        one.log("gone")
        assert one.ask("all_home")
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a").touch()
        one.log("waits", 3)
        assert one.ask("flush", 0.02) is False
        (tmp_path / "a").unlink()
        assert one.ask("all_home")
        one.end()

    assert_all_there_once(log, [id_ for id_ in notes.ids() if id_ != "gone-0"])


def test_log_renamed_while_running_the_next_records_go_to_a_new_file(log_path: Path, notes: Notes):
    """After a rename, as logrotate without create does, writers begin a new file; the old one keeps its records."""
    old = log_path.with_name(f"{log_path.name}.1")
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log_path, notes)) for _ in range(3)]
        for one in writers:
            one.log(f"old{one.pid}", 5)
            assert one.ask("flush")
        log_path.rename(old)
        for one in writers:
            one.log(f"new{one.pid}", 5)
            assert one.ask("flush")
            one.end()

    assert {id_[:3] for id_ in ids_in(old)} == {"old"}
    assert {id_[:3] for id_ in ids_in(log_path)} == {"new"}
    assert_kept(log_path, notes)


def test_log_renamed_and_created_anew_again_and_again_under_load_loses_nothing(log_path: Path, notes: Notes):
    """Logrotate's rename and create, in the middle of all writers' work, leaves each record in one of the files."""
    with ExitStack() as stack:
        writers = [stack.enter_context(writer(log_path, notes, batch_size=3, flush_interval=0.01)) for _ in range(3)]
        for one in writers:
            one.log(f"first{one.pid}")
            assert one.ask("flush")
        for round_ in range(10):
            for number, one in enumerate(writers):
                one.send("log", f"w{number}-{round_}", 30, 500)
            log_path.rename(log_path.with_name(f"{log_path.name}.{round_ + 1}"))
            log_path.touch(0o600)
            for one in writers:
                one.answer()
                assert one.ask("flush")
        for one in writers:
            one.end()

    assert_kept(log_path, notes)


def test_log_deleted_while_running_is_made_again(log_path: Path, notes: Notes):
    """A deleted log is not written on in secret: the next record begins a new one."""
    with writer(log_path, notes) as one:
        one.log("gone")
        assert one.ask("flush")
        log_path.unlink()
        one.log("kept", 3)
        one.end()

    assert_kept(log_path, notes, sure=[f"kept-{number}" for number in range(3)])
    assert len(ids_in(log_path)) == 3


def test_log_truncated_by_somebody_goes_on_with_whole_lines(log_path: Path, notes: Notes):
    """Bytes that somebody else cuts off are gone; what follows stands on lines of its own, at the new end."""
    with writer(log_path, notes) as one:
        one.log("gone", 20)
        assert one.ask("flush")
        os.truncate(log_path, 0)
        one.log("kept", 3)
        assert one.ask("flush")
        os.truncate(log_path, log_path.stat().st_size - 10)
        one.log("kept-later", 3)
        one.end()

    assert_kept(log_path, notes, sure=["kept-0", "kept-1", *(f"kept-later-{number}" for number in range(3))])


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "fifo", "directory", "socket"])
def test_something_else_in_the_logs_place_is_never_written_to(log_path: Path, notes: Notes, kind: str):
    """Whatever is put in the running log's place is left as it is; the records wait until it is gone."""
    other = log_path.with_name("other")
    if kind == "symlink":
        other.write_bytes(b"somebody's own")
    put = {
        "symlink": lambda: log_path.symlink_to(other),
        "dangling symlink": lambda: log_path.symlink_to(other),
        "fifo": lambda: os.mkfifo(log_path),
        "directory": log_path.mkdir,
        "socket": lambda: os.mknod(log_path, stat.S_IFSOCK | 0o600),
    }
    with writer(log_path, notes, max_retries=0) as one:
        one.log("before")
        assert one.ask("flush")
        log_path.rename(log_path.with_name(f"{log_path.name}.1"))
        put[kind]()

        assert one.log("trapped", 5) == ["queued"] * 5
        assert one.ask("flush", 0.02) is False
        meanwhile = one.ask("stats")
        if kind == "directory":
            assert not list(log_path.iterdir())
            log_path.rmdir()
        else:
            log_path.unlink()
        assert one.ask("flush")
        one.end()

    assert "not a regular file" in meanwhile["last_error"]
    assert other.read_bytes() == b"somebody's own" if kind == "symlink" else not other.exists()
    assert_kept(log_path, notes)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize(
    ("options", "file_mode", "directory_mode"),
    [
        pytest.param({}, "0o600", "0o700", id="default"),
        pytest.param({"file_mode": 0o660, "directory_mode": 0o770}, "0o660", "0o770", id="group"),
        pytest.param({"file_mode": "0644", "directory_mode": "0755"}, "0o644", "0o755", id="as YAML has it"),
    ],
)
def test_files_have_the_mode_asked_for_under_any_umask(  # noqa: PLR0917  pytest's parameters
    tmp_path: Path, notes: Notes, umask: int, options: dict[str, object], file_mode: str, directory_mode: str
):
    """Log, rotated files, lock, torn files and directories have the mode that was asked for, not more and not less."""
    folder = tmp_path / "made"
    log = folder / "deeper" / "log.jsonl"
    code = f"{PREAMBLE}os.umask({umask})\n{OBEY}"
    given = {"batch_size": 10_000, "flush_interval": 1000, "max_bytes": 500, **options}
    with child_process(code, log, notes.path, json.dumps(given)) as process:
        one = Writer(process)
        one.log("records", 3)
        assert one.ask("flush")
        with log.open("ab") as torn:
            torn.write(b'{"torn":')
        one.log("more", 2)
        one.end()

    modes = modes_below(folder)
    assert modes.pop("deeper") == directory_mode
    assert oct(stat.S_IMODE(folder.stat().st_mode)) == directory_mode
    assert {lock_file(log).name, log.name} < modes.keys()
    assert len(modes) >= 2 + 2 + 1
    assert dict.fromkeys(modes, file_mode) == modes
    assert_kept(log, notes)


def test_files_that_are_there_already_keep_their_mode(log_path: Path, notes: Notes):
    """Modes are for what we make: what an administrator set on an existing log stays."""
    log_path.touch()
    log_path.chmod(0o640)
    with writer(log_path, notes) as one:
        one.log("record")
        one.end()

    assert oct(stat.S_IMODE(log_path.stat().st_mode)) == "0o640"
    assert_kept(log_path, notes)


def test_log_reached_by_a_directory_that_is_a_symlink_is_one_log(tmp_path: Path, notes: Notes):
    """Only the log itself may be no link: two ways to its directory lead to one file, one lock and whole lines."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    log = tmp_path / "real" / "log.jsonl"
    with writer(log, notes) as one, writer(tmp_path / "link" / "log.jsonl", notes) as other:
        for number in range(5):
            one.log(f"one{number}", 5)
            other.log(f"other{number}", 5)
            assert one.ask("flush")
            assert other.ask("flush")
        one.end()
        other.end()

    assert len(list((tmp_path / "real").glob(".__*"))) == 1
    assert_kept(log, notes)
