"""
What a record costs, and what memory is wanted, as everything grows: ``growth.py``, about six minutes; ``--quick``, one.

A step grows where it should not if its cost a unit (a record, a byte of a large record, a line of a backlog, a start-up
or a rotation beside old files) is over twice, and by more than noise, that of the cheapest smaller step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import tables
import worker
from growing import OURS

WORSE: Final = 2.0
Measured = dict[str, Any]


class Axis(NamedTuple):
    """One thing that grows."""

    name: str
    steps: list[int]
    quick: int
    """How many of the steps `--quick` takes."""
    measure: Callable[[int], Measured]
    columns: dict[str, str]
    """Figures to show: key and head."""
    units: dict[str, float]
    """Figures that must not grow with the step, and the difference that counts as noise."""


def _size(step: int) -> Measured:
    return worker.run("size", characters=max(1, int((step - 160) / 2.3)), count=max(4, min(1000, 8_000_000 // step)))


AXES: Final = [
    Axis(
        "threads", [1, 2, 4, 8, 16, 32, 64], 5, lambda step: worker.run("threads", of=step, count=3200),
        {"cpu_us": "CPU, µs a record", "wall_us": "µs a record", "memory_mb": "memory, MB"},
        {"cpu_us": 20.0, "wall_us": 20.0},
    ),
    Axis(
        "processes", [1, 2, 4, 8, 16, 32], 4,
        lambda step: worker.run("processes", name=OURS, of=step, count=max(100, 3200 // step)),
        {"cpu_us": "CPU, µs a record", "rps": "records/s, all", "rss_mb": "memory of each, MB"}, {"cpu_us": 40.0},
    ),
    Axis(
        "record size, bytes", [200, 1000, 4000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000], 6, _size,
        {
            "bytes": "line and texts set apart, bytes", "cpu_us": "CPU, µs a record", "call_us": "call, µs",
            "cpu_ns_per_byte": "CPU, ns a byte", "memory_mb": "memory, MB",
        },
        {"cpu_ns_per_byte": 3.0},
    ),
    Axis(
        "backlog, lines", [0, 1000, 10_000, 100_000, 1_000_000], 4,
        lambda step: worker.run("backlog", count=step, timeout_s=900),
        {
            "start_ms": "start-up, ms", "replay_s": "replay, s", "us_per_line": "CPU, µs a line",
            "memory_mb": "memory, MB",
        },
        {"us_per_line": 2.0, "start_ms": 50.0},
    ),
    Axis(
        "rotated files", [0, 100, 1000, 10_000], 3, lambda step: worker.run("old_files", count=step, rotations=20),
        {
            "start_ms": "start-up, ms", "first_rotation_ms": "first rotation, ms", "rotation_ms": "rotation, ms",
            "memory_mb": "memory, MB",
        },
        {"start_ms": 20.0, "rotation_ms": 2.0, "memory_mb": 2.0},
    ),
]  # fmt: skip


def worse_than_linear(axis: Axis, found: dict[int, Measured]) -> list[str]:
    """Say at which steps which cost a unit has grown; a unit of old files is the start-up or rotation beside them."""
    complaints = []
    for key, noise in axis.units.items():
        least = float("inf")
        for step, one in found.items():
            value = one[key]
            if not value and key == "us_per_line":  # nothing to replay
                continue
            if value > least * WORSE and value - least > noise:
                complaints.append(f"{axis.name} {step:,}: {axis.columns[key]} {value:.1f}, was {least:.1f}")
            least = min(least, value)
    return complaints


def middle(results: list[Measured]) -> Measured:
    """Return the median of each figure, and the sum of what a check has found wrong."""
    figures = [key for key, value in results[0].items() if isinstance(value, float | int)]
    found: Measured = {key: statistics.median(one[key] for one in results) for key in figures}
    found["wrong"] = sum(sum(one["check"].values()) for one in results if "check" in one)
    return found


def main() -> int:
    """Measure; 1 if something grows worse than linearly, or a log is not whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="parts of names, with commas between them")
    parser.add_argument("--quick", action="store_true", help="without the largest steps")
    parser.add_argument("--json", default="", help="append every figure to this file, one JSON line each")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/explanation/speed.md")
    asked = parser.parse_args()
    markdown, made, complaints = asked.markdown or asked.write, [], []
    for axis in AXES:
        if asked.only and not any(part in axis.name for part in asked.only.split(",")):
            continue
        steps = axis.steps[: axis.quick] if asked.quick else axis.steps
        results: dict[int, list[Measured]] = {step: [] for step in steps}
        for _ in range(asked.rounds):
            for step in steps:
                results[step].append(axis.measure(step))
                print(".", end="", file=sys.stderr, flush=True)
        found = {step: middle(several) for step, several in results.items()}
        rows = [[f"{step:,}", *(f"{one[key]:,.4g}" for key in axis.columns)] for step, one in found.items()]
        made.append(tables.table([axis.name, *axis.columns.values()], rows, markdown=markdown))
        complaints += worse_than_linear(axis, found)
        for step, one in found.items():
            if one["wrong"]:
                complaints.append(f"{axis.name} {step:,}: {one['wrong']} lost, doubled or torn")
        if asked.json:
            with Path(asked.json).open("a", encoding="utf-8") as lines:
                lines.writelines(
                    json.dumps({"axis": axis.name, "step": step, **one}) + "\n" for step, one in found.items()
                )
    print(file=sys.stderr)
    verdict = "\n".join(["**Grows where it should not:**", "", *(f"- {one}" for one in complaints)])
    if not complaints:
        verdict = "Nothing is worse than linear, and old files cost nothing."
    text = "\n\n".join([f"{tables.machine()}\n{tables.command()}, {asked.rounds} rounds.", *made, verdict])
    print(text)
    if asked.write:
        tables.write_into(tables.PAGE, "growth", text)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
