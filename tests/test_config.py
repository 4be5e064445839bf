from __future__ import annotations

import functools
import gc
import io
import logging
import logging.config
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, read_lines, run_child

from ai_response_logging import AIResponseFormatter, AIResponseHandler, ConfigError, ConfigWarning, DurabilityWarning
from ai_response_logging.config import PRESET_NAMES, check, configure, load, preset_yaml

CLASS = "ai_response_logging.AIResponseHandler"
DEFAULT_LOG = Path("data") / "ai_responses" / "ai_responses.jsonl"
VERSIONS = ("3.11", "3.12", "3.13")

# The file of promise.md, word for word.
PROMISED_YAML = """\
# config/default.yaml: an ordinary dictConfig file
version: 1
disable_existing_loggers: false
handlers:
  ai_responses:
    class: ai_response_logging.AIResponseHandler
    filename: data/ai_responses/ai_responses.jsonl
    queue_max_size: 1000     # records that may wait in memory (and queue_max_bytes, 64 MiB)
    batch_size: 10           # write as soon as so many wait ...
    flush_interval: 5        # ... or after so many seconds, whichever comes first
    max_retries: 3           # attempts after a failed write; the n-th waits n x retry_delay
    retry_delay: 0.5         # seconds
    durability: crash        # memory | crash | power, see below
loggers:
  ai_responses: {level: INFO, handlers: [ai_responses], propagate: false}
"""
# promise.md's own lines: nothing to start, stop or flush; only the handler's answer is ours.
PROGRAM = """
import logging.config, sys, yaml
with open(sys.argv[1]) as f:
    logging.config.dictConfig(yaml.safe_load(f))
logging.getLogger("ai_responses").info("ai_response", extra={"question": "why?", "response": "because",
    "platform": "deepseek", "model": "deepseek-chat", "latency_ms": 1500})
"""


def a_mapping(log_path: Path, **options: Any) -> dict[str, Any]:
    """Return a configuration for *log_path*, as a program would write one."""
    section = {"class": CLASS, "filename": str(log_path), "durability": "memory", **options}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"ai": section},
        "loggers": {"ai_responses": {"level": "INFO", "handlers": ["ai"], "propagate": False}},
    }


def log(question: str = "why?", **fields: Any) -> None:
    """Log one answer the standard way."""
    logging.getLogger("ai_responses").info("ai_response", extra={"question": question, **fields})


def questions(path: Path) -> list[str]:
    """Return the questions in a log, in its order."""
    return [record["question"] for record in read_lines(path)]


# --- dictConfig and nothing else ---------------------------------------------------------------------------------


@functools.cache
def find_python(version: str) -> str | None:
    """Return an interpreter of *version* that can import this package: the one that runs here, else one beside it."""
    names = [sys.executable, *map(str, sorted(Path(sys.prefix).parent.glob("*/bin/python")))]
    names += filter(None, [shutil.which(f"python{version}")])
    question = "import ai_response_logging.api, yaml, sys; print('%d.%d' % sys.version_info[:2])"
    for name in names:
        try:
            if run_child(question, python=name, expect=None).stdout.strip() == version:
                return name
        except OSError:  # ENOEXEC, EACCES: no interpreter that runs here
            continue
    return None


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["promise.md", *PRESET_NAMES])
def test_a_yaml_file_works_through_dictconfig_alone(name: str, version: str, tmp_path: Path) -> None:
    """The very same file, on every Python: nothing to start, stop or flush, and the record is in the file."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} with our dependencies here")
    file = tmp_path / "logging.yaml"
    file.write_text(PROMISED_YAML if name == "promise.md" else (ROOT / "config" / f"{name}.yaml").read_text("utf-8"))

    done = run_child(PROGRAM, file, python=python, cwd=tmp_path)

    (record,) = read_lines(tmp_path / DEFAULT_LOG)
    assert (record["question"], record["provider"], record["latency_ms"]) == ("why?", "deepseek", 1500)
    assert done.stderr == ""
    assert stat.S_IMODE((tmp_path / DEFAULT_LOG).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


# --- presets -----------------------------------------------------------------------------------------------------


def test_the_presets_are_the_files_in_config() -> None:
    """One truth: each file in config/ is printed from its preset, and there is none beside them."""
    files = {path.stem: path.read_text("utf-8") for path in (ROOT / "config").glob("*.yaml")}

    assert files == {name: preset_yaml(name) for name in PRESET_NAMES}


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_dotted_path_in_a_preset_leads_somewhere(name: str) -> None:
    """A path in a YAML file is public like a function's name."""
    for path in re.findall(r"(?:class|\(\)|factory): (\S+)", preset_yaml(name)):
        assert logging.config.BaseConfigurator({}).resolve(path) is AIResponseHandler


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_has_nothing_to_complain_about(name: str) -> None:
    """What we ship passes our own check."""
    assert check(name) == []


