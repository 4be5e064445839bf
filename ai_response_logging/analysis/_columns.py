"""
The columns of the table ``records``, and the SQL that finds each in a line of any shape; pure.

Every top-level key is read as JSON or as text, never inferred: shapes are mixed, and one odd value must not decide for
all. Each column then asks for today's type, as ``_shapes.FIELDS`` does for a single record; what has another is NULL.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final, NamedTuple

from .._shapes import COPIED, FIELDS, NESTED, V1_CONTENT, V1_NAMESPACE
from ..record import PROVIDERS

__all__ = ["COLUMNS", "GROUPABLE", "Column", "identifier", "lines_sql", "literal", "read_sql"]


class Column(NamedTuple):
    """A column of ``records``."""

    name: str
    type: str
    unit: str
    meaning: str


def _columns(type_: str, unit: str, **meanings: str) -> Iterator[Column]:
    return (Column(name, type_, unit, meaning) for name, meaning in meanings.items())


COLUMNS: Final = (
    *_columns(
        "VARCHAR", "",
        record_id="identity; of a v1 line made of its content",
        call_id="joins the start, the attempts and the end of one call",
        event="`response`, `tombstone` (both end a call), `start`, `attempt`",
    ),
    Column("timestamp", "TIMESTAMP", "UTC", "when it was logged"),
    Column("unix_timestamp", "DOUBLE", "s since 1970", "the same instant"),
    *_columns(
        "VARCHAR", "",
        provider="the platform's stable lower-case name",
        platform="as given",
        model="as given",
        response_model="the model that answered",
        api_version="as given",
        operation="chat, responses, text_completion, embeddings",
    ),
    Column("success", "BOOLEAN", "", "whether the call succeeded; NULL counts as failed"),
    *_columns(
        "VARCHAR", "",
        error_type="rate_limit, timeout, connection, auth, server_error, ..., or as given",
        error_class="the exception's class",
        error_message="its text",
    ),
    Column("http_status_code", "BIGINT", "", "of the answer"),
    *_columns("DOUBLE", "ms", latency_ms="the whole call", ttft_ms="to the first token"),
    *_columns(
        "BIGINT", "tokens",
        tokens_used="as reported",
        prompt_tokens="as reported",
        completion_tokens="as reported",
        cached_tokens="as reported",
        reasoning_tokens="as reported",
    ),
    Column("retry_count", "BIGINT", "", "attempts - 1"),
    *_columns(
        "VARCHAR", "",
        question="the last user text", response="the answer's text, empty on failure", system="system instructions",
    ),
    *_columns(
        "VARCHAR", "",
        brand="as given",
        competitor="as given",
        industry="as given",
        question_category="as given",
        execution_id="one run of N questions x M models",
    ),
    *_columns(
        "BIGINT", "from 1",
        question_index="the cell's question",
        model_index="the cell's model",
    ),
    *_columns(
        "BIGINT", "calls",
        total_questions="calls expected in the run, N x M",
    ),
    Column("total_models", "BIGINT", "models", "models of the run"),
    *_columns(
        "VARCHAR", "",
        session_id="as given", user_id="as given", trace_id="OpenTelemetry's", span_id="OpenTelemetry's",
        response_id="the provider's", request_id="the provider's",
    ),
    Column("stream", "BOOLEAN", "", "whether the answer was streamed"),
    Column("stream_end", "VARCHAR", "", "complete, cut, closed, abandoned, cancelled"),
    *_columns("DOUBLE", "", temperature="request setting", top_p="request setting"),
    *_columns("BIGINT", "", max_tokens="request setting, tokens", seed="request setting"),
    Column("timeout_seconds", "DOUBLE", "s", "request setting"),
    Column("circuit_breaker_open", "BOOLEAN", "", "as given"),
    Column("response_quality_score", "DOUBLE", "0 to 1", "as given"),
    *_columns("VARCHAR", "", level="of the LogRecord", logger="its logger", message="its message"),
    *_columns("VARCHAR", "", host="where it was logged", thread="where it was logged"),
    Column("pid", "BIGINT", "", "where it was logged"),
    Column("writer_id", "VARCHAR", "", "the writer; NULL in older lines"),
    Column("seq", "BIGINT", "from 0", "its count; a missing number is a missing record"),
    Column("schema_version", "VARCHAR", "", "of the line: NULL in older ones"),
    Column("version", "VARCHAR", "", "of an older line: 2.0, 3.0-enhanced, NULL in v1"),
    *_columns(
        "JSON", "",
        messages="the input, as in OpenAI chat", tools="as in OpenAI chat",
        tool_calls="as in OpenAI chat", choices="as in OpenAI chat", finish_reasons="list of texts",
        attempts="list of {t_ms, status, error_type, request_id}", stop="request setting", tags="list",
        metadata="the caller's object", raw_request="verbatim", raw_response="verbatim",
    ),
)  # fmt: skip
"""Name, DuckDB's type, unit and meaning of every column; ``docs/reference/analysis.md`` is held to it."""

