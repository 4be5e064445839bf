"""A whole run: `run_plan`, its async form, and what it would take."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ._run import Run, RunOptions, prepared
from .calls import CellDone
from .estimate import Estimate, estimate_of
from .interrupts import StopLine, interrupts_handled, run_interruptibly
from .plan import Plan
from .result import RunInterrupted, RunResult


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
    logger: logging.Logger | str | None = None,
    on_start: Callable[[str, int], object] | None = None,
    on_cell: Callable[[CellDone], object] | None = None,
    on_drain: Callable[[], object] | None = None,
) -> RunResult:
    """
    Ask every question of every model and log each answer, failed ones too.

    With one process the calls are made in this one, and logged to the handler of the logger ``ai_responses``; where
    there is none, or it writes to another file than *filename*, `configure` sets one up and it stays. With more, cells
    are dealt to new processes, each with a handler of its own on the same file; this process's logging is left alone.
    They are spawned, so a script needs its ``if __name__ == "__main__":``.

    In the main thread, and where the application has no SIGINT handler of its own, the first Ctrl-C lets the calls in
    flight come to their end and the second stops them.

    Args:
        plan: What to ask of whom.
        filename: The log; None: the configured handler's, else as `configure` has it.
        execution_id: Names the run in the log; None: a new one.
        processes: How many, from 1; there are never more than calls at once.
        resume: Ask only the cells of *execution_id* that the log lacks, whatever became of the others.
        retry_failed: With *resume*, ask those again whose newest record is a failure.
        durability: As the handler's option; None: as configured.
        config: Preset, file or mapping for the handlers that are set up, as `configure` takes it.
        handler_options: Options that override those of *config*, as `configure` takes them.
        logger: Gets a line for each cell, in this process: INFO with the record's id and status, WARNING where the
            log refused it. None: ``ai_response_logging.matrix``.
        on_start: Called once, before the first call, with the execution_id and the number of cells to ask.
        on_cell: Called with each cell when it has been asked and logged, in this process.
        on_drain: Called after the first Ctrl-C, when no more cells are started and some are in flight.

    Returns:
        What the log says at the end. A failed call raises nothing: it is a cell with status ``failed``. Where the
        plan's budget or the log stopped the run, ``stop_reason`` says so.

    Raises:
        ConfigError: The plan has no key for a model; *resume* finds no such run, or one of another plan; the
            *execution_id* of a new run is in the log already. Nothing has been asked then.
        MissingExtraError: The SDK is not installed.
        LogReadError: The log cannot be read.
        RunInterrupted: One Ctrl-C; a KeyboardInterrupt that has the result.
        KeyboardInterrupt: Two, or whatever *on_cell* raised: the cells in flight are logged as ``cancelled``.

    Threads: Any, but not inside a running event loop (see `run_plan_async`); one run at a time.

    .. versionadded:: 0.1.0
    """
    options = RunOptions(filename, execution_id, processes, resume, retry_failed, durability, config, handler_options)
    run = prepared(plan, options, logger=logger, on_cell=on_cell, may_block=True)
    if on_start is not None:
        on_start(run.execution_id, len(run.todo))
    if run.is_spread:
        line = StopLine()
        try:
            with interrupts_handled(line.drain, _interrupt):
                run.spread(line, on_drain or _ignore)
        finally:
            line.close()
    elif run.todo:
        runner = run.here()

        def drain() -> None:
            run.drain(runner)
            (on_drain or _ignore)()

        try:
            run_interruptibly(runner.run(), drain)
        finally:
            run.flush()
    result = run.result()
    if run.is_interrupted:
        raise RunInterrupted(result)
    return result


async def run_plan_async(
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
    logger: logging.Logger | str | None = None,
    on_start: Callable[[str, int], object] | None = None,
    on_cell: Callable[[CellDone], object] | None = None,
) -> RunResult:
    """
    Do as `run_plan` does, inside a running event loop: with one process the calls are made in this loop.

    The arguments are those of `run_plan`. Reading the log, and waiting for other processes, is done in a thread;
    *on_cell* is called in the loop with one process, in that thread with more. Signals are left to the application.

    Raises:
        asyncio.CancelledError: The task was cancelled: the cells in flight are logged as ``cancelled``, the others
            not begun.

    Threads: The event loop's own; one run at a time.

    .. versionadded:: 0.1.0
    """
    options = RunOptions(filename, execution_id, processes, resume, retry_failed, durability, config, handler_options)
    run = await asyncio.to_thread(prepared, plan, options, logger=logger, on_cell=on_cell, may_block=False)
    if on_start is not None:
        on_start(run.execution_id, len(run.todo))
    if run.is_spread:
        await _spread_in_thread(run)
    elif run.todo:
        try:
            await run.here().run()
        finally:
            # A cancelled task may wait no more; at the end of the process, the handler does so itself.
            run.flush()
    return await asyncio.to_thread(run.result)


def estimate_plan(
    plan: Plan,
    *,
    filename: str | os.PathLike[str] | None = None,
    execution_id: str | None = None,
    resume: bool = False,
    retry_failed: bool = False,
) -> Estimate:
    """
    Say what `run_plan` with the same arguments would ask, and about how many tokens that takes.

    Everything is checked as before a run, keys included; nothing is asked, and nothing is written.

    Raises:
        ConfigError: As `run_plan`.
        MissingExtraError: The SDK is not installed.
        LogReadError: The log cannot be read.

    .. versionadded:: 0.1.0
    """
    run = prepared(plan, RunOptions(filename, execution_id, 1, resume, retry_failed), may_block=True)
    return estimate_of(plan, run.todo, execution_id=run.execution_id if execution_id else None, filename=run.filename)


async def _spread_in_thread(run: Run) -> None:
    """Wait for the workers in a thread; when cancelled, stop them and wait until they are gone."""
    line = StopLine()
    failure: list[BaseException] = []
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def spread() -> None:
        try:
            run.spread(line, _ignore)
        except BaseException as error:  # noqa: BLE001  # raised again in the loop
            failure.append(error)
        finally:
            loop.call_soon_threadsafe(ended.set)

    # A thread of its own: the loop's pool would keep a cancelled task from waiting for it.
    threading.Thread(target=spread, name="ai-responses-run").start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        line.stop()
        await ended.wait()
        raise
    finally:
        if ended.is_set():
            line.close()
    if failure:
        raise failure[0]


def _interrupt() -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """Say nothing."""