def test_the_default_preset_says_what_the_promise_says() -> None:
    """The comments differ, the configuration does not."""
    assert yaml.safe_load(preset_yaml("default")) == load("default") == yaml.safe_load(PROMISED_YAML)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_is_what_its_file_says(name: str) -> None:
    """Who names a preset gets what its file would give, key by key and class by class, without reading YAML."""
    assert repr(load(name)) == repr(yaml.safe_load(preset_yaml(name)))


def test_a_preset_that_is_none_names_those_that_are() -> None:
    """Printed or configured, a misspelt preset is an error with the way out."""
    with pytest.raises(ConfigError, match=", ".join(PRESET_NAMES)):
        preset_yaml("fast")
    with pytest.raises(ConfigError, match=f"fast is neither a preset .{', '.join(PRESET_NAMES)}"):
        configure("fast")


# --- configure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_is_configured_by_name_and_options_override_it(name: str, log_path: Path) -> None:
    """A name is enough; what is said beside it wins, and the rest is the preset's."""
    section = load(name)["handlers"]["ai_responses"]

    handler = configure(name, filename=log_path, durability="memory", retry_delay=0.25, batch_size=None)
    log()

    assert (handler.filename, handler._options.retry_delay) == (str(log_path), 0.25)
    assert handler._options.queue_max_size == section["queue_max_size"]
    assert (handler._options.batch_size, handler._options.max_retries) == (
        section["batch_size"],
        section["max_retries"],
    )
    assert handler.flush()
    assert questions(log_path) == ["why?"]


