"""The N x M engine: asks N questions of M models at once and keeps every answer in the log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._run import new_execution_id
    from .calls import CellDone
    from .engine import estimate_plan, run_plan, run_plan_async
    from .estimate import Estimate, PlatformEstimate
    from .grid import Grid
    from .load import load_plan, plan_of
    from .parts import Budget, ModelSpec, PlatformLimits, Question
    from .plan import Plan
    from .questions import load_questions
    from .result import RunInterrupted, RunResult
    from .schema import plan_schema
    from .workers import LostWorker

# Loaded when first asked for: `ai-responses matrix` reads a log, and needs nothing that writes one.
_HOMES = {
    "Budget": "parts",
    "CellDone": "calls",
    "Estimate": "estimate",
    "Grid": "grid",
    "LostWorker": "workers",
    "ModelSpec": "parts",
    "Plan": "plan",
    "PlatformEstimate": "estimate",
    "PlatformLimits": "parts",
    "Question": "parts",
    "RunInterrupted": "result",
    "RunResult": "result",
    "estimate_plan": "engine",
    "load_plan": "load",
    "load_questions": "questions",
    "new_execution_id": "_run",
    "plan_of": "load",
    "plan_schema": "schema",
    "run_plan": "engine",
    "run_plan_async": "engine",
}

__all__ = [
    "Budget",
    "CellDone",
    "Estimate",
    "Grid",
    "LostWorker",
    "ModelSpec",
    "Plan",
    "PlatformEstimate",
    "PlatformLimits",
    "Question",
    "RunInterrupted",
    "RunResult",
    "estimate_plan",
    "load_plan",
    "load_questions",
    "new_execution_id",
    "plan_of",
    "plan_schema",
    "run_plan",
    "run_plan_async",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
