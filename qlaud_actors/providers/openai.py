"""OpenAI's Chat Completions, the wire that most other vendors speak too."""

from typing import Any

from qlaud_actors.errors import ProviderError
from qlaud_actors.providers import failure
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.names import ToolNames
from qlaud_actors.providers.openai_messages import encode_messages
from qlaud_actors.providers.openai_stream import OpenAIDecoder, read_usage
from qlaud_actors.providers.params import openai_params
from qlaud_actors.providers.wire import WireRequest
from qlaud_actors.usage import Usage


class OpenAIWire:
    """Translates for `POST /chat/completions` below a base URL that ends in its version."""

    path = "/chat/completions"

    def encode(self, request: ModelRequest, model: Model) -> WireRequest:
        """The streaming HTTP request for a neutral request."""
        names = ToolNames.for_request(request)
        body: dict[str, Any] = {
            **openai_params(request, model, names),
            "model": model.upstream,
            "messages": encode_messages(request, model, names),
            "stream": True,
        }
        return WireRequest(self.path, {}, body)

    def decoder(self, request: ModelRequest, model: Model) -> OpenAIDecoder:
        """A fresh decoder for the answer to that request."""
        return OpenAIDecoder(ToolNames.for_request(request), _call_ids(request))

    def error(self, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
        """The error that a non-2xx answer means; header names are lower case."""
        return failure.from_response(status, headers, body)

    def usage(self, figures: Any) -> Usage | None:
        """The usage object of an answer in one body; None when there is none."""
        return read_usage(figures) if figures else None


def _call_ids(request: ModelRequest) -> frozenset[str]:
    blocks = (block for message in request.messages for block in message.content if isinstance(block, dict))
    return frozenset(block["id"] for block in blocks if block.get("type") == "tool_use")
