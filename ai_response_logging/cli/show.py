"""``ai-responses show``: one record whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._complete import record_ids
from ._console import FileOption, UtcOption, print_error, print_json_line, print_line
from ._reading import records_of
from .tail import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["show"]

_CANDIDATES: Final = 10
_KEPT: Final = 1000

RecordId = Annotated[
    str,
    typer.Argument(
        metavar="RECORD_ID",
        help="The record's id, or the beginning of it.",
        show_default=False,
        autocompletion=record_ids,
    ),
]


def show(record_id: RecordId, *, file: FileOption = None, utc: UtcOption = False, as_json: JsonLines = False) -> None:
    """
    Show one record whole.

    The beginning of its id is enough where it is unique; where it is not, the records that it may mean are listed.
    Reads the whole log, journals too: a record that stands there twice is shown twice. Texts that are too large for
    a line are shown in their places; one that is missing or damaged is said. Exit code 2 if there is no such record,
    or more than one.

    Example: ai-responses show 0199ab12-7c3d
    """
    from ..blobs import bring_back
    from ..record import default_log_path
    from ._shown import print_record

    path = default_log_path(file)
    found = _found(record_id, path)
    if not found:
        raise typer.BadParameter(
            f"{path} has no record {record_id!r}; `ai-responses tail` lists the newest with their ids",
            param_hint="RECORD_ID",
        )
    if len(found) > 1:
        _list(found.values(), utc=utc)
        raise typer.BadParameter(
            f"{record_id!r} begins the ids of {_many(found)} records: give more of it", param_hint="RECORD_ID"
        )
    copies = next(iter(found.values()))
    for number, one in enumerate(copies):
        record = bring_back(one, path, print_error)
        if as_json:
            print_json_line(record)
            continue
        if number:
            print_line("\n" + "-" * 20 + "\n")
        print_record(record, utc=utc)
    if len(copies) > 1:
        print_error(f"this record stands {len(copies)} times in the log")


def _found(wanted: str, path: str) -> dict[str, list[dict[str, Any]]]:
    """Return the records whose id begins with *wanted*, by id; only those that have it whole if any does."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records_of(path, "show"):
        name = record.get("record_id")
        if not isinstance(name, str) or not name.startswith(wanted):
            continue
        if name == wanted or name in found or len(found) < _KEPT:
            # Of many candidates only one line each is shown: their texts would fill the memory.
            is_shown = name == wanted or len(found) <= _CANDIDATES
            found.setdefault(name, []).append(record if is_shown else {"record_id": name})
    return {wanted: found[wanted]} if wanted in found else found


def _many(found: dict[str, Any]) -> str:
    return f"{len(found):,}" if len(found) < _KEPT else f"{_KEPT:,} or more"


def _list(candidates: Iterable[list[dict[str, Any]]], *, utc: bool) -> None:
    from ._shown import summary_of

    shown = [copies[0] for copies in candidates]
    for record in shown[:_CANDIDATES]:
        moment, status, _, _ = summary_of(record, utc=utc)
        called = " ".join(str(record[key]) for key in ("platform", "model") if record.get(key))
        print_error(f"{record['record_id']}  {moment}  {status}  {called}".rstrip())
    if len(shown) > _CANDIDATES:
        print_error("...")
