"""Ctrl-C while a run goes on: once lets the calls in flight come to their end, twice stops them."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Final

INTERRUPTED: Final = "interrupted"
"""Why a run starts no more cells after a Ctrl-C."""


@contextlib.contextmanager
def interrupts_handled(drain: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    """
    Call *drain* at the first Ctrl-C within the block, *stop* at the second, and raise KeyboardInterrupt at any other.

    Both are called in the middle of whatever the main thread does, so they must do no more than say what is to be
    done. Outside the main thread, and where the application has a handler of its own, nothing is changed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    todo = iter((drain, stop))

    def handle(number: int, frame: FrameType | None) -> None:
        act = next(todo, None)
        if act is None:
            signal.default_int_handler(number, frame)
        else:
            act()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_interruptibly(main: Coroutine[Any, Any, None], drain: Callable[[], object]) -> None:
    """
    Run *main* in an event loop of its own; the first Ctrl-C calls *drain* in that loop, the second cancels *main*.

    Raises:
        KeyboardInterrupt: After the second.
    """
    started = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
    pressed = 0

    async def entered() -> None:
        """Say that a first Ctrl-C can be acted on from now on, and do the work."""
        loops.append((asyncio.get_running_loop(), asyncio.current_task()))
        started.set()
        act()  # on what was pressed before
        await main

    def act() -> None:
        if not started.is_set():
            return
        loop, task = loops[0]
        with contextlib.suppress(RuntimeError):  # all is done, the loop is closed
            if pressed:
                loop.call_soon_threadsafe(drain)
            if pressed > 1 and task is not None:
                loop.call_soon_threadsafe(task.cancel)

    def press() -> None:
        nonlocal pressed
        pressed += 1
        act()

    with interrupts_handled(press, press):
        try:
            asyncio.run(entered())
        except asyncio.CancelledError:
            if pressed > 1:
                raise KeyboardInterrupt from None
            raise


class StopLine:
    """
    Tells whoever waits for processes, from a signal handler or another thread, that they are to stop.

    ``receiver`` becomes ready when there is a word to be read.
    """

    def __init__(self) -> None:
        self.receiver: Connection
        self.receiver, self._sender = multiprocessing.Pipe(duplex=False)

    def drain(self) -> None:
        """Let the calls in flight come to their end."""
        self._sender.send_bytes(b"drain")

    def stop(self) -> None:
        """Stop them."""
        self._sender.send_bytes(b"stop")

    def close(self) -> None:
        """Close both ends."""
        self._sender.close()
        self.receiver.close()
