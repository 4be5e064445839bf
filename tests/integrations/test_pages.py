"""The lines that the how-to pages ask for do what they say when pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT, read_lines, run_child

from ai_response_logging.testing import LocalModelServer

from ._sdks import is_installed

ASK = {
    "openai": 'client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])',
    "anthropic": 'client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])',
}
PATIENCE_S = 40.0  # a machine with other work loads an SDK in this


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("sdk", list(ASK))
def test_three_lines_record_an_application(sdk: str, log_path: Path):
    """
    The first lines of the page, and a call behind them, make one record.
    """
    if not is_installed(sdk):
        pytest.skip(f"{sdk} is not installed")
    page = (ROOT / "docs" / "how-to" / f"record-an-{sdk}-application.md").read_text("utf-8")
    lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    with LocalModelServer() as server:
        env = {
            "AI_RESPONSES_FILE": str(log_path),
            "OPENAI_BASE_URL": server.base_url,
            "ANTHROPIC_BASE_URL": server.anthropic_base_url,
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_API_KEY": "any",
        }
        run_child(f"{lines}\n{ASK[sdk]}\n", env=env, timeout=PATIENCE_S)

    (record,) = read_lines(log_path)
    assert (record["question"], record["response"]) == ("Hi", "m answers: Hi")
