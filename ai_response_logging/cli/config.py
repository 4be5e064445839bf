"""``ai-responses config``: the presets as YAML, and a configuration file checked."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._complete import preset_names
from ._console import EXIT_NOT_WELL, JsonOption, console, plain, print_json, print_line, print_wrapped

if TYPE_CHECKING:
    from .._review import Review

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
def show(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET", help="A name that `config list` shows.", autocompletion=preset_names)
    ],
) -> None:
    """
    Print a preset as the text of a configuration file.

    Example: ai-responses config show high_concurrency > logging.yaml
    """
    from ..config import preset_yaml

    print_line(preset_yaml(preset).rstrip("\n"))


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="YAML or JSON files for logging.config.dictConfig, or dicts in Python modules as pkg.module:NAME.",
        show_default=False,
    ),
]


@app.command()
def check(sources: Sources, *, as_json: JsonOption = False) -> None:
    """
    Check the logging configuration of a whole application, key by key.

    Finds what would be refused, and what logging takes without a word: unknown keys, wrong types, levels that drop
    answers, loggers that will be disabled, handlers that nobody uses, answers recorded twice, places that cannot be
    written; with the files of several processes, settings that contradict each other on one log. Says what each
    durability will be on its file system, which is tried out with a small file. Each complaint names the key's full
    path. Exit code 1 if there is a complaint.

    Example: ai-responses config check logging.yaml worker.yaml myproject.settings:LOGGING
    """
    from .._review import review

    found = review({name: _source(name) for name in sources})
    if as_json:
        complaints = [
            {"source": name, "where": complaint.where, "problem": complaint.problem}
            for name, complaint in found.complaints
        ]
        print_json({
            "file": sources[0],
            "files": sources,
            "complaints": [str(complaint) for _, complaint in found.complaints],
            "details": complaints,
            "notes": [{"source": name, "note": note} for name, note in found.notes],
        })  # fmt: skip
    else:
        for name in sources:
            _print_review(name, found)
    if found.complaints:
        raise typer.Exit(EXIT_NOT_WELL)


def _print_review(name: str, found: Review) -> None:
    complaints = [complaint for source, complaint in found.complaints if source == name]
    for complaint in complaints:
        where = f"{complaint.where}: " if complaint.where else ""
        print_wrapped(f"{plain(name)}: {plain(where + complaint.problem)}")
    if not complaints:
        print_line(f"{plain(name)}: fine")
    for source, note in found.notes:
        if source == name:
            print_wrapped(plain(note), indent=2)


def _source(name: str) -> str | dict[str, Any]:
    """Return the file's absolute path, or the dict that ``pkg.module:NAME`` is."""
    from ..errors import ConfigError

    module, colon, attribute = name.partition(":")
    if colon and not os.path.exists(name) and all(part.isidentifier() for part in module.split(".")):
        return _dict_of(name, module, attribute)
    if not os.path.isfile(name):
        what = "is not a file" if os.path.exists(name) else "does not exist"
        raise ConfigError(
            f"{name} {what}; name a YAML or JSON file, or a dict as pkg.module:NAME, or see `ai-responses config show` "
            "for a preset's text"
        )
    return os.path.abspath(name)  # so that a file named like a preset is not taken for the preset


def _dict_of(name: str, module: str, attribute: str) -> dict[str, Any]:
    from importlib import import_module

    from ..errors import ConfigError

    if (here := os.getcwd()) not in sys.path:  # as `python -m` has it
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # it is the application's own code that runs here
        raise ConfigError(f"{name} cannot be had: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is {type(found).__name__}, not a dict for logging.config.dictConfig")
    return found
