from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import plan_of, plan_schema
from ai_response_logging.matrix.schema import SCHEMA_FILE, made_schema

VALIDATOR = jsonschema.Draft202012Validator(json.loads(Path(SCHEMA_FILE).read_text("utf-8")))
WHOLE: dict[str, Any] = {
    "questions": ["why?", {"text": "how?", "brand": "B", "competitors": ["X", "Y"], "industry": None}],
    "models": [
        {
            "platform": "p", "model": "m", "base_url": "https://api.example.com/v1", "api_key_env": "KEY",
            "temperature": 0.5, "top_p": 1, "max_tokens": 100, "seed": -1, "stop": ["END"],
            "extra_body": {"enable_thinking": False}, "timeout_seconds": 5, "max_retries": 0,
        },
        {"platform": "q", "model": "n", "base_url": "http://[::1]:8000", "stop": "END"},
    ],
    "system": "be short", "brand": "A", "competitors": "C", "industry": "phones", "question_category": "basics",
    "concurrency": 3, "timeout_seconds": 0.5, "max_retries": 2, "placeholders": False,
    "platforms": {"p": {"concurrency": 2, "calls_per_minute": 60, "tokens_per_minute": 1000}, "q": {}},
    "budget": {"max_calls": 10, "max_tokens": 1000},
}  # fmt: skip
# Around the edges of every range, and every type that a YAML file can hold; 8.0 is a whole number to JSON Schema alone.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 100, 101, 10_000, 10_001, 10**7, 10**7 + 1, 86_400, 86_401, 10**6, 10**6 + 1,
    10**9, 10**9 + 1, 10**12, 10**12 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 0.5, 1.5, 2.5, 1e-4, "", " ", "a",
    "https://x.example/v1", "ftp://x", "localhost:8000", "http://", "http://a b", [], ["a"], ["a", ""], ["a", 1], {},
    {"a": 1}, {"text": "why?"}, {"text": ""}, {"platform": "p", "model": "m"}, {"max_calls": 1},
    {"p": {"concurrency": 1}}, [{"platform": "p", "model": "m"}], [{"text": "a"}, "b"],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything within *value*."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def with_value(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the whole plan with *value* at *path*."""
    plan = copy.deepcopy(WHOLE)
    inner: Any = plan
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return plan


def is_loaded(plan: object) -> bool:
    """Say whether the loader takes it."""
    try:
        plan_of(plan)
    except ConfigError:
        return False
    return True


def test_shipped_schema_is_what_the_checks_make():
    """The file in the package is printed from the loader's own checks; `python tests/matrix/test_schema.py` does it."""
    jsonschema.Draft202012Validator.check_schema(plan_schema())

    assert plan_schema() == made_schema()


def test_whole_plan_is_one_to_both():
    """A plan with every key passes the loader and the schema."""
    assert is_loaded(WHOLE)
    VALIDATOR.validate(WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("path", list(places(WHOLE)), ids=lambda path: ".".join(map(str, path)))
def test_schema_and_loader_agree_on_every_value_at_every_place(path: tuple[Any, ...]):
    """What one takes, the other takes, whatever stands at whatever key."""
    differ = []
    for value in VALUES:
        plan = with_value(path, value)
        if knows_more(path, value):
            assert not is_loaded(plan)
        elif VALIDATOR.is_valid(plan) is not is_loaded(plan):
            differ.append((value, is_loaded(plan)))

    assert differ == []


def knows_more(path: tuple[Any, ...], value: Any) -> bool:
    """Say whether only the loader can know: a platform's limits beside the models that are of it, or not."""
    if path in {("models", 0, "platform"), ("models", 1, "platform")}:
        return isinstance(value, str) and bool(value.strip())
    one = {"platform": "p", "model": "m"}
    return (path, value) in [(("models",), [one]), (("models", 1), one)]


@pytest.mark.parametrize("key", [(), ("questions", 1), ("models", 0), ("platforms", "p"), ("budget",)])
def test_unknown_key_is_refused_by_both(key: tuple[Any, ...]):
    """A slip is seen in the editor, before anything runs."""
    plan = with_value((*key, "colour"), "red")

    assert not VALIDATOR.is_valid(plan)
    assert not is_loaded(plan)


@pytest.mark.parametrize(
    "path", [("questions",), ("models",), ("questions", 1, "text"), ("models", 0, "platform"), ("models", 0, "model")]
)
def test_missing_key_is_refused_by_both(path: tuple[Any, ...]):
    """What a plan needs, both know."""
    plan = with_value(path, None)
    inner: Any = plan
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]

    assert not VALIDATOR.is_valid(plan)
    assert not is_loaded(plan)


def test_questions_and_a_file_of_them_are_refused_by_both():
    """One of the two."""
    both = {**WHOLE, "questions_file": "q.txt"}

    assert not VALIDATOR.is_valid(both)
    assert not is_loaded(both)


@pytest.mark.slow
@given(
    st.recursive(
        st.sampled_from([each for each in VALUES if not isinstance(each, list | dict)]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["questions", "models", "text", "platform", "model", "budget"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_loader_takes_nothing_that_the_schema_refuses(content: Any):
    """An editor never marks a plan that runs."""
    if is_loaded(content):
        VALIDATOR.validate(content)


if __name__ == "__main__":
    Path(SCHEMA_FILE).write_text(json.dumps(made_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")
