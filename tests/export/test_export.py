"""What is written, what is left out, and that both add up: :mod:`ai_response_logging.export`."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ai_response_logging.cli import app
from ai_response_logging.errors import ConfigError, LogReadError, MissingExtraError
from ai_response_logging.export import FORMATS, Manifest, Selection, export
from ai_response_logging.export._select import REASONS, is_refusal
from ai_response_logging.export._training import Preference
from ai_response_logging.filters import Filters

from .conftest import RECORDS, line

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "ai_responses_sample.jsonl"
# Of RECORDS, whatever the format; some formats have no place for others besides.
LEFT_OUT = {
    "failed": 1,
    "not_an_answer": 1,
    "incomplete": 2,
    "empty": 1,
    "refusal": 2,
    "duplicate": 1,
    "doubled": 1,
}


def rows_of(path: Path) -> list[Any]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def write_log(path: Path, *records: dict[str, Any]) -> Path:
    """Write *records* as a log."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_record_is_used_or_counted_under_one_reason(log: Path, name: str) -> None:
    """Nothing vanishes on the way, whatever the format; the manifest beside the output says the same."""
    if name == "parquet":
        pytest.importorskip("duckdb")
    out = log.parent / "out"
    manifest = export(log, out, format=name, validation=0.0)
    assert manifest.read == len(RECORDS)
    assert manifest.used + sum(manifest.left_out.values()) == manifest.read
    assert manifest.bad_lines == 1
    assert LEFT_OUT.items() <= manifest.left_out.items()
    assert set(manifest.left_out) <= set(REASONS)
    assert json.loads((log.parent / "out.manifest.json").read_text()) == json.loads(json.dumps(manifest.to_dict()))
    for written in manifest.files:
        content = Path(written.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (written.bytes, written.sha256)
        assert stat.S_IMODE(os.stat(written.path).st_mode) & 0o077 == 0 or name == "parquet"


def test_a_chat_for_fine_tuning(log: Path) -> None:
    """Whole conversations, the system's words first, calls of tools with the tools."""
    export(log, log.parent / "out", format="openai-chat")
    rows = rows_of(log.parent / "out")
    assert rows[0] == {
        "messages": [{"role": "user", "content": "Question 1?"}, {"role": "assistant", "content": "Answer 1."}]
    }
    assert rows[1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert rows[2]["messages"][-1]["tool_calls"][0]["id"] == "call_1"
    assert rows[2]["tools"] == [{"type": "function"}]
    assert [message["role"] for message in rows[3]["messages"]] == ["user", "assistant", "user", "assistant"]


def test_alpaca_takes_text_only(log: Path) -> None:
    """Turns before the last are its history; pictures and tools have no place."""
    manifest = export(log, log.parent / "out", format="alpaca")
    rows = rows_of(log.parent / "out")
    assert {"instruction": "Question 11?", "input": "", "output": "Answer 11.", "system": "Be brief."} in rows
    assert {"instruction": "c", "input": "", "output": "Answer 13.", "history": [["a", "b"]]} in rows
    assert manifest.left_out["not_text"] == 2


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [("openai-dpo", "preferred_output", "non_preferred_output"), ("trl-preference", "chosen", "rejected")],
)
def test_pairs_are_the_best_and_the_worst_answer_to_one_prompt(
    tmp_path: Path, name: str, better: str, worse: str
) -> None:
    """By a number in the record; what has none, no rival, or stands in between is counted."""
    scores = {"poor": 0.1, "good": 0.9, "fair": 0.5}
    log = write_log(
        tmp_path / "log.jsonl",
        *(line(n, question="q", response=r, response_quality_score=scores[r]) for n, r in enumerate(scores)),
        line(5, question="alone", response_quality_score=0.5),
        line(6, question="no score"),
        *(line(n, question="equal", response=f"r{n}", response_quality_score=0.5) for n in (7, 8)),
    )  # fmt: skip
    manifest = export(log, tmp_path / "out", format=name)
    [row] = rows_of(tmp_path / "out")
    assert [row[better][0]["content"], row[worse][0]["content"]] == ["good", "poor"]
    assert manifest.left_out == {"in_between": 1, "no_score": 1, "no_rival": 3}
    assert (manifest.used, manifest.rows) == (2, 1)


def test_pairs_by_model(tmp_path: Path) -> None:
    """The first named is the best; others do not count."""
    log = write_log(
        tmp_path / "log.jsonl",
        *(line(n, question="q", response=m, model=m) for n, m in enumerate(["a", "b", "c", "d"])),
    )
    preference = Preference(models=("c", "b", "a"))
    manifest = export(log, tmp_path / "out", format="trl-preference", preference=preference)
    [row] = rows_of(tmp_path / "out")
    assert [row["chosen"][0]["content"], row["rejected"][0]["content"]] == ["c", "a"]
    assert manifest.left_out == {"in_between": 1, "no_score": 1}
    with pytest.raises(ConfigError, match="prefer_models needs two models or more"):
        Preference(models=("a",))


def test_batches_ask_again_what_failed(log: Path) -> None:
    """As it was asked, settings included, under the record's own id."""
    export(log, log.parent / "out", format="openai-batch", filters=Filters(failed=True))
    [row] = rows_of(log.parent / "out")
    assert row == {
        "custom_id": RECORDS[1]["record_id"],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Question 2?"}]},
    }
    export(log, log.parent / "all", format="openai-batch")
    by_url = Counter(row["url"] for row in rows_of(log.parent / "all"))
    assert by_url["/v1/embeddings"] == 1
    [row] = [row for row in rows_of(log.parent / "all") if "temperature" in row["body"]]
    assert (row["body"]["temperature"], row["body"]["max_tokens"]) == (0.5, 9)


def test_a_validation_set_shares_no_prompt(tmp_path: Path) -> None:
    """The prompt's hash decides: the same each time, for all answers to a prompt, and about the share asked for."""
    log = write_log(tmp_path / "log.jsonl", *(line(n, question=f"q{n // 2}", response=f"r{n}") for n in range(400)))
    manifest = export(log, tmp_path / "out.jsonl.gz", format="trl-prompt-completion", validation=0.25)
    sides = []
    for name in ("out.jsonl.gz", "out.validation.jsonl.gz"):
        rows = [json.loads(text) for text in gzip.decompress((tmp_path / name).read_bytes()).splitlines()]
        sides.append({row["prompt"][0]["content"] for row in rows})
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 200
    assert manifest.validation_rows == 2 * len(sides[1])
    assert 30 <= len(sides[1]) <= 70
    again = export(log, tmp_path / "again.jsonl.gz", format="trl-prompt-completion", validation=0.25)
    assert [written.sha256 for written in again.files] == [written.sha256 for written in manifest.files]


@pytest.mark.slow
def test_nearly_the_same_is_left_out_when_asked(tmp_path: Path) -> None:
    """By the share of common pieces, in any language; what is only alike in its subject stays."""
    pytest.importorskip("datasketch")
    text = "".join(f"第{n}点：型号{n * 37}的影像系统稳定，得分{n * 91}。" for n in range(40))
    log = write_log(
        tmp_path / "log.jsonl",
        line(1, question="推荐手机", response=text),
        line(2, question="推荐手机", response=text.replace("稳定", "非常稳定", 2)),
        line(3, question="推荐手机", response=text.replace("影像系统稳定", "屏幕出色")),
    )
    manifest = export(log, tmp_path / "out", format="trl", selection=Selection(near_duplicates=0.8))
    assert manifest.left_out == {"near_duplicate": 1}
    assert manifest.rows == 2
    assert export(log, tmp_path / "out2", format="trl").rows == 3
    with pytest.raises(ConfigError, match=r"near_duplicates must be 0\.5 to 0\.999, got 0\.2"):
        Selection(near_duplicates=0.2)


def test_lengths(tmp_path: Path) -> None:
    """Of the answer at least, of all together at most."""
    log = write_log(tmp_path / "log.jsonl", *(line(n, response="x" * n) for n in (2, 10, 100)))
    manifest = export(log, tmp_path / "out", format="trl", selection=Selection(min_chars=5, max_chars=50))
    assert manifest.left_out == {"too_short": 1, "too_long": 1}


def test_everything_means_it(log: Path) -> None:
    """Also what is no answer, and twice what stands twice."""
    manifest = export(log, log.parent / "out.csv", format="csv", selection=Selection(everything=True))
    assert (manifest.rows, manifest.left_out) == (len(RECORDS), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't assist with that request.", True),
        ("I cannot help you with this.", True),
        ("As an AI language model, I am unable to provide medical advice.", True),
        ("对不起，我不能回答这个问题。", True),
        ("很抱歉，但我无法提供。", True),
        ("I can't stress enough how good it is.", False),
        ("Sorry to hear that! Here is what helps: rest.", False),
        ("我无法确定，但以下是几个建议：", False),
        ("I cannot help but smile. " * 100, False),
    ],
)
def test_how_models_decline(text: str, expected: bool) -> None:
    """In the first words of a short answer, in English and in Chinese; or by the provider's own word."""
    assert is_refusal({}, text) is expected
    assert is_refusal({"finish_reasons": ["content_filter"]}, text)


