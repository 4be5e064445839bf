"""
Real servers with real workers around one log: recycled, reloaded, killed, and ended.

A run tries each way with some kinds of workers; AI_RESPONSES_TEST_EVERY_POINT=1 tries each with all, as `.ci/run full`
does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _servers import TASKS, Load, Server, assert_whole, loaded, serving
from helpers import has_fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(120), has_fork]

only_full = pytest.mark.skipif(
    "AI_RESPONSES_TEST_EVERY_POINT" not in os.environ, reason="the full run tries every kind of worker"
)

# --- gunicorn --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def gunicorn(kind: str, preload: str, durability: str, log: Path, *more: object) -> Iterator[tuple[Server, Load]]:
    """Run a gunicorn with two workers of *kind*, and clients that ask it; skip where it cannot run."""
    pytest.importorskip("gunicorn")
    if kind == "gevent":
        pytest.importorskip("gevent")
    more = (*more, *[f"--{preload}"] * bool(preload))
    with loaded(
        "gunicorn",
        "--bind",
        "fd://{fd}",
        "--workers",
        2,
        "--worker-class",
        kind,
        *more,
        "application:wsgi",
        log=log,
        durability=durability,
    ) as both:
        yield both


def kinds(*in_each_run: str, durabilities: Sequence[str] = ("crash",)) -> pytest.MarkDecorator:
    """Try each kind of worker, with and without --preload, at each durability; in a run that is not full some alone."""
    cases = itertools.product(("sync", "gthread", "gevent"), ("", "preload"), durabilities)
    names = {"-".join(filter(None, case)): case for case in cases}
    assert names.keys() >= set(in_each_run)
    return pytest.mark.parametrize(
        ("kind", "preload", "durability"),
        [pytest.param(*case, id=name, marks=() if name in in_each_run else only_full) for name, case in names.items()],
    )


@kinds("sync-memory", "gthread-preload-crash", "gevent-preload-memory", durabilities=("crash", "memory"))
def test_gunicorn_recycles_reloads_and_ends_and_each_answered_request_is_in_the_log(
    log_path: Path, kind: str, preload: str, durability: str
):
    """Workers replaced by --max-requests and by SIGHUP, under load, and ended by SIGTERM bring all home themselves."""
    with gunicorn(kind, preload, durability, log_path, "--max-requests", 15) as (server, load):
        before = len(load.await_processes(4))
        server.signal(signal.SIGHUP)
        server.await_lines("(Handling signal: hup)")
        load.await_processes(before + 2)
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked)


@kinds("sync-crash", "gthread-preload-crash", "gevent-preload-crash")
def test_gunicorn_worker_killed_its_records_are_home_when_the_others_have_ended(
    log_path: Path, kind: str, preload: str, durability: str
):
    """What a worker had acknowledged when it got kill -9 is brought home by its master or by its siblings."""
    with gunicorn(kind, preload, durability, log_path) as (server, load):
        os.kill(load.await_processes(2)[0], signal.SIGKILL)
        load.await_processes(3)
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked)


@kinds("sync-preload-crash", "gthread-crash", "gevent-preload-crash")
def test_gunicorn_master_killed_its_workers_end_and_nothing_is_lost(
    log_path: Path, kind: str, preload: str, durability: str
):
    """Workers whose master got kill -9 end by themselves, and the next who opens the log finds all of it."""
    # Half the timeout is how often an idle sync worker looks whether its master lives.
    with gunicorn(kind, preload, durability, log_path, "--timeout", 6) as (server, load):
        load.await_processes(2)
        load.await_more()
        server.signal(signal.SIGKILL)
        load.end()  # a sync worker that always has a request does not look whether its master lives
        assert server.await_end() == -signal.SIGKILL

    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)


# --- uvicorn ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uvicorn(log: Path, *more: object, durability: str = "crash") -> Iterator[tuple[Server, Load]]:
    """Run a uvicorn with two workers, and clients that ask it; skip where it cannot run."""
    pytest.importorskip("uvicorn")
    command = ("uvicorn", "--fd", "{fd}", "--workers", 2, *more, "application:asgi")
    with loaded(*command, log=log, durability=durability) as both:
        yield both


@pytest.mark.parametrize("durability", [pytest.param("crash", marks=only_full), "memory", "power"])
def test_uvicorn_recycles_and_ends_and_each_answered_request_is_in_the_log(log_path: Path, durability: str):
    """Spawned workers replaced by --limit-max-requests and ended by SIGTERM lose nothing, at each durability."""
    with uvicorn(log_path, "--limit-max-requests", 15, durability=durability) as (server, load):
        load.await_processes(4)
        server.signal(signal.SIGTERM)
        assert server.await_end() in {0, -signal.SIGTERM}

    # When a worker has shut down it raises SIGTERM once more, and so ends without Python's exit: at memory the
    # application flushes in its lifespan, and what else the worker has is in its journal.
    sure = load.ids() | server.recorded()
    assert_whole(log_path, sure, also=load.asked, is_home=durability == "memory")


@pytest.mark.parametrize("victim", ["worker", "master"])
def test_uvicorn_killed_loses_nothing_that_it_answered(log_path: Path, victim: str):
    """A worker that gets kill -9 is replaced and its records come home; so do all when the master gets it."""
    with uvicorn(log_path) as (server, load):
        pids = load.await_processes(2)
        if victim == "worker":
            os.kill(pids[0], signal.SIGKILL)
            load.await_processes(3)
            server.signal(signal.SIGTERM)
            assert server.await_end() in {0, -signal.SIGTERM}
        else:
            server.signal(signal.SIGKILL)
            load.await_more()
            for pid in pids:  # they do not notice, and serve on until somebody ends them
                os.kill(pid, signal.SIGTERM)
            assert server.await_end() == -signal.SIGKILL

    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)


# --- Celery ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def celery(log: Path, send: str, *more: object, pool: str = "prefork", durability: str = "crash") -> Iterator[Server]:
    """Run a Celery worker that sends itself what *send* says; skip where it cannot run."""
    pytest.importorskip("celery")
    if pool == "gevent":
        pytest.importorskip("gevent")
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["celery", "-A", "application", "worker", "--loglevel=INFO", f"--pool={pool}", "--concurrency=2", *quiet]
    with serving(TASKS, [*command, *more], log, durability=durability, SEND=send) as server:
        yield server


@pytest.mark.parametrize(
    ("pool", "durability"),
    [
        ("prefork", "crash"), ("gevent", "memory"),
        pytest.param("prefork", "memory", marks=only_full), pytest.param("threads", "memory", marks=only_full),
        pytest.param("threads", "crash", marks=only_full), pytest.param("gevent", "crash", marks=only_full),
    ],
)  # fmt: skip
def test_celery_worker_shut_down_has_each_task_in_the_log(log_path: Path, pool: str, durability: str):
    """Tasks of each pool, in processes replaced every few tasks too, are in the log after a warm shutdown."""
    more = ["--max-tasks-per-child=5"] if pool == "prefork" else []
    with celery(log_path, "30", *more, pool=pool, durability=durability) as server:
        server.await_lines(r"Task ask\[.*(succeeded)", 30)
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    assert len(server.find("(task-.*) is recorded")) == 30
    assert_whole(log_path, server.recorded())


def test_celery_process_killed_its_tasks_are_in_the_log(log_path: Path):
    """A process of the pool that gets kill -9 in a task is replaced, and what its other tasks recorded comes home."""
    with celery(log_path, "10 die 10") as server:
        server.await_lines(r"Task ask\[.*(succeeded)", 20)
        server.await_lines(r"(WorkerLostError)")
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    assert len(server.find("(task-.*) is recorded")) == 20
    assert_whole(log_path, server.recorded())


# --- uWSGI -----------------------------------------------------------------------------------------------------------

# It forks in C, without Python's hooks unless told to call them, and replaces itself by execv when it reloads.
UWSGI = Path(sys.executable).with_name("uwsgi")
LOADS = pytest.mark.parametrize(
    "loads",
    [["--lazy-apps"], [], ["--py-call-uwsgi-fork-hooks"]],
    ids=["in each worker", "in the master", "in the master, with hooks"],
)


@contextlib.contextmanager
def uwsgi(log: Path, *more: object, **env: str) -> Iterator[tuple[Server, Load]]:
    """Run a uWSGI with two workers, and clients that ask it; skip where it is not there."""
    if not UWSGI.is_file():
        pytest.skip("uWSGI is not installed")  # pip takes a minute or more to build it
    words = ["--master", "--workers", 2, "--enable-threads", "--die-on-term", "--no-orphans", "--need-app", *more]
    # A stand-alone binary asks for its interpreter's packages.
    words += ["--virtualenv", sys.prefix, "--wsgi-file", "application.py", "--callable", "wsgi"]
    with loaded(UWSGI, "--http-socket", "fd://{fd}", *words, log=log, durability="crash", **env) as both:
        yield both


RECYCLED = ["--max-requests", 15, "--min-worker-lifetime", 0]


@LOADS
def test_uwsgi_recycles_reloads_and_ends_and_each_answered_request_is_in_the_log(log_path: Path, loads: list[str]):
    """Workers replaced under load by --max-requests and SIGHUP and ended by SIGTERM lose nothing."""
    with uwsgi(log_path, *RECYCLED, *loads) as (server, load):
        before = len(load.await_processes(4))
        server.signal(signal.SIGHUP)
        load.await_processes(before + 3)
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    # Its master, and a worker that is ended in a request, leave without Python's exit: theirs is in their journals.
    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)


@LOADS
def test_uwsgi_worker_and_master_killed_lose_nothing(log_path: Path, loads: list[str]):
    """A worker that gets kill -9 is replaced, then the master gets it and its workers end: all of it comes home."""
    with uwsgi(log_path, *loads) as (server, load):
        os.kill(load.await_processes(2)[0], signal.SIGKILL)
        load.await_processes(3)
        server.signal(signal.SIGKILL)
        assert server.await_end() == -signal.SIGKILL

    assert_whole(log_path, load.ids() | server.recorded(), also=load.asked, is_home=False)


def test_uwsgi_that_calls_no_hook_of_a_fork_loses_nothing(log_path: Path):
    """Workers forked without Python's hooks are writers of their own, if the master has no thread when it forks."""
    # With one that runs Python at that moment, anybody's, the worker waits for ever for the interpreter lock.
    with uwsgi(log_path, *RECYCLED, AT_IMPORT="silent") as (server, load):
        load.await_processes(5)
        server.signal(signal.SIGTERM)
        assert server.await_end() == 0

    assert_whole(log_path, load.ids(), also=load.asked, is_home=False)
