"""What the decoders of both wires share: frames in, JSON objects to the wire, errors in their order."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from qlaud_actors.errors import ProviderError, ProviderUnavailable
from qlaud_actors.providers.model import ModelEvent
from qlaud_actors.providers.sse import SseParser
from qlaud_actors.usage import Usage

CUT = "The provider broke off in the middle of its answer."
MALFORMED = "The provider sent a stream event that cannot be read."


class JsonStream(ABC):
    """A stream decoder without the vendor's part; see `wire.StreamDecoder` for what it promises."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.usage_known = False
        self._parser = SseParser()
        self._failure: ProviderError | None = None

    def feed(self, data: bytes) -> list[ModelEvent]:
        """Events completed by these bytes. Raises ProviderError after the events that precede it."""
        self._raise_failure()
        events: list[ModelEvent] = []
        try:
            for frame in self._parser.feed(data):
                events += self._read(frame.data)
        except ProviderError as error:
            self._failure = error
            if not events:
                raise
        return events

    def finish(self) -> list[ModelEvent]:
        """Events that only the end of the stream completes. Raises ProviderError."""
        self._raise_failure()
        return self._close()

    @abstractmethod
    def _take(self, data: str) -> list[ModelEvent]:
        """The events of one frame."""

    @abstractmethod
    def _close(self) -> list[ModelEvent]:
        """The events that the end of the stream completes. Raises ProviderUnavailable when it was cut."""

    def _read(self, data: str) -> list[ModelEvent]:
        try:
            return self._take(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # Whatever shape a provider invents, the caller sees a provider's fault, not a bug of ours.
            raise ProviderUnavailable(MALFORMED) from error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def read_object(data: str) -> dict[str, Any]:
    """The JSON object that a frame holds. Raises ValueError when it holds anything else."""
    return msgspec.json.decode(data, type=dict[str, Any])  # its errors are ValueErrors
