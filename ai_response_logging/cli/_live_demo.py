"""``ai-responses demo --live``: a small real model answers, and the recording client keeps what it says."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import typer

from ..errors import MissingExtraError
from ._console import EXIT_NOT_WELL, plain, print_error, print_line

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["live_demo"]

_QUESTIONS: Final = (
    ("Why is the sky blue?", False),
    ("Name three fruits.", True),
    ("What is a compiler?", True),
)
_MOST_TOKENS: Final = 48
_SEED: Final = 7
_TIMEOUT_S: Final = 300.0


def live_demo(file: str | os.PathLike[str]) -> None:
    """Ask the model, show what it says as it says it, and prove from the log that all of it was kept."""
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "local-model")
    from openai import OpenAI

    from ..config import configure
    from ..integrations.openai import recording_client
    from ..reader import read_log
    from ..record import default_log_path
    from ..testing.live import LIVE_MODEL, LiveModelServer
    from ..verify import verify_log

    path = default_log_path(file)
    handler = configure("default", filename=path)
    before = {record["record_id"] for record in read_log(path, missing_ok=True)}
    print_line("A model of 135 million parameters is loaded on this machine; nothing leaves it, no key is needed.")
    with (
        LiveModelServer() as server,
        OpenAI(
            base_url=server.base_url,
            api_key="none",
            timeout=_TIMEOUT_S,
            max_retries=0,
            http_client=recording_client(max_retries=0, platform="local"),
        ) as client,
    ):
        said = [_ask(client, LIVE_MODEL, question, is_streamed) for question, is_streamed in _QUESTIONS]
    handler.flush()
    records = [record for record in read_log(path) if record["record_id"] not in before]
    answers = [record for record in records if record.get("event") == "response"]
    report = verify_log(path)
    for record in answers:
        first = f", the first token after {record['ttft_ms']:,.0f} ms" if record.get("ttft_ms") else ""
        print_line(
            f"recorded: {record.get('prompt_tokens', '?')} + {record.get('completion_tokens', '?')} tokens in "
            f"{record['latency_ms']:,.0f} ms{first} ({record['record_id']})"
        )
    is_well = [record.get("response") for record in answers] == said and report.whole
    print_line(f"verify: {'whole' if report.whole else 'not whole'}; {report.records} records")
    if not is_well:
        print_error("the demo did not go as it should: what the log holds is not what the model said")
    print_line(f"log: {path}")
    if not is_well:
        raise typer.Exit(EXIT_NOT_WELL)


def _ask(client: OpenAI, model: str, question: str, is_streamed: bool) -> str:  # noqa: FBT001  said beside each question
    """Ask, show the answer as it comes, and return it."""
    print_line(f"\n{question} ({'streamed' if is_streamed else 'plain'})")
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": _MOST_TOKENS,
        "temperature": 0.0,
        "seed": _SEED,
    }
    if not is_streamed:
        text = client.chat.completions.create(**asked).choices[0].message.content or ""
        print_line(plain(text))
        return text
    pieces = []
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
        pieces.append(piece)
        sys.stdout.write(plain(piece))
        sys.stdout.flush()
    print_line()
    return "".join(pieces)
