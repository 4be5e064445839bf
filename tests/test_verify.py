"""The proof that a log is whole: every kind of damage, wherever it stands, is found where it is and as what it is."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers import run_child
from hypothesis import example, given
from hypothesis import strategies as st

from ai_response_logging import verify as verify_module
from ai_response_logging._numbers import Numbers, Place
from ai_response_logging.blobs import MARK, BlobStore, blob_path
from ai_response_logging.errors import LogReadError
from ai_response_logging.verify import Report, verify_log
from ai_response_logging.verify._tally import Hashes

STAMP = "20260101T000000.000001Z"


def line(writer: str = "w", seq: int = 0, **fields: Any) -> bytes:
    """Return one line as the contract describes it, made without any code under test."""
    record = {
        "schema_version": "1.0",
        "record_id": f"{writer}-{seq}",
        "timestamp": "2026-11-23T19:05:41.000123Z",
        "event": "response",
        "question": "什么手机好",
        "response": 'An answer with "quotes", a \\ and 漢字 😀',
        "metadata": {"list": [1, 2.5, None], "deep": {"a": {"b": "c"}}},
        **fields,
    }
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    return sealed(body + b',"writer_id":"%b","seq":%d' % (writer.encode(), seq))


def sealed(prefix: bytes) -> bytes:
    """Return *prefix* with its checksum and newline."""
    return b'%b,"checksum":"%08x"}\n' % (prefix, zlib.crc32(prefix))


def log_of(count: int, writer: str = "w") -> list[bytes]:
    """Return the first lines of one writer."""
    return [line(writer, seq) for seq in range(count)]


def where(report: Report) -> list[tuple[str, int, int]]:
    """Return what was found, without files and words."""
    return [(problem.kind, problem.line, problem.offset) for problem in report.problems]


def verified(path: Path, lines: Iterable[bytes]) -> Report:
    """Write *lines* and verify them."""
    path.write_bytes(b"".join(lines))
    return verify_log(path)


# --- whole logs ------------------------------------------------------------------------------------------------


def test_whole_log_of_several_writers_and_files_is_whole(log_path: Path):
    """
    Lines of any writers in any order, over rotated and compressed files, are whole when no number is missing.
    """
    one, two = log_of(7, "one"), log_of(5, "two")
    log_path.with_name(f"{log_path.name}.{STAMP}.gz").write_bytes(gzip.compress(b"".join([one[1], two[0], one[0]])))
    log_path.with_name(f"{log_path.name}.20260102T000000.000000Z").write_bytes(b"".join([*two[1:], one[3]]))
    report = verified(log_path, [one[2], *one[4:]])

    assert report.whole
    assert (report.records, report.older, report.in_journals, report.open_calls) == (12, 0, 0, 0)
    assert report.bytes == sum(map(len, one + two))
    assert len(report.files) == 3
    assert [(w.writer_id, w.first, w.last, w.missing, w.missing_count) for w in report.writers] == [
        ("one", 0, 6, (), 0),
        ("two", 0, 4, (), 0),
    ]
    assert (report.problems, report.problem_counts) == ((), {})


def test_empty_log_is_whole(log_path: Path):
    """
    Nothing logged, nothing lost.
    """
    report = verified(log_path, [])

    assert (report.whole, report.records, report.files) == (True, 0, (str(log_path),))


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.mkdir(), os.mkfifo])
def test_no_log_to_verify_is_an_error_and_never_whole(log_path: Path, make: Callable[[Path], object]):
    """
    A wrong name must not look like a log without damage.
    """
    make(log_path)

    with pytest.raises(LogReadError, match="cannot be read"):
        verify_log(log_path)


def test_report_as_json_has_what_the_contract_names(log_path: Path):
    """
    Programs find the keys of the contract, and ranges of missing numbers as pairs.
    """
    report = json.loads(json.dumps(verified(log_path, [line("w", 3), b"hello\n"]).to_dict()))

    assert {"whole", "files", "records", "older", "bytes", "in_journals", "writers", "problems"} <= report.keys()
    assert report["writers"] == [
        {"writer_id": "w", "first": 3, "last": 3, "missing": [[0, 2]], "missing_count": 3},
    ]
    assert [problem["kind"] for problem in report["problems"]] == ["gap", "foreign"]
    assert report["problems"][1] == {
        "kind": "foreign",
        "file": str(log_path),
        "line": 2,
        "offset": len(line("w", 3)),
        "detail": report["problems"][1]["detail"],
    }
    assert report["problem_counts"] == {"foreign": 1, "gap": 1}


def test_records_with_any_content_are_whole(log_path: Path):
    """
    Newlines, quotes, our own marks inside a text, another record inside metadata: none of it is damage.
    """
    nested = json.loads(line("other", 9))
    texts = ['a\nb\r\n"c"\\', ',"checksum":"00000000"}\n{"schema_version":"1.0"', "\u0000\u2028\x7f", "", nested]
    report = verified(log_path, [line("w", seq, response=text) for seq, text in enumerate(texts)])

    assert report.whole
    assert report.records == len(texts)


def test_renamed_fields_are_no_damage_while_the_checksum_holds(log_path: Path):
    """
    A formatter may rename what it likes: the bytes are what was written.
    """
    report = verified(log_path, [sealed(b'{"ts":1,"text":"x"'), sealed(b'{"ts":2,"text":"x"')])

    assert report.whole
    assert (report.records, report.older) == (2, 0)


def test_numbers_that_json_writes_in_several_ways_are_no_damage(log_path: Path):
    """
    1.50 and 1e3 come back from a parser as other bytes; no key stands twice for that.
    """
    report = verified(log_path, [sealed(b'{"a":1.50,"b":1e3,"c":"\\u0041","d":{"a":1},"writer_id":"w","seq":0')])

    assert report.whole


# --- one damage at a time --------------------------------------------------------------------------------------

Damage = Callable[[list[bytes], int], tuple[list[bytes], list[tuple[str, int]]]]


def cut_short(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Keep the first half of a line and its newline: a writer killed in the middle, closed by the next."""
    lines[at] = lines[at][: len(lines[at]) // 2] + b"\n"
    return lines, [("torn", at + 1), *([("gap", at + 2)] if at + 1 < len(lines) else [])]


def cut_inside_a_character(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Cut in the middle of a multi-byte character: bad UTF-8, but torn all the same."""
    lines[at] = lines[at][: lines[at].index("什".encode()) + 1] + b"\n"
    return lines, [("torn", at + 1), *([("gap", at + 2)] if at + 1 < len(lines) else [])]


def beginning_lost(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Keep the second half of a line: it still shows its number, so only the line is damaged."""
    lines[at] = lines[at][len(lines[at]) // 2 :]
    return lines, [("torn", at + 1)]


def newline_lost(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Two whole records on one line."""
    at = min(at, len(lines) - 2)
    return [*lines[:at], lines[at][:-1] + lines[at + 1], *lines[at + 2 :]], [("glued", at + 1)]


def glued_to_a_torn_line(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Half of another writer's record, and a whole one behind it on the same line."""
    lines[at] = line("killed", 0)[:90] + lines[at]
    return lines, [("glued", at + 1)]


def two_halves(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """The first half of one record and the end of another, which has no beginning any more."""
    lines[at] = lines[at][:-30] + line("killed", 0)[60:]
    return lines, [("glued", at + 1), *([("gap", at + 2)] if at + 1 < len(lines) else [])]


def glued_so_that_it_parses(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A half line and the rest of another inside the same text: valid JSON with a wrong answer."""
    mark = lines[at].index(b"An answer") + 3
    lines[at] = lines[at][:mark] + lines[at][mark + 5 :]
    return lines, [("checksum", at + 1)]


def one_letter_changed(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """One byte of a text altered."""
    lines[at] = lines[at].replace(b"answer", b"antwer")
    return lines, [("checksum", at + 1)]


def checksum_removed(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A record of ours without its checksum proves nothing; without a tail it shows no number either."""
    lines[at] = lines[at].rpartition(b',"checksum"')[0] + b"}\n"
    return lines, [("checksum", at + 1), *([("gap", at + 2)] if at + 1 < len(lines) else [])]


def quote_lost(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A record altered so that it is no JSON any more."""
    lines[at] = lines[at].replace(b'"question":"', b'"question":#')
    return lines, [("foreign", at + 1)]


def line_lost(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A whole line removed: the last one of a writer is never missed, so the one before it here."""
    at = min(at, len(lines) - 2)
    return [*lines[:at], *lines[at + 1 :]], [("gap", at + 1)]


def line_doubled(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A line written again at the end, as a retry of a batch would."""
    return [*lines, lines[at]], [("duplicate", len(lines) + 1)]


def id_doubled(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Another record under the same id."""
    return [*lines, line("w", len(lines), record_id=f"w-{at}")], [("duplicate", len(lines) + 1)]


def number_doubled(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """Another record under the same number of the same writer."""
    return [*lines, line("w", at, record_id="new")], [("duplicate", len(lines) + 1)]


def key_doubled(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """A key twice in one line, under a right checksum."""
    lines[at] = sealed(lines[at].rpartition(b',"checksum"')[0].replace(b"{", b'{"event":"x",', 1))
    return lines, [("duplicate", at + 1)]


def nested_key_doubled(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
    """The same inside an object of the user's."""
    lines[at] = sealed(lines[at].rpartition(b',"checksum"')[0].replace(b'"deep":{', b'"deep":{"a":1,'))
    return lines, [("duplicate", at + 1)]


def inserted(foreign: bytes) -> Damage:
    """Return a damage that puts one line of somebody else's before the line."""

    def insert(lines: list[bytes], at: int) -> tuple[list[bytes], list[tuple[str, int]]]:
        return [*lines[:at], foreign + b"\n", *lines[at:]], [("foreign", at + 1)]

    insert.__name__ = f"inserted {foreign[:24]!r}"
    return insert


DAMAGES: list[Damage] = [
    cut_short, cut_inside_a_character, beginning_lost, newline_lost, glued_to_a_torn_line, two_halves,
    glued_so_that_it_parses, one_letter_changed, checksum_removed, quote_lost, line_lost, line_doubled, id_doubled,
    number_doubled, key_doubled, nested_key_doubled,
    *map(inserted, [
        b"", b" \t", b"hello", b"Traceback (most recent call last):", b"[1,2]", b'"text"', b"17", b"null", b"\0" * 99,
        b"\0", b"\xff\xfe", '{"text":"ü"}'.encode("latin-1"), b'{"level":"info","msg":"other logger"}', b"{}",
        b'{"a":NaN}', b"{not json}", b"[" * 5000,
    ]),
]  # fmt: skip


@pytest.mark.parametrize("file", ["live", "rotated", "compressed"])
@pytest.mark.parametrize("at", [0, 4, 9], ids=["first", "middle", "last"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_as_what_it_is_and_where_it_is(log_path: Path, damage: Damage, at: int, file: str):
    """
    Each damage at the first, a middle or the last line, in a file of each kind: its kind, line and offset, no more.
    """
    lines, expected = damage(log_of(10), at)
    suffix = {"live": "", "rotated": f".{STAMP}", "compressed": f".{STAMP}.gz"}[file]
    damaged = log_path.with_name(log_path.name + suffix)
    if file != "live":
        log_path.write_bytes(b"".join(log_of(3, "other")))
    data = b"".join(lines)
    damaged.write_bytes(gzip.compress(data) if file == "compressed" else data)

    report = verify_log(log_path)

    starts = [sum(map(len, lines[:index])) for index in range(len(lines))]
    assert where(report) == [(kind, number, starts[number - 1]) for kind, number in expected]
    assert {problem.file for problem in report.problems} == {str(damaged)}
    assert not report.whole
    # A doubled line or key is damage, but the record is there.
    untouched = len(set(lines) & set(log_of(10)))
    assert report.records >= untouched + (0 if file == "live" else 3)


@pytest.mark.parametrize("missing", [1, 20, 60])
def test_last_line_without_its_end_is_torn(log_path: Path, missing: int):
    """
    A last line that lacks its newline, or more, is torn, even where the record itself is all there.
    """
    lines = log_of(3)
    report = verified(log_path, [*lines[:2], lines[2][:-missing]])

    assert where(report) == [("torn", 3, len(lines[0]) * 2)]
    assert report.records == 2


@pytest.mark.parametrize("suffix", [f".{STAMP}", f".sealed-{STAMP}", ".1"])
def test_rotated_file_with_an_unfinished_line_is_torn_there(log_path: Path, suffix: str):
    """
    Nobody will finish that line any more.
    """
    rotated = log_path.with_name(log_path.name + suffix)
    rotated.write_bytes(line()[:-1])
    report = verified(log_path, log_of(1, "other"))

    assert [(p.kind, p.file, p.line, p.offset) for p in report.problems] == [("torn", str(rotated), 1, 0)]


def test_whole_records_inside_a_glued_line_are_located(log_path: Path):
    """
    The detail says at which bytes of the file whole records stand, so that a person can take them out.
    """
    lines = log_of(4)
    torn = line("killed", 0)[:77]
    report = verified(log_path, [lines[0], torn + lines[1][:-1] + lines[2], lines[3]])

    first = len(lines[0]) + len(torn)
    second = first + len(lines[1]) - 1
    [problem] = report.problems
    assert (problem.kind, problem.line, problem.offset) == ("glued", 2, len(lines[0]))
    assert f"bytes {first} to {second - 1}" in problem.detail
    assert f"bytes {second} to {second + len(lines[2]) - 2}" in problem.detail
    assert report.records == 2


def test_whole_record_behind_nul_bytes_is_located(log_path: Path):
    """
    Loss of power leaves a hole of NUL bytes, and what was appended behind it is worth finding.
    """
    lines = log_of(2)
    report = verified(log_path, [lines[0], b"\0" * 4096 + lines[1]])

    [problem] = report.problems
    assert (problem.kind, problem.line, problem.offset) == ("foreign", 2, len(lines[0]))
    assert "4,096 NUL bytes" in problem.detail
    assert f"bytes {len(lines[0]) + 4096} to" in problem.detail


def test_very_many_records_on_one_line_are_one_problem(log_path: Path):
    """
    A log whose newlines were all lost is judged in one go, not once for each pair.
    """
    lines = log_of(2000)
    report = verified(log_path, [b"".join(one[:-1] for one in lines) + b"\n"])

    assert where(report) == [("glued", 1, 0)]
    assert report.problems[0].detail.startswith("2,000 whole records")


def test_damaged_number_is_not_believed(log_path: Path):
    """
    A line whose own number was altered makes neither a duplicate of that number nor a gap up to it.
    """
    lines = log_of(6)
    lines[2] = lines[2].replace(b'"seq":2', b'"seq":4')
    lines[3] = lines[3].replace(b'"seq":3', b'"seq":999999')
    report = verified(log_path, lines)

    assert [(kind, number) for kind, number, _ in where(report)] == [("checksum", 3), ("checksum", 4), ("gap", 5)]
    assert report.writers[0].missing == ((2, 3),)
    assert report.writers[0].last == 5


def test_only_damaged_lines_of_a_writer_make_no_writer(log_path: Path):
    """
    Nothing is claimed of a writer that no whole line names.
    """
    report = verified(log_path, [line("w", 7).replace(b"answer", b"antwer")])

    assert report.writers == ()
    assert report.problem_counts == {"checksum": 1}


def test_line_longer_than_anyone_writes_is_foreign_and_the_next_is_read(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """
    A hole of a terabyte on one line does not fill the memory: it is one problem, and the next line is judged.
    """
    for module in ("reader", "verify", "verify._lines"):
        monkeypatch.setattr(f"ai_response_logging.{module}.MAX_LINE_BYTES", 2000)
    report = verified(log_path, [line("w", 0), b"\0" * 3_000_000 + b"\n", line("w", 1)])

    assert where(report) == [("foreign", 2, len(line()))]
    assert "not looked into" in report.problems[0].detail
    assert report.records == 2


def test_duplicate_key_below_very_many_levels_is_not_accused(log_path: Path):
    """
    What the standard library cannot read is not called damage.
    """
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    report = verified(log_path, [sealed(b'{"x":%b,"writer_id":"w","seq":0' % deep)])

    assert report.whole


# --- older shapes ----------------------------------------------------------------------------------------------

V1 = {"timestamp": "2025-01-01 10:00:00", "question": "q", "response": "r", "platform": "豆包", "success": True}
V2 = {"record_id": "two", "timestamp": "t", "version": "2.0", "question": {"text": "q"}, "response": {"text": "r"}}
V3 = {"record_id": "three", "timestamp": "t", "version": "3.0-enhanced", "question": "q", "response": "r"}


def test_older_shapes_are_records_and_no_damage(log_path: Path):
    """
    Lines of the older shapes count as older, however they were spaced or escaped.
    """
    lines = [
        json.dumps(shape, ensure_ascii=escaped).encode() + b"\n" for shape in (V1, V2, V3) for escaped in (True, False)
    ]
    del lines[3], lines[4]  # their ids must not stand twice
    report = verified(log_path, [*lines, *log_of(2), b'{"timestamp":"t","response":"cut \\ud83d"}\n'])

    assert report.whole
    assert (report.records, report.older) == (len(lines) + 3, len(lines) + 1)
    assert [writer.writer_id for writer in report.writers] == ["w"]


def test_older_record_twice_is_a_duplicate(log_path: Path):
    """
    Older lines have no numbers, but where they have an id it counts.
    """
    two = json.dumps(V2).encode() + b"\n"
    report = verified(log_path, [two, *log_of(1), two])

    assert where(report) == [("duplicate", 3, len(two) + len(line()))]
    assert "line 1" in report.problems[0].detail


def test_older_line_that_is_cut_is_torn(log_path: Path):
    """
    An older line cut behind an inner bracket does not pass for one that merely looks odd.
    """
    two = json.dumps(V2).encode()
    report = verified(log_path, [two[: two.index(b"}") + 1] + b"\n", json.dumps(V3).encode() + b"\n"])

    assert where(report) == [("torn", 1, 0)]
    assert report.records == 1


@pytest.mark.parametrize("old_first", [True, False])
def test_old_and_new_record_on_one_line_is_found(log_path: Path, old_first: bool):
    """
    Damage where an old logger and ours wrote one file is damage.
    """
    old, new = json.dumps(V3).encode(), line()[:-1]
    report = verified(log_path, [(old + new if old_first else new + old) + b"\n"])

    assert [kind for kind, _, _ in where(report)] == ["glued"]
    assert "2 whole records" in report.problems[0].detail


def test_old_beginning_with_a_new_end_does_not_pass_as_old(log_path: Path):
    """
    Half an old line and the rest of a new one can parse; the new one's checksum gives it away.
    """
    old, new = json.dumps(V3, separators=(",", ":")).encode(), line(metadata={})
    cut = new.index(b'","metadata')
    report = verified(log_path, [old[: old.rindex(b'"}')] + new[cut:]])

    assert json.loads(log_path.read_bytes())["version"] == "3.0-enhanced"
    assert [kind for kind, _, _ in where(report)] == ["checksum"]


def test_real_lines_in_older_shapes_are_all_counted(sample_path: Path):
    """
    The real lines at hand are whole and counted as older, every one.
    """
    report = verify_log(sample_path)

    assert (report.records, report.older) == (152, 152)
    assert report.problem_counts.keys() <= {"duplicate"}


# --- duplicates, gaps, many of them ----------------------------------------------------------------------------


def test_duplicate_says_where_the_first_one_stands(log_path: Path):
    """
    Across files, the detail names file and line of the first.
    """
    rotated = log_path.with_name(f"{log_path.name}.{STAMP}")
    rotated.write_bytes(b"".join(log_of(5)))
    report = verified(log_path, [line("w", 5), line("w", 3)])

    assert where(report) == [("duplicate", 2, len(line("w", 5)))]
    assert f"line 4 of {rotated.name}" in report.problems[0].detail
    assert report.records == 7


def test_record_three_times_is_two_duplicates(log_path: Path):
    """
    Every further one counts, once.
    """
    lines = log_of(4)
    report = verified(log_path, [*lines, lines[1], lines[1]])

    assert [number for _, number, _ in where(report)] == [5, 6]
    assert report.problem_counts == {"duplicate": 2}


def test_equal_numbers_of_different_writers_are_no_duplicates(log_path: Path):
    """
    Each writer counts for itself.
    """
    assert verified(log_path, [*log_of(3, "a"), *log_of(3, "b")]).whole


def test_gap_of_a_billion_numbers_is_one_range(log_path: Path):
    """
    What is missing is told in ranges: it costs nothing, however much it is.
    """
    report = verified(log_path, [line("w", 0), line("w", 10**9 + 1), line("w", 10**9 + 2)])

    assert report.writers[0].missing == ((1, 10**9),)
    assert report.writers[0].missing_count == 10**9
    assert where(report) == [("gap", 2, len(line("w", 0)))]
    assert "1 to 1000000000" in report.problems[0].detail


def test_gap_is_placed_at_the_line_behind_it_however_lines_are_ordered(log_path: Path):
    """
    The gap stands before the lowest number behind it, wherever in the file that line is.
    """
    order = [0, 8, 3, 9, 7, 4, 1]
    lines = [line("w", seq) for seq in order]
    report = verified(log_path, lines)

    assert [(kind, number) for kind, number, _ in where(report)] == [("gap", 3), ("gap", 5)]
    assert report.writers[0].missing == ((2, 2), (5, 6))


def test_numbers_beyond_any_writer_are_let_be(log_path: Path):
    """
    A number that no counter reaches, or none at all, neither fails nor counts.
    """
    strange = ["-1", str(2**70), "1.5", "true", '"0"', "null"]
    prefixes = [
        f'{{"schema_version":"1.0","record_id":"{seq.strip(chr(34))}x","writer_id":"w","seq":{seq}' for seq in strange
    ]
    report = verified(log_path, [sealed(prefix.encode()) for prefix in prefixes])

    assert report.whole
    assert (report.records, report.writers) == (len(strange), ())


def test_very_many_problems_are_counted_and_the_first_kept(log_path: Path):
    """
    The report stays small: 1,000 of each kind in detail, all of them in the counts.
    """
    lines = [b"hello\n"] * 1500 + [line("w", seq) for seq in range(1, 2400, 2)] + log_of(1, "v") * 1101
    report = verified(log_path, lines)

    assert report.problem_counts == {"foreign": 1500, "duplicate": 1100, "gap": 1200}
    assert Counter(problem.kind for problem in report.problems) == {"foreign": 1000, "duplicate": 1000, "gap": 1000}
    assert len(report.writers[0].missing) == 1000
    assert report.writers[0].missing_count == 1200


def test_more_repeated_ids_than_are_remembered_are_still_counted(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Where the places of the first ones are not kept any more, duplicates are still found.
    """
    monkeypatch.setattr("ai_response_logging.verify._tally._FIRSTS_KEPT", 2)
    lines = [json.dumps({**V2, "record_id": str(number)}).encode() + b"\n" for number in range(5)]
    report = verified(log_path, lines * 2)

    assert [number for _, number, _ in where(report)] == [6, 7, 8, 9, 10]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_numbers_in_any_order_give_the_gaps_a_set_would_give(numbers: list[int]):
    """
    The runs of a writer's numbers say the same as a plain set of them.
    """
    kept, seen, places = Numbers(), set(), {}
    for at, number in enumerate(numbers, 1):
        assert kept.add(number, Place(0, at, at * 10)) is (number not in seen)
        places.setdefault(number, Place(0, at, at * 10))
        seen.add(number)

    missing = [(first, last) for first, last, _ in kept.gaps()]
    assert {n for first, last in missing for n in range(first, last + 1)} == set(range(max(seen, default=0))) - seen
    assert all(place == places[last + 1] for _, last, place in kept.gaps())
    assert all((number in kept) is (number in seen) for number in range(42))


@given(st.lists(st.text(max_size=2), max_size=50), st.lists(st.text(max_size=2), max_size=50))
def test_hashes_count_as_plain_sets_do(texts: list[str], others: list[str]):
    """
    Which texts come twice, and how many are in one bag only, is what sets of the texts say.
    """
    mine, theirs = Hashes(), Hashes()
    for text in texts:
        mine.add(text)
    for text in others:
        theirs.add(text)

    assert len(mine.repeated()) == sum(count > 1 for count in Counter(texts).values())
    assert mine.count_without(theirs) == len(set(texts) - set(others))


# --- open calls ------------------------------------------------------------------------------------------------


def test_calls_that_began_and_never_ended_are_counted(log_path: Path):
    """
    A start without response or tombstone is an open call and no damage; the order of the lines does not matter.
    """
    events = [("start", "a"), ("response", "a"), ("start", "b"), ("attempt", "b"), ("tombstone", "c"), ("start", "c"),
              ("start", "d"), ("start", "d"), ("response", "e")]  # fmt: skip
    report = verified(log_path, [line("w", seq, event=e, call_id=c) for seq, (e, c) in enumerate(events)])

    assert report.whole
    assert report.open_calls == 2


# --- compressed files that are damaged themselves --------------------------------------------------------------


def test_gzip_that_ends_early_is_torn_behind_its_last_whole_line(log_path: Path):
    """
    All that can be decompressed is verified, and the place where it ends is named.
    """
    lines = [line("w", seq, response=os.urandom(3000).hex()) for seq in range(100)]
    older = log_path.with_name(f"{log_path.name}.{STAMP}.gz")
    data = gzip.compress(b"".join(lines))
    older.write_bytes(data[: len(data) // 2])
    report = verified(log_path, log_of(2, "other"))

    [torn] = report.problems
    intact = report.records - 2
    assert 40 < intact < 60
    assert (torn.kind, torn.file, torn.line) == ("torn", str(older), intact + 1)


@pytest.mark.parametrize(("change", "kind"), [(-8, "checksum"), (0, "foreign")])
def test_gzip_that_contradicts_itself_is_found(log_path: Path, change: int, kind: str):
    """
    A wrong checksum of the compressed file, or no compressed file at all, is damage at its place.
    """
    older = log_path.with_name(f"{log_path.name}.{STAMP}.gz")
    data = bytearray(gzip.compress(b"".join(log_of(3))))
    data[change] ^= 1
    older.write_bytes(data)
    report = verified(log_path, log_of(2, "other"))

    assert [(problem.kind, problem.file) for problem in report.problems] == [(kind, str(older))]


# --- beside living writers -------------------------------------------------------------------------------------


def test_last_line_finished_meanwhile_is_whole(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A line that a writer was in the middle of is looked at again before it counts as torn.
    """
    lines = log_of(2)
    log_path.write_bytes(lines[0] + lines[1][:-40])
    look = verify_module._read_line_at

    def finish_and_look(descriptor: int, offset: int) -> bytes:
        with log_path.open("ab") as file:
            file.write(lines[1][-40:])
        return look(descriptor, offset)

    monkeypatch.setattr(verify_module, "_read_line_at", finish_and_look)
    report = verify_log(log_path)

    assert report.whole
    assert (report.records, report.bytes) == (2, len(lines[0] + lines[1]))


def test_last_line_set_aside_meanwhile_is_gone(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    A torn tail that a writer moves aside while we read is no damage of the log any more.
    """
    lines = log_of(2)
    log_path.write_bytes(lines[0] + lines[1][:-40])
    look = verify_module._read_line_at

    def repair_and_look(descriptor: int, offset: int) -> bytes:
        os.truncate(log_path, len(lines[0]))
        return look(descriptor, offset)

    monkeypatch.setattr(verify_module, "_read_line_at", repair_and_look)
    report = verify_log(log_path)

    assert report.whole
    assert report.records == 1


def test_last_line_replaced_meanwhile_is_read_as_it_is_now(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Set aside and another record appended in its place: the new bytes are judged, not what a buffer still holds.
    """
    lines = log_of(2)
    log_path.write_bytes(lines[0] + line("killed", 0)[:-40])
    look = verify_module._read_line_at

    def replace_and_look(descriptor: int, offset: int) -> bytes:
        os.truncate(log_path, len(lines[0]))
        with log_path.open("ab") as file:
            file.write(lines[1])
        return look(descriptor, offset)

    monkeypatch.setattr(verify_module, "_read_line_at", replace_and_look)
    report = verify_log(log_path)

    assert report.whole
    assert report.records == 2


def test_rotation_in_the_middle_of_reading_reads_each_line_once(log_path: Path):
    """
    The live file renamed and compressed under the reader is still read to its end, and only once.
    """
    lines = log_of(2000)
    log_path.write_bytes(b"".join(lines))

    def rotate(_done: int, _total: int) -> None:
        if log_path.stat().st_size:
            target = log_path.with_name(f"{log_path.name}.{STAMP}.gz")
            target.write_bytes(gzip.compress(log_path.read_bytes()))
            log_path.unlink()
            log_path.touch()

    report = verify_log(log_path, on_progress=rotate)

    assert report.whole
    assert report.records == 2000
    assert verify_log(log_path).records == 2000


def test_lines_appended_in_the_middle_of_reading_wait(log_path: Path):
    """
    Verifying beside a busy writer comes to an end, and what it read is a prefix without false gaps.
    """
    log_path.write_bytes(b"".join(log_of(1500)))
    more = iter(log_of(3000)[1500:])

    def append(_done: int, _total: int) -> None:
        with log_path.open("ab") as file:
            file.write(next(more) + next(more))

    report = verify_log(log_path, on_progress=append)

    assert report.whole
    assert report.records == 1500
    assert verify_log(log_path).records > 1500


def test_progress_ends_at_all_bytes(log_path: Path):
    """
    What on_progress hears only grows, and ends at the whole.
    """
    log_path.with_name(f"{log_path.name}.{STAMP}.gz").write_bytes(gzip.compress(b"".join(log_of(1200, "a"))))
    log_path.write_bytes(b"".join(log_of(1200)))
    heard: list[tuple[int, int]] = []

    verify_log(log_path, on_progress=lambda done, total: heard.append((done, total)))

    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1] == sum(path.stat().st_size for path in log_path.parent.iterdir())


# --- any damage at any place -----------------------------------------------------------------------------------

MIXED = [
    one
    for seq in range(4)
    for one in (
        line("a", seq),
        line("漢b", seq, response="x" * 40),
        json.dumps({**V2, "record_id": f"v{seq}"}).encode() + b"\n",
    )
]
WHOLE = b"".join(MIXED)


def assert_damage_is_seen(path: Path, damaged: bytes) -> None:
    """Assert that *damaged* is not whole, and that every line of MIXED still in it is counted, and no other."""
    path.write_bytes(damaged)
    report = verify_log(path)
    intact = [one for one in damaged.splitlines(keepends=True) if one in MIXED]
    older = [one for one in intact if is_older(one)]

    assert report.records - report.older == len(intact) - len(older)
    # An old line has nothing that proves it: cut in the right places it is another old line.
    assert report.older >= len(older)
    assert not report.whole, damaged


def is_older(one: bytes) -> bool:
    """Say whether a line of MIXED is one of the older shape."""
    return b'"version": "2.0"' in one


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one path for all examples."""
    return tmp_path_factory.mktemp("verify") / "log.jsonl"


def test_the_log_of_the_next_tests_is_whole(scratch: Path):
    """
    Without damage it is whole: otherwise the tests below could not fail.
    """
    assert verified(scratch, MIXED).whole


# Of a line without checksum and number only its shape can be judged: damage goes where proof is possible.
PROVABLE = [
    (start, start + len(one))
    for start, one in zip([sum(map(len, MIXED[:at])) for at in range(len(MIXED))], MIXED, strict=True)
    if not is_older(one)
]
POSITIONS = st.sampled_from([position for start, end in PROVABLE for position in range(start, end)])


@pytest.mark.slow
@given(position=POSITIONS, mask=st.integers(1, 255))
def test_any_altered_byte_is_seen(scratch: Path, position: int, mask: int):
    """
    One byte changed anywhere in a provable line: never whole, and all other lines are counted.
    """
    damaged = bytearray(WHOLE)
    damaged[position] ^= mask

    assert_damage_is_seen(scratch, bytes(damaged))


@pytest.mark.slow
@given(first=POSITIONS, length=st.integers(1, 900))
@example(first=2400, length=331)  # a writer's last line, and the beginning of the old one behind it
def test_any_cut_is_seen(scratch: Path, first: int, length: int):
    """
    Bytes taken out anywhere: never whole, unless whole last lines of writers and what proves nothing are all that went.
    """
    damaged = WHOLE[:first] + WHOLE[first + length :]
    left = damaged.splitlines(keepends=True)
    only_ends = all(one in MIXED or (is_older(one) and b"schema_version" not in one) for one in left) and all(
        [one for one in left if mark in one]
        == [one for one in MIXED if mark in one][: sum(mark in one for one in left)]
        for mark in (b'"writer_id":"a"', '"writer_id":"漢b"'.encode())
    )
    if not only_ends:
        assert_damage_is_seen(scratch, damaged)


@pytest.mark.slow
@given(position=POSITIONS, piece=st.binary(min_size=1, max_size=30))
def test_any_inserted_bytes_are_seen(scratch: Path, position: int, piece: bytes):
    """
    Bytes put in anywhere: never whole, and all other lines are counted.
    """
    damaged = WHOLE[:position] + piece + WHOLE[position:]

    assert_damage_is_seen(scratch, damaged)


@pytest.mark.slow
@given(st.sampled_from(PROVABLE), st.sampled_from(PROVABLE), st.floats(0, 1), st.floats(0, 1))
def test_any_head_glued_to_any_tail_is_seen(
    scratch: Path, one: tuple[int, int], other: tuple[int, int], cut_one: float, cut_other: float
):
    """
    The beginning of one record and the end of another on one line: never whole, unless it is a whole record again.
    """
    head = WHOLE[one[0] : one[0] + int((one[1] - one[0]) * cut_one)]
    tail = WHOLE[other[0] + int((other[1] - other[0]) * cut_other) : other[1]]
    glued = head + tail
    if glued and glued not in MIXED:
        damaged = WHOLE[: one[0]] + glued + WHOLE[one[1] :]
        assert_damage_is_seen(scratch, damaged)


# --- with the real writer, and how much memory it takes --------------------------------------------------------


@pytest.mark.slow
def test_log_of_real_processes_is_whole(log_path: Path):
    """
    What the handler writes from several processes and threads, across rotations, is whole to the last byte.
    """
    child = """
        import sys, threading
        from ai_response_logging import configure, log_ai_response
        handler = configure("low_latency", filename=sys.argv[1], durability="memory", max_bytes=20_000, compress=False)
        def work(name):
            for number in range(50):
                call_id = f"{sys.argv[2]}{name}{number}"
                log_ai_response(question="什么", response="x" * 300, call_id=call_id, event="start")
                log_ai_response(question="什么", response="y" * 300, call_id=call_id, success=True)
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    """
    for name in ("one", "two"):
        run_child(child, log_path, name)
    report = verify_log(log_path)

    assert report.problems == ()
    assert report.records == 400
    assert len(report.writers) == 2
    assert len(report.files) > 3
    assert report.open_calls == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_large_log_is_verified_in_little_memory(log_path: Path):
    """
    80 MB of 4 kB lines, a line of 20 MB among them, and a doubled line that asks for a second pass: under 100 MB grown.
    """
    with log_path.open("wb") as file:
        file.writelines(line("w", seq, response="x" * 4000) for seq in range(15_000))
        file.write(line("w", 15_000, response="y" * 20_000_000))
        file.write(line("w", 7, response="x" * 4000))
    child = run_child(
        """
        import resource, sys
        from ai_response_logging.verify import verify_log
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = verify_log(sys.argv[1])
        print(report.records, report.problem_counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """,
        log_path,
        timeout=50,
    )

    *found, grown_kib = child.stdout.split()
    assert found == ["15002", "{'duplicate':", "1}"]
    assert int(grown_kib) < 100_000


# --- texts beside the log --------------------------------------------------------------------------------------


def with_text(log: Path, seq: int, text: str) -> bytes:
    """Return a line whose response is kept beside *log*."""
    store = BlobStore(str(log), file_mode=0o600, directory_mode=0o700, is_synced=False)
    digest = store.keep(text.encode())
    entry = {"path": ["response"], "sha256": digest, "bytes": len(text)}
    return line(seq=seq, response=f"{MARK}{digest}", blobs=[entry])


def test_texts_beside_the_log_are_proven_once_each(log_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    Every text that a record names is there with its hash; its file is read once, however many name it.
    """
    read: list[str] = []
    fault_of = verify_module.fault_of
    monkeypatch.setattr(verify_module, "fault_of", lambda log, digest: read.append(digest) or fault_of(log, digest))
    lines = [with_text(log_path, seq, f"text {seq % 2}") for seq in range(6)]
    report = verified(log_path, lines)

    assert (report.whole, report.blobs, len(read)) == (True, 2, 2)
    assert verified(log_path, log_of(3)).blobs == 0
    assert len(read) == 2


@pytest.mark.parametrize("damage", ["gone", "other", "directory"])
def test_text_that_is_missing_or_changed_is_named_with_the_first_record_that_has_it(log_path: Path, damage: str):
    """
    One problem for one file, at the first line that names it.
    """
    lines = [
        line(seq=0),
        with_text(log_path, 1, "lost"),
        with_text(log_path, 2, "kept"),
        with_text(log_path, 3, "lost"),
    ]
    path = Path(blob_path(str(log_path), sha256(b"lost").hexdigest()))
    if damage == "other":
        path.write_bytes(b"tsol")
    else:
        path.unlink()
    if damage == "directory":
        path.mkdir()
    report = verified(log_path, lines)

    assert (report.whole, report.problem_counts, report.blobs) == (False, {"blob": 1}, 2)
    assert where(report) == [("blob", 2, len(lines[0]))]
    assert str(path) in report.problems[0].detail


def test_what_only_looks_like_a_text_beside_the_log_is_not_accused(log_path: Path):
    """
    An application may log a field `blobs` of its own.
    """
    entries = [{"path": ["response"], "sha256": "a" * 64}, {"sha256": "a" * 64, "path": []}, None, "x", {"path": 5}]
    assert verified(log_path, [line(seq=0, blobs=entries), line(seq=1, blobs={"a": 1})]).whole


def test_text_of_a_record_in_a_journal_is_proven_too(log_path: Path):
    """
    What is still on its way names texts as well.
    """
    run_child(
        """
        import logging, os, sys
        from ai_response_logging import AIResponseHandler
        logger = logging.getLogger("ai_responses")
        logger.addHandler(AIResponseHandler(filename=sys.argv[1], max_inline_bytes=1000, flush_interval=60))
        logger.setLevel("INFO")
        logger.info("m", extra={"response": "x" * 40_000})
        os.kill(os.getpid(), 9)
        """,
        log_path,
        expect=-9,
    )
    assert verify_log(log_path).blobs == 1
    assert verify_log(log_path).whole
    Path(blob_path(str(log_path), sha256(b"x" * 40_000).hexdigest())).unlink()
    assert verify_log(log_path).problem_counts == {"blob": 1}
