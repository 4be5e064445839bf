"""``ai-responses forget``: a person's records out of the log, as a deletion request wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ._console import EXIT_NOT_WELL, FileOption, JsonOption, plain, print_json, print_line, print_wrapped, progress_bar

if TYPE_CHECKING:
    from ..forget import ForgetReport

__all__ = ["forget"]

_SHOWN: Final = 20


def forget(
    *,
    user_id: Annotated[
        str | None, typer.Option("--user-id", metavar="ID", help="Whose records.", show_default=False)
    ] = None,
    session_id: Annotated[
        str | None, typer.Option("--session-id", metavar="ID", help="Of which session.", show_default=False)
    ] = None,
    record_id: Annotated[
        str | None, typer.Option("--record-id", metavar="ID", help="One record, by its whole id.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count what would go, by file.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="For records still in living journals.")
    ] = 15.0,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Take a person's records out of the log, for a deletion request.

    Out of every file of it: live, rotated, sealed, compressed, journals, torn lines that were set aside, and large
    texts that no other record names. Records must have all that is given; other events of the same calls go with
    them. Writers go on meanwhile. A receipt
    stays, which says how many went and which numbers they had, and verify counts these as forgotten. Killed in
    between, it is completed by running it again. Exit code 1 if something is left that a person has to see to.

    Example: ai-responses forget --user-id 4711 --dry-run
    """
    from ..forget import Selector
    from ..forget import forget as forget_records

    selector = Selector(user_id=user_id, session_id=session_id, record_id=record_id)
    with progress_bar("forget") as on_progress:
        report = forget_records(file, selector, dry_run=dry_run, wait_s=wait, on_progress=on_progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.is_complete:
        raise typer.Exit(EXIT_NOT_WELL)


def _print(report: ForgetReport) -> None:
    verb = "would be forgotten" if report.is_dry_run else "forgotten"
    print_line(f"{report.records:,} {'record' if report.records == 1 else 'records'} {verb}")
    places = [*report.files.items(), *(report.in_journals.items() if report.is_dry_run else ())]
    for name, count in places:
        print_line(f"  {count:>9,}  {plain(name)}")
    for name in report.torn:
        print_line(f"  torn line  {plain(name)}")
    for name in report.texts:
        print_line(f"  large text {plain(name)}")
    told = [f"{name}: {count:,} records were still there when the time was over" for name, count in
            ({} if report.is_dry_run else report.in_journals).items()]  # fmt: skip
    told += [
        f"{name}:{line} byte {offset}: a damaged line that names what is to be forgotten; look at it and remove it"
        for name, line, offset in report.damaged
    ]
    told += [
        f"{one.file}: bytes of {one.records:,} forgotten records are in space that {one.holder} uses again; no reader "
        "shows them, and they go when it ends: run this again then"
        for one in report.residues
    ]
    told += report.complaints
    for text in told[:_SHOWN]:
        print_wrapped(f"LEFT: {plain(text)}")
    if len(told) > _SHOWN:
        print_line(f"and {len(told) - _SHOWN:,} more: --json lists them")
    for name in report.unknown_torn[:_SHOWN]:
        print_wrapped(f"note: {plain(name)} is a piece of a line that does not say whose it is; it stays")
    if report.mentions:
        count = sum(report.mentions.values())
        print_wrapped(
            f"note: {count:,} other {'record has' if count == 1 else 'records have'} the value in a text or another "
            "field, and stay"
        )
