"""The APIs that the local model server speaks: where each is, what it asks for, and how it answers."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .anthropic_bodies import anthropic_error, message_body
from .bodies import HTTP_ERROR, MALFORMED, chat_body, completion_body, embedding_body, error_body, to_json
from .responses_bodies import response_body
from .script import Reply, SeenRequest

__all__ = ["APIS", "Api"]

_PAGE: Final = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Api:
    """
    One API.

    Attributes:
        asks_in: The field of a request that says what is asked.
        complaint: What the server says when it does not.
        answer: Makes the pieces of an answer's body.
        error: Makes the error object, from status, message and code.
    """

    asks_in: str
    complaint: str
    answer: Callable[[SeenRequest, Reply, int], Iterator[bytes]]
    error: Callable[[int, str | None, str | None], Mapping[str, Any]] = error_body

    def is_asked_by(self, request: SeenRequest) -> bool:
        """Say whether *request* names a model and asks it something."""
        asked = request.messages if self.asks_in == "messages" else request.body.get(self.asks_in)
        return request.model is not None and bool(asked)

    def body_of(self, request: SeenRequest, reply: Reply, number: int) -> list[bytes]:
        """Make the whole body: one piece for a plain answer, one for each event of a stream."""
        if reply.status >= HTTP_ERROR:
            pieces = [to_json(self.error(reply.status, reply.text, reply.error_code))]
        elif reply.html:
            pieces = [_PAGE]
        elif reply.malformed and not request.stream:
            pieces = [MALFORMED]
        else:
            pieces = list(self.answer(request, reply, number))
        if reply.encoding != "gzip":
            return pieces
        return [gzip.compress(b"".join(pieces))]


APIS: Final[Mapping[str, Api]] = {
    "/v1/chat/completions": Api("messages", "a chat request is a JSON object with model and messages", chat_body),
    "/v1/completions": Api("prompt", "a completion request is a JSON object with model and prompt", completion_body),
    "/v1/embeddings": Api("input", "an embedding request is a JSON object with model and input", embedding_body),
    "/v1/responses": Api("input", "a response request is a JSON object with model and input", response_body),
    "/v1/messages": Api(
        "messages", "a message request is a JSON object with model and messages", message_body, anthropic_error
    ),
}
