from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import itertools
import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import has_fork, read_lines, run_child
from pythonjsonlogger.core import BaseJsonFormatter
from pythonjsonlogger.json import JsonFormatter

from ai_response_logging import _plain
from ai_response_logging.errors import ConfigError, ConfigWarning
from ai_response_logging.formatter import AIResponseFormatter, Status, current_head
from ai_response_logging.record import OWN_FIELDS

ALWAYS = {
    "schema_version", "record_id", "timestamp", "unix_timestamp", "event", "level", "logger", "message",
    "host", "pid", "thread", "writer_id", "seq", "checksum",
}  # fmt: skip


class Mute:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Column(enum.Enum):
    """Keys as some applications write them."""

    LEVEL = "level"
    SEQ = "seq"
    RECORD_ID = "record_id"
    EVENT = "event"
    CHECKSUM = "checksum"
    ENCODE_ERRORS = "encode_errors"


def made(msg: Any = "ai_response", *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    """Make a LogRecord the way Logger.info does."""
    return made_with(extra, msg, *args, exc_info=exc_info)


def made_with(extra: dict[Any, Any], msg: Any = "m", *args: Any, exc_info: Any = None) -> logging.LogRecord:
    """Make a LogRecord with an extra whose keys may be anything."""
    return logging.getLogger("app.ai").makeRecord("app.ai", 20, __file__, 1, msg, args, exc_info, extra=extra)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what gives a LogRecord's line as a strict reader reads it."""

    def write(record: logging.LogRecord, formatter: AIResponseFormatter | None = None) -> dict[str, Any]:
        line = (formatter or AIResponseFormatter()).format(record)
        (tmp_path / "line.jsonl").write_text(f"{line}\n", "utf-8")
        (fields,) = read_lines(tmp_path / "line.jsonl")
        return fields

    return write


Written = Callable[..., dict[str, Any]]


def replaced(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what ``encode_errors`` names."""
    return [(one["path"], one["type"]) for one in fields.get("encode_errors", [])]


# --- what is always there ----------------------------------------------------------------------------------------


def test_a_bare_record_has_what_is_always_there_and_nothing_else(written: Written) -> None:
    """The fields that say who, when and what stand in every line, each from the LogRecord."""
    record = made("hello %s", "world")

    fields = written(record)

    assert fields.keys() == ALWAYS
    assert (fields["level"], fields["logger"], fields["message"]) == ("INFO", "app.ai", "hello world")
    assert (fields["schema_version"], fields["event"]) == ("1.0", "response")
    assert (fields["pid"], fields["thread"]) == (os.getpid(), threading.current_thread().name)
    assert fields["unix_timestamp"] == pytest.approx(record.created, abs=1e-6)


def test_both_timestamps_are_the_same_instant(written: Written) -> None:
    """The time is when it was logged, to the microsecond, whatever time it is written."""
    record = made()
    record.created = 1_795_463_540.000123

    fields = written(record)

    assert fields["timestamp"] == "2026-11-23T19:52:20.000123Z"
    assert fields["unix_timestamp"] == 1_795_463_540.000123
    assert datetime.fromisoformat(fields["timestamp"]) == datetime.fromtimestamp(fields["unix_timestamp"], UTC)


@pytest.mark.parametrize("created", [math.nan, math.inf, 1e300, "yesterday", None, -5.0], ids=str)
def test_a_time_that_is_none_does_not_cost_the_record(written: Written, created: Any) -> None:
    """Somebody else's LogRecord may carry any time; the line then has one that can be read."""
    record = made()
    record.created = created

    assert datetime.fromisoformat(written(record)["timestamp"]).tzinfo is UTC


def test_a_record_from_elsewhere_leaves_out_what_it_does_not_know(written: Written) -> None:
    """A LogRecord from a socket may have no logger's name: then none is invented, and no null stands at the top."""
    fields = written(logging.makeLogRecord({"msg": "x", "threadName": None, "process": None}))

    assert None not in fields.values()
    assert (fields["message"], fields["pid"]) == ("x", os.getpid())


@has_fork
def test_a_formatter_used_alone_is_a_writer_of_its_own() -> None:
    """On any other handler, too, lines are numbered; a forked child is another writer that begins at 0."""
    formatter = AIResponseFormatter()
    lines = [json.loads(formatter.format(made())) for _ in range(3)]
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, formatter.format(made()).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, encoding="utf-8") as pipe:
        child = json.loads(pipe.read())
    os.waitpid(pid, 0)

    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert len({line["writer_id"] for line in lines}) == 1
    assert (child["seq"], child["writer_id"] == lines[0]["writer_id"]) == (0, False)


# --- the application's fields ------------------------------------------------------------------------------------


def test_an_extra_field_stands_at_the_top_as_it_was_given(written: Written) -> None:
    """Any key is kept under its own name, those with a leading underscore included; real UTF-8, no escapes."""
    given = {"question": "为什么？", "_trace": [1], "__x": {"a": None}, "": 0, "latency_ms": 1.5, "success": False}

    fields = written(made_with(given))

    assert {key: fields[key] for key in given} == given
    assert "为什么？" in AIResponseFormatter().format(made_with(given))


def test_a_field_that_is_none_is_left_out(written: Written) -> None:
    """Absent means unknown; null stands only inside what the user passed as an object."""
    fields = written(made(model=None, brand=None, metadata={"a": None}))

    assert fields.keys() == ALWAYS | {"metadata"}
    assert fields["metadata"] == {"a": None}


@pytest.mark.parametrize("name", ["filename", "module", "taskName", "processName", "lineno"])
def test_what_logging_knows_of_the_call_is_no_field(written: Written, name: str) -> None:
    """The line holds the application's data, not the place in its source."""
    record = made()
    record.asctime = "now"

    assert name not in written(record)
    assert "asctime" not in written(record)


def test_a_status_from_a_handler_before_is_no_field(written: Written) -> None:
    """A LogRecord that two handlers see is the same record in both files, without the first one's marks."""
    record = made(record_id="r-1")
    record.ai_status = Status.of("queued", "w", None)

    fields = written(record)

    assert "ai_status" not in fields
    assert fields["record_id"] == "r-1"


def test_a_field_of_the_application_that_has_the_name_of_our_status_is_kept(written: Written) -> None:
    """Every handler writes what the application gave, whatever was marked on the record meanwhile."""
    record = made(ai_status="theirs")

    first = written(record)
    record.ai_status = Status.of("queued", "w", record.ai_status)
    record.ai_status = Status.of("queued", "v", record.ai_status)

    assert (first["ai_status"], written(record)["ai_status"]) == ("theirs", "theirs")


@pytest.mark.parametrize("name", sorted(OWN_FIELDS))
def test_a_value_under_a_name_of_ours_is_kept_in_metadata(name: str) -> None:
    """Our fields mean what they mean, and the caller's value is not lost."""
    line = AIResponseFormatter().encode_fields({name: "theirs", "metadata": {"k": 1}}, current_head("m", "INFO", "l"))
    fields = json.loads(line.body + b"}")

    assert fields["metadata"] == {"k": 1, f"caller.{name}": "theirs"}
    assert fields.get(name) != "theirs"


def test_the_callers_metadata_is_not_changed_by_it() -> None:
    """A dict that was passed in comes back as it was."""
    metadata = {"k": 1}
    AIResponseFormatter().encode_fields({"level": 3, "metadata": metadata}, current_head("m", "INFO", "l"))

    assert metadata == {"k": 1}


@pytest.mark.parametrize("metadata", ["text", [1], 5], ids=str)
def test_metadata_that_is_no_dict_makes_room_and_stays(written: Written, metadata: Any) -> None:
    """Nothing that was under metadata is lost when a caller's value has to go there."""
    assert written(made(level=3, metadata=metadata))["metadata"] == {"metadata": metadata, "caller.level": 3}


def test_identity_and_event_are_taken_as_given(written: Written) -> None:
    """record_id, call_id and event are the caller's to set."""
    given = {"record_id": "r-1", "call_id": "c-1", "event": "start"}

    fields = written(made(**given))

    assert {key: fields[key] for key in given} == given
    assert "metadata" not in fields


@pytest.mark.parametrize(
    ("given", "provider"),
    [({"platform": "豆包"}, "doubao"), ({"platform": "豆包", "provider": "mine"}, "mine"), ({"model": "m"}, None)],
    ids=str,
)
def test_the_provider_follows_from_the_platform_unless_it_is_given(
    written: Written, given: dict[str, Any], provider: str | None
) -> None:
    """One name for one provider; what the caller says about it stays."""
    assert written(made(**given)).get("provider") == provider


# --- what cannot be encoded --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("cut \ud83d", "surrogate"), (math.nan, "float"), (2**64, "integer"), (b"\x00", "bytes"), ({1: 2}, "int"),
        (Mute(), "Mute"), ([[math.inf]], "float"), ({None: 1}, "NoneType"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_cannot_be_encoded_is_named_and_the_rest_stays(written: Written, value: Any, kind: str) -> None:
    """One bad value costs itself: the other fields are as they were, and encode_errors says where and what."""
    fields = written(made(question="why?", bad=value, brand="x"))

    assert (fields["question"], fields["brand"]) == ("why?", "x")
    assert kind in [one for _, one in replaced(fields)]
    assert all(path.startswith("bad") for path, _ in replaced(fields))
    assert "bad" in fields


def test_a_value_that_is_replaced_is_counted_once_a_record() -> None:
    """What get_stats() counts are records with a replacement, and none without."""
    formatter = AIResponseFormatter()

    assert formatter.encode(made(bad=[math.nan, math.nan])).replaced
    assert not formatter.encode(made(good=[1.0, None, "null"])).replaced


@pytest.mark.parametrize("name", ["record_id", "call_id", "event", "platform", "provider", "metadata", "level", "seq"])
@pytest.mark.parametrize(
    "value", [Mute(), math.nan, [[[]]], b"\xff", "\ud800", {1: 2}], ids=lambda value: type(value).__name__
)
def test_a_hostile_value_in_a_field_that_we_read_does_not_cost_the_record(
    written: Written, name: str, value: Any
) -> None:
    """Where we look at a value ourselves, its own code may fail as well: the record is there all the same."""
    fields = written(made(question="why?", **{name: value}))

    assert fields["question"] == "why?"
    assert fields.keys() >= ALWAYS


def test_ten_thousand_levels_in_a_field_that_we_read_do_not_cost_the_record(written: Written) -> None:
    """Depth is no way around it either."""
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    assert written(made(question="why?", platform=deep))["question"] == "why?"


@pytest.mark.parametrize(
    ("msg", "args"),
    [("%d of %d", ("one",)), ("%d", ("x",)), ("%s", (Mute(),)), (Mute(), ()), ("%(a)s", ({"b": 1},)), ("%", (1,))],
    ids=["too few", "no number", "mute argument", "mute message", "no such key", "no format"],
)
def test_a_message_that_cannot_be_formatted_is_kept_in_pieces(written: Written, msg: Any, args: Any) -> None:
    """Bad %-arguments cost neither the record nor what was said."""
    fields = written(made(msg, *args, question="why?"))

    assert fields["question"] == "why?"
    assert [path for path, _ in replaced(fields)] == ["message"]
    assert str(msg) in fields["message"] if isinstance(msg, str) else fields["message"].startswith("<Mute>")


@pytest.mark.parametrize("make", [made, lambda text: made("%s", text)], ids=["message", "argument"])
def test_a_cut_character_in_the_message_is_replaced_and_named(written: Written, make: Any) -> None:
    """A stream can be cut inside an emoji; the message is text like any other field."""
    fields = written(make("cut \ud83d"))

    assert fields["message"] == "cut \ufffd"
    assert replaced(fields) == [("message", "surrogate")]


def test_a_key_that_is_no_text_is_kept_beside_the_text_it_reads_as(written: Written) -> None:
    """1 and "1" are two fields; both values are in the line."""
    fields = written(made_with({1: "number", "1": "text"}))

    assert {value for key, value in fields.items() if key.startswith("1")} == {"number", "text"}
    assert "int" in [kind for _, kind in replaced(fields)]


@pytest.mark.parametrize("column", Column, ids=lambda column: column.name)
def test_a_key_that_only_reads_like_one_of_ours_does_not_stand_twice(written: Written, column: Column) -> None:
    """A key never stands twice in a line, also where an enum's text is the name of our field."""
    fields = written(made_with({column: "theirs", "bad": math.nan}))

    assert "theirs" in json.dumps(fields)
    assert ("bad", "float") in replaced(fields)


def test_a_field_with_a_leading_underscore_inside_a_dataclass_is_kept(written: Written) -> None:
    """The short way and the careful way write the same: no attribute is dropped without a word."""

    @dataclasses.dataclass
    class Usage:
        tokens: int = 3
        _raw: str = "kept"

    assert written(made(usage=Usage()))["usage"] == {"tokens": 3, "_raw": "kept"}
    assert written(made(usage=Usage(), bad=math.nan))["usage"] == {"tokens": 3, "_raw": "kept"}


@pytest.mark.parametrize(
    "moment",
    [
        time(12, 0, 0, 12_345),
        datetime(2026, 11, 23, 12, 0, 0, 12_345, tzinfo=UTC),
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=8, minutes=5, seconds=43))),
    ],
    ids=["time", "datetime", "offset with seconds"],
)
def test_a_moment_is_written_as_it_is(written: Written, moment: time | datetime) -> None:
    """Kept means equal: a time reads back as the very same one (orjson 3.13.0 leaves out a zero of 0.012345)."""
    text = written(made(metadata={"at": moment}))["metadata"]["at"]

    assert type(moment).fromisoformat(text) == moment


