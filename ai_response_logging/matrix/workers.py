"""
Spreads cells over processes of our own, and notices whatever becomes of each.

A worker tells of every cell through a pipe that only it writes to, so its death ends the pipe, at whatever instruction
it was killed, and nobody waits for it. The other way there is a pipe for one word, why no more cells are to be started;
its end says "stop", and comes by itself when the parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final, NamedTuple

from ..config import configure
from ..errors import AIResponseLoggingError
from .calls import CellDone, CellRunner
from .dealing import Hand
from .interrupts import INTERRUPTED, StopLine
from .plan import Plan
from .schedule import Schedule

# A worker that was told to stop, or has said that it is through, gets this long before it is killed, in seconds:
# longer than a handler's close_timeout.
STOP_TIMEOUT_S: Final = 15.0
_LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What one worker is to do, pickled into it; it holds no key."""

    plan: Plan
    hand: Hand
    execution_id: str
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


class _Drained(NamedTuple):
    """A worker has been told to start no more cells, and will not."""


class _Through(NamedTuple):
    """A worker has come to its end: it has asked all its cells, or starts no more of them for this reason."""

    stop_reason: str | None


class WorkersEnded(NamedTuple):
    """What became of the workers: those that were lost, and why some cells were not started, if it was meant."""

    lost: list[LostWorker]
    stop_reason: str | None


def run_workers(
    orders: Sequence[Orders],
    on_cell: Callable[[CellDone], object],
    *,
    line: StopLine,
    on_drain: Callable[[], object],
) -> WorkersEnded:
    """
    Start a process for each of *orders*, and wait until all are through.

    Args:
        orders: What each is to do.
        on_cell: Called with each cell when it has been asked and logged.
        line: Where somebody may say that the workers are to start no more cells, or to stop.
        on_drain: Called when they have been told to start no more, and each that runs has said that it will not.

    Raises:
        AIResponseLoggingError: No worker could set its logging up, and nothing has been asked.
        asyncio.CancelledError: *line* said "stop".
        KeyboardInterrupt: And whatever else comes from outside or from *on_cell*: the workers stop first, their cells
            in flight logged as cancelled.

    Threads: Any; the processes are reaped on every path.
    """
    workers: list[_Worker] = []
    try:
        with _interrupts_held():
            workers.extend(_Worker(number, each) for number, each in enumerate(orders, start=1))
        _follow(workers, on_cell, line, on_drain)
    except BaseException:
        for worker in workers:
            worker.stop()
        _see_off(workers, time.monotonic() + STOP_TIMEOUT_S)
        raise
    finally:
        for worker in workers:
            worker.reap()
    refusals = [worker.refusal for worker in workers if worker.refusal is not None]
    if refusals and len(refusals) == len(workers):
        raise refusals[0]  # the same for all: nothing has been asked
    reasons = [worker.stop_reason for worker in workers if worker.stop_reason is not None]
    return WorkersEnded([lost for worker in workers if (lost := worker.lost())], min(reasons, default=None, key=_rank))


def _rank(stop_reason: str) -> int:
    """Order reasons: what a person has to know first."""
    return ("refused", INTERRUPTED).index(stop_reason) if stop_reason in {"refused", INTERRUPTED} else 2


def _follow(
    workers: Sequence[_Worker],
    on_cell: Callable[[CellDone], object],
    line: StopLine,
    on_drain: Callable[[], object],
) -> None:
    """Pass every cell on until each worker's pipe has ended."""

    def hear(cell: CellDone) -> None:
        if not cell.is_kept:  # nor will the others' records be
            for worker in workers:
                worker.drain("refused")
        on_cell(cell)

    is_told = False
    open_ones = {worker.progress: worker for worker in workers if not worker.is_over}
    while open_ones:
        for progress in multiprocessing.connection.wait([*open_ones, line.receiver], _LOOK_AGAIN_S):
            assert isinstance(progress, Connection)  # noqa: S101  # nothing else was waited for
            if progress is not line.receiver:
                open_ones[progress].receive(hear)
            elif line.receiver.recv_bytes() == b"stop":
                raise asyncio.CancelledError
            else:
                is_told = True
                for worker in workers:
                    worker.drain(INTERRUPTED)
        open_ones = {progress: worker for progress, worker in open_ones.items() if not worker.has_ended()}
        if is_told and all(worker.has_drained for worker in open_ones.values()):
            is_told = False
            on_drain()


