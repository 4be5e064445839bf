"""What a failed call is called, and what an answer cost: one wording for every hook and for the engine; pure."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final

from ..errors import AIResponseLoggingError

__all__ = [
    "HTTP_ERROR",
    "UnexpectedAnswerError",
    "error_fields",
    "error_type_of",
    "error_type_of_status",
    "error_type_of_wire",
    "filtered_fields",
    "known",
    "usage_fields",
]

HTTP_ERROR: Final = 400
_SERVER_ERROR: Final = 500
# What providers call it when they refuse a text for what it says, in the error object's code.
_CONTENT_FILTER_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "data_inspection_failed", "DataInspectionFailed", "1301"}
)
_TYPE_OF_STATUS: Final = {401: "auth", 403: "auth", 408: "timeout", 429: "rate_limit"}
# Parts of an error object's type or code.
_TYPE_OF_WORDS: Final = (
    ("rate_limit", "rate_limit"),
    ("authentication", "auth"),
    ("permission", "auth"),
    ("api_key", "auth"),
    ("timeout", "timeout"),
    ("invalid_request", "bad_request"),
    ("not_found", "bad_request"),
)
# By name, so that nothing has to be imported to look at an error of the SDKs or of their HTTP libraries.
_TIMEOUTS: Final = frozenset({"APITimeoutError", "TimeoutException", "TimeoutError", "Timeout"})
_CONNECTIONS: Final = frozenset({"APIConnectionError", "RequestError", "ConnectionError"})
_FILTERS: Final = frozenset({"ContentPolicyViolationError"})


class UnexpectedAnswerError(AIResponseLoggingError):
    """
    An endpoint answered 200 with something that is no completion.

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


def error_type_of_status(status: int, code: object = None) -> str:
    """Return the low-cardinality name for an answer of *status* whose error object has *code*."""
    if str(code) in _CONTENT_FILTER_CODES:
        return "content_filter"
    return _TYPE_OF_STATUS.get(status, "server_error" if status >= _SERVER_ERROR else "bad_request")


def error_type_of_wire(error: Mapping[str, Any]) -> str:
    """Return the low-cardinality name for an error object that a provider sent in the middle of an answer."""
    if str(error.get("code")) in _CONTENT_FILTER_CODES:
        return "content_filter"
    said = f"{error.get('type')} {error.get('code')}"
    return next((name for part, name in _TYPE_OF_WORDS if part in said), "server_error")


def error_type_of(error: BaseException) -> str:
    """Return the low-cardinality name of an error of an SDK, an HTTP library or Python, as ``record.md`` lists them."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _FILTERS:
        return "content_filter"
    if names & _TIMEOUTS:
        return "timeout"
    if names & _CONNECTIONS:  # before the status: LiteLLM gives a refused connection one, too
        return "connection"
    status = _status_of(error)
    if status is not None and status >= HTTP_ERROR:
        return error_type_of_status(status, getattr(error, "code", None))
    if isinstance(error, Exception):
        # Without a status: an error object that came in the middle of a stream, as the OpenAI SDK raises it.
        body = getattr(error, "body", None)
        return error_type_of_wire(body) if status is None and isinstance(body, Mapping) else "exception"
    return "cancelled"  # CancelledError, Ctrl-C, SystemExit: not the call's own doing


def error_fields(error: BaseException, *, when_cancelled: str) -> dict[str, Any]:
    """
    Return what an exception says, as fields of its record; every kind has an ``error_type``.

    *when_cancelled* is the message where the exception has none of its own because it is no failure.
    """
    return known(
        {
            "response": "",
            "success": False,
            "error_type": error_type_of(error),
            "error_class": type(error).__qualname__,
            "error_message": _message_of(error, when_cancelled),
            "http_status_code": _status_of(error),
            "request_id": getattr(error, "request_id", None),
        }
    )


def filtered_fields(finish_reasons: Collection[str]) -> dict[str, Any]:
    """Return what turns an answer into a failure, if a content filter ended it."""
    if "content_filter" not in finish_reasons:
        return {}
    return {
        "success": False,
        "error_type": "content_filter",
        "error_message": "the provider's content filter ended the answer",
    }


def usage_fields(usage: Any) -> dict[str, Any]:
    """Return the token counts as reported, never summed by us; *usage* is an SDK's object or the JSON's own."""
    if not usage:
        return {}
    asked = _first(usage, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    answered = _first(usage, "completion_tokens_details", "output_tokens_details", "output_token_details")
    cached = _first(asked, "cached_tokens", "cache_read")
    if cached is None:  # DeepSeek and Anthropic report it beside the details, not in them
        cached = _first(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    return known(
        {
            "tokens_used": _first(usage, "total_tokens"),
            "prompt_tokens": _first(usage, "prompt_tokens", "input_tokens"),
            "completion_tokens": _first(usage, "completion_tokens", "output_tokens"),
            "cached_tokens": cached,
            "reasoning_tokens": _first(answered, "reasoning_tokens", "reasoning"),
        }
    )


def known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* without those that are unknown."""
    return {name: value for name, value in fields.items() if value is not None}


def _first(holder: Any, *names: str) -> Any:
    """Return the first of *names* that *holder*, an object or a mapping, has and knows."""
    for name in names:
        value = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
        if value is not None:
            return value
    return None


def _status_of(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _message_of(error: BaseException, when_cancelled: str) -> str:
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return when_cancelled
    try:
        text = str(error) or repr(error)
    except Exception as broken:  # noqa: BLE001  # somebody's __str__; the call is logged all the same
        return f"(its text cannot be had: {type(broken).__qualname__})"
    # The SDK's own text for a refused connection or a cut answer is "Connection error.", whatever it was.
    return f"{text} ({type(error.__cause__).__qualname__}: {error.__cause__})" if error.__cause__ else text
