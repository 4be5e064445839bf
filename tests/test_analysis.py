"""A log as a table: :mod:`ai_response_logging.analysis`, beside the streaming reader."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from helpers import compress_late_files

from ai_response_logging._journal import Journal
from ai_response_logging._options import Options
from ai_response_logging._shapes import FIELDS
from ai_response_logging.analysis import COLUMNS, open_log, stats
from ai_response_logging.analysis.log import Log
from ai_response_logging.errors import LogReadError, MissingExtraError, QueryError
from ai_response_logging.filters import Filters
from ai_response_logging.matrix.grid import grids_of
from ai_response_logging.reader import BadLine, read_log
from ai_response_logging.record import seal, tail_of, timestamp

duckdb = pytest.importorskip("duckdb", minversion="2.0")
pytestmark = pytest.mark.timeout(120)

WRITER = "host-1-18c-0123456789abcdef"
EIGHT = timezone(timedelta(hours=8))
MODELS = (("DeepSeek", "deepseek-chat"), ("豆包", "doubao-1"), ('quo"te', "it's"), (None, "m"))


def of_today(number: int, **more: Any) -> bytes:
    """Return a sealed line."""
    platform, model = MODELS[number % len(MODELS)]
    fields = {
        "schema_version": "1.0",
        "record_id": f"today-{number}",
        "timestamp": timestamp((1_760_000_000 + number) * 1_000_000),
        "unix_timestamp": 1_760_000_000.0 + number,
        "event": "response",
        "question": f"问题 {number % 5}",
        "response": "好" * (number % 7),
        "platform": platform,
        "provider": platform and platform.lower(),
        "model": model,
        "success": number % 6 != 0,
        "latency_ms": 100.25 + number * 7.1 % 900,
        "tokens_used": number,
        "execution_id": "exec_today",
        "question_index": number % 5 + 1,
        "total_questions": 20,
        **({} if number % 6 else {"error_type": "timeout", "http_status_code": 504, "error_message": "slow"}),
        **more,
    }
    body = json.dumps({key: value for key, value in fields.items() if value is not None}, ensure_ascii=False)
    return seal(body.encode()[:-1], tail_of(WRITER), number)[:-1]


def nested(number: int, **more: Any) -> bytes:
    """Return a 2.0 line."""
    platform, model = MODELS[number % len(MODELS)]
    return json.dumps({
        "record_id": f"nested-{number}",
        "timestamp": "2025-01-02T11:04:05.5",
        "unix_timestamp": 1735787045.5 + number,
        "version": "2.0",
        "question": {"text": "q"},
        "response": {"text": "{not json"},
        "platform": {"name": platform, "model": model},
        "performance": {"latency_ms": 50 + number, "tokens": {"total": 3}},
        "status": {"success": number % 3 != 0, "error_type": "auth"},
        "context": {"task_id": "exec_nested"} if number % 2 else {},
        "metadata": {"question_index": str(number)},
        **more,
    }).encode()  # fmt: skip


def flat(number: int, **more: Any) -> bytes:
    """Return a v1 line, without an id and with local time."""
    platform, model = MODELS[number % len(MODELS)]
    return json.dumps({
        "timestamp": f"2024-01-02T03:04:{number % 60:02}.25",
        "question": f"v1 {number}",
        "response": 'a "quoted" \\ answer \u4e2d',
        "platform": platform,
        "model": model,
        "success": True,
        "brand": "品牌",
        "latency_ms": number * 1.5,
        "tokens_used": 2.5,
        "metadata": {"a": [1, None, {"b": "c"}]},
        **more,
    }).encode()  # fmt: skip


def damaged_log(path: Path) -> None:
    """Write a log of three files and a journal, in all shapes, with every kind of damage."""
    lines = [make(number) for number in range(40) for make in (of_today, nested, flat)]
    lines += [lines[7], lines[117]]  # doubled; the second stands in the journal as well
    older = [*lines[:30], lines[3][:50] + lines[31], b"", bytes(64) + lines[34], b"\xff\xfe" + lines[33]]
    middle = [*lines[30:80], b"hello", b"[1]", b"null", lines[81][: len(lines[81]) // 2]]
    newest = [
        *lines[80:],
        lines[4].replace(b"\xe5\xa5\xbd", b"\xe5\xa5"),
        lines[5][:33] + lines[8][:20] + lines[9] + lines[12],
        flat(50, response="cut \ud83d", model="\ud83d"),
        b'{"timestamp":"t","level":"INFO","msg":"somebody else\'s"}',
        of_today(60, event="start", success=None),
        of_today(61, event="tombstone", success=False, error_type="cancelled"),
        b'{"schema_version":"1.0","event":"response","latency_ms":NaN}',
        of_today(62, latency_ms="12", tokens_used="x", success="true", model=5),
        b"   ",
        of_today(63)[:90],
    ]
    path.with_name(f"{path.name}.20260101T000000.000001Z.gz").write_bytes(gzip.compress(b"\n".join(older)))
    path.with_name(f"{path.name}.20260102T000000.000001Z").write_bytes(b"\n".join(middle) + b"\n")
    path.write_bytes(b"\n".join(newest))
    journal = Journal(f"{path}.journal", WRITER, Options())
    journal.begin(38)  # two that have arrived, although no mark says so, and two that have not
    assert journal.store([of_today(number) + b"\n" for number in (38, 39, 40, 41)]) == 4
    journal.close()


@pytest.fixture
def log(log_path: Path) -> Path:
    """A log with damage, and its journal's writer gone."""
    damaged_log(log_path)
    return log_path


