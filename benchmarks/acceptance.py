"""
The acceptance table of the system that this one replaces: what was claimed, what was asked for, what we measure.

``acceptance.py`` prints it, ``--markdown`` as Markdown, ``--write`` puts it into README and docs/explanation/speed.md.
Durability `crash`, records of 5 kB with 22 fields, each measurement in a fresh process; the rounds take turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import tables
import worker
from contenders import LIMIT_LOGGER
from scenarios import FUNCTION, LOGGER

NOT_MEASURED: Final = "not measured"
COMPLETENESS: Final = {
    "normal": "normal, the program just ends", "high concurrency": "high concurrency, 8 processes of 8 threads",
    "exceptions": "exceptions, unhandled, and kill -9", "lock contention": "lock contention, a stranger has it 9/10",
}  # fmt: skip
WRITES: Final = ("write", "writev", "pwrite64", "pwritev", "pwritev2")


class Row(NamedTuple):
    """One line of the table; *figures* in *unit*, and the goal is met when their median stays within *bound*."""

    what: str
    claim: str
    goal: str
    bound: float
    figures: list[float]
    unit: str
    least: bool = False
    """Whether *bound* is the least that is asked for, not the most."""

    def is_met(self) -> bool | None:
        """Say whether the goal is met; None where nothing was measured."""
        if not self.figures:
            return None
        middle = statistics.median(self.figures)
        return middle >= self.bound if self.least else middle <= self.bound

    def cells(self) -> list[str]:
        """Return the row as texts."""
        met = {True: "met", False: "**missed**", None: NOT_MEASURED}[self.is_met()]
        if not self.figures:
            return [self.what, self.claim, self.goal, "-", "-", "-", met]
        ordered = sorted(self.figures)
        middle = f"{statistics.median(ordered):.3g} {self.unit}"
        if len(ordered) < 10:  # of so few a quantile says nothing
            return [self.what, self.claim, self.goal, middle, "-", "-", met]
        tail = [f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.3g}" for share in (0.95, 0.99)]
        return [self.what, self.claim, self.goal, middle, *tail, met]


def log_writes(seconds: float) -> dict[str, list[float]]:
    """Return writes to the log and all write calls, a record, at 50 records a second; nothing without strace."""
    if shutil.which("strace") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        log, trace = Path(folder, "log.jsonl"), Path(folder, "trace")
        strace = ["strace", "-f", "-qq", "-y", "-o", str(trace), "-e", f"trace={','.join(WRITES)}"]
        try:
            found = worker.run("steady", *strace, seconds=seconds, path=str(log))
        except (worker.MeasurementError, subprocess.SubprocessError):  # a container may forbid tracing
            return {}
        rows = trace.read_text("utf-8", "replace").splitlines()
    ours = [row for row in rows if f"<{log}" in row]
    to_log = sum(f"<{log}>" in row for row in ours)
    return {"writes": [to_log / found["records"]], "calls": [len(ours) / found["records"]]}


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure everything so many times, and return all figures of each thing."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for key, name, arguments in (
            ("single logger", "single", {"name": LOGGER, "count": 200}),
            ("single function", "single", {"name": FUNCTION, "count": 200}),
            ("burst", "burst", {"name": LOGGER, "times": 10}),
            ("bare burst", "burst", {"name": LIMIT_LOGGER, "times": 10}),
            ("full queue", "full_queue", {"times": 10}), ("batch", "batch", {"times": 20}),
        ):  # fmt: skip
            found[key] += worker.run(name, **arguments)["ms"]
        for key, beside in (("beside openai", ["openai"]), ("alone", [])):
            footprint = _footprint(beside)
            for name, value in footprint.items():
                found[f"{key} {name}"].append(value)
        steady = worker.run("steady", seconds=seconds)
        found["cpu"].append(steady["cpu_percent"])
        found["cpu of the harness"].append(steady["harness_percent"])
        loop = worker.run("event_loop", count=200)
        found["await"] += loop["ms"]
        found["loop blocked"].append(loop["full_blocked_ms"])
        found["loop awaited"].append(loop["full_awaited_ms"])
        for scenario in COMPLETENESS:
            one = worker.run("completeness", scenario=scenario)
            whole = one["expected"] - one["lost"] - one["doubled"] - one["torn"]
            found[scenario].append(100 * whole / one["expected"])
            found[f"{scenario} records"].append(one["expected"])
        print(".", end="", file=sys.stderr, flush=True)
    found["growth"].append(worker.run("grown", count=100_000)["mb"])
    print(file=sys.stderr)
    return {**found, **log_writes(seconds)}


def _footprint(beside: list[str]) -> dict[str, float]:
    try:
        return worker.run("footprint", beside=beside, records=900)
    except worker.MeasurementError as error:  # the extra is not there
        print(f"left out: {error}", file=sys.stderr)
        return {}


def table_of(found: dict[str, list[float]]) -> list[Row]:
    """Return the rows that the replaced system claimed."""

    def of(key: str) -> list[float]:
        return found.get(key, [])

    saved = [100 * (1 - one) for one in of("writes")]
    rows = [
        Row("single call, `Logger.info(extra=...)`", "0.1 ms", "< 1 ms", 1, of("single logger"), "ms"),
        Row("single call, `log_ai_response()`", "0.1 ms", "< 1 ms", 1, of("single function"), "ms"),
        Row("40 concurrent calls", "5 ms", "< 50 ms", 50, of("burst"), "ms"),
        Row("call at a full queue (it writes 1,001 records)", "5 ms", "<= 5 ms", 5, of("full queue"), "ms"),
        Row("batch of 10, until it is in the log", "5 ms", "<= 5 ms", 5, of("batch"), "ms"),
        Row("memory, import and set-up", "2 MB", "< 5 MB", 5, of("beside openai set_up_mb"), "MB"),
        Row("CPU of one core at 50 records/s", "0.5 %", "< 2 %", 2, of("cpu"), "%"),
        Row("writes to the log saved, at 50 records/s", "80 %", ">= 80 %", 80, saved, "%", least=True),
        Row("threads added", "1", "1", 1, of("beside openai threads") or of("alone threads"), ""),
    ]  # fmt: skip
    claims = {"normal": "99.9 %"}
    for scenario, text in COMPLETENESS.items():
        rows.append(
            Row(f"complete: {text}", claims.get(scenario, "99 to 99.9 %"), "100 %", 100, of(scenario), "%", least=True)
        )
    return rows


def table_of_goals(found: dict[str, list[float]]) -> list[Row]:
    """Return the rows of our own that these measurements can judge."""

    def of(key: str) -> list[float]:
        return found.get(key, [])

    ratio = [statistics.median(of("burst")) / statistics.median(of("bare burst"))] if of("bare burst") else []
    return [
        Row("import and set-up beside `openai`", "", "<= 20 ms", 20, of("beside openai set_up_ms"), "ms"),
        Row("import and set-up in a bare program", "", "-", float("inf"), of("alone set_up_ms"), "ms"),
        Row("the same, memory", "", "-", float("inf"), of("alone set_up_mb"), "MB"),
        Row("memory with 900 records waiting", "", "-", float("inf"), of("beside openai with_waiting_mb"), "MB"),
        Row("memory added by 100,000 records flat out", "", "<= 20 MB", 20, of("growth"), "MB"),
        Row("40 concurrent calls / the same into a NullHandler", "", "<= 1.5", 1.5, ratio, ""),
        Row("CPU at 50 records/s", "", "<= 1 %", 1, of("cpu"), "%"),
        Row("... of it the pacing loop and `logging` alone", "", "-", float("inf"), of("cpu of the harness"), "%"),
        Row("writes to the log a record, at 50 records/s", "", "<= 0.2", 0.2, of("writes"), ""),
        Row("write calls a record, journal and marks included", "", "-", float("inf"), of("calls"), ""),
        Row("descriptors added", "", "-", float("inf"), of("alone descriptors"), ""),
        Row("`await alog_ai_response()` at about 500/s", "", "< 1 ms", 1, of("await"), "ms"),
        Row(
            "full queue, a stranger holds the lock: event loop stands still, `log_ai_response()`",
            "", "<= 1,000 ms + 5 %", 1050, of("loop blocked"), "ms",
        ),
        Row("the same, `await alog_ai_response()`", "", "-", float("inf"), of("loop awaited"), "ms"),
    ]  # fmt: skip


HEADS: Final = ["what", "claim", "goal", "ours, median", "p95", "p99", ""]


def _full(found: dict[str, list[float]], rounds: int, *, markdown: bool) -> str:
    def goal_cells(row: Row) -> list[str]:
        what, _, goal, *rest, met = row.cells()
        return [what, goal, *rest, "" if goal == "-" and row.figures else met]

    goals = [goal_cells(row) for row in table_of_goals(found)]
    records = ", ".join(f"{sum(found[f'{scenario} records']):,.0f} ({scenario})" for scenario in COMPLETENESS)
    return "\n\n".join([
        f"{tables.machine()}\n{tables.command()}, {rounds} rounds; records looked for: {records}.",
        tables.table(HEADS, [row.cells() for row in table_of(found)], markdown=markdown),
        tables.table([one for one in HEADS if one != "claim"], goals, markdown=markdown),
    ])  # fmt: skip


def _short(found: dict[str, list[float]]) -> str:
    """Return the table for README."""
    rows = [
        [what, claim, goal, ours, met] for what, claim, goal, ours, _, _, met in (r.cells() for r in table_of(found))
    ]
    return tables.table(["", "claimed before", "goal", "ours, median", ""], rows, markdown=True)


def main() -> int:
    """Measure and print; 1 if a record is not in the log once and whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="at 50 records a second")
    parser.add_argument("--json", default="", help="append all figures to this file, one JSON line a run")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--write", action="store_true", help="put the tables into README and docs/explanation/speed.md")
    asked = parser.parse_args()
    found = measure(asked.rounds, asked.seconds)
    if asked.json:
        with Path(asked.json).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(found) + "\n")
    text = _full(found, asked.rounds, markdown=asked.markdown or asked.write)
    print(text)
    if asked.write:
        tables.write_into(tables.PAGE, "acceptance", text)
        tables.write_into(tables.README, "acceptance", _short(found))
    return int(any(value < 100 for scenario in COMPLETENESS for value in found[scenario]))


if __name__ == "__main__":
    sys.exit(main())
