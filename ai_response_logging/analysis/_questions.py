"""
The SQL of the questions that a log is asked most, over the table ``records``; pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..filters import Filters
from ._columns import GROUPABLE, identifier, literal
from ._figures import ENDS, QUANTILES

__all__ = ["condition", "duplicates", "errors", "groups", "matrix", "slowest", "summary", "timeline", "wanted_fields"]

_CALLS: Final = f"event IN ({', '.join(map(literal, ENDS))})"
_FAILED: Final = "success IS NOT TRUE"
_SPAN: Final = re.compile(r"(?P<count>[1-9]\d{0,5})\s*(?P<unit>[smhdw])")
_UNITS: Final = {"s": "SECOND", "m": "MINUTE", "h": "HOUR", "d": "DAY", "w": "WEEK"}
_QUESTION_CHARS: Final = 120
_SHARES: Final = ", ".join(map(str, QUANTILES.values()))
_FIGURES: Final = (
    "count(*) AS records, count(*) FILTER (success) AS succeeded, "
    f"count(*) FILTER ({_FAILED}) AS failed, round(count(*) FILTER (success) / count(*), 6) AS success_rate, "
    + ", ".join(
        f"round(quantile_cont(latency_ms, {share}), 3) AS latency_{name}_ms" for name, share in QUANTILES.items()
    )
    + ", CAST(coalesce(sum(tokens_used), 0) AS HUGEINT) AS tokens"
)


def wanted_fields(by: Sequence[str]) -> tuple[str, ...]:
    """
    Return the fields to group by.

    Raises:
        ValueError: One of them is no field that has few values, or stands twice.
    """
    for name in by:
        if name not in GROUPABLE:
            raise ValueError(f"{name!r} is no field to group by; there are {', '.join(sorted(GROUPABLE))}")
    if len(set(by)) != len(by):
        raise ValueError("a field stands twice")
    return tuple(by)


def condition(filters: Filters) -> str:
    """
    Return what *filters* ask as SQL.

    Raises:
        ValueError: They ask for a regular expression, which is Python's.
    """
    if filters.grep is not None:
        raise ValueError("a regular expression is matched record by record")
    exact = {"execution_id": filters.execution_id, "brand": filters.brand}
    parts = ["TRUE", *(f"{name} = {literal(value)}" for name, value in exact.items() if value is not None)]
    if filters.platform is not None:
        wanted = literal(filters.platform.casefold())
        parts.append(f"(coalesce(lower(platform) = {wanted}, false) OR coalesce(lower(provider) = {wanted}, false))")
    if filters.model is not None:
        parts.append(f"lower(model) = {literal(filters.model.casefold())}")
    if filters.failed:
        parts.append(f"({_CALLS} AND {_FAILED})")
    if filters.since is not None:
        parts.append(f"unix_timestamp >= {filters.since!r}")
    if filters.until is not None:
        parts.append(f"unix_timestamp < {filters.until!r}")
    return " AND ".join(parts)


def groups(by: Sequence[str], where: str) -> str:
    """Return the raw figures of each group of calls; what is no call, or no record at all, is counted by itself."""
    fields = "".join(f"CASE WHEN is_call THEN {identifier(name)} END AS {identifier(name)}, " for name in by)
    return (
        f"SELECT {fields}is_record, is_call, count(*) AS records, count(*) FILTER (success) AS succeeded, "
        f"quantile_cont(latency_ms, [{_SHARES}]) AS quantiles, coalesce(sum(tokens_used), 0) AS tokens "
        f"FROM (SELECT *, coalesce(is_record AND {_CALLS} AND {where}, false) AS is_call FROM _lines) GROUP BY ALL"
    )


def summary(by: Sequence[str]) -> str:
    """Return calls, success, latency and tokens of each group."""
    fields = "".join(f"{identifier(name)}, " for name in by)
    order = ", ".join(["records DESC", *map(identifier, by)])
    return f"SELECT {fields}{_FIGURES} FROM records WHERE {_CALLS} GROUP BY ALL ORDER BY {order}"


def errors() -> str:
    """Return failed calls by kind, the most frequent first."""
    return (
        "SELECT error_type, http_status_code, platform, model, count(*) AS calls, "
        'min("timestamp") AS first_timestamp, max("timestamp") AS last_timestamp, '
        "arg_max(record_id, unix_timestamp) AS last_record_id, "
        "arg_max(error_message, unix_timestamp) AS last_error_message "
        f"FROM records WHERE {_CALLS} AND {_FAILED} GROUP BY error_type, http_status_code, platform, model "
        "ORDER BY calls DESC, error_type, http_status_code, platform, model"
    )


def timeline(bucket: str) -> str:
    """
    Return the figures of each span of time that has calls.

    Raises:
        ValueError: *bucket* is no span.
    """
    span = _SPAN.fullmatch(bucket.strip().lower())
    if not span:
        raise ValueError(f"{bucket!r} is no span of time: 90s, 15m, 1h, 1d, 1w")
    interval = f"INTERVAL {span['count']} {_UNITS[span['unit']]}"
    return (
        f'SELECT time_bucket({interval}, "timestamp") AS bucket, {_FIGURES} '
        f'FROM records WHERE {_CALLS} AND "timestamp" IS NOT NULL GROUP BY bucket ORDER BY bucket'
    )


def slowest(count: int) -> str:
    """Return the calls that took longest."""
    return (
        'SELECT latency_ms, record_id, "timestamp", platform, model, success, tokens_used, error_type, '
        f"left(question, {_QUESTION_CHARS}) AS question FROM records "
        f"WHERE {_CALLS} AND latency_ms IS NOT NULL ORDER BY latency_ms DESC, record_id LIMIT {int(count)}"
    )


def duplicates() -> str:
    """Return ids that stand in more than one line."""
    return (
        'SELECT record_id, count(*) AS lines, min("timestamp") AS first_timestamp, max("timestamp") AS last_timestamp '
        "FROM records WHERE record_id IS NOT NULL GROUP BY record_id HAVING count(*) > 1 "
        "ORDER BY lines DESC, record_id"
    )


def matrix(execution_id: str) -> str:
    """Return the cells of one run as ``matrix/grid.py`` counts them."""
    index = "CASE WHEN {0} BETWEEN 1 AND 9007199254740992 THEN {0} END AS {0}"
    return f"""
