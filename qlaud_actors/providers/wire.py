"""What a wire is: pure translation between the neutral form and one vendor family's HTTP bodies.

A wire never holds a socket. `providers/caller.py` sends what it encodes and feeds it what comes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from qlaud_actors.errors import ProviderError
from qlaud_actors.providers.model import Model, ModelEvent, ModelRequest


@dataclass(frozen=True, slots=True)
class WireRequest:
    """An HTTP request without its host and credentials: path below the base URL, headers, JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into events; any chunking gives the same events."""

    def feed(self, data: bytes) -> list[ModelEvent]:
        """Events completed by these bytes. Raises ProviderError for an error event in the stream."""

    def finish(self) -> list[ModelEvent]:
        """Events that only the end of the stream completes.

        Raises ProviderUnavailable when the answer had not ended (the stream was cut).
        """


class Wire(Protocol):
    """One vendor family's wire."""

    def encode(self, request: ModelRequest, model: Model) -> WireRequest:
        """The streaming HTTP request for a neutral request."""

    def decoder(self, request: ModelRequest, model: Model) -> StreamDecoder:
        """A fresh decoder for the answer to that request (it maps tool names back)."""

    def error(self, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
        """The error that a non-2xx answer means; header names are lower case."""
