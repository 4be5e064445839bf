"""What we rely on of concurrent-log-handler without its promise: a release that breaks it fails here first."""

from __future__ import annotations

import fcntl
import importlib.metadata
import inspect
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from concurrent_log_handler import ConcurrentRotatingFileHandler

from ai_response_logging.writer import BatchFileHandler

OVERRIDDEN = ("_lock_stream_lock", "_open_lockfile", "close", "doRollover", "emit", "flush", "shouldRollover")
CALLED = ("_at_fork_reinit", "_check_stream", "_do_lock", "_do_unlock")


@pytest.fixture
def handler(log_path: Path) -> Iterator[ConcurrentRotatingFileHandler]:
    """Make concurrent-log-handler's own handler, as the parent of ours is set up."""
    made = ConcurrentRotatingFileHandler(str(log_path), "a", encoding="utf-8")
    made.maxLockAttempts = 1
    yield made
    made.close()


def is_free(handler: ConcurrentRotatingFileHandler) -> bool:
    """Say whether another process could take the lock now."""
    with open(handler.lockFilename, "a") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("name", [*OVERRIDDEN, *CALLED])
def test_method_is_there_with_the_arguments_we_use(name: str):
    """Every method that we call or override exists, and ours takes what theirs takes."""
    theirs = inspect.signature(getattr(ConcurrentRotatingFileHandler, name))
    ours = inspect.signature(getattr(BatchFileHandler, name))

    assert list(ours.parameters)[: len(theirs.parameters)] == list(theirs.parameters)
    assert all(p.default is not p.empty for p in list(ours.parameters.values())[len(theirs.parameters) :])
    assert (getattr(BatchFileHandler, name) is not getattr(ConcurrentRotatingFileHandler, name)) == (name in OVERRIDDEN)


def test_attributes_are_there_with_the_values_we_expect(handler: ConcurrentRotatingFileHandler, log_path: Path):
    """A new handler has neither file open and holds no lock; the lock file's name is the one that readers know."""
    assert handler.stream is None
    assert handler.stream_lock is None
    assert handler.is_locked is False
    assert handler._creation_pid == os.getpid()
    assert isinstance(handler._thread_lock, type(threading.RLock()))
    assert handler.lockFilename == str(log_path.with_name(f".__{log_path.name}.lock"))
    assert (handler.maxBytes, handler.backupCount) == (0, 0)
    assert not log_path.exists()


def test_do_lock_opens_locks_and_do_unlock_frees(handler: ConcurrentRotatingFileHandler):
    """The pair takes and frees the cross-process lock, keeps the lock file open, and says so in is_locked."""
    handler._do_lock()
    assert handler.is_locked
    assert not is_free(handler)

    handler._do_unlock()
    assert not handler.is_locked
    assert is_free(handler)
    assert handler.stream_lock is not None
    assert not handler.stream_lock.closed
    assert handler._thread_lock.acquire(blocking=False)
    handler._thread_lock.release()


def test_do_lock_uses_the_hooks_that_we_override(
    handler: ConcurrentRotatingFileHandler, monkeypatch: pytest.MonkeyPatch
):
    """Opening goes through _open_lockfile, waiting through _lock_stream_lock, which is given the open file."""
    calls = []
    open_lockfile = handler._open_lockfile
    monkeypatch.setattr(handler, "_open_lockfile", lambda: (calls.append("open"), open_lockfile()))
    monkeypatch.setattr(handler, "_lock_stream_lock", calls.append)

    handler._do_lock()
    handler._do_unlock()
    handler._do_lock()
    handler._do_unlock()

    assert calls == ["open", handler.stream_lock, handler.stream_lock]


def test_do_lock_asks_as_often_as_max_lock_attempts_and_raises_runtime_error(
    handler: ConcurrentRotatingFileHandler, monkeypatch: pytest.MonkeyPatch
):
    """With one attempt one failure ends it, with the lock free and nothing marked as held."""
    calls = []

    def refuse(file: object) -> None:
        calls.append(file)
        raise OSError("refused")

    monkeypatch.setattr(handler, "_lock_stream_lock", refuse)
    with pytest.raises(RuntimeError, match="Cannot acquire lock"):
        handler._do_lock()

    assert len(calls) == 1
    assert not handler.is_locked
    assert handler._thread_lock.acquire(blocking=False)
    handler._thread_lock.release()


def test_error_in_opening_the_lock_file_comes_through(
    handler: ConcurrentRotatingFileHandler, monkeypatch: pytest.MonkeyPatch
):
    """What _open_lockfile raises reaches us as it is, and leaves nothing locked."""

    def refuse() -> None:
        raise PermissionError("refused")

    monkeypatch.setattr(handler, "_open_lockfile", refuse)
    with pytest.raises(PermissionError):
        handler._do_lock()

    assert not handler.is_locked


def test_check_stream_keeps_a_file_that_is_still_there(handler: ConcurrentRotatingFileHandler, log_path: Path):
    """The open file is kept as long as the path leads to it."""
    handler.stream = stream = log_path.open("a")
    handler._check_stream()

    assert handler.stream is stream
    assert not stream.closed


@pytest.mark.parametrize("again", [True, False])
def test_check_stream_drops_a_file_that_is_no_longer_the_log(
    handler: ConcurrentRotatingFileHandler, log_path: Path, again: bool
):
    """After a rename the open file is closed and forgotten, whether or not there is a new one."""
    handler.stream = stream = log_path.open("a")
    log_path.rename(log_path.with_name("old"))
    if again:
        log_path.touch()

    handler._check_stream()

    assert handler.stream is None
    assert stream.closed


def test_at_fork_reinit_makes_new_locks_and_forgets_what_was_held(handler: ConcurrentRotatingFileHandler):
    """A child that calls it can log, whatever the parent's threads held."""
    handler._do_lock()
    before = handler._thread_lock

    handler._at_fork_reinit()

    assert handler._thread_lock is not before
    assert not handler.is_locked
    before.release()


def test_close_closes_both_files_and_may_be_called_twice(handler: ConcurrentRotatingFileHandler, log_path: Path):
    """Closing leaves no descriptor, and a later lock opens the lock file anew."""
    handler.stream = log_path.open("a")
    handler._do_lock()
    handler._do_unlock()

    handler.close()
    handler.close()

    assert handler.stream is None
    assert handler.stream_lock is None
    handler._do_lock()
    assert handler.is_locked
    handler._do_unlock()


def test_constructor_opens_nothing_and_takes_the_arguments_we_pass(log_path: Path):
    """Filename and mode by position, maxBytes, backupCount and encoding by name; no file is made by it."""
    made = ConcurrentRotatingFileHandler(str(log_path), "a", maxBytes=5, backupCount=6, encoding="utf-8")

    assert (made.maxBytes, made.backupCount, made.baseFilename) == (5, 6, str(log_path))
    assert not list(log_path.parent.iterdir())
    made.close()


def test_handler_is_a_file_handler_of_logging():
    """Ours is one of logging's own kind, so that dictConfig and shutdown treat it as such."""
    assert issubclass(ConcurrentRotatingFileHandler, logging.FileHandler)


def test_version_is_one_that_was_looked_at():
    """The pin in setup.cfg and this contract move together."""
    major, minor, patch = map(int, importlib.metadata.version("concurrent-log-handler").split(".")[:3])

    assert (major, minor) == (0, 9)
    assert patch >= 31