WITH seen AS MATERIALIZED (
    SELECT {index.format("question_index")}, CASE WHEN {index.format("question_index").partition(" AS ")[0]} IS NULL
        THEN coalesce(question, '') END AS text, {index.format("model_index")}, platform, model,
        total_questions, total_models, record_id, error_type,
        {{'counts': error_type IS DISTINCT FROM 'cancelled', 's': coalesce(unix_timestamp, 0)}} AS weight,
        {_CALLS} AS is_end, coalesce(success AND event <> 'tombstone', false) AS is_done
    FROM records
    WHERE execution_id = {literal(execution_id)} AND (platform IS NOT NULL OR model IS NOT NULL)
), answers AS MATERIALIZED (
    SELECT question_index, text, model_index, platform, model, arg_max(is_done, weight) AS is_done,
        arg_max([record_id], weight)[1] AS record_id, arg_max([error_type], weight)[1] AS error_type
    FROM seen WHERE is_end GROUP BY ALL
), columns AS (SELECT DISTINCT model_index, platform, model FROM seen),
counted AS (
    SELECT max(total_models) FILTER (total_models BETWEEN 1 AND 10000000) AS models,
        max(total_questions) FILTER (total_questions BETWEEN 1 AND 10000000) AS said,
        count(DISTINCT (question_index, text)) AS questions FROM seen
), sizes AS (SELECT (SELECT count(*) FROM answers) AS answered, (SELECT count(*) FROM columns) AS columns),
totals AS (
    SELECT models, answered, greatest(answered, coalesce(said, questions * columns)) AS expected FROM counted, sizes
), rows AS (
    SELECT DISTINCT question_index, text FROM seen
    UNION
    SELECT unnest(generate_series(1, expected // models)), NULL FROM totals
    WHERE expected % models = 0 AND expected <= 1000000
), cells AS (
    SELECT r.question_index, c.platform, c.model, a.is_done IS NOT NULL AS is_there, a.is_done, a.record_id,
        c.model_index, CASE WHEN NOT a.is_done THEN a.error_type END AS error_type,
        count(*) FILTER (a.is_done IS NULL)
            OVER (ORDER BY r.question_index NULLS LAST, r.text, c.model_index NULLS LAST, c.platform, c.model) AS holes
    FROM rows r CROSS JOIN columns c LEFT JOIN answers a ON
        (r.question_index, r.text, c.model_index, c.platform, c.model)
        IS NOT DISTINCT FROM (a.question_index, a.text, a.model_index, a.platform, a.model)
)
SELECT question_index, platform, model,
    CASE WHEN NOT is_there THEN 'missing' WHEN is_done THEN 'done' ELSE 'failed' END AS status,
    record_id, model_index, error_type
FROM cells, totals WHERE is_there OR holes <= expected - answered
ORDER BY question_index NULLS LAST, model_index NULLS LAST, platform, model
"""
