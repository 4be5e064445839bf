"""
Three ways to interrupt a call of ours, wherever that can happen; for _interrupted.py.

CPython looks for signals where a function begins and where a C call is over.  A profile function is called exactly
there, in the thread that set it; what it raises goes where a signal handler's exception would go, and what it calls
runs as a signal's handler would.  A trace function is called before every line of ours.  And a recursion leaves a call
so many frames, until there are enough of them.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ai_response_logging

DEEPEST = 100  # frames; no call of ours needs so many
NEVER = 1 << 30

_PACKAGE = str(Path(ai_response_logging.__file__ or "").parent)


class Interrupter:
    """Does *act* at the *point*-th place where it may, and says where that was; counts the places there are."""

    def __init__(self, point: int, act: Callable[[], object]) -> None:
        self.point, self.act, self.seen, self.where = point, act, 0, ""

    def run(self, way: str, call: Callable[[], object]) -> None:
        """Make *call* and interrupt it; *way* is ``signal``, ``line`` or ``stack``."""
        profile, trace = self._between_calls, self._between_lines  # held: 3.11 does not, while it calls one
        try:
            if way == "stack":
                self.where = f"with {self.point} frames left"
                leave_frames(self.point, call)
            elif way == "signal":
                sys.setprofile(profile)
                call()
            else:
                sys.settrace(trace)
                call()
        finally:
            sys.setprofile(None)
            sys.settrace(None)

    def _between_calls(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in {"call", "c_return"} and not _is_not_ours_to_interrupt(frame):
            self._count(frame, getattr(arg, "__name__", ""))

    def _between_lines(self, frame: FrameType, *_: object) -> Any:
        file, before = frame.f_code.co_filename, 0
        if not file.startswith(_PACKAGE):
            return None

        def each(frame: FrameType, event: str, _: object) -> Any:
            nonlocal before
            if event == "line":
                if not _is_leaving(file, before, frame.f_lineno):
                    self._count(frame, "line")
                before = frame.f_lineno
            return each

        return each

    def _count(self, frame: FrameType, what: str) -> None:
        self.seen += 1
        if self.seen == self.point:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name} {what}"
            sys.setprofile(None)
            sys.settrace(None)
            self.act()


def leave_frames(count: int, call: Callable[[], object]) -> None:
    """Make *call* with *count* frames left on the stack."""
    limit, used, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1

    def go_down(frames: int) -> None:
        if frames:
            go_down(frames - 1)
        else:
            call()

    # The limit is for all threads; the others begin at the bottom, and have enough.
    sys.setrecursionlimit(used + DEEPEST + 3)
    try:
        with contextlib.suppress(RecursionError):
            go_down(DEEPEST - count)
    finally:
        sys.setrecursionlimit(limit)


def _is_not_ours_to_interrupt(frame: FrameType) -> bool:
    """
    Say whether the test itself runs in *frame*, or `logging` where it takes or gives back its own lock.

    Until 3.12 that is done by two functions, and what is thrown into those leaves it locked, whoever calls them; we do
    when a handler is made or closed.
    """
    file, name = frame.f_code.co_filename, frame.f_code.co_name
    return Path(file).parent == Path(__file__).parent or (
        file == logging.__file__ and name in {"_acquireLock", "_releaseLock"}
    )


def _is_leaving(file: str, before: int, line: int) -> bool:
    """
    Say whether *line* is a bare ``try``, one of a ``finally``, or of a ``with`` for a second time, its block left.

    A trace function sees a line there, but nothing can arrive: a ``try`` is no instruction, and the interpreter has
    looked for signals after the last call of the block, and looks again after the call that unlocks. The other way,
    between calls, tries all of that.
    """
    withs, others = _exits(file)
    is_left = any(header <= line < body <= before <= end for header, body, end in withs)
    return is_left or any(begin <= line <= end for begin, end in others)


@functools.cache
def _exits(file: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Return where each ``with`` of *file* begins, where its block does and ends; and each ``try`` and ``finally``."""
    nodes = list(ast.walk(ast.parse(Path(file).read_text("utf-8"))))
    withs = [(one.lineno, one.body[0].lineno, one.end_lineno or 0) for one in nodes if isinstance(one, ast.With)]
    tries = [one for one in nodes if isinstance(one, ast.Try)]
    finals = [one.finalbody for one in tries if one.finalbody]
    lines = [(body[0].lineno, body[-1].end_lineno or 0) for body in finals]
    return withs, lines + [(one.lineno, one.lineno) for one in tries]