def plainly(path: Path, **options: Any) -> tuple[dict[str, Any], list[BadLine]]:
    """Return the figures counted record by record, and the bad lines."""
    bad: list[BadLine] = []
    return stats(path, on_bad=bad.append, with_duckdb=False, **options), bad


# --- the same figures ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "by", [("platform", "model"), ("provider",), ("error_type", "success"), ("question_index",), ()]
)
def test_figures_are_the_same_with_and_without_duckdb(log: Path, by: tuple[str, ...]) -> None:
    """Every shape, rotated, compressed and journalled, with damage: equal, and the damage in the same places."""
    expected, expected_bad = plainly(log, by=by, assume_timezone=EIGHT)
    bad: list[BadLine] = []

    found = stats(log, by=by, assume_timezone=EIGHT, with_duckdb=True, on_bad=bad.append)

    assert found == expected
    assert bad == expected_bad
    assert found["bad_lines"] == 11
    assert found["records"] > 120


@pytest.mark.slow
@pytest.mark.parametrize(
    "filters",
    [
        Filters(platform="DEEPSEEK"),
        Filters(model="it's"),
        Filters(brand="品牌"),
        Filters(execution_id="exec_nested"),
        Filters(failed=True),
        Filters(since=1_735_787_050.0, until=1_760_000_010.0),
    ],
)
def test_filters_choose_the_same_records_with_and_without_duckdb(log: Path, filters: Filters) -> None:
    """What a filter means does not depend on what is installed."""
    expected, _ = plainly(log, filters=filters)

    assert stats(log, filters=filters, with_duckdb=True) == expected
    assert 0 < expected["records"] < 120


def test_a_regular_expression_is_pythons_own(log: Path) -> None:
    """Where DuckDB would match otherwise, the records are read one by one."""
    filters = Filters(grep=re.compile(r"(?<=v1 )1\d$"))

    assert stats(log, filters=filters)["records"] == 10
    with open_log(log) as table, pytest.raises(ValueError, match="record by record"):
        table.figures(filters=filters)


@pytest.mark.slow
def test_the_table_has_what_the_streaming_reader_gives(log: Path) -> None:
    """Record by record, column by column, over all shapes and what damage left."""
    records = [record for record in read_log(log, assume_timezone=EIGHT) if "schema_version" in record]
    expected = sorted(map(_as_row, records), key=repr)

    with open_log(log, assume_timezone=EIGHT) as table:
        names = [column.name for column in COLUMNS if column.name not in _NOT_COMPARED]
        found = table.records.filter("event IS NOT NULL").project(", ".join(f'"{name}"' for name in names)).fetchall()

    rows = [{name: _plain(name, value) for name, value in zip(names, row, strict=True)} for row in found]
    assert sorted(rows, key=repr) == expected


_NOT_COMPARED = {"schema_version", "version"}  # of the line, not of the record
_TYPES = {column.name: column.type for column in COLUMNS}


def _plain(name: str, value: Any) -> Any:
    if _TYPES[name] == "JSON" and value is not None:
        return json.loads(value)
    return value.isoformat(timespec="microseconds") + "Z" if isinstance(value, datetime) else value


