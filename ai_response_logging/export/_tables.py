"""Tables: CSV, and Parquet through DuckDB, both with the same typed columns."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

from ..errors import MissingExtraError, OutputError
from ._files import Manifest, RowFile, directory_in_the_making, hashed

__all__ = ["COLUMNS", "flat_row", "write_csv", "write_parquet"]

_TEXT, _COUNT, _NUMBER, _FLAG, _JSON = "VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "JSON"

COLUMNS: Final[Mapping[str, str]] = {
    "record_id": _TEXT, "timestamp": "TIMESTAMP WITH TIME ZONE", "event": _TEXT, "call_id": _TEXT,
    "execution_id": _TEXT, "question_index": _COUNT, "total_questions": _COUNT, "model_index": _COUNT,
    "total_models": _COUNT, "provider": _TEXT, "platform": _TEXT, "model": _TEXT, "response_model": _TEXT,
    "api_version": _TEXT, "operation": _TEXT, "success": _FLAG, "question": _TEXT, "response": _TEXT, "system": _TEXT,
    "latency_ms": _NUMBER, "ttft_ms": _NUMBER, "tokens_used": _COUNT, "prompt_tokens": _COUNT,
    "completion_tokens": _COUNT, "cached_tokens": _COUNT, "reasoning_tokens": _COUNT, "stream": _FLAG,
    "stream_end": _TEXT, "error_type": _TEXT, "error_class": _TEXT, "error_message": _TEXT,
    "http_status_code": _COUNT, "retry_count": _COUNT, "temperature": _NUMBER, "top_p": _NUMBER, "max_tokens": _COUNT,
    "seed": _COUNT, "timeout_seconds": _NUMBER, "brand": _TEXT, "competitor": _TEXT, "industry": _TEXT,
    "question_category": _TEXT, "session_id": _TEXT, "user_id": _TEXT, "trace_id": _TEXT, "span_id": _TEXT,
    "circuit_breaker_open": _FLAG, "response_quality_score": _NUMBER, "response_id": _TEXT, "request_id": _TEXT,
    "level": _TEXT, "logger": _TEXT, "message": _TEXT, "host": _TEXT, "pid": _COUNT, "thread": _TEXT,
    "writer_id": _TEXT, "seq": _COUNT, "schema_version": _TEXT, "messages": _JSON, "tools": _JSON, "tool_calls": _JSON,
    "choices": _JSON, "finish_reasons": _JSON, "attempts": _JSON, "stop": _JSON, "tags": _JSON, "metadata": _JSON,
    "raw_request": _JSON, "raw_response": _JSON, "other": _JSON,
}  # fmt: skip
"""Column -> its type in DuckDB's words; ``other`` has every field that is no column, or not of its column's type."""

_NOT_SHOWN: Final = frozenset({"unix_timestamp", "checksum"})
_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    _TEXT: str, _COUNT: int, _NUMBER: (int, float), _FLAG: bool, "TIMESTAMP WITH TIME ZONE": str,
}  # fmt: skip
_BIGGEST: Final = 2**63 - 1


def flat_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return *record* with exactly the columns; what does not fit its column is under ``other``, never lost."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    other: dict[str, Any] = {}
    for name, value in record.items():
        kind = COLUMNS.get(name)
        if kind == _JSON and name != "other":
            row[name] = json.dumps(value, ensure_ascii=False)
        elif kind is not None and name != "other" and _fits(value, kind):
            row[name] = value
        elif name not in _NOT_SHOWN and value is not None:
            other[name] = value
    moment = _moment(record)
    if moment is None and row["timestamp"] is not None:  # without a zone, or no time at all
        other["timestamp"] = row["timestamp"]
    row["timestamp"] = moment and moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if other:
        row["other"] = json.dumps(other, ensure_ascii=False)
    return row


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool) and kind != _FLAG:
        return False
    return isinstance(value, _KINDS[kind]) and not (isinstance(value, int) and abs(value) > _BIGGEST)


def _moment(record: Mapping[str, Any]) -> datetime | None:
    moment = record.get("unix_timestamp")
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        return None
    try:
        return datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def write_csv(records: Iterable[Mapping[str, Any]], output: RowFile) -> None:
    """
    Write *records* as CSV in UTF-8: a head, then one row each, text quoted as RFC 4180 has it.

    Values stand as they are, also those that a spreadsheet takes for a formula.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow(_cell(value) for value in flat_row(record).values())
        output.rows += 1
        output.write(text.getvalue().encode("utf-8", "replace"))
        text.seek(0)
        text.truncate()
    output.write(text.getvalue().encode("utf-8", "replace"))


def _cell(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def write_parquet(records: Iterable[Mapping[str, Any]], path: str, manifest: Manifest) -> None:
    """
    Write *records* as a directory of Parquet files, zstd, one folder for each day (UTC): ``date=2026-01-31/``.

    Raises:
        MissingExtraError: DuckDB is not installed.
        ConfigError: The directory cannot be made.
        OutputError: The disk is full, or refuses.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError("duckdb", "analysis") from None
    with directory_in_the_making(path) as making:
        rows = os.path.join(making, ".rows.ndjson")
        longest = _LEAST_OBJECT_BYTES
        with open(rows, "wb", opener=_for_few_eyes) as file:
            for row in _dated(records):
                line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                longest = max(longest, len(line))
                file.write(line)
                manifest.rows += 1
        try:
            _by_duckdb(duckdb, rows, making, longest)
        except duckdb.IOException as error:  # its words for what the disk refuses
            raise OutputError(path, str(error)) from error
        for name in os.listdir(making):
            if not name.startswith("date="):
                os.unlink(os.path.join(making, name))
    manifest.files = [
        hashed(os.path.join(folder, name)) for folder, _, names in sorted(os.walk(path)) for name in sorted(names)
    ]


_LEAST_OBJECT_BYTES: Final = 16 << 20
_MEMORY_BYTES: Final = 512_000_000


def _by_duckdb(duckdb: ModuleType, rows: str, directory: str, longest: int) -> None:
    # DuckDB reads pieces of twice its largest object.
    limit = f"{max(_MEMORY_BYTES, 8 * longest)}B"
    with duckdb.connect(config={"memory_limit": limit, "temp_directory": directory, "threads": 2}) as database:
        for setting in ("autoinstall_known_extensions", "autoload_known_extensions", "preserve_insertion_order"):
            database.execute(f"SET {setting} = false")
        text = {name: _TEXT if kind == _JSON else kind for name, kind in COLUMNS.items()}
        table = database.read_json(
            rows, columns={"date": _TEXT, **text}, format="newline_delimited", maximum_object_size=longest
        )
        table.to_parquet(directory, compression="zstd", partition_by=["date"], overwrite=True)


def _for_few_eyes(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _dated(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in records:
        row = flat_row(record)
        yield {"date": (row["timestamp"] or "unknown")[:10], **row}
