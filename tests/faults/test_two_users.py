from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _children import OBEY, PREAMBLE, Notes, Writer, assert_kept, lock_file
from helpers import assert_all_there_once, child_process, is_root, log_files

USER = 4243  # nobody has this id, and no name or group is needed

pytestmark = [pytest.mark.faults, pytest.mark.slow, is_root]

# After the imports: the interpreter need not be readable for everybody.
BECOME = f"""
os.setgroups([])
os.setgid({USER})
os.setuid({USER})
"""
# What a program that cannot open its log prints: the error's class and text.
REFUSED = """
try:
    attach()
except Exception as error:
    print(json.dumps([type(error).__name__, isinstance(error, ValueError), str(error)]), flush=True)
else:
    print(json.dumps(["nothing", False, ""]), flush=True)
"""
WIDE = {"file_mode": 0o666, "directory_mode": 0o777}


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Make a directory that every user can enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp())
    try:
        path.chmod(0o755)
        if not all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents):
            pytest.skip("other users cannot reach the directory for temporary files")
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def writer_of(user: int, log: Path, notes: Notes, **options: object) -> Iterator[Writer]:
    """Start a writer that runs as *user*; it is dead and reaped when the block ends."""
    become = BECOME if user else ""
    chosen = {"batch_size": 10_000, "flush_interval": 1000, "retry_delay": 0.01, **options}
    with child_process(PREAMBLE + become + OBEY, log, notes.path, json.dumps(chosen)) as process:
        yield Writer(process)


def refusal_of_user(log: Path, notes: Notes, **options: object) -> str:
    """Return the text of the ConfigError that the second user gets at set-up."""
    with child_process(PREAMBLE + BECOME + REFUSED, log, notes.path, json.dumps(options)) as process:
        out, err = process.communicate()
        assert process.returncode == 0, err
    kind, is_value_error, text = json.loads(out)
    assert (kind, is_value_error) == ("ConfigError", True), (kind, text)
    return str(text)


def owners_below(folder: Path) -> set[int]:
    """Return who owns the files in *folder*."""
    return {path.stat().st_uid for path in folder.iterdir()}


@pytest.mark.parametrize("users", [(0, USER), (USER, 0)], ids=["root first", "user first"])
@pytest.mark.parametrize("max_bytes", [0, 20_000], ids=["one file", "rotation"])
def test_two_users_with_modes_for_both_write_one_file(
    open_path: Path, notes: Notes, users: tuple[int, int], max_bytes: int
):
    """Root and a service user log into one file, whoever made it, and every record is there once."""
    log = open_path / "made" / "log.jsonl"
    open_path.chmod(0o777)
    with ExitStack() as stack:
        writers = []
        for user in users:
            options = {**WIDE, "batch_size": 3, "flush_interval": 0.01, "max_bytes": max_bytes}
            writers.append(stack.enter_context(writer_of(user, log, notes, **options)))
            writers[-1].log(f"first-{user}")
            assert writers[-1].ask("flush")
        for user, one in zip(users, writers, strict=True):
            one.send("log", f"busy-{user}", 200, 400)
        for one in writers:
            assert set(one.answer()) <= {"queued", "written_sync"}
            assert one.ask("flush")
        for user, one in zip(users, writers, strict=True):  # enough that each has to begin a new file
            one.log(f"alone-{user}", 60, 400)
            assert one.ask("flush")
            assert (one.ask("stats")["rotations"] > 0) == bool(max_bytes)
        for one in writers:
            one.end()

    assert len(notes.ids()) == 522
    assert log.parent.stat().st_mode & 0o777 == 0o777
    assert {oct(path.stat().st_mode & 0o777) for path in [*log_files(log), lock_file(log)]} == {"0o666"}
    assert max_bytes or owners_below(log.parent) == {users[0]}
    assert_kept(log, notes)


def test_second_user_puts_a_torn_line_of_the_first_aside(open_path: Path, notes: Notes):
    """What a killed writer of another user left half is repaired by whoever comes next."""
    open_path.chmod(0o777)
    log = open_path / "log.jsonl"
    with writer_of(0, log, notes, **WIDE) as one:
        one.log("root")
        one.end()
    with log.open("ab") as torn:
        torn.write(b'{"torn":')
    with writer_of(USER, log, notes, **WIDE) as one:
        one.log("user")
        assert one.ask("flush")
        one.end()

    (aside,) = open_path.glob("log.jsonl.torn-*")
    assert aside.read_bytes() == b'{"torn":'
    assert aside.stat().st_uid == USER
    assert_kept(log, notes)


@pytest.mark.parametrize("private", ["log", "lock file"])
def test_second_user_without_the_right_is_told_the_file_and_its_owner(open_path: Path, notes: Notes, private: str):
    """With the default modes a log is its maker's alone: anybody else reads at set-up which file is whose."""
    log = open_path / "log.jsonl"
    with writer_of(0, log, notes) as one:
        one.log("root")
        one.end()
    file = log if private == "log" else lock_file(log)
    if private == "lock file":
        log.chmod(0o666)

    text = refusal_of_user(log, notes)

    assert str(file) in text
    assert "owned by root" in text
    assert "0600" in text
    assert_kept(log, notes)


