from __future__ import annotations

import http.client
import signal
import textwrap
from pathlib import Path

import pytest
from _children import Notes
from _strangers import APPLICATION, END, assert_all_kept, needs, options, run
from helpers import assert_all_there_once, child_process

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# --- uvicorn ---------------------------------------------------------------------------------------------------------

# The server's own dictConfig comes after ours. Each request records in the event loop and in a thread beside it.
SERVER = """
import asyncio, socket, uvicorn

listening = socket.create_server(("127.0.0.1", 0))
set_up()
both("before")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path = scope["path"].strip("/")
    if path == "stop":
        server.should_exit = True
    both(f"loop-{path}", 1)
    await asyncio.to_thread(both, f"thread-{path}", 1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


async def lifespan(receive, send):
    for event in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{event}"
        both(event, 1)
        if event == "startup":
            print(listening.getsockname()[1], flush=True)
        await send({"type": f"lifespan.{event}.complete"})

"""
RUN = "uvicorn.run(app, fd=listening.fileno())\n"
WAYS_TO_STOP = {
    "SIGTERM that the application handles": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + RUN,
        signal.SIGTERM,
    ),
    "Ctrl-C": (RUN, signal.SIGINT),
    "should_exit": (
        "server = uvicorn.Server(uvicorn.Config(app, fd=listening.fileno()))\nserver.run()\nboth('behind', 1)\n",
        None,
    ),
}


def get(port: int, path: str) -> bytes:
    """Ask the server for *path*."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().read()
    finally:
        connection.close()


@needs("uvicorn")
@pytest.mark.parametrize(("start", "end"), WAYS_TO_STOP.values(), ids=WAYS_TO_STOP.keys())
def test_uvicorn_run_after_configure_keeps_what_requests_record(
    log_path: Path, notes: Notes, start: str, end: signal.Signals | None
):
    """The server configures logging its own way, which closes our handler: each request's records are there once."""
    with child_process(APPLICATION + SERVER + start, log_path, notes.path, options(), cwd=log_path.parent) as server:
        assert server.stdout is not None
        first = server.stdout.readline()
        assert first, server.communicate()[1]
        for number in range(10):
            assert get(int(first), str(number)) == b"done"
        if end is None:
            get(int(first), "stop")
        else:
            server.send_signal(end)
        _, err = server.communicate(timeout=15)
        assert server.returncode in {0, -signal.SIGINT}, err  # how it ends after Ctrl-C is uvicorn's to say

    # 20 before; 2 at startup, 2 at shutdown; 4 for each request; where it returned by itself 2 behind.
    assert_all_kept(log_path, notes, 24 + (40 if end else 46))


# --- Django ----------------------------------------------------------------------------------------------------------

DJANGO = """
set_up()
both("before")
import django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def view(request):
    record("view")
    return HttpResponse("done")

urlpatterns = [path("", view)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", **GIVEN)
django.setup()
assert logger.disabled is DISABLED
record = through_function if DISABLED else both
record("after")
assert Client().get("/").content == b"done"
"""
# Django runs a dictConfig of its own in each case, and then that of the settings.
SETTINGS = {
    "LOGGING unset": ("{}", False),
    "LOGGING_CONFIG None": ('{"LOGGING_CONFIG": None}', False),
    "LOGGING that keeps existing loggers": ('{"LOGGING": {"version": 1, "disable_existing_loggers": False}}', False),
    "LOGGING that disables existing loggers": ('{"LOGGING": {"version": 1}}', True),
    "LOGGING that names our handler": (
        """{"LOGGING": {"version": 1, "handlers": {"ai": OURS},
                        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ai"]}}}}""",
        False,
    ),
}


@needs("django")
@pytest.mark.parametrize(("given", "disabled"), SETTINGS.values(), ids=SETTINGS.keys())
def test_django_setup_after_configure_loses_nothing(log_path: Path, notes: Notes, given: str, disabled: bool):
    """Whatever LOGGING says, what is recorded before django.setup(), after it and in a view is there once."""
    run(f"GIVEN, DISABLED = {given}, {disabled}\n{DJANGO}", log_path, notes)

    assert_all_kept(log_path, notes, 40 if disabled else 60)


