"""The local model server: its socket, its threads, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from .apis import APIS, Api
from .bodies import HTTP_ERROR, error_body, to_json, until_cut
from .script import Reply, Script, SeenRequest

CLOSE_TIMEOUT_S: Final = 5.0
HIDDEN: Final = "(hidden)"
_SECRET_HEADERS: Final = frozenset({"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"})


class LocalModelServer:
    """
    A server that speaks the APIs of OpenAI and Anthropic on 127.0.0.1, for the length of a ``with`` block.

    A request gets the first of these that there is: the next reply scripted for its model, the next reply scripted
    for any, what *respond* says, the standing reply for its model, the standing reply for any, the echo
    ``<model> answers: <question>``. Equal requests get equal answers and token counts.

    Args:
        respond: Called with each chat request, in its own thread; returns a `Reply`, or None for "as scripted".
        models: What ``GET /v1/models`` lists; chats are answered for every model.

    Threads: Any, at the same time; each connection is served by a thread of its own. Other processes reach it through
        `base_url`. In a forked child, `close` only closes the child's copy of the socket.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        respond: Callable[[SeenRequest], Reply | None] | None = None,
        *,
        models: tuple[str, ...] = ("local-model",),
    ) -> None:
        self.models = models
        self._script = Script(respond)
        self._http: _Server | None = None
        self._owner_pid = os.getpid()

    def start(self) -> Self:
        """
        Listen on a free port; `with` does it for you. A closed server does not start again.

        Raises:
            RuntimeError: It has been started before.
            OSError: No socket to be had.
        """
        if self._http is not None:
            raise RuntimeError("this LocalModelServer has been started already; make a new one")
        self._owner_pid = os.getpid()
        self._http = _Server(self._script, self.models)
        serve = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="local-model-server", daemon=True)
        serve.start()
        return self

    def close(self) -> None:
        """
        Stop listening, drop every connection (held ones too) and return within about 5 s; twice is fine.

        A client in the middle of a call sees a broken connection.
        """
        if self._http is None or self._script.closing.is_set():
            return
        self._script.closing.set()
        if os.getpid() == self._owner_pid:  # a forked child has no serving thread to wait for
            self._http.shutdown()
            self._http.drop_connections(CLOSE_TIMEOUT_S)
        self._http.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT/v1``, what the OpenAI client takes as *base_url*."""
        if self._http is None:
            raise RuntimeError("the LocalModelServer has no address before start() or its with block")
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """``http://127.0.0.1:PORT``, what the Anthropic client takes as *base_url*."""
        return self.base_url.removesuffix("/v1")

    @property
    def requests(self) -> list[SeenRequest]:
        """A copy of all requests so far, oldest first, the tries of a retrying client each."""
        return self._script.requests()

    def reply_with(self, *replies: Reply, model: str | None = None) -> None:
        """Give these to the next chat requests (for *model*, if said), one each, in order."""
        self._script.add(replies, model)

    def reply_always(self, reply: Reply, *, model: str | None = None) -> None:
        """Give this to every chat request (for *model*, if said) that has no other; replaces the one before."""
        self._script.set_standing(reply, model)

    def wait_for_requests(self, count: int, *, timeout_s: float = 10.0) -> list[SeenRequest]:
        """
        Wait until *count* requests have come in all (answered or not), and return all there are.

        Raises:
            TimeoutError: Fewer came in *timeout_s* seconds; the message says how many.
        """
        if not self._script.wait_for(count, timeout_s):
            raise TimeoutError(f"{len(self.requests)} of {count} requests came within {timeout_s} s")
        return self.requests


