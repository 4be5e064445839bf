from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import Budget, ModelSpec, Plan, PlatformLimits, Question, load_plan, plan_of
from ai_response_logging.matrix.load import QUESTIONS_FILE
from ai_response_logging.matrix.plan import PLACEHOLDER_KEY, api_key_of, check_keys

FULL = """
system: be short
brand: Acme
industry: phones
concurrency: 3
timeout_seconds: 12.5
max_retries: 0
questions:
  - why?
  - text: how?
    brand: Other
    question_category: howto
models:
  - platform: DeepSeek
    model: deepseek-chat
    base_url: https://api.example.com/v1
    api_key_env: SOME_KEY
    temperature: 0.5
    top_p: 0.9
    max_tokens: 100
    seed: 7
    stop: END
    extra_body: {enable_thinking: false}
    timeout_seconds: 5
    max_retries: 4
  - {platform: local, model: tiny, base_url: "http://127.0.0.1:8000/v1", seed: }
"""


def minimal(**changes: Any) -> dict[str, Any]:
    """Return the smallest plan as a file would hold it, changed at the top."""
    return {"questions": ["why?"], "models": [{"platform": "p", "model": "m"}], **changes}


def model_with(**changes: Any) -> dict[str, Any]:
    """Return a plan whose one model is changed."""
    return minimal(models=[{"platform": "p", "model": "m", **changes}])


def test_whole_file_becomes_the_plan_it_says(tmp_path: Path):
    """Every documented key arrives, and what a question or model leaves out is the plan's."""
    file = tmp_path / "plan.yaml"
    file.write_text(FULL, encoding="utf-8")

    plan = load_plan(file)

    assert plan.cell_count == 4
    assert plan.question(1) == Question("why?", brand="Acme", industry="phones")
    assert plan.question(2) == Question("how?", brand="Other", industry="phones", question_category="howto")
    assert plan.limits(1) == (5, 4)
    assert plan.limits(2) == (12.5, 0)
    assert plan.models[0] == ModelSpec(
        "DeepSeek", "deepseek-chat", "https://api.example.com/v1", "SOME_KEY",
        temperature=0.5, top_p=0.9, max_tokens=100, seed=7, stop=("END",), extra_body={"enable_thinking": False},
        timeout_seconds=5, max_retries=4,
    )  # fmt: skip
    assert plan.models[1].seed is None
    assert (plan.system, plan.concurrency) == ("be short", 3)


def test_plan_survives_the_way_into_another_process():
    """A plan pickles, since workers get it so."""
    plan = Plan(["why?"], [ModelSpec("p", "m", stop=["a", "b"])])

    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301  # our own bytes


