"""
What recording adds to a call through the OpenAI SDK: bare and recording clients in turn, in one run, on one server.

    python benchmarks/integrations.py [--calls 300] [--rounds 5] [--chunks 50] [--json FILE]

The server is a process of its own on loopback and answers at once, so what is measured is the client's side alone; a
real model takes a second where this one takes a millisecond. Each figure is of all rounds; what counts is the
difference, since it is the same beside any model. Processor time is the calling thread's own, and the steadiest figure
on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tables import command, machine, table

QUESTION = [{"role": "user", "content": "Which phone has the best camera? " * 8}]


def serve(connection: Connection, chunks: int) -> None:
    """Answer every call until the other end closes."""
    from ai_response_logging.testing import LocalModelServer, Reply

    with LocalModelServer() as server:
        server.reply_always(Reply(text="An answer of forty characters, or so. " * chunks, chunk_chars=38))
        connection.send(server.base_url)
        connection.recv()


def plain(client: Any) -> tuple[float, float]:
    """Return how long a plain call took, twice, in ms."""
    began_s = time.perf_counter()
    client.chat.completions.create(model="m", messages=QUESTION)
    took_ms = (time.perf_counter() - began_s) * 1000
    return took_ms, took_ms


def streamed(client: Any) -> tuple[float, float]:
    """Return how long the first token and the whole of a stream took, in ms."""
    began_s, first_s = time.perf_counter(), 0.0
    for chunk in client.chat.completions.create(model="m", messages=QUESTION, stream=True):
        if not first_s and chunk.choices and chunk.choices[0].delta.content:
            first_s = time.perf_counter()
    return (first_s - began_s) * 1000, (time.perf_counter() - began_s) * 1000


def measure(url: str, calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the times of every case, bare and recorded, in turn."""
    import openai

    from ai_response_logging.integrations.openai import recording_client

    bare = openai.OpenAI(base_url=url, api_key="k", http_client=openai.DefaultHttpxClient())
    recorded = openai.OpenAI(base_url=url, api_key="k", http_client=recording_client())
    kinds: dict[str, Callable[[Any], tuple[float, float]]] = {"plain": plain, "stream": streamed}
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for kind, ask in kinds.items():
            for _ in range(calls // rounds):
                for name, client in (("bare", bare), ("recorded", recorded)):  # in turn: a busy moment hits both
                    used_s = time.thread_time()
                    first_ms, whole_ms = ask(client)
                    used_s = time.thread_time() - used_s
                    if number:  # the first round only warms up
                        times.setdefault(f"{kind} processor time {name}", []).append(used_s * 1000)
                        times.setdefault(f"{kind} first token {name}", []).append(first_ms)
                        times.setdefault(f"{kind} whole call {name}", []).append(whole_ms)
    bare.close()
    recorded.close()
    return times


def rows(times: dict[str, list[float]]) -> list[list[str]]:
    """Return a line for each figure: bare, recorded, what is added, and the ratio, of medians and of p95."""
    lines = []
    kinds = ("plain whole call", "plain processor time")
    for what in (*kinds, "stream first token", "stream whole call", "stream processor time"):
        for name, of in (("median", statistics.median), ("p95", _p95)):
            bare, recorded = of(times[f"{what} bare"]), of(times[f"{what} recorded"])
            added = f"{(recorded - bare) * 1000:+.0f} us"
            lines.append([what, name, f"{bare:.2f} ms", f"{recorded:.2f} ms", added, f"{recorded / bare:.2f}"])
    return lines


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What recording adds to a call through the OpenAI SDK.")
    parser.add_argument("--calls", type=int, default=300, help="of each kind and client, in all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=50, help="chunks of a stream")
    parser.add_argument("--json", type=Path, help="keep all times there, in ms")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, options.chunks), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AI_RESPONSES_FILE"] = str(Path(folder) / "log.jsonl")
        times = measure(ours.recv(), options.calls, options.rounds)
        from ai_response_logging import get_async_logger

        recorder = get_async_logger()
        recorder.flush()
        stats = recorder.get_stats()
        recorder.close()
    ours.send(None)
    server.join(10)
    print(command(), machine(), sep="\n")
    print(table(["what", "of", "bare", "recorded", "added", "ratio"], rows(times), markdown=True))
    print(f"{stats['written']} of {stats['accepted']} records written, {stats['failed']} failed")
    if options.json:
        options.json.write_text(json.dumps(times), "utf-8")


if __name__ == "__main__":
    main()
