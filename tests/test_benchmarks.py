"""The benchmarks run, read every log back, and say what is missed; their figures are nobody's test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers import ROOT, run_child

BENCHMARKS = ROOT / "benchmarks"
NAMES = (
    "worker", "contenders", "records", "scenarios", "growing", "tables", "growth", "acceptance", "compare", "ablation",
    "picture",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the scripts as they import each other, and leave nothing of them behind."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_compare_measures_and_finds_each_log_whole(tmp_path: Path) -> None:
    """One small round runs to its end, keeps its figures as JSON lines, and each of the logs is whole."""
    figures = tmp_path / "figures.jsonl"
    options = ["--rounds", 1, "--count", 100, "--only", "limit: orjson,ours crash function", "--json", figures]

    done = run_child(BENCHMARKS / "compare.py", *options, timeout=50, env={"TMPDIR": str(tmp_path)})

    found = [json.loads(line) for line in figures.read_text("utf-8").splitlines()]
    assert [one["contender"] for one in found][-1:] == ["ours crash function"]
    assert all(one["check"] == one["processes"]["check"] == {"lost": 0, "doubled": 0, "torn": 0} for one in found)
    assert "0/0/0" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ablation_takes_each_part_out_and_every_line_still_leaves_the_queue(tmp_path: Path) -> None:
    """A part that has another name by now would be left in, and seem to cost nothing."""
    import ablation

    bodies = [b'{"number":%d' % number for number in range(10)]
    took = ablation.one_round(bodies)
    done = run_child(BENCHMARKS / "ablation.py", "--rounds", 1, timeout=50, env={"TMPDIR": str(tmp_path)})

    assert all(took.values())
    assert all(name in done.stdout for name in took)


def test_a_log_that_is_not_whole_is_seen(log_path: Path) -> None:
    """Records that are missing, there twice, or cut off are counted, whoever wrote them, rotated files included."""
    import worker

    lines = [json.dumps({worker.ID: name}) for name in "abbc"]
    log_path.write_text("\n".join([*lines, '{"bench_id": "d']), "utf-8")
    log_path.with_name(f"{log_path.name}.20250101T000000.000000Z").write_text(f"{lines[0]}\n", "utf-8")

    assert worker.check(str(log_path), 5) == {"lost": 2, "doubled": 2, "torn": 1}


def test_records_share_no_string_that_is_encoded() -> None:
    """A string that was encoded once is cheap to encode again, so that no two records have the same one."""
    import records

    first, again = records.make(0, "tag"), records.make(64, "tag")

    assert len(first) == 22
    assert first["question"] != again["question"]
    assert first["response"] is not again["response"]
    assert 4500 <= len(json.dumps(first, ensure_ascii=False).encode()) <= 5500


def test_growth_says_what_is_worse_than_linear() -> None:
    """A cost a unit that more than doubles is named with its step; noise and what shrinks are not."""
    import growth

    axis = growth.Axis("threads", [1, 2, 4], 2, dict, {"cpu_us": "CPU"}, {"cpu_us": 20.0})

    assert growth.worse_than_linear(axis, {1: {"cpu_us": 30.0}, 2: {"cpu_us": 59.0}, 4: {"cpu_us": 20.0}}) == []
    assert growth.worse_than_linear(axis, {1: {"cpu_us": 5.0}, 2: {"cpu_us": 20.0}}) == []
    assert growth.worse_than_linear(axis, {1: {"cpu_us": 30.0}, 4: {"cpu_us": 61.0}}) == [
        "threads 4: CPU 61.0, was 30.0"
    ]


def test_a_goal_that_is_missed_is_said() -> None:
    """The median decides, in both directions, and what could not be measured is not called met."""
    import acceptance

    def verdict(figures: list[float], *, least: bool = False) -> str:
        return acceptance.Row("what", "claim", "goal", 5, figures, "ms", least).cells()[-1]

    assert verdict([1, 5, 99]) == verdict([1, 5, 99], least=True) == "met"
    assert verdict([5.1]) == verdict([4.9], least=True) == "**missed**"
    assert verdict([]) == "not measured"


def test_tables_go_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    """Writing a page anew replaces what stood between its marks, backslashes and all."""
    import tables

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- here -->\nold\n<!-- end of here -->\nafter\n", "utf-8")

    tables.write_into(page, "here", r"new \1")

    assert page.read_text("utf-8") == "before\n<!-- here -->\nnew \\1\n<!-- end of here -->\nafter\n"
    with pytest.raises(SystemExit, match="needs one pair"):
        tables.write_into(page, "elsewhere", "new")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ablation_names_what_each_part_of_a_call_costs() -> None:
    """Each part of a call is measured alone, and what is left over is said for both ways to call."""
    done = run_child(BENCHMARKS / "ablation_caller.py", "--rounds", 1, "--markdown", timeout=50)

    rows = dict(row.strip("| ").split(" | ", 1) for row in done.stdout.splitlines() if row.startswith("| "))
    assert float(rows["a call through the Logger"].split(" | ")[0]) > 0
    assert {"checksum (CRC-32)", "left of the function's"} <= rows.keys()


def test_the_picture_shows_each_contender_in_its_place() -> None:
    """It is an SVG whose dots stand further right the longer a call takes, ten times as long one decade on."""
    import picture

    names = ["limit: a & b", "ours <fast>", "somebody's"]
    steps = (1.0, 10.0, 100.0)
    bars = [picture.Bar(name, 10 * step, 20 * step, 50 * step, 30.0) for name, step in zip(names, steps, strict=True)]
    drawn = picture.draw(bars, "x < y")
    root = ElementTree.fromstring(drawn)  # noqa: S314  our own
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    dots = [float(one.attrib["cx"]) for one in root.iter("{http://www.w3.org/2000/svg}circle")]

    assert set(names) <= set(texts)
    assert {"10 µs", "100 µs", "1 ms"} <= set(texts)
    assert dots[2] - dots[1] == pytest.approx(dots[1] - dots[0], abs=0.2)
    assert dots[1] > dots[0]
