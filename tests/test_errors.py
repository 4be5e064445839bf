from __future__ import annotations

import builtins
import errno
import pickle
import re

import pytest

from ai_response_logging import errors
from ai_response_logging.errors import (
    AIResponseLoggingError,
    AppendError,
    ConfigError,
    ConfigWarning,
    DurabilityWarning,
    LockTimeoutError,
    LogPathError,
    LogReadError,
    MissingExtraError,
    OutputError,
    QueryError,
    RefusedError,
    WriteError,
)

# One of each, with what its text must say.
EXAMPLES: list[tuple[Exception, tuple[str, ...]]] = [
    (AIResponseLoggingError("something"), ("something",)),
    (ConfigError("batch_size must be 1 or more, got 0", "handlers.ai.batch_size"), ("got 0", "handlers.ai.batch_size")),
    (MissingExtraError("openai", "demo"), ("openai", "pip install", "ai-response-logging[demo]")),
    (WriteError("the file refuses"), ("the file refuses",)),
    (AppendError("ai.jsonl", errno.ENOSPC, 4, 8), ("ai.jsonl", "4 of 8", f"errno {errno.ENOSPC}", "No space left")),
    (LockTimeoutError("ai.jsonl", 5.04, "pid 4711"), ("ai.jsonl", "5.0 s", "held by pid 4711")),
    (LogPathError("ai.jsonl", "a FIFO"), ("ai.jsonl", "a FIFO", "nothing was written")),
    (
        RefusedError("ai.jsonl", "the queue is full", "id-1"),
        ("ai.jsonl", "the queue is full", "id-1", "not in the log"),
    ),
    (QueryError("syntax error\nLINE 1: SELEC"), ("LINE 1", "syntax error")),
    (LogReadError("ai.jsonl", "it is a directory"), ("ai.jsonl", "it is a directory")),
    (OutputError("out.jsonl", "No space left on device"), ("out.jsonl", "No space left", "no half file", "untouched")),
    (DurabilityWarning("no journal"), ("no journal",)),
    (ConfigWarning("not yet"), ("not yet",)),
]
each_error = pytest.mark.parametrize(("error", "says"), EXAMPLES, ids=[type(error).__name__ for error, _ in EXAMPLES])


def own_classes() -> set[type]:
    """Return every class that errors.py defines."""
    return {one for one in vars(errors).values() if isinstance(one, type) and one.__module__ == errors.__name__}


def drawn_bases() -> dict[str, set[str]]:
    """Read the docstring's drawing: each class with its bases, those in brackets included."""
    drawing, bases = [], {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([ │├└─]*)([A-Z]\w+)(?: +\((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            drawing[depth:] = [found[2]]
            bases[found[2]] = {*drawing[depth - 1 : depth], *filter(None, [found[3]])}
    return bases


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@each_error
def test_an_error_sent_to_another_process_keeps_its_facts_and_its_text(
    error: Exception, says: tuple[str, ...], protocol: int
) -> None:
    """Pickling loses nothing: class, attributes and text are the same on the other side."""
    arrived = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  our own bytes

    assert (type(arrived), vars(arrived), arrived.args) == (type(error), vars(error), error.args)
    assert str(arrived) == str(error)
    assert says


@each_error
def test_an_error_names_every_fact_it_holds(error: Exception, says: tuple[str, ...]) -> None:
    """The text says what, where and which; nobody has to look into the attributes."""
    assert [fact for fact in says if fact not in str(error)] == []


def test_every_error_has_its_example_here() -> None:
    """No class can join errors.py without being pickled above."""
    assert {type(error) for error, _ in EXAMPLES} == own_classes()


def test_the_tree_is_as_drawn() -> None:
    """The drawing in the docstring is the inheritance, nothing missing and nothing invented."""
    drawn = drawn_bases()
    real = {one.__name__: {base.__name__ for base in one.__bases__} for one in own_classes()}
    built_in = {name: set() for name in drawn if hasattr(builtins, name)}

    assert {name: bases for name, bases in drawn.items() if name not in built_in} | {
        "AIResponseLoggingError": {"Exception"}
    } == real
    assert built_in.keys() == {"Warning", "UserWarning"}


@pytest.mark.parametrize(
    "error",
    [ConfigError("wrong"), LockTimeoutError("ai.jsonl", 1.0), RefusedError("ai.jsonl", "full")],
    ids=lambda error: type(error).__name__,
)
def test_a_fact_that_is_not_known_leaves_no_hole_in_the_text(error: Exception) -> None:
    """Where the key, the holder or the id is unknown, the text does not promise one."""
    assert "under ;" not in f"{error};"
    assert "held by" not in str(error)
    assert "record  was" not in str(error)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ConfigError("x"), ValueError), (MissingExtraError("x", "y"), ImportError)]
)
def test_an_error_is_caught_by_those_who_catch_the_builtin(ours: Exception, theirs: type[Exception]) -> None:
    """Code that catches the builtin people expect catches ours."""
    with pytest.raises(theirs):
        raise ours
