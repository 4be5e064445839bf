"""The options that choose records, the same in every command that reads a log."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ..filters import Filters, parse_time
from ._complete import run_ids

__all__ = ["with_filters"]

_TIME = "2h, 3d, a date, or RFC 3339; local time where it has no offset"


def _options(
    *,
    execution_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this run.", show_default=False, autocompletion=run_ids)
    ] = None,
    platform: Annotated[str | None, typer.Option(help="Only this platform or provider.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.", show_default=False)] = None,
    brand: Annotated[str | None, typer.Option(help="Only this brand.", show_default=False)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that failed.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"Only from then on: {_TIME}.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only before then; of a date, its end.", show_default=False)
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Only where one of its texts has this in it.", show_default=False),
    ] = None,
) -> Filters:
    now = datetime.now(UTC)
    return Filters(
        execution_id=execution_id,
        platform=platform,
        model=model,
        brand=brand,
        failed=failed,
        since=None if since is None else _time(since, "--since", now),
        until=None if until is None else _time(until, "--until", now, end=True),
        grep=None if grep is None else _pattern(grep),
    )


def _time(text: str, option: str, now: datetime, *, end: bool = False) -> float:
    try:
        return parse_time(text, now, end=end)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise typer.BadParameter(
            f"{text!r} is no regular expression: {error}; re.escape() or backslashes make it a plain text",
            param_hint="--grep",
        ) from None


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """
    Give *command*, which takes ``filters``, the options that choose records in that parameter's place.

    Said once here, so that ``--since`` means the same everywhere.
    """
    options = inspect.signature(_options, eval_str=True).parameters

    @functools.wraps(command)
    def with_options(*args: Any, **given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(*args, filters=_options(**chosen), **given)

    own = inspect.signature(command, eval_str=True)
    parameters = [entry for name, entry in own.parameters.items() if name != "filters"]
    wide = own.replace(parameters=[*parameters, *options.values()])
    # Without its __wrapped__, or the command's own annotations would be taken; typer reads both of the other two.
    del vars(with_options)["__wrapped__"]
    vars(with_options)["__signature__"] = wide
    with_options.__annotations__ = {name: entry.annotation for name, entry in wide.parameters.items()}
    return with_options
