"""
Which SQL may be asked: one question, which changes nothing; as DuckDB's own parser sees it.

A statement that begins with SELECT or WITH can still write: in DuckDB 2 the body of a WITH may be an INSERT, DELETE,
UPDATE or COPY ... TO, and the path of a file that may be read may then be written, too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..errors import QueryError

if TYPE_CHECKING:
    import duckdb

__all__ = ["check_query"]

# Every other kind of node (COPY_QUERY_NODE, INSERT_QUERY_NODE, ... and what later versions bring) is refused.
_READING: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})


def check_query(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """
    Let a query through that only asks.

    Raises:
        QueryError: It is not one SELECT, or something within it writes; nothing was run.
    """
    import duckdb

    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise QueryError(f"one SELECT is what can be asked, and this is {kinds}; nothing was run")
        [(serialized,)] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    tree = json.loads(serialized)
    if tree.get("error"):
        raise QueryError(f"{tree.get('error_message', 'it cannot be looked into')}; nothing was run")
    strange = _node_types(tree) - _READING
    if strange:
        raise QueryError(f"a query may not write, and this has {', '.join(sorted(strange))}; nothing was run")


def _node_types(tree: Any) -> set[str]:
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind.endswith("_NODE"):
                found.add(kind)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found
