"""
A log as one typed table, and the questions it is asked most.

::

    from ai_response_logging.analysis import open_log

    with open_log("data/ai_responses/ai_responses.jsonl") as log:
        log.summary(by="model").show()
        log.sql("SELECT question FROM records WHERE error_type = 'timeout'").df()

Needs the extra ``analysis`` (DuckDB), but for :func:`stats`, which counts record by record without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timezone
from importlib.util import find_spec
from typing import Any

from ..filters import Filters
from ..reader import BadLine, StrPath, read_log
from ._columns import COLUMNS, Column
from ._figures import Tally, figures
from ._questions import wanted_fields
from .log import DEFAULT_BY, Log, open_log

__all__ = ["COLUMNS", "Column", "Log", "open_log", "stats"]


def stats(
    path: StrPath | None = None,
    *,
    by: Sequence[str] = DEFAULT_BY,
    filters: Filters | None = None,
    assume_timezone: timezone | None = None,
    on_bad: Callable[[BadLine], object] | None = None,
    with_duckdb: bool | None = None,
) -> dict[str, Any]:
    """
    Return the figures of ``ai-responses stats --json``: of all calls, and of each group of them.

    ``{"records", "succeeded", "failed", "bad_lines", "groups": [{*by, "records", "succeeded", "failed",
    "success_rate" (0 to 1), "latency_ms": {"p50", "p95", "p99"}, "tokens"}]}``; percentiles are exact, interpolated,
    rounded to 3 digits, and None where no call has a latency.

    Without DuckDB, and where *filters* have a regular expression, the log is read record by record: slower, with the
    same figures. Memory, then: 8 bytes a call.

    Args:
        path: The log's base name; without it ``AI_RESPONSES_FILE``, then the default place.
        by: Fields to group by.
        filters: Only these records.
        assume_timezone: Of the local times in older lines that have no ``unix_timestamp``.
        on_bad: Called with each line, and each journal, that cannot be read.
        with_duckdb: Whether to use it; None where it is there.

    Raises:
        LogReadError: There is no such log, or it cannot be read.
        MissingExtraError: DuckDB is asked for, and not installed.
        ValueError: A field is none to group by.

    .. versionadded:: 0.1.0
    """
    by = wanted_fields(by)
    tell = on_bad or _ignore
    has_pattern = filters is not None and filters.grep is not None
    if with_duckdb or (with_duckdb is None and not has_pattern and find_spec("duckdb") is not None):
        with open_log(path, assume_timezone=assume_timezone) as log:
            found = log.figures(by, filters)
            for bad in log.bad_lines:
                tell(bad)
        return found
    count = 0

    def note(bad: BadLine) -> None:
        nonlocal count
        count += bad.line > 0
        tell(bad)

    tally = Tally(by)
    for record in read_log(path, on_bad=note, filters=filters, assume_timezone=assume_timezone):
        tally.add(record)
    return figures(by, tally.groups(), count)


def _ignore(_bad: BadLine) -> None:
    """Say nothing of a bad line."""
