"""``ai-responses config``: the presets as YAML, and a configuration file checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ._console import EXIT_NOT_WELL, JsonOption, console, plain, print_json, print_line, print_wrapped

__all__ = ["app"]

_COLUMNS: Final = ("queue_max_size", "batch_size", "flush_interval", "max_retries", "retry_delay", "durability")

_WIDE: Final = 80

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=False,
    help="""
    Print the presets, and check configuration files.

    Example: ai-responses config show default > logging.yaml
    """,
)


@app.command("list")
def list_presets(*, as_json: JsonOption = False) -> None:
    """
    List the presets and what they set.

    Example: ai-responses config list
    """
    from ..config import PRESET_NAMES, load

    presets = {name: _options_of(load(name)) for name in PRESET_NAMES}
    if as_json:
        print_json([{"preset": name, **options} for name, options in presets.items()])
        return
    from rich.table import Table

    screen = console()
    # Presets across, since options have long names and short values; a narrow screen gets their names on two lines.
    headings = [name if screen.width >= _WIDE else name.replace("_", "_\n") for name in presets]
    table = Table("", *headings, box=None, pad_edge=False)
    for option in _COLUMNS:
        table.add_row(option, *(str(options.get(option, "")) for options in presets.values()))
    screen.print(table)
    print_line()
    print_wrapped("queue_max_size and batch_size are records, flush_interval and retry_delay seconds.")


def _options_of(mapping: dict[str, Any]) -> dict[str, Any]:
    section = mapping["handlers"]["ai_responses"]
    return {key: section[key] for key in ("filename", *_COLUMNS) if key in section}


@app.command()
def show(preset: Annotated[str, typer.Argument(metavar="PRESET", help="A name that `config list` shows.")]) -> None:
    """
    Print a preset as the text of a configuration file.

    Example: ai-responses config show high_concurrency > logging.yaml
    """
    from ..config import preset_yaml

    print_line(preset_yaml(preset).rstrip("\n"))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file for logging.config.dictConfig.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """
    Check a configuration file, key by key.

    Each complaint names the key's full path. Exit code 1 if there is a complaint.

    Example: ai-responses config check logging.yaml
    """
    from .. import config
    from ..errors import ConfigError

    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise ConfigError(f"{file} {what}; name a YAML file, or see `ai-responses config show` for a preset's text")
    # Absolute, so that a file named like a preset is not taken for the preset.
    complaints = config.check(file.absolute())
    if as_json:
        print_json({"file": str(file), "complaints": complaints})
    elif complaints:
        for complaint in complaints:
            print_line(f"{plain(str(file))}: {plain(complaint)}")
    else:
        print_line(f"{plain(str(file))}: fine")
    if complaints:
        raise typer.Exit(EXIT_NOT_WELL)
