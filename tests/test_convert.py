"""A log rewritten in another shape, and proven: :mod:`ai_response_logging.convert`."""

from __future__ import annotations

import gzip
import json
import os
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from test_shapes import NATIVE, V1, V2, V3

from ai_response_logging import convert
from ai_response_logging._nested import to_nested
from ai_response_logging.convert import convert_log
from ai_response_logging.errors import ConfigError, LogReadError, OutputError
from ai_response_logging.reader import read_log
from ai_response_logging.record import seal, tail_of
from ai_response_logging.verify import verify_log

EIGHT = timezone(timedelta(hours=8))
TODAY = seal(b'{"schema_version":"1.0","record_id":"n","unix_timestamp":1.50,"event":"response"', tail_of("w"), 0)
ODD = (
    b'{"version":"2.0","question":{"text":"cut \\ud83d"},"timestamp":"x","n":123456789012345678901234567890,'
    b'"f":1e3,"status":{"success":1}}\n'
)


def line(value: dict[str, Any]) -> bytes:
    """Return an object as a line of an old logger."""
    return json.dumps(value).encode() + b"\n"


def objects(path: Path) -> list[Any]:
    """Return every object of a file."""
    data = path.read_bytes()
    return [json.loads(one) for one in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]


def test_all_shapes_there_and_back_are_equal(log_path: Path, tmp_path: Path) -> None:
    """Older lines become sealed records that verify proves, today's stay byte for byte, and back is back."""
    lines = [line(V1), line(V2), TODAY, line(V3), ODD, line(to_nested(NATIVE)), b'{"not":"ours"}\n']
    log_path.with_name(f"{log_path.name}.1.gz").write_bytes(gzip.compress(b"".join(lines[:3])))
    log_path.write_bytes(b"".join(lines[3:]))
    there, back = tmp_path / "today.jsonl", tmp_path / "back.jsonl.gz"

    done = convert_log(log_path, there, assume_timezone=EIGHT)

    assert done.is_proven
    assert (done.records, done.equal, done.converted, done.bad_lines) == (7, 7, 5, 0)
    assert TODAY in there.read_bytes()
    again = convert_log(there, back, to="2.0")
    assert again.is_proven
    expected = [json.loads(one) for one in lines]
    assert objects(back)[:2] + objects(back)[3:5] == expected[:2] + expected[3:5]
    assert objects(back)[5] == expected[5]
    third = convert_log(back, tmp_path / "third.jsonl", assume_timezone=EIGHT)
    assert third.is_proven
    assert [one for one in objects(tmp_path / "third.jsonl") if one.get("record_id") == "n"] == [json.loads(TODAY)]


def test_what_was_converted_is_whole(log_path: Path, tmp_path: Path) -> None:
    """Verify finds nothing to say against it, and reading it gives what reading the log gave."""
    log_path.write_bytes(line(V1) + line(V2) + TODAY + line(V3))
    out = tmp_path / "today.jsonl"
    convert_log(log_path, out, assume_timezone=EIGHT)

    report = verify_log(out)
    assert (report.whole, report.records, report.older) == (True, 4, 0)
    added = {"writer_id", "seq", "checksum"}
    assert [{name: value for name, value in one.items() if name not in added} for one in read_log(out)] == [
        {name: value for name, value in one.items() if name not in added}
        for one in read_log(log_path, assume_timezone=EIGHT)
    ]


def test_real_lines_there_and_back_are_equal(sample_path: Path, tmp_path: Path) -> None:
    """152 of 152."""
    there, back = tmp_path / "today.jsonl.gz", tmp_path / "back.jsonl"

    assert convert_log(sample_path, there).equal == 152
    assert convert_log(there, back, to="2.0").is_proven
    assert objects(back) == objects(sample_path)


def test_bad_lines_are_kept_as_they_are(log_path: Path, tmp_path: Path) -> None:
    """Nothing is thrown away: they go beside the new file, byte for byte, and what is glued to them comes along."""
    bad = [b"hello\n", line(V2)[:40] + line(V3), b"\xff\xfe\n", bytes(20) + b"\n"]
    log_path.write_bytes(line(V2) + b"".join(bad) + line(V3) + b'{"unfinished')
    out = tmp_path / "today.jsonl"

    done = convert_log(log_path, out)

    assert done.is_proven
    assert (done.records, done.bad_lines, [one.line for one in done.bad]) == (3, 4, [2, 3, 4, 5])
    assert Path(done.bad_file).read_bytes() == b"".join(bad)


def test_a_line_without_a_zone_stops_it_and_says_what_to_do(log_path: Path, tmp_path: Path) -> None:
    """A record of today has a time, and nobody guesses one."""
    log_path.write_bytes(line(V3) + line(V1))

    with pytest.raises(ConfigError, match=r"line 2 of .*--assume-timezone \+08:00"):
        convert_log(log_path, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == [log_path.name]


def test_nothing_is_overwritten_unless_forced_and_the_log_never(log_path: Path, tmp_path: Path) -> None:
    """Neither another file, nor one of the log's own under any name."""
    log_path.write_bytes(line(V3))
    out, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    out.write_text("mine")
    link.symlink_to(log_path)

    with pytest.raises(ConfigError, match="there already"):
        convert_log(log_path, out)
    assert out.read_text() == "mine"
    for name in (log_path, link):
        with pytest.raises(ConfigError, match=r"file of the log itself"):
            convert_log(log_path, name, force=True)
    assert convert_log(log_path, out, force=True).is_proven
    assert log_path.read_bytes() == line(V3)


def test_a_failure_leaves_nothing_behind(log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file appears whole or not at all."""
    log_path.write_bytes(line(V3) + b"bad\n")

    def refuse(_from: object, _to: object) -> None:
        raise OSError(5, "refused")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OutputError, match=r"out\.jsonl\.bad could not be written: refused; the log is untouched"):
        convert_log(log_path, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == [log_path.name]


def test_the_new_name_is_synced(log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory that has the new file in it, so that both survive loss of power."""
    log_path.write_bytes(line(V3))
    (tmp_path / "place").mkdir()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    convert_log(log_path, tmp_path / "place" / "out.jsonl")

    assert synced[-1] == (tmp_path / "place").stat().st_ino


def test_a_wrong_conversion_is_seen(log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof reads what was written; one field lost in one record is no proof."""
    log_path.write_bytes(line(V2) + line(V3))
    really = convert.to_today

    def forget(original: Any, **options: Any) -> dict[str, Any]:
        record = really(original, **options)
        record.pop("retry_count", None)
        return record

    monkeypatch.setattr(convert, "to_today", forget)
    done = convert_log(log_path, tmp_path / "out.jsonl")

    assert not done.is_proven
    assert (done.records, done.equal) == (2, 1)


def test_no_log_and_no_such_shape_are_errors(log_path: Path, tmp_path: Path) -> None:
    """As for every reader, and before anything is written."""
    with pytest.raises(LogReadError, match="there is no such file"):
        convert_log(log_path, tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match=r"1\.0 or 2\.0"):
        convert_log(log_path, tmp_path / "out.jsonl", to="3.0")
