"""What a shell completes beside commands and options: runs, records, presets. Quick, and never an error."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

import typer

__all__ = ["preset_names", "record_ids", "run_ids"]

_END_BYTES: Final = 1 << 20  # of the log, in which ids are looked for: whoever presses Tab waits for it
_MOST: Final = 50


def run_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Return the runs of which the end of the log tells, the newest first."""
    return _ids(context, "execution_id", incomplete)


def record_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Return the newest records, the newest first."""
    return _ids(context, "record_id", incomplete)


def preset_names(incomplete: str) -> list[str]:
    """Return the names of presets."""
    from ..config import PRESET_NAMES

    return [name for name in PRESET_NAMES if name.startswith(incomplete)]


def _ids(context: typer.Context, field: str, incomplete: str) -> list[str]:
    from ..record import default_log_path

    data = b""
    with suppress(OSError), open(default_log_path(context.params.get("file")), "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - _END_BYTES))
        data = log.read(_END_BYTES)
    # Such an id has no quote in it, and none that a terminal would act on is offered.
    found = re.findall(rb'"%b":\s*"([^"\\\x00-\x1f\x7f]+)"' % field.encode(), data)
    names = dict.fromkeys(name.decode("utf-8", "replace") for name in reversed(found))
    return [name for name in names if name.startswith(incomplete) and name.isprintable()][:_MOST]
