"""Whole records in damaged lines: :mod:`ai_response_logging._parse`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_response_logging._parse import records_in
from ai_response_logging.record import seal, tail_of

TAIL = tail_of("w")


def sealed(name: str, extra: bytes = b"") -> bytes:
    """Return a line of today without its newline, with everything in it that a cut may go through."""
    body = json.dumps(
        {
            "schema_version": "1.0",
            "record_id": name,
            "response": '中文 "x" \\ 😀',
            "n": -12.5e-7,
            "ok": True,
            "m": [1, None],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    return seal(body[:-1] + extra, TAIL, 0)[:-1]


def older(name: str, **more: Any) -> bytes:
    """Return a line of an older shape without its newline."""
    return json.dumps(
        {"record_id": name, "timestamp": "t", "version": "2.0", "question": {"text": "\u4e2d"}, **more}
    ).encode()


def found(line: bytes) -> list[str]:
    """Return the ids of the records that are found in a damaged line."""
    return [record["record_id"] for record in records_in(line + b"\n")]


@pytest.mark.parametrize("make", [sealed, older])
def test_a_record_glued_behind_any_piece_of_another_is_found(make: Any) -> None:
    """Wherever the first was cut, but right where an object may follow: there it might be a part of it."""
    first, second = make("a"), make("b")
    for cut in range(1, len(first)):
        piece = first[:cut]
        expected = [] if _may_be_followed_by_an_object(piece) else ["b"]
        assert found(piece + second) == expected, piece


def _may_be_followed_by_an_object(piece: bytes) -> bool:
    is_in_a_text = piece.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2 == 1
    end = piece.rstrip()[-1:]
    is_in_a_list = piece.count(b"[") > piece.count(b"]")
    return not is_in_a_text and (end in b":[" or (end == b"," and is_in_a_list))


def test_whole_records_on_one_line_are_all_found() -> None:
    """Also with pieces between them and zeros around them."""
    a, b, c = sealed("a"), older("b"), sealed("c")

    assert found(a + b + c) == ["a", "b", "c"]
    assert found(a[:50] + b + c[:40] + a) == ["b", "a"]
    assert found(bytes(4096) + a) == ["a"]
    assert found(a + bytes(4096)) == ["a"]
    assert found(a[:50] + bytes(100) + b) == ["b"]


def test_a_record_inside_another_is_none_of_its_own() -> None:
    """A program may log what it has read from a log: cut anywhere, only the outer one is damaged."""
    for inner in (sealed("in"), older("in")):
        outer = sealed("out", b',"metadata":{"seen":' + inner + b"}")
        for cut in range(1, len(outer)):
            assert found(outer[:cut]) == [], outer[:cut]
        assert found(outer.replace(b"schema", b"sch\0ema", 1)) == []


def test_a_record_that_was_altered_is_not_taken() -> None:
    """Two pieces that happen to parse have a checksum that says so."""
    piece, whole = sealed("a")[:60], sealed("b")

    assert found(piece + whole.replace(b"true", b"null")) == []
    assert found(piece + whole.replace("中".encode(), b"\xff\xff\xff")) == []


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"[" * 10_000, b"\xff" * 100, b'{"record_id":' * 1000, b'{"version":1}{"x":1}']
)
def test_a_line_without_any_record_has_none(line: bytes) -> None:
    """Whatever the bytes."""
    assert found(line) == []
