"""Which requests are calls to a model, and whose: by method, path and host; pure."""

from __future__ import annotations

from typing import Final

from ._anthropic_wire import MESSAGES
from ._openai_wire import CHAT, COMPLETIONS, EMBEDDINGS
from ._responses_wire import RESPONSES
from ._wire import Wire

__all__ = ["platform_of", "wire_of"]

_WIRES: Final = (
    ("/chat/completions", CHAT),
    ("/completions", COMPLETIONS),
    ("/embeddings", EMBEDDINGS),
    ("/responses", RESPONSES),
    ("/messages", MESSAGES),
)
# A platform <- the end of its hosts' names.
_HOSTS: Final = (
    (".openai.azure.com", "azure.openai"),
    (".services.ai.azure.com", "azure.openai"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.deepseek.com", "deepseek"),
    ("dashscope.aliyuncs.com", "qwen"),
    ("dashscope-intl.aliyuncs.com", "qwen"),
    (".volces.com", "doubao"),
    ("open.bigmodel.cn", "zhipu"),
    (".moonshot.cn", "moonshot"),
    (".moonshot.ai", "moonshot"),
    (".baidubce.com", "wenxin"),
    ("hunyuan.cloud.tencent.com", "hunyuan"),
    (".xf-yun.com", "spark"),
    ("generativelanguage.googleapis.com", "gemini"),
)


def wire_of(method: str, path: str) -> Wire | None:
    """Return the API that a request speaks; None if it asks no model (files, models, batches, ...)."""
    if method != "POST":
        return None
    path = path.rstrip("/")
    return next((wire for end, wire in _WIRES if path.endswith(end)), None)


def platform_of(host: str) -> str:
    """Return whose *host* is: a known platform, or the host itself."""
    return next((platform for end, platform in _HOSTS if host.endswith(end)), host)
