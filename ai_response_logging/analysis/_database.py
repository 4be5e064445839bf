"""The DuckDB behind a log's table: what it may hold, and that it reads nothing but the log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from ._columns import literal

if TYPE_CHECKING:
    import duckdb

__all__ = ["connected", "lock", "require_duckdb"]


def require_duckdb() -> None:
    """
    Make sure that DuckDB is there, before anything is made for it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import duckdb  # noqa: F401  it is what is asked
    except ImportError as error:
        raise MissingExtraError("duckdb", "analysis") from error


def connected(memory_limit: str, threads: int | None, folder: str) -> duckdb.DuckDBPyConnection:
    """
    Return a database of its own in memory, with nothing in it; times are UTC.

    Args:
        memory_limit: What it may hold, as it writes it; what is more goes below *folder*.
        threads: How many read; as many as there are processors, unless told.
        folder: Where it may write.
    """
    import duckdb

    options: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": os.path.join(folder, "spill"),
        # Nothing is fetched or loaded behind the user's back, and no variable of the caller's becomes a table.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        # A log that grows is not read from what was cached of it, and its order is not worth the memory.
        "enable_external_file_cache": "false",
        "preserve_insertion_order": "false",
    }
    if threads is not None:
        options["threads"] = str(threads)
    connection = duckdb.connect(":memory:", config=options)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def lock(connection: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """Let nothing be read but the files at *paths*, nothing be loaded, and nothing of this be changed."""
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, paths))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
