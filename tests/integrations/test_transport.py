"""Every situation through every SDK: one call, one outcome, and an application that sees no difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_response_logging import AIResponseHandler

from ._play import play
from ._sdks import KEY, SDKS, Sdk, is_installed
from ._situations import QUESTION, SITUATIONS, TEXT, Situation

Records = Callable[[], list[dict[str, Any]]]
pytestmark = [
    pytest.mark.slow,
    # A client that is dropped with its answer unread leaves its connection to the collector, recorded or not.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
each_case = pytest.mark.parametrize(
    ("sdk", "situation"),
    [
        pytest.param(
            sdk,
            situation,
            id=f"{sdk.name}-{situation.name}",
            marks=pytest.mark.skipif(not is_installed(sdk.package), reason=f"{sdk.package} is not installed"),
        )
        for sdk in SDKS
        for situation in SITUATIONS
        if sdk.has_tools or "tool_calls" not in situation.expected
    ],
)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@each_case
def test_a_call_has_one_outcome_and_the_application_sees_no_difference(
    sdk: Sdk, situation: Situation, is_async: bool, handler: AIResponseHandler, recorded: Records
):
    """
    Whatever becomes of a call, its records say so, and results, exceptions and requests are those of the bare SDK.
    """
    bare = play(sdk, situation, is_async=is_async, recorded=False)
    hooked = play(sdk, situation, is_async=is_async, recorded=True)

    assert hooked == bare
    assert bare.error is None or not situation.expected.get("success")
    records = recorded()
    first, last = records[0], records[-1]
    starts = ["start"] if situation.is_stream else []
    assert [record["event"] for record in records] == [*starts, *situation.events]
    assert len({record["call_id"] for record in records}) == 1
    assert [record["question"] for record in records] == [QUESTION] * len(records)
    assert first["model"] == "m"
    assert sdk.settings.items() <= last.items()
    assert {name: last.get(name) for name in situation.expected} == situation.expected
    tries = [one.get("status") for one in last.get("attempts", [])] or [last.get("http_status_code", 200)]
    if situation.name == "cut" and not sdk.sees_answers_that_are_cut:
        assert tries == [None, 200]
    elif len(situation.statuses) > 1:
        assert tries == list(situation.statuses)
    assert last["retry_count"] == len(situation.statuses) - 1
    if situation.text_starts:
        assert last["response"]
        assert TEXT.startswith(last["response"])
    assert KEY not in Path(handler.filename).read_text("utf-8")
