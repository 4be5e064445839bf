"""CPython's own tests of QueueHandler and QueueListener, with ours in their place."""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap

import pytest
from helpers import run_child

has_stdlib_tests = pytest.mark.skipif(
    importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_logging") is None,
    reason="this Python comes without its own tests",
)

# Their decorators patch the class that stands in logging.handlers when they are imported: swap first, import then.
RUN = """
    import logging.handlers
    import sys
    import unittest

    from ai_response_logging.handler import ResponseQueueHandler
    from ai_response_logging.listener import BatchQueueListener

    class AtOnce(BatchQueueListener):
        calls = 0
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.batch_size, self.flush_interval = BATCH_SIZE, 0.01
        def start(self):
            type(self).calls += 1
            super().start()

    logging.handlers.QueueListener = AtOnce
    from test import test_logging

    # What they call QueueListener must be ours.
    assert test_logging.logging.handlers.QueueListener is AtOnce
    names = [name for name in ("QueueHandlerTest", "QueueListenerTest") if hasattr(test_logging, name)]
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromName(name, test_logging) for name in names)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    print("listeners started:", AtOnce.calls)
    sys.exit(not result.wasSuccessful())
"""


@has_stdlib_tests
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("batch_size", [1, 10])
def test_our_listener_passes_cpythons_own_tests(batch_size: int):
    """Whoever knows the stock listener knows ours: the tests that CPython holds its own to, ours passes as well."""
    code = f"BATCH_SIZE = {batch_size}\n" + textwrap.dedent(RUN)
    done = run_child(code, timeout=100, options=("-W", "ignore"))

    ran = re.search(r"Ran (\d+) tests", done.stdout)
    started = re.search(r"listeners started: (\d+)", done.stdout)
    assert ran, done.stdout
    assert int(ran[1]) >= 9, done.stdout
    assert started
    assert int(started[1]) >= 8, f"{sys.version}: {done.stdout}"