def test_what_is_there_is_not_replaced_by_accident(log: Path) -> None:
    """Neither an output nor its manifest; --force says that one means it."""
    out = log.parent / "out"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="is there already; choose another name, or --force to replace it"):
        export(log, out, format="csv")
    assert out.read_text() == "mine"
    export(log, out, format="csv", force=True)
    assert out.read_text() != "mine"


def test_a_directory_that_is_not_there_is_named(log: Path) -> None:
    """Before anything is read, and in one sentence."""
    with pytest.raises(ConfigError, match=r"there is no directory .*none to write out into; make it first"):
        export(log, log.parent / "none" / "out", format="csv")


def test_a_failure_in_the_middle_leaves_what_was_there(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half a file under the name, and nothing beside it."""
    out = log.parent / "out"
    export(log, out, format="csv")
    before = out.read_bytes()
    monkeypatch.setattr("ai_response_logging.export._tables.flat_row", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(log, out, format="csv", force=True)
    assert out.read_bytes() == before
    assert sorted(os.listdir(log.parent)) == ["log.jsonl", "out", "out.manifest.json"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"format": "xml"}, "there is no format 'xml'; the formats are openai-chat"),
        ({"format": "csv", "validation": 0.1}, "csv is no training data and has no validation set"),
        ({"format": "trl", "validation": 1}, "validation must be 0 to 0.9"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    """The log is not even there."""
    with pytest.raises(ConfigError, match=complaint):
        export(tmp_path / "none", tmp_path / "out", **options)
    with pytest.raises(LogReadError):
        export(tmp_path / "none", tmp_path / "out", format="csv")
    assert os.listdir(tmp_path) == []


def test_a_missing_package_is_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match="duckdb is not installed"):
        export(log, log.parent / "out", format="parquet")
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(MissingExtraError, match="datasketch is not installed"):
        export(log, log.parent / "out", format="trl", selection=Selection(near_duplicates=0.9))


def test_large_texts_come_back(tmp_path: Path) -> None:
    """What stands beside the log is data like any other."""
    from ai_response_logging.blobs import BlobStore, set_apart

    log = tmp_path / "log.jsonl"
    record = line(1, response="x" * 100_000)
    store = BlobStore(str(log), file_mode=0o600, directory_mode=0o700, is_synced=False)
    record["blobs"] = set_apart(record, 1000, 100_500, store.keep)
    write_log(log, record)
    export(log, tmp_path / "out", format="trl")
    assert rows_of(tmp_path / "out")[0]["messages"][-1]["content"] == "x" * 100_000


def test_the_command_says_what_became_of_each_record(log: Path) -> None:
    """For people, and the manifest for programs; exit code 1 when nothing is left."""
    out = log.parent / "o.jsonl"
    shown = CliRunner().invoke(app, ["export", "--file", str(log), "--format", "trl", "-o", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "trl: 7 rows of 7 records, 17 read" in shown.output
    assert "2  refusal: the model declined to answer" in shown.output
    arguments = ["export", "--file", str(log), "--format", "trl", "-o", str(out), "--force", "--json"]
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["left_out"]["refusal"] == 2
    empty = CliRunner().invoke(app, [*arguments, "--model", "none"])
    assert empty.exit_code == 1


@pytest.mark.skipif(not SAMPLE.exists(), reason="../shared/data is not beside this clone")
@pytest.mark.parametrize("name", FORMATS)
def test_the_real_lines(tmp_path: Path, name: str) -> None:
    """152 lines of two older shapes: each is used, or counted."""
    if name == "parquet":
        pytest.importorskip("duckdb")
    preference = Preference(field="tokens_used")
    manifest: Manifest = export(SAMPLE, tmp_path / "out", format=name, preference=preference)
    assert manifest.read == 152
    assert manifest.used + sum(manifest.left_out.values()) == 152
    assert manifest.left_out["failed"] == 7
