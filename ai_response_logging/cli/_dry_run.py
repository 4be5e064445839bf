"""What ``ai-responses run --dry-run`` says: cells and tokens, before anything is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._console import console, plain, print_json, print_line, print_wrapped

if TYPE_CHECKING:
    from ..matrix import Estimate, Plan

__all__ = ["print_estimate"]

_MINUTE_S = 60
_HOUR_MINUTES = 60


def print_estimate(estimate: Estimate, plan: Plan, *, as_json: bool) -> None:
    """Print *estimate* to standard output, as a table or as one JSON document."""
    if as_json:
        print_json(estimate.to_dict())
        return
    run = f"run {plain(estimate.execution_id)}" if estimate.execution_id else "a new run"
    print_wrapped(
        f"dry run, nothing is asked or written: {run} would ask {estimate.calls:,} of {estimate.expected:,} cells"
    )
    _print_platforms(estimate)
    if estimate.max_answer_tokens is None and estimate.calls:
        print_wrapped("answer tokens have no bound where a model of the plan has no max_tokens")
    if estimate.repeated_questions:
        print_wrapped(f"questions that stand in the plan already, and are asked again: {estimate.repeated_questions:,}")
    budget = plan.budget
    if budget is not None and budget.max_calls is not None:
        print_wrapped(f"the budget allows {budget.max_calls:,} calls")
    if budget is not None and budget.max_tokens is not None:
        print_wrapped(f"the budget allows {budget.max_tokens:,} tokens; no cell is begun beyond that")
    print_line(f"log: {estimate.filename}")


def _print_platforms(estimate: Estimate) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("platform", overflow="fold")
    for heading in ("cells", "prompt tokens", "answer tokens", "lasts"):
        table.add_column(heading, justify="right", overflow="fold")
    for each in estimate.platforms:
        least = _at_least(each.least_minutes)
        table.add_row(plain(each.platform), *_figures(each.calls, each.prompt_tokens, each.max_answer_tokens), least)
    if len(estimate.platforms) > 1:
        table.add_row("all", *_figures(estimate.calls, estimate.prompt_tokens, estimate.max_answer_tokens), "")
    console().print(table)


def _figures(calls: int, prompt_tokens: int, max_answer_tokens: int | None) -> tuple[str, str, str]:
    most = "?" if max_answer_tokens is None else f"<= {max_answer_tokens:,}"
    return f"{calls:,}", f"~{prompt_tokens:,}", most


def _at_least(minutes: float) -> str:
    """Return how long the limits per minute make it last."""
    if not minutes:
        return ""
    if minutes < 1:
        return f">= {minutes * _MINUTE_S:.0f} s"
    if minutes < _HOUR_MINUTES:
        return f">= {minutes:.0f} min"
    return f">= {minutes / _HOUR_MINUTES:.1f} h"