@pytest.mark.parametrize(
    ("content", "where", "says"),
    [
        (None, "file.yaml", "a mapping"),
        ([], "file.yaml", "a mapping"),
        ({"models": []}, "questions in file.yaml", "questions is missing"),
        (minimal(questions=None), "questions in file.yaml", "questions is missing"),
        (minimal(questions=[]), "questions in file.yaml", "at least one"),
        (minimal(questions="why?"), "questions in file.yaml", "must be a list"),
        (minimal(questions=["a", 42]), "questions[1] in file.yaml", "got 42"),
        (minimal(questions=["a", " "]), "questions[1] in file.yaml", "must be a text"),
        (minimal(questions=[{"txt": "a"}]), "questions[0].txt in file.yaml", "did you mean text"),
        (minimal(questions=[{"text": ""}]), "questions[0].text in file.yaml", "not empty"),
        (minimal(models={}), "models in file.yaml", "must be a list"),
        (minimal(models=["gpt"]), "models[0] in file.yaml", "a mapping"),
        (minimal(models=[{"platform": "p"}]), "models[0].model in file.yaml", "model is missing"),
        (minimal(concurency=1), "concurency in file.yaml", "did you mean concurrency"),
        (minimal(concurrency=0), "concurrency in file.yaml", "from 1 to 10000, got 0"),
        (minimal(concurrency=True), "concurrency in file.yaml", "got True"),
        (minimal(concurrency="8"), "concurrency in file.yaml", "got '8'"),
        (minimal(timeout_seconds=0), "timeout_seconds in file.yaml", "seconds, got 0"),
        (minimal(timeout_seconds=float("nan")), "timeout_seconds in file.yaml", "got nan"),
        (minimal(max_retries=1.5), "max_retries in file.yaml", "got 1.5"),
        (minimal(brand=["a"]), "brand in file.yaml", "must be a text"),
        (model_with(temperature="hot"), "models[0].temperature in file.yaml", "from 0 to 2, got 'hot'"),
        (model_with(top_p=2), "models[0].top_p in file.yaml", "from 0 to 1, got 2"),
        (model_with(max_tokens=0), "models[0].max_tokens in file.yaml", "got 0"),
        (model_with(base_url="localhost:8000"), "models[0].base_url in file.yaml", "http or https"),
        (model_with(base_url="http://"), "models[0].base_url in file.yaml", "http or https"),
        (model_with(stop=[]), "models[0].stop in file.yaml", "list of texts"),
        (model_with(stop=[1]), "models[0].stop[0] in file.yaml", "got 1"),
        (model_with(extra_body=[1]), "models[0].extra_body in file.yaml", "mapping"),
        (model_with(api_key="sk-x"), "models[0].api_key in file.yaml", "name that as api_key_env"),
    ],
)
def test_wrong_plan_is_refused_with_the_keys_full_path(content: Any, where: str, says: str):
    """A complaint names where the key stands, what was found and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        plan_of(content, source="file.yaml")

    assert caught.value.where == where
    assert says in caught.value.problem


def test_key_in_a_plan_is_not_repeated_in_the_complaint():
    """A key that was put into the plan by mistake does not end in a terminal or a bug report."""
    with pytest.raises(ConfigError) as caught:
        plan_of(model_with(api_key="sk-very-secret"))

    assert "sk-very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"), [(b"a: [", "is no YAML"), (b"\xff\xfe\x00", "cannot be read"), (None, "cannot be read")]
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, says: str):
    """A missing, binary or broken file is a complaint with its name, not a traceback of another library."""
    file = tmp_path / "plan.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=says) as caught:
        load_plan(file)

    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: Plan([], [ModelSpec("p", "m")]), "questions"),
        (lambda: Plan("why?", [ModelSpec("p", "m")]), "questions"),
        (lambda: Plan([3], [ModelSpec("p", "m")]), r"questions\[0\]"),  # type: ignore[list-item]
        (lambda: Plan([""], [ModelSpec("p", "m")]), r"questions\[0\]"),
        (lambda: Plan(["a"], [{"platform": "p"}]), r"models\[0\]"),  # type: ignore[list-item]
        (lambda: Plan(["a"], [ModelSpec("p", "m")], concurrency=None), "concurrency"),  # type: ignore[arg-type]
        (lambda: ModelSpec("p", ""), "model"),
        (lambda: Question(None), "text"),  # type: ignore[arg-type]
    ],
)
def test_plan_made_in_code_is_checked_as_well(make: Any, where: str):
    """What a file may not say, code may not either."""
    with pytest.raises(ConfigError, match=where):
        make()


@pytest.mark.parametrize(
    ("base_url", "is_local"),
    [
        ("http://127.0.0.1:1/v1", True), ("http://localhost/v1", True), ("http://[::1]:9/v1", True),
        ("http://127.8.9.1/v1", True), ("http://10.0.0.1/v1", False), ("https://localhost.example.com/v1", False),
        (None, False),
    ],
)  # fmt: skip
def test_only_loopback_counts_as_local(base_url: str | None, is_local: bool):
    """A placeholder key goes to this machine alone."""
    assert ModelSpec("p", "m", base_url).is_local is is_local


def test_key_comes_from_the_variable_that_the_plan_names():
    """The named variable, the SDK's own for its own endpoint, and a placeholder for this machine."""
    environ = {"MINE": " sk-1\n", "OPENAI_API_KEY": "sk-2"}

    assert api_key_of(ModelSpec("p", "m", "https://x.example/v1", "MINE"), environ) == "sk-1"
    assert api_key_of(ModelSpec("p", "m"), environ) == "sk-2"
    assert api_key_of(ModelSpec("p", "m", "http://localhost/v1"), environ) == PLACEHOLDER_KEY
    assert api_key_of(ModelSpec("p", "m", "http://localhost/v1", "MINE"), environ) == "sk-1"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (ModelSpec("p", "m", "https://x.example/v1", "MINE"), "MINE is not set"),
        (ModelSpec("p", "m", "http://localhost/v1", "MINE"), "MINE is not set"),
        (ModelSpec("p", "m"), "OPENAI_API_KEY is not set"),
        (ModelSpec("p", "m", "https://x.example/v1"), "api_key_env is missing"),
    ],
)
def test_model_without_its_key_is_refused_with_its_path(spec: ModelSpec, says: str):
    """The complaint names the variable and the place in the plan."""
    plan = Plan(["a"], [ModelSpec("local", "m", "http://127.0.0.1/v1"), spec])

    with pytest.raises(ConfigError, match=says) as caught:
        check_keys(plan, {"MINE": ""})

    assert caught.value.where == "models[1].api_key_env"


@pytest.mark.parametrize("page", ["how-to/run-a-matrix.md", "reference/plan.md"])
def test_every_plan_in_the_docs_is_one(page: str, tmp_path: Path):
    """What the docs show as a plan can be pasted into a file and run."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)

    (tmp_path / "questions.csv").write_text("text\nIs {brandName} good?\n", "utf-8")
    assert blocks
    for block in blocks:
        content = yaml.safe_load(block)
        if QUESTIONS_FILE in content:
            assert plan_of({"brand": "A", **content}, folder=str(tmp_path)).cell_count == 1
        else:
            assert plan_of(content).cell_count == 4


PAGE = (ROOT / "docs/reference/plan.md").read_text(encoding="utf-8")


def keys_in(section: str) -> set[str]:
    """Return the keys that the tables of a section of the reference describe."""
    found = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, section
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", found[1].split("\n### ")[0], re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("Top level", Plan),
        ("A question", Question),
        ("A model", ModelSpec),
        ("Limits of a platform", PlatformLimits),
        ("Budget", Budget),
    ],
)
def test_reference_has_exactly_the_keys_that_the_loader_takes(section: str, kind: type[Any]):
    """No key that the loader takes is missing in the reference, and none is there that it refuses."""
    taken = {field.name for field in dataclasses.fields(kind) if field.init}
    taken |= {QUESTIONS_FILE} if kind is Plan else set()

    assert keys_in(section) == taken
