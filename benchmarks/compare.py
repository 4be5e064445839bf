"""
Ours beside the limit and beside what people use instead; ``compare.py --rounds 5`` in an environment with ``.[bench]``.

Every measurement is a fresh process, the contenders take turns within a round, and ratios are formed within a round
only, since other programs want the machine, too.  ``p50/Y`` and ``CPU/Y`` are in units of Y, the limit: encode, lock,
write, and what `logging` itself costs (the first two rows together).  Medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import picture
import tables
import worker
from contenders import ENTRIES, LIMIT_LOGGER, LIMIT_WRITE, RIVAL

Round = dict[str, dict[str, Any]]
LOGGER, FUNCTION = "ours crash Logger", "ours crash function"
HEADS: Final = [
    "contender", "flat out p50, µs", "p95", "p99", "p50/Y", "2,000/s p50, µs", "p95", "p99", "CPU, µs a record",
    "CPU/Y", "beside a busy thread, µs", "records/s, 1 thread", "8 threads", "8 processes", "lost/doubled/torn",
]  # fmt: skip
COLUMNS: Final[list[tuple[Callable[[dict[str, Any]], Any], str]]] = [
    (lambda one: one["flat_us"][0], ".1f"), (lambda one: one["flat_us"][1], ".1f"),
    (lambda one: one["flat_us"][2], ".0f"), (lambda one: one["p50/Y"], ".2f"),
    (lambda one: one["paced_us"][0], ".0f"), (lambda one: one["paced_us"][1], ".0f"),
    (lambda one: one["paced_us"][2], ".0f"), (lambda one: one["cpu_us"], ".1f"), (lambda one: one["cpu/Y"], ".2f"),
    (lambda one: one["busy_us"], ".0f"), (lambda one: one["rps_1"], ",.0f"), (lambda one: one["rps_8"], ",.0f"),
    (lambda one: one["processes"]["rps"], ",.0f"),
]  # fmt: skip
FIGURES: Final[dict[str, Callable[[dict[str, Any]], float]]] = {
    "p50/Y": lambda one: one["flat_us"][0],
    "cpu/Y": lambda one: one["cpu_us"],
}
# what, whose, how it is found in a round, the bound, whether it is the most or the least
GOALS: Final[list[tuple[str, Callable[[Round], float | None], float, bool]]] = [
    ("caller p50 flat out, Logger / Y", lambda found: found[LOGGER]["p50/Y"], 1.25, True),
    ("caller p50 flat out, function / Y", lambda found: found[FUNCTION]["p50/Y"], 0.75, True),
    ("CPU a record, Logger / Y", lambda found: found[LOGGER]["cpu/Y"], 1.35, True),
    ("CPU a record, function / Y", lambda found: found[FUNCTION]["cpu/Y"], 0.90, True),
    ("mean beside a busy thread, µs", lambda found: found[LOGGER]["busy_us"], 25, True),
    (f"2,000/s p99 / {RIVAL}", lambda found: found[LOGGER]["paced_us"][2] / found[RIVAL]["paced_us"][2], 0.5, True),
    (f"records/s, 8 threads / {RIVAL}", lambda found: found[LOGGER]["rps_8"] / found[RIVAL]["rps_8"], 3, False),
    (
        f"records/s, 8 processes / {RIVAL}",
        lambda found: found[LOGGER]["processes"]["rps"] / found[RIVAL]["processes"]["rps"],
        3,
        False,
    ),
    ("close with 1,000 just logged, ms", lambda found: found[LOGGER]["close_ms"], 30, True),
]


def play_round(names: list[str], count: int, keep: Callable[[dict[str, Any]], None]) -> Round:
    """Measure every contender once; one that fails is left out of the round, and says so."""
    found: Round = {}
    for name in names:
        entry = ENTRIES[name]
        share = max(100, int(count * entry.share))
        try:
            one = worker.run("calls", name=name, count=share, writes=entry.writes)
            if entry.writes:
                one["processes"] = worker.run("processes", name=name, count=max(20, share // 4), of=8)
        except worker.MeasurementError as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        found[name] = one
        keep({"contender": name, **one})
        print(".", end="", file=sys.stderr, flush=True)
    limits = [found.get(name) for name in (LIMIT_WRITE, LIMIT_LOGGER)]
    for one in found.values():
        for ratio, figure in FIGURES.items():
            both = [figure(limit) for limit in limits if limit]
            one[ratio] = figure(one) / sum(both) if len(both) == len(limits) else None
    return found


def cell(values: list[Any], form: str) -> str:
    """Return the median of *values*; a dash where there is none."""
    there = [value for value in values if value is not None]
    return format(statistics.median(there), form) if there else "-"


def _of(one: dict[str, Any], figure: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        return figure(one)
    except KeyError:  # whoever writes nothing was not run as several processes
        return None


def _verdict(all_of_it: list[dict[str, Any]]) -> str:
    checks = [check for one in all_of_it for check in (one["check"], one.get("processes", {}).get("check")) if check]
    sums = [sum(check[kind] for check in checks) for kind in ("lost", "doubled", "torn")]
    return "/".join(map(str, sums)) if checks else "-"


def rows(rounds: list[Round], names: list[str]) -> list[list[str]]:
    """Return a row for each contender."""
    made = []
    for name in names:
        mine = [found[name] for found in rounds if name in found]
        if mine:
            cells = [cell([_of(one, figure) for one in mine], form) for figure, form in COLUMNS]
            made.append([name, *cells, _verdict(mine)])
    return made


def bars(rounds: list[Round], names: list[str]) -> list[picture.Bar]:
    """Return a bar for each contender, as :func:`rows` has them."""
    made = []
    for name in names:
        if mine := [found[name] for found in rounds if name in found]:
            p50, p95, p99 = (statistics.median(one["flat_us"][place] for one in mine) for place in range(3))
            made.append(picture.Bar(name, p50, p95, p99, statistics.median(one["cpu_us"] for one in mine)))
    return made


def goal_rows(rounds: list[Round]) -> list[list[str]]:
    """Return a row for each goal that these rounds can judge."""
    made = []
    for what, figure, bound, is_most in GOALS:
        values = []
        for found in rounds:
            try:
                value = figure(found)
            except KeyError:  # --only left out whom it needs
                continue
            values += [] if value is None else [value]
        if values:
            middle = statistics.median(values)
            is_met = middle <= bound if is_most else middle >= bound
            sign = "<=" if is_most else ">="
            made.append([what, f"{sign} {bound:g}", f"{middle:.2f}", f"{min(values):.2f} to {max(values):.2f}",
                         "met" if is_met else "**missed**"])  # fmt: skip
    return made


def main() -> int:
    """Compare; 1 if a record of ours is lost, doubled or torn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000, help="records for each figure")
    parser.add_argument("--only", default="", help="parts of names, with commas between them")
    parser.add_argument("--json", default="", help="append every measurement to this file, one JSON line each")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--write", action="store_true", help="put tables and picture into docs/explanation/")
    asked = parser.parse_args()
    names = [name for name in ENTRIES if not asked.only or any(part in name for part in asked.only.split(","))]

    def keep(found: dict[str, Any]) -> None:
        if asked.json:
            with Path(asked.json).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(found) + "\n")

    rounds = [play_round(names, asked.count, keep) for _ in range(asked.rounds)]
    print(file=sys.stderr)
    markdown = asked.markdown or asked.write
    made = [f"{tables.machine()}\n{tables.command()}, {asked.rounds} rounds."]
    made.append(tables.table(HEADS, rows(rounds, names), markdown=markdown))
    if goals := goal_rows(rounds):
        made.append(tables.table(["goal", "bound", "median", "over the rounds", ""], goals, markdown=markdown))
    text = "\n\n".join(made)
    print(text)
    if asked.write:
        tables.write_into(tables.PAGE, "comparison", text)
        tables.PAGE.with_suffix(".svg").write_text(picture.draw(bars(rounds, names), tables.machine()), "utf-8")
    ours = [_verdict([found[name] for found in rounds if name in found]) for name in names if name.startswith("ours")]
    return int(any(verdict not in {"0/0/0", "-"} for verdict in ours))


if __name__ == "__main__":
    sys.exit(main())
