"""A record together with its encoded form, as it goes from the handler to the queue."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .record import Encoded

__all__ = ["PreparedRecord"]


class PreparedRecord(logging.LogRecord):
    """
    A LogRecord together with its encoded form.

    It shares the original's ``__dict__``: attributes set on one are seen on the other, and what we carry
    ourselves lies in slots, where no other handler's formatter mistakes it for the application's data.
    """

    __slots__ = ("body", "error", "id", "line", "replaced", "status")

    body: bytes
    """The line without writer, number, checksum and newline, see :func:`~.record.seal`."""
    id: str
    """The record's ``record_id``."""
    replaced: bool
    """Whether a value had to be replaced in it."""
    status: str
    """What became of it: ``queued``, ``written``, ``written_sync``, ``spilled`` or ``failed``."""
    error: Exception | None
    """Why, where it failed."""
    line: bytes | None
    """The finished line, once a queue has taken it: from then on it is not refused any more."""

    @classmethod
    def of(cls, attributes: dict[str, object], encoded: Encoded) -> PreparedRecord:
        """Return the record with these *attributes*, its encoded form beside them."""
        prepared = cls.__new__(cls)
        prepared.__dict__ = attributes
        prepared.body, prepared.id, prepared.replaced = encoded
        prepared.status, prepared.error, prepared.line = "queued", None, None
        return prepared