GROUPABLE: Final = frozenset(
    column.name
    for column in COLUMNS
    if column.type in {"VARCHAR", "BOOLEAN", "BIGINT"}
    and column.name not in {"question", "response", "system", "message", "seq"}
)
"""What one may group by: texts and numbers that are few."""

# Long texts are read as such: as JSON they would be escaped only to be unescaped again, at twice the cost.
_READ_AS_TEXT: Final = frozenset({"question", "response", "schema_version", "writer_id"})
_GROUP_KEYS: Final = tuple(dict.fromkeys(path[0] for path in NESTED.values()))
_READ: Final = tuple(dict.fromkeys((*(column.name for column in COLUMNS), *_GROUP_KEYS)))
_LAST_SECOND: Final = 253_402_300_799
_MOMENT: Final = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})?"
_SOME_KEYS: Final = ("schema_version", "version", "timestamp", "record_id", "question", "response")


def identifier(name: str) -> str:
    """Return *name* as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return *text* as an SQL string, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def read_sql(paths: list[str], *, compressed: bool, max_line_bytes: int, extra: tuple[str, ...] = ()) -> str:
    """Return the SQL that reads lines of files, one row a line, NULL throughout where it cannot be read."""
    columns = {name: "VARCHAR" if name in _READ_AS_TEXT else "JSON" for name in (*_READ, *extra)}
    spelt = ", ".join(f"{literal(name)}: '{type_}'" for name, type_ in columns.items())
    return (
        f"SELECT * FROM read_json([{', '.join(map(literal, paths))}], format='newline_delimited', "
        f"compression='{'gzip' if compressed else 'none'}', ignore_errors=true, records=true, "
        f"maximum_object_size={max_line_bytes}, columns={{{spelt}}})"
    )


def lines_sql(source: str, *, assumed_offset: timedelta | None = None, extra: tuple[str, ...] = ()) -> str:
    """Return the SQL of all lines in *source*, typed, with `is_record` false where nothing could be read."""
    columns = [f"{_expression(column, assumed_offset)} AS {identifier(column.name)}" for column in COLUMNS]
    columns += [identifier(name) for name in extra]
    nothing = " AND ".join(f"{name} IS NULL" for name in _SOME_KEYS)
    # DuckDB's parser takes NaN, Infinity and 1e999, which are no JSON.
    no_json = "coalesce(NOT isfinite(TRY_CAST(CAST(latency_ms AS VARCHAR) AS DOUBLE)), false)"
    return f"SELECT {', '.join(columns)}, NOT ({nothing} OR {no_json}) AS is_record FROM ({source})"


_IS_OLDER: Final = (
    "(schema_version IS NULL AND writer_id IS NULL AND (question IS NOT NULL OR response IS NOT NULL) "
    'AND ("timestamp" IS NOT NULL OR version IS NOT NULL))'
)


def _expression(column: Column, assumed_offset: timedelta | None) -> str:
    name = column.name
    special = {
        "schema_version": "schema_version",
        "writer_id": "writer_id",
        "version": f"CASE WHEN {_IS_OLDER} THEN {_text('version')} END",
        "timestamp": f"make_timestamp(CAST(round(({_unix(assumed_offset)}) * 1e6) AS BIGINT))",
        "unix_timestamp": _unix(assumed_offset),
        "record_id": f"coalesce({_text('record_id')}, CASE WHEN {_IS_OLDER} THEN {_v1_id()} END)",
        "event": f"coalesce({_text('event')}, CASE WHEN {_IS_OLDER} THEN 'response' END)",
        "provider": f"coalesce({_text('provider')}, CASE WHEN {_IS_OLDER} THEN {_provider()} END)",
    }
    return special.get(name) or _typed(column)


def _typed(column: Column) -> str:
    name = column.name
    top = _test(column, name, identifier(name))
    older = [_test(column, name, _at(path)) for path in (NESTED.get(name), *COPIED.get(name, ())) if path]
    if not older:
        return top
    nested = older[0] if name in NESTED else "NULL"
    elsewhere = ", ".join(older[1:] if name in NESTED else older) or "NULL"
    return f"CASE WHEN {_IS_OLDER} THEN coalesce({nested}, {top}, {elsewhere}) ELSE {top} END"


def _at(path: tuple[str, ...]) -> str:
    """Return the JSON at a path of an older line; its names are ours, so they need no quoting."""
    key, *deeper = path
    column = f"TRY_CAST({identifier(key)} AS JSON)" if key in _READ_AS_TEXT else identifier(key)
    return f"({column}->{literal('$.' + '.'.join(deeper))})"


def _test(column: Column, name: str, json: str) -> str:
    """Return *json* with the column's type, NULL where it has another."""
    if name in _READ_AS_TEXT and json == identifier(name):
        # An object that is no text of a 2.0 line has been asked for its `text` before.
        return f"CASE WHEN NOT coalesce({_text('version')}, '') LIKE '2.%' OR left({json}, 1) <> '{{' THEN {json} END"
    if column.type == "VARCHAR":
        return _text(json)
    if column.type == "BOOLEAN":
        return f"CASE CAST({json} AS VARCHAR) WHEN 'true' THEN true WHEN 'false' THEN false END"
    if column.type == "DOUBLE":
        return _number(json)
    if column.type == "BIGINT":
        return _index(json) if FIELDS.get(name) is FIELDS["question_index"] else _count(json)
    kind = {FIELDS["messages"]: "'ARRAY'", FIELDS["metadata"]: "'OBJECT'"}.get(FIELDS.get(name, FIELDS["stop"]))
    return f"CASE WHEN json_type({json}) = {kind} THEN {json} END" if kind else json


