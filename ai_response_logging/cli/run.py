"""``ai-responses run``: ask N questions of M models, and keep every answer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from ..errors import ConfigError
from ._console import EXIT_NOT_WELL, JsonOption, console, plain, print_error, print_json
from .matrix import print_grid

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..matrix import CellDone, RunResult

__all__ = ["run"]

PlanFile = Annotated[
    Path,
    typer.Argument(metavar="PLAN.yaml", help="The questions, the models and where they answer.", show_default=False),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="LOG",
        help="Where every answer is kept. Default: AI_RESPONSES_FILE, else data/ai_responses/ai_responses.jsonl.",
        show_default=False,
    ),
]
Processes = Annotated[int, typer.Option("--processes", metavar="P", min=1, help="Processes to spread the calls over.")]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="EXECUTION_ID", help="Run only the cells that the log lacks.", show_default=False),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="With --resume: those that failed, too.")]
ExecutionId = Annotated[
    str | None,
    typer.Option(
        "--execution-id", metavar="ID", help="Name of a new run in the log; made up unless told.", show_default=False
    ),
]


def run(
    plan_file: PlanFile,
    *,
    file: LogFile = None,
    processes: Processes = 1,
    resume: Resume = None,
    retry_failed: RetryFailed = False,
    execution_id: ExecutionId = None,
    as_json: JsonOption = False,
) -> None:
    """
    Ask N questions of M models, and keep every answer, failed ones too.

    Works with any OpenAI-compatible endpoint; keys come from the environment variables that the plan names. A run
    that was stopped goes on with --resume. Exit code 0 when every cell is in the log and succeeded, 1 when some
    failed or are missing.

    Example: ai-responses run plan.yaml --processes 4
    """
    from ..matrix import load_plan, run_plan
    from ..record import default_log_path

    if resume is not None and execution_id is not None:
        raise ConfigError("--resume names the run already: leave --execution-id out")
    plan = load_plan(plan_file)
    path = default_log_path(file)
    again = f"ai-responses run {shlex.quote(str(plan_file))} --file {shlex.quote(path)} --resume"
    view = _View(again, to_stderr=as_json)
    try:
        with view:
            result = run_plan(
                plan,
                filename=path,
                execution_id=resume or execution_id,
                processes=processes,
                resume=resume is not None,
                retry_failed=retry_failed,
                on_start=view.on_start,
                on_cell=view.on_cell,
            )
    except KeyboardInterrupt:
        if view.execution_id:
            print_error(
                "stopped; the calls that were in flight are in the log as cancelled; "
                f"go on with: {again} {view.execution_id} --retry-failed"
            )
        raise
    _report(result, f"{again} {shlex.quote(result.execution_id)}", as_json=as_json)


def _report(result: RunResult, command: str, *, as_json: bool) -> None:
    if as_json:
        print_json(summary_of(result))
    else:
        print_grid(result.grid)
    for lost in result.lost_workers:
        print_error(f"{lost}; its cells that are not in the log are missing")
    if result.missing:
        print_error(f"missing cells: {result.missing:,}; get them with: {command}")
    if result.failed:
        print_error(f"failed cells: {result.failed:,}; ask them again with: {command} --retry-failed")
    if not result.is_complete:
        raise typer.Exit(EXIT_NOT_WELL)


def summary_of(result: RunResult) -> dict[str, Any]:
    """Return what ``--json`` prints: the matrix's figures, the log, and the workers that were lost."""
    lost = [{"number": lost.number, "pid": lost.pid, "reason": lost.reason} for lost in result.lost_workers]
    return {**result.grid.to_dict(), "file": result.filename, "lost_workers": lost}


class _View:
    """What a person sees while the run goes on: its name, how to resume it, and on a terminal a bar."""

    def __init__(self, again: str, *, to_stderr: bool) -> None:
        self.execution_id = ""
        self._again = again
        self._to_stderr = to_stderr
        self._failed = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_start(self, execution_id: str, todo: int) -> None:
        """Name the run before its first call."""
        self.execution_id = execution_id
        self._say(f"run {execution_id}: {todo:,} cells to ask")
        self._say(f"should it be stopped, this goes on: {self._again} {shlex.quote(execution_id)}")
        if sys.stderr.isatty() and todo:
            self._bar = _new_bar()
            self._bar.add_task("", total=todo, failed=0, rate="-")
            self._bar.start()

    def on_cell(self, cell: CellDone) -> None:
        """Move the bar."""
        self._failed += not cell.success
        if self._bar is not None:
            task = self._bar.tasks[0]
            rate = f"{task.speed:.1f}" if task.speed else "-"
            self._bar.update(task.id, advance=1, failed=self._failed, rate=rate)

    def _say(self, text: str) -> None:
        stream = sys.stderr if self._to_stderr else sys.stdout
        stream.write(f"{plain(text)}\n")
        stream.flush()


def _new_bar() -> Progress:
    from rich import progress

    return progress.Progress(
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("done, {task.fields[failed]} failed, {task.fields[rate]}/s, left"),
        progress.TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )
