"""What README and the reference say is run, resolved or compared here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT, read_lines, run_child

from ai_response_logging._options import Options

README = (ROOT / "README.md").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_in_the_readme_records_both_answers(tmp_path: Path) -> None:
    """
    The lines of README work when pasted, and each of their two calls is in the log.
    """
    (code,) = _blocks("python")

    done = run_child(code, cwd=tmp_path, options=("-W", "ignore"))

    assert "'accepted': 2" in done.stdout
    assert [record["question"] for record in read_lines(tmp_path / "answers.jsonl")] == ["Which phone?"] * 2


def test_yaml_in_the_readme_configures_by_dictconfig_alone(tmp_path: Path) -> None:
    """
    The configuration in README needs nothing but the standard library's dictConfig.
    """
    (tmp_path / "logging.yaml").write_text(_blocks("yaml")[0], "utf-8")

    run_child(
        """
        import logging.config, yaml
        with open("logging.yaml") as file:
            logging.config.dictConfig(yaml.safe_load(file))
        logging.getLogger("ai_responses").info("ai_response", extra={"question": "pasted"})
        """,
        cwd=tmp_path,
        options=("-W", "ignore"),
    )

    (record,) = read_lines(tmp_path / "data" / "ai_responses" / "ai_responses.jsonl")
    assert record["question"] == "pasted"


def test_each_promise_in_the_readme_names_a_test_that_exists() -> None:
    """
    No row of the promise table points at a test that is not there.
    """
    named = re.findall(r"`(?:tests/faults/)?(test_\w+\.py)`", README)

    assert len(named) >= 8
    assert [name for name in named if not (ROOT / "tests" / "faults" / name).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/architecture.md"])
def test_links_between_pages_lead_to_files_that_exist(page: str) -> None:
    """
    No page sends its reader into the void.
    """
    text = (ROOT / page).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]

    assert [link for link in links if not (ROOT / page).parent.joinpath(link).is_file()] == []


def test_reference_lists_every_option_with_its_default() -> None:
    """
    The options on the page are the options in the code, with the same defaults.
    """
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    table = page[page.index("## Options of the handler") : page.index("## Where the log is")]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", table, re.MULTILINE))
    defaults = Options()

    assert rows.keys() == {"filename", "level", *Options.names()}
    for name in ("queue_max_size", "batch_size", "max_retries", "lock_timeout", "caller_timeout", "close_timeout"):
        assert float(rows[name]) == getattr(defaults, name)