def _text(json: str) -> str:
    return f"CASE WHEN json_type({json}) = 'VARCHAR' THEN {json}->>'$' END"


def _number(json: str) -> str:
    value = f"TRY_CAST(CAST({json} AS VARCHAR) AS DOUBLE)"  # a JSON string keeps its quotes, and so is no number
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _count(json: str) -> str:
    return f"CASE WHEN json_type({json}) IN ('BIGINT', 'UBIGINT') THEN TRY_CAST(CAST({json} AS VARCHAR) AS BIGINT) END"


def _index(json: str) -> str:
    """Callers also write such numbers as text or with a point."""
    as_double = f"TRY_CAST(CAST({json} AS VARCHAR) AS DOUBLE)"
    return (
        f"CASE json_type({json}) WHEN 'BIGINT' THEN TRY_CAST(CAST({json} AS VARCHAR) AS BIGINT) "
        f"WHEN 'UBIGINT' THEN TRY_CAST(CAST({json} AS VARCHAR) AS BIGINT) "
        f"WHEN 'DOUBLE' THEN CASE WHEN {as_double} = trunc({as_double}) THEN TRY_CAST({as_double} AS BIGINT) END "
        f"WHEN 'VARCHAR' THEN CASE WHEN regexp_full_match({json}->>'$', '[0-9]{{1,15}}') "
        f"THEN CAST({json}->>'$' AS BIGINT) END END"
    )


def _unix(assumed_offset: timedelta | None) -> str:
    given = f"CASE WHEN {_number('unix_timestamp')} BETWEEN 0 AND {_LAST_SECOND} THEN {_number('unix_timestamp')} END"
    text = _text('"timestamp"')
    has_zone = f"regexp_matches({text}, '(Z|[+-]\\d\\d:\\d\\d)$')"
    zoned = f"epoch(TRY_CAST({text} AS TIMESTAMPTZ))"
    naive = "NULL"
    if assumed_offset is not None:
        naive = f"epoch(TRY_CAST({text} AS TIMESTAMP)) - {assumed_offset.total_seconds()!r}"
    parsed = f"CASE WHEN {has_zone} THEN {zoned} ELSE {naive} END"
    return (
        f"coalesce({given}, CASE WHEN {_IS_OLDER} AND regexp_full_match({text}, {literal(_MOMENT)}) "
        f"AND ({parsed}) BETWEEN 0 AND {_LAST_SECOND} THEN {parsed} END)"
    )


def _provider() -> str:
    platform = f"lower(trim(coalesce({_text(_at(('platform', 'name')))}, {_text('platform')})))"
    known = " ".join(f"WHEN {literal(name)} THEN {literal(provider)}" for name, provider in PROVIDERS.items())
    return f"CASE {platform} {known} ELSE {platform} END"


def _v1_id() -> str:
    """Return the SQL of RFC 9562's UUIDv5 over the content that `_shapes` takes."""
    values = [
        f"to_json({identifier(name)})" if name in _READ_AS_TEXT else f"CAST({identifier(name)} AS VARCHAR)"
        for name in V1_CONTENT
    ]
    content = " || ',' || ".join(f"coalesce({value}, 'null')" for value in values)
    digest = f"sha1(unhex('{V1_NAMESPACE.hex}') || encode('[' || {content} || ']'))"
    variant = "substr('89ab89ab89ab89ab', CAST(('0x' || substr(d, 17, 1)) AS INTEGER) + 1, 1)"
    return (
        f"list_transform([{digest}], lambda d: substr(d, 1, 8) || '-' || substr(d, 9, 4) || '-5' || substr(d, 14, 3) "
        f"|| '-' || {variant} || substr(d, 18, 3) || '-' || substr(d, 21, 12))[1]"
    )
