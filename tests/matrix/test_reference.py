"""docs/reference/matrix.md says what the package has, and its example is a plan that runs."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from helpers import ROOT

from ai_response_logging import matrix
from ai_response_logging.testing import LocalModelServer

PAGE = (ROOT / "docs/reference/matrix.md").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference():
    """What the package offers is described there."""
    assert [name for name in matrix.__all__ if f"`{name}" not in PAGE and f"await {name}" not in PAGE] == []


def test_every_argument_of_a_run_is_in_the_reference_and_no_other():
    """The table and the functions say the same."""
    table = PAGE.split("## Arguments of a run")[1].split("\n## ")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    run, run_async = (set(inspect.signature(each).parameters) for each in (matrix.run_plan, matrix.run_plan_async))

    assert described == run - {"plan"}
    assert run - run_async == {"on_drain"}
    assert set(inspect.signature(matrix.estimate_plan).parameters) == {
        "plan", "filename", "execution_id", "resume", "retry_failed",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [matrix.CellDone, matrix.Estimate, matrix.PlatformEstimate, matrix.LostWorker])
def test_every_attribute_of_what_comes_back_is_in_the_reference(kind: type):
    """A figure that nobody describes is one nobody uses."""
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind.__name__}` |")]

    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in row] == []


def test_example_runs(log_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the page shows can be pasted into a file and run; here in this process, at our own server."""
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(log_path.parent)
    with LocalModelServer() as server:
        example = example.replace("http://127.0.0.1:8000/v1", server.base_url).replace("processes=2", "processes=1")
        exec(compile(example, "example", "exec"), {"__name__": "__main__"})  # noqa: S102  # our own documentation

    assert capsys.readouterr().out.split() == ["1", "of", "1"]
    assert server.requests[0].question == "Is Acme better than Bolt, Comet?"