def _see_off(workers: Sequence[_Worker], deadline_s: float) -> None:
    """Wait until each worker's pipe has ended, or the deadline is past."""
    open_ones = {worker.progress: worker for worker in workers if not worker.is_over}
    while open_ones and time.monotonic() < deadline_s:
        for progress in multiprocessing.connection.wait(list(open_ones), _LOOK_AGAIN_S):
            assert isinstance(progress, Connection)  # noqa: S101  # nothing else was waited for
            open_ones[progress].receive(_ignore)
        open_ones = {progress: worker for progress, worker in open_ones.items() if not worker.has_ended()}


class _Worker:
    """The parent's side of one worker."""

    def __init__(self, number: int, orders: Orders) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.is_over = False
        self.has_drained = False
        """Whether it has said that it starts no more cells."""
        self._is_through = False
        self.stop_reason: str | None = None
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
        elif isinstance(message, _Drained):
            self.has_drained = True
        elif isinstance(message, _Through):
            self._is_through, self.stop_reason = True, message.stop_reason

    def has_ended(self) -> bool:
        """Whether nothing more can come."""
        # Its death ends the pipe, unless a thread of the application forked while we held both ends: that child
        # keeps the pipe open, so ask for the process itself, too.
        if not self.is_over and self._process.exitcode is not None:
            self.is_over = not self.progress.poll()
        return self.is_over

    def drain(self, reason: str) -> None:
        """Tell the worker to start no more cells."""
        with contextlib.suppress(OSError):  # it has ended
            self._control.send_bytes(reason.encode())

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
    # multiprocessing starts this helper beside the first process of all, and unblocks the signal when it has: so it is
    # started before, or a Ctrl-C while the workers still import would end them with a traceback each.
    multiprocessing.resource_tracker.ensure_running()
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
        schedule = orders.hand.schedule(orders.plan)
        # Stopped, or nobody is left to tell: what was in flight is logged, and closing brings it home.
        with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):
            asyncio.run(_ask_until_stopped(orders, schedule, progress, control))
        if handler.flush():
            handler.close()
            _tell(progress, _Through(schedule.closed_by))
        else:
            _tell(progress, _Failed(f"not all of its records could be written to {handler.filename}"))
    except Exception as error:  # noqa: BLE001  # the parent says it in one line; nobody needs a traceback here
        _tell(progress, _Failed(f"{type(error).__qualname__}: {error}"))
        raise SystemExit(1) from None


async def _ask_until_stopped(orders: Orders, schedule: Schedule, progress: Connection, control: Connection) -> None:
    loop, this_task = asyncio.get_running_loop(), asyncio.current_task()
    assert this_task is not None  # noqa: S101  # asyncio.run made it
    runner = CellRunner(orders.plan, schedule, execution_id=orders.execution_id, on_cell=progress.send)

    def drain(reason: str) -> None:
        runner.drain(reason)
        _tell(progress, _Drained())  # in the loop's thread, as the cells are: nothing else writes into this pipe

    def watch() -> None:
        with contextlib.suppress(RuntimeError):  # all done meanwhile, the loop is closed
            with contextlib.suppress(EOFError, OSError):
                while True:
                    loop.call_soon_threadsafe(drain, control.recv_bytes().decode())
            loop.call_soon_threadsafe(this_task.cancel)

    threading.Thread(target=watch, name="ai-responses-control", daemon=True).start()
    await runner.run()


def _tell(progress: Connection, message: object) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        progress.send(message)


def _ignore(_cell: CellDone) -> None:
    """Say nothing of cells that end while the run is being stopped."""
