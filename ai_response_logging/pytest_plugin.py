"""
The pytest fixture ``ai_responses``: the records that a test logged, whatever its application has configured.

``caplog`` sees nothing of a logger with ``propagate: false``, and nothing of what the functions log. Loading this costs
a test run nothing: what records is imported when the first test asks for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, overload
from unittest import mock

import pytest

if TYPE_CHECKING:
    from ._options import Options
    from ._pipeline import Pipeline
    from .handler import AIResponseHandler

__all__ = ["LoggedResponses", "ai_responses"]

_LOGGER: Final = "ai_responses"


class LoggedResponses(Sequence[dict[str, Any]]):
    """
    The records that were logged since the test began, oldest first, as flat dicts; looked up anew at each use.

    What this process has logged is there at once, what its children have, when these have ended or flushed.

    Attributes:
        filename: The log they are in, which is the test's own.

    .. versionadded:: 0.1.0
    """

    def __init__(self, handler: AIResponseHandler) -> None:
        self._handler = handler
        self.filename = handler.filename

    @property
    def records(self) -> list[dict[str, Any]]:
        """All of them, as a list of its own."""
        from .reader import read_log

        self._handler.flush()
        return list(read_log(self.filename, missing_ok=True))

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.records[at]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __eq__(self, other: object) -> bool:
        return self.records == (other.records if isinstance(other, LoggedResponses) else other)

    __hash__ = None  # type: ignore[assignment]  # it changes with each record

    def __repr__(self) -> str:
        return repr(self.records)


@pytest.fixture
def ai_responses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedResponses]:
    """
    Give the records that the test logs, as a sequence of flat dicts.

    For the length of the test every AIResponseHandler of this process, of whatever configuration, made before or
    within it, writes to a log of the test's own instead of its file, through the real way of a record; its level,
    filters and formatter hold. Where nothing is configured, the logger ``ai_responses`` and the functions log there.
    """
    from .handler import AIResponseHandler

    path = str(tmp_path_factory.mktemp("ai_responses", numbered=True) / "ai_responses.jsonl")
    with ExitStack() as undone:
        before = _living_handlers()
        handler = AIResponseHandler(path)
        undone.callback(handler.close)
        undone.callback(_end_users, handler)
        for one in before:
            undone.enter_context(_led_to(one, handler))
        undone.enter_context(_handlers_made_on(handler))
        undone.enter_context(_attached(handler))
        undone.enter_context(mock.patch.dict(os.environ, AI_RESPONSES_FILE=path))
        yield LoggedResponses(handler)


def _living_handlers() -> list[AIResponseHandler]:
    """Return every handler of ours, wherever it is attached: also behind a MemoryHandler."""
    from .handler import AIResponseHandler

    known = (reference() for reference in logging._handlerList[:])  # type: ignore[attr-defined]  # noqa: SLF001  nothing else knows all
    return [handler for handler in known if isinstance(handler, AIResponseHandler)]


@contextmanager
def _led_to(handler: AIResponseHandler, target: AIResponseHandler) -> Iterator[None]:
    """Let *handler* write where *target* does."""
    from .handler import ResponseQueueHandler

    pipeline, front = target._pipeline, ResponseQueueHandler(target._pipeline.queue, target._pipeline)  # noqa: SLF001  ours
    front.setFormatter(handler._queue_handler.formatter)  # noqa: SLF001  as above
    with mock.patch.multiple(handler, _pipeline=pipeline, _queue_handler=front):
        yield


@contextmanager
def _handlers_made_on(target: AIResponseHandler) -> Iterator[None]:
    """Let each handler that is made write where *target* does, with the test's options."""

    def pipeline_of(_path: str, _options: Options, user: logging.Handler) -> Pipeline:
        target._pipeline.join(user)  # noqa: SLF001  ours
        return target._pipeline  # noqa: SLF001  ours

    with mock.patch("ai_response_logging.handler.pipeline_on", pipeline_of):
        yield


@contextmanager
def _attached(handler: AIResponseHandler) -> Iterator[None]:
    """Have the logger record also where nobody has configured it."""
    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.addHandler(handler)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if level == logging.NOTSET and logger.level == logging.INFO and not _has_ours(logger):
            logger.setLevel(logging.NOTSET)


def _has_ours(logger: logging.Logger) -> bool:
    """Say whether the test has configured the logger, so that its level is no longer the one that was set here."""
    from .handler import AIResponseHandler

    return any(isinstance(one, AIResponseHandler) for one in logger.handlers)


def _end_users(handler: AIResponseHandler) -> None:
    """End the thread, whoever else was made on this log; a later record would start it again."""
    pipeline = handler._pipeline  # noqa: SLF001  ours
    for user in list(pipeline.users):
        if user is not handler:
            pipeline.close(user)
