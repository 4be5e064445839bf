"""The memory, descriptors and threads of processes over time: taken, judged, and drawn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MOST_POINTS: Final = 300


class Sample(NamedTuple):
    """One process at one moment."""

    at_s: float
    mib: float
    descriptors: int
    threads: int


class Bound(NamedTuple):
    """How much more the last third of a curve may have than the first, by the median or the lowest value of each."""

    name: str
    of: Callable[[list[float]], float]
    share: float
    plus: float

    def holds(self, first: float, last: float) -> bool:
        """Say whether the curve is flat."""
        return last <= first * (1 + self.share) + self.plus


# In a Sample's order.
BOUNDS: Final = (
    # In ten minutes a writer's went up by 3.8 in a few steps; docs/explanation/endurance.md says what is known of it.
    Bound("resident MiB", median, 0.05, 4.0),
    # Up and down as files are read and compressed, so the lowest; a handler that is open has 5 and a thread, a closed
    # one none. What leaks at each of many faults is more than that.
    Bound("descriptors", min, 0.0, 6.0),
    Bound("threads", min, 0.0, 1.0),
)


def take(pid: int, at_s: float) -> Sample:
    """Return what a process holds now."""
    process = Path(f"/proc/{pid}")
    resident = int((process / "statm").read_text("ascii").split()[1]) * _PAGE
    return Sample(at_s, resident / (1 << 20), len(os.listdir(process / "fd")), len(os.listdir(process / "task")))


class Watch(threading.Thread):
    """Takes a sample of each process every few seconds until it is told to stop."""

    def __init__(self, pids: dict[str, int], every_s: float) -> None:
        super().__init__(daemon=True)
        self.pids, self.every_s = pids, every_s
        self.curves: dict[str, list[Sample]] = {name: [] for name in pids}
        self._ended = threading.Event()

    def run(self) -> None:
        """Take samples."""
        began_s = time.monotonic()
        while not self._ended.wait(self.every_s):
            for name, pid in self.pids.items():
                self.curves[name].append(take(pid, time.monotonic() - began_s))

    def stop(self) -> None:
        """Take no more."""
        self._ended.set()
        self.join()


def steep(curves: dict[str, list[Sample]]) -> list[str]:
    """Print the thirds of every curve; return a line for each that is not flat."""
    found = []
    for index, bound in enumerate(BOUNDS, 1):
        for name, curve in curves.items():
            values, third = [sample[index] for sample in curve], max(1, len(curve) // 3)
            first, last = bound.of(values[:third]), bound.of(values[-third:])
            text = f"{bound.name:<14}{name:<10}{first:>8.1f} ->{last:>7.1f}"
            print(text)
            if not bound.holds(first, last):
                found.append(f"{text}: more than {bound.share:.0%} + {bound.plus:g}")
    return found


def picture(curves: dict[str, list[Sample]], title: str) -> str:
    """Return the curves as an SVG picture: a panel for each measure, a line for each process."""
    width, height, left, top, gap = 640, 110, 90, 40, 36
    total = top + len(BOUNDS) * (height + gap) + 10
    end_s = max(curve[-1].at_s for curve in curves.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {total}" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20">{title}</text>',
    ]
    for index, bound in enumerate(BOUNDS, 1):
        y = top + (index - 1) * (height + gap)
        high = 1.25 * max(sample[index] for curve in curves.values() for sample in curve)
        parts.append(f'<rect x="{left}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#bbb"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 10}" text-anchor="end">{high:.0f}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + height}" text-anchor="end">0</text>')
        parts.append(f'<text x="{left - 6}" y="{y + height / 2}" text-anchor="end">{bound.name}</text>')
        parts.append(f'<text x="{left + width}" y="{y + height + 14}" text-anchor="end">{end_s:.0f} s</text>')
        for name, curve in curves.items():
            step = -(-len(curve) // _MOST_POINTS)
            points = " ".join(
                f"{left + sample.at_s / end_s * width:.0f},{y + height - sample[index] / high * height:.1f}"
                for sample in curve[::step]
            )
            colour = "#d1495b" if name == "reader" else "#30638e"
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    return "\n".join([*parts, "</svg>", ""])
