"""``ai-responses convert``: older shapes to the record of today and back, with proof."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ._console import EXIT_NOT_WELL, FileOption, JsonOption, plain, print_json, print_line

if TYPE_CHECKING:
    from ..convert import Conversion

__all__ = ["ZoneOption", "convert", "zone_of"]

_ZONE: Final = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>[0-5]\d)")
_MOST_HOURS: Final = 23
_SHOWN: Final = 20

OutOption = Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The new file; .gz is compressed.")]
ToOption = Annotated[str, typer.Option("--to", help="1.0, the record of today, or 2.0: the way back.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there; never the log.")]
ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--assume-timezone",
        metavar="+08:00",
        help="Of local times in older lines that say no zone and have no unix_timestamp.",
        show_default=False,
    ),
]


def convert(
    out: OutOption,
    *,
    to: ToOption = "1.0",
    assume_timezone: ZoneOption = None,
    file: FileOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Rewrite a log as records of today, or back, and prove that nothing is lost.

    What was written is read again and converted back: each object must be what it was, shown by counts and hashes.
    Bad lines go to OUT.bad as they are. The log itself is never touched. Exit code 1 for bad lines, or without proof.

    Example: ai-responses convert -o today.jsonl --assume-timezone +08:00
    """
    from ..convert import convert_log

    done = convert_log(file, out, to=to, assume_timezone=zone_of(assume_timezone), force=force)
    if as_json:
        print_json(done.to_dict())
    else:
        _print(done)
    if done.bad_lines or done.bad or not done.is_proven:
        raise typer.Exit(EXIT_NOT_WELL)


def zone_of(text: str | None) -> timezone | None:
    """Return the fixed offset that *text* names, as in ``+08:00`` or ``Z``."""
    if text is None:
        return None
    if text.upper() in {"Z", "UTC"}:
        return UTC
    found = _ZONE.fullmatch(text)
    if not found or int(found["hours"]) > _MOST_HOURS:
        raise typer.BadParameter(f"{text!r} is no offset such as +08:00", param_hint="--assume-timezone")
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
    return timezone(offset if found["sign"] == "+" else -offset)


def _print(done: Conversion) -> None:
    verdict = "equal" if done.is_proven else "NOT EQUAL: do not use this file"
    print_line(f"{done.equal:,} of {done.records:,} {verdict}, read again and converted back")
    print_line(f"  read  sha256 {done.sha256_read}")
    print_line(f"  back  sha256 {done.sha256_back}")
    print_line(f"{done.converted:,} converted, {done.records - done.converted:,} copied: {plain(done.out)}")
    if done.bad_lines:
        print_line(f"{done.bad_lines:,} bad lines, kept as they are: {plain(done.bad_file)}")
    for bad in done.bad[:_SHOWN]:
        print_line(f"  {plain(bad.file)}:{bad.line} byte {bad.offset}: {plain(bad.reason)}")
