"""
Spreads cells over processes of our own, and notices whatever becomes of each.

A worker tells of every cell through a pipe that only it writes to, so its death ends the pipe, at whatever instruction
it was killed, and nobody waits for it. The other way there is a pipe that nothing is ever sent through: its end says
"stop", and comes by itself when the parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import multiprocessing.connection
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from ..config import configure
from ..errors import AIResponseLoggingError
from .calls import CellDone, run_cells
from .cells import CellIndex
from .plan import Plan

# A worker that was told to stop, or has said that it is through, gets this long before it is killed, in seconds:
# longer than a handler's close_timeout.
STOP_TIMEOUT_S: Final = 15.0
_LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What one worker is to do, pickled into it; it holds no key."""

    plan: Plan
    cells: Sequence[CellIndex]
    execution_id: str
    concurrency: int
    handler_options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LostWorker:
    """
    A worker that ended before its cells did; those that are not in the log are missing.

    *number* counts from 1; *reason* is how it ended, as in "killed by SIGKILL".

    .. versionadded:: 0.1.0
    """

    number: int
    pid: int
    reason: str

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid}) ended early: {self.reason}"


class _Failed(str):
    """Why a worker gave up, sent through its pipe."""

    __slots__ = ()


def run_workers(orders: Sequence[Orders], on_cell: Callable[[CellDone], object]) -> list[LostWorker]:
    """
    Start a process for each of *orders*, wait until all are through, and return those that were lost on the way.

    Raises:
        AIResponseLoggingError: No worker could set its logging up, and nothing has been asked.
        KeyboardInterrupt: And whatever else comes from outside or from *on_cell*: the workers stop first, their cells
            in flight logged as cancelled.

    Threads: Any; the processes are reaped on every path.
    """
    workers: list[_Worker] = []
    try:
        with _interrupts_held():
            workers.extend(_Worker(number, each) for number, each in enumerate(orders, start=1))
        _follow(workers, on_cell)
    except BaseException:
        for worker in workers:
            worker.stop()
        _follow(workers, _ignore, deadline_s=time.monotonic() + STOP_TIMEOUT_S)
        raise
    finally:
        for worker in workers:
            worker.reap()
    refusals = [worker.refusal for worker in workers if worker.refusal is not None]
    if refusals and len(refusals) == len(workers):
        raise refusals[0]  # the same for all: nothing has been asked
    return [lost for worker in workers if (lost := worker.lost())]


def _follow(workers: Sequence[_Worker], on_cell: Callable[[CellDone], object], deadline_s: float = math.inf) -> None:
    """Pass every cell on until each worker's pipe has ended, or the deadline is past."""
    open_ones = {worker.progress: worker for worker in workers if not worker.is_over}
    while open_ones and time.monotonic() < deadline_s:
        for progress in multiprocessing.connection.wait(list(open_ones), _LOOK_AGAIN_S):
            assert isinstance(progress, Connection)  # noqa: S101  # nothing else was waited for
            open_ones[progress].receive(on_cell)
        open_ones = {progress: worker for progress, worker in open_ones.items() if not worker.has_ended()}


class _Worker:
    """The parent's side of one worker."""

    def __init__(self, number: int, orders: Orders) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.is_over = False
        self._is_through = False
        self.refusal: AIResponseLoggingError | None = None
        self._failure = ""
        self.progress, their_progress = context.Pipe(duplex=False)
        their_control, self._control = context.Pipe(duplex=False)
        self._process: SpawnProcess = context.Process(
            target=_work, args=(orders, their_progress, their_control), name=f"ai-responses-{number}", daemon=True
        )
        try:
            self._process.start()
        finally:
            # Our copies must go: the pipe ends only when nobody holds its writing end any more.
            their_progress.close()
            their_control.close()

    def receive(self, on_cell: Callable[[CellDone], object]) -> None:
        """Take one message, or the end of them all."""
        try:
            message = self.progress.recv()
        except (EOFError, OSError):  # it ended; ECONNRESET in the middle of a message
            self.is_over = True
            return
        if isinstance(message, CellDone):
            on_cell(message)
        elif isinstance(message, AIResponseLoggingError):
            self.refusal, self._failure = message, str(message)
        elif isinstance(message, _Failed):
            self._failure = str(message)
        else:
            self._is_through = True

    def has_ended(self) -> bool:
        """Whether nothing more can come."""
        # Its death ends the pipe, unless a thread of the application forked while we held both ends: that child
        # keeps the pipe open, so ask for the process itself, too.
        if not self.is_over and self._process.exitcode is not None:
            self.is_over = not self.progress.poll()
        return self.is_over

    def stop(self) -> None:
        """Tell the worker to log what is in flight and to end."""
        self._control.close()

    def reap(self) -> None:
        """See the process off, by force if it will not go."""
        self._process.join(STOP_TIMEOUT_S if self.is_over else 0)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self.progress.close()
        self._control.close()

    def lost(self) -> LostWorker | None:
        """Say how it was lost, once it is reaped; None if it got through."""
        if self._is_through:
            return None
        return LostWorker(self.number, self._process.pid or 0, self._failure or _how_it_ended(self._process.exitcode))


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """
    Let a Ctrl-C wait while processes are started, and let those never see one.

    The terminal sends it to them as well; but they are to stop when the parent says so, with their cells logged, and
    not with a traceback in the middle of an import. A blocked signal stays blocked in a child.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(orders: Orders, progress: Connection, control: Connection) -> None:
    """Run in the worker: log with a handler of its own, ask its cells, say that it is through."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        handler = configure(**orders.handler_options)
    except AIResponseLoggingError as error:
        _tell(progress, error)
        raise SystemExit(1) from None
    try:
        # Stopped, or nobody is left to tell: what was in flight is logged, and closing brings it home.
        with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):
            asyncio.run(_ask_until_stopped(orders, progress, control))
        if handler.flush():
            handler.close()
            _tell(progress, None)
        else:
            _tell(progress, _Failed(f"not all of its records could be written to {handler.filename}"))
    except Exception as error:  # noqa: BLE001  # the parent says it in one line; nobody needs a traceback here
        _tell(progress, _Failed(f"{type(error).__qualname__}: {error}"))
        raise SystemExit(1) from None


async def _ask_until_stopped(orders: Orders, progress: Connection, control: Connection) -> None:
    loop, this_task = asyncio.get_running_loop(), asyncio.current_task()
    assert this_task is not None  # noqa: S101  # asyncio.run made it

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            control.recv_bytes()
        with contextlib.suppress(RuntimeError):  # all done meanwhile, the loop is closed
            loop.call_soon_threadsafe(this_task.cancel)

    threading.Thread(target=watch, name="ai-responses-control", daemon=True).start()
    await run_cells(
        orders.plan,
        orders.cells,
        execution_id=orders.execution_id,
        concurrency=orders.concurrency,
        on_cell=progress.send,
    )


def _tell(progress: Connection, message: object) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        progress.send(message)


def _ignore(_cell: CellDone) -> None:
    """Say nothing of cells that end while the run is being stopped."""
