"""Between a record's encoding and its keeping: :mod:`ai_response_logging._cleaning`, through real handlers."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines

from ai_response_logging import AIResponseFormatter, AIResponseHandler
from ai_response_logging._cleaning import Cleaner
from ai_response_logging._redaction_rules import rules_of
from ai_response_logging.blobs import bring_back, directory_of
from ai_response_logging.errors import ConfigError
from ai_response_logging.formatter import current_head
from ai_response_logging.reader import read_log
from ai_response_logging.redaction import Redactor
from ai_response_logging.verify import verify_log

KEY = "sk-proj-0123456789abcdef0123456789ABCDEF"
EXTRA = {
    "question": f"Is {KEY} a key?",
    "response": f"Do not show {KEY}.",
    "error_message": f"Incorrect API key provided: {KEY}",
    "metadata": {"headers": {"Authorization": f"Bearer {KEY}"}, "url": f"https://me:{KEY}@host/v1?key={KEY}"},
    "messages": [{"role": "user", "content": [{"type": "text", "text": KEY}]}],
    "other": {1, KEY},
}


def all_bytes(folder: Path) -> bytes:
    """Return what is in all files below *folder*, names included."""
    found = b""
    for where, _, names in os.walk(folder):
        for name in names:
            found += name.encode() + (Path(where) / name).read_bytes()
    return found


def records_of(log: Path, **options: Any) -> list[dict[str, Any]]:
    """Log once through a real handler, and return what came of it."""
    handler = AIResponseHandler(log, **options)
    logger = logging.Logger("test")  # noqa: LOG001  nobody else has it
    logger.addHandler(handler)
    logger.info("said %s", KEY, extra=EXTRA)
    handler.close()
    return read_lines(log)


@pytest.mark.parametrize("durability", ["memory", "crash", "power"])
def test_no_secret_is_in_any_file(tmp_path: Path, durability: str) -> None:
    """Message, texts, metadata, nested messages, values that go the careful way: all are clean, and named."""
    [record] = records_of(tmp_path / "log.jsonl", durability=durability)
    assert KEY.encode() not in all_bytes(tmp_path)
    assert record["message"] == "said [redacted:secrets]"
    assert record["question"] == "Is [redacted:secrets] a key?"
    assert record["metadata"]["headers"] == {"Authorization": "[redacted:secrets]"}
    paths = {entry["path"] for entry in record["redacted"]}
    assert {
        "message",
        "question",
        "error_message",
        "metadata.headers.Authorization",
        "messages.0.content.0.text",
    } <= paths
    assert verify_log(tmp_path / "log.jsonl").whole


@pytest.mark.parametrize(
    "extra",
    [*({name: value} for name, value in EXTRA.items()), {"metadata": {"password": "geheim"}}, {"api_key": "geheim"}],
    ids=str,
)
def test_a_secret_in_one_place_alone_is_found(tmp_path: Path, extra: dict[str, Any]) -> None:
    """Nothing else in the record says that it needs the close look."""
    handler = AIResponseHandler(tmp_path / "log.jsonl")
    logger = logging.Logger("test")  # noqa: LOG001  nobody else has it
    logger.addHandler(handler)
    logger.info("said", extra=extra)
    handler.close()

    [record] = read_lines(tmp_path / "log.jsonl")
    assert KEY.encode() not in all_bytes(tmp_path)
    assert b"geheim" not in all_bytes(tmp_path)
    assert {entry["rule"] for entry in record["redacted"]} == {"secrets"}


def test_a_killed_process_leaves_no_secret_in_its_journal(tmp_path: Path) -> None:
    """What is in the journal is what would be in the log."""
    program = (
        f"import logging, os\nfrom ai_response_logging import AIResponseHandler\n"
        f"handler = AIResponseHandler({str(tmp_path / 'log.jsonl')!r}, flush_interval=1000)\n"
        f"logger = logging.Logger('test')\nlogger.addHandler(handler)\n"
        f"logger.info('x', extra={EXTRA!r})\nos.kill(os.getpid(), {signal.SIGKILL.value})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == -9
    [record] = read_log(tmp_path / "log.jsonl", missing_ok=True)
    assert record["redacted"]
    assert KEY.encode() not in all_bytes(tmp_path)


def test_the_function_is_no_way_around(tmp_path: Path) -> None:
    """``log_ai_response`` has no LogRecord, and the same rules."""
    program = (
        "from ai_response_logging import configure, log_ai_response\n"
        f"configure('default', filename={str(tmp_path / 'log.jsonl')!r})\n"
        f"log_ai_response(question={KEY!r}, response='r', platform='p', model='m', api_key={KEY!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    [record] = read_lines(tmp_path / "log.jsonl")
    assert (record["question"], record["api_key"]) == ("[redacted:secrets]", "[redacted:secrets]")


def test_a_message_that_comes_again_is_named_each_time(tmp_path: Path) -> None:
    """The usual messages are remembered; one with a secret in it is not."""
    handler = AIResponseHandler(tmp_path / "log.jsonl")
    for _ in range(2):
        handler.handle(logging.makeLogRecord({"msg": KEY, "levelname": "INFO", "name": "n"}))
    handler.close()
    assert [record["redacted"] for record in read_lines(tmp_path / "log.jsonl")] == [
        [{"path": "message", "rule": "secrets"}]
    ] * 2


def test_rules_are_options_of_the_handler(tmp_path: Path) -> None:
    """``redact: false`` keeps all; other rules are added; a wrong one is said when the handler is made."""
    [record] = records_of(tmp_path / "all.jsonl", redact=False)
    assert record["question"] == EXTRA["question"]
    assert "redacted" not in record
    [record] = records_of(tmp_path / "drop.jsonl", redact=["secrets", {"path": "question", "action": "drop"}])
    assert "question" not in record
    with pytest.raises(ConfigError, match="redact has no rule 'secret': did you mean secrets"):
        AIResponseHandler(tmp_path / "none.jsonl", redact=["secret"])
    assert not (tmp_path / "none.jsonl").exists()


def test_a_formatter_elsewhere_takes_secrets_out_as_well() -> None:
    """On a handler that is not ours there are no options, so the default holds."""
    line = AIResponseFormatter().format(logging.makeLogRecord({"msg": KEY, "question": KEY}))
    assert KEY not in line
    assert json.loads(line)["question"] == "[redacted:secrets]"


def test_a_large_text_goes_to_a_file_of_its_own(tmp_path: Path) -> None:
    """Beyond max_inline_bytes; readers bring it back, and the log stays whole."""
    log = tmp_path / "log.jsonl"
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 200_000
    handler = AIResponseHandler(log)
    logger = logging.Logger("test")  # noqa: LOG001  nobody else has it
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("x", extra={"messages": [{"content": picture}], "response": "kurz"})
    handler.close()
    records = read_lines(log)
    assert log.stat().st_size < 5_000
    assert all(bring_back(record, str(log))["messages"] == [{"content": picture}] for record in records)
    assert sum(len(names) for _, _, names in os.walk(directory_of(str(log)))) == 1
    assert verify_log(log).whole


def test_nothing_goes_elsewhere_when_that_is_not_wanted(tmp_path: Path) -> None:
    """``max_inline_bytes: 0`` keeps each line whole, however long."""
    handler = AIResponseHandler(tmp_path / "log.jsonl", max_inline_bytes=0)
    handler.handle(logging.makeLogRecord({"msg": "x", "response": "x" * 3_000_000}))
    handler.close()
    [record] = read_lines(tmp_path / "log.jsonl")
    assert len(record["response"]) == 3_000_000
    assert not os.path.exists(directory_of(str(tmp_path / "log.jsonl")))


def test_a_secret_in_a_large_text_is_in_no_file(tmp_path: Path) -> None:
    """Taken out first, then set apart."""
    handler = AIResponseHandler(tmp_path / "log.jsonl")
    handler.handle(logging.makeLogRecord({"msg": "x", "response": "x " * 800_000 + KEY}))
    handler.close()
    assert KEY.encode() not in all_bytes(tmp_path)
    [record] = read_lines(tmp_path / "log.jsonl")
    assert record["blobs"]


def test_the_callers_own_blobs_are_kept_beside_ours(tmp_path: Path) -> None:
    """The name is ours since texts are set apart; what a caller has under it is no less his."""
    handler = AIResponseHandler(tmp_path / "log.jsonl")
    handler.handle(logging.makeLogRecord({"msg": "x", "blobs": ["theirs"], "response": "x " * 800_000}))
    handler.close()
    [record] = read_lines(tmp_path / "log.jsonl")
    assert record["metadata"] == {"caller.blobs": ["theirs"]}
    assert [entry["path"] for entry in record["blobs"]] == [["response"]]


def test_one_formatter_on_two_handlers_serves_each_by_its_own_rules(tmp_path: Path) -> None:
    """A dictConfig may name one formatter for both; one of a class of its own may override `encode` as it was."""

    class Marking(AIResponseFormatter):
        def encode(self, record: logging.LogRecord) -> Any:
            record.marked = True
            return super().encode(record)

    formatter = Marking()
    handlers = [
        AIResponseHandler(tmp_path / f"{name}.jsonl", redact=rules) for name, rules in (("a", False), ("b", None))
    ]
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.handle(logging.makeLogRecord({"msg": "x", "question": KEY}))
        handler.close()
    [kept], [taken] = (read_lines(tmp_path / f"{name}.jsonl") for name in "ab")
    assert (kept["question"], taken["question"]) == (KEY, "[redacted:secrets]")
    assert kept["marked"] is taken["marked"] is True


@pytest.mark.parametrize("levels", [100, 252, 253, 254, 255, 300])
def test_a_secret_however_deep_costs_no_record(levels: int) -> None:
    """One level more than orjson writes at once: the record is kept, and clean."""
    value: Any = KEY
    for _ in range(levels):
        value = [value]
    line = AIResponseFormatter().format(logging.makeLogRecord({"msg": "x", "metadata": value}))
    assert KEY not in line
    assert json.loads(line)["message"] == "x"


@pytest.mark.parametrize("levels", [10, 49, 50, 51, 120])
def test_a_value_under_a_secrets_name_goes_however_deep(levels: int) -> None:
    """It looks like nothing, so it is its name alone that tells; also where what is around it is JSON already."""
    value: Any = {"password": "geheim"}
    for _ in range(levels):
        value = [value]
    assert "geheim" not in AIResponseFormatter().format(logging.makeLogRecord({"msg": "x", "metadata": value}))


# --- what is remembered of names ---------------------------------------------------------------------------------


def cleaned(formatter: AIResponseFormatter, **fields: Any) -> dict[str, Any]:
    """Return what *formatter* makes of *fields*."""
    made: dict[str, Any] = json.loads(formatter.encode_fields(fields, current_head("m", "INFO", "l")).body + b"}")
    return made


def formatter_with(*rules: Any) -> AIResponseFormatter:
    """Make a formatter whose records are cleaned by *rules*."""
    formatter = AIResponseFormatter()
    formatter.cleaner = Cleaner(Redactor(rules_of(list(rules))))
    return formatter


def test_a_secrets_name_without_a_value_is_not_taken_for_harmless() -> None:
    """The next record of the same names has one."""
    formatter = formatter_with("secrets")
    cleaned(formatter, remembered_1=1, api_key=None)

    assert cleaned(formatter, remembered_1=1, api_key="hunter2")["api_key"] == "[redacted:secrets]"


def test_names_that_one_logs_rules_leave_are_looked_at_by_another() -> None:
    """Two handlers with rules of their own share what is remembered of a record's names."""
    cleaned(formatter_with("secrets"), remembered_2=1, user_id="anna")

    assert cleaned(formatter_with({"path": "user_id"}), remembered_2=1, user_id="anna")["user_id"] != "anna"


def test_a_name_that_we_add_is_looked_at_although_it_was_not_there_before() -> None:
    """A provider is only known of a platform that is a text."""
    formatter = formatter_with({"path": "provider"})
    cleaned(formatter, remembered_3=1, platform=5)

    assert cleaned(formatter, remembered_3=1, platform="Kimi")["provider"] != "moonshot"
