"""Tables, the machine, and where in a page a table stands."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "explanation" / "speed.md"
README: Final = ROOT / "README.md"
PACKAGES: Final = ("concurrent-log-handler", "python-json-logger", "orjson", "loguru", "structlog")


def table(heads: list[str], rows: list[list[str]], *, markdown: bool) -> str:
    """Return a table as Markdown or in columns."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in [heads, *rows]]
        return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    )


def versions() -> dict[str, str]:
    """Return the versions of what is compared, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def machine() -> str:
    """Describe the machine, without its name, in a sentence."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    cores = os.cpu_count() or 1
    busy = " (busy: other programs had the cores most of the time)" if os.getloadavg()[0] > cores else ""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return (
        f"{cores} cores, {platform.system()} {platform.release().partition('-')[0]} on {platform.machine()}, "
        f"CPython {platform.python_version()}, {packages}; load over 1, 5 and 15 minutes {load}{busy}."
    )


def command() -> str:
    """Return how this was started."""
    return (
        "`python benchmarks/"
        + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]).replace(" --write", "").partition(" --json")[0]
        + "`"
    )


def write_into(page: Path, marker: str, text: str) -> None:
    """Put *text* between ``<!-- marker -->`` and ``<!-- end of marker -->`` in *page*."""
    found = page.read_text("utf-8")
    between = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)", re.DOTALL)
    if len(between.findall(found)) != 1:
        sys.exit(f"{page.name} needs one pair of <!-- {marker} --> and <!-- end of {marker} -->")
    page.write_text(between.sub(lambda place: f"{place[1]}{text}\n{place[2]}", found), "utf-8")
