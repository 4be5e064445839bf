"""Children forked from the warm process: the same in all but the time that they take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import child_process, has_proc, run_child
from warm import Unavailable, WarmChild, _begins_with, can_watch, warm_child

needs_it = pytest.mark.skipif(not can_watch(), reason="each child is started anew here")
IMPORT = "from ai_response_logging.handler import AIResponseHandler\n"
MAIN = "from ai_response_logging.cli import main\n"
# Everything by which a program could tell how it was started, but its ids.
TELL = """
import random, resource, threading, time
from ai_response_logging.record import new_writer_id


def tell():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "status": [status[name] for name in ("Umask", "Threads", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid", "Groups")],
        "descriptors": sorted(os.listdir("/proc/self/fd")), "modules": sorted(sys.modules), "path": sys.path,
        "main": __name__, "file": globals().get("__file__"), "argv": sys.argv, "names": sorted(globals()),
        "environment": dict(os.environ), "cwd": os.getcwd(), "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        "streams": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors, sys.stdout.line_buffering],
        "flags": list(sys.flags), "limits": [resource.getrlimit(number) for number in range(16)],
        "read": sys.stdin.read(),
    }


def last():
    time.sleep(0.05)
    print(json.dumps([random.random(), new_writer_id()]))


print(json.dumps(tell()))
threading.Thread(target=last).start()
sys.exit(3)
"""


def told(program: str | Path, cwd: Path, *, is_fresh: bool) -> tuple[Any, ...]:
    """Return what one child says of itself, and what only it has."""
    with child_process(program, "one", "two", env={"OWN": "value"}, cwd=cwd, is_fresh=is_fresh) as process:
        assert isinstance(process, WarmChild) is not is_fresh
        out, err = process.communicate("asked", timeout=15)
        assert (process.returncode, err) == (3, "")
    return tuple(json.loads(line) for line in out.splitlines())


@has_proc
@needs_it
@pytest.mark.slow
@pytest.mark.parametrize("is_script", [False, True])
@pytest.mark.parametrize("imports", [IMPORT, MAIN, f"import openai\n{MAIN}"], ids=["handler", "main", "SDK"])
def test_warm_child_is_told_from_a_fresh_one_only_by_its_ids(tmp_path: Path, imports: str, is_script: bool) -> None:
    """Modules, names, descriptors, signals, environment, the way it ends: all as after an interpreter's start."""
    script = tmp_path / "script.py"
    source = f"import json, os, sys\n{imports}{TELL}"
    script.write_text(source, "utf-8")
    before = os.umask(0o037)
    try:
        program = script if is_script else source
        fresh, one, other = (told(program, tmp_path, is_fresh=is_fresh) for is_fresh in (True, False, False))
    finally:
        os.umask(before)

    assert one[0] == other[0] == fresh[0]
    assert len({*one[1], *other[1], *fresh[1]}) == 6, "numbers and writer ids that two of them share"


@needs_it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(5)", 5), ("raise KeyboardInterrupt", -signal.SIGINT), ("1 // 0", 1), ("os.kill(os.getpid(), 9)", -9)],
)
def test_warm_child_ends_as_its_program_says(end: str, code: int) -> None:
    """Its exit code, or the signal that ended it, is what whoever waits for it is given."""
    done = run_child(f"import os\n{IMPORT}{end}", expect=code)

    assert ("Traceback" in done.stderr) is (code in {1, -signal.SIGINT})


@needs_it
@pytest.mark.slow
def test_warm_child_that_lives_is_waited_for_signalled_and_reaped() -> None:
    """What subprocess offers for a process is there: poll, wait with a limit, signals, and it is gone afterwards."""
    with child_process(f"{IMPORT}print('ready', flush=True); input()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.terminate()
        assert process.wait() == process.poll() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


@pytest.mark.parametrize(
    ("program", "imports"),
    [
        (IMPORT, IMPORT),
        (f"'''What it does.'''\n{IMPORT}", ""),
        (f"import atexit, os\nfrom json import dumps\n{IMPORT}input()", IMPORT),
        ("from ai_response_logging import log_ai_response", IMPORT),
        (f"{MAIN}main()", MAIN),
        (f"import openai; {MAIN}", f"import openai\n{MAIN}"),
        (f"{MAIN}import openai", MAIN),
        (f"import sys; sys.modules['openai'] = None\n{IMPORT}", ""),
        (f"import resource\nresource.setrlimit(1, (1, 1))\n{IMPORT}", ""),
        (f"def f(): pass\n{IMPORT}", ""),
        ("import ai_response_logging", ""),
        ("from ai_response_logging import read_log", ""),
        ("print()", ""),
    ],
)
def test_only_who_imports_first_what_is_warm_begins_warm(program: str, imports: str) -> None:
    """Whatever a program sees to before the import, or without it, it does in an interpreter of its own."""
    assert _begins_with(program) == imports.rstrip()


@needs_it
@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONHASHSEED", "TZ", "LC_ALL", "MALLOC_ARENA_MAX"])
def test_environment_that_is_read_at_the_start_needs_a_start(name: str, tmp_path: Path) -> None:
    """A preloaded library, a time zone or an option of the interpreter is never missed by a child."""
    with pytest.raises(Unavailable):
        warm_child(["-c", IMPORT], usual=os.environ, env={**os.environ, name: "1"}, cwd=str(tmp_path))


@needs_it
@pytest.mark.parametrize("options", [["-X", "dev"], ["-I", "-c", IMPORT], ["-W", "error", "-c", IMPORT]])
def test_options_of_the_interpreter_need_a_start(options: list[str], tmp_path: Path) -> None:
    """An option is never missed either."""
    with pytest.raises(Unavailable):
        warm_child(options, usual=os.environ, env=os.environ, cwd=str(tmp_path))
