"""How a fault is told, and how often."""

from __future__ import annotations

import contextlib
import logging
import time

__all__ = ["FaultLog", "tell", "text_of"]

QUIET_S = 60.0


class FaultLog:
    """
    Remembers faults and says which of them are worth telling: each kind at most once a minute, with a count.

    Threads: any; a race between two threads can only tell a fault twice.
    """

    def __init__(self) -> None:
        self.last_error: str | None = None
        self.last_error_time: float | None = None
        self._told_at_s: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def remember(self, text: str) -> None:
        """Remember a fault that may still be put right, and tell nobody."""
        self.last_error, self.last_error_time = text, time.time()

    def has_recent(self) -> bool:
        """Say whether a fault came within the last minute."""
        return self.last_error_time is not None and time.time() - self.last_error_time < QUIET_S

    def note(self, kind: str, text: str) -> int:
        """Remember one fault; return how many of its *kind* to tell now, 0 for none."""
        self.remember(text)
        count = self._untold.get(kind, 0) + 1
        now_s = time.monotonic()
        if kind in self._told_at_s and now_s - self._told_at_s[kind] < QUIET_S:
            self._untold[kind] = count
            return 0
        self._told_at_s[kind] = now_s
        self._untold[kind] = 0
        return count


def text_of(error: BaseException) -> str:
    """Return *error* as text; a foreign class may raise when it is asked, and then its name must do."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  as said
        return f"<{type(error).__name__}>"


def tell(handler: logging.Handler, error: Exception) -> None:
    """Tell *error* the way `logging` tells a handler's errors: through ``handleError``, which users may override."""
    record = logging.makeLogRecord({"name": __package__, "levelname": "ERROR", "msg": text_of(error)})
    try:
        _raise(error)
    except Exception:  # noqa: BLE001  handleError reads the exception that is being handled
        # It may raise itself: a closed stderr, or a user's own that does. The records are safe; telling is not all.
        with contextlib.suppress(Exception):
            handler.handleError(record)


def _raise(error: Exception) -> None:
    raise error from None  # its text says what the kernel said; where in our code is of no use to the reader
