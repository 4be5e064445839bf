"""Whoever knows python-json-logger's formatter knows ours: its options and the patterns of its documentation."""

from __future__ import annotations

import json
import logging
import logging.config
import math
import sys
import textwrap
import types
import uuid
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import read_lines
from pythonjsonlogger.core import RESERVED_ATTRS

import ai_response_logging
from ai_response_logging.errors import ConfigError, ConfigWarning
from ai_response_logging.formatter import AIResponseFormatter
from ai_response_logging.handler import AIResponseHandler

ALWAYS = {
    "schema_version", "record_id", "timestamp", "unix_timestamp", "event", "level", "logger", "message",
    "host", "pid", "thread", "writer_id", "seq", "checksum",
}  # fmt: skip


class Chain:
    """A logger, our handler and its file: what is logged here comes back as a strict reader reads it."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.handler = AIResponseHandler(log, durability="memory")
        self.logger = logging.Logger("shop.ai", logging.INFO)  # noqa: LOG001  one that no other test has
        self.logger.addHandler(self.handler)

    def use(self, formatter: logging.Formatter) -> logging.Logger:
        self.handler.setFormatter(formatter)
        return self.logger

    def lines(self) -> list[dict[str, Any]]:
        """Log one record more and return those before it; each line whole, each with what is always there."""
        self.logger.info("the next record", extra={"last": True})
        assert self.handler.flush()
        *lines, last = read_lines(self.log)
        assert all(line.keys() >= ALWAYS for line in [*lines, last])
        assert "the next record" in str(last)
        return lines

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return line


@pytest.fixture
def chain(log_path: Path):
    """Return a logger with our handler on a file of this test's own."""
    one = Chain(log_path)
    yield one
    one.handler.close()


def own(line: dict[str, Any]) -> dict[str, Any]:
    """Return what is in a line beside the fields that every line has."""
    return {key: value for key, value in line.items() if key not in ALWAYS}


def made_or_said(option: str, value: object) -> tuple[AIResponseFormatter | None, bool]:
    """Make a formatter with one option; return it, and whether a ConfigError or ConfigWarning named the option."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            formatter = AIResponseFormatter(**{option: value})
        except ConfigError as error:
            return None, option in str(error)
    return formatter, any(option in str(one.message) and one.category is ConfigWarning for one in caught)


# --- fmt, style, validate, datefmt -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "style"),
    [
        ("%(levelname)s: %(funcName)s", "%"), ("{levelname} | {funcName}", "{"), ("levelname, funcName", ","),
        ("${levelname} costs $$ $funcName", "$"), (["levelname", "funcName"], "%"), (("levelname", "funcName"), "!"),
    ],
    ids=str,
)  # fmt: skip
def test_fields_that_a_format_of_any_style_names_stand_in_the_line(chain: Chain, fmt: Any, style: str):
    """A format says which attributes of the LogRecord are wanted besides ours, in whatever style it is written."""
    chain.use(AIResponseFormatter(fmt, style=style)).info("sold", extra={"price": 3})

    assert own(chain.line()) == {
        "levelname": "INFO", "funcName": sys._getframe().f_code.co_name, "price": 3,
    }  # fmt: skip


@pytest.mark.parametrize(("fmt", "style"), [("{levelname", "{"), ("levelname", "$"), ("x", "~"), ("plain", "%")])
def test_format_that_its_style_does_not_know_is_refused_when_it_is_set(fmt: str, style: str):
    """A mistake in a format shows where it is made, not at the first record."""
    with pytest.raises(ValueError, match=r"(?i)format|style|field"):
        AIResponseFormatter(fmt, style=style)


def test_format_that_is_not_validated_costs_no_record(chain: Chain):
    """Who switches the check off gets those fields that can be made out."""
    chain.use(AIResponseFormatter("{levelname} {", style="{", validate=False)).info("sold")

    assert own(chain.line()) == {"levelname": "INFO"}


def test_style_of_ones_own_is_read_by_ones_own_parse(chain: Chain):
    """validate=False and a parse method make any notation a format."""

    class Piped(AIResponseFormatter):
        def parse(self) -> list[str]:
            return str(self._fmt).split("|") if self._style == "|" else super().parse()

    chain.use(Piped("levelname|module", style="|", validate=False)).info("sold")

    assert own(chain.line()) == {"levelname": "INFO", "module": Path(__file__).stem}


def test_parse_of_ones_own_is_asked_without_any_option(chain: Chain):
    """The override alone is enough: which fields are wanted is the formatter's own affair."""

    class Two(AIResponseFormatter):
        def parse(self) -> list[str]:
            return ["levelname", "module"]

    chain.use(Two()).info("sold")

    assert own(chain.line()) == {"levelname": "INFO", "module": Path(__file__).stem}


