"""
Other systems, as far as they can be played here: a child in which what they lack is gone before we are imported.

What only their kernels can show (what F_FULLFSYNC does to a disk, how their flock(2) behaves) no test here shows;
`docs/explanation/durability.md` says so. On such a system itself the rest of the suite is the test.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers import assert_all_there_once, child_process, run_child

from ai_response_logging.verify import verify_log

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="this is such a system, nothing is to be played"),
]

# The standard library, and what we stand on, is loaded first: it has files of its own for each system.
BEFORE = """
import asyncio, builtins, ctypes, fcntl, gzip, json, logging.config, logging.handlers, multiprocessing, os, pwd
import signal, socket, subprocess, sys, threading, time, warnings
import concurrent_log_handler, orjson, portalocker, pythonjsonlogger.json, yaml
"""

MACOS = """
sys.platform = "darwin"
del os.posix_fallocate, os.fdatasync
real_open, real_fcntl, full = builtins.open, fcntl.fcntl, []


def open_here(file, *args, **kwargs):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(2, "there is no /proc", file)
    return real_open(file, *args, **kwargs)


def fcntl_here(descriptor, command, *args):
    if command != fcntl.F_FULLFSYNC:
        return real_fcntl(descriptor, command, *args)
    full.append(descriptor)
    os.fsync(descriptor)
    return 0


builtins.open, fcntl.fcntl, fcntl.F_FULLFSYNC = open_here, fcntl_here, 51
from ai_response_logging.handler import AIResponseHandler
LOG, how, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
"""

LOG_AND_END = """
handler = AIResponseHandler(LOG, flush_interval=1000, batch_size=100, max_bytes=20_000, compress=True, **options)


def log(prefix, count):
    for number in range(count):
        done = handler.submit_fields({"record_id": f"{prefix}{number}", "response": "x" * 500})
        assert done.status != "failed", done.error


log("flushed", 60)
assert handler.flush()
log("parent", 20)
if not (pid := os.fork()):
    log("child", 20)
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps([len(full), handler.get_stats()["durability"]]), flush=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("durability", ["crash", "power"])
@pytest.mark.parametrize("how", ["ends", "killed"])
def test_without_what_macos_lacks_each_record_is_there_once(log_path: Path, how: str, durability: str):
    """No posix_fallocate, no fdatasync, no /proc: rotation, compression, fork and kill -9 cost no record."""
    options = json.dumps({"durability": durability})
    done = run_child(BEFORE + MACOS + LOG_AND_END, log_path, how, options, expect=-9 if how == "killed" else 0)
    heir = BEFORE + MACOS + "handler = AIResponseHandler(LOG, **options)\nassert handler.flush()\nhandler.close()"
    run_child(heir, log_path, how, options)

    synced, held = json.loads(done.stdout)
    assert held == durability
    assert (synced > 0) == (durability == "power")
    counts = {"flushed": 60, "parent": 20, "child": 20}
    assert_all_there_once(log_path, [f"{name}{number}" for name, count in counts.items() for number in range(count)])
    assert verify_log(log_path).whole
    assert not log_path.with_name(f"{log_path.name}.journal").exists()


FULL_SYNC_REFUSED = """
def refuse(descriptor, command, *args):
    if command == fcntl.F_FULLFSYNC and full is not None:
        raise OSError(5, "the disk says no")
    return real_fcntl(descriptor, command, *args)


logging.raiseExceptions = False
warnings.simplefilter("ignore")
import ai_response_logging._append
ai_response_logging._append.fcntl = refuse
handler = AIResponseHandler(LOG, durability="power", retry_delay=0.01, close_timeout=0.1)
print(handler.submit_fields({"record_id": "one"}).status)
full = None
"""


def test_full_sync_that_fails_on_macos_is_no_success(log_path: Path):
    """At `power` a record is accepted only when F_FULLFSYNC has said so, never on the word of a plain fsync."""
    done = run_child(BEFORE + MACOS + FULL_SYNC_REFUSED, log_path, "", "{}")

    assert done.stdout.split() == ["failed"]


HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

WAIT = """
logging.raiseExceptions = False
handler = AIResponseHandler(LOG, lock_timeout=0.2, max_retries=0, flush_interval=1000)
handler.submit_fields({"record_id": "one"})
assert handler.flush(0.3) is False
print(handler.get_stats()["last_error"])
"""


def test_without_proc_a_lock_that_is_held_is_told_without_a_guess(log_path: Path):
    """Where no /proc says who holds the lock, the message names nobody, and the record waits for the next program."""
    lock = log_path.with_name(f".__{log_path.name}.lock")
    log_path.parent.mkdir(exist_ok=True)
    with child_process(HOLD, lock) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        done = run_child(BEFORE + MACOS + WAIT + "os._exit(0)", log_path, "", "{}")
    run_child(BEFORE + MACOS + "AIResponseHandler(LOG).close()", log_path, "", "{}")

    assert "no lock on" in done.stdout
    assert str(stranger.pid) not in done.stdout
    assert_all_there_once(log_path, ["one"])


WINDOWS = """
sys.platform = "win32"
for name in ("fork", "register_at_fork", "pread", "pwrite", "geteuid", "fchmod", "fchown", "posix_fallocate",
             "fdatasync", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "waitpid", "getuid", "getpgid"):
    delattr(os, name)
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
import ai_response_logging
for name in ai_response_logging.__all__:
    getattr(ai_response_logging, name)
for make in (ai_response_logging.AIResponseHandler, lambda log: ai_response_logging.configure(filename=log)):
    try:
        make(sys.argv[1])
    except ai_response_logging.ConfigError as error:
        print(error)
result = ai_response_logging.log_ai_response(question="?", response="!")
print(result["status"], result["error"])
os._exit(0)
"""


def test_on_windows_everything_imports_and_the_handler_says_that_it_cannot_record(log_path: Path):
    """An application that also runs there is told plainly, at set-up; its calls do not raise, and nothing is made."""
    done = run_child(BEFORE + WINDOWS, log_path)

    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout
    assert all("recording needs a POSIX system, and win32 is none" in line for line in lines), lines
    assert lines[2].startswith("failed")
    assert not log_path.exists()
