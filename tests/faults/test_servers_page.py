"""The commands of docs/how-to/run-under-a-server.md, taken from the page and run as they stand there."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _servers import serving
from helpers import has_fork, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(120), has_fork]

only_full = pytest.mark.skipif(
    "AI_RESPONSES_TEST_EVERY_POINT" not in os.environ, reason="the full run tries every command of the page"
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "run-under-a-server.md").read_text("utf-8")
BIN = Path(sys.executable).parent
LOG = Path("data") / "ai_responses" / "ai_responses.jsonl"  # what config/default.yaml says

[WSGI] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SET_UP = WSGI.partition("\n\ndef application")[0]
ASGI = f"""{SET_UP}
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({{"type": f"lifespan.{{word}}.complete"}})
        return
    log_ai_response(question="Which phone?", response="That depends.")
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}})
    await send({{"type": "http.response.body", "body": b"done"}})
"""
CELERY = f"""{SET_UP}
import pathlib
from celery import Celery, signals

pathlib.Path("box").mkdir(exist_ok=True)
app = Celery("application", broker="filesystem://")
app.conf.broker_transport_options = {{"data_folder_in": "box", "data_folder_out": "box", "control_folder": "box"}}


@app.task(name="ask")
def ask():
    log_ai_response(question="Which phone?", response="That depends.")
    print("a task is done", flush=True)


@signals.worker_ready.connect
def send(**_):
    ask.delay()
"""


def commands() -> Iterator[str]:
    """Yield each command of the page's table, and each way in which the table says that it may be changed."""
    for row in re.findall(r"^\| (.+) \| (`.+) \| .+ \|$", PAGE, re.MULTILINE):
        kinds, (command, *options) = re.findall(r"`(\w+)`", row[0]), re.findall(r"`(.+?)`", row[1])
        if command.startswith("celery"):
            yield from (command, *(re.sub("--pool.*", option, command) for option in options))
            continue
        for kind in kinds or [""]:
            one = re.sub(r"(?<=--worker-class )\w+", kind, command)
            yield from dict.fromkeys([one, " ".join([one, *options])])


COMMANDS = list(commands())


def test_page_has_the_commands_that_are_tried():
    """What is read out of the page's table is what a reader sees there."""
    assert [command.partition(" ")[0] for command in COMMANDS] == [
        *["gunicorn"] * 6, *["uvicorn"] * 2, *["celery"] * 3, "uwsgi",
    ]  # fmt: skip
    assert len(set(COMMANDS)) == len(COMMANDS)


def tried(command: str) -> object:
    """Return *command* as a case; each run tries one way of each program, the full run all."""
    program = command.partition(" ")[0]
    is_first = next(one for one in COMMANDS if one.startswith(program)) == command
    return pytest.param(command, id=re.sub(r"\W+", "-", command), marks=() if is_first else only_full)


@pytest.mark.parametrize("command", [tried(command) for command in COMMANDS])
def test_command_serves_records_and_ends_as_the_page_says(tmp_path: Path, command: str):
    """Pasted as it stands, but for the port: one request or task, SIGTERM, and its record is in the log."""
    program = command.partition(" ")[0]
    if not (BIN / program).is_file():
        pytest.skip(f"{program} is not installed")
    shutil.copy(ROOT / "config" / "default.yaml", tmp_path / "logging.yaml")
    code = {"uvicorn": ASGI, "celery": CELERY}.get(program, WSGI)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        words = ["/bin/sh", "-c", f"exec {command.replace('127.0.0.1:8000', f'fd://{fd}')}"]
        # An idle gevent worker behind --preload ends only when gunicorn's patience does, which is 30 s otherwise.
        env = {"GUNICORN_CMD_ARGS": f"--bind fd://{fd} --graceful-timeout 5", "UVICORN_FD": str(fd)}
        env["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        with serving(code, words, tmp_path / "unused", sockets=[listening], **env) as server:
            if program == "celery":
                server.await_lines("(a task is done)")
            else:
                # uWSGI ends a worker only a minute after a SIGTERM that came while it loaded its application.
                server.await_lines("(WSGI app 0)", 2) if program == "uwsgi" else None
                assert ask(port) == b"done"
            server.signal(signal.SIGTERM)
            assert server.await_end() in ({0, -signal.SIGTERM} if program == "uvicorn" else {0})

    for word in ("replay", "verify"):
        subprocess.run([BIN / "ai-responses", word], cwd=tmp_path, check=True, capture_output=True)
    assert [record["question"] for record in read_lines(tmp_path / LOG)] == ["Which phone?"]


def ask(port: int) -> bytes:
    """Return what the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()
