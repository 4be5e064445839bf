"""Asks and logs many cells at once inside one process, on asyncio and the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ..api import log_ai_response
from ..record import uuid7
from .cells import CellIndex
from .outcome import answer_fields, error_fields
from .plan import Limits, ModelSpec, Plan, api_key_of

if TYPE_CHECKING:
    import openai
    from openai.resources.chat.completions.completions import AsyncCompletionsWithRawResponse

# The longest Retry-After that the SDK obeys, in seconds (openai 3.54, _constants.py).
_LONGEST_PAUSE_S: Final = 120.0
_SETTINGS: Final = ("temperature", "top_p", "max_tokens", "seed", "stop", "extra_body")


@dataclass(frozen=True, slots=True)
class CellDone:
    """
    One cell that was asked and logged, for `run_plan`'s *on_cell*.

    ``status`` is what logging said of its record (``queued``, ..., ``failed``); ``error_type`` is None on success.

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


async def run_cells(
    plan: Plan,
    cells: Sequence[CellIndex],
    *,
    execution_id: str,
    concurrency: int,
    on_cell: Callable[[CellDone], object],
) -> None:
    """
    Ask every one of *cells*, at most *concurrency* at once, and log each exactly once through `log_ai_response`.

    A call that fails in whatever way is logged and stops no other. When the task is cancelled, the cells in flight
    are logged as ``cancelled``, the others not at all; so too when *on_cell* raises.

    Raises:
        asyncio.CancelledError: Cancelled from outside.
        Exception: Whatever *on_cell* raised.
    """
    waiting = deque(cells)
    clients = _Clients()

    async def work() -> None:
        """Ask one cell after the other while there are any."""
        while waiting:
            on_cell(await _run_cell(plan, waiting.popleft(), clients, execution_id))

    tasks = [asyncio.create_task(work()) for _ in range(min(concurrency, len(cells)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await clients.close()


async def _run_cell(plan: Plan, cell: CellIndex, clients: _Clients, execution_id: str) -> CellDone:
    spec = plan.models[cell.model_index - 1]
    limits = plan.limits(cell.model_index)
    fields = {**_request_fields(plan, cell, spec, execution_id), "timeout_seconds": limits.timeout_s}
    started_s = time.monotonic()

    def log(outcome: dict[str, Any]) -> CellDone:
        latency_ms = round((time.monotonic() - started_s) * 1000, 3)
        logged = log_ai_response(**{**fields, "latency_ms": latency_ms, **outcome})
        return CellDone(
            *cell,
            spec.platform,
            spec.model,
            outcome["success"],
            outcome.get("error_type"),
            latency_ms,
            logged["status"],
        )

    try:
        ask = clients.of(spec, limits, where=f"models[{cell.model_index - 1}].api_key_env")
        started_s = time.monotonic()  # the first use of an endpoint imports much of the SDK; the model is not that slow
        async with asyncio.timeout(_longest_call_s(limits)):
            answer = await ask.create(model=spec.model, messages=_messages(plan, cell), **_settings(spec))
        outcome = answer_fields(answer.parse(), request_id=answer.request_id, retries=answer.retries_taken)
    except Exception as error:  # noqa: BLE001  # whatever a call raises belongs into the log, and stops no other call
        return log(error_fields(error))
    except BaseException as error:
        log(error_fields(error))
        raise
    return log(outcome)


def _messages(plan: Plan, cell: CellIndex) -> Any:
    system = [{"role": "system", "content": plan.system}] if plan.system else []
    return [*system, {"role": "user", "content": plan.question(cell.question_index).text}]


def _settings(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in _SETTINGS if getattr(spec, name) is not None}


def _request_fields(plan: Plan, cell: CellIndex, spec: ModelSpec, execution_id: str) -> dict[str, Any]:
    """Return what is known of a cell before it is asked; what is not set is left out."""
    business = asdict(plan.question(cell.question_index))
    fields = {
        "call_id": uuid7(),
        "execution_id": execution_id,
        "question_index": cell.question_index,
        "total_questions": plan.cell_count,
        "model_index": cell.model_index,
        "total_models": len(plan.models),
        "operation": "chat",
        "question": business.pop("text"),
        "system": plan.system,
        "platform": spec.platform,
        "model": spec.model,
        **{name: getattr(spec, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
        "stop": list(spec.stop) if spec.stop else None,
        **business,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _longest_call_s(limits: Limits) -> float:
    """
    Return how long a cell can take in all, in seconds; beyond, it is given up as a timeout.

    The SDK's own timeout is about silence, once while connecting and once while waiting: an endpoint that sends a
    blank now and then to keep a line open (several do, for up to ten minutes) would never let it fire.
    """
    return (limits.max_retries + 1) * 2 * limits.timeout_s + limits.max_retries * _LONGEST_PAUSE_S


class _Clients:
    """One SDK client for each endpoint and key: they hold the connections."""

    def __init__(self) -> None:
        self._made: dict[tuple[str | None, str], openai.AsyncOpenAI] = {}

    def of(self, spec: ModelSpec, limits: Limits, *, where: str) -> AsyncCompletionsWithRawResponse:
        """Return what asks *spec*; raises as the SDK does, or `ConfigError` without a key."""
        import openai

        key = api_key_of(spec, os.environ, where=where)
        client = self._made.get((spec.base_url, key))
        if client is None:
            # A proxy set for the world outside cannot reach this machine's loopback.
            direct = openai.DefaultAsyncHttpxClient(trust_env=False) if spec.is_local else None
            client = openai.AsyncOpenAI(base_url=spec.base_url, api_key=key, http_client=direct)
            self._made[spec.base_url, key] = client
        limited = client.with_options(timeout=limits.timeout_s, max_retries=limits.max_retries)
        return limited.chat.completions.with_raw_response

    async def close(self) -> None:
        for client in self._made.values():
            with contextlib.suppress(Exception):  # the answers are logged; a connection that will not close is no loss
                await client.close()
