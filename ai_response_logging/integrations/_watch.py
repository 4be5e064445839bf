"""One request and its answer under watch: passes on to the recorder what happens, and writes what that makes of it."""

from __future__ import annotations

import asyncio
import ssl
from types import ModuleType
from typing import Any

from ..api import arecord_fields, record_fields, refuse
from ._body import Body
from ._calls import Ended, Record, Try
from ._recorder import Recorder, RequestView, quietly

__all__ = ["Watch", "watch_of"]


class Watch:
    """
    What a transport tells about one request; no method raises.

    Threads: One at a time; `abandoned` any, once nothing else will be called.
    """

    def __init__(
        self, recorder: Recorder, attempt: Try, first: list[Record], retried: tuple[type[Exception], ...]
    ) -> None:
        self._recorder, self._attempt, self._first, self._retried = recorder, attempt, first, retried
        self._body: Body | None = None

    def log_first(self) -> None:
        """Write what is to be written before the request is sent."""
        for record in self._first:
            record_fields(record)

    async def alog_first(self) -> None:
        """The same, in an event loop."""
        await _awrite(self._first)

    @quietly
    def answered(self, answer: Any) -> bool:
        """Note that an answer has begun; return whether its bytes are to pass by here."""
        self._body = self._recorder.answered(self._attempt, answer.status_code, answer.headers)
        return True

    def is_read_by_the_application(self) -> None:
        """Note that a body that breaks off from here on is not asked for again."""
        self._attempt.is_retriable_when_cut = False

    def take(self, piece: bytes) -> None:
        """Keep a piece of the answer."""
        try:
            if self._body is not None:
                self._body.take(piece)
        except Exception as error:  # noqa: BLE001  as in `quietly`, without a call more for each piece
            self._body = None
            refuse(error)

    @quietly
    def fail(self, error: BaseException) -> None:
        """Note that no answer came."""
        records = self._attempt.failed(error, is_retried=isinstance(error, self._retried))
        for record in self._noted(records):
            record_fields(record)

    @quietly
    def end(self, how: str, error: BaseException | None = None) -> None:
        """Note that the answer is over."""
        for record in self._noted(self._attempt.ended(how, error)):
            record_fields(record)

    async def aend(self, how: str) -> None:
        """The same, in an event loop, which goes on meanwhile."""
        await _awrite(quietly(self._attempt.ended)(how) or [], self._noted)

    def abandoned(self) -> None:
        """Note that nobody can read the answer any more."""
        self.end(Ended.ABANDONED)

    def _noted(self, records: list[Record]) -> list[Record]:
        if any(record["event"] == "attempt" for record in records):
            self._recorder.await_next(self._attempt)
        return records


@quietly
def watch_of(recorder: Recorder, request: Any, module: ModuleType) -> Watch | None:
    """Return the watch for *request*; None if it asks no model."""
    url = request.url
    view = RequestView(
        method=request.method,
        host=url.host,
        path=url.path,
        query=url.query.decode("ascii", "replace"),
        userinfo=url.userinfo.decode("ascii", "replace"),
        headers=request.headers,
        read_content=lambda: _content_of(request, module),
        timeout_s=(request.extensions.get("timeout") or {}).get("read"),
    )
    attempt, first = recorder.begin(view)
    if attempt is None:
        return None
    # What the SDKs try again (openai 3.57, _httpx2.py): anything that an HTTP library says, and TLS in trouble.
    return Watch(recorder, attempt, first, (module.RequestError, ssl.SSLError))


def _content_of(request: Any, module: ModuleType) -> bytes:
    try:
        return bytes(request.content)
    except module.RequestNotRead:  # it is sent while it is made; reading it would change what is sent
        return b""


async def _awrite(records: list[Record], note: Any = None) -> None:
    if note is not None:
        quietly(note)(records)
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # an event loop of another kind
        for record in records:
            record_fields(record)
        return
    for record in records:
        await arecord_fields(record)
