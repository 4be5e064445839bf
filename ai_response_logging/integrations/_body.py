"""
One answer's bytes as they pass by, and what they say once it has ended.

While an answer comes in, each piece is only kept, together with when it came: no token waits for a parser. What they
say is worked out when the answer has ended, or, so that memory stays bounded, each time `FOLD_BYTES` have gathered.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from .._fast_json import loads_plain
from ._outcome import UnexpectedAnswerError
from ._sse import EventParser
from ._wire import Fold, Wire

__all__ = ["FOLD_BYTES", "Body"]

FOLD_BYTES: Final = 1024 * 1024
_DONE: Final = b"[DONE]"
# What an endpoint can make of our reading by sending something of another shape.
_STRANGE: Final = (TypeError, ValueError, AttributeError, LookupError)


class Body:
    """
    The bytes of one answer.

    Args:
        wire: The API that it speaks.
        is_events: Whether it is a stream of events.
        encoding: Its ``Content-Encoding``; "" for none.
        decode: Undoes *encoding*, as far as whole.
        keep_raw: Whether all of it is kept.

    Threads: One at a time.
    """

    def __init__(
        self, wire: Wire, *, is_events: bool, encoding: str, decode: Callable[[bytes, str], bytes], keep_raw: bool
    ) -> None:
        self.is_events = is_events
        self.has_bad_event = False
        self.first_token_s: float | None = None
        self.last_s: float | None = None
        self._wire, self._encoding, self._decode = wire, encoding, decode
        self._fold: Fold = wire.fold()
        self._parser = EventParser()
        self._pieces: list[tuple[float, bytes]] = []
        self._size = 0
        self._raw: list[bytes] | None = [] if keep_raw else None

    def take(self, piece: bytes) -> None:
        """Keep *piece*. Cost: an append; once in `FOLD_BYTES` of a stream, the parsing of those."""
        self._pieces.append((time.monotonic(), piece))
        self._size += len(piece)
        if self._size >= FOLD_BYTES and self.is_events and not self._encoding:
            self._fold_pieces()

    @property
    def is_complete(self) -> bool:
        """Whether a stream's terminal event has come; to be asked after `fields_of_events`."""
        return self._fold.is_complete

    def fields_of_events(self) -> dict[str, Any]:
        """Return what a stream says, as far as it came; ``error`` is what it reported itself."""
        if self._encoding:
            self._undo_encoding()
        self._fold_pieces()
        try:
            fields = self._fold.fields()
        except _STRANGE:
            fields = {"response": "", "success": True}
        return fields if self._raw is None else {**fields, "raw_response": _text(b"".join(self._raw))}

    def whole(self) -> bytes:
        """Return a plain answer."""
        if self._encoding:
            self._undo_encoding()
        self.last_s = self._pieces[-1][0] if self._pieces else None
        return b"".join(piece for _, piece in self._pieces)

    def fields_of_answer(self) -> dict[str, Any]:
        """
        Return what a plain answer says.

        Raises:
            UnexpectedAnswerError: It is none.
        """
        raw = self.whole()
        try:
            body = loads_plain(raw)
        except ValueError:
            raise UnexpectedAnswerError(_text(raw)[:200]) from None
        try:
            fields = self._wire.answer_fields(body) if isinstance(body, dict) else None
        except _STRANGE:
            fields = None  # the text is kept all the same
        if fields is None:
            raise UnexpectedAnswerError(_text(raw)[:200])
        return fields if self._raw is None else {**fields, "raw_response": body}

    def text(self) -> str:
        """Return a plain answer as text, whatever it is."""
        return _text(self.whole())

    def error_of_answer(self) -> dict[str, Any]:
        """Return the error object of an answer that is a failure, or its text as the message."""
        raw = self.whole()
        try:
            body = loads_plain(raw)
        except ValueError:
            return {"message": _text(raw).strip()}
        error = body.get("error", body) if isinstance(body, dict) else body
        return error if isinstance(error, dict) else {"message": str(error)}

    def _fold_pieces(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        for at, (came_s, piece) in enumerate(pieces):
            if self._fold.has_content:  # when each of the others came does not matter
                self._take_events(b"".join(rest for _, rest in pieces[at:]))
                break
            self.first_token_s = came_s if self._take_events(piece) else None
        if pieces:
            self.last_s = pieces[-1][0]
        if self._raw is not None:
            self._raw += [piece for _, piece in pieces]

    def _take_events(self, piece: bytes) -> bool:
        """Take in what *piece* completes; return whether anything of the answer itself has come by now."""
        for event in self._parser.feed(piece):
            if event.data.startswith(_DONE):
                self._fold.finish()
                continue
            try:
                data = loads_plain(event.data)
            except ValueError:
                self.has_bad_event = True
                continue
            if isinstance(data, dict):
                # Any shape may come, also one that the wire does not expect: that event is passed over, not the rest.
                with contextlib.suppress(*_STRANGE):
                    self._fold.take(event.name.decode("utf-8", "replace"), data)
        return self._fold.has_content

    def _undo_encoding(self) -> None:
        """Put the text in the place of what came; of a stream that is cut, as far as it can be had."""
        if not self._pieces:
            return
        came_s, last_s = self._pieces[0][0], self._pieces[-1][0]
        text = self._decode(b"".join(piece for _, piece in self._pieces), self._encoding)
        self._pieces, self._encoding = [(came_s, text), (last_s, b"")], ""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
