"""
A callback handler for LangChain that records every call of a model.

    from ai_response_logging.integrations.langchain import AIResponseCallbackHandler

    model.invoke(question, config={"callbacks": [AIResponseCallbackHandler()]})

or, for every model of the process, `instrument`. What LangChain does not report (a task that is cancelled, a process
that is killed) is seen by the ``start`` record and by the end of the task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ._extra import brought_by
from ._instrument import Switch
from ._open_calls import OpenCalls
from ._outcome import filtered_fields, known, usage_fields
from ._recorder import quietly
from ._wire import mapping_of, question_fields, text_of

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.callbacks import BaseCallbackHandler as _Base
else:
    _Base = brought_by("langchain", "langchain_core.callbacks").BaseCallbackHandler

__all__ = ["AIResponseCallbackHandler", "instrument", "uninstrument"]

_ROLES: Final = {"human": "user", "ai": "assistant"}
_SETTINGS: Final = ("temperature", "top_p", "max_tokens", "seed", "tools")


class AIResponseCallbackHandler(_Base):
    """
    Records every call of a chat model or of a text model: announced by ``start``, ended by one record.

    Durability: As the handler says. An answer is recorded before LangChain returns it.
    Threads: Any; one handler may serve any number of models. It raises nothing into the application.

    .. versionadded:: 0.1.0
    """

    # In the caller's own task: only there can its cancellation be seen.
    run_inline = True

    def __init__(self) -> None:
        self._calls = OpenCalls()

    def on_chat_model_start(
        self, serialized: Mapping[str, Any] | None, messages: list[list[Any]], *, run_id: UUID, **said: Any
    ) -> None:
        """Announce a call of a chat model."""
        quietly(self._begin)(run_id, "chat", [_message_of(one) for batch in messages for one in batch], said)

    def on_llm_start(
        self, serialized: Mapping[str, Any] | None, prompts: list[str], *, run_id: UUID, **said: Any
    ) -> None:
        """Announce a call of a text model."""
        quietly(self._begin)(run_id, "text_completion", "\n".join(prompts), said)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **said: Any) -> None:
        """Keep a piece of the answer."""
        quietly(self._calls.note_piece)(run_id, text_of(token))

    def on_llm_end(self, response: Any, *, run_id: UUID, **said: Any) -> None:
        """Record the answer."""
        quietly(self._end)(run_id, response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **said: Any) -> None:
        """Record the failure."""
        quietly(self._calls.fail)(run_id, error)

    def _begin(self, run_id: UUID, operation: str, asked: object, said: Mapping[str, Any]) -> None:
        metadata, params = mapping_of(said.get("metadata")), mapping_of(said.get("invocation_params"))
        stop = params.get("stop")
        fields = {
            "operation": operation,
            "platform": metadata.get("ls_provider"),
            "model": params.get("model") or params.get("model_name") or metadata.get("ls_model_name"),
            "stop": [stop] if isinstance(stop, str) else stop,
            "tags": list(said.get("tags") or []) or None,
            **{name: params.get(name) for name in _SETTINGS},
            **question_fields(asked),
        }
        self._calls.begin(run_id, known(fields))

    def _end(self, run_id: UUID, response: Any) -> None:
        self._calls.end(run_id, _answer_fields(response))


def _message_of(message: Any) -> dict[str, Any]:
    """Return a message as the chat API has it."""
    role = _ROLES.get(message.type, message.type)
    calls = [_call_of(call) for call in getattr(message, "tool_calls", None) or []]
    reply_to = getattr(message, "tool_call_id", None)
    return known({"role": role, "content": message.content, "tool_calls": calls or None, "tool_call_id": reply_to})


def _call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call.get("name") or "", "arguments": json.dumps(call.get("args") or {}, ensure_ascii=False)}
    return {"id": call.get("id") or "", "type": "function", "function": function}


def _answer_fields(response: Any) -> dict[str, Any]:
    generations: Sequence[Any] = [one for batch in response.generations for one in batch]
    first = generations[0] if generations else None
    message = getattr(first, "message", None)
    said = mapping_of(getattr(message, "response_metadata", None))
    reasons = [reason for one in generations if (reason := _reason_of(one))]
    calls = [_call_of(call) for call in getattr(message, "tool_calls", None) or []]
    usage = getattr(message, "usage_metadata", None) or mapping_of(response.llm_output).get("token_usage")
    choices = [
        {"index": at, "message": {"role": "assistant", "content": one.text}} for at, one in enumerate(generations)
    ]
    return known(
        {
            "success": True,
            "response": getattr(first, "text", None) or "",
            "tool_calls": calls or None,
            "choices": choices if len(choices) > 1 else None,
            "finish_reasons": reasons or None,
            "response_model": said.get("model_name") or said.get("model"),
            "response_id": said.get("id"),
            **usage_fields(usage),
            **filtered_fields(reasons),
        }
    )


def _reason_of(generation: Any) -> str | None:
    said = {
        **mapping_of(getattr(getattr(generation, "message", None), "response_metadata", None)),
        **mapping_of(getattr(generation, "generation_info", None)),
    }
    reason = said.get("finish_reason") or said.get("stop_reason")
    return str(reason) if reason else None


class _Everywhere:
    """What LangChain asks, for each run, whether there is a handler for it: the same one in every thread and task."""

    handler: AIResponseCallbackHandler | None = None
    is_known = False

    def get(self) -> AIResponseCallbackHandler | None:
        return self.handler


_everywhere = _Everywhere()


def _turn_on() -> Callable[[], object]:
    from langchain_core.tracers.context import register_configure_hook

    if not _everywhere.is_known:  # LangChain has no way to forget one
        # Not a ContextVar: that would hold for one thread, or for none that was started before.
        register_configure_hook(_everywhere, inheritable=True)  # all it calls is get()
        _everywhere.is_known = True
    _everywhere.handler = AIResponseCallbackHandler()
    return lambda: setattr(_everywhere, "handler", None)


_switch: Final = Switch("ai_response_logging.integrations.langchain", _turn_on)


def instrument() -> None:
    """
    Record every call of every model of this process, from now on.

    Raises:
        ConfigError: It has been called before.

    .. versionadded:: 0.1.0
    """
    _switch.on()


def uninstrument() -> None:
    """Undo `instrument`; calls in flight are still recorded."""
    _switch.off()
