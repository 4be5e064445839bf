"""The comparison as an SVG picture: what a call costs whoever makes it, and what a record costs all threads."""

from __future__ import annotations

import math
from html import escape
from typing import Final, NamedTuple

_NAMES_WIDE: Final = 190
_CALLS_WIDE: Final = 420
_CPU_WIDE: Final = 170
_ROW: Final = 22
_TOP: Final = 64
_OURS, _OTHERS, _LIMIT = "#b3384a", "#30638e", "#6b6b6b"


class Bar(NamedTuple):
    """One contender's row: a call's p50, p95 and p99 flat out, and CPU a record of all threads, in microseconds."""

    name: str
    p50_us: float
    p95_us: float
    p99_us: float
    cpu_us: float


def draw(bars: list[Bar], title: str) -> str:
    """Return the picture: calls on a logarithmic scale, dot p50, tick p95, end p99; CPU on a linear one."""
    bottom = _TOP + _ROW * len(bars)
    width, height = _NAMES_WIDE + _CALLS_WIDE + 60 + _CPU_WIDE + 60, bottom + 30
    low = math.floor(math.log10(min(bar.p50_us for bar in bars)))
    high = math.ceil(math.log10(max(bar.p99_us for bar in bars)))
    cpu_left, most_cpu_us = _NAMES_WIDE + _CALLS_WIDE + 60, max(bar.cpu_us for bar in bars)

    def across(us: float) -> float:
        return _NAMES_WIDE + (math.log10(us) - low) / (high - low) * _CALLS_WIDE

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">'
    )
    parts = [
        head,
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_NAMES_WIDE}" y="20" font-weight="bold">a call, flat out: p50 (dot), p95 (tick), p99 (end)</text>',
        f'<text x="{cpu_left}" y="20" font-weight="bold">CPU a record, all threads</text>',
    ]
    for power in range(low, high + 1):
        x, label = across(10**power), f"{10**power:g} µs" if power < 3 else f"{10 ** (power - 3):g} ms"
        parts.append(f'<line x1="{x:.0f}" y1="{_TOP - 18}" x2="{x:.0f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.0f}" y="{_TOP - 24}" text-anchor="middle" fill="#555">{label}</text>')
    for row, bar in enumerate(bars):
        y = _TOP + _ROW * row
        colour = _OURS if bar.name.startswith("ours") else _LIMIT if bar.name.startswith("limit") else _OTHERS
        wide = bar.cpu_us / most_cpu_us * _CPU_WIDE
        parts += [
            f'<text x="{_NAMES_WIDE - 10}" y="{y + 4}" text-anchor="end" fill="{colour}">{escape(bar.name)}</text>',
            f'<line x1="{across(bar.p50_us):.1f}" y1="{y}" x2="{across(bar.p99_us):.1f}" y2="{y}" stroke="{colour}"/>',
            f'<circle cx="{across(bar.p50_us):.1f}" cy="{y}" r="4" fill="{colour}"/>',
            f'<rect x="{across(bar.p95_us) - 1:.1f}" y="{y - 5}" width="2" height="10" fill="{colour}"/>',
            f'<rect x="{cpu_left}" y="{y - 6}" width="{wide:.1f}" height="12" fill="{colour}"/>',
            f'<text x="{cpu_left + wide + 6:.1f}" y="{y + 4}" fill="#333">{bar.cpu_us:.0f} µs</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