@pytest.mark.parametrize("kind", ["text", "path", "mapping", "environment"])
def test_a_source_of_any_kind_configures_the_same(
    kind: str, log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML file by text or Path, a mapping, or AI_RESPONSES_CONFIG: all the same."""
    file = tmp_path / "logging.yaml"
    file.write_text(yaml.safe_dump(a_mapping(log_path, batch_size=7)), "utf-8")
    monkeypatch.setenv("AI_RESPONSES_CONFIG", str(file) if kind == "environment" else "no such preset")
    sources: dict[str, Any] = {"text": str(file), "path": file, "mapping": a_mapping(log_path, batch_size=7)}

    handler = configure(sources.get(kind))
    log()

    assert (handler.name, handler.level, handler._options.batch_size) == ("ai", logging.NOTSET, 7)
    assert logging.getLogger("ai_responses").handlers == [handler]
    assert handler.flush()
    assert questions(log_path) == ["why?"]


def test_the_environment_may_name_a_preset(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AI_RESPONSES_CONFIG=low_latency changes a program without a change of code."""
    monkeypatch.setenv("AI_RESPONSES_CONFIG", "low_latency")

    assert configure(filename=log_path, durability="memory")._options.batch_size == 5


def test_without_anything_the_default_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """configure() and no more: the default's options, at the default's place, made absolute at set-up."""
    monkeypatch.chdir(tmp_path)

    handler = configure()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    log()

    assert handler.flush()
    assert questions(tmp_path / DEFAULT_LOG) == ["why?"]


def test_the_environment_names_the_file_where_the_source_does_not(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AI_RESPONSES_FILE is for a configuration without a filename; one that has one keeps it."""
    mapping = a_mapping(log_path)
    del mapping["handlers"]["ai"]["filename"]
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path.with_name("environment.jsonl")))

    assert configure(mapping).filename == str(log_path.with_name("environment.jsonl"))
    assert configure(a_mapping(log_path)).filename == str(log_path)


@pytest.mark.parametrize("name", [None, "low_latency"])
def test_the_environment_moves_the_log_of_a_preset(
    name: str | None, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset's filename is the default place, and AI_RESPONSES_FILE comes before the default; an argument wins."""
    monkeypatch.chdir(log_path.parent)
    monkeypatch.setenv("AI_RESPONSES_FILE", str(log_path))

    assert configure(name, durability="memory").filename == str(log_path)
    assert configure(name, durability="memory", filename="x.jsonl").filename == str(log_path.with_name("x.jsonl"))


def test_a_mapping_is_not_changed(log_path: Path) -> None:
    """Options override what is configured, not the caller's dict."""
    mapping = a_mapping(log_path)
    configure(mapping, batch_size=3, filename=log_path.with_name("other.jsonl"))

    assert mapping == a_mapping(log_path)


def test_an_object_in_a_mapping_is_used_itself(log_path: Path) -> None:
    """A dictConfig takes live streams and filters; a copy of one would get what the original is waiting for."""
    stream = io.StringIO()
    mapping = a_mapping(log_path)
    mapping["handlers"]["console"] = {"class": "logging.StreamHandler", "stream": stream}
    mapping["loggers"]["app"] = {"level": "INFO", "handlers": ["console"], "propagate": False}
    configure(mapping)

    logging.getLogger("app").info("hello")
    logging.getLogger("app").handlers.clear()

    assert stream.getvalue() == "hello\n"


def test_an_object_that_cannot_be_copied_is_no_obstacle(log_path: Path) -> None:
    """A lock, a socket or a real stream in a mapping is none of our business."""
    mapping = a_mapping(log_path)
    mapping["filters"] = {"mine": {"()": lambda guard: lambda _: guard is not None, "guard": threading.Lock()}}
    mapping["handlers"]["ai"]["filters"] = ["mine"]

    assert len(configure(mapping).filters) == 1


def test_a_second_call_drains_the_first(log_path: Path) -> None:
    """Nobody has to flush before configuring anew: what waited is in the first file when the call returns."""
    first = configure(a_mapping(log_path, batch_size=100, flush_interval=1000))
    for number in range(3):
        log(str(number))
    assert first.get_stats()["pending"] == 3

    second = configure(a_mapping(log_path.with_name("second.jsonl")))
    log("3")

    assert questions(log_path) == ["0", "1", "2"]
    assert logging.getLogger("ai_responses").handlers == [second]
    assert second.flush()
    assert questions(log_path.with_name("second.jsonl")) == ["3"]


def test_a_configuration_that_is_refused_leaves_the_one_before(log_path: Path) -> None:
    """What was configured goes on recording, whether we or dictConfig found the mistake."""
    handler = configure(a_mapping(log_path))
    log("before")
    for mistake in ({"batch_size": 0}, {"level": "LOUD"}):
        with pytest.raises(ConfigError):
            configure(a_mapping(log_path.with_name("other.jsonl"), **mistake))
    log("after")

    assert handler.flush()
    assert questions(log_path) == ["before", "after"]


def test_a_handler_that_is_reached_through_another_is_returned_too(log_path: Path) -> None:
    """Behind a stock MemoryHandler our handler stands at no logger; configure still returns it."""
    mapping = a_mapping(log_path)
    mapping["handlers"]["memory"] = {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "ai"}
    mapping["loggers"]["ai_responses"]["handlers"] = ["memory"]

    handler = configure(mapping)
    log()

    assert handler.name == "ai"
    assert handler.flush()
    assert questions(log_path) == ["why?"]
    handler.close()


def test_the_handler_of_our_logger_is_the_one_returned(log_path: Path) -> None:
    """Of several handlers the one that records `ai_responses` is meant, whatever their order."""
    mapping = a_mapping(log_path)
    other = {**mapping["handlers"]["ai"], "filename": str(log_path.with_name("audit.jsonl"))}
    mapping["handlers"] = {"a_audit": other, **mapping["handlers"]}
    mapping["loggers"] = {"audit": {"handlers": ["a_audit"]}, **mapping["loggers"]}

    assert configure(mapping).name == "ai"
    for handler in logging.getLogger("audit").handlers[:]:
        logging.getLogger("audit").removeHandler(handler)
        handler.close()


def test_formatter_options_in_yaml_reach_the_line(log_path: Path) -> None:
    """A formatter of ours under `formatters` sets python-json-logger's options."""
    mapping = a_mapping(log_path, formatter="ours")
    mapping["formatters"] = {
        "ours": {"()": "ai_response_logging.AIResponseFormatter", "static_fields": {"app": "shop"}}
    }
    handler = configure(mapping)
    log()
    assert handler.flush()

    assert isinstance(handler.formatter, AIResponseFormatter)
    assert read_lines(log_path)[0]["app"] == "shop"


def test_a_foreign_formatter_is_said_not_to_be_used(log_path: Path) -> None:
    """A line must stay a line: somebody's text format is left aside, with a word about it."""
    mapping = a_mapping(log_path, formatter="theirs")
    mapping["formatters"] = {"theirs": {"format": "%(message)s"}}
    with pytest.warns(ConfigWarning, match="AIResponseFormatter"):
        handler = configure(mapping)
    log()

    assert handler.flush()
    assert questions(log_path) == ["why?"]


def test_a_durability_that_does_not_hold_is_said_once(log_path: Path) -> None:
    """One handler, one warning that names what is missing; get_stats() says what holds."""
    log_path.with_name(f"{log_path.name}.journal").write_bytes(b"in the way")
    with pytest.warns(DurabilityWarning, match="acts as 'memory'") as caught:
        handler = configure(a_mapping(log_path, durability="crash"))

    assert len(caught) == 1
    assert handler.get_stats()["durability"] == "memory"


@pytest.mark.slow
def test_a_program_that_configures_again_is_warned_once(tmp_path: Path) -> None:
    """With Python's own warning filters, one message a program is all there is."""
    done = run_child(
        """
        from ai_response_logging import configure, log_ai_response
        open("log.jsonl.journal", "w").close()
        for number in range(3):
            configure(filename="log.jsonl")
            log_ai_response(question="why?")
        """,
        cwd=tmp_path,
    )

    assert done.stderr.count("DurabilityWarning:") == 1
    assert questions(tmp_path / "log.jsonl") == ["why?"] * 3


# --- what is wrong, and where ------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]
MISTAKES: list[tuple[str, Change]] = [
    ("handlers.ai.batch_size", lambda it: it["handlers"]["ai"].update(batch_size=0)),
    ("handlers.ai.flush_interval", lambda it: it["handlers"]["ai"].update(flush_interval="5 s")),
    ("handlers.ai.durability", lambda it: it["handlers"]["ai"].update(durability="disk")),
    ("handlers.ai.bach_size", lambda it: it["handlers"]["ai"].update(bach_size=1)),
    ("handlers.ai.file_mode", lambda it: it["handlers"]["ai"].update(file_mode=640)),
    ("handlers.ai.filename", lambda it: it["handlers"]["ai"].update(filename=5)),
    ("handlers.ai.level", lambda it: it["handlers"]["ai"].update(level="LOUD")),
    ("handlers.ai.formatter", lambda it: it["handlers"]["ai"].update(formatter="none")),
    ("handlers.ai.filters", lambda it: it["handlers"]["ai"].update(filters=["none"])),
    ("loggers.ai_responses.level", lambda it: it["loggers"]["ai_responses"].update(level="LOUD")),
    ("loggers.ai_responses.handlers", lambda it: it["loggers"]["ai_responses"].update(handlers=["none"])),
    ("root.handlers", lambda it: it.update(root={"handlers": ["none"]})),
    ("version", lambda it: it.update(version=2)),
    ("version", lambda it: it.pop("version")),
    ("handlers", lambda it: it["handlers"].pop("ai")),
    ("handlers", lambda it: it.update(handlers=["ai"])),
    ("loggers", lambda it: it.update(loggers=["ai"])),
    ("formatters", lambda it: it.update(formatters=5)),
]
each_mistake = pytest.mark.parametrize(
    ("where", "change"), MISTAKES, ids=[f"{index}-{where}" for index, (where, _) in enumerate(MISTAKES)]
)


def named(where: str) -> str:
    """Return a pattern that finds *where* as a path of its own."""
    return rf"(^|[ '\"]){re.escape(where)}\b"


@each_mistake
def test_a_mistake_is_refused_with_the_full_path_of_its_key(log_path: Path, where: str, change: Change) -> None:
    """Configuration fails when it is loaded, and says where to look."""
    mapping = a_mapping(log_path)
    change(mapping)

    with pytest.raises(ConfigError, match=named(where)):
        configure(mapping)
    gc.collect()  # a handler that was made and left behind open would warn now


@each_mistake
def test_a_mistake_is_found_by_check(log_path: Path, where: str, change: Change) -> None:
    """`ai-responses config check` finds what configure would refuse, with the same path, and touches nothing."""
    mapping = a_mapping(log_path)
    change(mapping)

    complaints = check(mapping)

    assert [one for one in complaints if re.search(named(where), one)], complaints
    assert not log_path.parent.joinpath("data").exists()
    assert not log_path.exists()


def test_somebody_elses_handler_that_cannot_be_made_is_named(log_path: Path) -> None:
    """What only dictConfig can find out is told with the path as well, and ours, made before it, is closed."""
    mapping = a_mapping(log_path)
    mapping["handlers"]["file"] = {"class": "no.such.Handler"}

    with pytest.raises(ConfigError, match=named("handlers.file")):
        configure(mapping)
    gc.collect()  # as above


def test_check_names_all_mistakes_at_once(log_path: Path) -> None:
    """Nobody has to run it five times."""
    mapping = a_mapping(log_path, batch_size=0, bach_size=1, durability="disk")

    assert len(check(mapping)) == 3


def test_check_has_nothing_to_say_about_what_works(log_path: Path) -> None:
    """A configuration with everything that dictConfig offers is fine."""
    mapping = a_mapping(log_path, level="INFO", filters=["one"], formatter="ours", file_mode="0640", filename=log_path)
    mapping["filters"] = {"one": {"name": "ai_responses"}}
    mapping["formatters"] = {"ours": {"()": "ai_response_logging.AIResponseFormatter"}}
    mapping["root"] = {"level": 30, "handlers": []}

    assert check(mapping) == []
    assert configure(mapping).filename == str(log_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("version: [1", "is not valid YAML"), ("- a\n- b", "must hold a mapping"), ("", "must hold a mapping")],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    """The error has the file's name and what is wrong with it."""
    file = tmp_path / "logging.yaml"
    file.write_text(text, "utf-8")

    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))} {complaint}"):
        configure(file)
    assert complaint in check(file)[0]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "binary"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A path that leads nowhere, or to something that is no text."""
    file = tmp_path / "logging.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))} is neither a preset"):
        configure(file)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_something_else_in_the_logs_place_is_refused_and_named(log_path: Path, kind: str) -> None:
    """Nothing is written to a symlink, FIFO or directory; the error names it and the key that leads there."""
    other = log_path.with_name("other")
    other.write_text("somebody else's\n", "utf-8")
    make: dict[str, Callable[[Path], object]] = {
        "directory": Path.mkdir,
        "link": lambda path: path.symlink_to(other),
        "fifo": os.mkfifo,
    }
    make[kind](log_path)

    with pytest.raises(ConfigError, match=rf"{re.escape(str(log_path))}.*handlers\.ai\.filename"):
        configure(a_mapping(log_path))
    assert other.read_text("utf-8") == "somebody else's\n"


# --- several handlers --------------------------------------------------------------------------------------------


def test_two_handlers_on_one_path_share_a_writer(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the path is spelt, a process is one writer for one file: one writer_id, numbers without a gap."""
    (log_path.parent / "link").symlink_to(log_path.parent)
    monkeypatch.chdir(log_path.parent)
    spellings = [log_path, Path(log_path.name), log_path.parent / "link" / log_path.name]
    handlers = [AIResponseHandler(spelling, durability="memory") for spelling in spellings]
    for handler in handlers:
        handler.handle(logging.makeLogRecord({"name": "app", "msg": "m"}))
    for handler in handlers:
        handler.close()

    records = read_lines(log_path)
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert len({record["writer_id"] for record in records}) == 1


