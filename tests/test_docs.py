"""
Every command is documented: docs/reference/cli.md is made from the help texts and compared with them.

``python tests/test_docs.py`` writes it anew.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ai_response_logging import cli
from ai_response_logging.cli import _console, app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
TYPER = ".".join(version("typer").split(".")[:2])
PREFACE = """\
# The command line

<!-- Made by `python tests/test_docs.py` from the help texts, laid out by typer {typer}; a test compares the two. -->

Every command that reads a log takes its base name and finds rotated and compressed files and journals beside it.
Reading needs no writing rights and never blocks a writer.
Text is for people; `--json` prints one JSON document with the same figures for programs.
Colours and bars appear only on a terminal; `NO_COLOR` turns colours off, `FORCE_COLOR` turns them on.
A pipe closed early is no error.
What acts on a terminal (escape sequences, bidirectional overrides) is not shown, and comes as an escape in JSON.
Times are local, with their offset, or in UTC with `--utc`; they are read as local where they have no offset.
Files that `convert`, `export` and `report` write have their names only when they are whole and on the disk.
Killed, they leave at most `OUT.<...>.new`, which may be removed.
Killed in just the wrong instant, `--force --format parquet` leaves what was there before as `OUT.<...>.old`.
`ai-responses --install-completion` lets bash, zsh or fish complete commands, options, runs, records and presets.

| exit code | meaning |
|---|---|
| 0 | done, and all is well |
| 1 | not well: damage in a log, holes in a run, complaints about a file; something stayed, or the disk refused it |
| 2 | used wrongly |
| 3 | the log cannot be read |
| 4 | an extra is missing; the message says how to install it |
| 130 | ended by Ctrl-C |
"""


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command with its help text, as a person 80 columns wide sees it."""
    import typer

    group = typer.main.get_command(app)
    yield from _commands_below(group, "ai-responses", None)


def _commands_below(command: object, path: str, parent: object) -> Iterator[tuple[str, str]]:
    context = command.make_context(path.rpartition(" ")[2], [], parent=parent, resilient_parsing=True)
    context.terminal_width = 78  # of 80 columns typer leaves two free
    yield path, context.get_help()
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands_below(child, f"{path} {name}", context)


def page() -> str:
    """Return the whole page."""
    sections = [f"## {path}\n\n```text\n{_trimmed(text)}\n```\n" for path, text in commands()]
    return "\n".join([PREFACE.replace("{typer}", TYPER), *sections])


def _trimmed(text: str) -> str:
    return "\n".join(one.rstrip() for one in text.strip().splitlines())


@pytest.fixture(autouse=True)
def _same_width_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def test_page_of_the_command_line_says_what_the_help_says():
    """
    docs/reference/cli.md is what the help texts are today; `python tests/test_docs.py` brings it up to date.
    """
    written = PAGE.read_text("utf-8")
    if f"laid out by typer {TYPER};" not in written:
        pytest.skip(f"typer {TYPER} lays help texts out differently from the one the page was made with")

    assert written == page()


def test_every_command_has_a_section_with_an_example():
    """
    No command is added without its documentation.
    """
    documented = PAGE.read_text("utf-8")
    names = [path for path, _ in commands()]

    assert {
        "demo", "run", "tail", "show", "stats", "matrix", "verify", "replay", "convert", "sql", "export", "forget",
        "config list", "config show", "config check",
    } <= {name.removeprefix("ai-responses ") for name in names}  # fmt: skip
    for name in names:
        assert f"\n## {name}\n" in documented
        assert f"Example: {name}" in documented


def test_every_option_of_every_command_is_explained():
    """
    An option without a word of help is one nobody dares to use.
    """
    for name, text in commands():
        options = text.partition("Options:\n")[2].partition("\n\n")[0].splitlines()
        bare = [one for one in options if one.startswith("  -") and len(one.split("  ", 2)) < 2]
        assert options, name
        assert bare == [], name


def test_every_option_and_argument_stands_in_its_commands_section():
    """
    What the program takes, by its own account, and not only what the page happens to show.
    """
    import typer

    sections = dict(part.split("\n", 1) for part in PAGE.read_text("utf-8").split("\n## ")[1:])
    for path, command in _objects(typer.main.get_command(app), "ai-responses"):
        for parameter in command.params:
            names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
            wanted = names or [str(parameter.metavar or parameter.name).strip(".")]
            assert all(name in sections[path] for name in wanted), (path, wanted)


def _objects(command: object, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _objects(child, f"{path} {name}")


def test_every_exit_code_is_in_the_table_and_nothing_else():
    """
    Those that the program has, by name; 130 is the shells' own for Ctrl-C.
    """
    codes = {value for name, value in vars(_console).items() if name.startswith("EXIT_")} | {cli._EXIT_INTERRUPTED}
    table = {int(row.split("|")[1]) for row in PAGE.read_text("utf-8").splitlines() if re.match(r"\| \d+ \|", row)}

    assert table == codes


def test_command_that_can_end_with_1_says_when():
    """
    A script that calls it must know what a 1 means there.
    """
    import typer

    told = 0
    for path, command in _objects(typer.main.get_command(app), "ai-responses"):
        if hasattr(command, "commands") or path in {"ai-responses config list", "ai-responses config show"}:
            continue
        if "typer.Exit(EXIT_NOT_WELL)" in inspect.getsource(sys.modules[inspect.unwrap(command.callback).__module__]):
            told += 1
            assert re.search(r"[Ee]xit code\s+[01]", command.help), path
    assert told >= 6


if __name__ == "__main__":
    os.environ.update(COLUMNS="80", NO_COLOR="1")
    PAGE.write_text(page(), "utf-8")