@pytest.mark.parametrize("created", [math.nan, math.inf, 1e300, -1e300, None, "today"], ids=str)
@pytest.mark.parametrize(
    "options", [{"fmt": "%(asctime)s"}, {"timestamp": "@at"}, {"fmt": "%(asctime)s", "datefmt": "%Y"}]
)
def test_time_that_is_none_does_not_cost_the_record_where_options_ask_for_it(
    chain: Chain, options: dict[str, Any], created: Any
):
    """A LogRecord from elsewhere may carry any time; options that write it out again lose no record to it."""
    chain.use(AIResponseFormatter(**options))
    record = logging.makeLogRecord({"msg": "sold", "price": 3, "created": created})

    assert chain.handler.submit(record) == "queued"
    assert chain.line()["price"] == 3


# --- rename_fields, static_fields, defaults, reserved_attrs, timestamp -------------------------------------------


def test_renamed_fields_stand_under_their_new_names_and_ours_stay(chain: Chain):
    """Renaming acts on the application's fields and on those a format names; what makes a line provable stays."""
    names = {"levelname": "SEVERITY", "message": "@message", "price": "item.price", "absent": "never"}
    formatter = AIResponseFormatter("{message}{levelname}", style="{", rename_fields=names)
    chain.use(formatter).info("sold", extra={"price": 3})

    line = chain.line()
    assert own(line) == {"SEVERITY": "INFO", "@message": "sold", "item.price": 3}
    assert (line["message"], line["level"]) == ("sold", "INFO")


def test_two_fields_renamed_to_one_stand_once(chain: Chain):
    """A key never stands twice in a line, whatever is renamed to it."""
    names = {"price": "value", "cost": "value", "model": "response"}
    chain.use(AIResponseFormatter(rename_fields=names)).info("sold", extra={"price": 3, "cost": 3, "model": "m"})

    assert own(chain.line()) == {"value": 3, "response": "m"}


def test_missing_field_that_is_to_be_kept_is_absent_as_every_unknown_field(chain: Chain):
    """rename_fields_keep_missing puts no null at the top: an absent field is an unknown one."""
    formatter = AIResponseFormatter(rename_fields={"price": "cost", "absent": "never"}, rename_fields_keep_missing=True)
    chain.use(formatter).info("sold", extra={"price": 3})

    assert own(chain.line()) == {"cost": 3}


@pytest.mark.parametrize(
    "options", [{"rename_fields": {"record_id": "rid"}}, {"reserved_attrs": [*RESERVED_ATTRS, "record_id"]}], ids=str
)
def test_identity_keeps_its_name_and_value_whatever_the_options_say(chain: Chain, options: dict[str, Any]):
    """A record that the caller gave an id is found under it: no option may part the two."""
    chain.use(AIResponseFormatter(**options)).info("sold", extra={"record_id": "sale-1"})

    assert chain.line()["record_id"] == "sale-1"


def test_traceback_is_renamed_like_any_field(chain: Chain):
    """exc_info is a field of the line, and rename_fields knows it by that name."""
    log = chain.use(AIResponseFormatter(rename_fields={"exc_info": "error.stack"}))
    try:
        raise TimeoutError("too slow")  # noqa: TRY301  a traceback is what we are after
    except TimeoutError:
        log.exception("no answer")

    line = chain.line()
    assert line["error.stack"].startswith("Traceback")
    assert "exc_info" not in line
    assert line["error_class"] == "TimeoutError"


def test_static_fields_stand_in_every_line_and_defaults_where_nothing_else_does(chain: Chain):
    """A default gives way to the call; a static field is there with every record."""
    options = {"static_fields": {"is it ours?": True, "team": "运营"}, "defaults": {"stage": "dev", "region": "eu"}}
    log = chain.use(AIResponseFormatter(**options, rename_fields={"region": "zone"}))
    log.info("by default")
    log.info("as said", extra={"stage": "prod"})

    assert [own(line) for line in chain.lines()] == [
        {"is it ours?": True, "team": "运营", "stage": "dev", "zone": "eu"},
        {"is it ours?": True, "team": "运营", "stage": "prod", "zone": "eu"},
    ]


