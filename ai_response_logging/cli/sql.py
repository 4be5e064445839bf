"""``ai-responses sql``: one question to the log as the table ``records``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._console import FileOption, JsonOption, console, plain, print_json, print_line
from ._reading import bad_lines_noted

if TYPE_CHECKING:
    import duckdb

__all__ = ["sql"]

_MOST_ROWS: Final = 1000

Query = Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT over the table `records`.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a heading instead of a table.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="KEY", help="A key of your own as a further column of type JSON; repeatable."),
]


def sql(
    query: Query,
    *,
    file: FileOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    column: ColumnOption = None,
) -> None:
    """
    Ask the log one question in SQL (DuckDB's).

    The table `records` has a row for each record, of whatever shape; times are UTC. Only reads: a question that would
    write, or read another file, is refused. Needs the extra `analysis`.

    Example: ai-responses sql "SELECT model, count(*) FROM records GROUP BY model"
    """
    from ..analysis import open_log

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv cannot be had at once", param_hint="--csv")
    with open_log(file, columns=column or ()) as log:
        relation = log.sql(query)
        with bad_lines_noted(log.path) as note:
            for bad in log.bad_lines:
                note(bad)
        rows = _rows_of(relation)
        if as_json:
            print_json([dict(zip(relation.columns, map(_as_json, row), strict=True)) for row in rows])
        elif as_csv:
            _print_csv(relation.columns, rows)
        else:
            _print_table(relation.columns, rows)


def _rows_of(relation: duckdb.DuckDBPyRelation) -> Iterator[tuple[Any, ...]]:
    import duckdb

    from ..errors import QueryError

    try:
        yield from relation.fetchall()
    except duckdb.Error as error:  # what only shows with the data: a cast, the memory's limit
        raise QueryError(str(error)) from error


def _as_json(value: Any) -> Any:
    """Return a value as JSON has it; times as ISO 8601, what has no form of its own as text."""
    if isinstance(value, str | int | float | bool | None):
        return value if value == value and value not in {float("inf"), float("-inf")} else str(value)  # noqa: PLR0124  NaN
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _print_csv(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else _as_json(value) for value in row] for row in rows)


def _print_table(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(plain(name), overflow="fold")
    count = 0
    for count, row in enumerate(rows, 1):
        if count <= _MOST_ROWS:
            table.add_row(*("-" if value is None else plain(str(_as_json(value))) for value in row))
    console().print(table)
    if count > _MOST_ROWS:
        print_line(f"and {count - _MOST_ROWS:,} more rows: --json and --csv have all")
