"""
A logger for LiteLLM that records every call.

    import ai_response_logging.integrations.litellm as recording

    recording.instrument()

LiteLLM reports a stream when it has been read to its end, and, in an event loop, some time after that; it never
reports one that is broken off, nor a call that is cancelled. `instrument` observes the streams themselves; a call that
is cancelled is seen by the ``start`` record, by the end of the task and by the end of LiteLLM's own object for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ._extra import brought_by
from ._instrument import Switch
from ._litellm_streams import ReadStreams
from ._open_calls import OpenCalls
from ._openai_wire import CHAT, COMPLETIONS, EMBEDDINGS
from ._outcome import error_type_of, known
from ._recorder import quietly
from ._wire import Wire, mapping_of, question_fields

if TYPE_CHECKING:
    from litellm.integrations.custom_logger import CustomLogger as _Base
else:
    _Base = brought_by("litellm", "litellm.integrations.custom_logger").CustomLogger

__all__ = ["AIResponseLogger", "instrument", "uninstrument"]

_SETTINGS: Final = ("temperature", "top_p", "max_tokens", "seed", "tools")
_WIRES: Final[Mapping[str, Wire]] = {"text_completion": COMPLETIONS, "embedding": EMBEDDINGS}
_MARK: Final = "ai_response_logging"


class AIResponseLogger(_Base):
    """
    Records every call of LiteLLM: announced by ``start``, ended by one record. `instrument` puts it in its place.

    Durability: As the handler says. A plain answer is recorded before LiteLLM returns it to a coroutine, and in a
    thread of LiteLLM's, which the interpreter waits for, where it is called without one. With `instrument` a stream is
    recorded before its reader learns how it ended.
    Threads: Any. It raises nothing into the application.

    .. versionadded:: 0.1.0
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = OpenCalls()
        self._streams = ReadStreams(self._calls, self._end_call, self._fail_call)

    def observe_streams(self) -> Callable[[], None]:
        """
        See how far LiteLLM's streams are read; return what undoes it. `instrument` calls it.

        .. versionadded:: 0.1.0
        """
        import litellm

        return self._streams.observe(litellm.CustomStreamWrapper)

    # The names of all parameters are LiteLLM's: it passes them by name, and swallows what goes wrong.
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        """Announce the call."""
        quietly(self._begin)(model, messages, kwargs)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record the answer."""
        quietly(self._end)(kwargs, response_obj)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record the answer."""
        quietly(self._end)(kwargs, response_obj)

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Record a plain answer in the caller's own task: what is reported later is lost if the loop ends first."""
        quietly(self._end_now)(request_data, response)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record the failure."""
        quietly(self._fail)(kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record the failure."""
        quietly(self._fail)(kwargs)

    def _begin(self, model: object, messages: object, kwargs: dict[str, Any]) -> None:
        key, options = kwargs["litellm_call_id"], mapping_of(kwargs.get("optional_params"))
        wire = _WIRES.get(str(kwargs.get("call_type")).removeprefix("a"), CHAT)
        asked = messages if wire is CHAT else _joined(kwargs.get("input") or messages)
        stop = options.get("stop")
        fields = {
            "operation": wire.operation,
            "platform": kwargs.get("custom_llm_provider"),
            "model": model,
            "stream": True if kwargs.get("stream") else None,
            "stop": [stop] if isinstance(stop, str) else stop,
            **{name: options.get(name) for name in _SETTINGS},
            **question_fields(asked),
        }
        self._calls.begin(key, known(fields))
        # LiteLLM's own object for the call lives as long as the stream that it gave out, and holds this.
        mark = kwargs[_MARK] = _Mark()
        self._calls.leave_with(mark, key)

    def _end_now(self, request_data: Mapping[str, Any], response: Any) -> None:
        if type(response).__name__ in {"ModelResponse", "EmbeddingResponse", "TextCompletionResponse"}:
            self._end(request_data, response)

    def _end(self, kwargs: Mapping[str, Any], response: Any) -> None:
        if kwargs["litellm_call_id"] not in self._streams:  # else its reader has yet to see the end, and says so
            self._end_call(kwargs["litellm_call_id"], response)

    def _end_call(self, key: object, response: Any) -> None:
        body = response.model_dump(mode="json") if hasattr(response, "model_dump") else mapping_of(response)
        wire = EMBEDDINGS if isinstance(body.get("data"), list) else CHAT
        fields = wire.answer_fields(body)
        self._calls.end(key, fields or {"success": True, "raw_response": body})

    def _fail(self, kwargs: Mapping[str, Any]) -> None:
        if kwargs["litellm_call_id"] in self._streams:
            return  # the same: what the reader sees is the error that counts
        error = kwargs.get("exception")
        known_error = error if isinstance(error, BaseException) else RuntimeError(str(error))
        self._fail_call(kwargs["litellm_call_id"], known_error)

    def _fail_call(self, key: object, error: BaseException) -> None:
        self._calls.fail(key, error, error_type=_error_type_of(error))


class _Mark:
    """Lives and dies with what holds it."""

    __slots__ = ("__weakref__",)

    def __deepcopy__(self, memo: object) -> None:
        """Return nothing: LiteLLM copies what it holds, and a copy would outlive the call."""

    def __copy__(self) -> None:
        """Return nothing, for the same reason."""


def _error_type_of(error: BaseException) -> str:
    """Return what *error* comes to: LiteLLM gives a status of 500 to much that has had no answer at all."""
    said = error_type_of(error)
    below = _error_below(error) if said == "server_error" else None
    return said if below is None else error_type_of(below)


def _error_below(error: BaseException) -> BaseException | None:
    """Return the error of an SDK, an HTTP library or Python that LiteLLM made *error* of; None: it is its own."""
    below = error.__cause__ or error.__context__
    while below is not None and type(below).__module__.startswith("litellm.llms."):  # it has one for each provider
        below = below.__cause__ or below.__context__
    # What the application was handling when it called is chained as well, but has not come through LiteLLM, or is
    # an error that LiteLLM had raised before.
    if below is None or type(below).__module__.partition(".")[0] == "litellm":
        return None
    frames = (frame for frame, _ in traceback.walk_tb(below.__traceback__))
    return below if any(_is_litellm(frame.f_globals) for frame in frames) else None


def _is_litellm(module: Mapping[str, Any]) -> bool:
    return str(module.get("__name__")).partition(".")[0] == "litellm"


def _joined(asked: object) -> object:
    return "\n".join(asked) if isinstance(asked, list) and all(isinstance(one, str) for one in asked) else asked


def _turn_on() -> Callable[[], object]:
    import litellm

    ours = AIResponseLogger()
    let_streams_be = ours.observe_streams()
    litellm.callbacks.append(ours)

    def turn_off() -> None:
        let_streams_be()
        # LiteLLM spreads what stands in `callbacks` over lists of its own when it is called.
        for name in ("callbacks", "input_callback", "success_callback", "failure_callback"):
            for listed in (name, f"_async_{name}"):
                callbacks = getattr(litellm, listed, None)
                while isinstance(callbacks, list) and ours in callbacks:
                    callbacks.remove(ours)

    return turn_off


_switch: Final = Switch("ai_response_logging.integrations.litellm", _turn_on)


def instrument() -> None:
    """
    Record every call of LiteLLM in this process, from now on.

    Raises:
        ConfigError: It has been called before.

    .. versionadded:: 0.1.0
    """
    _switch.on()


def uninstrument() -> None:
    """Undo `instrument`."""
    _switch.off()
