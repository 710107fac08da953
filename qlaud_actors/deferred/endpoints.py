"""Which endpoints a job may ask, and how its stored body becomes a request again. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.ask_embeddings import EmbeddingsAsk
from qlaud_actors.gateway.ask_responses import ResponsesAsk
from qlaud_actors.gateway.asks import AnthropicAsk, Ask, OpenAIAsk

KEPT_HEADERS = ("anthropic-version", "anthropic-beta")
"""What of a caller's headers belongs to the request itself."""

STREAMING = frozenset({"stream", "stream_options"})
"""Nobody listens: the answer comes as a whole."""


def _message(body: dict[str, Any], headers: Mapping[str, str]) -> Ask:
    version, betas = (headers.get(name) for name in KEPT_HEADERS)
    return AnthropicAsk.of(body, version, betas)


def _completion(body: dict[str, Any], _: Mapping[str, str]) -> Ask:
    return OpenAIAsk.of(body)


def _embedding(body: dict[str, Any], _: Mapping[str, str]) -> Ask:
    return EmbeddingsAsk.of(body)


def _response(body: dict[str, Any], _: Mapping[str, str]) -> Ask:
    return ResponsesAsk.of(body)


ENDPOINTS: dict[str, Callable[[dict[str, Any], Mapping[str, str]], Ask]] = {
    "/v1/messages": _message,
    "/v1/chat/completions": _completion,
    "/v1/responses": _response,
    "/v1/embeddings": _embedding,
}


def ask_from(endpoint: str, body: dict[str, Any], headers: Mapping[str, str]) -> Ask:
    """The request that a job makes. Raises InvalidRequest."""
    read = ENDPOINTS.get(endpoint)
    if read is None:
        raise InvalidRequest(f"`endpoint` must be one of {', '.join(ENDPOINTS)}.")
    return read({name: value for name, value in body.items() if name not in STREAMING}, headers)