def test_closing_one_of_two_leaves_the_other_recording(log_path: Path) -> None:
    """The first one's end is a drain, and not the second one's end."""
    first, second = (AIResponseHandler(log_path, durability="memory") for _ in range(2))
    first.handle(logging.makeLogRecord({"name": "app", "msg": "m"}))
    first.close()
    assert len(read_lines(log_path)) == 1
    assert second.get_stats()["worker_alive"]
    second.handle(logging.makeLogRecord({"name": "app", "msg": "m"}))
    second.close()

    assert len(read_lines(log_path)) == 2
    assert not second.get_stats()["worker_alive"]


def test_a_second_handler_with_other_options_says_that_it_shares(log_path: Path) -> None:
    """One writer has one batch size; whoever asks for another is told."""
    first = AIResponseHandler(log_path, durability="memory", batch_size=5)
    with pytest.warns(ConfigWarning, match="shares the first one's writer"):
        second = AIResponseHandler(log_path, durability="memory", batch_size=6)
    first.close()
    second.close()


def test_three_handlers_on_three_files_keep_apart(tmp_path: Path) -> None:
    """Each file is complete in itself, with a writer and a count of its own."""
    handlers = [AIResponseHandler(tmp_path / f"{number}.jsonl", durability="memory") for number in range(3)]
    for number in range(2):
        record = logging.makeLogRecord({"name": "app", "msg": "m", "record_id": f"r-{number}"})
        for handler in handlers:
            handler.handle(record)
    for handler in handlers:
        handler.close()

    logs = [read_lines(tmp_path / f"{number}.jsonl") for number in range(3)]
    assert [[(one["record_id"], one["seq"]) for one in records] for records in logs] == [[("r-0", 0), ("r-1", 1)]] * 3
    assert len({records[0]["writer_id"] for records in logs}) == 3