@pytest.mark.parametrize("option", ["static_fields", "defaults"])
def test_hostile_value_in_an_option_is_replaced_and_named_in_each_line(chain: Chain, option: str):
    """A value from the configuration is a value like any other."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    bad = {"score": math.nan, "cut": "\ud83d", "big": 1 << 70, "ring": cyclic, "host": "theirs", "seq": 7}
    chain.use(AIResponseFormatter(**{option: bad})).info("sold", extra={"price": 3})

    line = chain.line()
    assert (line["price"], line["metadata"]) == (3, {"caller.host": "theirs", "caller.seq": 7})
    assert {one["path"]: one["type"] for one in line["encode_errors"]} == {
        "score": "float", "cut": "surrogate", "big": "integer", "ring[0]": "cycle",
    }  # fmt: skip


def test_value_of_an_option_that_changes_later_changes_later_lines_only(chain: Chain):
    """A line is made in the call, also from what the configuration holds."""
    tags = ["a"]
    log = chain.use(AIResponseFormatter(static_fields={"labels": tags}))
    log.info("before")
    tags.append("b")
    log.info("after")

    assert [line["labels"] for line in chain.lines()] == [["a"], ["a", "b"]]


def test_reserved_attributes_are_left_out(chain: Chain):
    """What is on the list is not in the line, and all else is."""
    reserved = [*RESERVED_ATTRS, "secret", "price"]
    chain.use(AIResponseFormatter(reserved_attrs=reserved)).info("sold", extra={"secret": 1, "price": 2, "model": "m"})

    assert own(chain.line()) == {"model": "m"}


def test_all_attributes_and_a_traceback_are_data_where_nothing_is_reserved(chain: Chain):
    """The recipe for all fields gives all fields, the traceback as text among them."""
    log = chain.use(AIResponseFormatter(reserved_attrs=[]))
    try:
        raise TimeoutError("too slow")  # noqa: TRY301  as above
    except TimeoutError:
        log.exception("no answer")

    line = chain.line()
    assert (line["levelname"], line["module"], line["processName"]) == ("ERROR", Path(__file__).stem, "MainProcess")
    assert line["exc_info"].startswith("Traceback")
    assert "encode_errors" not in line


@pytest.mark.parametrize("name", [True, "@timestamp", "timestamp"])
def test_further_timestamp_is_the_same_instant_as_ours(chain: Chain, name: Any):
    """The timestamp option adds the time under a name of one's own; under ours, ours stays in its one form."""
    chain.use(AIResponseFormatter(timestamp=name)).info("sold")

    line = chain.line()
    assert line["timestamp"].endswith("Z")
    text = line.get("@timestamp") or line.get("metadata", {}).get("caller.timestamp")
    if name == "@timestamp" or text:
        # Within the microsecond that both are rounded to.
        difference = datetime.fromisoformat(text) - datetime.fromisoformat(line["timestamp"])
        assert abs(difference) <= timedelta(microseconds=1)


# --- exceptions and stacks ---------------------------------------------------------------------------------------


def test_traceback_that_the_format_names_is_text(chain: Chain):
    """The quick start's own format asks for exc_info by name: it is the traceback, not the objects behind it."""
    log = chain.use(AIResponseFormatter("{message}{asctime}{exc_info}", style="{"))
    try:
        raise TimeoutError("too slow")  # noqa: TRY301  as above
    except TimeoutError:
        log.exception("no answer")

    line = chain.line()
    assert line["exc_info"].startswith("Traceback")
    assert line["exc_info"].endswith("TimeoutError: too slow")
    assert "encode_errors" not in line


@pytest.mark.parametrize("fmt", [None, "%(exc_info)s %(stack_info)s"])
def test_traceback_and_stack_are_lists_of_lines_where_that_is_asked_for(chain: Chain, fmt: str | None):
    """exc_info_as_array and stack_info_as_array split at the line breaks, and the record is one line all the same."""
    log = chain.use(AIResponseFormatter(fmt, exc_info_as_array=True, stack_info_as_array=True))
    try:
        raise TimeoutError("too slow")  # noqa: TRY301  as above
    except TimeoutError:
        log.exception("no answer", stack_info=True)

    line = chain.line()
    assert (line["exc_info"][0], line["exc_info"][-1]) == (
        "Traceback (most recent call last):",
        "TimeoutError: too slow",
    )
    assert line["stack_info"][0] == "Stack (most recent call last):"
    assert not any("\n" in part for part in line["exc_info"] + line["stack_info"])


