from __future__ import annotations

import dataclasses
import datetime
import enum
import gc
import itertools
import math
import sys
import threading
import uuid
import warnings
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from ai_response_logging._plain import MAX_DEPTH, MAX_NAMED, has_unfaithful_null, plain_fields

UTC_NOON = datetime.datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=datetime.UTC)
Pair = namedtuple("Pair", "left right")  # noqa: PYI024  an application's own


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    """A str subclass that lies when asked for its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "a lie"


class Whole(int):
    def __repr__(self) -> str:
        raise RuntimeError


class Mute:
    """Raises whenever it is asked for its text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Drops(dict):  # type: ignore[type-arg]
    """A dict that raises when it is read."""

    def items(self) -> Any:
        raise KeyError("gone")


@dataclasses.dataclass
class Reply:
    text: str
    _usage: int = 7
    later: Any = dataclasses.field(init=False)


# value, how it is written
KEPT: list[tuple[Any, Any]] = [
    (None, None), (True, True), (0, 0), (-0.5, -0.5), ("ü\n\u2028😀", "ü\n\u2028😀"),
    (2**64 - 1, 2**64 - 1), (-(2**63), -(2**63)),
    ([1, (2, [3])], [1, [2, [3]]]), (Pair(1, "x"), [1, "x"]), ({"a": {"b": None}}, {"a": {"b": None}}),
    (OrderedDict(a=1), {"a": 1}), (defaultdict(int, a=1), {"a": 1}), (UserDict(a=1), {"a": 1}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    (Text("truth"), "truth"), (Whole(5), 5), (Colour.RED, "red"), (Level.HIGH, 3),
    (UTC_NOON, "2026-11-23T12:00:00.000005+00:00"),
    (UTC_NOON.date(), "2026-11-23"), (UTC_NOON.time(), "12:00:00.000005"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"), (PurePosixPath("a/b"), "a/b"),
    (Reply("hi"), {"text": "hi", "_usage": 7}),
]  # fmt: skip
# value, how it is written, what encode_errors calls it
REPLACED: list[tuple[Any, Any, str]] = [
    ("cut \ud83d", "cut \ufffd", "surrogate"), ("joined \ud83d\ude00", "joined 😀", "surrogate"),
    (math.nan, "NaN", "float"), (math.inf, "Infinity", "float"), (-math.inf, "-Infinity", "float"),
    (2**64, str(2**64), "integer"), (-(2**63) - 1, str(-(2**63) - 1), "integer"),
    (1 << 20_000, hex(1 << 20_000), "integer"),
    (b"\x00\xff", "AP8=", "bytes"), (bytearray(b"a"), "YQ==", "bytearray"), (memoryview(b"a"), "YQ==", "memoryview"),
    (Decimal("1.10"), "1.10", "Decimal"), (1j, "1j", "complex"),
    ({7}, [7], "set"), (frozenset({7}), [7], "frozenset"), (deque([1, 2]), [1, 2], "deque"),
    (SimpleNamespace(a=1), "namespace(a=1)", "SimpleNamespace"), (Reply, str(Reply), "type"),
    (range(3), "range(0, 3)", "range"),
]  # fmt: skip


def plain(value: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Return *value* as the careful way writes it and reads it back, and what was replaced in it."""
    fields, named = plain_fields({"v": value})
    return orjson.loads(orjson.dumps(fields))["v"], [(one["path"], one["type"]) for one in named]


@pytest.mark.parametrize(("value", "written"), KEPT, ids=[type(value).__name__ for value, _ in KEPT])
def test_a_value_that_json_can_hold_is_kept_and_not_named(value: Any, written: Any) -> None:
    """What has one obvious form in JSON takes it, and is no replacement."""
    assert plain(value) == (written, [])


@pytest.mark.parametrize(("value", "written", "kind"), REPLACED, ids=[type(one[0]).__name__ for one in REPLACED])
def test_a_value_that_json_cannot_hold_is_replaced_and_named(value: Any, written: Any, kind: str) -> None:
    """Nothing is dropped or silently changed: the replacement says as much as it can, and is named with its path."""
    assert plain(value) == (written, [("v", kind)])


def test_a_dict_whose_own_code_raises_is_read_all_the_same() -> None:
    """What a dict's class does to its methods does not cost what the dict holds."""
    assert plain(Drops(a=1)) == ({"a": 1}, [])


@pytest.mark.parametrize("value", [Mute()], ids=["__str__"])
def test_a_value_whose_own_code_raises_leaves_its_class(value: Any) -> None:
    """Foreign code that fails costs the value, never the record; the class's name stays."""
    written, named = plain(value)

    assert written == f"<{type(value).__name__}>"
    assert named[-1][0] == "v"


def test_the_path_leads_to_the_replaced_value() -> None:
    """Reader and record agree on where the replacement is, also below lists and keys."""
    assert plain({"a": [0, {"b": math.nan}]})[1] == [("v.a[1].b", "float")]


def test_a_cycle_is_cut_and_named() -> None:
    """A value that holds itself ends where it begins again."""
    ring: dict[str, Any] = {"a": 1}
    ring["self"] = [ring]

    assert plain(ring) == ({"a": 1, "self": ["<cycle>"]}, [("v.self[0]", "cycle")])


def test_a_value_that_stands_twice_is_no_cycle() -> None:
    """Two places that share one object both show it."""
    shared = {"a": 1}

    assert plain([shared, shared]) == ([shared, shared], [])


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, Reply])
def test_ten_thousand_levels_end_at_the_limit(wrap: Any) -> None:
    """Depth costs neither the record nor the stack: what lies too deep is named."""
    deep: Any = "bottom"
    for _ in range(10_000):
        deep = wrap(deep)

    written, named = plain(deep)

    assert [kind for _, kind in named] == ["depth"]
    assert orjson.dumps(written).count(f"deeper than {MAX_DEPTH}".encode()) == 1


def test_keys_that_are_no_text_become_text_and_are_named() -> None:
    """1 and "1" are two keys in Python; both values are kept, under two names."""
    written, named = plain({"1": "text", 1: "number", 1.5: "float", None: "none", False: "false", Colour.RED: "enum"})

    assert written == {"1": "text", "1#2": "number", "1.5": "float", "null": "none", "false": "false", "red": "enum"}
    assert [kind for _, kind in named] == ["int", "float", "NoneType", "bool", "Colour"]


def test_keys_that_collide_again_and_again_are_all_kept() -> None:
    """A key that already looks like our way out does not swallow another's value."""
    keys = {"1#2": "a", "1": "b", 1: "c", Text("1"): "d"}

    written, _ = plain(keys)

    assert sorted(written.values()) == sorted(keys.values())


@pytest.mark.parametrize("key", ["\udc00", Mute(), (1, 2), b"k"], ids=["surrogate", "mute", "tuple", "bytes"])
def test_a_hostile_key_keeps_its_value(key: Any) -> None:
    """Whatever a key is, what it leads to is in the record, and the key is named."""
    written, named = plain({key: "value"})

    assert list(written.values()) == ["value"]
    assert named[0][0] == "v key"


def test_a_million_bad_values_do_not_make_the_line_explode() -> None:
    """Past the limit replacements are counted, not listed."""
    _, named = plain([math.nan] * (MAX_NAMED + 5))

    assert len(named) == MAX_NAMED + 1
    assert named[-1] == ("", "and 5 more")


def test_a_generator_is_not_consumed() -> None:
    """Logging a stream takes nothing from whoever reads it."""
    stream = iter(["a", "b"])

    plain(stream)

    assert list(stream) == ["a", "b"]


def test_an_object_that_answers_to_everything_ends() -> None:
    """A mock has every method there is and gives another mock: that is a depth, not a hang."""
    assert plain(Mock())[1][-1][1] == "depth"


def test_a_pydantic_model_gives_its_data() -> None:
    """What the SDKs return, pydantic models within models, is kept as data."""
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Usage", tokens=(int, ...))
    outer = pydantic.create_model("Answer", usage=(inner, ...), score=(float, ...))

    written, named = plain(outer(usage=inner(tokens=3), score=math.nan))

    assert written == {"usage": {"tokens": 3}, "score": "NaN"}
    assert ("v", "Answer") in named
    assert ("v.score", "float") in named


def test_a_pydantic_model_that_warns_is_kept_where_warnings_are_errors() -> None:
    """A model that was filled past its types warns when it is dumped; that costs no record."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Answer", text=(str, ...))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written, named = plain([model.model_construct(text=3), "next"])

    assert written[1] == "next"
    assert named[0] == ("v[0]", "Answer")


def test_numpy_gives_its_numbers() -> None:
    """Arrays become lists and scalars numbers; what JSON has no number for is named."""
    numpy = pytest.importorskip("numpy")

    assert plain(numpy.array([[1, 2]]))[0] == [[1, 2]]
    assert plain(numpy.float32(0.5))[0] == 0.5
    assert plain(numpy.array([math.nan])) == (["NaN"], [("v", "ndarray"), ("v[0]", "float")])


@pytest.mark.parametrize(
    ("value", "hides"),
    [
        (math.nan, True), (-math.inf, True), (1.0, False), (None, False), ("null", False), ([None, [1.0]], False),
        ([None, ({"a": math.inf},)], True),
    ],
)  # fmt: skip
def test_a_null_that_stands_for_something_else_is_found(value: Any, hides: bool) -> None:
    """NaN is null to orjson, without a word; where one may hide, the careful way is taken."""
    assert has_unfaithful_null({"v": value}) is hides


def test_a_dict_that_another_thread_changes_is_read_all_the_same() -> None:
    """Somebody else's thread may add and remove keys while we read: each reading is a whole dict."""
    shared: dict[str, Any] = {f"k{number}": math.nan for number in range(50)}
    done = threading.Event()

    def change() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            if number % 100 < 50:
                shared[f"new{number % 100}"] = number
            else:
                shared.pop(f"new{number % 100 - 50}", None)

    changer = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    changer.start()
    try:
        readings = [plain(shared) for _ in range(100)]
    finally:
        done.set()
        changer.join()
        sys.setswitchinterval(interval)

    assert all(isinstance(written, dict) and written["k49"] == "NaN" for written, _ in readings)


def test_a_dict_that_changes_during_garbage_collection_is_read_all_the_same() -> None:
    """Collecting garbage runs foreign code in the middle of ours; that costs neither the dict nor a value in it."""
    shared: dict[str, Any] = {f"k{number}": math.nan for number in range(5000)}

    def change(_phase: str, _info: dict[str, int]) -> None:
        shared[f"new{len(shared)}"] = 1

    threshold = gc.get_threshold()
    gc.callbacks.append(change)
    gc.set_threshold(50)
    try:
        written, named = plain(shared)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(change)

    assert written["k4999"] == "NaN"
    assert {kind for _, kind in named[:-1]} == {"float"}


def test_keys_alike_are_numbered_in_one_go() -> None:
    """However many keys read alike, each is tried once: five thousand held the caller up for minutes."""

    class Key:
        def __str__(self) -> str:
            return "k"

    result, _ = plain_fields({Key(): number for number in range(300)})

    assert list(result) == ["k", *(f"k#{number}" for number in range(2, 301))]


def test_a_long_key_does_not_make_the_names_of_what_is_below_it_long() -> None:
    """The path of each value below a key of a megabyte is made anew; it says enough of the key to find it."""
    key = "k" * 1_000_000
    result, named = plain_fields({key: [math.nan]})

    assert result == {key: ["NaN"]}
    assert named == [{"path": f"{'k' * 200}...[0]", "type": "float"}]
