"""
The one thread of each process that brings records to the file.

It sleeps until a batch waits or the interval is over, then hands over all that wait. A greedy listener would take
the interpreter lock from the application once for each record.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import logging.handlers
import queue as queues
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ._fork import forget_in_child
from ._queue import LineQueue
from .stats import tell
from .writer import BatchFileHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["BatchQueueListener", "call_in_time"]

R = TypeVar("R")

_ANSWER_S = 0.05  # beyond a request's deadline, for its answer
_GATHER_S = 0.005
_GATHER_LONG_S = 0.025  # under a load that never ends
_IDLE_S = 5.0  # between two looks when no interval is set: what a full disk refused is tried again


class _Request:
    """Somebody who waits until what is queued has arrived."""

    def __init__(self, budget_s: float) -> None:
        self.deadline_s = time.monotonic() + budget_s
        self.done: bool | None = False
        self._is_answered = _thread.allocate_lock()  # a flag, as in _Server: locked = not yet
        self._is_answered.acquire()

    def answer(self, *, done: bool | None) -> None:
        """Say whether all has arrived; None if nobody will see to it."""
        self.done = done
        self._is_answered.release()

    def wait(self) -> bool | None:
        """Return the answer; False if none comes in time."""
        left_s = max(0.0, self.deadline_s - time.monotonic())
        self._is_answered.acquire(timeout=min(left_s + _ANSWER_S, threading.TIMEOUT_MAX))
        return self.done


class _Server(threading.Thread):
    """
    The thread, and what it was told.

    A daemon: the interpreter must be able to end while the disk stands still. Its end is seen to by the exit hook of
    whoever started it, not by the interpreter's join.
    """

    def __init__(self, serve: Callable[[], None], before: _Server | None = None) -> None:
        super().__init__(target=serve, name="ai-response-listener", daemon=True)
        self.is_stopping = self.is_announced = self.owes_sentinel = self.is_over = False
        self.before = before if before is not None and not before.is_over else None
        self.requests: list[_Request] = []
        # Not an Event: an exception thrown into its set() leaves its lock held, a signal handler in there waits for
        # itself. A bare lock used as a flag: locked = sleep on.
        self._halt = _thread.allocate_lock()
        self._halt.acquire()
        self._over = _thread.allocate_lock()  # the same: locked = at work
        self._over.acquire()

    def is_serving(self) -> bool:
        """Say whether it runs, or is about to, and will go on to."""
        return not self.is_stopping and (self.ident is None or self.is_alive())

    def halt(self) -> None:
        """Tell it to end, when it has handed over what waits."""
        self.is_stopping = True
        self.cut_pause()

    def cut_pause(self) -> None:
        """Let the pause that it makes, or makes next, be over."""
        with contextlib.suppress(RuntimeError):  # it has been told already
            self._halt.release()

    def end(self) -> None:
        """Say that it has done its last. Called by the thread itself."""
        self.is_over, self.before = True, None
        while self.requests:
            self.requests.pop().answer(done=None)
        self._over.release()

    def await_end(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for its end."""
        # Not join() alone: gevent, patching after our import, gives us a thread whose join sees no end.
        if self._over.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            self._over.release()
            self.join(_ANSWER_S)

    def pause(self, timeout: float) -> None:
        """Sleep *timeout* seconds, or until it is to end or to hurry. Called by the thread itself."""
        if not self.is_stopping:
            self._halt.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