def _as_row(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as a row: what has another type than its column is not there."""
    row = {}
    for name, type_ in _TYPES.items():
        if name in _NOT_COMPARED:
            continue
        value = record.get(name)
        if name in FIELDS and value is not None and not FIELDS[name](value):
            value = None
        if type_ == "BIGINT" and isinstance(value, str):
            value = int(value)
        if isinstance(value, str):
            value = value.replace("\ud83d", "\ufffd")
        row[name] = value
    return row


@pytest.mark.slow
def test_a_matrix_is_the_same_with_and_without_duckdb(log_path: Path) -> None:
    """Done, failed, answered again, missing, and questions that no line names."""
    dice = random.Random(8)
    lines = []
    for run, more in enumerate(
        [{}, {"total_models": 4, "total_questions": 24}, {"question_index": None}, {"total_questions": None}]
    ):
        for number in range(40):
            if dice.random() < 0.6:
                model = number % 4 + 1 if run == 1 else None
                event = dice.choice(["response"] * 5 + ["start", "attempt", "tombstone"])
                lines.append(of_today(number, execution_id=f"run-{run}", model_index=model, event=event, **more))
    log_path.write_bytes(b"\n".join(lines) + b"\n")
    grids = grids_of(read_log(log_path))

    assert len(grids) == 4
    with open_log(log_path) as table:
        for execution_id, grid in grids.items():
            relation = table.matrix(execution_id)
            found = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
            assert sorted(found, key=repr) == sorted(
                map(_in_order(relation.columns), grid.to_dict()["cells"]), key=repr
            )
        assert table.matrix("no such run").fetchall() == []


def test_a_cancelled_call_never_counts_against_an_answer(log_path: Path) -> None:
    """A process that was killed says so of what it had in flight, which can be after a resumed run had the answer."""
    known = {"execution_id": "run", "question_index": 1, "platform": "p", "model": "m", "total_questions": 1}
    lines = [
        of_today(1, **{**known, "success": True}),
        of_today(2, **{**known, "success": False, "error_type": "cancelled"}),
    ]
    log_path.write_bytes(b"\n".join(lines) + b"\n")
    with open_log(log_path) as table:
        relation = table.matrix("run")
        [cell] = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    [expected] = grids_of(read_log(log_path))["run"].to_dict()["cells"]
    assert cell == _in_order(list(cell))(expected)
    assert cell["status"] == "done"


def _in_order(names: list[str]) -> Any:
    return lambda cell: {name: cell[name] for name in names}


# --- questions -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_doubled_lines_are_shown_and_counted(log: Path) -> None:
    """A line that stands twice is two rows, and has a row of its own among the duplicates."""
    with open_log(log) as table:
        doubled = dict(row[:2] for row in table.duplicates().fetchall())
        assert table.sql("SELECT count(*) FROM records WHERE record_id = 'nested-2'").fetchall() == [(2,)]

    assert doubled["nested-2"] == doubled["today-39"] == 2
    assert "today-38" not in doubled


@pytest.mark.slow
def test_questions_have_the_columns_they_promise(log: Path) -> None:
    """Names that programs rely on."""
    figures = [
        "records",
        "succeeded",
        "failed",
        "success_rate",
        "latency_p50_ms",
        "latency_p95_ms",
        "latency_p99_ms",
        "tokens",
    ]
    with open_log(log) as table:
        assert table.summary().columns == ["platform", "model", *figures]
        assert table.summary(by="brand").columns == ["brand", *figures]
        assert table.timeline("1d").columns == ["bucket", *figures]
        assert table.errors().columns[:5] == ["error_type", "http_status_code", "platform", "model", "calls"]
        assert table.slowest(3).columns[:2] == ["latency_ms", "record_id"]
        assert len(table.slowest(3).fetchall()) == 3
        assert [(name, str(type_)) for name, type_ in zip(table.records.columns, table.records.types, strict=True)] == [
            (column.name, column.type) for column in COLUMNS
        ]
        one, other = table.summary(), table.errors()
        reader = one.to_arrow_reader() if hasattr(one, "to_arrow_reader") else None
        assert other.fetchall()  # while another is half read
        del reader


@pytest.mark.slow
def test_summary_has_the_figures_of_stats(log: Path) -> None:
    """The relation and the command's JSON say the same."""
    with open_log(log) as table:
        groups = table.figures()["groups"]
        rows = table.summary().fetchall()

    flat_groups = [
        (one["platform"], one["model"], one["records"], one["succeeded"], one["failed"], one["success_rate"],
         *one["latency_ms"].values(), one["tokens"])
        for one in groups
    ]  # fmt: skip
    assert sorted(rows, key=repr) == sorted(flat_groups, key=repr)


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["", "0s", "1", "1 month", "-1h", "1h; DROP"])
def test_a_timeline_of_no_span_is_an_error(log: Path, bad: str) -> None:
    """It says what a span is."""
    with open_log(log) as table, pytest.raises(ValueError, match="90s, 15m"):
        table.timeline(bad)


