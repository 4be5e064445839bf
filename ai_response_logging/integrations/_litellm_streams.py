"""
How far LiteLLM's streams are read: seen at ``litellm.CustomStreamWrapper``, which every chat stream is.

LiteLLM has no public hook for it. ``log_stream_event`` runs in threads of its own and for synchronous calls alone,
``async_post_call_streaming_deployment_hook`` is called for the last piece alone, and ``litellm.client_session`` serves
the providers that LiteLLM asks through the OpenAI SDK alone and would take the place of the application's own client.
What a stream is to its reader - an iterator that can be closed - is the same for all providers and versions, so that
is what is observed: at the class, as an object of ours around it would not be what the application asks for by type.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from ._open_calls import OpenCalls
from ._recorder import quietly
from ._wire import text_of

__all__ = ["ReadStreams"]

_ENDS: Final = (StopIteration, StopAsyncIteration)


class ReadStreams:
    """
    The streams that are being read, and what has come of them.

    Args:
        calls: The calls they belong to; what a reader sees of a stream is what they are told.
        end: Called with the call's key and LiteLLM's own joined answer when a stream has been read to its end.
        fail: Called with the call's key and the error that the reader is about to see.

    Threads: Any.
    """

    def __init__(
        self,
        calls: OpenCalls,
        end: Callable[[object, Any], None],
        fail: Callable[[object, BaseException], None],
    ) -> None:
        self._calls, self._end, self._fail = calls, end, fail
        # LiteLLM puts streams around streams; the outermost of a call is the one that the application reads.
        self._read: weakref.WeakValueDictionary[object, Any] = weakref.WeakValueDictionary()
        self._busy: dict[int, object] = {}  # a stream's id, and who is reading it at this moment
        self._is_on = False

    def __contains__(self, key: object) -> bool:
        """Say whether the end of a call is seen here, whatever LiteLLM reports of it, and when."""
        return key in self._read

    def observe(self, kind: type) -> Callable[[], None]:
        """Observe every stream of *kind* from now on; return what undoes it."""
        makers = {"__next__": self._next, "__anext__": self._anext, "close": self._close, "aclose": self._aclose}
        before = {name: vars(kind)[name] for name in makers if name in vars(kind)}
        ours = {name: makers[name](method) for name, method in before.items()}
        for name, method in ours.items():
            setattr(kind, name, method)
        self._is_on = True

        def undo() -> None:
            self._is_on = False
            for name, method in ours.items():
                if vars(kind)[name] is method:  # else somebody else has put theirs around it, and ours only passes on
                    setattr(kind, name, before[name])

        return undo

    def _next(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(method)
        def read(stream: Any) -> Any:
            key = self._begin(stream)
            try:
                chunk = method(stream)
            except BaseException as error:
                self._over(key, stream, error)
                raise
            self._came(key, stream, chunk)
            return chunk

        return read

    def _anext(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(method)
        async def aread(stream: Any) -> Any:
            key = self._begin(stream)
            try:
                chunk = await method(stream)
            except BaseException as error:
                self._over(key, stream, error)
                raise
            self._came(key, stream, chunk)
            return chunk

        return aread

    def _close(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(method)
        def close(stream: Any) -> Any:
            self._closed(stream)
            return method(stream)

        return close

    def _aclose(self, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(method)
        async def aclose(stream: Any) -> Any:
            self._closed(stream)
            return await method(stream)

        return aclose

    @quietly
    def _begin(self, stream: Any) -> object:
        """Return the key of the call whose reader reads *stream*; None: it is not to be recorded."""
        key = self._claimed(stream)
        if key is not None:
            self._busy[id(stream)] = _who()
        return key

    @quietly
    def _came(self, key: object, stream: Any, chunk: Any) -> None:
        if key is None:
            return
        self._busy.pop(id(stream), None)
        choices = getattr(chunk, "choices", None) or []
        deltas = [choice.delta for choice in choices if choice.index == 0]
        self._calls.note_piece(key, "".join(text_of(getattr(delta, "content", None)) for delta in deltas))

    @quietly
    def _over(self, key: object, stream: Any, error: BaseException) -> None:
        if key is None:
            return
        self._busy.pop(id(stream), None)
        try:
            if not isinstance(error, _ENDS):
                self._fail(key, error)
            elif self._calls.is_open(key):
                self._end(key, _joined(stream))
        finally:
            self._read.pop(key, None)

    @quietly
    def _closed(self, stream: Any) -> None:
        if self._busy.get(id(stream)) == _who():
            return  # LiteLLM itself, which closes what is at its end; that end is about to be seen
        key = self._claimed(stream)
        if key is not None:
            self._calls.leave(key, how="closed")
            self._read.pop(key, None)

    def _claimed(self, stream: Any) -> object:
        if not self._is_on:
            return None
        key = stream.logging_obj.model_call_details["litellm_call_id"]
        is_its_reader = self._calls.is_open(key) and self._read.setdefault(key, stream) is stream
        return key if is_its_reader else None


def _who() -> object:
    """Return the task, or where there is none the thread, that runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        task = None
    return task or threading.get_ident()


def _joined(stream: Any) -> Any:
    """Return the whole answer as LiteLLM joins it for its own loggers; None: there was none."""
    import litellm

    messages = getattr(stream, "messages", None)  # where the provider does not say how many tokens they were
    return litellm.stream_chunk_builder(stream.chunks, messages=messages if isinstance(messages, list) else None)
