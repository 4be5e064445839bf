"""
Real servers with real workers around one log: recycled, reloaded, killed, and ended.

A run tries each way with some kinds of workers; AI_RESPONSES_TEST_EVERY_POINT=1 tries each with all, as `.ci/run full`
does.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from _servers import TASKS, WEB, Load, Server, assert_whole, listening_socket, serving
from helpers import has_fork

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(120), has_fork]

only_full = pytest.mark.skipif(
    "AI_RESPONSES_TEST_EVERY_POINT" not in os.environ, reason="the full run tries every kind of worker"
)

# --- gunicorn --------------------------------------------------------------------------------------------------------


def gunicorn(kind: str, fd: int, *more: object) -> list[object]:
    """Return the command of a gunicorn with two workers of *kind* on an inherited socket."""
    return ["gunicorn", "--bind", f"fd://{fd}", "--workers", 2, "--worker-class", kind, *more, "application:wsgi"]


def kinds(*in_each_run: tuple[str, bool]) -> pytest.MarkDecorator:
    """Try each kind of worker, with and without --preload; in a run that is not full these alone."""
    return pytest.mark.parametrize(
        ("kind", "more"),
        [
            pytest.param(
                kind,
                ["--preload"] * is_preloaded,
                id=kind + "-preload" * is_preloaded,
                marks=[] if (kind, is_preloaded) in in_each_run else only_full,
            )
            for kind in ("sync", "gthread", "gevent")
            for is_preloaded in (False, True)
        ],
    )


def need_gunicorn(kind: str) -> None:
    """Skip where it, or what its workers need, is missing."""
    pytest.importorskip("gunicorn")
    if kind == "gevent":
        pytest.importorskip("gevent")


@kinds(("sync", False), ("sync", True), ("gthread", True), ("gevent", False), ("gevent", True))
@pytest.mark.parametrize("durability", ["crash", "memory"])
def test_gunicorn_recycles_reloads_and_ends_and_each_answered_request_is_in_the_log(
    log_path: Path, kind: str, more: list[str], durability: str
):
    """Workers replaced under load by --max-requests, by SIGHUP and at the master's SIGTERM bring all home themselves."""
    need_gunicorn(kind)
    listening = listening_socket()
    port, fd = listening.getsockname()[1], listening.fileno()
    command = gunicorn(kind, fd, "--max-requests", 15, *more)
    with serving(WEB, command, log_path, durability=durability, sockets=[listening]) as server:
        with Load(server, port) as load:
            before = len(load.await_processes(5))
            server.signal(signal.SIGHUP)
            server.await_lines("Handling signal: (hup)")
            load.await_processes(before + 3)
            server.signal(signal.SIGTERM)
            assert server.await_end() == 0
        assert_whole(log_path, load.ids() | server.recorded(), also=load.asked)


@kinds(("sync", False), ("gthread", True), ("gevent", True))
def test_gunicorn_worker_killed_its_records_are_home_when_the_others_have_ended(
    log_path: Path, kind: str, more: list[str]
):
    """What a worker had acknowledged when it got kill -9 is brought home by its master or by its siblings."""
    need_gunicorn(kind)
    listening = listening_socket()
    port, fd = listening.getsockname()[1], listening.fileno()
    with serving(WEB, gunicorn(kind, fd, *more), log_path, sockets=[listening]) as server:
        with Load(server, port) as load:
            victim = load.await_processes(2)[0]
            os.kill(victim, signal.SIGKILL)
            load.await_processes(3)
            load.await_more()
            server.signal(signal.SIGTERM)
            assert server.await_end() == 0
        assert_whole(log_path, load.ids() | server.recorded(), also=load.asked)


@kinds(("sync", True), ("gthread", False), ("gevent", True))
def test_gunicorn_master_killed_its_workers_end_and_nothing_is_lost(log_path: Path, kind: str, more: list[str]):
    """Workers whose master got kill -9 end by themselves, and the next who opens the log finds all of it."""
    need_gunicorn(kind)
    listening = listening_socket()
    port, fd = listening.getsockname()[1], listening.fileno()
    with serving(WEB, gunicorn(kind, fd, *more), log_path, sockets=[listening]) as server:
        with Load(server, port) as load:
            load.await_processes(2)
            load.await_more()
            server.signal(signal.SIGKILL)
            assert server.await_end() == -signal.SIGKILL
        assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)


# --- uvicorn ---------------------------------------------------------------------------------------------------------


def uvicorn(fd: int, *more: object) -> list[object]:
    """Return the command of a uvicorn with two workers on an inherited socket."""
    return ["uvicorn", "--fd", fd, "--workers", 2, *more, "application:asgi"]


@pytest.mark.parametrize("durability", ["crash", "memory", "power"])
def test_uvicorn_recycles_and_ends_and_each_answered_request_is_in_the_log(log_path: Path, durability: str):
    """Spawned workers replaced by --limit-max-requests and ended by SIGTERM lose nothing, at each durability."""
    pytest.importorskip("uvicorn")
    listening = listening_socket()
    port, fd = listening.getsockname()[1], listening.fileno()
    command = uvicorn(fd, "--limit-max-requests", 15)
    with serving(WEB, command, log_path, durability=durability, sockets=[listening]) as server:
        with Load(server, port) as load:
            load.await_processes(5)
            server.signal(signal.SIGTERM)
            server.await_end()
        # A worker raises SIGTERM once more when it has shut down, and so ends without Python's exit.
        is_home = durability == "memory"
        sure = load.ids() | (server.recorded() if durability != "memory" else set())
        assert_whole(log_path, sure, also={*load.asked, *server.recorded()}, is_home=is_home)


@pytest.mark.parametrize("victim", ["worker", "master"])
def test_uvicorn_killed_loses_nothing_that_it_answered(log_path: Path, victim: str):
    """A worker that gets kill -9 is replaced and its records come home; so do all when the master gets it."""
    pytest.importorskip("uvicorn")
    listening = listening_socket()
    port, fd = listening.getsockname()[1], listening.fileno()
    with serving(WEB, uvicorn(fd), log_path, sockets=[listening]) as server:
        with Load(server, port) as load:
            pids = load.await_processes(2)
            load.await_more()
            if victim == "worker":
                os.kill(pids[0], signal.SIGKILL)
                load.await_processes(3)
                server.signal(signal.SIGTERM)
                server.await_end()
            else:
                server.signal(signal.SIGKILL)
                for pid in pids:  # uvicorn's own do not notice
                    os.kill(pid, signal.SIGTERM)
                server.await_end()
        assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)