# --- Celery ----------------------------------------------------------------------------------------------------------

CELERY = """
from celery import Celery
app = Celery("strangers", broker="memory://", set_as_current=True)
"""


@needs("celery")
@pytest.mark.parametrize("arguments", ["", "loglevel='DEBUG', redirect_stdouts=True", "logfile=os.devnull"])
def test_celery_log_setup_after_configure_loses_nothing(log_path: Path, notes: Notes, arguments: str):
    """Celery takes over the root logger and, if asked, stdout and stderr: our logger goes on to record."""
    code = f"""
    set_up()
    both("before")
    {CELERY.strip().replace(chr(10), chr(10) + "    ")}
    app.log.setup({arguments})
    both("after")
    from celery.utils.log import get_task_logger
    get_task_logger("strangers.ask").warning("a task's own logger, beside ours")
    both("again")
    """
    run(code, log_path, notes, end=END)

    assert_all_kept(log_path, notes, 60)


@needs("celery")
def test_celery_worker_keeps_what_its_tasks_record(log_path: Path, notes: Notes):
    """A solo worker, ended by its warm shutdown on SIGTERM, has all its tasks' records in the file."""
    code = """
    from celery import signals

    @app.task
    def ask(number):
        both(f"task-{number}", 1)

    done = []

    @signals.task_postrun.connect
    def count(**_):
        done.append(1)
        if len(done) == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    set_up()
    both("before")
    for number in range(10):
        ask.delay(number)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool=solo", "--loglevel=INFO", *quiet])
    """
    run(code, log_path, notes, begin=CELERY)

    assert_all_kept(log_path, notes, 40)


# --- gevent ----------------------------------------------------------------------------------------------------------

PATCH = "from gevent import monkey; monkey.patch_all()\n"
WHEN = {
    "before the import": (PATCH, "set_up()\n"),
    "after the import": ("", PATCH + "set_up()\n"),
    "after the handler was made": ("", "set_up()\n" + PATCH),
    "after the first record": ("", "set_up()\nboth('first')\n" + PATCH),
}
GREENLETS = """
import gevent

def work(name):
    for number in range(20):
        both(f"{name}-{number}", 1)
        gevent.sleep(0)

gevent.joinall([gevent.spawn(work, name) for name in range(8)], raise_error=True)
"""


@needs("gevent")
@pytest.mark.parametrize(("begin", "code"), WHEN.values(), ids=WHEN.keys())
def test_gevent_patches_greenlets_record_and_the_process_ends(log_path: Path, notes: Notes, begin: str, code: str):
    """Whenever gevent turns threads into greenlets: nothing waits for ever, and each record is there once."""
    # Only full batches wake the listener: one that sleeps in the way of all greenlets would do so for good.
    run(code + GREENLETS, log_path, notes, begin=begin, batch_size=5)

    assert_all_kept(log_path, notes, 340 if "first" in code else 320)


@needs("gevent")
def test_gevent_greenlets_with_a_full_queue_write_themselves(log_path: Path, notes: Notes):
    """Greenlets that find the queue full write what waits, each record once, while others go on."""
    run("set_up()\n" + GREENLETS, log_path, notes, begin=PATCH, end="stats()\n", queue_max_size=3)

    assert_all_kept(log_path, notes, 320)
    assert "written_sync" in notes.statuses()
    assert_all_there_once(log_path, notes.ids())


@needs("gevent")
@pytest.mark.parametrize("when", ["before the import", "after the first record"])
def test_gevent_record_of_its_hub_is_kept_whatever_an_exception_has_left(log_path: Path, notes: Notes, when: str):
    """What a callback of the event loop logs never sleeps: there gevent raises, and the record was refused."""
    code = """
    import gevent

    both("outside", 1)
    handler._pipeline.queue._arrived = object()  # as Ctrl-C leaves it, on the way to the lock
    gevent.get_hub().loop.run_callback(both, "hub", 1)
    gevent.sleep(0)
    both("behind", 1)
    """
    begin, begun = WHEN[when]
    run(begun + textwrap.dedent(code), log_path, notes, begin=begin)

    assert_all_kept(log_path, notes, 6 if "first" not in begun else 26)
