"""
The command line ``ai-responses``: one file for each command.

Commands import what they need when they run, so that ``--help`` is quick and a missing extra stops only the command
that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

import typer

from ..errors import AIResponseLoggingError, ConfigError, LogReadError, MissingExtraError, QueryError
from . import config, convert, demo, export, forget, matrix, replay, report, run, show, sql, stats, tail, verify
from ._console import (
    EXIT_EXTRA_MISSING,
    EXIT_NOT_WELL,
    EXIT_OK,
    EXIT_UNREADABLE,
    EXIT_USAGE,
    PROGRAM,
    checked_output,
    lasting_outputs,
    print_error,
    print_line,
)

__all__ = ["app", "main"]

_EXIT_INTERRUPTED: Final = 130

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
    Record every answer of AI models in one log, and prove that none is lost.

    Exit codes: 0 done, and all is well; 1 done, and what was found is not well (damage, or holes in a run); 2 used
    wrongly; 3 the log cannot be read; 4 an extra is missing, and the message says how to install it.

    Example: ai-responses demo
    """,
)
app.command()(demo.demo)
app.command()(run.run)
app.command()(stats.stats)
app.command()(tail.tail)
app.command()(show.show)
app.command()(matrix.matrix)
app.command()(verify.verify)
app.command()(replay.replay)
app.command()(export.export)
app.command()(report.report)
app.command()(convert.convert)
app.command()(sql.sql)
app.command()(forget.forget)
app.add_typer(config.app, name="config")


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001  typer's way to call back
    if is_wanted:
        from .. import __version__

        print_line(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001  its callback has done the work
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run the command line and exit with its code.

    Expected errors are one line on standard error, never a traceback; a pipe closed early is no error at all.

    Args:
        arguments: Without the program's name; the process's own unless told.
    """
    with lasting_outputs():
        code = checked_output(_run(sys.argv[1:] if arguments is None else list(arguments)))
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except AIResponseLoggingError as error:
        # Of a query the place is shown below it, on lines of their own.
        for line in str(error).splitlines() if isinstance(error, QueryError) else [str(error)]:
            print_error(line)
        return _code_of(error)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except typer.Abort:
        return _EXIT_INTERRUPTED
    except Exception as error:
        # Usage errors have a class that moved between releases of typer; what they can do has not.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        print_error(f"{str(message()).rstrip('.')}; see: {path} --help")
        return EXIT_USAGE
    return code if isinstance(code, int) else EXIT_OK


def _code_of(error: AIResponseLoggingError) -> int:
    if isinstance(error, MissingExtraError):
        return EXIT_EXTRA_MISSING
    if isinstance(error, LogReadError):
        return EXIT_UNREADABLE
    return EXIT_USAGE if isinstance(error, ConfigError | QueryError) else EXIT_NOT_WELL
