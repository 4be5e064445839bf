"""What processes hold over time: taken, judged, and drawn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from .held import held_as_told

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MOST_POINTS: Final = 300
_MIB: Final = 1 << 20


class Sample(NamedTuple):
    """One process at one moment."""

    at_s: float
    blocks: int
    used_mib: float
    busy_mib: float
    resident_mib: float
    descriptors: int
    threads: int


class Bound(NamedTuple):
    """
    How much more the last third of a curve may have than the middle one, by the median or lowest value of each.

    In the first third each process meets much for the first time.
    """

    name: str
    of: Callable[[list[float]], float]
    plus: float
    share: float = 0.0
    least_s: float = 0.0
    """Of a shorter run nothing is asked."""
    of_reader: bool = True
    """Whether it is asked of the reader, too."""

    def holds(self, before: float, last: float) -> bool:
        """Say whether the curve is flat."""
        return last <= before * (1 + self.share) + self.plus


# In a Sample's order.
BOUNDS: Final = (
    # All that is alive.  In a minute a writer logs about 300 records between the middles of the two thirds, so that one
    # object kept for every second of them is too many.  What was seen without a leak: 40 and 0.1 MiB up or down.
    Bound("objects", median, 100.0),
    Bound("malloc'ed MiB", median, 0.25),
    # Resident, less what malloc keeps for the next time.  In the middle of a pass, where most samples fall, the reader
    # has a few kB for each file and each writer of the log, and both become more all the while: of 220,000 records in
    # 559 files by 898 writers 21.0 MiB, of 383,000 in 1,088 by 1,378 22.3, and the same again in each further pass.
    # What it has between two passes, the two above say.
    Bound("in use MiB", median, 1.0, of_reader=False),
    # glibc gives each thread that allocates beside others an arena, and each of these keeps what the largest piece of
    # work took (compressing, bringing home: about 1 MiB): it goes up in steps until all have done such work.  That this
    # comes to an end takes a while to be seen.
    Bound("resident MiB", median, 2.0, share=0.05, least_s=600.0),
    # Up and down as files are read and compressed, so the lowest; a handler that is open has 5 and a thread, a closed
    # one none. What leaks at each of many faults is more than that.
    Bound("descriptors", min, 6.0),
    Bound("threads", min, 1.0),
)


class Watched(NamedTuple):
    """A process, and the file in which it tells what it holds."""

    pid: int
    tells: Path


def take(process: Watched, at_s: float) -> Sample:
    """Return what a process holds now."""
    folder = Path(f"/proc/{process.pid}")
    resident = int((folder / "statm").read_text("ascii").split()[1]) * _PAGE
    held = held_as_told(process.tells)
    return Sample(
        at_s, held.blocks, held.used_bytes / _MIB, (resident - held.free_bytes) / _MIB, resident / _MIB,
        len(os.listdir(folder / "fd")), len(os.listdir(folder / "task")),
    )  # fmt: skip


class Watch(threading.Thread):
    """Takes a sample of each process every few seconds until it is told to stop."""

    def __init__(self, processes: dict[str, Watched], every_s: float) -> None:
        super().__init__(daemon=True)
        self.processes, self.every_s = processes, every_s
        self.curves: dict[str, list[Sample]] = {name: [] for name in processes}
        self.error: Exception | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Take samples."""
        began_s = time.monotonic()
        try:
            while not self._ended.wait(self.every_s):
                for name, process in self.processes.items():
                    self.curves[name].append(take(process, time.monotonic() - began_s))
        except Exception as error:  # noqa: BLE001  a curve that ends early would look flat: stop() raises it
            self.error = error

    def stop(self) -> None:
        """Take no more; raises what kept it from taking them."""
        self._ended.set()
        self.join()
        if self.error is not None:
            raise self.error


def steep(curves: dict[str, list[Sample]]) -> list[str]:
    """Print the thirds of every curve; return a line for each that is not flat."""
    found = []
    for index, bound in enumerate(BOUNDS, 1):
        for name, curve in curves.items():
            values, size = [sample[index] for sample in curve], max(1, len(curve) // 3)
            thirds = [bound.of(part) for part in (values[:size], values[size:-size] or values, values[-size:])]
            text = f"{bound.name:<15}{name:<10}" + " ->".join(f"{one:>10.1f}" for one in thirds)
            print(text)
            is_asked = curve[-1].at_s >= bound.least_s and (bound.of_reader or name != "reader")
            if is_asked and not bound.holds(*thirds[1:]):
                found.append(f"{text}: more than {bound.share:.0%} + {bound.plus:g}")
    return found


def picture(curves: dict[str, list[Sample]], title: str) -> str:
    """Return the curves as an SVG picture: a panel for each measure, a line for each process."""
    width, height, left, top, gap = 640, 90, 110, 40, 30
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