def test_a_change_made_after_the_call_does_not_show() -> None:
    """The line is made in the call: what the application does with its dict afterwards is its own business."""
    metadata: dict[str, Any] = {"k": [1]}
    encoded = AIResponseFormatter().encode(made(metadata=metadata))
    metadata["k"].append(2)

    assert b'"metadata":{"k":[1]}' in encoded.body


def test_a_dict_that_changes_while_we_look_for_nan_does_not_cost_the_record(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread adds a key at the worst moment; the record is there, with or without it."""
    shared: dict[str, Any] = {"none": None, "score": 0.5, "last": 1}

    def isfinite(value: float) -> bool:
        shared[f"new{len(shared)}"] = None
        return math.isfinite(value)

    monkeypatch.setattr(_plain, "math", SimpleNamespace(isfinite=isfinite, isnan=math.isnan))

    assert written(made(metadata=shared))["metadata"]["score"] == 0.5


ERASER = """
import datetime, enum, logging, sys
from ai_response_logging.formatter import AIResponseFormatter

shared = []

def erase():
    shared.clear()
    return [[] for _ in range(200)]  # in the place of what was there

class Kind(enum.Enum):
    ANSWER = 1

    @property
    def value(self):
        return erase() and "answer"

class Moment(datetime.datetime):
    def isoformat(self, *args):
        return erase() and "now"

value = Kind.ANSWER if sys.argv[1] == "enum" else Moment(2026, 11, 23)
shared.extend([value, *([f"text {number}"] for number in range(100))])
given = shared
for _ in range(int(sys.argv[2])):
    given = [given]
record = logging.makeLogRecord({"msg": "ai_response", "metadata": given})
print(AIResponseFormatter().encode(record).body.decode()[-60:])
"""


@pytest.mark.parametrize("kind", ["enum", "datetime"])
def test_a_list_that_is_emptied_while_it_is_encoded_does_not_end_the_process(kind: str) -> None:
    """Python code inside a value, or another thread that runs meanwhile, may change a list: never a SIGSEGV."""
    assert '"metadata":["' in run_child(ERASER, kind, 0).stdout


def test_a_deep_list_that_is_emptied_while_it_is_encoded_does_not_end_the_process() -> None:
    """The same of what is nested so deep that we would not follow it ourselves."""
    assert f'"metadata":{80 * "["}["answer"' in run_child(ERASER.replace("[-60:]", ""), "enum", 80).stdout


def test_what_the_caller_gave_is_not_changed_by_it() -> None:
    """Lists, tuples and dicts come back as they were, the very same ones, at every depth."""
    inner: dict[str, Any] = {"pair": (1, [2]), "score": 0.5}
    given: list[Any] = [inner, ("a", {"b": None}), [[]]]
    before, parts = copy.deepcopy(given), list(map(id, given))
    line = AIResponseFormatter().encode(made(metadata={"k": given})).body + b"}"

    assert json.loads(line)["metadata"]["k"] == json.loads(json.dumps(before))
    assert given == before
    assert list(map(id, given)) == parts
    assert type(inner["pair"]) is tuple

    lists: list[Any] = [[[1], 2], {"k": [3]}]
    parts = list(map(id, lists))
    AIResponseFormatter().encode(made(metadata={"k": lists}))
    assert list(map(id, lists)) == parts


def test_the_same_names_in_another_order_are_looked_at_anew(written: Written) -> None:
    """What was found out of names in one order, that the second is a float, is not taken for those in another."""
    written(made(count=1, score=0.5))
    fields = written(made(score=1, count=float("nan")))

    assert (fields["count"], fields["encode_errors"][0]["path"]) == ("NaN", "count")


def test_what_is_nested_deep_is_kept_beside_a_text_that_asks_for_the_careful_way(written: Written) -> None:
    """The short way has made JSON of it when the text stops it; the careful way must find the value, not that."""
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]

    line = written(made(deep=deep, text="half an emoji: \ud83d"))

    assert line["deep"] == deep
    assert [error["path"] for error in line["encode_errors"]] == ["text"]


def test_a_nan_that_is_nested_deep_is_named(written: Written) -> None:
    """Where we stop following, a NaN is still no null."""
    given: Any = [float("nan")]
    for _ in range(60):
        given = [given]

    assert written(made(metadata=given))["encode_errors"][0]["type"] == "float"


def test_the_same_names_with_other_values_are_looked_at_anew(written: Written) -> None:
    """A field that was an int, and is a float or a list now, gets the look that these need."""
    for value, expected in ((1, 1), (float("inf"), "Infinity"), ([float("inf")], ["Infinity"]), (None, "-"), (2, 2)):
        assert written(made(model="m", score=value)).get("score", "-") == expected


@pytest.mark.parametrize("depth", [40, 49, 50, 51, 60, 120])
def test_what_is_nested_at_any_depth_reads_back_equal(written: Written, depth: int) -> None:
    """Where we stop following and leave it to marshal nothing shows."""
    given: Any = ["bottom", 0.25, {"k": None}]
    for number in range(depth):
        given = [given] if number % 2 else {"in": given}

    fields = written(made(metadata=given))
    assert fields["metadata"] == given
    assert "encode_errors" not in fields


@pytest.mark.usefixtures("no_collection")
def test_a_nearly_full_stack_costs_no_value_of_a_list() -> None:
    """With no room on the stack to follow a list, it is still written as it is."""
    given: Any = ["bottom"]
    for _ in range(40):
        given = [given]

    def descend(frames: int) -> bytes:
        return descend(frames - 1) if frames else formatter.encode(record).body

    formatter, record = AIResponseFormatter(), made(metadata=given)
    fields = json.loads(descend(sys.getrecursionlimit() - len(inspect.stack()) - 35) + b"}")

    assert fields["metadata"] == given
    assert "encode_errors" not in fields


def test_what_contains_itself_twice_costs_no_time_and_no_memory(written: Written) -> None:
    """A copy that followed both ways at each of its levels would never come to an end."""
    loop: list[Any] = []
    loop += [loop, {"again": loop}]

    assert written(made(metadata={"loop": loop}))["metadata"]["loop"][0] == "<cycle>"


@pytest.mark.slow
def test_a_dict_that_another_thread_changes_all_the_time_does_not_cost_a_record(written: Written) -> None:
    """The same with a real thread, on the short way and on the careful one."""
    shared: dict[str, Any] = {f"k{number}": None for number in range(300)}
    done = threading.Event()

    def change() -> None:  # grows and shrinks in turns, so that a reader mostly meets another size
        for number in itertools.count():
            if done.is_set():
                return
            if number % 100 < 50:
                shared[f"new{number % 100}"] = math.nan if number % 3 else None
            else:
                shared.pop(f"new{number % 100 - 50}", None)

    changer = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    changer.start()
    try:
        kept = [written(made(metadata=shared))["metadata"].keys() for _ in range(100)]
    finally:
        done.set()
        changer.join()
        sys.setswitchinterval(interval)

    assert all({f"k{number}" for number in range(300)} <= keys for keys in kept)


class NoTruth:
    def __bool__(self) -> bool:
        raise ValueError("an array has no truth")

    def __str__(self) -> str:
        return "neither"


class NoClass:
    @property
    def __class__(self) -> Any:
        raise ValueError("no class")


FOREIGN = {"a mock": Mock(spec=str), "a mock of a dict": Mock(spec=dict), "no truth": NoTruth(), "no class": NoClass()}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["platform", "record_id", "event", "metadata", "seq", "ai_status", "question"])
def test_a_value_that_lies_about_its_class_or_has_no_truth_costs_no_record(
    written: Written, name: str, kind: str
) -> None:
    """What asks a value for its class or truth gets an answer that is wrong, or an exception; the record is there."""
    assert written(made("m", model="m", **{name: FOREIGN[kind]}))["model"] == "m"


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_message_that_lies_about_its_class_costs_no_record(written: Written, kind: str) -> None:
    """The same for what is logged itself: it is text, or named."""
    assert written(made(FOREIGN[kind], model="m"))["model"] == "m"


@pytest.mark.parametrize(
    "attributes",
    [
        {"process": "17"},
        {"process": NoTruth()},
        {"created": Mock(spec=float)},
        {"name": NoTruth()},
        {"levelname": NoTruth()},
    ],
)
def test_a_record_from_elsewhere_may_carry_anything(written: Written, attributes: dict[str, Any]) -> None:
    """A record that came through a socket has whatever its sender put there; ours are numbers and text all the same."""
    fields = written(logging.makeLogRecord({"msg": "m", **attributes}))

    assert (type(fields["pid"]), type(fields["level"]), type(fields["logger"])) == (int, str, str)


# --- exceptions --------------------------------------------------------------------------------------------------


def failure(error: BaseException) -> Any:
    """Return the exc_info of *error* as raised."""
    try:
        raise error  # noqa: TRY301  a traceback is what we are after
    except BaseException:  # noqa: BLE001  the same
        return sys.exc_info()


def test_an_exception_is_kept_with_class_message_and_traceback(written: Written) -> None:
    """logger.exception(...) says which error it was, in fields that can be counted, and where."""
    fields = written(made(exc_info=failure(TimeoutError("too slow"))))

    assert (fields["error_class"], fields["error_message"]) == ("TimeoutError", "too slow")
    assert fields["exc_info"].startswith("Traceback")
    assert "raise error" in fields["exc_info"]


def test_what_the_caller_says_of_the_error_stays(written: Written) -> None:
    """The hook that saw the call knows better than the traceback."""
    fields = written(made(error_class="RateLimitError", error_message="429", exc_info=failure(ValueError("x"))))

    assert (fields["error_class"], fields["error_message"]) == ("RateLimitError", "429")


@pytest.mark.parametrize("error", [ValueError(Mute()), ValueError("\ud800"), ExceptionGroup("two", [KeyError("k")])])
def test_a_hostile_exception_does_not_cost_the_record(written: Written, error: Exception) -> None:
    """An exception's own text may fail like any other value's."""
    assert written(made(exc_info=failure(error)))["error_class"] == type(error).__qualname__


def test_no_exception_is_no_field(written: Written) -> None:
    """exc_info=True outside of an except block says nothing."""
    assert written(made(exc_info=(None, None, None))).keys() == ALWAYS


def test_a_traceback_that_is_text_already_is_kept(written: Written) -> None:
    """A record that came through a stock QueueHandler carries text; stack_info is kept beside it."""
    record = made()
    record.exc_text, record.stack_info = "Traceback ...", "Stack ..."

    fields = written(record)

    assert (fields["exc_info"], fields["stack_info"]) == ("Traceback ...", "Stack ...")


# --- python-json-logger's habits ---------------------------------------------------------------------------------


def test_a_dict_as_the_message_is_the_fields(written: Written) -> None:
    """logger.info({...}) is the same record as logger.info(..., extra={...})."""
    given = {"question": "why?", "record_id": "r-1", "_own": 1, "none": None}

    fields = written(made(given, brand="x"))

    assert fields.keys() == ALWAYS | {"question", "_own", "brand"}
    assert (fields["message"], fields["record_id"], fields["brand"]) == ("", "r-1", "x")
    assert given["none"] is None


@pytest.mark.parametrize(
    ("options", "added", "missing"),
    [
        ({"static_fields": {"app": "shop"}}, {"app": "shop", "model": "m"}, set()),
        ({"rename_fields": {"model": "llm"}}, {"llm": "m"}, {"model"}),
        ({"defaults": {"model": "none", "env": "prod"}}, {"model": "m", "env": "prod"}, set()),
        ({"reserved_attrs": [*vars(made()), "message", "model"]}, {}, {"model"}),
        ({"fmt": "%(levelname)s %(lineno)d"}, {"levelname": "INFO", "lineno": 1, "model": "m"}, set()),
        ({"fmt": ["funcName", "lineno"]}, {"lineno": 1, "model": "m"}, {"funcName"}),
        ({"fmt": "{asctime}", "style": "{", "datefmt": "%Y"}, {"asctime": "2026"}, set()),
        ({"rename_fields": {"model": "level"}}, {"metadata": {"caller.level": "m"}, "level": "INFO"}, {"model"}),
    ],
    ids=str,
)
def test_an_option_of_python_json_logger_works(
    written: Written, options: dict[str, Any], added: dict[str, Any], missing: set[str]
) -> None:
    """The formatter takes that class's options for the application's fields; ours stay as they are."""
    record = made("hello", model="m", _own=1)
    record.created = 1_795_463_540.0

    fields = written(record, AIResponseFormatter(**options))

    assert fields.keys() == ALWAYS | {"_own"} | added.keys() | {"model"} - missing
    assert {key: fields[key] for key in added} == added
    assert (fields["message"], fields["_own"]) == ("hello", 1)


def test_no_attribute_reserved_means_all_are_fields(written: Written) -> None:
    """An empty list is an option as well: python-json-logger then keeps what logging knows of the call."""
    assert written(made(), AIResponseFormatter(reserved_attrs=[]))["lineno"] == 1


@pytest.mark.parametrize(
    "extra",
    [{1: "x"}, {b"x": 1}, {"bad": math.nan}, {"bad": Mute()}, {Column.SEQ: 1}],
    ids=lambda extra: str(next(iter(extra))),
)
def test_a_hostile_record_survives_the_options_too(written: Written, extra: dict[Any, Any]) -> None:
    """Options change names, never the promise."""
    fields = written(made_with({**extra, "question": "why?"}), AIResponseFormatter(static_fields={"app": "shop"}))

    assert (fields["question"], fields["app"]) == ("why?", "shop")
    assert replaced(fields) != []


def test_bad_arguments_survive_the_options_too(written: Written) -> None:
    """The same for a message that cannot be formatted: it is named once."""
    fields = written(made("%d", "x"), AIResponseFormatter(static_fields={"app": "shop"}))

    assert [path for path, _ in replaced(fields)] == ["message"]


def test_the_options_act_on_what_the_functions_log_as_well() -> None:
    """log_ai_response() makes no LogRecord; its fields are renamed, left out and added to like any other."""
    formatter = AIResponseFormatter(
        static_fields={"app": "shop"}, rename_fields={"model": "llm"}, reserved_attrs=[*vars(made()), "secret"]
    )

    line = formatter.encode_fields({"model": "m", "secret": 1, "name": "n"}, current_head("hello", "INFO", "l"))
    fields = json.loads(line.body + b"}")

    assert {key: fields[key] for key in ("app", "llm", "name", "message")} == {
        "app": "shop", "llm": "m", "name": "n", "message": "hello",
    }  # fmt: skip
    assert fields.keys().isdisjoint({"model", "secret"})


@pytest.mark.parametrize(
    ("names", "given", "kept"),
    [
        ({"price": "value", "cost": "value"}, {"price": 3, "cost": 4}, {"value": 3, "cost": 4}),
        ({"price": "value", "cost": "value"}, {"price": None, "cost": 4}, {"value": 4}),
        ({"model": "response"}, {"model": "m", "response": "r"}, {"model": "m", "response": "r"}),
        ({"a": "b", "b": "a"}, {"a": 1, "b": 2}, {"b": 1, "a": 2}),
        ({"a": "b", "c": "b", "d": "c"}, {"d": 1, "a": 2, "c": 3}, {"c": 1, "b": 2, "c#2": 3}),
    ],
    ids=str,
)
def test_a_name_that_is_taken_costs_no_value(
    written: Written, names: dict[str, str], given: dict[str, Any], kept: dict[str, Any]
) -> None:
    """Options change names, never the promise: of two values that would get one name, both stay."""
    fields = written(made_with(given), AIResponseFormatter(rename_fields=names))

    assert {key: value for key, value in fields.items() if key not in ALWAYS} == kept


@pytest.mark.parametrize(
    ("options", "given", "kept"),
    [
        ({"defaults": {"model": "none"}}, {"model": None}, {"model": "none"}),
        ({"fmt": "%(model)s", "defaults": {"model": "none"}}, {}, {"model": "none"}),
        ({"fmt": "%(model)s", "static_fields": {"model": "x"}}, {"model": "m"}, {"model": "m"}),
        ({"fmt": "%(lineno)d", "static_fields": {"lineno": 7}}, {}, {"lineno": 7}),
    ],
    ids=str,
)
def test_what_the_call_says_comes_before_the_options_and_unknown_is_nothing(
    written: Written, options: dict[str, Any], given: dict[str, Any], kept: dict[str, Any]
) -> None:
    """A value that was logged gives way to none from a configuration, and a None takes nobody's place."""
    fields = written(made_with(given), AIResponseFormatter(**options))

    assert {key: value for key, value in fields.items() if key not in ALWAYS} == kept


def test_a_dict_keeps_its_keys_where_no_attribute_is_reserved(written: Written) -> None:
    """What logging knows of the call goes before what the caller says, under any name."""
    fields = written(made({"name": "theirs", "lineno": "theirs"}), AIResponseFormatter(reserved_attrs=[]))

    assert (fields["name"], fields["lineno"]) == ("theirs", "theirs")


@pytest.mark.parametrize("options", [{}, {"timestamp": True}], ids=str)
def test_a_message_in_a_dict_is_the_message(written: Written, options: dict[str, Any]) -> None:
    """logger.info({"message": ...}) says it as python-json-logger's users say it; what is no text is kept aside."""
    formatter = AIResponseFormatter(**options)

    text, number = written(made({"message": "sold"}), formatter), written(made({"message": 5}), formatter)

    assert (text["message"], "metadata" in text) == ("sold", False)
    assert (number["message"], number["metadata"]) == ("", {"caller.message": 5})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fmt": 5}, "fmt"), ({"fmt": ["a", 1]}, "fmt"), ({"fmt": "%(x"}, "fmt"), ({"style": "~"}, "style"),
        ({"style": 1}, "style"), ({"datefmt": 7}, "datefmt"), ({"rename_fields": ["a"]}, "rename_fields"),
        ({"rename_fields": {"a": 1}}, "rename_fields"), ({"static_fields": "a=b"}, "static_fields"),
        ({"defaults": [("a", 1)]}, "defaults"), ({"reserved_attrs": "name"}, "reserved_attrs"),
        ({"static_fields": {"record_id": "r"}}, "record_id"), ({"defaults": {"record_id": "r"}}, "record_id"),
    ],
    ids=str,
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_refused_by_name(options: dict[str, Any], name: str) -> None:
    """A mistake shows where the formatter is made, with the option's name, and not at each record."""
    with pytest.raises(ConfigError, match=name):
        AIResponseFormatter(**options)


@pytest.mark.parametrize("name", ["format", "serialize_log_record", "jsonify_log_record"])
def test_an_override_that_is_never_called_is_told(name: str) -> None:
    """A line is made of a record's fields, not by these: who overrides one learns it from the caller's own line."""
    formatter = type("Own", (AIResponseFormatter,), {name: lambda *_: "text", "__module__": "shop"})

    with pytest.warns(ConfigWarning, match=rf"Own\.{name} is not called") as told:
        formatter()

    assert told[0].filename == __file__


def test_an_override_works_on_a_copy_of_the_record_with_its_class(written: Written) -> None:
    """Another handler sees the record as it was logged; a factory's class keeps its methods."""

    class Request(logging.LogRecord):
        def path(self) -> str:
            return "/buy"

    class Own(AIResponseFormatter):
        def add_fields(self, log_data: dict[str, Any], record: Any, message_dict: dict[str, Any]) -> None:
            log_data["path"] = record.path()
            record.model = "changed"
            super().add_fields(log_data, record, message_dict)

    record = Request("n", 20, __file__, 1, "m", (), None)
    record.__dict__.update(model="m", created=math.nan)
    before = dict(record.__dict__)

    fields = written(record, Own())

    assert (fields["path"], fields["model"]) == ("/buy", "changed")
    assert {**record.__dict__, "created": None} == {**before, "created": None}


@pytest.mark.parametrize("given", [None, "theirs"])
def test_the_status_of_a_handler_before_us_is_no_data_for_the_options_either(written: Written, given: Any) -> None:
    """Under another name it would look like the application's own field."""
    record = made()
    record.ai_status = Status.of("queued", "w", given)

    assert written(record, AIResponseFormatter(rename_fields={"ai_status": "status"})).get("status") == given


class Empty(AIResponseFormatter):
    """Takes everything out."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {}


@pytest.mark.parametrize(
    "formatter",
    [
        AIResponseFormatter(rename_fields={"record_id": "rid"}), AIResponseFormatter(reserved_attrs=["record_id"]),
        Empty(), Empty(timestamp="at"),
    ],
    ids=["renamed", "left out", "override", "override and option"],
)  # fmt: skip
def test_a_given_identity_stays_with_the_record(written: Written, formatter: AIResponseFormatter) -> None:
    """A record that the caller gave an id is found under it, however it was logged."""
    by_function = formatter.encode_fields({"record_id": "r-1"}, current_head("m", "INFO", "l"))
    by_call, by_dict = written(made(record_id="r-1"), formatter), written(made({"record_id": "r-1"}), formatter)

    assert (by_function.record_id, by_call["record_id"], by_dict["record_id"]) == ("r-1", "r-1", "r-1")


def test_an_override_that_returns_no_fields_is_named() -> None:
    """The record is refused, since the override may be there to take something out; the error names it."""

    class Forgot(AIResponseFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> Any:
            log_data["key"] = "for nobody"

    with pytest.raises(TypeError, match=r"Forgot\.process_log_record must return a dict, got None"):
        Forgot().encode(made())


def test_a_traceback_that_is_text_already_is_split_as_well(written: Written) -> None:
    """exc_info_as_array holds for a record that came through a stock QueueHandler, too."""
    record = made()
    record.exc_text, record.stack_info = "Traceback\n  x", "Stack\n  y"

    fields = written(record, AIResponseFormatter(exc_info_as_array=True, stack_info_as_array=True))

    assert (fields["exc_info"], fields["stack_info"]) == (["Traceback", "  x"], ["Stack", "  y"])


@pytest.mark.parametrize("options", [{}, {"fmt": "%(exc_info)s"}, {"timestamp": "at"}], ids=str)
@pytest.mark.parametrize(
    ("info", "kept"),
    [
        (ValueError("x"), "ValueError: x"), ("Traceback ...", "Traceback ..."),
        (("ValueError", "x"), ["ValueError", "x"]), (True, True), ((), None), ((None, None, None), None),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_record_from_elsewhere_has_for_an_exception_is_kept(
    written: Written, options: dict[str, Any], info: Any, kept: Any
) -> None:
    """A LogRecord from a socket may carry text or less where a traceback is expected: it costs nothing."""
    record = made()
    record.exc_info = info

    assert written(record, AIResponseFormatter(**options)).get("exc_info") == kept


def test_a_cut_character_in_an_exception_is_named(written: Written) -> None:
    """What is replaced in error_message is named like any value."""
    fields = written(made(exc_info=failure(ValueError("cut \ud83d"))))

    assert fields["error_message"] == "cut \ufffd"
    assert ("error_message", "surrogate") in replaced(fields)


def test_every_option_of_python_json_logger_is_known_to_us() -> None:
    """A new minor's new option fails here, before it is taken and does nothing."""
    theirs = {*inspect.signature(JsonFormatter).parameters, *inspect.signature(BaseJsonFormatter).parameters}

    assert theirs - {"args", "kwargs"} == {
        "fmt", "datefmt", "style", "validate", "prefix", "rename_fields", "rename_fields_keep_missing", "static_fields",
        "reserved_attrs", "timestamp", "defaults", "exc_info_as_array", "stack_info_as_array",
        "json_default", "json_encoder", "json_serializer", "json_indent", "json_ensure_ascii",
    }  # fmt: skip
