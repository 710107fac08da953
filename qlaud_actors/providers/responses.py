"""OpenAI's Responses API, for requests that come in it and pass through to hosts that offer it."""

from typing import Any

from qlaud_actors.errors import ProviderError
from qlaud_actors.providers import failure
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.responses_stream import ResponsesDecoder, read_usage
from qlaud_actors.usage import Usage


class ResponsesSurface:
    """Watches `POST /responses` below a base URL that ends in its version."""

    path = "/responses"

    def decoder(self, request: ModelRequest, model: Model) -> ResponsesDecoder:
        """A fresh decoder for the answer to that request."""
        return ResponsesDecoder()

    def error(self, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
        """The error that a non-2xx answer means; header names are lower case."""
        return failure.from_response(status, headers, body)

    def usage(self, figures: Any) -> Usage | None:
        """The usage object of an answer in one body; None when there is none."""
        return read_usage(figures)
