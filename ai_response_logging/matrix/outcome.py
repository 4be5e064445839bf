"""What became of one call, as fields of its record: an answer or an error; pure."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ..errors import AIResponseLoggingError

# What providers call it when they refuse a text for what it says, in the error object's code.
_CONTENT_FILTER_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "data_inspection_failed", "DataInspectionFailed", "1301"}
)
_TYPE_OF_STATUS: Final = {401: "auth", 403: "auth", 408: "timeout", 429: "rate_limit"}
_SERVER_ERROR: Final = 500


class UnexpectedAnswerError(AIResponseLoggingError):
    """
    An endpoint answered 200 with something that is no chat completion.

    Attributes:
        found: What came instead, shortened.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            f"the endpoint answered 200 with no completion in it: {self.found}; is base_url right (does it end in /v1)?"
        )


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
    if "content_filter" in reasons:
        fields |= {
            "success": False,
            "error_type": "content_filter",
            "error_message": "the provider's content filter ended the answer",
        }
    return _known(fields)


def usage_fields(usage: Any) -> dict[str, Any]:
    """Return the token counts as reported, never summed by us."""
    if usage is None:
        return {}
    asked = getattr(usage, "prompt_tokens_details", None)
    answered = getattr(usage, "completion_tokens_details", None)
    cached = getattr(asked, "cached_tokens", None)
    return _known(
        {
            "tokens_used": getattr(usage, "total_tokens", None),
            "prompt_tokens": getattr(usage, "prompt_tokens", None),
            "completion_tokens": getattr(usage, "completion_tokens", None),
            # DeepSeek reports it beside the details, not in them.
            "cached_tokens": getattr(usage, "prompt_cache_hit_tokens", None) if cached is None else cached,
            "reasoning_tokens": getattr(answered, "reasoning_tokens", None),
        }
    )


def error_fields(error: BaseException, *, retries: int | None = None) -> dict[str, Any]:
    """Return what an exception says; every kind has an ``error_type``. *retries* is None if nothing was sent."""
    return _known(
        {
            "response": "",
            "success": False,
            "error_type": error_type_of(error),
            "error_class": type(error).__qualname__,
            "error_message": _message_of(error),
            "http_status_code": _status_of(error),
            "request_id": getattr(error, "request_id", None),
            "retry_count": retries,
        }
    )


def error_type_of(error: BaseException) -> str:
    """Return the low-cardinality name of an error, as ``record.md`` lists them."""
    import openai

    if isinstance(error, openai.APIStatusError):
        if error.code in _CONTENT_FILTER_CODES:
            return "content_filter"
        usual = "server_error" if error.status_code >= _SERVER_ERROR else "bad_request"
        return _TYPE_OF_STATUS.get(error.status_code, usual)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    if isinstance(error, Exception):
        return "exception"
    return "cancelled"  # CancelledError, Ctrl-C, SystemExit: not the call's own doing


def _status_of(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _message_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "the run was stopped while this call was in flight"
    try:
        text = str(error) or repr(error)
    except Exception as broken:  # noqa: BLE001  # somebody's __str__; the cell is logged all the same
        return f"(its text cannot be had: {type(broken).__qualname__})"
    # The SDK's own text for a refused connection or a cut answer is "Connection error.", whatever it was.
    return f"{text} ({type(error.__cause__).__qualname__}: {error.__cause__})" if error.__cause__ else text


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
