"""The Anthropic SDK's own way to see each try of a call: a middleware that records."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

from .._fast_json import dumps_plain
from ._calls import Ended
from ._recorder import Recorder, RequestView, quietly
from ._transport import stream_class_of
from ._watch import Watch

__all__ = ["middleware_for"]


def middleware_for(sdk: Any, http: Any, recorder: Recorder) -> Any:
    """Return a middleware for *sdk*, which builds on *http*; it must derive from the SDK's own class."""
    retried = (http.RequestError, ssl.SSLError)

    class RecordingMiddleware(sdk.Middleware):  # type: ignore[misc]  # the SDK is a parameter
        """Records every try of every call."""

        def handle(self, request: Any, call_next: Any) -> Any:
            """Pass *request* on, and keep what comes of it."""
            watch = _watch_of(recorder, request, retried)
            if watch is None:
                return call_next(request)
            try:
                watch.log_first()
                answer = call_next(request)
            except BaseException as error:
                watch.fail(error.__cause__ or error)
                raise
            if _answered(watch, answer.http_response):
                answer.http_response.stream = stream_class_of(http, is_async=False)(answer.http_response.stream, watch)
            else:
                watch.end(Ended.EXHAUSTED)
            return answer

        async def handle_async(self, request: Any, call_next: Any) -> Any:
            """Do the same for an async client."""
            watch = _watch_of(recorder, request, retried)
            if watch is None:
                return await call_next(request)
            try:
                await watch.alog_first()
                answer = await call_next(request)
            except BaseException as error:
                watch.fail(error.__cause__ or error)
                raise
            if _answered(watch, answer.http_response):
                answer.http_response.stream = stream_class_of(http, is_async=True)(answer.http_response.stream, watch)
            else:
                await watch.aend(Ended.EXHAUSTED)
            return answer

    return RecordingMiddleware()


@quietly
def _watch_of(recorder: Recorder, request: Any, retried: tuple[type[Exception], ...]) -> Watch | None:
    timeout_s = getattr(request.timeout, "read", request.timeout)
    most = request.max_retries
    view = RequestView(
        method=request.method.upper(),
        host="",
        path=request.url.partition("?")[0],
        query="",
        userinfo="",
        headers={"x-stainless-retry-count": str(request.retries_taken)},
        read_content=lambda: dumps_plain(request.json, default=str),
        timeout_s=timeout_s if isinstance(timeout_s, int | float) else None,
        max_retries=most if isinstance(most, int) else None,
    )
    attempt, first = recorder.begin(view)
    return None if attempt is None else Watch(recorder, attempt, first, retried)


@quietly
def _answered(watch: Watch, answer: Any) -> bool:
    """Note that *answer* has come; return whether its bytes have still to come."""
    if not answer.is_closed:
        watch.is_read_by_the_application()
        watch.answered(answer)
        return True
    # It has been read, and what it was compressed with is undone.
    headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
    watch.answered(SimpleNamespace(status_code=answer.status_code, headers=headers))
    watch.take(answer.content)
    return False
