"""
What a child process must forget, and whether there may be children: the one place that knows about ``os.fork``.

A forked child has its parent's objects but only one thread. Locks that other threads held stay locked for
ever, descriptors share their file locks with the parent, and lines that wait belong to the parent. Whatever
owns such things registers here and gets a call in the child, before any code of the application runs there.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Protocol

__all__ = ["ForkAware", "forget_in_child", "has_forked", "may_have_threads", "notice_fork"]


class ForkAware(Protocol):
    """Something with state that a forked child must not share with its parent."""

    def after_fork_in_child(self) -> None:
        """Drop what is the parent's; take no lock, write nothing, never raise."""


_registered: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def forget_in_child(owner: ForkAware) -> None:
    """Call *owner*'s ``after_fork_in_child`` in every child forked from now on, for as long as it lives."""
    _registered.add(owner)


_pid = os.getpid()
_noticing = threading.Lock()  # held by nobody when a process forks: only a child that has not noticed takes it


def notice_fork(pid: object = None) -> None:
    """
    Forget what is the parent's, in a child that was forked without Python's hooks; call it before anything else.

    *pid* is this process's, if somebody has just asked the kernel: a LogRecord that was made here has it.

    uWSGI forks its workers in C and calls the hooks only when told to. Such a child would have its parent's writer id,
    numbers and journal, and each would store its lines over the others'.
    """
    if (type(pid) is int and pid == _pid) or os.getpid() == _pid:
        return
    with _noticing:
        if os.getpid() != _pid:
            _after_fork_in_child()


def may_have_threads() -> bool:
    """
    Say whether a thread of ours is safe here: not in uWSGI's master, which forks its workers in C.

    A thread that has the interpreter lock at that moment has it in the new worker, too, where that thread is not: the
    worker waits for ever. With its hooks for forks uWSGI waits for the lock first, but nothing says whether it calls
    them.
    """
    # The module is made by the server itself and can be imported nowhere else. Asked without its lock or its state.
    server = sys.modules.get("uwsgi")
    try:
        return server is None or server.masterpid() not in {0, os.getpid()} or server.worker_id() > 0
    except Exception:  # noqa: BLE001  another module of that name
        return True


_forked = [False]


def has_forked() -> bool:
    """Say whether this process has forked a child since the package was imported."""
    return _forked[0]


def _after_fork_in_parent() -> None:
    _forked[0] = True


def _after_fork_in_child() -> None:
    global _pid  # noqa: PLW0603  the one thing that a process knows of itself
    _forked[0] = False  # the children that the parent has are not ours
    # The set may have been in the middle of a change in another thread when the process forked: its internal
    # bookkeeping then holds removals back for ever, which list() does not mind.
    faults: list[Exception] = []
    for owner in list(_registered):
        try:
            owner.after_fork_in_child()
        except Exception as error:  # noqa: BLE001  the others must forget all the same
            faults.append(error)
    _pid = os.getpid()
    if faults:  # of ours, against the contract above: the interpreter prints it, and the child goes on
        raise faults[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
