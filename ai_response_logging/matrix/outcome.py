"""What became of one call, as fields of its record: an answer or an error; pure."""

from __future__ import annotations

from typing import Any

from ..integrations._outcome import UnexpectedAnswerError, error_type_of, filtered_fields, known, usage_fields
from ..integrations._outcome import error_fields as fields_of

__all__ = ["UnexpectedAnswerError", "answer_fields", "error_fields", "error_type_of", "usage_fields"]


def answer_fields(completion: Any, *, request_id: str | None, retries: int) -> dict[str, Any]:
    """
    Return what a chat completion says; fields it does not report are left out.

    Raises:
        UnexpectedAnswerError: It has no choices.
    """
    choices = getattr(completion, "choices", None)
    if not choices:
        raise UnexpectedAnswerError(repr(completion)[:200])
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    message = choices[0].message
    fields = {
        "response": getattr(message, "content", None) or "",
        "success": True,
        "response_model": completion.model,
        "response_id": completion.id,
        "request_id": request_id,
        "finish_reasons": reasons or None,
        "retry_count": retries,
        **usage_fields(completion.usage),
    }
    return known({**fields, **filtered_fields(reasons)})


def error_fields(error: BaseException, *, retries: int | None = None) -> dict[str, Any]:
    """Return what an exception says; every kind has an ``error_type``. *retries* is None if nothing was sent."""
    fields = fields_of(error, when_cancelled="the run was stopped while this call was in flight")
    return known({**fields, "retry_count": retries})
