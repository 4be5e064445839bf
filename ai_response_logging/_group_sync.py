"""
One sync for all that wait for one: group commit.

Whoever finds no sync under way leads: it waits a moment for those who took part in the last one, makes one sync, and
wakes all whose lines were stored before that one began. Nobody is ever told by a sync that began before his write.
"""

from __future__ import annotations

import _thread
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GroupSync"]

# Of the time that the last sync took: so long a leader waits for the others. Without it one thread syncs alone while
# seven store, then seven sync while one stores: four a sync instead of eight.
_GATHER: Final = 0.25
# An exception thrown into the one that was woken to lead must not leave the others asleep.
_LOOK_S: Final = 0.05


class GroupSync:
    """
    Lets any number of threads share syncs.

    Args:
        sync: Makes durable all that was stored before it was called, and returns the number below which all is. It
            may raise OSError, to whoever leads; the others then find that nothing is durable and lead in their turn.

    Threads: any. A signal handler that logs in the middle of a sync makes one of its own. After a fork the child makes
    a new object.
    """

    def __init__(self, sync: Callable[[], int]) -> None:
        self.durable_seq = 0
        """The number below which all is durable."""
        self._sync = sync
        self._turn = threading.RLock()  # reentrant: a signal handler may log in the middle of its own thread's sync
        self._leader = 0
        self._waiting: list[_thread.LockType] = []
        self._crowd, self._took_s = 1, 0.0
        self._is_full = _thread.allocate_lock()  # a flag: locked = not all are there
        self._is_full.acquire()

    def wait(self, seq: int) -> bool:
        """
        Wait for the sync that is under way, if there is one, and for the next, which makes line *seq* durable.

        Returns:
            Whether it is; False if nobody has stored it.

        Raises:
            OSError: It could not be synced.
        """
        mine: _thread.LockType | None = None
        while self.durable_seq <= seq:
            served: list[_thread.LockType] | None = None
            try:  # as with _lock.Turn: an exception thrown in falls before the turn is taken or is behind its return
                if self._turn.acquire(blocking=False):
                    served = self._lead(mine)
            finally:
                try:  # noqa: SIM105  a frame of Python before the call is where an exception could fall
                    self._turn.release()
                except RuntimeError:  # another thread has it
                    pass
            if served is not None:
                for one in [*served, *self._waiting[:1]]:  # the last of them leads next
                    _set(one)
                break
            if mine is None:
                # Then once more to the turn: its holder gives it up and then looks at the row, so one of us sees the
                # other.
                mine = self._stand_in_row()
            else:
                mine.acquire(timeout=_LOOK_S)
                mine = mine if mine in self._waiting else None
        return self.durable_seq > seq

    def _stand_in_row(self) -> _thread.LockType:
        mine = _thread.allocate_lock()
        mine.acquire()
        self._waiting.append(mine)
        if len(self._waiting) + 1 >= self._crowd:
            _set(self._is_full)
        return mine

    def _lead(self, mine: _thread.LockType | None) -> list[_thread.LockType]:
        """Make one sync and return those whom it serves; *mine* is our own place in the row."""
        me = threading.get_ident()
        before, self._leader = self._leader, me
        try:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if before != me:
                self._gather()
            served, self._waiting = self._waiting, []
            began_s = time.perf_counter()
            durable = self._sync()
            self.durable_seq = max(self.durable_seq, durable)  # read behind it: a signal handler may have got further
            self._took_s = time.perf_counter() - began_s
            self._crowd = 1 + len(served) + len(self._waiting)
            return served
        finally:
            self._leader = before

    def _gather(self) -> None:
        """Wait for those who took part in the last sync, for a part of the time that it took."""
        self._is_full.acquire(blocking=False)
        if len(self._waiting) + 1 < self._crowd:
            self._is_full.acquire(timeout=self._took_s * _GATHER)


def _set(flag: _thread.LockType) -> None:
    with suppress(RuntimeError):  # it is set already
        flag.release()
