"""The SDKs under test, each behind the same few calls; one that is not installed is None."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ai_response_logging.testing import LocalModelServer

from ._situations import QUESTION

KEY = "sk-planted-secret-0123456789"
# What differs between any two runs: the clock's second, and ids that the SDK makes up.
_CHANGING = {"created", "created_at", "idempotency-key", "host"}


class Sdk:
    """One API of one SDK: makes clients and asks them."""

    name = package = ""

    def client(self, server_url: str, *, is_async: bool, recorded: bool, **options: Any) -> Any:
        """Return a client of the SDK, recording or bare."""
        module = importlib.import_module(self.package)
        kind = getattr(module, self.classes[is_async])
        unsafe: dict[str, Any] = {"verify": False}  # no certificate is needed on loopback, and loading them takes long
        if recorded:
            ours = importlib.import_module(f"ai_response_logging.integrations.{self.package}")
            make = ours.recording_async_client if is_async else ours.recording_client
            unsafe["max_retries"] = options.get("max_retries", 2)
        else:
            make = module.DefaultAsyncHttpxClient if is_async else module.DefaultHttpxClient
        options["http_client"] = make(**unsafe)
        return kind(base_url=server_url, api_key=KEY, **options)

    classes = ("", "")
    settings: Mapping[str, Any] = {"temperature": 0.5}
    has_tools = True
    sees_answers_that_are_cut = True

    def url_of(self, server: LocalModelServer) -> str:
        """Return what the client takes as its base URL."""
        return server.base_url

    def ask(self, client: Any, *, stream: bool) -> Any:
        """Ask the question; what comes is awaitable where the client is async."""
        raise NotImplementedError

    def seen(self, answer: Any) -> Any:
        """Return what the application sees of an answer, or of a stream's next piece."""
        dump = getattr(answer, "model_dump", None)
        return steady(dump(mode="json", warnings=False)) if dump else answer

    def close(self, stream: Any, *, is_async: bool) -> Any:  # noqa: ARG002  # some libraries have two methods
        """Close a stream; what comes is awaitable where it is async."""
        return stream.close()


class Chat(Sdk):
    name, package, classes = "chat", "openai", ("OpenAI", "AsyncOpenAI")

    def ask(self, client: Any, *, stream: bool) -> Any:
        return client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=stream, **self.settings
        )


class Responses(Chat):
    name = "responses"

    def ask(self, client: Any, *, stream: bool) -> Any:
        return client.responses.create(model="m", input=QUESTION, stream=stream, **self.settings)


class Completions(Chat):
    name = "completions"
    has_tools = False

    def ask(self, client: Any, *, stream: bool) -> Any:
        return client.completions.create(model="m", prompt=QUESTION, stream=stream, **self.settings)


class Messages(Sdk):
    name, package, classes = "messages", "anthropic", ("Anthropic", "AsyncAnthropic")
    settings: Mapping[str, Any] = {"max_tokens": 100}

    def url_of(self, server: LocalModelServer) -> str:
        return server.anthropic_base_url

    def ask(self, client: Any, *, stream: bool) -> Any:
        return client.messages.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=stream, **self.settings
        )


class MessagesByMiddleware(Messages):
    name = "middleware"
    sees_answers_that_are_cut = False

    def client(self, server_url: str, *, is_async: bool, recorded: bool, **options: Any) -> Any:
        if recorded:
            ours = importlib.import_module("ai_response_logging.integrations.anthropic")
            middleware = ours.recording_middleware(max_retries=options.get("max_retries", 2))
        else:
            middleware = _passing_on()  # with any middleware the SDK's own requests have other headers
        options["middleware"] = [middleware]
        return super().client(server_url, is_async=is_async, recorded=False, **options)


def _passing_on() -> Any:
    base = importlib.import_module("anthropic").Middleware

    class PassingOn(base):  # type: ignore[misc,valid-type]
        def handle(self, request: Any, call_next: Any) -> Any:
            return call_next(request)

        async def handle_async(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    return PassingOn()


SDKS = (Chat(), Responses(), Completions(), Messages(), MessagesByMiddleware())


def is_installed(package: str) -> bool:
    """Say whether *package* is here."""
    return importlib.util.find_spec(package) is not None


def steady(value: Any) -> Any:
    """Return *value* without what differs between any two runs."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: steady(one) for key, one in value.items() if key not in _CHANGING}
    return [steady(one) for one in value] if isinstance(value, list) else value
