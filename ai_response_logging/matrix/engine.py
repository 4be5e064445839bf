"""A whole run: what is still to be asked, by how many processes, and what the log says in the end."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import configure
from ..errors import ConfigError, LogReadError, MissingExtraError
from ..handler import AIResponseHandler
from ..reader import BadLine, read_log
from ..record import LOGGER_NAME, default_log_path
from .calls import CellDone, run_cells
from .cells import CellIndex, Logged, cells_to_run, deal, filled_grid, logged_cells
from .grid import Grid, grid_of
from .plan import Plan, check_keys
from .workers import LostWorker, Orders, run_workers


@dataclass(frozen=True, slots=True)
class RunResult:
    """
    What the log holds of a run when it has ended; read from the log, not from anybody's memory.

    Attributes:
        execution_id: Names the run in the log, and resumes it.
        filename: The log's absolute path.
        grid: Every cell of the plan with its status and the newest record that says so.
        lost_workers: Processes that ended before their cells did.

    .. versionadded:: 0.1.0
    """

    execution_id: str
    filename: str
    grid: Grid
    lost_workers: Sequence[LostWorker] = ()

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


def new_execution_id() -> str:
    """Return a new execution id, as in ``exec_20261123-190541-3fa9c1d2``: UTC and 32 random bits."""
    return f"exec_{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(4).hex()}"


def run_plan(
    plan: Plan,
    *,
    filename: str | os.PathLike[str] | None = None,
    execution_id: str | None = None,
    processes: int = 1,
    resume: bool = False,
    retry_failed: bool = False,
    durability: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    handler_options: Mapping[str, Any] | None = None,
    on_start: Callable[[str, int], object] | None = None,
    on_cell: Callable[[CellDone], object] | None = None,
) -> RunResult:
    """
    Ask every question of every model and log each answer, failed ones too.

    With one process the calls are made in this one, and logged to the handler of the logger ``ai_responses``; where
    there is none, or it writes to another file than *filename*, `configure` sets one up and it stays. With more, cells
    are dealt to new processes, each with a handler of its own on the same file; this process's logging is left alone.
    They are spawned, so a script needs its ``if __name__ == "__main__":``.

    Args:
        plan: What to ask of whom.
        filename: The log; None: the configured handler's, else as `configure` has it.
        execution_id: Names the run in the log; None: a new one.
        processes: How many, from 1.
        resume: Ask only the cells of *execution_id* that the log lacks, whatever became of the others.
        retry_failed: With *resume*, ask those again whose newest record is a failure.
        durability: As the handler's option; None: as configured.
        config: Preset, file or mapping for the handlers that are set up, as `configure` takes it.
        handler_options: Options that override those of *config*, as `configure` takes them.
        on_start: Called once, before the first call, with the execution_id and the number of cells to ask.
        on_cell: Called with each cell when it has been asked and logged, in this process.

    Returns:
        What the log says at the end. A failed call raises nothing: it is a cell with status ``failed``.

    Raises:
        ConfigError: The plan has no key for a model; *resume* finds no such run, or one of another plan; the
            *execution_id* of a new run is in the log already. Nothing has been asked then.
        MissingExtraError: The SDK is not installed.
        LogReadError: The log cannot be read.
        KeyboardInterrupt: Ctrl-C, or whatever *on_cell* raised: the cells in flight are logged as ``cancelled``.

    Threads: Any, but not inside a running event loop (use ``asyncio.to_thread``); one run at a time.

    .. versionadded:: 0.1.0
    """
    _check_arguments(execution_id, processes, resume=resume, retry_failed=retry_failed)
    check_keys(plan, os.environ)
    path = _log_path(filename)
    logged = _read(path, plan, execution_id) if execution_id else {}
    execution_id = execution_id or new_execution_id()
    if logged and not resume:
        raise ConfigError(
            f"execution {execution_id} has {len(logged)} cells in {path} already; resume it, or name another"
        )
    if resume and not logged:
        raise ConfigError(
            f"there is no cell of execution {execution_id} in {path}; if it was stopped before the first one was "
            "written, start it as a new one with the same id"
        )
    todo = cells_to_run(plan, logged, retry_failed=retry_failed)
    if on_start is not None:
        on_start(execution_id, len(todo))
    options = {**(handler_options or {}), "source": config, "filename": path}
    if durability is not None:
        options["durability"] = durability
    run = _Run(plan, execution_id, options, on_cell or _ignore)
    lost = run.spread(todo, processes) if processes > 1 else run.here(todo)
    return RunResult(execution_id, path, filled_grid(grid_of(_records(path), execution_id), plan), tuple(lost))


@dataclass(frozen=True, slots=True)
class _Run:
    """One run's settings, and the two ways to ask its cells."""

    plan: Plan
    execution_id: str
    options: Mapping[str, Any]
    on_cell: Callable[[CellDone], object]

    def here(self, todo: Sequence[CellIndex]) -> list[LostWorker]:
        """Ask *todo* in this process."""
        if not todo:
            return []
        handler = _attached_handler()
        if handler is None or not _is_same_file(handler.filename, self.options["filename"]):
            handler = configure(**self.options)
        try:
            asyncio.run(
                run_cells(
                    self.plan,
                    todo,
                    execution_id=self.execution_id,
                    concurrency=self.plan.concurrency,
                    on_cell=self.on_cell,
                )
            )
        finally:
            handler.flush()
        return []

    def spread(self, todo: Sequence[CellIndex], processes: int) -> list[LostWorker]:
        """Deal *todo* to new processes."""
        hands = deal(todo, processes)
        shares = [len(range(at, self.plan.concurrency, len(hands))) for at in range(len(hands))]
        orders = [
            Orders(self.plan, hand, self.execution_id, max(1, share), self.options)
            for hand, share in zip(hands, shares, strict=True)
        ]
        return run_workers(orders, self.on_cell)


