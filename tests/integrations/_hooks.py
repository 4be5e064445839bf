"""The libraries that are recorded by hooks, behind the calls of the SDKs: the same situations are played with them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ._sdks import KEY, Sdk, steady
from ._situations import QUESTION, TEXT, Situation

_UNSTEADY = re.compile(r"time taken=[\d.]+|127\.0\.0\.1:\d+")


class _Hooked(Sdk):
    """What is recorded is switched on and off by the test: for the process, or as a callback."""

    def close(self, stream: Any, *, is_async: bool) -> Any:
        return stream.aclose() if is_async else stream.close()

    def seen(self, answer: Any) -> Any:
        said = steady(answer.model_dump(mode="json", warnings=False))
        return {name: value for name, value in said.items() if name != "id"}  # they make ids up where none came


class LiteLLM(_Hooked):
    name = package = "litellm"

    def client(self, server_url: str, *, is_async: bool, recorded: bool, **options: Any) -> Any:  # noqa: ARG002
        module = __import__(self.package)
        call = module.acompletion if is_async else module.completion
        options = {"max_retries": 2, "api_base": server_url, "api_key": KEY, **self.settings, **options}
        return SimpleNamespace(ask=functools.partial(call, model="openai/m", **options), close=_closer(is_async))

    def ask(self, client: Any, *, stream: bool) -> Any:
        options = {"stream": True} if stream else {}
        return client.ask(messages=[{"role": "user", "content": QUESTION}], **options)


class LangChain(_Hooked):
    name, package = "langchain", "langchain_openai"

    def client(self, server_url: str, *, is_async: bool, recorded: bool, **options: Any) -> Any:
        from langchain_openai import ChatOpenAI

        from ai_response_logging.integrations.langchain import AIResponseCallbackHandler

        callbacks = [AIResponseCallbackHandler()] if recorded else []
        options = {"max_retries": 2, **self.settings, **options}
        model = ChatOpenAI(model="m", base_url=server_url, api_key=KEY, callbacks=callbacks, **options)
        calls = (model.ainvoke, model.astream) if is_async else (model.invoke, model.stream)
        return SimpleNamespace(plain=calls[0], stream=calls[1], close=_closer(is_async), is_async=is_async)

    def ask(self, client: Any, *, stream: bool) -> Any:
        if not stream:
            return client.plain(QUESTION)
        return _at_once(client.stream(QUESTION)) if client.is_async else client.stream(QUESTION)


async def _at_once(stream: Any) -> Any:
    return stream


def _closer(is_async: bool) -> Any:
    async def aclose() -> None:
        pass

    return aclose if is_async else lambda: None


def told(error: tuple[str, str] | None) -> tuple[str, str] | None:
    """Return an error as it is in every run: the time it took and the server's port are not."""
    return error and (error[0], _UNSTEADY.sub("...", error[1]))


class EndsWith(str):
    """A text that is equal to every one that ends in it: libraries put words of theirs before."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.endswith(str(self))


@dataclass(frozen=True)
class Differs:
    """
    What a situation comes to where it is not what the SDK below makes of it.

    Attributes:
        expected: What the last record says instead.
        is_never_asked: No request is made, so that there is nothing to record.
        text_starts: As in the situation; None: as there.
        event: Of the last record; None: as there.
    """

    expected: Mapping[str, Any] = field(default_factory=dict)
    is_never_asked: bool = False
    text_starts: bool | None = None
    event: str | None = None


def check_records(records: list[dict[str, Any]], situation: Situation, differs: Differs) -> None:
    """Check that there is a start and one end, which says what became of the call."""
    first, last = records
    assert [first["event"], last["event"]] == ["start", differs.event or situation.events[-1]]
    assert last["call_id"] == first["call_id"]
    assert [record["question"] for record in records] == [QUESTION] * 2
    assert first["model"] == "m"
    assert last["temperature"] == 0.5
    # The tries that the SDK below makes again are not told to hooks.
    own = {"retry_count", "http_status_code", "error_class"}
    expected = {name: value for name, value in situation.expected.items() if name not in own} | differs.expected
    assert {name: last.get(name) for name in expected} == expected
    assert "attempts" not in last
    if situation.text_starts if differs.text_starts is None else differs.text_starts:
        assert last["response"]
        assert TEXT.startswith(last["response"])