@pytest.mark.slow
@pytest.mark.parametrize("by", [["response"], ["x"], ["model", "model"], ['model"; DROP']])
def test_groups_by_something_else_are_an_error(log: Path, by: list[str]) -> None:
    """Texts that are all different are no groups, and names that are none are not SQL."""
    with open_log(log) as table, pytest.raises(ValueError, match=r"no field to group by|stands twice"):
        table.summary(by=by)
    with pytest.raises(ValueError, match=r"no field to group by|stands twice"):
        stats(log, by=by, with_duckdb=False)


def test_further_keys_are_columns_of_json(log_path: Path) -> None:
    """A caller's own keys can be asked for, whatever their names."""
    log_path.write_bytes(of_today(1, **{"exp'eri\"ment": {"arm": "A"}}) + b"\n")

    with open_log(log_path, columns=["exp'eri\"ment"]) as table:
        assert table.sql("""SELECT "exp'eri""ment"->>'arm' FROM records""").fetchall() == [("A",)]


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a*b?[c]'d\".jsonl", "ö 中\n.jsonl", "%s{0}.jsonl", "-- x.jsonl"])
def test_a_name_with_any_characters_is_only_a_name(tmp_path: Path, name: str) -> None:
    """Patterns, quotes and newlines in a path mean nothing."""
    (tmp_path / name).write_bytes(of_today(1) + b"\n")
    (tmp_path / f"{name}.1.gz").write_bytes(gzip.compress(of_today(2) + b"\n"))
    (tmp_path / "aXb1c'd\".jsonl").write_bytes(of_today(3) + b"\n")

    with open_log(tmp_path / name) as table:
        assert table.sql("SELECT record_id FROM records ORDER BY 1").fetchall() == [("today-1",), ("today-2",)]


def test_a_rotation_meanwhile_takes_nothing_away(log_path: Path) -> None:
    """The table is the files that were opened, whatever they are called or whether they are there any more."""
    log_path.write_bytes(of_today(1) + b"\n")
    with open_log(log_path) as table:
        log_path.rename(log_path.with_name(f"{log_path.name}.20260101T000000.000001Z"))
        log_path.write_bytes(of_today(2) + b"\n")
        log_path.with_name(f"{log_path.name}.20260101T000000.000001Z").unlink()
        assert table.figures()["records"] == 1


def test_files_compressed_before_they_are_opened_are_read_as_what_they_are(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of very many files are opened late, and may be compressed by then."""
    done = compress_late_files(monkeypatch)
    for number in range(3):
        log_path.with_name(f"{log_path.name}.20260101T000000.00000{number}Z").write_bytes(of_today(number) + b"\n")
    log_path.write_bytes(of_today(3) + b"\n")
    with open_log(log_path) as table:
        assert table.figures()["records"] == 4
    assert len(done) == 3


def test_an_empty_log_has_no_figures(log_path: Path) -> None:
    """Nothing is a log, too."""
    log_path.touch()

    assert stats(log_path) == {"records": 0, "succeeded": 0, "failed": 0, "bad_lines": 0, "groups": []}


def test_no_log_is_an_error_that_names_it(log_path: Path) -> None:
    """As for every reader."""
    with pytest.raises(LogReadError, match="there is no such file"):
        open_log(log_path)


def test_nothing_is_left_behind_nor_written(log: Path) -> None:
    """The folder for temporary files goes, descriptors are closed, and the log is as it was."""
    before = {path: path.read_bytes() for path in log.parent.rglob("*") if path.is_file()}
    descriptors = len(os.listdir("/proc/self/fd"))
    with open_log(log) as table:
        table.figures()
        folder = Path(table._folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    table.close()

    assert not folder.exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert {path: path.read_bytes() for path in log.parent.rglob("*") if path.is_file()} == before
    with pytest.raises(LogReadError, match="was closed"):
        table.summary()


def test_without_duckdb_the_error_says_how_to_get_it(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the figures are there all the same."""
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)

    with pytest.raises(MissingExtraError, match=r"ai-response-logging\[analysis\]"):
        open_log(log)
    assert stats(log)["records"] > 0


