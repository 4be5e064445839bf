"""json_default and json_encoder: an application says in which form its own classes are written."""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers import read_lines

from ai_response_logging.errors import ConfigError, ConfigWarning
from ai_response_logging.formatter import AIResponseFormatter

Written = Callable[..., dict[str, Any]]


class Money:
    def __init__(self, cents: int, *others: Any) -> None:
        self.cents = cents
        self.others = list(others)

    def __str__(self) -> str:
        return f"{self.cents} cents"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Usage:
    tokens: int = 3


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Return what gives the line of some extra fields as a strict reader reads it."""

    def write(formatter: AIResponseFormatter, **extra: Any) -> dict[str, Any]:
        record = logging.getLogger("app").makeRecord("app", 20, __file__, 1, "m", (), None, extra=extra)
        (tmp_path / "line.jsonl").write_text(f"{formatter.format(record)}\n", "utf-8")
        (fields,) = read_lines(tmp_path / "line.jsonl")
        return fields

    return write


def named(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what ``encode_errors`` names."""
    return [(one["path"], one["type"]) for one in fields.get("encode_errors", [])]


def test_values_that_would_be_replaced_are_asked_for_and_no_others(written: Written) -> None:
    """Whatever has a form here keeps it; what would be replaced and named gets its form from json_default."""
    asked: list[object] = []

    def default(value: Any) -> object:
        asked.append(value)
        return float(value) if isinstance(value, Decimal) else sorted(value)

    has_form = {"id": uuid.UUID(int=1), "at": datetime(2026, 1, 1, tzinfo=UTC), "colour": Colour.RED, "usage": Usage()}
    fields = written(AIResponseFormatter(json_default=default), price=Decimal("1.5"), seen={2, 1}, **has_form)

    assert (fields["price"], fields["seen"], fields["usage"], fields["colour"]) == (1.5, [1, 2], {"tokens": 3}, "red")
    assert asked == [Decimal("1.5"), {1, 2}]
    assert "encode_errors" not in fields


def test_an_answer_holds_values_that_are_asked_for_again(written: Written) -> None:
    """json_default=vars writes a whole tree of objects, and a bad value beside it does not change how."""
    tree = Money(1, Money(2), Money(3, Money(4)))

    fields = written(AIResponseFormatter(json_default=vars), tree=tree, bad=math.nan)

    assert fields["tree"] == {
        "cents": 1, "others": [{"cents": 2, "others": []}, {"cents": 3, "others": [{"cents": 4, "others": []}]}],
    }  # fmt: skip
    assert named(fields) == [("bad", "float")]


def test_objects_that_point_at_each_other_end(written: Written) -> None:
    """A net of objects has as many paths as one likes: it is left at the first circle, and the record is there."""
    net = [Money(cents) for cents in range(40)]
    for one in net:
        one.others = net

    fields = written(AIResponseFormatter(json_default=vars), net=net[0], model="m")

    assert (fields["net"]["cents"], fields["model"]) == (0, "m")
    assert "cycle" in [kind for _, kind in named(fields)]


def test_answers_without_end_end(written: Written) -> None:
    """A json_default that gives two new objects for each would go on for ever; it is not asked on."""

    def default(_: object) -> object:
        return {"left": Money(1), "right": Money(1)}

    fields = written(AIResponseFormatter(json_default=default), price=Money(5), model="m")

    assert fields["model"] == "m"
    assert "depth" in [kind for _, kind in named(fields)]


def test_an_answer_that_is_no_step_further_is_replaced_like_any_value(written: Written) -> None:
    """json_default is not asked for the form of its own answer when that is of the same class again."""
    fields = written(AIResponseFormatter(json_default=lambda _: {1}), price=Money(5), seen={2})

    assert (fields["price"], fields["seen"]) == ([1], [2])
    assert named(fields) == [("price", "set"), ("seen", "set")]


def test_an_answer_of_none_is_an_unknown_field(written: Written) -> None:
    """No null stands at the top; inside an object it does."""
    fields = written(AIResponseFormatter(json_default=lambda _: None), price=Money(5), basket=[Money(7)])

    assert "price" not in fields
    assert fields["basket"] == [None]


@pytest.mark.parametrize(
    ("error", "kinds"), [(TypeError("not mine"), ["Money"]), (ValueError("broken"), ["ValueError", "Money"])], ids=str
)
def test_a_value_without_an_answer_is_replaced_as_without_the_option(
    written: Written, error: Exception, kinds: list[str]
) -> None:
    """TypeError means "I do not know it", any other error is named too; the value's text is there."""

    def default(_: object) -> object:
        raise error

    fields = written(AIResponseFormatter(json_default=default), price=Money(5))

    assert fields["price"] == "5 cents"
    assert named(fields) == [("price", kind) for kind in kinds]


def test_a_record_that_needs_no_answer_goes_the_short_way(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option costs only those records that hold such a value."""
    formatter = AIResponseFormatter(json_default=vars)
    for name in ("_fields_by_options", "_careful_way"):
        monkeypatch.setattr(formatter, name, lambda *_: pytest.fail("a detour"))

    assert written(formatter, price=3)["price"] == 3


class Encoder(json.JSONEncoder):
    def default(self, o: object) -> object:
        return vars(o) if isinstance(o, Money) else super().default(o)


def test_an_encoders_default_is_asked_and_json_default_comes_before_it(written: Written) -> None:
    """Of both options json_default is the one that counts, as in json.dumps; what an encoder refuses is replaced."""
    both = AIResponseFormatter(json_encoder=Encoder, json_default=str)

    fields = written(AIResponseFormatter(json_encoder=Encoder), price=Money(5), raw=b"x")

    assert fields["price"] == {"cents": 5, "others": []}
    assert named(fields) == [("raw", "bytes")]
    assert written(both, price=Money(5))["price"] == "5 cents"


@pytest.mark.parametrize(
    "options", [{"json_default": "shop.default"}, {"json_encoder": "shop.Encoder"}, {"json_encoder": dict}], ids=str
)
def test_what_cannot_be_asked_is_refused_by_name(options: dict[str, Any]) -> None:
    """A name in place of the function is the usual slip in a YAML file, and the text says how it is written."""
    with pytest.raises(ConfigError, match=rf"{next(iter(options))} .*ext://"):
        AIResponseFormatter(**options)


@pytest.mark.parametrize("name", ["encode", "iterencode"])
def test_an_encoder_that_writes_in_its_own_way_is_told_that_it_will_not(name: str) -> None:
    """Only default is asked: who overrides more learns it from the line that made the formatter."""
    encoder = type("Own", (json.JSONEncoder,), {name: lambda *_: "{}"})

    with pytest.warns(ConfigWarning, match=f"json_encoder.*{name} has no effect") as told:
        AIResponseFormatter(json_encoder=encoder)

    assert told[0].filename == __file__
