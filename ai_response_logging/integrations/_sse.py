"""
Server-sent events out of bytes, as they are cut by the network; pure.

Source: the WHATWG HTML standard, section 9.2.6, as far as the model providers use it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Event", "EventParser"]


class Event(NamedTuple):
    """One event: its name, empty where it has none, and its data, lines joined."""

    name: bytes
    data: bytes


class EventParser:
    """Splits a stream into events; the beginning of one that has not ended is kept for the next piece."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that *piece* completes. One that is never completed is none, as for every reader."""
        text = self._rest + piece
        held = b""
        if text.endswith(b"\r"):  # its line feed may be the next byte
            text, held = text[:-1], b"\r"
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = text.split(b"\n\n")
        self._rest = rest + held
        events = [_event_of(block) for block in blocks]
        return [event for event in events if event is not None]


def _event_of(block: bytes) -> Event | None:
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None
