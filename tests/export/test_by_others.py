"""Each output, checked by something that is not ours: schemas as providers document them, and others' readers."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ai_response_logging.export import Selection, export
from ai_response_logging.export._tables import COLUMNS
from ai_response_logging.export._training import Preference

from .conftest import RECORDS, line

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "ai_responses_sample.jsonl"

MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"type": ["string", "array", "null"]},
        "tool_calls": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "type", "function"],
                "properties": {"type": {"const": "function"}},
            },
        },
    },
}
MESSAGES = {"type": "array", "minItems": 1, "items": MESSAGE}
ANSWER = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {"allOf": [MESSAGE, {"properties": {"role": {"const": "assistant"}}}]},
}


def row(**fields: Any) -> dict[str, Any]:
    """Return the schema of an object that has these fields."""
    return {"type": "object", "required": list(fields), "properties": fields}


# As the providers' pages describe their files: fine-tuning, preference optimization, batch, TRL's dataset types.
SCHEMAS: dict[str, Any] = {
    "openai-chat": row(messages={**MESSAGES, "minItems": 2}),
    "trl": row(messages={**MESSAGES, "minItems": 2}),
    "openai-dpo": row(input=row(messages=MESSAGES), preferred_output=ANSWER, non_preferred_output=ANSWER),
    "trl-prompt-completion": row(prompt=MESSAGES, completion=ANSWER),
    "trl-preference": row(prompt=MESSAGES, chosen=ANSWER, rejected=ANSWER),
    "alpaca": {
        **row(instruction={"type": "string", "minLength": 1}, input={"type": "string"}, output={"type": "string"}),
        "additionalProperties": False,
    },
    "openai-batch": row(
        custom_id={"type": "string", "minLength": 1},
        method={"const": "POST"},
        url={"enum": ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"]},
        body=row(model={"type": "string"}),
    ),
    "openai-batch-output": row(
        id={"type": "string"},
        custom_id={"type": "string"},
        response={"type": ["object", "null"]},
        error={"type": ["object", "null"]},
    ),
}
SCHEMAS["alpaca"]["properties"].update(system={"type": "string"}, history={"type": "array"})


def logs(log: Path) -> list[Path]:
    """Return the small log with one of everything, one with rivals, and the real lines where they are."""
    rivals = log.parent / "rivals.jsonl"
    lines = (line(n, question="q", response=f"r{n}", tokens_used=n) for n in range(3))
    rivals.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return [log, rivals, *([SAMPLE] if SAMPLE.exists() else [])]


@pytest.mark.parametrize("name", SCHEMAS)
def test_rows_are_as_the_providers_describe_them(log: Path, name: str) -> None:
    """Each line by the JSON Schema of its format."""
    validator = pytest.importorskip("jsonschema").Draft202012Validator(SCHEMAS[name])
    count = 0
    for number, path in enumerate(logs(log)):
        out = log.parent / f"out-{number}"
        export(path, out, format=name, preference=Preference(field="tokens_used"))
        for text in out.read_text(encoding="utf-8").splitlines():
            validator.validate(json.loads(text))
            count += 1
    assert count


def test_a_batchs_answers_are_what_the_sdk_reads(log: Path) -> None:
    """Its own model of a completion takes each body, and has the text and the count of tokens."""
    completions = pytest.importorskip("openai.types.chat")
    out = log.parent / "out"
    export(log, out, format="openai-batch-output", selection=Selection(keep_failed=True))
    rows = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    bodies = [completions.ChatCompletion.model_validate(one["response"]["body"]) for one in rows if one["response"]]
    assert bodies[0].choices[0].message.content == "Answer 1."
    assert bodies[0].usage.total_tokens == 7
    assert [one["error"] for one in rows if one["error"]] == [{"code": "timeout", "message": "late"}]


def test_parquet_is_what_arrow_and_duckdb_read(log: Path) -> None:
    """Typed columns, zstd, a folder for each day, and every value where it was."""
    duckdb = pytest.importorskip("duckdb")
    parquet = pytest.importorskip("pyarrow.parquet")
    dataset = pytest.importorskip("pyarrow.dataset")
    out = log.parent / "it's out"
    export(log, out, format="parquet", selection=Selection(everything=True))
    table = dataset.dataset(out, partitioning="hive").to_table()
    assert table.num_rows == len(RECORDS)
    assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("prompt_tokens").type) == "int64"
    assert str(table.schema.field("success").type) == "bool"
    found = {one["record_id"]: one for one in table.to_pylist()}
    first = found[RECORDS[0]["record_id"]]
    assert first["question"] == "Question 1?"
    assert json.loads(first["metadata"]) == {"k": "v"}
    assert json.loads(first["other"]) == {"own_field": 5}
    assert first["timestamp"].isoformat() == "2026-03-02T00:00:00.250000+00:00"
    assert found[RECORDS[15]["record_id"]]["response"] == RECORDS[15]["response"]
    file = next(out.glob("date=2026-03-01/*.parquet"))
    assert parquet.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    with duckdb.connect() as database:
        table = database.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True)
        days = table.aggregate("date, count(*)", "date").order("date").fetchall()
    assert [str(day) for day, _ in days] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert sum(count for _, count in days) == len(RECORDS)


def test_csv_is_what_two_readers_read(log: Path) -> None:
    """Quotes, newlines, commas and formulas stand as they were, for Python's reader and for DuckDB's."""
    duckdb = pytest.importorskip("duckdb")
    out = log.parent / "out.csv"
    export(log, out, format="csv", selection=Selection(everything=True))
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["response"] for row in rows] == [record["response"] for record in RECORDS]
    assert rows[15]["question"] == RECORDS[15]["question"]
    assert list(rows[0]) == list(COLUMNS)
    with duckdb.connect() as database:
        table = database.read_csv(str(out), header=True, all_varchar=True)
        assert table.count("*").fetchall() == [(len(RECORDS),)]
        assert table.filter(f"record_id = '{RECORDS[15]['record_id']}'").project("response").fetchall() == [
            (RECORDS[15]["response"],)
        ]


@pytest.mark.parametrize("source", ["small", "real"])
def test_otlp_is_what_opentelemetrys_own_classes_read(log: Path, source: str) -> None:
    """Each line is a request to a collector; every record is in one, with the conventions' names and types."""
    json_format = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
    if source == "real" and not SAMPLE.exists():
        pytest.skip("../shared/data is not beside this clone")
    out = log.parent / "out"
    manifest = export(log if source == "small" else SAMPLE, out, format="otel-json")
    count = 0
    for text in out.read_text(encoding="utf-8").splitlines():
        request = json.loads(text, object_hook=as_protobuf_wants_ids)
        message = json_format.ParseDict(request, service.ExportLogsServiceRequest())
        records = [
            one for resource in message.resource_logs for scope in resource.scope_logs for one in scope.log_records
        ]
        count += len(records)
        assert all(one.time_unix_nano and one.severity_number == 9 for one in records)
        names = {attribute.key for one in records for attribute in one.attributes}
        assert {"gen_ai.provider.name", "gen_ai.request.model", "ai_response.record_id"} <= names
        if source == "small":
            assert {len(one.trace_id) for one in records} == {0, 16}
            first = {attribute.key: attribute.value for attribute in records[0].attributes}
            assert first["gen_ai.usage.input_tokens"].int_value == 3
            assert first["gen_ai.client.operation.duration"].double_value == 1.5
            assert first["ai_response.metadata.k"].string_value == "v"
            assert message.resource_logs[0].scope_logs[0].scope.name == "ai_responses"
    assert count == manifest.used


def as_protobuf_wants_ids(value: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON has ids in hexadecimal digits, protobuf's in base64: the one place where the two part."""
    for name in ("traceId", "spanId"):
        if name in value:
            value[name] = base64.b64encode(bytes.fromhex(value[name])).decode()
    return value
