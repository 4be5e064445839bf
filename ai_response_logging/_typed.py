"""
The dictionaries that people fill in or read, with the types of their keys: for editors and type checkers.

Apart from the modules that use them: to make them costs a program a millisecond, and one that only logs does not look.
"""

from __future__ import annotations

from typing import TypedDict

__all__ = ["ResponseFields", "Snapshot"]


class ResponseFields(TypedDict, total=False):
    """
    The usual fields of one answer, typed so that an editor helps; any other keyword is accepted and kept.

    Times are milliseconds where the name ends in ``_ms`` and seconds where it ends in ``_seconds``.
    """

    record_id: str
    call_id: str
    event: str
    question: str
    response: str
    platform: str
    provider: str
    model: str
    response_model: str
    api_version: str
    operation: str
    system: str
    messages: list[object]
    tools: list[object]
    tool_calls: list[object]
    choices: list[object]
    finish_reasons: list[str]
    response_id: str
    request_id: str
    success: bool
    error_type: str
    error_class: str
    error_message: str
    http_status_code: int
    retry_count: int
    attempts: list[object]
    latency_ms: float
    ttft_ms: float
    stream: bool
    stream_end: str
    tokens_used: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: list[str]
    timeout_seconds: float
    brand: str
    competitor: str
    industry: str
    question_category: str
    execution_id: str
    question_index: int
    total_questions: int
    model_index: int
    total_models: int
    session_id: str
    user_id: str
    trace_id: str
    span_id: str
    circuit_breaker_open: bool
    response_quality_score: float
    raw_request: object
    raw_response: object
    metadata: dict[str, object]
    tags: list[str]


class Snapshot(TypedDict):
    """
    The counters of one writer at one instant.

    ``accepted == written + written_sync + pending + failed`` holds in every snapshot. All are numbers of
    records since the writer began; a forked child starts at 0.
    """

    accepted: int
    """Records handed to the handler."""
    written: int
    """In the file, put there by the listener, or by the caller where no listener runs."""
    written_sync: int
    """In the file, put there by the caller because the queue was full."""
    failed: int
    """Nowhere."""
    pending: int
    """On their way: in the queue, in the batch, in the journal."""
    queue_size: int
    """Of these, in the queue."""
    queued: int
    """Running total of the status ``queued``."""
    spilled: int
    """Running total of the status ``spilled``."""
    replayed: int
    """Other writers' lines brought home; not in ``accepted``."""
    retried: int
    """Attempts that followed a failed one."""
    encode_errors: int
    """Records in which a value had to be replaced."""
    rotations: int
    """Times this writer began a new file."""
    durability: str
    """What holds now: ``memory``, ``crash`` or ``power``."""
    worker_alive: bool
    """Whether the listener's thread runs."""
    last_error: str | None
    """The newest fault, as text."""
    last_error_time: float | None
    """When it was, seconds since 1970."""