# --- options that would change what a line is --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", "@cee: "), ("json_indent", 2), ("json_indent", "\t"), ("json_ensure_ascii", True),
        ("json_serializer", lambda *_, **__: "{}\n{}"),
    ],
)  # fmt: skip
def test_option_against_one_line_of_json_in_utf8_is_named_and_changes_nothing(chain: Chain, option: str, value: object):
    """What would make a line no line of ours is refused or warned of by name, never silently ignored or obeyed."""
    formatter, is_said = made_or_said(option, value)
    assert is_said, f"{option} is neither refused nor warned of"

    chain.use(formatter or AIResponseFormatter()).info("卖了", extra={"response": "第一行\n第二行"})
    assert own(chain.line()) == {"response": "第一行\n第二行"}
    assert "卖了".encode() in chain.log.read_bytes()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prefix", ""),
        ("json_indent", None),
        ("json_ensure_ascii", False),
        ("json_default", None),
        ("json_encoder", None),
    ],
)
def test_option_that_asks_for_what_a_line_is_anyway_is_taken(chain: Chain, option: str, value: object):
    """A configuration that was written for python-json-logger's JsonFormatter moves over without a change."""
    chain.use(AIResponseFormatter(**{option: value})).info("卖了")

    assert own(chain.line()) == {}


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def test_objects_of_ones_own_are_written_as_json_default_says(chain: Chain):
    """json_default is asked for what JSON has no form for, at any depth, and for nothing else."""
    asked: list[object] = []

    def default(value: object) -> object:
        asked.append(value)
        return {"cents": value.cents} if isinstance(value, Money) else None

    log = chain.use(AIResponseFormatter(json_default=default))
    log.info("sold", extra={"price": Money(5), "basket": [{"price": Money(7)}], "model": "m"})

    line = chain.line()
    assert own(line) == {"price": {"cents": 5}, "basket": [{"price": {"cents": 7}}], "model": "m"}
    assert {type(one) for one in asked} == {Money}


