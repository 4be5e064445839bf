"""``ai-responses verify``: is the log whole, and if not, where and what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import typer

from ._console import EXIT_NOT_WELL, FileOption, JsonOption, plain, print_json, print_line, print_wrapped, progress_bar

if TYPE_CHECKING:
    from ..verify import Report

__all__ = ["verify"]

_SHOWN_OF_A_KIND: Final = 20
_KILO: Final = 1000


def verify(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """
    Prove that the log is whole, or say what is wrong where.

    Byte by byte: finds torn, glued and foreign lines, wrong checksums, duplicates, gaps in each writer's numbers,
    and large texts beside the log that are missing or changed. What is still in a journal, or was forgotten on
    request, is no gap, and is counted. Reads rotated and compressed files too, needs no writing rights and waits for
    no writer. Exit code 1 if anything is found, or a journal may not be read.

    Example: ai-responses verify --file data/ai_responses/ai_responses.jsonl
    """
    from ..verify import verify_log

    with progress_bar("verify") as on_progress:
        report = verify_log(file, on_progress=on_progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.whole:
        raise typer.Exit(EXIT_NOT_WELL)


def _print(report: Report) -> None:
    count = sum(report.problem_counts.values())
    verdict = "whole" if report.whole else f"not whole: {_many(count, 'problem')}"
    parts = [_many(report.records, "record"), _many(len(report.writers), "writer")]
    if report.in_journals:
        parts.append(f"{_many(report.in_journals, 'more record')} in journals, on the way")
    if report.older:
        parts.append(f"{report.older:,} of an older shape, which cannot be proven")
    if report.forgotten:
        parts.append(f"{report.forgotten:,} forgotten on request")
    if report.blobs:
        parts.append(_many(report.blobs, "large text"))
    if report.open_calls:
        parts.append(f"{_many(report.open_calls, 'call')} begun and not ended")
    parts += [_many(len(report.files), "file"), _size(report.bytes)]
    print_wrapped(f"{verdict}; {', '.join(parts)}")
    for name in report.files:
        print_line(f"  {plain(name)}")
    for kind, total in report.problem_counts.items():
        print_line()
        print_line(f"{kind}: {total:,}")
        shown = [problem for problem in report.problems if problem.kind == kind][:_SHOWN_OF_A_KIND]
        for problem in shown:
            name = plain(os.path.basename(problem.file))
            where = f"{name}:{problem.line} byte {problem.offset}" if problem.line else plain(problem.file)
            print_wrapped(f"{where}: {plain(problem.detail)}", indent=2)
        if total > len(shown):
            print_line(f"  and {total - len(shown):,} more: --json lists up to 1,000 of a kind")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _size(count: int) -> str:
    """Return bytes for people; kB is 1000."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < _KILO:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= _KILO
    return f"{size:.1f} TB"
