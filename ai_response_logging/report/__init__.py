"""
A log as one HTML page to look at, which opens offline.

Figures are of all records; texts of calls are chosen, failed ones and the slowest first, so that the page stays below
5 MB, and the page says so.
"""

from __future__ import annotations

from ._write import Report, report

__all__ = ["Report", "report"]
