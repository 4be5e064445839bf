from __future__ import annotations

from pathlib import Path

import pytest

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import Question, load_plan, load_questions

PLAN = """\
questions_file: {name}
brand: Acme
models:
  - {{platform: p, model: m}}
"""


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file of questions."""
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    ("name", "content", "questions"),
    [
        ("q.txt", "why?\n\n  how? \r\n# is no comment?", ["why?", "how?", "# is no comment?"]),
        ("q.TXT", "\ufeff哪个手机好？\n", ["哪个手机好？"]),
        ("q.jsonl", '"why?"\n\n{"text": "a\\nb", "brand": "B", "industry": null}\n',
         ["why?", Question("a\nb", brand="B")]),
        ("q.jsonl", '{"text": "why?", "competitors": ["X", "Y"]}', [Question("why?", competitors=["X", "Y"])]),
        ("q.csv", "text\nwhy?\n", ["why?"]),
        ("q.csv", '\ufefftext, brand\r\n"why,\nhow?",B\r\n\r\n,\r\nwhen?,\r\n',
         [Question("why,\nhow?", brand="B"), "when?"]),
        ("q.csv", 'question_category,text\nphones,"say ""hi"""\n', [Question('say "hi"', question_category="phones")]),
    ],
)  # fmt: skip
def test_file_becomes_its_questions(tmp_path: Path, name: str, content: str, questions: list[Question | str]):
    """Lines, JSON and tables, with their context, byte order marks and empty lines."""
    expected = [one if isinstance(one, Question) else Question(one) for one in questions]

    assert load_questions(written(tmp_path, name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.yaml", "- why?", "questions are read from .txt, .jsonl, .csv"),
        ("q.txt", "\n \n", "there is no question in"),
        ("q.txt", "哪个".encode("gb18030"), "are not in UTF-8 (byte 0xc4); save the file as UTF-8"),
        ("q.jsonl", '"why?"\n{"text": ', "this is no JSON: "),
        ("q.jsonl", "[" * 100_000, "this is no JSON: "),
        ("q.jsonl", '"why?"\n42', "got 42; it is set under {file}, line 2"),
        ("q.jsonl", '{"txt": "why?"}', "'txt' is no key of a plan (did you mean text?)"),
        ("q.jsonl", '{"competitor": "X", "text": "why?"}', "did you mean competitors?"),
        ("q.jsonl", '\n{"brand": "B"}', "text is missing: every question needs one; it is set under {file}, line 2"),
        ("q.jsonl", '{"text": ["why?"]}', "text must be a text that is not empty, got ['why?']"),
        ("q.csv", "question\nwhy?\n", "'question' is no key of a plan"),
        ("q.csv", "brand\nB\n", "text among them; it has brand; it is set under {file}, line 1"),
        ("q.csv", "text,text\nwhy?,how?\n", "each once"),
        ("q.csv", "", "the first line must name the columns"),
        ("q.csv", 'text\nfine\n"why?\nhow?\n', "unexpected end of data; it is set under {file}, line 3"),
        ("q.csv", "text,brand\nfine,B\nwhy, how?,B\n", "3 cells stand under 2 columns"),
        ("q.csv", "text,brand\n\n,B\n", "text is missing: every question needs one; it is set under {file}, line 3"),
    ],
)
def test_file_that_is_none_is_refused_with_its_line(tmp_path: Path, name: str, content: str | bytes, says: str):
    """A complaint names the file, the line and what is wrong there."""
    file = written(tmp_path, name, content)

    with pytest.raises(ConfigError) as caught:
        load_questions(file)

    assert says.replace("{file}", str(file)) in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path):
    """A name that leads nowhere is one clear line."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_questions(tmp_path / "q.txt")


def test_plan_finds_its_questions_beside_it_and_fills_them_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A plan can be run from anywhere."""
    folder = tmp_path / "plans"
    folder.mkdir()
    written(folder, "q.csv", "text,brand\nIs {brandName} good?,\nIs {brandName} bad?,Other\n")
    plan_file = written(folder, "plan.yaml", PLAN.format(name="q.csv"))
    monkeypatch.chdir(tmp_path)

    plan = load_plan(plan_file)

    assert [question.text for question in plan.asked] == ["Is Acme good?", "Is Other bad?"]


def test_placeholder_in_a_file_is_refused_with_that_files_line(tmp_path: Path):
    """What the plan cannot fill in is looked for where it stands, not by its number."""
    questions = written(tmp_path, "q.txt", "fine\n\nis {brand} good?\n")

    with pytest.raises(ConfigError, match="is no placeholder") as caught:
        load_plan(written(tmp_path, "plan.yaml", PLAN.format(name="q.txt")))

    assert caught.value.where == f"{questions}, line 3"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("questions: [why]", "questions stand in the plan already"),
        ("", "it is set under questions_file in"),
    ],
)
def test_plan_has_its_questions_from_one_place(tmp_path: Path, more: str, says: str):
    """Both ways at once, or a name that is none, are refused with the key's place."""
    name = "q.txt" if more else "[1]"

    with pytest.raises(ConfigError, match=says) as caught:
        load_plan(written(tmp_path, "plan.yaml", PLAN.format(name=name) + more))

    assert "line 1" in caught.value.where
