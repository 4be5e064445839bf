"""
Children that begin where the imports of their program end, without an interpreter's start for each.

Of a writer's life in a test most goes into starting Python and importing the library, thousands of times the same.
So one process does that once, and nothing else, and each child whose program begins with that import is forked from it
(another one has imported the command line, and a third one the SDK as well).
It is a process like any other: session, standard streams, arguments, environment, ids and random numbers of its own, no
other descriptor, the same modules, and it ends as an interpreter does. Where a program does something before the
import, or something is done at an interpreter's start (an option, a wrapper, a preloaded library), it is started anew.
"""

from __future__ import annotations

import ast
import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Unavailable", "WarmChild", "can_watch", "warm_child"]

# Who imports one of these at once has loaded no less than the process from which it is forked, which has that import.
_HANDLER, _MAIN = (
    "from ai_response_logging.handler import AIResponseHandler",
    "from ai_response_logging.cli import main",
)
_LOADS = {
    ("ai_response_logging.handler", "AIResponseHandler"): _HANDLER,
    **{("ai_response_logging", name): _HANDLER for name in ("AIResponseHandler", "configure", "log_ai_response")},
    ("ai_response_logging.cli", "main"): _MAIN,
}
_HEAVY = {"openai"}  # loaded as well where a program begins with it

# Nobody's child but init's, so that no test finds it among its own; it ends when it hears nobody at the other end.
_SERVER = """
import os
if os.fork():
    os._exit(0)
import gc, json, socket, sys
{IMPORTS}

gc.freeze()  # else the end of each child would look at, and so copy, all that was imported
del sys.modules["gc"]  # which the imports do not need


def next_child(link):
    while True:
        request, streams, _, _ = socket.recv_fds(link, 1 << 20, 3)
        if not request:
            os._exit(0)
        what = json.loads(request)
        if "reap" in what:
            link.send(b"%d" % os.waitpid(what["reap"], 0)[1])
            continue
        try:
            pid = os.fork()
        except OSError as error:
            link.send(b"-%d" % error.errno)
            continue
        if not pid:
            return begin(link, streams, **what)
        for stream in streams:
            os.close(stream)


def begin(link, streams, script, code, argv, env, cwd, umask):
    os.setsid()
    os.chdir(cwd)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(env)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.argv[:] = [script or "-c", *argv]
    link.send(b"%d" % os.getpid())
    link.detach()
    os.closerange(3, 1 << 16)
    # A module of its own: at the end nothing would take down the names of one that is frozen.
    main = sys.modules["__main__"] = type(sys)("__main__")
    main.__dict__.update({name: value for name, value in globals().items() if name.startswith("__")})
    if script:
        main.__file__, main.__cached__, sys.path[0] = script, None, os.path.dirname(script)
    return compile(code, script or "<string>", "exec", dont_inherit=True), main.__dict__


exec(*next_child(socket.socket(fileno=int(sys.argv[1]))))
"""

