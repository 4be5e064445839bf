"""No loop goes back under a lock where an exception from outside would leave that lock held."""

from __future__ import annotations

import dis
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import pytest

import ai_response_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

# Those whose `with` blocks are locks that others wait for.
NAMES = ("_queue", "_kept", "_journal", "_journal_files", "_group_sync", "_lock", "_pipeline", "writer")


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and all that is defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def unguarded(code: CodeType) -> list[int]:
    """Return the lines at which a loop goes back outside of what guards its begin: there a signal handler may raise."""
    if not any(one.opname in {"BEFORE_WITH", "LOAD_SPECIAL"} for one in dis.get_instructions(code)):
        return []  # no `with`
    guards = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def is_guarded(offset: int) -> bool:
        return any(guard.start <= offset < guard.end for guard in guards)

    return [
        one.positions.lineno or 0 if one.positions else 0
        for one in dis.get_instructions(code)
        if one.opname.startswith("JUMP_BACKWARD") and not is_guarded(one.offset) and is_guarded(one.argval)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_loop_goes_back_unguarded(name: str) -> None:
    """On 3.13 a signal handler's exception at the end of a round of `for` left the queue's lock held for good."""
    file = Path(ai_response_logging.__file__).with_name(f"{name}.py")
    whole = compile(file.read_text(encoding="utf-8"), file, "exec")
    assert {code.co_qualname: lines for code in codes(whole) if (lines := unguarded(code))} == {}