@pytest.mark.parametrize("result", [TypeError("not mine"), ValueError("broken"), math.nan, {1, 2}, "\ud800"], ids=str)
def test_json_default_that_is_of_no_help_costs_no_record(chain: Chain, result: object):
    """What json_default raises, or gives that JSON has no form for either, is replaced and named like any value."""

    def default(_: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    chain.use(AIResponseFormatter(json_default=default)).info("sold", extra={"price": Money(5), "model": "m"})

    line = chain.line()
    assert line["model"] == "m"
    assert line["encode_errors"][0]["path"].startswith("price")


def test_json_encoder_works_or_is_named(chain: Chain):
    """A JSONEncoder's default method says how objects are written; if it is not asked, the user is told."""

    class Encoder(json.JSONEncoder):
        def default(self, o: object) -> object:
            return {"cents": o.cents} if isinstance(o, Money) else super().default(o)

    formatter, is_said = made_or_said("json_encoder", Encoder)
    chain.use(formatter or AIResponseFormatter()).info("sold", extra={"price": Money(5), "model": "m"})

    line = chain.line()
    assert line["model"] == "m"
    assert is_said or line["price"] == {"cents": 5}


# --- subclasses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fmt": "%(message)s %(levelname)s"}], ids=["no option", "a format"])
def test_process_log_record_of_ones_own_changes_the_fields(chain: Chain, options: dict[str, Any]):
    """The recipe that turns all keys round does so for the application's fields, with options and without any."""

    class Backwards(AIResponseFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            return {key[::-1]: value for key, value in log_data.items()}

    chain.use(Backwards(**options)).info("sold", extra={"price": 3})

    line = chain.line()
    assert line["ecirp"] == 3
    assert "price" not in line
    assert line["message"] == "sold"


def test_process_log_record_sees_the_message_as_upstream(chain: Chain):
    """An override that works on the message finds it there, and what it makes of it is kept."""

    class Loud(AIResponseFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            log_data["message"] = log_data["message"].upper()
            return log_data

    chain.use(Loud("%(message)s")).info("sold")

    line = chain.line()
    assert "SOLD" in {line["message"], line.get("metadata", {}).get("caller.message")}


def test_request_id_is_put_in_by_a_formatter_a_filter_or_the_call(chain: Chain):
    """The three ways of the cookbook to give every record of a request its id all end in the line."""
    request = uuid.uuid4()

    class WithRequest(AIResponseFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            log_data.setdefault("request_id", str(request))
            return log_data

    class Stamp(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.request_id = str(request)
            return True

    log = chain.use(AIResponseFormatter())
    log.info("by the call", extra={"request_id": request})
    stamp = Stamp()
    log.addFilter(stamp)
    log.info("by a filter")
    log.removeFilter(stamp)
    chain.use(WithRequest()).info("by the formatter")

    lines = chain.lines()
    assert [line["message"] for line in lines] == ["by the call", "by a filter", "by the formatter"]
    assert [line.get("request_id") for line in lines] == [str(request)] * 3


@pytest.mark.parametrize("options", [{}, {"timestamp": "at"}], ids=["no option", "an option"])
def test_add_fields_of_ones_own_adds_its_fields(chain: Chain, options: dict[str, Any]):
    """add_fields has the LogRecord at hand: what it takes from there is in the line."""

    class Placed(AIResponseFormatter):
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            log_data["place"] = f"{record.module}.{record.funcName}"
            log_data["keys"] = sorted(message_dict)

    log = chain.use(Placed(**options))
    log.info({"price": 3, "model": "m"})

    line = chain.line()
    assert line["place"] == f"{Path(__file__).stem}.{sys._getframe().f_code.co_name}"
    assert (line["keys"], line["price"]) == (["model", "price"], 3)


@pytest.mark.parametrize("result", [KeyError("message"), None, "text", [1]], ids=str)
def test_override_that_fails_is_counted_and_told_and_the_next_record_is_intact(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, result: object
):
    """A formatter's own code may fail: nothing is raised, the record says so, and the next one is whole."""

    class Broken(AIResponseFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> Any:
            if "last" in log_data:
                return log_data
            if isinstance(result, Exception):
                raise result
            return result

    told: list[logging.LogRecord] = []
    monkeypatch.setattr(chain.handler, "handleError", told.append)
    chain.use(Broken("%(message)s"))
    record = logging.makeLogRecord({"msg": "sold"})

    status = chain.handler.submit(record)

    # Where the fields can be had without the override, the record may be kept all the same.
    lines = chain.lines()
    assert [line["record_id"] for line in lines] == ([record.record_id] if status == "queued" else [])
    assert len(told) == (status == "failed")
    assert chain.handler.get_stats()["failed"] == (status == "failed")


# --- messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"static_fields": {"team": "a"}}], ids=["no option", "an option"])
def test_dict_as_a_message_keeps_its_own_message_and_is_not_changed(chain: Chain, options: dict[str, Any]):
    """The quick start's dict has a key "message": its text is kept, and the dict is the caller's as it was."""
    given = {"price": 1, "message": "sold", "other": False}
    chain.use(AIResponseFormatter(**options)).info(given, stack_info=True)

    line = chain.line()
    assert (line["price"], line["other"]) == (1, False)
    assert "sold" in {line["message"], line.get("metadata", {}).get("caller.message")}
    assert given == {"price": 1, "message": "sold", "other": False}


def test_text_that_is_computed_late_is_computed_only_for_a_record_that_counts(chain: Chain):
    """An object whose __str__ works hard is written as its text, and not asked where the level is too low."""
    computed: list[str] = []

    class Late:
        def __init__(self, text: str) -> None:
            self.text = text

        def __str__(self) -> str:
            computed.append(self.text)
            return self.text

    log = chain.use(AIResponseFormatter(static_fields={"team": "a"}))
    log.debug({"data": Late("never")})
    log.info({"data": Late("now")})

    assert chain.line()["data"] == "now"
    assert set(computed) == {"now"}


# --- from a configuration, and the short way ---------------------------------------------------------------------

CONFIG = """
version: 1
disable_existing_loggers: false
formatters:
  shop:
    "()": ai_response_logging.AIResponseFormatter
    format: "%(asctime)s %(levelname)s %(name)s %(module)s %(lineno)s %(message)s"
    rename_fields: {asctime: written_at, levelname: status}
    static_fields:
      service: ext://shop_settings.SERVICE
      env: ext://shop_settings.ENVIRONMENT
      is_shop: "true"
handlers:
  ai_responses:
    class: ai_response_logging.AIResponseHandler
    durability: memory
    formatter: shop
loggers:
  ai_responses: {level: INFO, handlers: [ai_responses], propagate: false}
"""


@pytest.mark.parametrize("by", [logging.config.dictConfig, ai_response_logging.configure], ids=lambda by: by.__name__)
def test_formatter_from_a_configuration_has_its_options(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, by: Callable[[dict[str, Any]], object]
):
    """The YAML of the cookbook, with our formatter's name in it: format, renamed and static fields, ext:// values."""
    settings = types.ModuleType("shop_settings")
    settings.SERVICE, settings.ENVIRONMENT = "shop-api", "test"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_settings", settings)
    config = yaml.safe_load(CONFIG)
    config["handlers"]["ai_responses"]["filename"] = str(log_path)
    by(config)
    logging.getLogger("ai_responses").info("sold", extra={"price": 3})
    (handler,) = logging.getLogger("ai_responses").handlers
    handler.flush()

    (line,) = read_lines(log_path)
    assert {key: line[key] for key in ("status", "service", "env", "is_shop", "price", "module", "name")} == {
        "status": "INFO", "service": "shop-api", "env": "test", "is_shop": "true", "price": 3,
        "module": Path(__file__).stem, "name": "ai_responses",
    }  # fmt: skip
    assert line["written_at"][:4].isdigit()
    assert line.keys().isdisjoint({"asctime", "levelname"})


@pytest.mark.parametrize(
    "option", ["renamed_fields: {a: b}", "format: '%(levelname'", "prefix: '> '", "json_indent: 2"]
)
def test_formatter_option_that_cannot_be_used_is_named_with_its_place(log_path: Path, option: str):
    """configure() says which formatter and which option; dictConfig has already said all it knows."""
    text = f"""
    version: 1
    formatters: {{shop: {{"()": ai_response_logging.AIResponseFormatter, {option}}}}}
    handlers: {{a: {{class: ai_response_logging.AIResponseHandler, formatter: shop, durability: memory}}}}
    loggers: {{ai_responses: {{level: INFO, handlers: [a]}}}}
    """
    mapping = yaml.safe_load(textwrap.dedent(text))
    mapping["handlers"]["a"]["filename"] = str(log_path)
    key = option.partition(":")[0]

    with pytest.raises((ConfigError, ConfigWarning)) as caught:
        ai_response_logging.configure(mapping)

    assert key in str(caught.value)
    assert "shop" in str(caught.value) or caught.type is ConfigWarning


def no_detour(*_: object) -> dict[str, Any]:
    """Fail the test: the way by the options is the slow one."""
    pytest.fail("the record went by the options, and none is set")


def formatter_of(section: dict[str, Any]) -> AIResponseFormatter:
    """Return the formatter that dictConfig makes of *section*."""
    config = logging.config.DictConfigurator({"version": 1})  # type: ignore[attr-defined]
    formatter = config.configure_formatter(section)
    assert isinstance(formatter, AIResponseFormatter)
    return formatter


OURS = "ai_response_logging.AIResponseFormatter"


class Unchanged(AIResponseFormatter):
    """Overrides nothing that decides on fields."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return "now"


@pytest.mark.parametrize(
    "make",
    [
        AIResponseFormatter, lambda: AIResponseFormatter(None, None, "%"),
        lambda: AIResponseFormatter(rename_fields={}), lambda: formatter_of({"class": OURS}),
        lambda: formatter_of({"()": OURS}), Unchanged,
    ],
    ids=["bare", "logging's own defaults", "an empty option", "dictConfig class", "dictConfig factory", "subclass"],
)  # fmt: skip
def test_formatter_without_an_option_takes_the_short_way(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, make: Callable[[], AIResponseFormatter]
):
    """Who sets nothing pays for nothing, however the formatter was made."""
    formatter = make()
    monkeypatch.setattr(formatter, "_fields_by_options", no_detour)
    chain.use(formatter).info("sold", extra={"price": 3})

    assert own(chain.line()) == {"price": 3}
