"""What a person sees while ``ai-responses run`` goes on: the run's name, and on a terminal a bar."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Final, Self

from ._console import console, plain

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..matrix import CellDone

__all__ = ["RunView"]

_WIDE: Final = 75  # columns from which on there is room for a bar beside its figures, with thousands of cells
_SHORT_BAR: Final = 16
_WIDER: Final = 100  # columns from which on it may be longer
_LONG_BAR: Final = 40


class RunView:
    """
    What a person sees of a run.

    Args:
        again: The command that goes on with it, up to the run's id.
        to_stderr: Whether standard output is for something else.
    """

    def __init__(self, again: str, *, to_stderr: bool) -> None:
        self.execution_id = ""
        self._again = again
        self._to_stderr = to_stderr
        self._failed = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_start(self, execution_id: str, todo: int) -> None:
        """Name the run before its first call."""
        self.execution_id = execution_id
        self._say(f"run {execution_id}: {todo:,} cells to ask")
        self._say(f"should it be stopped, this goes on: {self._again} {shlex.quote(execution_id)}")
        if sys.stderr.isatty() and todo:
            self._bar = _new_bar()
            self._bar.add_task("", total=todo, failed=0)
            self._bar.start()

    def on_cell(self, cell: CellDone) -> None:
        """Move the bar."""
        self._failed += not cell.success
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, advance=1, failed=self._failed)

    def on_drain(self) -> None:
        """Answer the first Ctrl-C."""
        text = "no more cells are begun, those in flight come to their end; Ctrl-C again stops them at once"
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def _say(self, text: str) -> None:
        stream = sys.stderr if self._to_stderr else sys.stdout
        stream.write(f"{plain(text)}\n")
        stream.flush()


def _new_bar() -> Progress:
    from rich import progress
    from rich.table import Column
    from rich.text import Text

    class Figures(progress.ProgressColumn):
        """How many cells are done and failed, how many a second, and the time left."""

        def render(self, task: progress.Task) -> Text:
            rate = task.finished_speed or task.speed
            failed = Text(f"{task.fields['failed']:,} failed", style="bold red" if task.fields["failed"] else "")
            return Text.assemble(
                f"{int(task.completed):,}/{int(task.total or 0):,}{' done' if is_wide else ''}, ",
                failed,
                f", {rate:.1f}/s" if rate else ", -/s",
                f", {_duration(task.time_remaining)} left",
            )

    screen = console(stderr=True)
    is_wide = screen.width >= _WIDE
    figures = Figures(Column(no_wrap=True, overflow="ellipsis"))
    # Never the whole line: a terminal puts ^C behind it, and if that wraps, an old picture of the bar stays.
    bar = progress.BarColumn(bar_width=_LONG_BAR if screen.width >= _WIDER else _SHORT_BAR)
    return progress.Progress(
        *([bar, figures] if is_wide else [figures]), console=screen, transient=True, refresh_per_second=4
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
