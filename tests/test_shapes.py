"""The older shapes as records of today, and back: :mod:`ai_response_logging._shapes` and ``_nested``."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ai_response_logging._nested import flat_record, native_of, to_nested
from ai_response_logging._shapes import V1_NAMESPACE, has_older_shape, to_original, to_today

V1: dict[str, Any] = {
    "timestamp": "2024-05-06T07:08:09.123456",
    "question": "Which lamp?",
    "response": "The green one.",
    "platform": "豆包",
    "model": "doubao-1",
    "success": True,
    "brand": "Lumo",
    "competitor": "Brill",
    "latency_ms": 1250.5,
    "tokens_used": 77,
    "metadata": {"task_id": "run-7", "question_index": 3, "nothing": None},
}
V2: dict[str, Any] = {
    "record_id": "0c3d6a3e-0000-4000-8000-000000000001",
    "timestamp": "2025-02-03T16:00:01.5",
    "unix_timestamp": 1738569601.5,
    "version": "2.0",
    "question": {"text": "Which lamp?", "stats": {"length": 11}},
    "response": {"text": "", "stats": {}},
    "platform": {"name": "DeepSeek", "model": "deepseek-chat", "api_version": "v1"},
    "business": {"brand": "Lumo", "competitor": None, "industry": "light", "question_category": "search"},
    "performance": {"latency_ms": 900, "tokens": {"total": 12, "prompt": 5, "completion": 7}, "throughput": 13.3},
    "status": {"success": False, "error_message": "slow", "error_type": "timeout", "http_status_code": 504},
    "reliability": {"retry_count": 2, "circuit_breaker_open": False},
    "request_config": {"temperature": 0.2, "max_tokens": 100, "proxy": "none"},
    "context": {"execution_id": "exec_1", "session_id": "s", "question_index": 1, "total_questions": 4},
    "system": {"hostname": "lamp-1", "python_version": "3.9"},
    "quality": {"score": 0.5, "has_structured_data": True},
    "raw": {"request": {"n": None}, "response": None},
    "metadata": {"source": "engine"},
    "experiment": "A",
}
V3: dict[str, Any] = {
    "record_id": "0c3d6a3e-0000-4000-8000-000000000002",
    "timestamp": "2025-06-07T08:09:10.000001",
    "unix_timestamp": 1749254950,
    "version": "3.0-enhanced",
    "question": "Which lamp?",
    "response": "Both.",
    "platform": "zhipu",
    "model": "glm-4",
    "success": True,
    "execution_id": "exec_2",
    "error_code": None,
    "tags": ["a"],
}


def canonical(value: object) -> str:
    """Return JSON that is equal for equal objects, and tells 1 from 1.0 and from true."""
    return json.dumps(value, sort_keys=True)


def test_a_v1_line_as_a_record_of_today() -> None:
    """Its id is made of its content, the run comes from its metadata, and its time is known once a zone is."""
    record = to_today(V1, line=4, assume_timezone=timezone(timedelta(hours=8)))

    assert record == {
        "schema_version": "1.0",
        "record_id": record["record_id"],
        "timestamp": "2024-05-05T23:08:09.123456Z",
        "unix_timestamp": datetime(2024, 5, 5, 23, 8, 9, 123456, tzinfo=UTC).timestamp(),
        "event": "response",
        "provider": "doubao",
        "execution_id": "run-7",
        "question_index": 3,
        **{key: value for key, value in V1.items() if key != "timestamp"},
        "source_format": {
            "version": "v1",
            "line": 4,
            "timestamp_raw": V1["timestamp"],
            "made": ["record_id", "unix_timestamp", "event", "provider", "execution_id", "question_index"],
        },
    }
    content = (
        '["2024-05-06T07:08:09.123456","Which lamp?","The green one.","豆包","doubao-1",true,"Lumo","Brill",1250.5,77,'
        '{"task_id":"run-7","question_index":3,"nothing":null}]'
    )
    assert record["record_id"] == str(uuid.uuid5(V1_NAMESPACE, content))
    assert to_today(V1)["record_id"] == record["record_id"]
    assert to_today({**V1, "response": "Another."})["record_id"] != record["record_id"]


def test_a_line_without_a_zone_has_no_time_unless_one_is_assumed() -> None:
    """Nobody guesses: eight hours are a wrong night."""
    assert not {"timestamp", "unix_timestamp"} & set(to_today(V1))
    assert to_today({**V1, "timestamp": "2024-05-06 07:08:09+02:00"})["timestamp"] == "2024-05-06T05:08:09.000000Z"
    assert to_today(V3, assume_timezone=UTC)["timestamp"] == "2025-06-07T00:09:10.000000Z"


def test_a_nested_line_as_a_record_of_today() -> None:
    """What has a field today is flat; the rest stands where it stood."""
    record = to_today(V2, line=1)

    assert record == {
        "schema_version": "1.0",
        "record_id": V2["record_id"],
        "timestamp": "2025-02-03T08:00:01.500000Z",
        "unix_timestamp": 1738569601.5,
        "event": "response",
        "provider": "deepseek",
        "question": "Which lamp?",
        "response": "",
        "platform": "DeepSeek",
        "model": "deepseek-chat",
        "api_version": "v1",
        "brand": "Lumo",
        "industry": "light",
        "question_category": "search",
        "latency_ms": 900,
        "tokens_used": 12,
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "success": False,
        "error_message": "slow",
        "error_type": "timeout",
        "http_status_code": 504,
        "retry_count": 2,
        "circuit_breaker_open": False,
        "temperature": 0.2,
        "max_tokens": 100,
        "execution_id": "exec_1",
        "session_id": "s",
        "question_index": 1,
        "total_questions": 4,
        "host": "lamp-1",
        "response_quality_score": 0.5,
        "raw_request": {"n": None},
        "metadata": {"source": "engine"},
        "experiment": "A",
        "source_format": {
            "version": "2.0",
            "line": 1,
            "timestamp_raw": "2025-02-03T16:00:01.5",
            "made": ["event", "provider"],
            "rest": {
                "question": {"stats": {"length": 11}},
                "response": {"stats": {}},
                "business": {"competitor": None},
                "performance": {"throughput": 13.3},
                "request_config": {"proxy": "none"},
                "system": {"python_version": "3.9"},
                "quality": {"has_structured_data": True},
                "raw": {"response": None},
            },
        },
    }


def test_a_flat_line_as_a_record_of_today() -> None:
    """It stays as it is, but for its time and for null, which stands only inside objects today."""
    record = to_today(V3)

    assert record == {
        **{key: value for key, value in V3.items() if key not in {"version", "error_code"}},
        "schema_version": "1.0",
        "timestamp": "2025-06-07T00:09:10.000000Z",
        "event": "response",
        "provider": "zhipu",
        "source_format": {
            "version": "3.0-enhanced",
            "timestamp_raw": V3["timestamp"],
            "made": ["event", "provider"],
            "rest": {"error_code": None},
        },
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"context": {"task_id": "t"}}, {"execution_id": "t"}),
        ({"context": {}, "metadata": {"execution_id": "m", "user_id": "u"}}, {"execution_id": "m", "user_id": "u"}),
        ({"context": {"execution_id": 5, "task_id": "t"}}, {"execution_id": "t"}),
        ({"platform": "qwen"}, {"platform": "qwen", "provider": "qwen"}),
        ({"latency_ms": 7}, {"latency_ms": 900}),
        ({"performance": {}, "latency_ms": 7}, {"latency_ms": 7}),
        ({"status": {"success": "yes"}}, {"success": None}),
        ({"provider": "mine", "event": "tombstone"}, {"provider": "mine", "event": "tombstone"}),
        ({"seq": 1, "checksum": "x", "source_format": 3}, {"seq": None, "checksum": None}),
    ],
)
def test_what_stands_elsewhere_is_found_and_goes_back(change: dict[str, Any], expected: dict[str, Any]) -> None:
    """Some writers put fields elsewhere or of another type: found where it can be, and never moved for good."""
    original = {**V2, **change}

    record = to_today(original)

    assert {name: record.get(name) for name in expected} == expected
    assert canonical(to_original(record)) == canonical(original)


@pytest.mark.parametrize("original", [V1, V2, V3], ids=["v1", "2.0", "3.0-enhanced"])
def test_each_shape_comes_back_as_it_was_through_json(original: dict[str, Any]) -> None:
    """What a record of today says of its past is enough for the old object, also once it was written and read."""
    before = canonical(original)
    written = json.dumps({**to_today(original, line=9), "writer_id": "w", "seq": 0, "checksum": "00000000"})

    assert canonical(to_original(json.loads(written))) == before
    assert canonical(original) == before


def test_a_record_of_today_has_no_way_back() -> None:
    """Saying so beats making something up."""
    with pytest.raises(ValueError, match="never in an older shape"):
        to_original({"schema_version": "1.0"})


def test_what_counts_as_an_older_shape() -> None:
    """A question or an answer, with a time or a version, and none of our marks."""
    assert all(map(has_older_shape, (V1, V2, V3)))
    assert not has_older_shape({**V3, "schema_version": "1.0"})
    assert not has_older_shape({**V3, "writer_id": "w"})
    assert not has_older_shape({"record_id": "a", "timestamp": "t"})
    assert not has_older_shape({"question": "q"})


NATIVE: dict[str, Any] = {
    "schema_version": "1.0",
    "record_id": "r",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "unix_timestamp": 1767225600.0,
    "event": "tombstone",
    "message": "",
    "question": "q",
    "platform": 5,
    "model": "m",
    "system": "be brief",
    "context": {"mine": 1},
    "version": "7",
    "error_class": "E",
    "metadata": {"execution_id": "e"},
    "encode_errors": [],
    "writer_id": "w",
    "seq": 3,
    "checksum": "0123abcd",
}


def test_a_record_of_today_as_a_nested_line_and_back() -> None:
    """Older programs find what they know; nothing is lost, nor the order of the keys."""
    nested = to_nested(NATIVE)

    assert nested["version"] == "2.0"
    assert nested["question"] == {"text": "q"}
    assert nested["platform"] == {"model": "m"}
    assert has_older_shape(nested)
    back = native_of(json.loads(json.dumps(nested)))
    assert back == NATIVE
    assert list(back) == list(NATIVE)
    assert flat_record(nested) == NATIVE


@pytest.mark.parametrize(
    "source", [None, 3, {"schema_version": "1.0"}, {"schema_version": "1.0", "keys": ["question", "x"], "rest": {}}]
)
def test_somebody_elses_source_format_is_theirs(source: object) -> None:
    """A line that only looks like one of ours is read as the older line that it is."""
    original = {**V2, "source_format": source}

    assert native_of(original) is None
    assert canonical(to_original(flat_record(original))) == canonical(original)