_READ_AT_START = ("PYTHON", "COVERAGE_", "LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "TZ", "TYPER_")


def warm_child(arguments: Sequence[str], *, usual: Mapping[str, str], env: Mapping[str, str], cwd: str) -> WarmChild:
    """
    Start what an interpreter with these arguments would run.

    Args:
        arguments: The interpreter's: ``-c`` and a program or the path of one, and that program's own.
        usual: The environment in which the warm process is started, if it has to be.
        env: The child's.
        cwd: Where it runs.

    Raises:
        Unavailable: This cannot be forked from the warm process; nothing has been started.
    """
    first, *rest = arguments
    if first == "-c":
        script, (code, *argv) = "", rest
    elif first.startswith("-"):
        raise Unavailable
    else:
        script, code, argv = first, Path(first).read_text("utf-8"), rest
    if not (imports := _begins_with(code)):
        raise Unavailable
    return WarmChild(
        _server(imports, usual, env), script=script, code=code, argv=argv, env=dict(env), cwd=cwd, umask=_umask()
    )


@functools.lru_cache
def _begins_with(code: str) -> str:
    """Return the imports of a warm process with which a program begins; nothing if it does something else before."""
    heavy = ""
    for statement in ast.parse(code).body:
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            break
        if isinstance(statement, ast.Import):
            heavy += "".join(f"import {name.name}\n" for name in statement.names if name.name in _HEAVY)
            continue
        for name in statement.names:
            if imports := _LOADS.get((statement.module or "", name.name)):
                return heavy + imports
    return ""


class Unavailable(Exception):  # noqa: N818  no error: the child is then started anew
    """There is no warm process here, or it could not fork."""


class _Server:
    """The process that has imported, and the way to talk to it."""

    def __init__(self, imports: str, env: Mapping[str, str]) -> None:
        self._turn = threading.Lock()
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            subprocess.run(
                [sys.executable, "-c", _SERVER.replace("{IMPORTS}", imports), str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=env,
                start_new_session=True,
                check=True,
            )
        atexit.register(self.close)

    def ask(self, streams: list[int], **what: object) -> int:
        """Send one request and wait for its answer."""
        with self._turn:
            try:
                socket.send_fds(self._link, [json.dumps(what).encode()], streams)
                answer = self._link.recv(64)
            except BaseException:  # a test's time may be over here: the next answer would be another's
                self.close()
                raise
        if not answer:  # it is gone, and so is this one
            self.close()
        if not answer or (number := int(answer)) < 0:
            raise Unavailable
        return number

    def close(self) -> None:
        """Let it end; the next child has another."""
        for name in [name for name, server in _servers.items() if server is self]:
            del _servers[name]
        self._link.close()


_servers: dict[tuple[str, frozenset[tuple[str, str]]], _Server] = {}


def _server(imports: str, usual: Mapping[str, str], env: Mapping[str, str]) -> _Server:
    """Return the process that has these imports, and whose interpreter was started as one in *env* would be."""
    read_at_start = _read_at_start(usual)
    if read_at_start != _read_at_start(env) or "COVERAGE_PROCESS_CONFIG" in env or not can_watch():
        raise Unavailable
    key = (imports, read_at_start)
    if key not in _servers:
        _servers[key] = _Server(imports, usual)
    return _servers[key]


@functools.cache
def can_watch() -> bool:
    """Say whether a process may be watched that is no child of ours (only Linux can, and a container may forbid it)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _read_at_start(env: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return of an environment what an interpreter, the linker or the C library reads when a program starts."""
    return frozenset((name, value) for name, value in env.items() if name.startswith(_READ_AT_START))


def _umask() -> int:
    """Return this process's, which the system call tells only by setting another."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    return int(status.partition("\nUmask:")[2].split(None, 1)[0], 8)


class WarmChild(subprocess.Popen[str]):
    """
    A child forked by the process that has imported, with what :class:`subprocess.Popen` offers.

    It is no child of this process: what waits for it by :mod:`os` and not by this class starts its children anew.

    Raises:
        Unavailable: Before anything is started.
    """

    def __init__(self, server: _Server, **what: Any) -> None:
        self._server, self._what = server, what
        script, code = what["script"], what["code"]
        super().__init__(
            [sys.executable, *([script] if script else ["-c", code]), *what["argv"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )

    def _execute_child(self, *arguments: Any) -> None:
        # From p2cread on, which is the same on 3.11 to 3.14.
        stdin, _, _, stdout, _, stderr, *_ = arguments[10:]
        try:
            self.pid = self._server.ask([stdin, stdout, stderr], **self._what)
        finally:
            for stream in (stdin, stdout, stderr):
                os.close(stream)
            self._closed_child_pipe_fds = True
        self._child_created = True
        self._pidfd = os.pidfd_open(self.pid)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Do what :func:`os.waitpid` does."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        status = self._server.ask([], reap=self.pid)
        os.close(self._pidfd)
        return self.pid, status

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode
