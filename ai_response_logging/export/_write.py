"""The way of an export: read, choose, shape, write, and say what became of each record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

from ..blobs import bring_back
from ..errors import ConfigError
from ..filters import Filters
from ..reader import read_log
from ..record import default_log_path
from ._batch import batch_input, batch_output
from ._conversation import Conversation
from ._files import Manifest, RowFile, refuse_existing
from ._otel import log_requests
from ._select import Selection, Selector
from ._tables import write_csv, write_parquet
from ._training import PAIR_ROWS, SINGLE_ROWS, Preference, pairs_of

__all__ = ["FORMATS", "export", "manifest_path"]

_BATCHES: Final = {"openai-batch": batch_input, "openai-batch-output": batch_output}
FORMATS: Final = (*SINGLE_ROWS, *PAIR_ROWS, *_BATCHES, "parquet", "csv", "otel-json")
"""What can be written."""

_CONVERSATIONS: Final = frozenset({*SINGLE_ROWS, *PAIR_ROWS})
_UNSPLIT: Final = frozenset({*_BATCHES, "parquet", "csv", "otel-json"})

_Kept = tuple[dict[str, Any], Conversation | None]


def manifest_path(out: str) -> str:
    """Return where the manifest of the output *out* is."""
    return f"{out}.manifest.json"


def export(
    log: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002  the word that people use for it
    filters: Filters | None = None,
    selection: Selection | None = None,
    preference: Preference | None = None,
    validation: float = 0.0,
    force: bool = False,
) -> Manifest:
    """
    Write the log at *log* as data for others, and a manifest beside it; return the manifest.

    Args:
        log: Its base name; without it ``AI_RESPONSES_FILE``, then the default place.
        out: The file; for ``parquet`` the directory. ``.gz`` at its end compresses. With *validation* the other set is
            ``<name>.validation<.suffix>`` beside it.
        format: One of :data:`FORMATS`.
        filters: Only these records.
        selection: What is left out; without it failed and cut off calls, refusals, empty answers and duplicates.
        preference: What makes one answer better than another, for pairs.
        validation: The share of prompts, 0 to 0.9, whose rows go into the validation set. The prompt's hash
            decides, so the same prompt is in the same set each time and never in both.
        force: Replace what is there.

    Raises:
        ConfigError: There is no such format, the output is there already or cannot be made, or an option does not fit
            the format.
        LogReadError: The log cannot be read, or a text kept beside it is another than was logged.
        MissingExtraError: The format needs a package that is not installed.
        OutputError: The disk is full, or refuses; what was there before is as it was.

    Durability: Each file is synced, and all get their names when all are whole; a failure leaves what was there before.
    Threads: Any; one output at a time.

    .. versionadded:: 0.1.0
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}; the formats are {', '.join(FORMATS)}", "format")
    if not 0 <= validation <= 0.9:  # noqa: PLR2004  some must be left to train with
        raise ConfigError(f"validation must be 0 to 0.9 (a share of the prompts), got {validation!r}", "validation")
    if validation and format in _UNSPLIT:
        raise ConfigError(f"{format} is no training data and has no validation set", "validation")
    path, out = default_log_path(log), os.fspath(out)
    selection = selection or Selection(keep_failed=bool(filters and filters.failed))
    manifest = Manifest(format, path, options=_options(filters, selection, preference, validation))
    names = [out, manifest_path(out), *([_validation_path(out)] if validation else [])]
    for name in names:
        refuse_existing(name, force=force)
    kept = _kept(path, filters, Selector(selection, needs_conversation=format in _CONVERSATIONS), manifest)
    with RowFile(names[1], replace=force) as beside:
        if format == "parquet":
            write_parquet((record for record, _ in kept), out, manifest)
            manifest.used = manifest.rows
            _write_manifest(manifest, beside)
        else:
            with ExitStack() as stack:
                files = [stack.enter_context(RowFile(name, replace=force)) for name in (names[0], *names[2:])]
                _write_files(files, kept, preference or Preference(), validation, manifest)
                _write_manifest(manifest, beside)
                for file in files:
                    file.take_name()
        beside.take_name()
    return manifest


def _validation_path(out: str) -> str:
    ending = ".gz" if out.endswith(".gz") else ""
    stem, suffix = os.path.splitext(out.removesuffix(".gz"))
    return f"{stem}.validation{suffix}{ending}"


def _options(
    filters: Filters | None, selection: Selection, preference: Preference | None, validation: float
) -> dict[str, Any]:
    options: dict[str, Any] = {"validation": validation}
    for group in (filters, selection, preference):
        if group is not None:
            for name in group.__dataclass_fields__:
                value = getattr(group, name)
                options[name] = getattr(value, "pattern", value)
    return options


def _kept(log: str, filters: Filters | None, selector: Selector, manifest: Manifest) -> Iterator[_Kept]:
    """Yield the records that are not left out, each whole, with its conversation."""

    def note(_line: object) -> None:
        manifest.bad_lines += 1

    for found in read_log(log, on_bad=note, filters=filters):
        record = bring_back(found, log)
        manifest.read += 1
        reason, conversation = selector.reason_against(record)
        if reason:
            manifest.leave_out(reason)
        else:
            yield record, conversation


def _write_files(
    outputs: list[RowFile],
    kept: Iterator[_Kept],
    preference: Preference,
    validation: float,
    manifest: Manifest,
) -> None:
    """Write and finish the *outputs*, and say in the *manifest* what they are."""
    if manifest.format == "csv":
        write_csv((record for record, _ in kept), outputs[0])
        manifest.used = outputs[0].rows
    elif manifest.format == "otel-json":
        for request, count in log_requests(record for record, _ in kept):
            outputs[0].write_row(request)
            manifest.used += count
    elif manifest.format in _BATCHES:
        _write_batch(kept, outputs[0], manifest)
    else:
        for row, conversation in _training_rows(kept, preference, manifest):
            outputs[validation > 0 and conversation.is_in(validation)].write_row(row)
    for output in outputs:
        output.finish()
    manifest.rows = manifest.used if manifest.format == "otel-json" else sum(output.rows for output in outputs)
    manifest.validation_rows = outputs[1].rows if validation else 0
    manifest.files = [output.described() for output in outputs]


def _training_rows(
    kept: Iterator[_Kept], preference: Preference, manifest: Manifest
) -> Iterator[tuple[Mapping[str, Any], Conversation]]:
    if manifest.format in PAIR_ROWS:
        scored = ((preference.score(record), conversation) for record, conversation in kept if conversation)
        for chosen, rejected in pairs_of(scored, manifest):
            yield PAIR_ROWS[manifest.format](chosen, rejected), chosen
        return
    for _, conversation in kept:
        row = SINGLE_ROWS[manifest.format](conversation) if conversation else None
        if row is None or conversation is None:
            manifest.leave_out("not_text")
        else:
            manifest.used += 1
            yield row, conversation


def _write_batch(kept: Iterator[_Kept], output: RowFile, manifest: Manifest) -> None:
    for record, conversation in kept:
        row = _BATCHES[manifest.format](record, conversation)
        if row is None:
            manifest.leave_out("no_question" if conversation is None else "unknown_operation")
        else:
            manifest.used += 1
            output.write_row(row)


def _write_manifest(manifest: Manifest, output: RowFile) -> None:
    output.write(json.dumps(manifest.to_dict(), ensure_ascii=False, indent=2).encode() + b"\n")
    output.finish()
