"""
What the commands share: exit codes, streams that survive a closed pipe, tables, and one-line errors.

Nothing heavy is imported before a command draws its first table.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import select
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_EXTRA_MISSING",
    "EXIT_NOT_WELL",
    "EXIT_OK",
    "EXIT_UNREADABLE",
    "EXIT_USAGE",
    "FileOption",
    "JsonOption",
    "UtcOption",
    "checked_output",
    "console",
    "counter_line",
    "lasting_outputs",
    "plain",
    "print_error",
    "print_json",
    "print_json_line",
    "print_line",
    "print_wrapped",
    "progress_bar",
    "reader_is_gone",
]

EXIT_OK: Final = 0  # done, and all is well
EXIT_NOT_WELL: Final = 1  # done, and what was found is not well
EXIT_USAGE: Final = 2  # used wrongly
EXIT_UNREADABLE: Final = 3  # the log cannot be read
EXIT_EXTRA_MISSING: Final = 4  # an extra is missing

PROGRAM: Final = "ai-responses"
_PATIENCE_S: Final = 1.0  # before a bar appears
_REFRESH_S: Final = 0.2  # between two pictures of it
_COUNTED_AT_ONCE: Final = 256  # between two looks at the clock
_HANGING: Final = 2  # columns that a wrapped line stands further in
_NARROWEST: Final = 20  # columns that a wrapped text gets at least

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="LOG",
        help="The log, by its base name; rotated and .gz files beside it are found. Default: AI_RESPONSES_FILE, "
        "else data/ai_responses/ai_responses.jsonl.",
        show_default=False,
        readable=False,  # not typer's to check: a log that may not be read is exit code 3, not 2
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
UtcOption = Annotated[bool, typer.Option("--utc", help="Show times in UTC instead of local time.")]


def console(*, stderr: bool = False) -> Console:
    """Return a console for tables and bars: colours only on a terminal, nothing in our data read as markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_line(text: str = "") -> None:
    """Print one line to standard output as it is: unwrapped, uncoloured."""
    sys.stdout.write(f"{text}\n")


def print_wrapped(text: str, *, indent: int = 0) -> None:
    """Print one line that a terminal shows wrapped at words and indented; elsewhere it stays one line, for grep."""
    if not sys.stdout.isatty():
        print_line(" " * indent + text)
        return
    from rich.text import Text

    screen = console()
    for number, line in enumerate(Text(text).wrap(screen, max(screen.width - indent - _HANGING, _NARROWEST))):
        print_line(" " * (indent + (_HANGING if number else 0)) + line.plain.rstrip())


def print_json(value: object) -> None:
    """Print *value* as the one JSON document of a command, in UTF-8 wherever it goes."""
    _write_utf8(_escaped(json.dumps(value, ensure_ascii=False, indent=2)) + "\n")


def print_json_line(value: object) -> None:
    """Print *value* as one line of JSON, in UTF-8 wherever it goes."""
    _write_utf8(_escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) + "\n")


def _escaped(text: str) -> str:
    """
    Return JSON without characters that act on a terminal: as escapes they are the same JSON.

    JSON itself escapes only the oldest of them; not C1, the bidirectional overrides, and lone surrogates.
    """
    return text if text.isascii() else _ACTING.sub(_as_escapes, text)


def _as_escapes(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _write_utf8(text: str) -> None:
    # A file name need not be UTF-8: its stray bytes become escapes, which JSON allows.
    data = text.encode("utf-8", "backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        if sys.stdout.line_buffering:
            sys.stdout.buffer.flush()
    else:
        sys.stdout.write(data.decode("utf-8"))


def print_error(text: str) -> None:
    """Print one line to standard error."""
    sys.stderr.write(f"{PROGRAM}: {plain(text)}\n")


def plain(text: str) -> str:
    """Return *text* on one line, without characters that move the cursor or change how a terminal shows things."""
    return "".join(" " if unicodedata.category(char) in _UNSEEN else char for char in text)


# Control, format (bidirectional overrides among them), lone surrogates; line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# The same behind ASCII, as a test holds it: asking each character of a large document takes seconds.
_ACTING: Final = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064"
    "\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """
    Give the block a function to report (bytes done, bytes in all) to.

    A bar appears on standard error when that is a terminal and the block takes more than a second; it goes when the
    block ends.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    bar = _LateBar(label)
    try:
        yield bar.update
    finally:
        bar.close()


@contextlib.contextmanager
def counter_line(label: str, what: str) -> Iterator[Callable[[], None]]:
    """
    Give the block a function to call for each of the *what* that it has done, where nobody knows how many there are.

    As :func:`progress_bar`, but a line that counts.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    due_s, done, width = time.monotonic() + _PATIENCE_S, 0, 0

    def count() -> None:
        nonlocal due_s, done, width
        done += 1
        if done % _COUNTED_AT_ONCE == 0 and time.monotonic() >= due_s:
            due_s = time.monotonic() + _REFRESH_S
            text = f"{label}: {done:,} {what}"
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()
            width = len(text)

    try:
        yield count
    finally:
        if width:
            sys.stderr.write("\r" + " " * width + "\r")


class _LateBar:
    """A bar that is not drawn, nor its library loaded, unless things take long."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._due_s = time.monotonic() + _PATIENCE_S
        self._bar: Any = None

    def update(self, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() < self._due_s:
                return
            self._start()
        if time.monotonic() >= self._due_s or done == total:
            self._due_s = time.monotonic() + _REFRESH_S
            self._bar.update(self._task, completed=done, total=total, refresh=True)

    def _start(self) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
            auto_refresh=False,  # its thread would take the interpreter lock from the work ten times a second
        )
        self._task = self._bar.add_task(self._label)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class _Output(io.FileIO):
    """A descriptor whose reader may go away: what is written after that goes nowhere, without an error."""

    lost = ""
    is_unread = False

    def write(self, data: Any) -> int:
        """Write *data*; all of it counts as written once it can go nowhere any more."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EPIPE:  # a full disk, a terminal that hung up: said at the end
                _Output.lost = error.strerror or str(error)
            _Output.is_unread = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def reader_is_gone() -> bool:
    """Say whether whoever read standard output through a pipe has left, so that what follows is for nobody."""
    if _Output.is_unread:
        return True
    try:
        descriptor = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        poll = select.poll()
        poll.register(descriptor, 0)  # errors are told unasked
        return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor: somebody captures what we print
        return False


@contextlib.contextmanager
def lasting_outputs() -> Iterator[None]:
    """
    Let standard output and error outlive their readers within the block, so that a command ends with its own code.

    Otherwise ``verify | head`` would end with whatever the broken pipe makes of it. Characters that the terminal's
    encoding lacks are shown as escapes.
    """
    before = sys.stdout, sys.stderr
    _Output.lost, _Output.is_unread = "", False
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def checked_output(code: int) -> int:
    """Bring out what is still buffered; return *code*, or that of a failure if some of it could not be written."""
    sys.stdout.flush()
    if not _Output.lost:
        return code
    print_error(f"the output is not complete: {_Output.lost}")
    return code or EXIT_NOT_WELL


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # started with the descriptor closed
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # somebody captures what we print: a test, or a program that calls us
    try:
        descriptor = stream.fileno()
        stream.flush()
    except (OSError, ValueError):
        return stream
    raw = _Output(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=stream.line_buffering
    )
