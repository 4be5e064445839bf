"""What the tests of servers share: an application, a real server around it, and clients that ask until told to stop."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import _import_path, assert_all_there_once, log_files, read_lines

from ai_response_logging import AIResponseHandler
from ai_response_logging.verify import verify_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["TASKS", "WEB", "Load", "Server", "assert_whole", "loaded", "serving"]

# No answer, no line and no end may take longer on a busy machine; whatever does hangs.
PATIENCE_S = 30.0
BACK_OFF_S = 0.01

# An application as its author writes it: configured where it is imported, by dictConfig alone. Whoever imports it
# records once at once, so that a master that forks has a record waiting. Small batches and no interval: some records
# are written while requests come, and nearly always some wait when a process ends.
_CONFIGURED = """
import logging, logging.config, os, uuid
from ai_response_logging import log_ai_response

logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "handlers": {"ours": {
        "class": "ai_response_logging.AIResponseHandler", "filename": os.environ["LOG"], "batch_size": 7,
        "flush_interval": 1000, "durability": os.environ["DURABILITY"],
    }},
    "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ours"], "propagate": False}},
})
logger = logging.getLogger("ai_responses")


def record(record_id):
    if sum(record_id.encode()) % 2:
        logger.info("ai_response", extra={"record_id": record_id, "response": "x" * 100})
    else:
        assert log_ai_response(record_id=record_id, response="x" * 100)["status"] != "failed"


if os.environ.get("AT_IMPORT") != "silent":
    made = f"made-{uuid.uuid4()}"  # no pid: what execv starts has the old one
    record(made)
    print(f"{made} is recorded", flush=True)
"""

WEB = (
    _CONFIGURED
    + """

def answer(path):
    record(path.strip("/"))
    return str(os.getpid()).encode()


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if os.environ["DURABILITY"] == "memory":  # uvicorn ends its workers by raising SIGTERM once more
            logger.handlers[0].flush()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
)

# As many tasks as asked for are sent by the worker itself once it is ready.
TASKS = (
    _CONFIGURED
    + """
from pathlib import Path
from celery import Celery, signals

box = Path("box")
box.mkdir(exist_ok=True)
app = Celery("application", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "box", "data_folder_out": "box", "control_folder": "box", "polling_interval": 0.02,
    },
    task_acks_late=True, worker_prefetch_multiplier=1, worker_lost_wait=0.5,
)


@app.task(name="ask")
def ask(number):
    record_id = f"task-{number}-{os.getpid()}"
    record(record_id)
    print(f"{record_id} is recorded", flush=True)


@app.task(name="die")
def die():
    os.kill(os.getpid(), 9)


@signals.worker_ready.connect
def send(**_):
    for turn, word in enumerate(os.environ["SEND"].split()):
        die.delay() if word == "die" else [ask.delay(f"{turn}-{n}") for n in range(int(word))]


@signals.worker_process_shutdown.connect
def flush(**_):
    if os.environ["DURABILITY"] == "memory":  # a process of the pool leaves through os._exit
        logger.handlers[0].flush()
"""
)


