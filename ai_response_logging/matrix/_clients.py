"""The SDK's clients: one for each endpoint and key, and what their attempts are counted by."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .plan import Plan, api_key_of

if TYPE_CHECKING:
    import openai

_current: contextvars.ContextVar[Attempts | None] = contextvars.ContextVar("attempts", default=None)


class Attempts:
    """
    The attempts of one call, retries of the SDK included, each of which waits for its turn.

    Args:
        retry: Counts one more attempt against the platform's limits; returns how long it must wait, in seconds.

    Attributes:
        deadline: Ends the call; pushed out by what its attempts waited.
    """

    def __init__(self, retry: Callable[[], float]) -> None:
        self._retry = retry
        self._count = 0
        self.deadline: asyncio.Timeout | None = None

    @property
    def retries(self) -> int | None:
        """How many attempts were made after the first; None if there was not even that one."""
        return self._count - 1 if self._count else None

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what the block sends."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    async def begin(self) -> None:
        """Count one more, which is about to be sent, when its turn has come."""
        self._count += 1
        if self._count == 1:  # the schedule has counted it, and let it wait, before the call began
            return
        wait_s = self._retry()
        if wait_s <= 0:
            return
        if self.deadline is not None and (when_s := self.deadline.when()) is not None:
            self.deadline.reschedule(when_s + wait_s)
        await asyncio.sleep(wait_s)


class Clients:
    """One SDK client for each endpoint and key: they hold the connections."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[tuple[str | None, str], openai.AsyncOpenAI] = {}
        self._askers: dict[int, Callable[..., Awaitable[Any]]] = {}

    def of(self, model_index: int) -> Callable[..., Awaitable[Any]]:
        """
        Return what asks the model with that number, from 1.

        Raises:
            ConfigError: There is no key for it.
            Exception: Whatever the SDK raises.
        """
        asker = self._askers.get(model_index)
        if asker is None:
            asker = self._askers[model_index] = self._asker_of(model_index)
        return asker

    def _asker_of(self, model_index: int) -> Callable[..., Awaitable[Any]]:
        import openai

        spec, limits = self._plan.models[model_index - 1], self._plan.limits(model_index)
        key = api_key_of(spec, os.environ, where=f"models[{model_index - 1}].api_key_env")
        client = self._made.get((spec.base_url, key))
        if client is None:
            # A proxy set for the world outside cannot reach this machine's loopback.
            http = _http_client(self._plan.concurrency, trust_env=not spec.is_local)
            client = openai.AsyncOpenAI(base_url=spec.base_url, api_key=key, http_client=http)
            self._made[spec.base_url, key] = client
        limited = client.with_options(timeout=limits.timeout_s, max_retries=limits.max_retries)
        return partial(limited.chat.completions.with_raw_response.create, model=spec.model)

    async def close(self) -> None:
        """Close every connection."""
        for client in self._made.values():
            with contextlib.suppress(Exception):  # the answers are logged; a connection that will not close is no loss
                await client.close()


def _http_client(concurrency: int, *, trust_env: bool) -> Any:
    """
    Make the SDK's own kind of HTTP client, with room for *concurrency* calls.

    The SDK stops at 1,000 connections, beyond which a call waits for one until it is a timeout, and keeps 100 of them
    open, beyond which each call shakes hands anew.
    """
    import openai

    # httpx or httpx2, whichever this SDK is built on.
    base = next(kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
    limits = importlib.import_module(base.__module__.partition(".")[0]).Limits(
        max_connections=None, max_keepalive_connections=concurrency
    )
    return openai.DefaultAsyncHttpxClient(limits=limits, trust_env=trust_env, event_hooks={"request": [_begin_attempt]})


async def _begin_attempt(_request: object) -> None:
    attempts = _current.get()
    if attempts is not None:
        await attempts.begin()
