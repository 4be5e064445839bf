"""
Transports for httpx and httpx2, sync and async, that record what passes through them.

They wrap the transports that a client has, so that proxies, certificates and pools stay as they are. The application
gets the same requests, answers and exceptions as without: bytes are kept on their way, and read when they are over.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

from ..errors import AIResponseLoggingError
from ._calls import Ended
from ._recorder import Recorder, quietly
from ._watch import Watch, watch_of

__all__ = ["decoder_of", "record_async_client", "record_client", "stream_class_of"]


def record_client(client: Any, module: ModuleType, recorder: Recorder) -> None:
    """
    Have every transport of *client* record.

    Raises:
        AIResponseLoggingError: This release of *module* keeps its transports elsewhere.
    """
    _wrap_transports(client, _derived(_Transport, module, "BaseTransport"), recorder, module)


def record_async_client(client: Any, module: ModuleType, recorder: Recorder) -> None:
    """As `record_client`, for an async client."""
    _wrap_transports(client, _derived(_AsyncTransport, module, "AsyncBaseTransport"), recorder, module)


def decoder_of(module: ModuleType) -> Callable[[bytes, str], bytes]:
    """Return what undoes a content encoding by *module*'s own means, of a text that is cut as far as it goes."""
    pieces = _derived(_Pieces, module, "SyncByteStream")

    def decode(raw: bytes, encoding: str) -> bytes:
        whole: list[bytes] = []
        try:
            answer = module.Response(200, headers={"content-encoding": encoding}, stream=pieces(raw))
            for piece in answer.iter_bytes():
                whole.append(piece)  # noqa: PERF402  # what has come before an error counts
        except module.DecodingError:
            pass
        return b"".join(whole)

    return decode


def stream_class_of(module: ModuleType, *, is_async: bool) -> Any:
    """Return the class that an answer's bytes pass through, for *module*."""
    return (
        _derived(_AsyncStream, module, "AsyncByteStream") if is_async else _derived(_Stream, module, "SyncByteStream")
    )


def _wrap_transports(client: Any, wrapper: Any, recorder: Recorder, module: ModuleType) -> None:
    # Private names, since a public `transport=` argument would turn the proxies of the environment off; a contract
    # test holds them.
    # ruff: noqa: SLF001
    try:
        client._transport = wrapper(client._transport, recorder, module)
        client._mounts = {key: one and wrapper(one, recorder, module) for key, one in client._mounts.items()}
    except AttributeError as error:
        raise AIResponseLoggingError(
            f"{module.__name__} {getattr(module, '__version__', '')} has no transports where they were until now "
            f"({error}); please report it, and use an older release until then"
        ) from error


@functools.cache
def _derived(mixin: type, module: ModuleType, base: str) -> Any:
    """Return *mixin* as a class of *module*'s own kind, which that module insists on."""
    return type(mixin.__name__.strip("_"), (mixin, getattr(module, base)), {})


class _Pieces:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __iter__(self) -> Iterator[bytes]:
        # In small pieces: what a decoder has given out before it meets the cut is kept.
        yield from (self._raw[at : at + 512] for at in range(0, len(self._raw), 512))


class _Stream:
    """An answer's bytes as they pass by; the finalizer sees the end of one that nobody reads."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner, self._watch = inner, watch
        weakref.finalize(self, watch.abandoned)

    def __iter__(self) -> Iterator[bytes]:
        watch = self._watch
        try:
            for piece in self._inner:
                watch.take(piece)
                yield piece
        except BaseException as error:
            watch.end(Ended.BROKEN, error)
            raise
        watch.end(Ended.EXHAUSTED)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._watch.end(Ended.CLOSED)


class _AsyncStream:
    """The same for an async client."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner, self._watch = inner, watch
        weakref.finalize(self, watch.abandoned)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch = self._watch
        try:
            async for piece in self._inner:
                watch.take(piece)
                yield piece
        except BaseException as error:
            watch.end(Ended.BROKEN, error)
            raise
        await watch.aend(Ended.EXHAUSTED)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        except BaseException:
            self._watch.end(Ended.CLOSED)
            raise
        await self._watch.aend(Ended.CLOSED)


class _Transport:
    """Records what the transport within sends and gets."""

    def __init__(self, inner: Any, recorder: Recorder, module: ModuleType) -> None:
        self._inner, self._recorder, self._module = inner, recorder, module

    def handle_request(self, request: Any) -> Any:
        watch = watch_of(self._recorder, request, self._module)
        if watch is None:
            return self._inner.handle_request(request)
        try:
            watch.log_first()
            answer = self._inner.handle_request(request)
        except BaseException as error:
            watch.fail(error)
            raise
        if watch.answered(answer):
            answer.stream = stream_class_of(self._module, is_async=False)(answer.stream, watch)
        return answer

    def __enter__(self) -> Any:
        self._inner.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._inner.__exit__(*raised)
        finally:
            quietly(self._recorder.close)()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            quietly(self._recorder.close)()


class _AsyncTransport:
    """The same for an async client."""

    def __init__(self, inner: Any, recorder: Recorder, module: ModuleType) -> None:
        self._inner, self._recorder, self._module = inner, recorder, module

    async def handle_async_request(self, request: Any) -> Any:
        watch = watch_of(self._recorder, request, self._module)
        if watch is None:
            return await self._inner.handle_async_request(request)
        try:
            await watch.alog_first()
            answer = await self._inner.handle_async_request(request)
        except BaseException as error:
            watch.fail(error)
            raise
        if watch.answered(answer):
            answer.stream = stream_class_of(self._module, is_async=True)(answer.stream, watch)
        return answer

    async def __aenter__(self) -> Any:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        try:
            await self._inner.__aexit__(*raised)
        finally:
            quietly(self._recorder.close)()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            quietly(self._recorder.close)()