class Server:
    """A server, its workers, and what they print."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._came:
                self.lines.append(line)
                self._came.notify_all()

    def find(self, pattern: str) -> list[str]:
        """Return what *pattern* captures in each line printed so far that has it."""
        return [found[1] for line in list(self.lines) if (found := re.search(pattern, line))]

    def await_lines(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until *count* lines have *pattern*, and return what it captures."""
        with self._came:
            came = self._came.wait_for(lambda: len(self.find(pattern)) >= count, PATIENCE_S)
        if not came:
            pytest.fail(f"{len(self.find(pattern))} of {count} lines {pattern!r}\n{''.join(self.lines)}")
        return self.find(pattern)

    def signal(self, number: signal.Signals) -> None:
        """Send the master a signal; it is ours to reap, so its pid is its own."""
        self.process.send_signal(number)

    def await_end(self) -> int:
        """Wait until the master and all its workers are gone, and return the master's exit code."""
        self._reader.join(PATIENCE_S)  # the pipe is at its end when the last process that could print is gone
        if self._reader.is_alive():
            pytest.fail(f"still there after {PATIENCE_S} s\n{''.join(self.lines)}")
        return self.process.wait(PATIENCE_S)

    def recorded(self) -> set[str]:
        """Return the records whose call has returned, as far as processes say so themselves."""
        return set(self.find(r"(\S+) is recorded"))

    def end(self) -> None:
        """End every process of it that is left, and reap the master."""
        if self.process.returncode is None:  # until it is reaped the group is its own
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(
    application: str,
    command: Sequence[object],
    log: Path,
    *,
    durability: str = "crash",
    sockets: Sequence[socket.socket] = (),
    **env: str,
) -> Iterator[Server]:
    """
    Start *command* around *application*; every process of it is gone when the block ends.

    Args:
        application: The source of the module ``application``.
        command: A module to run and its arguments; or a path.
        log: Where the application logs; the server runs beside it.
        durability: The handler's.
        sockets: What the server inherits; this process closes its own, so that only the server can answer.
        env: On top of this process's environment.
    """
    (log.parent / "application.py").write_text(application, "utf-8")
    words = [str(word) for word in command]
    with subprocess.Popen(
        words if os.path.isabs(words[0]) else [sys.executable, "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        cwd=log.parent,
        # gunicorn puts a socket of its own into its user's home.
        env={
            **os.environ,
            **_import_path(),
            "HOME": str(log.parent),
            "LOG": str(log),
            "DURABILITY": durability,
            "PYTHONUNBUFFERED": "1",
            **env,
        },
        pass_fds=[one.fileno() for one in sockets],
        start_new_session=True,
    ) as process:
        for one in sockets:
            one.close()
        server = Server(process)
        try:
            yield server
        finally:
            server.end()


class Load:
    """
    Clients that ask, each with the id of the record it wants, until they are told to end.

    An answer is the pid of whoever gave it, and comes after the record's call has returned.
    """

    def __init__(self, server: Server, port: int, clients: int = 4) -> None:
        self.answers: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self._server, self._port = server, port
        self._numbers = itertools.count()
        self._came, self._enough = threading.Condition(), threading.Event()
        self._clients = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        """Begin to ask."""
        for one in self._clients:
            one.start()

    def end(self) -> None:
        """Ask no more, and wait until each request that is under way has its answer or is cut off."""
        self._enough.set()
        for one in self._clients:
            one.join(PATIENCE_S)
        assert not any(one.is_alive() for one in self._clients), "a request hangs"

    def _ask_on(self) -> None:
        while not self._enough.is_set():
            record_id = f"request-{next(self._numbers)}"
            self.asked.append(record_id)
            try:
                pid = self._ask(record_id)
            except (OSError, http.client.HTTPException):  # refused, or cut off with the worker that had it
                self._enough.wait(BACK_OFF_S)
                continue
            with self._came:
                self.answers.append((record_id, pid))
                self._came.notify_all()

    def _ask(self, record_id: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S / 2)
        try:
            connection.request("GET", f"/{record_id}", headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise http.client.HTTPException(body)
        return int(body)

    def pids(self) -> list[int]:
        """Return who answered, in the order of their first answers."""
        return list(dict.fromkeys(pid for _, pid in self.answers))

    def ids(self) -> set[str]:
        """Return the records of the requests that were answered."""
        return {record_id for record_id, _ in self.answers}

    def await_processes(self, count: int) -> list[int]:
        """Wait until so many processes have answered, and return them all."""
        self._await(lambda: len(self.pids()) >= count, f"{count} processes")
        return self.pids()

    def await_more(self, count: int = 20) -> None:
        """Wait until *count* more answers have come."""
        already = len(self.answers)
        self._await(lambda: len(self.answers) >= already + count, f"{count} more answers")

    def _await(self, is_so: Callable[[], bool], what: str) -> None:
        with self._came:
            came = self._came.wait_for(is_so, PATIENCE_S)
        if not came:
            pytest.fail(f"no {what}; answered: {len(self.answers)} by {self.pids()}\n{''.join(self._server.lines)}")


@contextlib.contextmanager
def loaded(*command: object, log: Path, durability: str, **env: str) -> Iterator[tuple[Server, Load]]:
    """Serve :data:`WEB` by *command*, where ``{fd}`` is a socket on a free port, and let clients ask meanwhile."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        words = [str(word).format(fd=fd) for word in command]
        with serving(WEB, words, log, durability=durability, sockets=[listening], **env) as server:
            load = Load(server, port)
            load.start()
            try:
                yield server, load
            finally:
                server.end()  # first: whoever waits for an answer then gets none
                load.end()


def assert_whole(log: Path, sure: set[str], *, also: Iterable[str] = (), is_home: bool = True) -> None:
    """
    Assert that the log is whole and has each record once.

    Args:
        log: The log.
        sure: The records that must be there.
        also: Those that may be: nobody knows whether a request without an answer came to its record.
        is_home: Whether all must be in the log already; else some may wait in journals for the next who opens it.
    """
    if not is_home:
        AIResponseHandler(log).close()
    report = verify_log(log)

    assert report.whole, json.dumps(report.to_dict(), indent=1)
    assert report.in_journals == 0
    there = {record["record_id"] for file in log_files(log) for record in read_lines(file)}
    # A process that ends between its own first record and the word that it is recorded has kept it all the same.
    maybe = {one for one in there if one in set(also) or one.startswith("made-")}
    assert_all_there_once(log, sure | maybe)
