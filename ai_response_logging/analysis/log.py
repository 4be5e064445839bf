"""One log as a table: DuckDB over every shape of line, every file, and what is still in journals."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import timezone
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import LogReadError, QueryError
from ..filters import Filters
from ..reader import BadLine, StrPath
from ..record import default_log_path
from . import _questions
from ._columns import lines_sql, read_sql
from ._database import connected, lock, require_duckdb
from ._figures import Group, figures
from ._guard import check_query
from ._sources import Sources

if TYPE_CHECKING:
    import duckdb

__all__ = ["DEFAULT_BY", "MEMORY_LIMIT", "Log", "open_log"]

DEFAULT_BY: Final = ("platform", "model")
MEMORY_LIMIT: Final = "384MB"
"""What DuckDB may hold, so that a process that reads 5 GB stays below 0.6 GB; more goes to a temporary folder."""

_MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # of one buffer, which grows for a longer line
_BAD_KEPT: Final = 1000


def open_log(
    path: StrPath | None = None,
    *,
    assume_timezone: timezone | None = None,
    columns: Sequence[str] = (),
    memory_limit: str = MEMORY_LIMIT,
    threads: int | None = None,
    locked: bool = True,
) -> Log:
    """
    Open the log at *path* as a table, ``records``: see :class:`Log`.

    Args:
        path: The log's base name; without it ``AI_RESPONSES_FILE``, then the default place.
        assume_timezone: Of the local times in older lines that have no ``unix_timestamp``: a fixed offset.
        columns: Further top-level keys of the records, as columns of type JSON.
        memory_limit: What DuckDB may hold, as it writes it (``384MB``); what is more goes to a temporary folder.
        threads: How many threads read; as many as there are processors, unless told.
        locked: Let no query touch any file but the log's own. False lets relations be written
            (``.write_parquet(...)``), and queries read and write whatever this process may.

    Raises:
        LogReadError: There is no such log, or it cannot be read.
        MissingExtraError: DuckDB is not installed.
        ValueError: A column is ours already.

    .. versionadded:: 0.1.0
    """
    return Log(
        path,
        assume_timezone=assume_timezone,
        columns=columns,
        memory_limit=memory_limit,
        threads=threads,
        locked=locked,
    )


class Log:
    """
    A log as the table ``records``: one row a record of any shape, doubled ones twice, in no order.

    Every question is answered by a relation of DuckDB's: ``.df()`` (pandas), ``.pl()`` (polars), ``.arrow()``
    (pyarrow), ``.fetchall()``, ``.show()``, or another question on top of it. ``docs/reference/analysis.md`` lists all
    columns with their units. Calls are records with the event ``response`` or ``tombstone``; one without ``success``
    counts as failed.

    Lines that cannot be read are in :attr:`bad_lines`, whole records glued to them are in the table. What is only in
    journals is, too, once. The first question that needs it reads the log once to find damage; what is appended to the
    live file afterwards may be seen by later questions.

    Nothing is written beside the log: a folder for temporary files is made where ``tempfile`` makes such, and removed
    by :meth:`close`. A context manager.

    Threads: One at a time.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        path: StrPath | None = None,
        *,
        assume_timezone: timezone | None = None,
        columns: Sequence[str] = (),
        memory_limit: str = MEMORY_LIMIT,
        threads: int | None = None,
        locked: bool = True,
    ) -> None:
        self.path = default_log_path(path)
        self._assumed_offset = None if assume_timezone is None else assume_timezone.utcoffset(None)
        self._columns = tuple(columns)
        self._memory_limit, self._threads, self._locked = memory_limit, threads, locked
        self._bad: list[BadLine] | None = None
        self._only_journalled: dict[tuple[str, int], bytes] = {}
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._folder = ""
        require_duckdb()
        self._sources = Sources(self.path)
        try:
            self._folder = tempfile.mkdtemp(prefix="ai-responses-")
            self._beside = os.path.join(self._folder, "beside.jsonl")
            self._write_beside([])
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the log's files, and remove what was put aside; relations end with it. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._sources.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- the table ------------------------------------------------------------------------------------------------

    @property
    def _duck(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise LogReadError(self.path, "it was closed")
        return self._connection

    def _begin(self) -> None:
        """Begin a database of nothing but views, locked."""
        self._connection = connected(self._memory_limit, self._threads, self._folder)
        self._places = self._sources.places()
        if self._locked:
            lock(self._connection, [*self._sources.plain, *self._sources.packed, self._beside])
        self._define()

    def _follow(self) -> None:
        """Begin anew where a file was renamed or removed: DuckDB allows files by their names, whatever it was told."""
        if self._connection is None:
            raise LogReadError(self.path, "it was closed")
        if self._places != self._sources.places():
            self._connection.close()
            self._begin()

    def _write_beside(self, lines: list[bytes]) -> None:
        with open(self._beside, "wb") as file:
            file.writelines(lines)

    def _define(self) -> None:
        """Say what ``records`` is."""
        parts = []
        for paths, is_compressed in ((self._sources.plain, False), (self._sources.packed, True)):
            if paths:
                parts.append(self._read(paths, compressed=is_compressed))
        if self._only_journalled:
            # What comes home meanwhile is shown once.
            self._note_journalled(self._only_journalled)
            parts = [
                f"SELECT * FROM ({part}) l ANTI JOIN _journalled j ON l.writer_id = j.writer_id "
                "AND TRY_CAST(CAST(l.seq AS VARCHAR) AS BIGINT) = j.seq"
                for part in parts
            ]
        parts.append(self._read([self._beside], compressed=False))
        lines = lines_sql(
            " UNION ALL ".join(f"({part})" for part in parts), assumed_offset=self._assumed_offset, extra=self._columns
        )
        self._duck.execute(f"CREATE OR REPLACE VIEW _lines AS {lines}")
        self._duck.execute("CREATE OR REPLACE VIEW records AS SELECT * EXCLUDE (is_record) FROM _lines WHERE is_record")

    def _read(self, paths: list[str], *, compressed: bool) -> str:
        return read_sql(paths, compressed=compressed, max_line_bytes=_MAX_LINE_BYTES, extra=self._columns)

    # --- damage and journals --------------------------------------------------------------------------------------

    @property
    def bad_lines(self) -> tuple[BadLine, ...]:
        """Every line that cannot be read, and every journal (its line is 0), each with its place and why."""
        self._settle()
        return (*self._sources.unread, *(self._bad or ()))

    def _settle(self) -> None:
        """Find what DuckDB does not see as it should, once, and put that right."""
        if self._bad is not None:
            return
        self._follow()
        if self._sources.journalled:
            self._find_journalled()
        rows, unreadable = self._count_rows()
        if self._has_damage(rows - len(self._only_journalled), unreadable):
            self._put_right()
        else:
            self._bad = []

    def _count_rows(self) -> tuple[int, int]:
        [(rows, unreadable)] = self._duck.execute(
            "SELECT count(*), count(*) FILTER (NOT is_record) FROM _lines"
        ).fetchall()
        return rows, unreadable

    def _has_damage(self, rows: int, unreadable: int) -> bool:
        """Whether there may be any: DuckDB gives a line that it cannot read as NULLs, and a blank one not at all."""
        return unreadable > 0 or rows < self._sources.count_lines()

    def _put_right(self) -> None:
        found = self._sources.find_damage()
        self._bad = found.bad
        for key, _ in found.lines:
            self._only_journalled.pop(key, None)  # it has arrived, glued to something
        self._write_beside([*self._only_journalled.values(), *(line for _, line in found.lines)])

    def _find_journalled(self) -> None:
        """Put beside the log what is only in journals."""
        journalled = {(line.writer_id, line.seq): line.line for line in self._sources.journalled}
        self._note_journalled(journalled)
        rows = self._duck.execute(
            "SELECT DISTINCT writer_id, seq FROM _lines SEMI JOIN _journalled USING (writer_id, seq)"
        ).fetchall()
        arrived = set(rows)
        self._only_journalled = {key: line for key, line in journalled.items() if key not in arrived}
        self._write_beside(list(self._only_journalled.values()))
        self._define()

    def _note_journalled(self, keys: Iterable[tuple[str, int]]) -> None:
        self._duck.execute("CREATE OR REPLACE TABLE _journalled (writer_id VARCHAR, seq BIGINT)")
        self._duck.executemany("INSERT INTO _journalled VALUES (?, ?)", [list(key) for key in keys])

    # --- questions ------------------------------------------------------------------------------------------------

    @property
    def records(self) -> duckdb.DuckDBPyRelation:
        """The table itself."""
        return self._ask("FROM records")

    def summary(self, by: str | Sequence[str] = DEFAULT_BY) -> duckdb.DuckDBPyRelation:
        """
        Return records, succeeded, failed, success_rate, latency_p50_ms, ..p95.., ..p99.., tokens of each group.

        Args:
            by: Fields that have few values; the calls are grouped by them.

        Raises:
            ValueError: A field is none of these.
        """
        return self._ask(_questions.summary(_questions.wanted_fields((by,) if isinstance(by, str) else by)))

    def matrix(self, execution_id: str) -> duckdb.DuckDBPyRelation:
        """
        Return a row for each cell of a run.

        Columns: question_index, platform, model, status, record_id, model_index, error_type. ``status`` is ``done``,
        ``failed`` or ``missing``; the newest answer counts.
        """
        return self._ask(_questions.matrix(execution_id))

    def errors(self) -> duckdb.DuckDBPyRelation:
        """
        Return failed calls by error_type, http_status_code, platform and model.

        With calls, first_timestamp, last_timestamp (UTC), last_record_id, last_error_message.
        """
        return self._ask(_questions.errors())

    def timeline(self, bucket: str = "1h") -> duckdb.DuckDBPyRelation:
        """
        Return the columns of :meth:`summary` for each span of time that has calls, from ``bucket`` on (UTC).

        Args:
            bucket: How long one is: 90s, 15m, 1h, 1d, 1w.

        Raises:
            ValueError: It is none.
        """
        return self._ask(_questions.timeline(bucket))

    def slowest(self, count: int = 20) -> duckdb.DuckDBPyRelation:
        """
        Return the calls that took longest, with the beginning of their question.

        Columns: latency_ms, record_id, timestamp (UTC), platform, model, success, tokens_used, error_type, question.
        """
        return self._ask(_questions.slowest(count))

    def duplicates(self) -> duckdb.DuckDBPyRelation:
        """Return every id that stands more than once: record_id, lines, first_timestamp, last_timestamp (UTC)."""
        return self._ask(_questions.duplicates())

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """
        Return the answer to one SELECT over ``records``.

        Nothing that writes is run, and while the log is locked (see :func:`open_log`) no other file is read. What is
        not prevented: a question that takes very long, or fills the temporary folder.

        Raises:
            QueryError: It is not one SELECT, or is not understood; its text has the place.
        """
        self._follow()
        check_query(self._duck, query)
        return self._ask(query)

    def _ask(self, query: str) -> duckdb.DuckDBPyRelation:
        import duckdb

        self._settle()
        self._follow()
        try:
            # A connection of its own: one relation may be half read while another is asked.
            return self._duck.cursor().sql(query)
        except duckdb.Error as error:
            raise QueryError(self._with_its_place(query, str(error))) from error

    def _with_its_place(self, query: str, complaint: str) -> str:
        """Return DuckDB's complaint with the place in the query, which it tells only who runs it."""
        import duckdb

        try:
            self._duck.cursor().execute(query)
        except duckdb.Error as error:
            return str(error)
        return complaint

    def figures(self, by: Sequence[str] = DEFAULT_BY, filters: Filters | None = None) -> dict[str, Any]:
        """
        Return the figures of ``ai-responses stats --json``.

        Raises:
            ValueError: A field is none to group by, or the filters ask for a regular expression.
        """
        by, where = _questions.wanted_fields(by), _questions.condition(filters or Filters())
        self._follow()
        if self._sources.journalled:
            self._settle()
        rows = self._group(by, where)
        if self._bad is None:
            # The first question looks for damage by the way, so that a log without any is read once.
            unreadable = sum(row["records"] for row in rows if not row["is_record"])
            if self._has_damage(sum(row["records"] for row in rows), unreadable):
                self._put_right()
                rows = self._group(by, where)
            else:
                self._bad = []
        groups = (
            Group(tuple(row[name] for name in by), row["records"], row["succeeded"], row["quantiles"], row["tokens"])
            for row in rows
            if row["is_call"]
        )
        return figures(by, groups, sum(one.line > 0 for one in self._bad or ()))

    def _group(self, by: Sequence[str], where: str) -> list[dict[str, Any]]:
        result = self._duck.execute(_questions.groups(by, where))
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
