"""One record as people read it: on one line, as a block of a few lines, or whole."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ._console import console, plain, print_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_block", "print_record", "shown_time", "summary_of"]

_INDENT: Final = 2
_HANGING: Final = 20  # columns that a name takes in a whole record
_NARROWEST: Final = 20
_TEXTS: Final = ("system", "question", "response", "error_message", "message")
_HEAD: Final = ("record_id", "event", "call_id", "timestamp", "unix_timestamp")
_STYLES: Final = {"ok": "green", "FAIL": "bold red", "lost": "bold red", "forgotten": "yellow"}


def shown_time(unix_s: object, *, utc: bool, timespec: str = "seconds") -> str:
    """Return a moment as local time with its offset, or in UTC; ``?`` where *unix_s* is none."""
    if isinstance(unix_s, bool) or not isinstance(unix_s, int | float):
        return "?"
    try:
        moment = datetime.fromtimestamp(unix_s, UTC)
        return (moment if utc else moment.astimezone()).isoformat(sep=" ", timespec=timespec)
    except (ValueError, OverflowError, OSError):  # a number, but no time
        return "?"


def summary_of(record: Mapping[str, Any], *, utc: bool) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Return a record's time, its status in a word, what was called and how it went, and its texts by a letter."""
    status, why = _status_of(record)
    called = " ".join(str(part) for key in ("platform", "model") if (part := record.get(key)))
    parts = [why, called, _cell_of(record), *_figures_of(record), str(record.get("record_id") or "no record_id")]
    texts = [
        (letter, text)
        for letter, key in (("Q", "question"), ("A", "response"), ("!", "error_message"))
        if isinstance(text := record.get(key), str) and text
    ]
    message = record.get("message")
    if not texts and isinstance(message, str) and message:
        texts = [("M", message)]
    details = "  ".join(" ".join(plain(part).split()) for part in parts if part)
    return shown_time(record.get("unix_timestamp"), utc=utc), status, details, texts


def _status_of(record: Mapping[str, Any]) -> tuple[str, str]:
    event = record.get("event", "response")
    if event == "forgotten":
        return "forgotten", ""
    if event == "start":
        return "start", ""
    reason = str(record.get("error_type") or "")
    if event == "attempt":
        return "try", reason
    if event == "tombstone":
        return "lost", reason or "tombstone"
    if record.get("success") is True:
        return "ok", ""
    # A remark that somebody logged, and no call at all, did not fail.
    is_call = any(record.get(key) for key in ("model", "platform", "question", "response")) or "success" in record
    return ("FAIL", reason) if is_call else ("-", "")


def _cell_of(record: Mapping[str, Any]) -> str:
    index, run = record.get("question_index"), record.get("execution_id")
    return "" if index is None and not run else f"{run or 'no run'}" + (f" q{index}" if index is not None else "")


def _figures_of(record: Mapping[str, Any]) -> Iterator[str]:
    for key, unit in (("latency_ms", "ms"), ("tokens_used", "tokens")):
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{value:,.0f} {unit}"


def print_block(record: Mapping[str, Any], *, utc: bool) -> None:
    """Print a record: on a terminal as a block of a few lines as wide as that is, elsewhere on one line, for grep."""
    moment, status, details, texts = summary_of(record, utc=utc)
    # FORCE_COLOR: it goes to a pager that shows it as a terminal would.
    if not sys.stdout.isatty() and not os.environ.get("FORCE_COLOR"):
        said = "  ".join(f"{letter}: {' '.join(plain(text).split())}" for letter, text in texts)
        print_line("  ".join(filter(None, (moment, status, details, said))))
        return
    from rich.text import Text

    screen = console()
    head = Text.assemble(moment, "  ", (status, _STYLES.get(status, "")))
    room = screen.width - head.cell_len - _INDENT
    if len(Text(details).wrap(screen, max(room, 1))) == 1:
        screen.print(head + Text(f"  {details}"), soft_wrap=True)
    else:
        screen.print(head, soft_wrap=True)
        _print_wrapped(screen, details)
    for letter, text in texts:
        line = Text(f"{letter}  {' '.join(plain(text[: 4 * screen.width]).split())}")
        line.truncate(max(screen.width - _INDENT, _NARROWEST), overflow="ellipsis")
        screen.print(Text(" " * _INDENT) + line, soft_wrap=True)


def _print_wrapped(screen: Console, details: str) -> None:
    """Print what stands between double spaces, so many on a line as there is room for."""
    from rich.cells import cell_len
    from rich.text import Text

    lines = [""]
    for part in details.split("  "):
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if lines[-1] and cell_len(longer) > screen.width - _INDENT:
            lines.append(part)
        else:
            lines[-1] = longer
    for line in lines:
        screen.print(Text(" " * _INDENT + line), soft_wrap=True)


def print_record(record: Mapping[str, Any], *, utc: bool) -> None:
    """Print a whole record, field by field, texts and objects below their names; ends in no blank line."""
    rest = {key: value for key, value in record.items() if key not in {*_HEAD, *_TEXTS}}
    _print_field("record_id", str(record.get("record_id")))
    _print_field("time", shown_time(record.get("unix_timestamp"), utc=utc, timespec="microseconds"))
    if "unix_timestamp" not in record and isinstance(record.get("timestamp"), str):
        _print_field("timestamp", record["timestamp"])
    for key in ("event", "call_id"):
        if key in record:
            _print_field(key, str(record[key]))
    later = []
    for key, value in rest.items():
        if isinstance(value, dict | list) or (isinstance(value, str) and "\n" in value):
            later.append(key)
        else:
            _print_field(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    for key in (*later, *(key for key in _TEXTS if key in record)):
        value = record[key]
        print_line()
        print_line(f"{plain(key)}:")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        for line in text.split("\n"):
            _print_indented(plain(line.expandtabs(4)), _INDENT)


def _print_field(name: str, value: str) -> None:
    name = plain(name)
    _print_indented(plain(value), _HANGING, f"{name:<{_HANGING - 1}} ")


def _print_indented(text: str, indent: int, first: str = "") -> None:
    """Print *text* wrapped and indented on a terminal, elsewhere on its own line; *first* instead of the indent."""
    if not sys.stdout.isatty():
        print_line((first or " " * indent) + text)
        return
    from rich.text import Text

    screen = console()
    lines = Text(text).wrap(screen, max(screen.width - indent, _NARROWEST)) if text else [Text("")]
    for number, line in enumerate(lines):
        begin = " " * indent if number or not first else first
        print_line(f"{begin}{line.plain.rstrip()}".rstrip())
