"""What a call costs at most while the log is slow, locked or full, by the command that prints the figures."""

from __future__ import annotations

import pytest
from helpers import ROOT, run_child

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.timeout(120)
def test_call_never_takes_longer_than_caller_timeout_says():
    """Log slow, locked or full: under a second with room in the queue, and caller_timeout plus a second without."""
    done = run_child(ROOT / ".ci" / "limits.py", "--seconds", "0.8", timeout=100)

    rows = done.stdout.splitlines()[1:]
    assert len(rows) == 6, done.stdout
    assert "spilled" in next(row for row in rows if row.startswith("a stranger holds the lock  full"))
