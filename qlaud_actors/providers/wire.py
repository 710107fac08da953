"""What a wire is: pure translation between the neutral form and one vendor family's HTTP bodies.

A wire never holds a socket. `providers/caller.py` sends what it encodes and feeds it what comes.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from qlaud_actors.errors import ProviderError
from qlaud_actors.providers.model import Model, ModelEvent, ModelRequest
from qlaud_actors.usage import Usage


@dataclass(frozen=True, slots=True)
class WireRequest:
    """An HTTP request without its host and credentials: path below the base URL, headers, JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into events; any chunking gives the same events."""

    @property
    def usage(self) -> Usage:
        """The tokens that the provider has reported so far, also when the stream is cut (then without
        most of the output; all zero when it reported nothing).
        """

    @property
    def usage_known(self) -> bool:
        """Whether `usage` is the provider's final figure; else the output must be estimated, and the
        input too when `usage.input_total` is 0.
        """

    def feed(self, data: bytes) -> list[ModelEvent]:
        """Events completed by these bytes.

        Raises ProviderError for an error event in the stream; when the same bytes held events before
        it, those are returned first and the next `feed` or `finish` raises.
        """

    def finish(self) -> list[ModelEvent]:
        """Events that only the end of the stream completes.

        Raises ProviderUnavailable when the answer had not ended (the stream was cut).
        """


class Surface(Protocol):
    """A dialect whose answers can be read: enough to watch a request in it that passes through."""

    path: str
    """Of its completions, below the base URL."""

    def decoder(self, request: ModelRequest, model: Model) -> StreamDecoder:
        """A fresh decoder for the answer to that request (it maps tool names back)."""

    def error(self, status: int, headers: dict[str, str], body: bytes) -> ProviderError:
        """The error that a non-2xx answer means; header names are lower case."""

    def usage(self, figures: Any) -> Usage | None:
        """The usage object of an answer in one body; None when there is none."""


class Wire(Surface, Protocol):
    """One vendor family's wire: a dialect in which any request can be said."""

    def encode(self, request: ModelRequest, model: Model) -> WireRequest:
        """The streaming HTTP request for a neutral request."""
