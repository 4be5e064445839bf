"""
OpenTelemetry's logs, with the names of its conventions for generative AI, in OTLP's JSON; pure.

Each line of the output is one request as a collector takes it (its file receiver, or POST to ``/v1/logs``).
Source: opentelemetry-proto, logs/v1/logs.proto, and the JSON encoding of the OTLP specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

__all__ = ["ATTRIBUTES", "log_requests"]

_AI: Final = "ai_response"
ATTRIBUTES: Final[Mapping[str, str]] = {
    "record_id": f"{_AI}.record_id",
    "schema_version": f"{_AI}.schema_version",
    "writer_id": f"{_AI}.writer_id",
    "seq": f"{_AI}.seq",
    "event": f"{_AI}.event",
    "call_id": f"{_AI}.call_id",
    "provider": "gen_ai.provider.name",
    "platform": f"{_AI}.platform",
    "model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "api_version": f"{_AI}.api_version",
    "operation": "gen_ai.operation.name",
    "question": f"{_AI}.question",
    "response": f"{_AI}.response",
    "system": "gen_ai.system_instructions",
    "messages": "gen_ai.input.messages",
    "tools": "gen_ai.tool.definitions",
    "choices": "gen_ai.output.messages",
    "tool_calls": f"{_AI}.tool_calls",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "response_id": "gen_ai.response.id",
    "request_id": f"{_AI}.request_id",
    "tokens_used": f"{_AI}.tokens_used",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "stream": "gen_ai.request.stream",
    "stream_end": f"{_AI}.stream_end",
    "success": f"{_AI}.success",
    "error_type": "error.type",
    "error_class": "exception.type",
    "error_message": "exception.message",
    "http_status_code": "http.response.status_code",
    "retry_count": "http.request.resend_count",
    "attempts": f"{_AI}.attempts",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
    "session_id": "gen_ai.conversation.id",
    "user_id": "user.id",
    "thread": "thread.name",
}
"""Our field -> OpenTelemetry's attribute; any other field is ``ai_response.<field>``."""

# Where a log record and its resource have a place of their own for it.
_ELSEWHERE: Final = frozenset({
    "timestamp", "unix_timestamp", "level", "logger", "message", "host", "pid", "trace_id", "span_id", "checksum",
    "latency_ms", "ttft_ms", "metadata",
})  # fmt: skip
_SECONDS: Final[Mapping[str, str]] = {
    "latency_ms": "gen_ai.client.operation.duration",
    "ttft_ms": "gen_ai.client.operation.time_to_first_chunk",
}
_SEVERITIES: Final[Mapping[str, int]] = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
_EVENT: Final = "gen_ai.client.inference.operation.details"
_REQUEST_RECORDS: Final = 100
_NS: Final = 1_000_000_000
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

_Source = tuple[str, int, str]  # host, pid, logger


def log_requests(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield requests of up to 100 log records each, and how many each has."""
    waiting: list[Mapping[str, Any]] = []
    for record in records:
        waiting.append(record)
        if len(waiting) == _REQUEST_RECORDS:
            yield _request(waiting), len(waiting)
            waiting = []
    if waiting:
        yield _request(waiting), len(waiting)


def _request(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    by_source: dict[_Source, list[dict[str, Any]]] = {}
    for record in records:
        pid = record.get("pid")
        source = (str(record.get("host") or ""), pid if isinstance(pid, int) else 0, str(record.get("logger") or ""))
        by_source.setdefault(source, []).append(_log_record(record))
    return {"resourceLogs": [_resource_logs(source, made) for source, made in by_source.items()]}


def _resource_logs(source: _Source, made: list[dict[str, Any]]) -> dict[str, Any]:
    host, pid, logger = source
    known = {"service.name": "ai_responses", "host.name": host or None, "process.pid": pid or None}
    scope = {"name": logger} if logger else {}
    return {"resource": {"attributes": _attributes(known)}, "scopeLogs": [{"scope": scope, "logRecords": made}]}


def _log_record(record: Mapping[str, Any]) -> dict[str, Any]:
    level, moment = str(record.get("level") or "INFO"), record.get("unix_timestamp")
    nanoseconds = round(moment * 1e6) * 1000 if isinstance(moment, int | float) and 0 <= moment < 1e10 else 0  # noqa: PLR2004  the year 2286
    known = {ATTRIBUTES.get(name, f"{_AI}.{name}"): value for name, value in record.items() if name not in _ELSEWHERE}
    for name, attribute in _SECONDS.items():
        if isinstance(value := record.get(name), int | float):
            known[attribute] = value / 1000
    metadata = record.get("metadata")
    if isinstance(metadata, dict):
        known.update({f"{_AI}.metadata.{name}": value for name, value in metadata.items()})
    made: dict[str, Any] = {
        "timeUnixNano": str(nanoseconds),
        "observedTimeUnixNano": str(nanoseconds),
        "severityNumber": _SEVERITIES.get(level, 9),
        "severityText": level,
        "eventName": _EVENT,
        "body": {"stringValue": str(record.get("message") or "")},
        "attributes": _attributes(known),
    }
    for name, key, digits in (("trace_id", "traceId", 32), ("span_id", "spanId", 16)):
        identity = str(record.get(name) or "")
        if re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", identity):
            made[key] = identity.lower()
    return made


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in values.items() if value is not None]


def _any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return {"intValue": str(value)}  # 64 bits are text in OTLP's JSON
    if isinstance(value, int | float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": _any_value(one)} for key, one in value.items()]}}
    return {} if value is None else {"stringValue": str(value)}
