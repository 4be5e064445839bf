"""
Which calls' texts go into the page: failed ones first, then the slowest, then a sample of the rest; pure.

The page must stay small however long the log is, so only texts are chosen from: figures are of all records.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["ChosenCalls", "clipped", "size_of", "text_of"]

_TEXTS: Final = ("question", "response", "system", "error_message")
_NAMES: Final = (
    "record_id", "platform", "model", "response_model", "execution_id", "error_type", "error_class", "brand",
    "stream_end",
)  # fmt: skip
_NUMBERS: Final = (
    "unix_timestamp", "latency_ms", "ttft_ms", "tokens_used", "prompt_tokens", "completion_tokens", "retry_count",
    "http_status_code", "question_index",
)  # fmt: skip
_MOST_CHARS: Final = 8_000  # of one text
_MOST_NAME_CHARS: Final = 500
_LARGEST: Final = 2**53  # what the page's own numbers can tell apart
_MOST_SLOWEST: Final = 100
_MOST_FAILED: Final = 10_000  # held while reading, as long as they are small
_MOST_SAMPLED: Final = 4_000
_MOST_HELD_CHARS: Final = 40_000_000  # of one pool's texts, however large each is
_MOST_BYTES: Final = 3_000_000  # of all texts in the page
_SHARES: Final = {"failed": 0.6, "slowest": 0.75, "sample": 1.0}
"""Up to which part of the bytes each kind may fill them, so that one never drives all others out."""


def text_of(value: object, most: int = _MOST_NAME_CHARS) -> str | None:
    """Return *value* if it is a text, cut to *most* characters with a mark behind it."""
    return clipped(value, most) if isinstance(value, str) else None


def clipped(text: str, most: int = _MOST_CHARS) -> str:
    """Return *text*, or its beginning and how much was left out."""
    return text if len(text) <= most else f"{text[:most]} [… {len(text) - most:,} more characters]"


def _call_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of *record*; a value that has another type than it should is not shown."""
    call: dict[str, Any] = {name: text_of(record.get(name)) for name in _NAMES}
    call |= {name: text_of(record.get(name), _MOST_CHARS) for name in _TEXTS}
    for name in _NUMBERS:
        value = record.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
        call[name] = value if is_number else None
    if isinstance(called := record.get("tool_calls"), list) and called:
        call["tool_calls"] = clipped(json.dumps(called, ensure_ascii=False, indent=1, default=str))
    shown = {name: value for name, value in call.items() if value not in {None, ""}}
    return shown | {"success": record.get("success") is True}


_CallOf = Callable[[Mapping[str, Any]], dict[str, Any]]


class _Ranked(NamedTuple):
    """A call among the slowest; of equally slow ones the earlier stays."""

    latency_ms: float
    order: int
    call: dict[str, Any]


class _Reservoir:
    """As many as fit of those that come by, each with the same chance (Vitter, 1985, algorithm R)."""

    def __init__(self, most: int, call_of: _CallOf) -> None:
        self._call_of = call_of
        self._most, self._chars, self.seen = most, 0, 0
        self._held: list[dict[str, Any]] = []
        # Not for secrets, but for a page that is the same when it is made again.
        self._dice = random.Random(20_240_229)  # noqa: S311

    def add(self, record: Mapping[str, Any]) -> None:
        self.seen += 1
        has_room = len(self._held) < self._most and self._chars < _MOST_HELD_CHARS
        at = len(self._held) if has_room else self._dice.randrange(self.seen)
        if at < len(self._held):
            self._held[at] = self._call_of(record)
        elif has_room:
            self._held.append(self._call_of(record))
            self._chars += sum(len(value) for value in self._held[-1].values() if isinstance(value, str))

    def calls(self) -> list[dict[str, Any]]:
        """Return them in an order without a meaning, so that the first of them are a sample, too."""
        return self._dice.sample(self._held, len(self._held)) if self.seen > len(self._held) else list(self._held)


class ChosenCalls:
    """
    Holds calls whose texts may be shown while a log is read.

    Args:
        whole: Returns a record with the texts that are kept beside the log; only asked for calls that are held.

    Memory: the texts of 14,100 calls, and 80 million characters of them at most.
    """

    def __init__(self, whole: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict) -> None:
        self._call_of: _CallOf = lambda record: _call_of(whole(record) if "blobs" in record else record)
        self._failed = _Reservoir(_MOST_FAILED, self._call_of)
        self._sample = _Reservoir(_MOST_SAMPLED, self._call_of)
        self._slowest: list[_Ranked] = []
        self._seen = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Look at *record*, which ends a call."""
        self._seen += 1
        if record.get("success") is not True:
            self._failed.add(record)
            return
        self._sample.add(record)
        latency = record.get("latency_ms")
        if not isinstance(latency, int | float) or isinstance(latency, bool):
            return
        if len(self._slowest) < _MOST_SLOWEST:
            heapq.heappush(self._slowest, _Ranked(latency, -self._seen, self._call_of(record)))
        elif latency > self._slowest[0].latency_ms:
            heapq.heapreplace(self._slowest, _Ranked(latency, -self._seen, self._call_of(record)))

    def chosen(self) -> dict[str, Any]:
        """
        Return ``{"texts", "calls", "records", "failed", "failed_shown"}``.

        A call's long texts are places in *texts*, so that a question asked of ten models stands there once.
        """
        room = _Room()
        for kind, call in self._by_rank():
            room.take(kind, call)
        shown = sorted(room.calls, key=lambda call: call.get("unix_timestamp", 0))
        return {
            "texts": list(room.places),
            "calls": shown,
            "records": self._seen,
            "failed": self._failed.seen,
            "failed_shown": sum(not call["success"] for call in shown),
        }

    def _by_rank(self) -> Iterator[tuple[str, dict[str, Any]]]:
        failed = self._failed.calls()
        yield from (("failed", call) for call in failed)
        yield from (("slowest", one.call) for one in sorted(self._slowest, reverse=True))
        yield from (("sample", call) for call in self._sample.calls())
        yield from (("sample", call) for call in failed)


class _Room:
    """The bytes that texts may take in the page, as they fill."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.calls: list[dict[str, Any]] = []
        self._taken: set[object] = set()
        self._bytes = 0

    def take(self, kind: str, call: dict[str, Any]) -> None:
        """Take in *call*, unless it is there or there is no room for its kind."""
        key = call.get("record_id") or id(call)
        new = {call[name] for name in (*_TEXTS, "tool_calls") if name in call} - self.places.keys()
        size = sum(size_of(text) for text in new) + size_of({name: call[name] for name in call if name not in _TEXTS})
        if key in self._taken or self._bytes + size > _MOST_BYTES * _SHARES[kind]:
            return
        self._taken.add(key)
        self._bytes += size
        for text in sorted(new):
            self.places[text] = len(self.places)
        self.calls.append(
            {name: self.places[value] if name in {*_TEXTS, "tool_calls"} else value for name, value in call.items()}
        )


def size_of(value: object) -> int:
    """Return the bytes that *value* takes in the page, or a few more."""
    # As it will stand in the page: what could end the data block takes six characters for one.
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "replace")) + 5 * sum(map(text.count, "<>&")) + 8