class _Server(ThreadingHTTPServer):
    """The socket, and every connection that is open, so that closing can end them all."""

    daemon_threads = True
    # A burst of clients beyond the usual 5 would be turned away, and wait a second before they knock again.
    request_queue_size = 4096  # the system gives what it allows

    def __init__(self, script: Script, models: tuple[str, ...]) -> None:
        self.script = script
        self.models = models
        self._open: set[socket.socket] = set()
        self._open_changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def track(self, connection: socket.socket) -> None:
        with self._open_changed:
            self._open.add(connection)

    def forget(self, connection: socket.socket) -> None:
        with self._open_changed:
            self._open.discard(connection)
            self._open_changed.notify_all()

    def drop_connections(self, timeout_s: float) -> None:
        with self._open_changed:
            for connection in self._open:
                _drop(connection)
            self._open_changed.wait_for(lambda: not self._open, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that was killed, or gave up waiting, is what this server is for.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)) and not self.script.closing.is_set():
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, answers as the owner says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.track(self.connection)
        if self.server.script.closing.is_set():  # accepted just before, tracked too late to be dropped by close()
            _drop(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.forget(self.connection)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the standard library's name
        """Say nothing: whoever runs the tests wants to read their output."""

    def do_GET(self) -> None:
        """Answer ``/v1/models``."""
        self._note({})
        if self._path() != "/v1/models":
            self._send_json(404, error_body(404, f"no such path: {self.path}"))
            return
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in self.server.models]
        self._send_json(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        """Answer what asks a model."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        request = self._note(body if isinstance(body, dict) else {})
        api = APIS.get(self._path())
        if api is None:
            self._send_json(404, error_body(404, f"no such path: {self.path}"))
        elif not api.is_asked_by(request):
            self._send_json(400, error_body(400, api.complaint))
        else:
            self._answer(api, request, self.server.script.reply_to(request))

    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _note(self, body: dict[str, Any]) -> SeenRequest:
        headers = {
            name.lower(): HIDDEN if name.lower() in _SECRET_HEADERS else value for name, value in self.headers.items()
        }
        request = SeenRequest(self.command, self.path, headers, body)
        self._number = self.server.script.note(request)
        return request

    def _answer(self, api: Api, request: SeenRequest, reply: Reply) -> None:
        whole = api.body_of(request, reply, self._number)
        pieces, is_cut = until_cut(whole, reply)
        hold = None if reply.hold_after_chunks else reply.hold
        if not self.server.script.wait_as_scripted(hold, reply.delay_s) or (is_cut and not pieces):
            self._cut()
            return
        is_streamed = request.stream and reply.status < HTTP_ERROR and not reply.html
        if is_streamed:
            self._send_head(reply, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        else:
            length = sum(map(len, whole))
            kind = "text/html; charset=utf-8" if reply.html else "application/json"
            self._send_head(reply, {"Content-Type": kind, "Content-Length": str(length)})
        if not self._send_pieces(pieces, reply, is_streamed=is_streamed) or is_cut:
            self._cut()
        elif is_streamed:
            self.wfile.write(b"0\r\n\r\n")

    def _send_pieces(self, pieces: list[bytes], reply: Reply, *, is_streamed: bool) -> bool:
        """Send *pieces*, holding where the reply says so; False if the server closed meanwhile."""
        for count, piece in enumerate(pieces, start=1):
            if is_streamed and count > 1 and not self.server.script.wait_as_scripted(None, reply.chunk_delay_s):
                return False
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_streamed else piece)
            if count == reply.hold_after_chunks and not self.server.script.wait_as_scripted(reply.hold):
                return False
        return True

    def _send_head(self, reply: Reply, headers: Mapping[str, str]) -> None:
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("x-request-id", f"req_{self._number:06d}")
        self.send_header("request-id", f"req_{self._number:06d}")  # Anthropic's name for it
        if reply.encoding:
            self.send_header("Content-Encoding", reply.encoding)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.retry_after_s is not None:
            self.send_header("Retry-After", f"{reply.retry_after_s:g}")
        self.end_headers()

    def _send_json(self, status: int, content: Mapping[str, Any]) -> None:
        body = to_json(content)
        self._send_head(Reply(status=status), {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        _drop(self.connection)


def _drop(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # ENOTCONN: the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)
