"""The end of the process: the pipelines that run then bring home what waits, all together in bounded time."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from ._fork import notice_fork
from ._lock import outlived

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._pipeline import Pipeline

__all__ = ["AtExit"]

_FIRST_LOOK_S = 0.25


class AtExit:
    """
    Ends the pipelines that run when the process ends normally.

    After that, records are written by whoever logs them: no thread can be started any more, and a daemon thread
    may be stopped in the middle of a write.

    Args:
        look_around: Called when the end begins.
    """

    def __init__(self, look_around: Callable[[], object]) -> None:
        self._look_around = look_around
        self.lock = threading.RLock()
        self.process_id = os.urandom(8).hex()
        """Of this process alone; a pid comes again, and in containers all are 1."""
        self.begun = False
        self.deadline_s: float | None = None
        self.has_warned = False
        self._running: set[Pipeline] = set()
        self._is_watching = False

    def watch(self, pipeline: Pipeline) -> None:
        """See to *pipeline* at the end."""
        with self.lock:
            self._running.add(pipeline)
            self.register()

    def register(self) -> None:
        """Have :meth:`end` called when the process ends."""
        with self.lock:
            if self._is_watching:
                return
            atexit.register(self.end)  # a second time does no harm, if an exception falls before we have noted it
            # Children of multiprocessing leave through os._exit, before 3.13 without atexit; they run finalizers.
            process = sys.modules.get("multiprocessing.process")
            if process is not None and process.parent_process() is not None:
                from multiprocessing.util import Finalize

                Finalize(None, self.end, exitpriority=-100)
            self._is_watching = True

    def forget(self, pipeline: Pipeline) -> None:
        """No longer see to *pipeline*, unless another thread has begun to use it again."""
        with self.lock:
            if not pipeline.queue.listening and not pipeline.writer.has_waiting():
                self._running.discard(pipeline)

    def end(self) -> None:
        """Close all that run, all together within the longest of their close timeouts."""
        notice_fork()
        self.begun = True
        self._look_around()
        running = list(self._running)
        deadline_s = time.monotonic() + max((one.options.close_timeout for one in running), default=0.0)
        self.deadline_s = deadline_s
        thrown: BaseException | None = None
        # Round by round: one log that stands still must not cost the others their turn. And whoever is in a hurry
        # (a second Ctrl-C, a manager that repeats its SIGTERM) cuts the time short, not the records.
        waiting = running
        while waiting:
            behind = []
            for pipeline in waiting:
                try:
                    left_s = max(0.0, deadline_s - time.monotonic())
                    budget_s = min(_FIRST_LOOK_S, left_s / len(waiting), pipeline.options.close_timeout)
                    if not pipeline.flush(budget_s):
                        behind.append(pipeline)
                except BaseException as error:  # noqa: BLE001  it is raised again below
                    thrown, deadline_s = error, min(deadline_s, time.monotonic() + _FIRST_LOOK_S)
                    behind.append(pipeline)
            # Not those in which something waits again: a daemon thread that logs without a pause would never let us go.
            waiting = behind if time.monotonic() < deadline_s else []
        for pipeline in running:
            try:
                pipeline.end(deadline_s)
            except BaseException as error:  # noqa: BLE001  the same
                thrown, deadline_s = error, time.monotonic()
        if thrown is not None:
            raise thrown

    def outlive_threads(self) -> None:
        """While the interpreter ends: free what a thread held that it has stopped."""
        if sys.is_finalizing():
            self.lock = outlived(self.lock)

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent's threads are not here, and its hooks may not run here."""
        self.lock = threading.RLock()
        self.process_id = os.urandom(8).hex()
        self._running = set()
        self._is_watching = False
