from __future__ import annotations

from pathlib import Path

import pytest

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import load_plan

GOOD = """\
questions:
  - why?
  - text: how?
    brand: B
models:
  - platform: p
    model: m
    temperature: 0.5
  - {platform: q, model: n}
platforms:
  q: {concurrency: 2}
budget:
  max_calls: 5
"""


def refused(folder: Path, content: str | bytes) -> ConfigError:
    """Load a plan that cannot be, and return the complaint."""
    file = folder / "plan.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_plan(file)
    assert str(file) in str(caught.value)
    return caught.value


def test_plan_to_be_broken_is_whole(tmp_path: Path):
    """What the other tests break is a good plan."""
    (tmp_path / "plan.yaml").write_text(GOOD, "utf-8")

    plan = load_plan(tmp_path / "plan.yaml")

    assert (plan.cell_count, plan.limits_of("q").concurrency, plan.limits_of("p").concurrency) == (4, 2, None)
    assert plan.budget
    assert plan.budget.max_calls == 5


@pytest.mark.parametrize(
    ("old", "new", "path", "line"),
    [
        ("why?", "", "questions[0]", 2),
        ("brand: B", "brand: NO", "questions[1].brand", 4),
        ("brand: B", "colour: B", "questions[1].colour", 4),
        ("text: how?", "industry: x", "questions[1].text", 3),
        ("temperature: 0.5", "temperature: 5", "models[0].temperature", 8),
        ("{platform: q, model: n}", "{platform: q}", "models[1].model", 9),
        ("{platform: q, model: n}", "{platform: q, model: n, max_retries: -1}", "models[1].max_retries", 9),
        ("q: {concurrency: 2}", "r: {concurrency: 2}", "platforms.r", 11),
        ("{concurrency: 2}", "{concurrency: two}", "platforms.q.concurrency", 11),
        ("{concurrency: 2}", "2", "platforms.q", 11),
        ("max_calls: 5", "max_call: 5", "budget.max_call", 13),
        ("max_calls: 5", "max_calls: 0", "budget.max_calls", 13),
        ("how?", "is {brand} good?", "questions[1]", 3),
    ],
)
def test_complaint_names_the_keys_path_and_line(tmp_path: Path, old: str, new: str, path: str, line: int):
    """Whoever edits a plan finds the place at once."""
    error = refused(tmp_path, GOOD.replace(old, new, 1))

    assert error.where == f"{path} in {tmp_path / 'plan.yaml'}, line {line}"


def test_missing_key_at_the_top_has_no_line(tmp_path: Path):
    """What is nowhere in the file has no line in it."""
    assert refused(tmp_path, "questions: [why]").where == f"models in {tmp_path / 'plan.yaml'}"


def test_model_that_stands_twice_is_refused(tmp_path: Path):
    """The same model with the same settings would be paid for twice; with others it is another column."""
    twice = GOOD.replace("{platform: q, model: n}", "{platform: p, model: m, temperature: 0.5}").replace("q: {", "p: {")

    error = refused(tmp_path, twice)
    (tmp_path / "plan.yaml").write_text(twice.replace("0.5}", "0.6}"), "utf-8")

    assert "p m stands here with the same settings as in models[0]" in error.problem
    assert error.where.startswith("models[1] in")
    assert error.where.endswith("line 9")
    assert load_plan(tmp_path / "plan.yaml").cell_count == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("brand: A\nbrand: B\n" + GOOD, "brand stands twice, in lines 1 and 2"),
        (GOOD.replace("model: m", "model: m\n    model: l"), "model stands twice, in lines 7 and 8"),
        ("questions: [why\nmodels: []", "in line 2"),
        ("a: b: c", "mapping values are not allowed here in line 1, column 5"),
        ("a: \t- b\n\tc", "is no YAML"),
        ("brand: 2026-13-45\n" + GOOD, "is no YAML"),
        ("a: !!python/object/apply:os.getpid []", "is no YAML"),
        ("[" * 3000, "nested too deeply"),
        ("a: \x00", "is no YAML"),
        ("", "a mapping of keys to values is needed here"),
        ("--- a\n--- b", "is no YAML"),
    ],
)
def test_file_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, content: str, says: str):
    """Whatever stands in the file, the complaint is ours, and names the file."""
    error = refused(tmp_path, content)

    assert says in str(error)
    assert "\n" not in str(error)


def test_alias_and_merge_are_understood(tmp_path: Path):
    """YAML's own way to say a thing once works, and a merged key may be overridden."""
    file = tmp_path / "plan.yaml"
    file.write_text(
        "questions: [why]\nmodels:\n  - &first {platform: p, model: m, seed: 1}\n  - {<<: *first, model: n}\n", "utf-8"
    )

    assert [(spec.model, spec.seed) for spec in load_plan(file).models] == [("m", 1), ("n", 1)]


def test_many_aliases_take_no_time(tmp_path: Path):
    """A few lines that stand for billions are refused for what they are, not walked through."""
    levels = "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 30))

    assert "'a0' is no key" in str(refused(tmp_path, f"a0: &a0 [x]\n{levels}"))
