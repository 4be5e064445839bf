"""One run: what is still to be asked, by whom, and what is said of each cell."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..api import _handler_reached_from as handler_reached_from
from ..config import configure
from ..errors import ConfigError, LogReadError, MissingExtraError
from ..handler import AIResponseHandler
from ..reader import BadLine, read_log
from ..record import LOGGER_NAME, default_log_path
from .calls import CellDone, CellRunner
from .cells import CellIndex, Logged, cells_to_run, filled_grid, logged_cells
from .dealing import Hand, hands_of
from .grid import grid_of
from .interrupts import INTERRUPTED, StopLine
from .plan import Plan, check_keys
from .result import RunResult
from .schedule import Schedule
from .workers import LostWorker, Orders, run_workers

if sys.platform != "win32":
    import resource

_OTHER_FILES = 64  # that a process with calls in flight has open beside their connections


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `run_plan` was told beside the plan."""

    filename: str | os.PathLike[str] | None
    execution_id: str | None
    processes: int = 1
    resume: bool = False
    retry_failed: bool = False
    durability: str | None = None
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None
    handler_options: Mapping[str, Any] | None = None


def new_execution_id() -> str:
    """Return a new execution id, as in ``exec_20261123-190541-3fa9c1d2``: UTC and 32 random bits."""
    return f"exec_{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(4).hex()}"


def prepared(
    plan: Plan,
    options: RunOptions,
    *,
    logger: logging.Logger | str | None = None,
    on_cell: Callable[[CellDone], object] | None = None,
    may_block: bool,
) -> Run:
    """
    Check everything that can be checked before the first call, and find out what is to be asked.

    Raises:
        ConfigError: See `run_plan`.
        MissingExtraError: The SDK is not installed.
        LogReadError: The log cannot be read.
    """
    _check_options(options)
    if may_block and _is_in_event_loop():
        raise ConfigError("run_plan would block this event loop until all is done: await run_plan_async instead")
    if importlib.util.find_spec("openai") is None:  # found without importing it: the workers are to have it, not we
        raise MissingExtraError("openai", "openai")
    check_keys(plan, os.environ)
    path = _log_path(options.filename)
    logged = _read(path, plan, options.execution_id) if options.execution_id else {}
    execution_id = options.execution_id or new_execution_id()
    if logged and not options.resume:
        raise ConfigError(
            f"execution {execution_id} has {len(logged)} cells in {path} already; resume it, or name another"
        )
    if options.resume and not logged:
        raise ConfigError(
            f"there is no cell of execution {execution_id} in {path}; if it was stopped before the first one was "
            "written, start it as a new one with the same id"
        )
    run = Run(
        plan,
        options,
        execution_id=execution_id,
        filename=path,
        wanted=cells_to_run(plan, logged, retry_failed=options.retry_failed),
        logger=_line_logger(logger),
        on_cell=on_cell,
    )
    for hand in run.hands:
        _check_descriptors(hand)
    return run


