"""``ai-responses run``: ask N questions of M models, and keep every answer."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import ConfigError
from ._console import EXIT_NOT_WELL, JsonOption, print_error, print_json
from ._dry_run import print_estimate
from ._run_view import RunView
from .matrix import print_grid

if TYPE_CHECKING:
    from ..matrix import Plan, RunResult

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
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all, and say what would be asked and about how many tokens; ask nothing."),
]
MaxCalls = Annotated[
    int | None,
    typer.Option(
        "--max-calls",
        metavar="N",
        min=1,
        help="Begin no more cells than this; instead of the plan's.",
        show_default=False,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", metavar="N", min=1, help="Begin no cell beyond so many tokens; instead of the plan's.",
        show_default=False,
    ),
]  # fmt: skip

_EXIT_INTERRUPTED: Final = 130
_STOPPED: Final = {
    "max_calls": "the budget of calls (max_calls) is used up",
    "max_tokens": "the budget of tokens (max_tokens) has no room for another cell",
    "refused": "the log did not take a record, so no more cells were begun: what cannot be kept is not to be paid for",
    "interrupted": "stopped by Ctrl-C; the calls that were in flight have come to their end",
}


def run(
    plan_file: PlanFile,
    *,
    file: LogFile = None,
    processes: Processes = 1,
    resume: Resume = None,
    retry_failed: RetryFailed = False,
    execution_id: ExecutionId = None,
    dry_run: DryRun = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    as_json: JsonOption = False,
) -> None:
    """
    Ask N questions of M models, and keep every answer, failed ones too.

    Works with any OpenAI-compatible endpoint; keys come from the environment variables that the plan names. Ctrl-C
    lets the calls in flight come to their end, twice stops them; a run that was stopped goes on with --resume.
    Exit code 0 when every cell is in the log and succeeded, 1 when some failed or are missing.

    Example: ai-responses run plan.yaml --processes 4
    """
    from ..matrix import estimate_plan, load_plan
    from ..record import default_log_path

    if resume is not None and execution_id is not None:
        raise ConfigError("--resume names the run already: leave --execution-id out")
    plan = _with_budget(load_plan(plan_file), max_calls, max_tokens)
    path = default_log_path(file)
    which: dict[str, Any] = {
        "filename": path,
        "execution_id": resume or execution_id,
        "resume": resume is not None,
        "retry_failed": retry_failed,
    }
    if dry_run:
        print_estimate(estimate_plan(plan, **which), plan, as_json=as_json)
        return
    again = f"ai-responses run {shlex.quote(str(plan_file))} --file {shlex.quote(path)} --resume"
    _ask(plan, again, as_json=as_json, processes=processes, **which)


def _ask(plan: Plan, again: str, *, as_json: bool, **options: Any) -> None:
    """Run *plan*, show it, and say what became of it; *again* is the command that goes on with a run of that name."""
    from ..matrix import RunInterrupted, run_plan

    view = RunView(again, to_stderr=as_json)
    try:
        with view:
            result = run_plan(plan, **options, on_start=view.on_start, on_cell=view.on_cell, on_drain=view.on_drain)
    except RunInterrupted as ended:
        _report(ended.result, again, as_json=as_json)
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    except KeyboardInterrupt:
        if view.execution_id:
            print_error(
                "stopped; the calls that were in flight are in the log as cancelled; "
                f"go on with: {again} {shlex.quote(view.execution_id)} --retry-failed"
            )
        raise
    _report(result, again, as_json=as_json)
    if not result.is_complete:
        raise typer.Exit(EXIT_NOT_WELL)


def _with_budget(plan: Plan, max_calls: int | None, max_tokens: int | None) -> Plan:
    from ..matrix import Budget

    budget = plan.budget or Budget()
    changes = {"max_calls": max_calls, "max_tokens": max_tokens}
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(plan, budget=dataclasses.replace(budget, **given)) if given else plan


def _report(result: RunResult, again: str, *, as_json: bool) -> None:
    if as_json:
        print_json(summary_of(result))
    else:
        print_grid(result.grid)
    command = f"{again} {shlex.quote(result.execution_id)}"
    for lost in result.lost_workers:
        print_error(f"{lost}; its cells that are not in the log are missing")
    if result.stop_reason is not None:
        print_error(_STOPPED[result.stop_reason])
    if result.missing:
        print_error(f"missing cells: {result.missing:,}; get them with: {command}")
    if result.failed:
        print_error(f"failed cells: {result.failed:,}; ask them again with: {command} --retry-failed")


def summary_of(result: RunResult) -> dict[str, Any]:
    """Return what ``--json`` prints: the matrix's figures, the log, the workers that were lost, and why it stopped."""
    lost = [{"number": lost.number, "pid": lost.pid, "reason": lost.reason} for lost in result.lost_workers]
    return {
        **result.grid.to_dict(),
        "file": result.filename,
        "lost_workers": lost,
        "stop_reason": result.stop_reason,
    }
