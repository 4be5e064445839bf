"""Asks and logs many cells at once inside one process, on asyncio and the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..api import log_ai_response
from ..record import uuid7
from ._clients import Attempts, Clients
from .cells import CellIndex
from .outcome import answer_fields, error_fields
from .parts import ModelSpec
from .plan import Limits, Plan
from .schedule import Schedule

# The longest Retry-After that the SDK obeys, in seconds (openai 3.54, _constants.py).
_LONGEST_PAUSE_S: Final = 120.0
_SETTINGS: Final = ("temperature", "top_p", "max_tokens", "seed", "stop", "extra_body")
_NOT_KEPT: Final = frozenset({"failed", "filtered"})


@dataclass(frozen=True, slots=True)
class CellDone:
    """
    One cell that was asked and logged, for `run_plan`'s *on_cell*.

    ``status`` is what logging said of its record (``queued``, ..., ``failed``), whose id is ``record_id``;
    ``error_type`` is None on success; ``tokens_used`` is None where the endpoint reported none.

    .. versionadded:: 0.1.0
    """

    question_index: int
    model_index: int
    platform: str
    model: str
    success: bool
    error_type: str | None
    latency_ms: float
    status: str
    record_id: str
    tokens_used: int | None

    @property
    def is_kept(self) -> bool:
        """Whether its record is on its way into the log, or there."""
        return self.status not in _NOT_KEPT


class CellRunner:
    """
    Asks every cell of a schedule and logs each exactly once through `log_ai_response`.

    A call that fails in whatever way is logged and stops no other. There are never more tasks than calls in flight,
    however many cells wait. When a record is refused, no more cells are started: what cannot be kept is not to be
    paid for.

    Args:
        plan: What to ask of whom.
        schedule: Which cells, and when.
        execution_id: Names the run in the log.
        on_cell: Called with each cell when it has been asked and logged.

    Threads: One event loop.
    """

    def __init__(
        self, plan: Plan, schedule: Schedule, *, execution_id: str, on_cell: Callable[[CellDone], object]
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._execution_id = execution_id
        self._on_cell = on_cell
        self._clients = Clients(plan)
        self._tasks: set[asyncio.Task[CellDone]] = set()
        self._ended: deque[asyncio.Task[CellDone]] = deque()
        self._changed = asyncio.Event()

    def drain(self, reason: str) -> None:
        """Start no more cells; those in flight are asked to their end."""
        self._schedule.close(reason)
        self._changed.set()

    async def run(self) -> None:
        """
        Ask all cells.

        When the task is cancelled, the cells in flight are logged as ``cancelled``, the others not at all; so too
        when *on_cell* raises.

        Raises:
            asyncio.CancelledError: Cancelled from outside.
            Exception: Whatever *on_cell* raised.
        """
        try:
            while not self._schedule.is_over:
                self._start_ready()
                await self._wait()
                self._take_back_ended()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._clients.close()

    def _start_ready(self) -> None:
        while (cell := self._schedule.take(time.monotonic())) is not None:
            task = asyncio.create_task(self._ask(cell))
            self._tasks.add(task)
            task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[CellDone]) -> None:
        self._tasks.discard(task)
        self._ended.append(task)
        self._changed.set()

    async def _wait(self) -> None:
        """Wait until a call has ended, somebody has called `drain`, or another cell may start."""
        wait_s = self._schedule.wait_s(time.monotonic())
        if not self._schedule.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s == math.inf else wait_s):
                    await self._changed.wait()
        self._changed.clear()

    def _take_back_ended(self) -> None:
        while self._ended:
            cell = self._ended.popleft().result()
            self._schedule.end(CellIndex(cell.question_index, cell.model_index), cell.tokens_used)
            if not cell.is_kept:
                self._schedule.close("refused")
            self._on_cell(cell)

    async def _ask(self, cell: CellIndex) -> CellDone:
        spec = self._plan.models[cell.model_index - 1]
        limits = self._plan.limits(cell.model_index)
        fields = {
            **_request_fields(self._plan, cell, spec, self._execution_id),
            "timeout_seconds": limits.timeout_s,
        }
        attempts = Attempts(lambda: self._schedule.retry(cell, time.monotonic()))
        started_s = time.monotonic()

        def log(outcome: dict[str, Any]) -> CellDone:
            latency_ms = round((time.monotonic() - started_s) * 1000, 3)
            logged = log_ai_response(**{**fields, "latency_ms": latency_ms, **outcome})
            return CellDone(
                *cell, spec.platform, spec.model, outcome["success"], outcome.get("error_type"), latency_ms,
                logged["status"], logged["record_id"], outcome.get("tokens_used"),
            )  # fmt: skip

        try:
            ask = self._clients.of(cell.model_index)
            started_s = time.monotonic()  # the first use of an endpoint imports much of the SDK; no model is that slow
            with attempts.counted():
                async with asyncio.timeout(_longest_call_s(limits)) as attempts.deadline:
                    answer = await ask(messages=_messages(self._plan, cell), **_settings(spec))
            outcome = answer_fields(answer.parse(), request_id=answer.request_id, retries=answer.retries_taken)
        except Exception as error:  # noqa: BLE001  # whatever a call raises belongs into the log, and stops no other
            return log(error_fields(error, retries=attempts.retries))
        except BaseException as error:
            log(error_fields(error, retries=attempts.retries))
            raise
        return log(outcome)


def _messages(plan: Plan, cell: CellIndex) -> Any:
    system = plan.system_for(cell.question_index)
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": plan.question(cell.question_index).text}]


def _settings(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SETTINGS if getattr(spec, name) is not None}


def _request_fields(plan: Plan, cell: CellIndex, spec: ModelSpec, execution_id: str) -> dict[str, Any]:
    """Return what is known of a cell before it is asked; what is not set is left out."""
    question = plan.question(cell.question_index)
    fields = {
        "call_id": uuid7(),
        "execution_id": execution_id,
        "question_index": cell.question_index,
        "total_questions": plan.cell_count,
        "model_index": cell.model_index,
        "total_models": len(plan.models),
        "operation": "chat",
        "question": question.text,
        "system": plan.system_for(cell.question_index),
        "platform": spec.platform,
        "model": spec.model,
        **{name: getattr(spec, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
        "stop": list(spec.stop) if spec.stop else None,
        **{name: getattr(question, name) for name in ("brand", "competitor", "industry", "question_category")},
    }
    return {name: value for name, value in fields.items() if value is not None}


def _longest_call_s(limits: Limits) -> float:
    """
    Return how long a cell can take in all, in seconds; beyond, it is given up as a timeout.

    The SDK's own timeout is about silence, once while connecting and once while waiting: an endpoint that sends a
    blank now and then to keep a line open (several do, for up to ten minutes) would never let it fire.
    """
    return (limits.max_retries + 1) * 2 * limits.timeout_s + limits.max_retries * _LONGEST_PAUSE_S
