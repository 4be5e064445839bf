"""Where memory ends orjson must not be asked, since it would take the process along: real limits, real processes."""

from __future__ import annotations

import json
import re
import subprocess
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from helpers import run_child

from ai_response_logging import _fast_json
from ai_response_logging._fast_json import SMALL, dumps, dumps_plain, loads, loads_plain
from ai_response_logging._parse import parse_line
from ai_response_logging._plain import plain_fields
from ai_response_logging.formatter import AIResponseFormatter, current_head

SHAPES = {
    "a text": lambda size: {"answer": "x" * size},
    "a text in Chinese": lambda size: {"answer": "漢" * size},
    "a text of emoji": lambda size: ["😀" * size, "😀" * size],
    "a text that is all escapes": lambda size: {"answer": "\x01" * size},
    "many texts": lambda size: {f"field{number}": "y" * (size // 20) for number in range(20)},
    "short texts": lambda size: ["abc"] * (size // 10),
    "long keys": lambda size: {"k" * size: 1},
    "numbers": lambda size: [7] * (size // 10),
    "dicts": lambda size: [{"": 0}] * (size // 10),
    "a dict of numbers": lambda size: {f"{number}": 1.5 for number in range(size // 10)},
    "lists in lists": lambda size: [[[]]] * (size // 10),
}
SIZES = (10, 1_000, 10_000, 100_000)

# Argument 1: a function of the module; 2: the name of a shape; then sizes. Each attempt is a process of its own, with a
# little room or none, and with the free pieces of the heap used up. Prints what became of each.
ATTEMPTS = """
import os, resource, sys
from ai_response_logging import _fast_json
sys.path.insert(0, sys.argv[4])
from test_fast_json import SHAPES

def used_up(least):
    held, size = [], 1 << 20
    while size >= least:
        try:
            held.append(bytes(size))
        except MemoryError:
            size //= 2
    return held

def attempt(value, expected, room, least):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(getattr(resource, sys.argv[3]), (pages * resource.getpagesize() + room, -1))
    _fast_json.look_again()
    held = used_up(least) if least else []
    try:
        done = function(value)
    except MemoryError:
        os._exit(7)
    held.clear()
    os._exit(0 if done == expected else 8)

function = getattr(_fast_json, sys.argv[1])
for size in map(int, sys.argv[5:]):
    value = SHAPES[sys.argv[2]](size)
    text = _fast_json.dumps(value)
    given, expected = (text, value) if "loads" in sys.argv[1] else (value, text)
    for room in (0, size // 2, size * 2, size * 6, size * 10, size * 20, size * 60):
        for least in (0, 4096, 65536):
            if not (pid := os.fork()):
                attempt(given, expected, room, least)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def outcomes(function: str, shape: str, limit: str = "RLIMIT_AS") -> list[int]:
    """Return how each attempt ended: 0 well, 7 with a MemoryError, 8 with something else; below 0 by a signal."""
    done = run_child(ATTEMPTS, function, shape, limit, __file__.rpartition("/")[0], *SIZES, timeout=60)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.timeout(70)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", ["dumps", "loads"])
def test_too_little_memory_is_a_memory_error_and_never_the_end_of_the_process(function: str, shape: str):
    """Whatever is to be written or read, and however little room there is: done well, or MemoryError."""
    found = outcomes(function, shape)

    assert len(found) == len(SIZES) * 7 * 3
    assert set(found) == {0, 7}


@pytest.mark.timeout(70)
@pytest.mark.parametrize("function", ["dumps_plain", "loads_plain"])
def test_plain_values_do_with_less(function: str):
    """Where orjson cannot have its eight bytes for one, the standard library's few are enough."""
    careless = outcomes(function.removesuffix("_plain"), "a text")
    found = outcomes(function, "a text")

    assert set(found) == {0, 7}
    assert found.count(0) > careless.count(0)


def test_limit_on_data_counts_as_well():
    """``ulimit -d`` ends memory as ``ulimit -v`` does."""
    assert set(outcomes("dumps", "a text", "RLIMIT_DATA")) == {0, 7}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_asked_for_is_enough(shape: str, monkeypatch: pytest.MonkeyPatch):
    """It is at least what orjson then takes at its peak, and half of that: while a buffer grows, there are two."""
    asked: list[int] = []
    monkeypatch.setattr(_fast_json, "memory_can_end", lambda: True)
    monkeypatch.setattr(_fast_json, "memory_could_end", True)
    monkeypatch.setattr(_fast_json, "_take", asked.append)
    for size in (10, 400, 3_000, 30_000, 200_000):
        value = SHAPES[shape](size)
        text = dumps(value)
        loads(text)

        assert peak_bytes(lambda value=value: orjson.dumps(value)) * 1.5 <= asked[-2] + _fast_json._LEAST
        assert peak_bytes(lambda text=text: orjson.loads(text)) * 1.5 <= asked[-1] + _fast_json._LEAST


def peak_bytes(do: Callable[[], Any]) -> int:
    """Return how much more *do* has at its peak than there was before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = do()
        peak = tracemalloc.get_traced_memory()[1] - before
        del result
        return peak
    finally:
        tracemalloc.stop()


class Limited:
    """Stands for a machine whose memory can end, and may have ended already."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self.taken = monkeypatch, list[int]()
        monkeypatch.setattr(_fast_json, "memory_can_end", lambda: True)
        monkeypatch.setattr("ai_response_logging._plain.memory_can_end", lambda: True)
        monkeypatch.setattr(_fast_json, "memory_could_end", True)

    def has_no_more_than(self, most: int) -> None:
        def take(size: int) -> None:
            self.taken.append(size)
            if size > most:
                raise MemoryError

        self._monkeypatch.setattr(_fast_json, "_take", take)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Return such a machine."""
    return Limited(monkeypatch)


PLAIN = {"text": 'ü"\\\n漢😀\x7f\x00', "numbers": [0, -1, 2**64 - 1, -(2**63), 1.5, 1e300, 1e16, -0.0], "none": None,
         "deep": {"a": [[{"b": True}], False, []]}, "empty": {}}  # fmt: skip


def test_slower_way_writes_and_reads_the_same(limited: Limited):
    """A reader finds the same values, whichever way wrote the line; and both ways read the same."""
    limited.has_no_more_than(0)

    text = dumps_plain(PLAIN)

    assert limited.taken
    assert dumps_plain({"of": {1}}, default=str) == b'{"of":"{1}"}'
    assert b" " not in text
    assert "漢".encode() in text
    assert orjson.loads(text) == json.loads(orjson.dumps(PLAIN)) == loads_plain(text) == PLAIN


def test_half_an_emoji_is_refused_on_both_ways(limited: Limited):
    """It is in no UTF-8: the formatter then takes its careful way."""
    limited.has_no_more_than(0)
    with pytest.raises(UnicodeEncodeError):
        dumps_plain("\ud83d")
    limited.has_no_more_than(1 << 20)
    with pytest.raises(UnicodeEncodeError):
        dumps_plain("\ud83d")


def test_fragment_is_not_measured(limited: Limited):
    """Nobody can ask it for its size, so where that would matter it is refused."""
    limited.has_no_more_than(1 << 30)

    with pytest.raises(MemoryError):
        dumps({"inner": orjson.Fragment(b"[]")})


def encoded(**fields: Any) -> dict[str, Any]:
    """Return *fields* as the formatter writes them."""
    made = AIResponseFormatter().encode_fields(fields, current_head("m" * 5000, "INFO", "ai_responses"))
    return json.loads(made.body + b"}")  # type: ignore[no-any-return]  a record


@pytest.mark.parametrize("field", ["text", "nested", "deep", "time", "odd", "secret", "surrogate"])
def test_record_is_the_same_where_memory_is_short(limited: Limited, field: str):
    """A record that orjson may not write is written by the slower way, whatever is in it."""
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]
    fields = {
        "text": "x" * 5000, "nested": {"messages": [{"role": "user", "content": "漢"}]}, "deep": deep,
        "time": datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC), "odd": {1, 2}, "surrogate": "\ud83d and more",
        "secret": "my key is sk-" + "a1B2c3D4e5F6g7H8" * 3,
    }  # fmt: skip
    limited.has_no_more_than(1 << 30)
    usual = encoded(**{field: fields[field]})
    limited.has_no_more_than(0)
    limited.taken.clear()

    short = encoded(**{field: fields[field]})

    assert limited.taken
    for of in (usual, short):
        for name in ("timestamp", "unix_timestamp", "record_id"):
            assert of.pop(name)
    assert short == usual


def test_limit_that_comes_while_records_are_logged_is_seen_by_a_long_one_at_once(monkeypatch: pytest.MonkeyPatch):
    """Long is what has more than 4096 characters, or anything nested; for others it is asked once a second."""
    formatter, head = AIResponseFormatter(), current_head("m", "INFO", "ai_responses")
    formatter.encode_fields({"a": "b"}, head)
    looks: list[None] = []
    monkeypatch.setattr(_fast_json, "memory_can_end", lambda: looks.append(None))
    monkeypatch.setattr(_fast_json, "memory_could_end", False)

    def looked(**fields: Any) -> bool:
        looks.clear()
        formatter.encode_fields(fields, head)
        return bool(looks)

    assert not looked(a="b", number=1, ratio=1.5)
    assert not looked(a="x" * (SMALL - 1), b="y")
    assert looked(a="x" * SMALL, b="y")
    assert looked(a="x" * (SMALL + 1))
    assert not looked(a="x" * (SMALL - 2), b=[{"c": "y", "d": 1.5, "e": ["z", None, 7]}])
    assert looked(a="x" * (SMALL - 2), b=[{"c": "y", "d": 1.5, "e": ["zz", None, 7]}])
    looks.clear()
    formatter.encode_fields({"a": "b"}, head._replace(created=head.created + 1))
    assert looks


def test_what_is_nested_deep_counts_as_long(limited: Limited, monkeypatch: pytest.MonkeyPatch):
    """How much text is in JSON that is made already nobody counts: a limit is looked for, and the careful way taken."""
    limited.has_no_more_than(1 << 30)
    formatter, head = AIResponseFormatter(), current_head("m", "INFO", "ai_responses")
    formatter.encode_fields({}, head)  # whoever asks once a second has asked
    monkeypatch.setattr(_fast_json, "memory_could_end", False)
    limited.taken.clear()
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]

    formatter.encode_fields({"deep": deep}, head)

    assert len(limited.taken) == 2  # for the JSON of the value, and for the record


ASKED = """
from ai_response_logging._fast_json import _take

def pages():
    return int(open("/proc/self/statm").read().split()[0])

_take(3_000_000)
before = pages()
for _ in range(4):
    _take(3_000_000)
print((pages() - before) * 4096)
"""


def test_asking_for_memory_keeps_none_of_it():
    """What malloc(3) is given back it keeps, and frames then have none: in little room 95 of 100 answers failed."""
    assert int(run_child(ASKED, is_fresh=True).stdout) < 1_000_000


class Large:
    """Says that memory does not suffice for its text."""

    def __str__(self) -> str:
        raise MemoryError


def test_value_that_memory_does_not_suffice_for_is_not_replaced_by_a_name(limited: Limited):
    """The caller still has the answer, and is told; a `<str>` in its place would be all that is kept of it."""
    limited.has_no_more_than(0)

    with pytest.raises(MemoryError):
        plain_fields({"answer": [Large()]})


def test_memory_error_where_memory_cannot_end_is_one_as_any_other(monkeypatch: pytest.MonkeyPatch):
    """Somebody's code has raised it, and the record goes on without that value."""
    monkeypatch.setattr("ai_response_logging._plain.memory_can_end", lambda: False)

    values, named = plain_fields({"answer": [Large()]})

    assert values == {"answer": ["<Large>"]}
    assert {"path": "answer[0]", "type": "MemoryError"} in named


def test_overcommit_is_read_from_the_kernel():
    """Strict overcommit (2) is a limit, too."""
    shown = subprocess.run(["sysctl", "-n", "vm.overcommit_memory"], capture_output=True, text=True, check=False)
    if not re.fullmatch(r"\d\n", shown.stdout):
        pytest.skip("there is no sysctl that tells")

    assert _fast_json._is_overcommit_strict() == (shown.stdout == "2\n")


def test_line_is_read_where_memory_is_short(limited: Limited):
    """A reader gets the same from the slower parser, and refuses the same."""
    limited.has_no_more_than(0)

    assert parse_line(dumps_plain(PLAIN)) == PLAIN
    for bad in (b'{"a": NaN}', b'{"a": 1', b"[]", b"  ", b'{"a": "\xff"}'):
        with pytest.raises(ValueError, match=r"not JSON|not an object|blank|not UTF-8"):
            parse_line(bad)
    assert limited.taken
