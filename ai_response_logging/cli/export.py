"""``ai-responses export``: the log as training data, batch files, tables or OpenTelemetry's logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..filters import Filters
from ._console import EXIT_NOT_WELL, FileOption, JsonOption, plain, print_error, print_json, print_line, print_wrapped
from ._filters import with_filters
from ._reading import left_out

if TYPE_CHECKING:
    from ..export import Manifest

__all__ = ["export"]

Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="openai-chat, openai-dpo, trl, trl-prompt-completion, trl-preference, alpaca, openai-batch, "
        "openai-batch-output, parquet, csv or otel-json.",
    ),
]
Out = Annotated[
    Path, typer.Option("-o", "--out", metavar="OUT", help="The file; for parquet a directory. .gz compresses.")
]
Validation = Annotated[
    float,
    typer.Option(metavar="SHARE", help="This share of the prompts, chosen by their hash, goes into a second file."),
]
KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Failed calls too.")]
KeepIncomplete = Annotated[bool, typer.Option("--keep-incomplete", help="Answers cut off too.")]
KeepRefusals = Annotated[bool, typer.Option("--keep-refusals", help="Answers that decline too.")]
KeepDuplicates = Annotated[bool, typer.Option("--keep-duplicates", help="Repeated answers too.")]
NearDuplicates = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Leave out what is so similar to one before: 0.5 to 0.999.", show_default=False),
]
MinChars = Annotated[int, typer.Option(help="Of the answer, at least.")]
MaxChars = Annotated[int | None, typer.Option(help="Of prompt and answer together, at most.", show_default=False)]
Everything = Annotated[bool, typer.Option("--everything", help="Leave nothing out, for tables of the log.")]
Prefer = Annotated[str, typer.Option(metavar="FIELD", help="For pairs: the number that makes an answer better.")]
PreferModel = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="For pairs: models, the best first; give it twice or more.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@with_filters
def export(
    *,
    format: Format,  # noqa: A002  the option's name
    out: Out,
    filters: Filters,
    validation: Validation = 0.0,
    keep_failed: KeepFailed = False,
    keep_incomplete: KeepIncomplete = False,
    keep_refusals: KeepRefusals = False,
    keep_duplicates: KeepDuplicates = False,
    near_duplicates: NearDuplicates = None,
    min_chars: MinChars = 1,
    max_chars: MaxChars = None,
    everything: Everything = False,
    prefer: Prefer = "response_quality_score",
    prefer_model: PreferModel = None,
    force: Force = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Write the log as data for others.

    Successful, complete answers, each once, are taken; what is left out is counted by reason in a manifest beside the
    output. The same prompt is always on the same side of the split. Exit code 1 if nothing was left to write.

    Example: ai-responses export --format openai-chat -o train.jsonl --validation 0.1
    """
    from ..export import Selection
    from ..export import export as run
    from ..export._training import Preference

    selection = Selection(
        keep_failed=keep_failed or filters.failed,
        keep_incomplete=keep_incomplete,
        keep_refusals=keep_refusals,
        keep_duplicates=keep_duplicates,
        near_duplicates=near_duplicates,
        min_chars=min_chars,
        max_chars=max_chars,
        everything=everything,
    )
    manifest = run(
        file,
        out,
        format=format,
        filters=filters,
        selection=selection,
        preference=Preference(field=prefer, models=tuple(prefer_model or ())),
        validation=validation,
        force=force,
    )
    _tell(manifest, as_json=as_json)
    if not manifest.rows:
        raise typer.Exit(EXIT_NOT_WELL)


def _tell(manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        print_json(manifest.to_dict())
    else:
        _print(manifest)
    if manifest.bad_lines:
        print_error(left_out(manifest.log, manifest.bad_lines, manifest.log))
    if not manifest.rows:
        print_error("nothing was left to write; the reasons are above")


def _print(manifest: Manifest) -> None:
    from ..export._select import REASONS

    parts = [f"{manifest.rows:,} rows of {manifest.used:,} records", f"{manifest.read:,} read"]
    if manifest.validation_rows:
        parts.insert(1, f"{manifest.validation_rows:,} of them for validation")
    print_wrapped(f"{manifest.format}: {', '.join(parts)}")
    for reason, count in sorted(manifest.left_out.items(), key=lambda entry: -entry[1]):
        print_wrapped(f"{count:>9,}  {reason}: {REASONS[reason]}")
    for written in manifest.files:
        print_line(f"  {plain(written.path)}")