def _check_arguments(execution_id: str | None, processes: int, *, resume: bool, retry_failed: bool) -> None:
    if processes < 1:
        raise ConfigError(f"processes must be 1 or more, got {processes}")
    if execution_id is not None and not (execution_id.strip() and execution_id.isprintable()):
        raise ConfigError(f"execution_id must be printable text, got {execution_id!r}")
    if resume and execution_id is None:
        raise ConfigError("resume needs the execution_id of the run to go on with")
    if retry_failed and not resume:
        raise ConfigError("retry_failed goes with resume: a new run has no failed cells")
    if _is_in_event_loop():
        raise ConfigError("run_plan would block this event loop until all is done: call it through asyncio.to_thread")
    if importlib.util.find_spec("openai") is None:  # found without importing it: the workers are to have it, not we
        raise MissingExtraError("openai", "openai")


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _attached_handler() -> AIResponseHandler | None:
    handlers = logging.getLogger(LOGGER_NAME).handlers
    return next((handler for handler in handlers if isinstance(handler, AIResponseHandler)), None)


def _log_path(filename: str | os.PathLike[str] | None) -> str:
    attached = _attached_handler()
    return attached.filename if filename is None and attached is not None else default_log_path(filename)


def _is_same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _read(path: str, plan: Plan, execution_id: str) -> dict[CellIndex, Logged]:
    return logged_cells(_records(path, on_bad=_must_be_read), plan, execution_id)


def _records(path: str, on_bad: Callable[[BadLine], object] | None = None) -> Iterable[dict[str, Any]]:
    """Return what is in the log and in journals; nothing while there is none."""
    return read_log(path, on_bad=on_bad, missing_ok=True)


def _must_be_read(bad: BadLine) -> None:
    """Refuse to go on beside a journal that may not be read: its cells would be asked, and paid for, again."""
    if not bad.line:
        raise LogReadError(bad.file, bad.reason)


def _ignore(_cell: CellDone) -> None:
    """Say nothing of a cell."""
