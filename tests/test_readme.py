"""What README and the reference say is run, resolved or compared here."""

from __future__ import annotations

import itertools
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


def test_readme_names_every_command() -> None:
    """
    A newcomer sees all there is on the command line, and nothing that is not.
    """
    from typer.main import get_command

    from ai_response_logging.cli import app

    (console,) = _blocks("console")
    assert set(re.findall(r"^\$ ai-responses (\w+)", console, re.MULTILINE)) == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["explanation", "how-to", "reference"])
def test_readme_leads_to_every_page(folder: str) -> None:
    """
    No page is there that nobody finds.
    """
    pages = {f"docs/{folder}/{page.name}" for page in (ROOT / "docs" / folder).glob("*.md")}
    assert pages - set(re.findall(r"\]\(([^)#]+)", README)) == set()


PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"((?:tests/(?:\w+/)*)?test_\w+\.py)(?:::(\w+))?")


@pytest.mark.parametrize("page", PAGES)
def test_each_test_that_a_page_names_exists(page: str) -> None:
    """
    No row of a promise points at a file that is not there, or at a function that is not in it.
    """
    missing = [
        f"{file}::{function}"
        for file, function in NAMED.findall((ROOT / page).read_text("utf-8"))
        if not any(_defines(path, function) for path in _test_files(file))
    ]

    assert missing == []


def _test_files(named: str) -> list[Path]:
    """Return the file that is *named*; without a directory, those of that name in any."""
    return [ROOT / named] if named.startswith("tests/") else list((ROOT / "tests").rglob(named))


def _defines(path: Path, function: str) -> bool:
    """Say whether *path* is a file with *function* in it; without a name the file is enough."""
    return path.is_file() and (not function or f"\ndef {function}(" in path.read_text("utf-8"))


def test_promises_name_their_tests() -> None:
    """
    Each row of the promise, in README and in the pages, has a test, or says that it is not kept yet.
    """
    durability = (ROOT / "docs" / "explanation" / "durability.md").read_text("utf-8")
    promise = (ROOT / "docs" / "reference" / "promise.md").read_text("utf-8")
    rows = [*_rows(README, "shown by"), *_rows(durability, "cell")]
    rows += [
        line for line in promise.splitlines() if line.startswith("|") and line[1] != "-" and "shown by" not in line
    ]

    assert len(rows) >= 100
    assert [row for row in rows if not NAMED.search(row) and "yet" not in row] == []


def _rows(page: str, heading: str) -> list[str]:
    """Return the rows of the table whose first line has *heading*."""
    lines = page.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|") and heading in line)
    return list(itertools.takewhile(lambda line: line.startswith("|"), lines[first + 2 :]))


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