def call_in_time(function: Callable[[], R], timeout: float) -> R | None:
    """
    Return what *function* returns, called on a thread of its own; None if it has not come back in *timeout* seconds.

    Raises:
        RuntimeError: The system gives no thread, or the interpreter is ending.
    """
    results: list[R] = []
    thread = threading.Thread(target=lambda: results.append(function()), name="ai-response-stash", daemon=True)
    thread.start()
    thread.join(timeout)
    return results[0] if results else None


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

    _thread: _Server | None
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
        self.is_wanted: Callable[[], bool] = lambda: True
        """Whether anybody may still log; once it says no, the thread writes what waits and ends."""
        self.after_end: Callable[[], object] = lambda: None
        """Called in the thread when it has ended because nobody wanted it any more."""
        self._begin()
        forget_in_child(self)

    def _begin(self) -> None:
        self._thread = None
        self._stale_sentinels = 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and not thread.is_over and thread.is_alive()

    def start(self) -> None:
        """
        Start the thread, if it does not run.

        Raises:
            RuntimeError: The system gives no thread, or the interpreter is ending.
        """
        # No lock: a signal handler may log, and so start the listener, in the middle of a start, and an exception
        # thrown in must not leave one behind. Of two threads that meet here, the one in self._thread serves and the
        # other goes home; for a moment both may write, in turn.
        before = self._thread
        if before is not None and before.is_serving():
            return
        thread = _Server(self._monitor, before)
        if before is not None and before.is_announced and before.is_alive():
            self._stale_sentinels += 1
        if isinstance(self.queue, LineQueue) and not self.flush_interval:  # each record is a batch of its own
            self.queue.batch_size = 1
        if isinstance(self.queue, LineQueue):
            self.queue.adapt_wake()
        try:
            self._thread = thread
            thread.start()
        except BaseException:
            if self._thread is thread and thread.ident is None:
                self._thread = None
            raise

    def stop(self, timeout: float | None = None) -> None:
        """
        Hand over what waits and end the thread; wait at most *timeout* seconds for it, None for no limit.

        Called again, or from the thread itself, it does no harm.
        """
        thread = self._thread
        if thread is None:
            return
        thread.halt()
        if isinstance(self.queue, LineQueue):
            self.queue.wake()
        else:
            self._announce_end(thread)
        if thread is threading.current_thread() or thread.ident is None:  # or a signal handler stops what just starts
            return
        thread.await_end(threading.TIMEOUT_MAX if timeout is None else timeout)
        if self._thread is thread and thread.is_over:
            self._thread = None

    def drain(self, budget_s: float) -> bool | None:
        """
        Have the thread bring home what waits, and say whether it has within *budget_s* seconds; None without a thread.

        A write to a disk that stands still does not return, and no thread of the application's may be in it.
        """
        me = self._thread
        if me is None or me is threading.current_thread():
            return None
        request = _Request(budget_s)
        me.requests.append(request)
        # It looks for requests behind its end, and we at its end behind the request: one of us sees the other.
        if me.is_over or not me.is_alive():
            return None
        me.cut_pause()
        self.queue.wake()
        return request.wait()

    def after_fork_in_child(self) -> None:
        """Forget the thread: it stayed in the parent."""
        self._begin()

    def _monitor(self) -> None:
        me = threading.current_thread()
        if not isinstance(me, _Server):
            return
        try:
            if self._thread is not me:  # another thread was quicker to start one
                return
            if isinstance(self.queue, LineQueue):
                self._serve_lines(self.queue, me)
            else:
                self._serve_records(me)
        finally:  # also when foreign code ends the thread (sys.exit in a handler): the next record starts another
            me.halt()
            self._end_listening(me)
            me.end()

    def _end_listening(self, me: _Server) -> None:
        if isinstance(self.queue, LineQueue) and self._thread is me:
            self.queue.listening = False
            if me.before is not None and not me.before.is_over:
                self.queue.wake()  # we may have taken the one that was to end it

    # -- our own queue: it only counts and wakes, the writer takes the lines from it

    def _serve_lines(self, queue: LineQueue, me: _Server) -> None:
        with queue.lock:
            queue.listening = self._thread is me
        refused = False
        while True:
            due_s = time.monotonic() + (self.flush_interval or _IDLE_S)
            # A batch that came together while the last one was written has woken nobody: do not sleep on it.
            is_pressed = not refused and queue.qsize() >= queue.batch_size
            if not me.requests and not is_pressed:
                if not refused:
                    self._tidy_up(queue, me, due_s)
                queue.wait(max(0.0, due_s - time.monotonic()))
            if not self.is_wanted():
                me.halt()
            stopping, refused = me.is_stopping, True  # also if a handler raises: then, too, wait a while
            with self._faults_reported():
                refused = not (self._answer(me) if me.requests else self._hand_over_lines(queue, me))
            if self._thread is not me:
                queue.wake()  # the wake that it took may have been for the one that serves now
                return
            if stopping and self._retire(queue, me, refused=refused):
                break
            if not refused:
                self._gather(queue, me, _GATHER_LONG_S if is_pressed else _GATHER_S)
        if not self.is_wanted():
            self.after_end()

    def _gather(self, queue: LineQueue, me: _Server, most_s: float) -> None:
        """
        Behind a write, let lines come together for a moment of *most_s* seconds, or until a quarter of a queue waits.

        The rest of the queue is for what the application logs before this thread gets to write.

        Under a load that never ends a thread that writes each batch at once takes the interpreter lock from the
        application a dozen times a batch; so it does for a block of some hundred kB. That there is such a load is told
        by a batch that was there before anybody waited for it.
        """
        if queue.batch_size == 1:
            return
        queue.is_gathering = True
        queue.wait(0.0)  # a batch that came together meanwhile is no reason now
        is_needed = me.requests or me.is_stopping or not self.is_wanted() or queue.qsize() >= queue.max_size >> 2
        if is_needed or queue.wait(most_s):
            queue.wake()  # we have taken it, and it was not for this
        queue.is_gathering = False

    def _tidy_up(self, queue: LineQueue, me: _Server, due_s: float) -> None:
        """See to old files while no record needs the thread."""

        def is_needed() -> bool:
            return bool(me.requests or me.is_stopping or queue.qsize() >= queue.batch_size or time.monotonic() >= due_s)

        for handler in self.handlers:
            if isinstance(handler, BatchFileHandler) and handler.queue is queue:
                with self._faults_reported():
                    handler.tidy_up(is_needed)

    def _answer(self, me: _Server) -> bool:
        """Bring home what waits within the time of whoever waits for it; False if the file refuses it."""
        request = me.requests.pop(0)
        done = False
        try:
            left_s = max(0.0, request.deadline_s - time.monotonic())
            done = all(one.drain(budget_s=left_s) for one in self.handlers if isinstance(one, BatchFileHandler))
        finally:
            request.answer(done=done)
        return done

    def _hand_over_lines(self, queue: LineQueue, me: _Server) -> bool:
        """Hand over all that waits; False if the file refuses it."""
        for handler in self.handlers:
            if isinstance(handler, BatchFileHandler) and handler.queue is queue:
                return queue.empty() or handler.drain(pause=me.pause)
        for _ in range(queue.qsize()):
            with contextlib.suppress(queues.Empty):
                if (record := queue.get_nowait()) is not None:
                    self.handle(record)
        return True

    def _retire(self, queue: LineQueue, me: _Server, *, refused: bool) -> bool:
        # Decided under the queue's lock: a record is either seen by this thread, or finds that nobody listens and
        # starts another. That is said before the last look: a thread that logs without a pause would else be waited
        # for until the time is over.
        with queue.lock:
            if not refused and queue.listening and not queue.empty():
                queue.listening = False
                queue.wake()
                return False
            self._end_listening(me)
            return True

    # -- any other queue

    def _serve_records(self, me: _Server) -> None:
        serving = True
        while serving and self._thread is me:
            batch, serving = self._collect(me)
            if me.owes_sentinel:  # there was no room for it, and now there is
                self._announce_end(me)
            with contextlib.ExitStack() as together, self._faults_reported():
                for handler in self.handlers:
                    if isinstance(handler, BatchFileHandler):
                        together.enter_context(handler.batch())
                for record in batch:
                    with self._faults_reported():
                        self.handle(record)
            self._mark_done(len(batch) + (not serving))

    def _mark_done(self, count: int) -> None:
        if hasattr(self.queue, "task_done"):
            for _ in range(count):
                self.queue.task_done()

    def _announce_end(self, thread: _Server) -> None:
        """Put the sentinel behind all that waits, once; on a full queue the thread does it when it has made room."""
        if thread.is_announced:
            return
        try:
            self.enqueue_sentinel()
            thread.is_announced, thread.owes_sentinel = True, False
        except queues.Full:
            thread.owes_sentinel = True

    def _collect(self, me: _Server) -> tuple[list[Any], bool]:
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
                if self._stale_sentinels and not me.is_stopping:  # it was for a thread that did not end in time
                    self._stale_sentinels -= 1
                    self._mark_done(1)
                    continue
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
