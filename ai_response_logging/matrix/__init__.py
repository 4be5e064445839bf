"""The N x M engine: asks N questions of M models at once and keeps every answer in the log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import CellDone
    from .engine import RunResult, new_execution_id, run_plan
    from .grid import Grid
    from .load import load_plan, plan_of
    from .plan import ModelSpec, Plan, Question
    from .workers import LostWorker

# Loaded when first asked for: `ai-responses matrix` reads a log, and needs nothing that writes one.
_HOMES = {
    "CellDone": "calls",
    "Grid": "grid",
    "LostWorker": "workers",
    "ModelSpec": "plan",
    "Plan": "plan",
    "Question": "plan",
    "RunResult": "engine",
    "load_plan": "load",
    "new_execution_id": "engine",
    "plan_of": "load",
    "run_plan": "engine",
}

__all__ = [
    "CellDone",
    "Grid",
    "LostWorker",
    "ModelSpec",
    "Plan",
    "Question",
    "RunResult",
    "load_plan",
    "new_execution_id",
    "plan_of",
    "run_plan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
