"""
The one thread of each process that brings records to the file.

It sleeps until a batch waits or the interval is over, then hands over all that wait. A greedy listener would take
the interpreter lock from the application once for each record.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue as queues
import threading
import time
from typing import TYPE_CHECKING, Any

from ._fork import forget_in_child
from ._queue import LineQueue
from .stats import tell
from .writer import BatchFileHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BatchQueueListener"]

_IDLE_S = 5.0  # between two looks when no interval is set: what a full disk refused is tried again


class BatchQueueListener(logging.handlers.QueueListener):
    """
    A :class:`logging.handlers.QueueListener` that hands records over in batches.

    It works on any queue that the stock listener takes (``queue.Queue``, ``queue.SimpleQueue``,
    ``multiprocessing.Queue``); records for a :class:`BatchFileHandler` then go out under one lock a batch.

    Args:
        queue: Where the records come from.
        handlers: Where they go.
        respect_handler_level: Hand a record only to handlers whose level it reaches.
        batch_size: Records; so many that wait are handed over at once.
        flush_interval: Seconds after which those that wait go out all the same.

    Threads: ``start`` and ``stop`` from any, as often as wanted; one thread serves. A forked child has none until
    ``start`` is called there.
    """

    _thread: threading.Thread | None
    _sentinel: None
    queue: Any

    def __init__(
        self,
        queue: Any,
        *handlers: logging.Handler,
        respect_handler_level: bool = False,
        batch_size: int = 10,
        flush_interval: float = 5.0,
    ) -> None:
        super().__init__(queue, *handlers, respect_handler_level=respect_handler_level)
        self.batch_size = batch_size
        self.flush_interval = flush_interval
        self._begin()
        forget_in_child(self)

    def _begin(self) -> None:
        self._thread = None
        self._stopping = threading.Event()
        self._owes_sentinel = self._is_announced = False
        # Reentrant: a signal handler may log, and so start the listener, in the middle of a start.
        self._starting = threading.RLock()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """
        Start the thread, if it does not run.

        Raises:
            RuntimeError: The system gives no thread, or the interpreter is ending.
        """
        with self._starting:
            if self._is_serving():
                return
            self._stopping.clear()
            self._is_announced = False
            # A daemon: the interpreter must be able to end while the disk stands still. Its end is seen to by
            # the exit hook of whoever started it, not by the interpreter's join.
            thread = threading.Thread(target=self._monitor, name="ai-response-listener", daemon=True)
            self._thread = thread
            self._set_listening(listening=True)
            if isinstance(self.queue, LineQueue) and not self.flush_interval:  # each record is a batch of its own
                self.queue.batch_size = 1
            try:
                thread.start()
            except BaseException:
                self._thread = None
                self._set_listening(listening=False)
                raise

    def _is_serving(self) -> bool:
        """Say whether the thread runs and will go on to; one that was about to end is told to stay."""
        if not self.is_alive:
            return False
        if not isinstance(self.queue, LineQueue):
            return not self._stopping.is_set()
        with self.queue.lock:
            self._stopping.clear()
            return self.queue.listening

    def _set_listening(self, *, listening: bool) -> None:
        if isinstance(self.queue, LineQueue):
            self.queue.listening = listening

    def stop(self, timeout: float | None = None) -> None:
        """
        Hand over what waits and end the thread; wait at most *timeout* seconds for it, None for no limit.

        Called again, or from the thread itself, it does no harm.
        """
        with self._starting:
            thread = self._thread
            if thread is None:
                return
            self._stopping.set()
            if isinstance(self.queue, LineQueue):
                self.queue.wake()
            else:
                self._announce_end()
        if thread is threading.current_thread() or thread.ident is None:  # or a signal handler stops what just starts
            return
        thread.join(timeout)
        with self._starting:
            if self._thread is thread and not thread.is_alive():
                self._thread = None

    def after_fork_in_child(self) -> None:
        """Forget the thread: it stayed in the parent."""
        self._begin()

    def _monitor(self) -> None:
        try:
            if isinstance(self.queue, LineQueue):
                self._serve_lines(self.queue)
            else:
                self._serve_records()
        except BaseException:  # foreign code ends the thread (sys.exit in a handler): the next record starts another
            self._set_listening(listening=False)
            raise

    # -- our own queue: it only counts and wakes, the writer takes the lines from it

    def _serve_lines(self, queue: LineQueue) -> None:
        refused = False
        while True:
            # A batch that came together while the last one was written has woken nobody: do not sleep on it.
            if refused or queue.qsize() < queue.batch_size:
                queue.wait(self.flush_interval or _IDLE_S)
            stopping, refused = self._stopping.is_set(), True  # also if a handler raises: then, too, wait a while
            with self._faults_reported():
                refused = not self._hand_over_lines(queue)
            if stopping and self._retire(queue, refused=refused):
                return

    def _hand_over_lines(self, queue: LineQueue) -> bool:
        """Hand over all that waits; False if the file refuses it."""
        for handler in self.handlers:
            if isinstance(handler, BatchFileHandler) and handler.queue is queue:
                return queue.empty() or handler.drain(pause=self._pause)
        for _ in range(queue.qsize()):
            with contextlib.suppress(queues.Empty):
                self.handle(queue.get_nowait())
        return True

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _retire(self, queue: LineQueue, *, refused: bool) -> bool:
        # Decided under the queue's lock: a record is either seen by this thread, or finds that nobody listens and
        # starts another.
        with queue.lock:
            if not self._stopping.is_set():
                return False
            if not refused and not queue.empty():
                queue.wake()
                return False
            queue.listening = False
            return True

    # -- any other queue

    def _serve_records(self) -> None:
        serving = True
        while serving:
            batch, serving = self._collect()
            if self._owes_sentinel:  # there was no room for it, and now there is
                self._announce_end()
            with contextlib.ExitStack() as together, self._faults_reported():
                for handler in self.handlers:
                    if isinstance(handler, BatchFileHandler):
                        together.enter_context(handler.batch())
                for record in batch:
                    with self._faults_reported():
                        self.handle(record)
            if hasattr(self.queue, "task_done"):
                for _ in range(len(batch) + (not serving)):
                    self.queue.task_done()

    def _announce_end(self) -> None:
        """Put the sentinel behind all that waits, once; on a full queue the thread does it when it has made room."""
        if self._is_announced:
            return
        try:
            self.enqueue_sentinel()
            self._is_announced, self._owes_sentinel = True, False
        except queues.Full:
            self._owes_sentinel = True

    def _collect(self) -> tuple[list[Any], bool]:
        """Return the next batch, and whether more may follow."""
        batch: list[Any] = []
        due_s = 0.0
        while len(batch) < self.batch_size:
            try:
                # In a batch that has begun, each wait is what is left of the interval.
                wait_s = max(0.0, due_s - time.monotonic())
                record = self.queue.get(timeout=wait_s) if batch else self.dequeue(block=True)
            except queues.Empty:
                return batch, True
            except (EOFError, OSError, ValueError):  # the queue is closed: nothing more comes
                return batch, False
            except Exception as error:  # noqa: BLE001  one record that cannot be unpickled must not cost the others
                tell(self.handlers[0], error)
                continue
            if record is self._sentinel:
                return batch, False
            if not batch:
                due_s = time.monotonic() + self.flush_interval
            batch.append(record)
        return batch, True

    @contextlib.contextmanager
    def _faults_reported(self) -> Iterator[None]:
        """Let no fault of a handler end the thread: nobody would bring the next record."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  foreign handlers raise anything
            for handler in self.handlers[:1]:
                tell(handler, error)
