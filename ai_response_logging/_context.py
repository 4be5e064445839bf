"""What the code around a call knows of it: fields that every record made in a block gets."""

from __future__ import annotations

import functools
import inspect
import sys
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType
    from typing import Self, Unpack

    from ._typed import ResponseFields

__all__ = ["ai_context", "context_fields"]

P = ParamSpec("P")
R = TypeVar("R")

_EMPTY: Mapping[str, Any] = {}
_fields: ContextVar[Mapping[str, Any]] = ContextVar("ai_response_logging_context", default=_EMPTY)


class ai_context:  # noqa: N801  # used as a block, like contextlib.suppress
    """
    Give every record of a block these fields: ``with ai_context(execution_id="exec_1", brand="Acme"): ...``.

    The functions, ``record`` and the hooks of the SDKs take them up when a call begins; what a call says itself
    counts more. Blocks nest, the inner one counts more, and None takes a field away again. Also a decorator, of
    coroutine functions as well.

    Tasks inherit the fields of the block in which they are made. Threads have none, unless they run what
    :meth:`carry` returns: ``pool.submit(ai_context.carry(ask), question)``.

    Threads: A block belongs to the thread or task that entered it; as a decorator, any may call at once.

    .. versionadded:: 0.1.0
    """

    __slots__ = ("_given", "_tokens")

    def __init__(self, **fields: Unpack[ResponseFields]) -> None:
        self._given: Mapping[str, Any] = fields
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> Self:
        merged = {**_fields.get(), **self._given}
        self._tokens.append(_fields.set({name: value for name, value in merged.items() if value is not None}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _fields.reset(self._tokens.pop())

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Run every call of *function* in a block of its own."""
        return _running_in(function, lambda: ai_context(**self._given))

    @staticmethod
    def carry(function: Callable[P, R]) -> Callable[P, R]:
        """Return *function* as one that has the fields of here and now wherever it is called, in a thread for one."""
        held = _fields.get()
        return _running_in(function, lambda: _Exactly(held))


class _Exactly:
    """A block with these fields and no others."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._held = fields

    def __enter__(self) -> None:
        self._token = _fields.set(self._held)

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


def _running_in(function: Callable[..., Any], block: Callable[[], Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with block():
                return await function(*args, **kwargs)

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with block():
            return function(*args, **kwargs)

    return called


def context_fields() -> Mapping[str, Any]:
    """
    Return the fields of the blocks around here, with the trace ids of OpenTelemetry's current span.

    That library is looked at where the application has loaded it, and never loaded.
    """
    fields = _fields.get()
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return fields
    try:
        span = trace.get_current_span().get_span_context()
        ids = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else _EMPTY
    except Exception:  # noqa: BLE001  # foreign code, or half imported; the record matters more than its trace
        return fields
    return {**ids, **fields}