class Run:
    """
    One run's settings, and the two ways to ask its cells.

    Attributes:
        execution_id: Its name in the log.
        filename: The log's absolute path.
        todo: The cells to ask.
        hands: The same, dealt to processes.
        is_interrupted: Whether somebody has asked for its end.
    """

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        *,
        execution_id: str,
        filename: str,
        wanted: Sequence[CellIndex],
        logger: logging.Logger | None,
        on_cell: Callable[[CellDone], object] | None,
    ) -> None:
        self.execution_id = execution_id
        self.filename = filename
        max_calls = plan.budget.max_calls if plan.budget else None
        self.todo = wanted[:max_calls]
        self.hands: Sequence[Hand] = hands_of(plan, self.todo, options.processes)
        self.is_interrupted = False
        self._plan = plan
        self._options = options
        self._logger = logger
        self._hear = on_cell
        self._schedule: Schedule | None = None
        self._handler: AIResponseHandler | None = None
        self._lost: Sequence[LostWorker] = ()
        self._stop_reason = "max_calls" if len(self.todo) < len(wanted) else None

    @property
    def is_spread(self) -> bool:
        """Whether its cells are asked by processes of their own."""
        return self._options.processes > 1 and bool(self.todo)

    def here(self) -> CellRunner:
        """Return what asks the cells in this process."""
        handler = _attached_handler()
        if handler is None or not _is_same_file(handler.filename, self.filename):
            handler = configure(**self._handler_options())
        self._handler = handler
        self._schedule = self.hands[0].schedule(self._plan)
        return CellRunner(self._plan, self._schedule, execution_id=self.execution_id, on_cell=self._on_cell)

    def drain(self, runner: CellRunner) -> None:
        """Start no more cells, since somebody asks for the end."""
        self.is_interrupted = True
        runner.drain(INTERRUPTED)

    def flush(self) -> None:
        """Bring what was asked in this process into the file."""
        if self._handler is not None:
            self._handler.flush()

    def spread(self, line: StopLine, on_drain: Callable[[], object]) -> None:
        """Ask the cells in new processes, until *line* says otherwise."""

        def drained() -> None:
            self.is_interrupted = True
            on_drain()

        handler_options = self._handler_options()
        orders = [Orders(self._plan, hand, self.execution_id, handler_options) for hand in self.hands]
        ended = run_workers(orders, self._on_cell, line=line, on_drain=drained)
        self._lost = tuple(ended.lost)
        self._stop_reason = ended.stop_reason or self._stop_reason

    def result(self) -> RunResult:
        """Return what the log says."""
        if self._schedule is not None:
            self._stop_reason = self._schedule.closed_by or self._stop_reason
        if self.is_interrupted:
            self._stop_reason = INTERRUPTED
        grid = filled_grid(grid_of(_records(self.filename), self.execution_id), self._plan)
        return RunResult(self.execution_id, self.filename, grid, self._lost, self._stop_reason)

    def _on_cell(self, cell: CellDone) -> None:
        if self._logger is not None:
            self._logger.log(
                logging.INFO if cell.is_kept else logging.WARNING,
                "question %d, %s %s: %s; record %s %s",
                cell.question_index,
                cell.platform,
                cell.model,
                "done" if cell.success else f"failed ({cell.error_type})",
                cell.record_id or "(none)",
                cell.status,
                extra={"execution_id": self.execution_id, "record_id": cell.record_id, "status": cell.status},
            )
        if self._hear is not None:
            self._hear(cell)

    def _handler_options(self) -> dict[str, Any]:
        options = {**(self._options.handler_options or {}), "source": self._options.config, "filename": self.filename}
        return options if self._options.durability is None else {**options, "durability": self._options.durability}


def _check_options(options: RunOptions) -> None:
    execution_id = options.execution_id
    if options.processes < 1:
        raise ConfigError(f"processes must be 1 or more, got {options.processes}")
    if execution_id is not None and not (execution_id.strip() and execution_id.isprintable()):
        raise ConfigError(f"execution_id must be printable text, got {execution_id!r}")
    if options.resume and execution_id is None:
        raise ConfigError("resume needs the execution_id of the run to go on with")
    if options.retry_failed and not options.resume:
        raise ConfigError("retry_failed goes with resume: a new run has no failed cells")


def _check_descriptors(hand: Hand) -> None:
    """Refuse more calls at once than the process may have connections: the others would only fail."""
    if sys.platform == "win32":
        return
    may, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = min(hand.concurrency, len(hand.cells)) + _OTHER_FILES
    if may != resource.RLIM_INFINITY and needed > may:
        raise ConfigError(
            f"{needed - _OTHER_FILES} calls at once in one process need about {needed} open files, and it may have "
            f"{may} (ulimit -n); raise that, use more processes, or lower concurrency",
            "concurrency",
        )


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _line_logger(logger: logging.Logger | str | None) -> logging.Logger | None:
    """Return who gets a line for each cell; nobody, if it would come into the log of answers as one more record."""
    if logger is None:
        own = logging.getLogger("ai_response_logging.matrix")
        return own if handler_reached_from(own) is None else None
    found = logging.getLogger(logger) if isinstance(logger, str) else logger
    if handler_reached_from(found) is not None:
        raise ConfigError(
            f"the logger {found.name} writes into a log of answers: its lines about them would be records, too",
            "logger",
        )
    return found


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
