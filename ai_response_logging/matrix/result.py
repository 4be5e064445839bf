"""How a run ended, as the log says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .grid import Grid
from .workers import LostWorker


@dataclass(frozen=True, slots=True)
class RunResult:
    """
    What the log holds of a run when it has ended; read from the log, not from anybody's memory.

    Attributes:
        execution_id: Names the run in the log, and resumes it.
        filename: The log's absolute path.
        grid: Every cell of the plan with its status and the newest record that says so.
        lost_workers: Processes that ended before their cells did.
        stop_reason: Why cells were left that nobody started: ``max_calls`` or ``max_tokens`` of the budget,
            ``refused`` (the log did not take a record), ``interrupted`` (Ctrl-C); None otherwise.

    .. versionadded:: 0.1.0
    """

    execution_id: str
    filename: str
    grid: Grid
    lost_workers: Sequence[LostWorker] = ()
    stop_reason: str | None = None

    @property
    def expected(self) -> int:
        """How many cells the plan has."""
        return self.grid.expected

    @property
    def done(self) -> int:
        """How many cells have an answer in the log."""
        return self.grid.done

    @property
    def failed(self) -> int:
        """How many cells have an error in the log."""
        return self.grid.failed

    @property
    def missing(self) -> int:
        """How many cells have no record in the log."""
        return self.grid.missing

    @property
    def is_complete(self) -> bool:
        """Whether every cell is in the log and succeeded."""
        return self.grid.is_complete


class RunInterrupted(KeyboardInterrupt):
    """
    A run that came to a good end after one Ctrl-C: what was in flight is answered and logged, the rest not begun.

    Attributes:
        result: What the log holds.

    .. versionadded:: 0.1.0
    """

    def __init__(self, result: RunResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return f"run {self.result.execution_id} was interrupted: {self.result.missing} cells were not begun"
