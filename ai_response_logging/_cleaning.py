"""
What happens to a record between its encoding and its keeping: secrets go, and texts too large for a line go elsewhere.

Nearly every record passes with a look at its bytes; what has something in it is decoded, changed and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ._fast_json import dumps_plain, loads_plain
from ._redaction_rules import rules_of
from .blobs import BlobStore, set_apart
from .redaction import Names, Redactor

if TYPE_CHECKING:
    from ._options import Options

__all__ = ["SECRETS_ONLY", "Cleaner", "Parts", "cleaner_for"]

Parts = tuple[dict[str, Any], list[Any], Names]
"""A record's fields, the dicts below them, and its names; see :meth:`~.redaction.Redactor.suspects`."""
_Taken = list[dict[str, str]]


class Cleaner:
    """
    Cleans the records of one log.

    Args:
        redactor: What it takes out.
        most_bytes: Of a record's fields in JSON; 0 for any.
        keep: Keeps a large text, see :class:`~.blobs.BlobStore`; None leaves each where it is.

    Threads: Any.
    """

    def __init__(self, redactor: Redactor, most_bytes: int = 0, keep: Callable[[bytes], str] | None = None) -> None:
        self._redactor, self._most_bytes, self._keep = redactor, most_bytes, keep

    def become(self, other: Cleaner) -> None:
        """Do from now on what *other* does: formatters hold on to this one."""
        self.__dict__.update(other.__dict__)

    def message(self, message: Any, taken: _Taken) -> Any:
        """Return *message* as it may be kept; what was taken out of it is added to *taken*."""
        if type(message) is not str or not self._redactor.suspects_text(message):
            return message
        return self._redactor.text(message, ("message",), taken)

    def clean(self, text: bytes, parts: Parts | None, taken: _Taken) -> bytes:
        """
        Return *text*, a record's fields as JSON, as it may be kept.

        Args:
            text: An object.
            parts: What it was made of; None where that is not what stands in it.
            taken: What was taken out of other parts of the record.
        """
        if taken or parts is None or self._redactor.suspects(text, *parts):
            plain = loads_plain(text)
            taken += self._redactor.redact(plain)
            if taken:
                plain["redacted"] = taken
                text = dumps_plain(plain)
        if self._keep is not None and len(text) > self._most_bytes > 0:
            plain = loads_plain(text)
            if entries := set_apart(plain, self._most_bytes, len(text), self._keep):
                plain["blobs"] = entries
                text = dumps_plain(plain)
        return text


SECRETS_ONLY: Final = Cleaner(Redactor(rules_of(None)))
"""For who has no options: a formatter on a handler that is not ours."""


def cleaner_for(log: str, options: Options) -> Cleaner:
    """Return the cleaner for the log at *log*."""
    store = BlobStore(
        log,
        file_mode=options.file_mode,
        directory_mode=options.directory_mode,
        is_synced=options.durability == "power",
    )
    return Cleaner(Redactor(options.redact), options.max_inline_bytes, store.keep)
