"""A small log that has one of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def line(number: int, **fields: Any) -> dict[str, Any]:
    """Return a record of today as the writer would have it, without what no export looks at."""
    return {
        "schema_version": "1.0",
        "record_id": f"0190c0de-0000-7000-8000-{number:012d}",
        "timestamp": f"2026-03-{1 + number % 3:02d}T00:00:00.250000Z",
        "unix_timestamp": 1772323200.25 + 86400 * (number % 3),
        "event": "response",
        "level": "INFO",
        "logger": "ai_responses",
        "message": "ai_response",
        "host": "h",
        "pid": 7,
        "thread": "MainThread",
        "platform": "DeepSeek",
        "provider": "deepseek",
        "model": "deepseek-chat",
        "question": f"Question {number}?",
        "response": f"Answer {number}.",
        "success": True,
        **fields,
    }


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RECORDS = [
    line(1, latency_ms=1500, prompt_tokens=3, completion_tokens=4, tokens_used=7, metadata={"k": "v"}, own_field=5),
    line(2, success=False, response="", error_type="timeout", error_class="APITimeoutError", error_message="late"),
    line(3, event="start"),
    line(4, finish_reasons=["length"]),
    line(5, stream=True, stream_end="abandoned"),
    line(6, question=""),
    line(7, response=" "),
    line(8, response="I'm sorry, but I can't help with that."),
    line(9, response="抱歉，作为一个人工智能助手，我无法为您提供这方面的帮助。"),
    line(10, question="Question 1?", response="Answer 1."),
    line(11, system="Be brief.", temperature=0.5, max_tokens=9, trace_id="0af7651916cd43dd8448eb211c80319c"),
    line(12, tool_calls=[CALL], response="", finish_reasons=["tool_calls"], tools=[{"type": "function"}]),
    line(
        13,
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}]},
        ],
        question="c",
    ),
    line(14, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]),
    line(15, operation="embeddings"),
    line(16, question='品牌，"推荐"\n?', response="=SUM(A1:A9), 华为\r\n小米", model="qwen"),
]
RECORDS.append(RECORDS[0])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log, with one line that cannot be read."""
    path = tmp_path / "log.jsonl"
    lines = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    path.write_text("\n".join([*lines[:4], '{"torn', *lines[4:]]) + "\n", encoding="utf-8")
    return path