# --- hostile questions -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of one line, in a folder of its own."""
    log = tmp_path_factory.mktemp("small") / "ai_responses.jsonl"
    log.write_bytes(of_today(1) + b"\n")
    return log


@pytest.fixture(scope="module")
def small(small_log: Path) -> Any:
    """Open it for all questions, since opening takes longest: what one of them changes, it would tell itself."""
    with open_log(small_log) as table:
        yield table


HOSTILE = [
    "COPY (SELECT 1) TO '{log}'",
    "COPY (SELECT 1) TO '{log}' (USE_TMP_FILE false)",
    "WITH x AS (COPY (SELECT 1) TO '{log}' (USE_TMP_FILE false)) SELECT * FROM x",
    "WITH x AS (COPY (SELECT 1) TO '{out}') SELECT 1",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{out}') SELECT * FROM x)",
    "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{out}'') SELECT * FROM x')",
    "WITH x AS (INSERT INTO _mine VALUES (1) RETURNING *) FROM x",
    "SELECT 1; COPY (SELECT 1) TO '{out}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW records AS SELECT 1",
    "DROP VIEW records",
    "ATTACH '{out}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "CALL enable_logging('QueryLog', storage = 'file', storage_path = '{out}')",
    "SELECT * FROM read_text('{other}')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_csv('{other}')",
    "SELECT * FROM '{other}'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM parquet_metadata('{other}')",
    "SELECT * FROM sniff_csv('{other}')",
    "SELECT * FROM read_json('https://localhost/x.json')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT secret FROM hidden_from_sql",
    "VACUUM",
    "CHECKPOINT",
    "",
    "-- nothing",
]


def files_in(*folders: Path) -> dict[Path, bytes]:
    """Return what stands in each file below *folders*."""
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("query", HOSTILE)
def test_a_hostile_question_reads_and_writes_nothing_else(
    small: Log, small_log: Path, tmp_path: Path, query: str
) -> None:
    """No file is written, the log stays, no other file is read, no variable of the caller's is seen."""
    other, out = tmp_path / "other.csv", tmp_path / "out"
    other.write_text("secret\n1\n")
    hidden_from_sql = __import__("pytest")  # a name that a replacement scan would look for
    (opened,) = small._sources.plain
    before = files_in(tmp_path, small_log.parent)

    with pytest.raises((QueryError, duckdb.Error)):
        small.sql(query.format(log=opened, out=out, other=other)).fetchall()

    assert files_in(tmp_path, small_log.parent) == before
    assert small.sql("SELECT count(*) FROM records").fetchall() == [(1,)]
    assert hidden_from_sql is pytest


def test_a_harmless_question_is_answered(small: Log) -> None:
    """Whatever a SELECT can be, as long as it only asks."""
    for query in (
        "FROM records",
        "  -- why\n SELECT 'a;b' -- x",
        "WITH x AS (SELECT 1 AS a) SELECT * FROM x UNION ALL SELECT 2",
        "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3) FROM r",
        "DESCRIBE records",
        "SUMMARIZE SELECT latency_ms FROM records",
        "VALUES (1)",
        "SELECT 'COPY_QUERY_NODE' AS type, '\"type\":\"INSERT_QUERY_NODE\"'",
    ):
        assert small.sql(query).fetchall(), query


def test_a_wrong_question_says_where_it_is_wrong(small: Log) -> None:
    """The parser's own text, with the place."""
    with pytest.raises(QueryError, match=r"(?s)LINE 1: .*\^"):
        small.sql("SELECT model FROM records WHERE")
    with pytest.raises(QueryError, match=r"(?s)modle.*LINE 1"):
        small.sql("SELECT modle FROM records")


def test_an_unlocked_log_lets_relations_be_written(log_path: Path, tmp_path: Path) -> None:
    """Only who asks for it, and a question still may not write."""
    log_path.write_bytes(of_today(1) + b"\n")
    with open_log(log_path, locked=False) as table:
        table.summary().write_parquet(str(tmp_path / "out.parquet"))
        with pytest.raises(QueryError, match="COPY_QUERY_NODE"):
            table.sql(f"WITH x AS (COPY (SELECT 1) TO '{tmp_path}/no') SELECT 1")

    assert (tmp_path / "out.parquet").stat().st_size > 0
    assert not (tmp_path / "no").exists()
