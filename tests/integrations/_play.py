"""Plays a situation through an SDK against the local server, and says what the application saw."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ai_response_logging.testing import LocalModelServer

from ._sdks import Sdk, steady
from ._situations import Gate, Situation

_BROKEN_OFF_AFTER = 5


@dataclass
class Seen:
    """What the application and the server saw."""

    answers: list[Any] = field(default_factory=list)
    error: tuple[str, str] | None = None
    requests: list[Any] = field(default_factory=list)


def play(sdk: Sdk, situation: Situation, *, is_async: bool, recorded: bool) -> Seen:
    """Play it; the client is closed at the end."""
    importlib.import_module(sdk.package)
    gc.freeze()  # collections below look at what this run makes, not at a whole SDK
    replies = situation.replies()
    gate = next((one.hold for one in replies if isinstance(one.hold, Gate)), None)
    seen = Seen()
    with LocalModelServer() as server, refused_address() as closed:
        server.reply_with(*replies)
        url = sdk.url_of(server)
        if situation.is_refused:
            url = url.replace(url.split("/")[2], closed)
        client = sdk.client(url, is_async=is_async, recorded=recorded, **situation.options)
        try:
            if is_async:
                asyncio.run(_play_async(sdk, client, situation, gate, seen))
            else:
                _play_sync(sdk, client, situation, gate, seen)
        finally:
            gc.collect()
        seen.requests = [(one.method, one.path, steady(one.headers), steady(one.body)) for one in server.requests]
    return seen


@contextlib.contextmanager
def refused_address() -> Iterator[str]:
    """Give an address where nobody listens: bound, so that nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def _play_sync(sdk: Sdk, client: Any, situation: Situation, gate: Gate | None, seen: Seen) -> None:
    try:
        with _interrupted_at(gate, situation, seen) if situation.how.startswith("cancel") else contextlib.nullcontext():
            answer = sdk.ask(client, stream=situation.is_stream)
            if situation.how in {"plain", "cancel_plain"}:
                seen.answers.append(sdk.seen(answer))
            elif situation.how != "never":
                for count, event in enumerate(answer, 1):
                    seen.answers.append(sdk.seen(event))
                    if situation.how == "break" and count == _BROKEN_OFF_AFTER:
                        break
                sdk.close(answer, is_async=False)
        answer = None
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # whatever comes is compared
        seen.error = (type(error).__qualname__, str(error))
    gc.collect()
    client.close()


async def _play_async(sdk: Sdk, client: Any, situation: Situation, gate: Gate | None, seen: Seen) -> None:
    async def asked() -> None:
        answer = await sdk.ask(client, stream=situation.is_stream)
        if situation.how in {"plain", "cancel_plain"}:
            seen.answers.append(sdk.seen(answer))
        elif situation.how != "never":
            count = 0
            async for event in answer:
                seen.answers.append(sdk.seen(event))
                count += 1
                if situation.how == "break" and count == _BROKEN_OFF_AFTER:
                    break
            await sdk.close(answer, is_async=True)

    task = asyncio.create_task(asked())
    if gate is not None and situation.how.startswith("cancel"):
        await asyncio.to_thread(gate.reached.wait, 10)
        while len(seen.answers) < situation.comes_before_gate:  # noqa: ASYNC110  # nothing else tells
            await asyncio.sleep(0)
        task.cancel()
    try:
        await task
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the same
        seen.error = (type(error).__qualname__, str(error))
    del task
    gc.collect()
    await client.close()


@contextlib.contextmanager
def _interrupted_at(gate: Gate | None, situation: Situation, seen: Seen) -> Iterator[None]:
    """
    Send this thread one Ctrl-C when the server holds and the client waits for it.

    What comes between the client's last look for signals and its call into the system does not wake it there: so it is
    sent until it is seen, and counts once.
    """
    assert gate is not None
    me, unseen = threading.get_ident(), [KeyboardInterrupt()]

    def interrupt() -> None:
        gate.reached.wait(10)
        while len(seen.answers) < situation.comes_before_gate:
            pass
        while sys._current_frames()[me].f_code.co_name not in {"read", "recv"}:  # the innermost: it waits for bytes
            pass
        while unseen:
            signal.pthread_kill(me, signal.SIGINT)
            time.sleep(0.01)

    def see(*_: object) -> None:
        with contextlib.suppress(IndexError):
            raise unseen.pop()

    before = signal.signal(signal.SIGINT, see)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
