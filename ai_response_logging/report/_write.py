"""The way of a report: read the log once, and write the page whole or not at all."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from .. import __version__
from .._whole_file import Output
from ..blobs import bring_back
from ..errors import LogReadError
from ..export._files import refuse_existing
from ..filters import Filters
from ..reader import BadLine, StrPath, read_log
from ..record import default_log_path
from ._calls import ChosenCalls
from ._gather import gather
from ._page import page_of

__all__ = ["Report", "report"]


@dataclass(frozen=True, slots=True)
class Report:
    """
    What was written.

    Attributes:
        path: The page.
        bytes: Its size.
        records: Calls that its figures are of.
        shown: Of those, how many have their texts in it.
        bad_lines: Lines of the log that could not be read.
    """

    path: str
    bytes: int
    records: int
    shown: int
    bad_lines: int


def report(
    log: StrPath | None,
    out: StrPath,
    *,
    title: str | None = None,
    filters: Filters | None = None,
    assume_timezone: tzinfo | None = None,
    zone: tzinfo | None = None,
    force: bool = False,
    on_bad: Callable[[BadLine], object] | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Report:
    """
    Write what is in the log at *log* as one HTML page, and return what was written.

    The page needs nothing but a browser: no network, no other file. Whatever models answered is shown as text.

    Args:
        log: Its base name; without it ``AI_RESPONSES_FILE``, then the default place.
        out: The page's name. Only its owner may read it (mode 0600).
        title: Its heading; the log's name unless told.
        filters: Only these records.
        assume_timezone: Of the local times in older lines that have no ``unix_timestamp``.
        zone: In which times are shown; the machine's unless told.
        force: Replace what is there.
        on_bad: Called with each line, and each journal, that cannot be read.
        on_progress: Called now and then with the number of records read.

    Raises:
        LogReadError: There is no such log, or it cannot be read.
        ConfigError: *out* is there already, or cannot be written.
        OutputError: The disk is full, or refuses; *out* is as it was.

    Durability: The page has its name only when all of it is on the disk.
    Memory: 16 bytes a call, the cells of all runs, and 80 million characters of texts at most.

    .. versionadded:: 0.1.0
    """
    path, out = default_log_path(log), os.fspath(out)
    refuse_existing(out, force=force)
    # Before the log is read, which may take long: a place that cannot be written is known at once.
    with Output(out, replace=force) as output:
        bad_lines = _Noted(on_bad)
        now = datetime.now(zone).astimezone(zone)
        offset = now.utcoffset()
        offset_s = int(offset.total_seconds()) if offset else 0
        records = read_log(path, on_bad=bad_lines, filters=filters, assume_timezone=assume_timezone)
        calls = ChosenCalls(functools.partial(_whole, log=path))
        data = gather(_counted(records, on_progress), offset_s=offset_s, calls=calls)
        title = title or f"AI responses: {os.path.basename(path)}"
        head = {
            "title": title,
            "log": path,
            "filters": _said(filters),
            "made_s": now.timestamp(),
            "offset_s": offset_s,
            "version": __version__,
            "bad_lines": bad_lines.count,
        }
        output.write(page_of(head | data, title=title).encode())
        output.finish()
        output.take_name()
    return Report(out, output.size, data["records"], len(data["calls"]["calls"]), bad_lines.count)


class _Noted:
    """Counts bad lines on their way to whoever wants to hear of them."""

    def __init__(self, tell: Callable[[BadLine], object] | None) -> None:
        self._tell, self.count = tell, 0

    def __call__(self, bad: BadLine) -> None:
        self.count += bad.line > 0
        if self._tell is not None:
            self._tell(bad)


def _counted(
    records: Iterable[Mapping[str, Any]], on_progress: Callable[[int], object] | None
) -> Iterator[Mapping[str, Any]]:
    for count, record in enumerate(records, 1):
        if on_progress is not None and count % 1_000 == 0:
            on_progress(count)
        yield record


def _whole(record: Mapping[str, Any], *, log: str) -> Mapping[str, Any]:
    """Return *record* with its large texts; one that may not be read is shown as the mark that stands for it."""
    try:
        return bring_back(record, log)
    except LogReadError:
        return record


def _said(filters: Filters | None) -> dict[str, Any]:
    """Return what was asked of the records, as the page tells it."""
    if filters is None:
        return {}
    asked = {name: getattr(filters, name) for name in Filters.__dataclass_fields__}
    asked["grep"] = filters.grep and filters.grep.pattern
    return {name: value for name, value in asked.items() if value not in {None, False}}
