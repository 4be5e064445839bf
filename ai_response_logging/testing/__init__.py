"""
A model server on this machine, so that programs that call models can be tested offline.

It speaks what chat programs use of the OpenAI API (chat completions, Responses, legacy completions, embeddings and
``GET /v1/models``) and of the Anthropic API (messages), plain and streamed. What it answers is scripted, faults
included; what it was asked is kept.

    with LocalModelServer() as server:
        client = OpenAI(base_url=server.base_url, api_key="any")
        server.reply_with(Reply(status=429, retry_after_s=0.1), Reply(text="second try"))
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        assert len(server.requests) == 2

Standard library only. It listens on the IPv4 loopback address alone and checks no key.
"""

from __future__ import annotations

from .script import Reply, SeenRequest
from .server import LocalModelServer

__all__ = ["LocalModelServer", "Reply", "SeenRequest"]
