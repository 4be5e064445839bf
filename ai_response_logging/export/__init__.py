"""
The log as data for others: training sets, batch files, tables, OpenTelemetry.

What is exported are answers; which are left out, and why, stands in a manifest beside the output, where every record
that was read is either used or counted under one reason.
"""

from __future__ import annotations

from ._files import Manifest
from ._select import Selection
from ._write import FORMATS, export

__all__ = ["FORMATS", "Manifest", "Selection", "export"]
