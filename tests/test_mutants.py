"""The list of mutants is true: each can be made in the code as it is, and names a test that is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

import ai_response_logging


@pytest.fixture(scope="module")
def mutants() -> Any:
    """Return `.ci/mutants.py` as a module; a wheel is tested without it."""
    script = ROOT / ".ci" / "mutants.py"
    if not script.is_file() or Path(ai_response_logging.__file__).parent.parent != ROOT:
        pytest.skip("the package's sources are not beside the tests")
    spec = importlib.util.spec_from_file_location("mutants", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["mutants"]


def test_each_guarantee_can_still_be_broken_and_has_its_test(mutants: Any):
    """A change that makes a pair stale is noticed at once, not when the mutants run next."""
    assert not mutants.complaints(ROOT), "make these pairs of .ci/mutants.py true again"


def test_each_pair_is_there_once(mutants: Any):
    """One guarantee is broken in one way once, or one of two pairs proves nothing."""
    made = [(mutant.file, mutant.old, mutant.new) for mutant in mutants.MUTANTS]

    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file": "nowhere.py"}, "its file is not there"),
        ({"old": "no such text"}, "stands 0 times"),
        ({"old": "line"}, "stands 2 times"),
        ({"new": "one = "}, "changes nothing"),
        ({"tests": "tests/nowhere.py::test_it"}, "the file of its test is not there"),
        ({"tests": "tests/test_one.py::test_i"}, "its test is not there"),
    ],
)
def test_stale_pair_is_noticed(mutants: Any, tmp_path: Path, change: dict[str, str], says: str):
    """Whatever makes a pair show nothing is said, with the pair."""
    code, tests = tmp_path / mutants.PACKAGE, tmp_path / "tests"
    code.mkdir()
    tests.mkdir()
    (code / "code.py").write_text("one = 'line'\nother = 'line'\n", "utf-8")
    (tests / "test_one.py").write_text("\ndef test_it(): pass\n", "utf-8")
    pair = mutants.Mutant("a promise", "code.py", "one = ", "one = not ", "tests/test_one.py::test_it[case]")
    assert mutants.complaints(tmp_path, [pair]) == []

    [complaint] = mutants.complaints(tmp_path, [pair._replace(**change)])

    assert says in complaint
    assert "a promise" in complaint
