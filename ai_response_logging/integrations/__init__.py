"""
Hooks that record what an application asks of AI models, and what it gets, without a log call at each place.

``openai`` and ``anthropic`` have clients for the official SDKs, ``litellm`` and ``langchain`` handlers for those
libraries; `record` is for anything else. Each imports the library that it is for, and nothing else does.
"""

from __future__ import annotations

from .._context import ai_context
from ._record import Recording, record

__all__ = ["Recording", "ai_context", "record"]
