"""The options that choose records, as any command has them: :mod:`ai_response_logging.cli._filters`."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ai_response_logging.cli._filters import with_filters
from ai_response_logging.filters import Filters

seen: list[tuple[str, int, Filters]] = []
app = typer.Typer()


@app.command()
@with_filters
def _command(name: str, *, filters: Filters, count: Annotated[int, typer.Option("-n")] = 3) -> None:
    """Take what a command of ours would take."""
    seen.append((name, count, filters))


def test_all_of_them_beside_the_commands_own() -> None:
    """Each option lands in the filters, and the command's own stay."""
    seen.clear()
    options = "--execution-id e --platform p --model m --brand b --failed --since 1970-01-01T00:00Z --grep x+ -n 5"
    result = CliRunner().invoke(app, ["name", *options.split(), "--until", "1970-01-02T00:00Z"])
    assert result.exit_code == 0, result.output
    filters = Filters(
        execution_id="e", platform="p", model="m", brand="b", failed=True, since=0, until=86400, grep=re.compile("x+")
    )
    assert seen == [("name", 5, filters)]


def test_nothing_asked() -> None:
    """Without options everything is wanted."""
    seen.clear()
    assert CliRunner().invoke(app, ["name"]).exit_code == 0
    assert seen == [("name", 3, Filters())]


@pytest.mark.parametrize(("option", "value"), [("--since", "soon"), ("--until", "never"), ("--grep", "(")])
def test_what_cannot_be_understood_is_a_wrong_use(option: str, value: str) -> None:
    """Exit code 2 and the option's name; nothing runs."""
    seen.clear()
    result = CliRunner().invoke(app, ["name", option, value])
    assert result.exit_code == 2
    assert option in result.output
    assert seen == []