def test_second_user_in_a_private_directory_is_told_the_directory_and_its_owner(open_path: Path, notes: Notes):
    """Where not even the log can be looked at, the directory that keeps one out is named, with its owner."""
    log = open_path / "made" / "deeper" / "log.jsonl"
    with writer_of(0, log, notes) as one:
        one.log("root")
        one.end()

    text = refusal_of_user(log, notes)

    assert f"{open_path / 'made'} " in text
    assert "owned by root" in text
    assert "0700" in text
    assert_kept(log, notes)


def test_user_who_may_not_make_the_log_is_told_the_directory_and_its_owner(open_path: Path, notes: Notes):
    """A new log in somebody else's directory: the directory is what has to be changed, and so is what is named."""
    text = refusal_of_user(open_path / "log.jsonl", notes)

    assert str(open_path / "log.jsonl") in text
    assert f"{open_path} is owned by root" in text
    assert "0755" in text


def test_log_that_another_user_took_over_while_running_keeps_the_records_waiting(open_path: Path, notes: Notes):
    """Somebody who replaces the log by a private one of his own stops the writer and loses nothing of it."""
    open_path.chmod(0o777)
    log = open_path / "log.jsonl"
    with writer_of(USER, log, notes) as one:
        one.log("before")
        assert one.ask("flush")
        log.rename(log.with_name("log.jsonl.1"))
        log.touch(0o600)
        assert one.log("waits", 5) == ["queued"] * 5
        assert one.ask("flush", 0.02) is False
        meanwhile = one.ask("stats")
        os.chown(log, USER, USER)
        assert one.ask("flush")
        one.end()

    assert str(log) in meanwhile["last_error"]
    assert "ermission denied" in meanwhile["last_error"]
    assert_kept(log, notes)


def test_root_that_rotates_the_log_of_a_user_leaves_the_new_one_to_him(open_path: Path, notes: Notes):
    """A tool that root runs once does not lock a service out of its log, nor out of a torn line set aside."""
    os.chown(open_path, USER, USER)
    log = open_path / "log.jsonl"
    with writer_of(USER, log, notes) as service:
        service.log("service")
        assert service.ask("flush")
        with log.open("ab") as torn:
            torn.write(b'{"torn":')
        with writer_of(0, log, notes, max_bytes=10) as tool:
            tool.log("root", 2)
            assert tool.ask("flush")
            tool.end()
        service.log("service-later")
        assert service.ask("flush", 2)
        service.end()

    assert len(log_files(log)) == 3
    assert len(list(open_path.glob("*.torn-*"))) == 1
    assert {oct(path.stat().st_mode & 0o777) for path in log_files(log)} == {"0o600"}
    assert owners_below(open_path) == {USER}
    assert_kept(log, notes)


def test_root_that_begins_a_log_leaves_it_to_whose_its_lock_file_is(open_path: Path, notes: Notes):
    """That one tells whose log it is, so that ten thousand old files need not be listed; here they tell otherwise."""
    os.chown(open_path, USER, USER)
    log = open_path / "log.jsonl"
    with writer_of(USER, log, notes) as service:
        service.log("service")
        service.end()
    old = log.rename(log.with_name(f"{log.name}.1"))
    os.chown(old, 0, 0)
    with writer_of(0, log, notes) as tool:
        tool.log("root")
        tool.end()

    assert log.stat().st_uid == USER
    assert_kept(log, notes)


def test_root_that_makes_a_deleted_lock_file_anew_leaves_it_to_the_logs_owner(open_path: Path, notes: Notes):
    """Who may write the log may lock it, also when root was the first to miss the lock file."""
    os.chown(open_path, USER, USER)
    log = open_path / "log.jsonl"
    with writer_of(USER, log, notes) as service:
        service.log("service")
        assert service.ask("flush")
        lock_file(log).unlink()
        with writer_of(0, log, notes) as tool:
            tool.log("root")
            tool.end()
        service.log("service-later")
        assert service.ask("flush", 2)
        service.end()

    assert owners_below(open_path) == {USER}
    assert_kept(log, notes)


def test_journal_that_root_leaves_behind_belongs_to_the_logs_owner(open_path: Path, notes: Notes):
    """What a tool of root's could not bring home before it was killed, the service does: it may read and remove it."""
    os.chown(open_path, USER, USER)
    log = open_path / "log.jsonl"
    with writer_of(USER, log, notes) as service:
        service.log("service")
        service.end()
    with writer_of(0, log, notes, durability="crash") as tool:
        assert tool.log("root", 2) == ["queued"] * 2
        tool.process.kill()
        tool.process.wait()
    journal = log.with_name(f"{log.name}.journal")
    assert owners_below(journal) | {journal.stat().st_uid} == {USER}
    with writer_of(USER, log, notes) as service:
        assert service.ask("flush")
        service.end()

    assert not journal.exists()
    assert_all_there_once(log, notes.ids())
