"""Fixtures for every test: where the log is, what the machine has, and that nothing is left behind."""

from __future__ import annotations

import compileall
import contextlib
import gc
import logging
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import SHARED
from hypothesis import settings

import ai_response_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = "ai_responses"
THREAD_GRACE_S = 5.0

# No deadline: this machine's other load is no fault of the code.  `.ci/run full` asks for "long", `quick` for "quick".
settings.register_profile("quick", deadline=None, max_examples=20)
settings.register_profile("short", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# A child whose files may not grow, or whose disk is full, would leave half of what it compiles of a module, and whoever
# imports that one later would fail at it: importlib does not look whether all of it was written.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# A shell starts what is to run in the background with Ctrl-C ignored, and whoever a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Compile the package once, and whole; each of thousands of children would spend half of its start on it."""
    compileall.compile_dir(Path(ai_response_logging.__file__).parent, quiet=2)  # what it may not write is as before


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """Return where a test's log goes; neither it nor anything beside it exists yet."""
    return tmp_path / "ai_responses.jsonl"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder ``../shared`` (fault recipes, sample data, design), or skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not beside this clone")
    return SHARED


@pytest.fixture(scope="session")
def sample_path(shared_dir: Path) -> Path:
    """Return the 152 real lines in older shapes."""
    return shared_dir / "data" / "ai_responses_sample.jsonl"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own environment never decides where a test writes."""
    monkeypatch.delenv("AI_RESPONSES_FILE", raising=False)
    monkeypatch.delenv("AI_RESPONSES_CONFIG", raising=False)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Collect no garbage of earlier tests: at the end of the stack its finalizers fail, and pytest then this test."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Close the handlers of the logger after each test, and fail it if a thread or a child outlives it."""
    threads, children = set(threading.enumerate()), _children()
    yield
    _reset_logger(logging.getLogger(LOGGER))
    left = [repr(thread) for thread in _still_alive(set(threading.enumerate()) - threads)]
    left += [f"child {pid}" for pid in _kill(_children() - children)]
    if left:
        pytest.fail(f"left behind by the test: {', '.join(left)}")


def _reset_logger(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for a_filter in logger.filters[:]:
        logger.removeFilter(a_filter)
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.disabled = True, False


def _still_alive(threads: set[threading.Thread]) -> list[threading.Thread]:
    """Give threads that are ending the time to do so; those of the interpreter's own making are not ours to join."""
    mine = [thread for thread in threads if not isinstance(thread, threading._DummyThread)]
    for thread in mine:
        thread.join(THREAD_GRACE_S)
    return [thread for thread in mine if thread.is_alive()]


def _children() -> set[int]:
    """Return the living or unreaped children of this process, as far as /proc tells, without multiprocessing's own."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all, which is soon said; to look through /proc takes as long as many a test
        return set()
    own = {
        getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None),
        getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None),
    }
    me = os.getpid()
    return {pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _parent(pid) == me} - own


def _parent(pid: int) -> int:
    """Read the parent from /proc/PID/stat, whose second field is a name in brackets that may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):  # ENOENT or ESRCH: it ended while we looked
        return 0


def _kill(children: set[int]) -> list[int]:
    """End and reap children that a test forgot, and return them."""
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return sorted(children)
