"""A call whose bytes pass as they are: the caller speaks the provider's own dialect.

The wire's decoder watches what passes, for the bill. Bytes are held back only to the end of their
frame, so that something may be said between two frames.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import msgspec

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.outbound.client import MAX_STREAM_BYTES, Response
from qlaud_actors.providers.exchange import Exchange
from qlaud_actors.providers.model import MessageEnded, ModelEvent
from qlaud_actors.providers.reading import Reading
from qlaud_actors.providers.reply import characters
from qlaud_actors.providers.wire import StreamDecoder
from qlaud_actors.usage import Usage

_FRAME = re.compile(rb".*?(?:\n\n|\r\n\r\n)", re.DOTALL)
_WRITTEN = ("content", "choices", "output")
"""Where an answer in one body has what the model wrote, by wire."""

_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A body to be sent as it is."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    streamed: bool = False
    hide_usage: bool = False
    """Keep the chunk that holds nothing but usage from the caller, who did not ask for it."""
    path: str | None = None
    """Below the base URL; the wire's own when left out."""
    wire: str | None = None
    """By whose rules the answer is read; those of the provider's own wire when left out."""
    reading: Reading | None = None
    """How an answer is read that is no text of a model's."""


@dataclass(slots=True)
class Passage(Exchange[bytes]):
    """One call that passes through."""

    raw: RawRequest = field(default_factory=lambda: RawRequest(b""))
    ended: bool = False
    """The answer is complete with the bytes that come next: its usage is known as far as it ever will."""
    output_characters: int = 0

    def billable(self) -> Usage | None:
        """What to bill as things stand; None when the provider never began."""
        return self.produced_usage(self.output_characters)

    async def _read(self, response: Response) -> AsyncGenerator[bytes, None]:
        if not self.raw.streamed:
            yield await self._whole(response)
            return
        decoder, frames = self._wire.decoder(self.request, self.model), Frames(self.raw.hide_usage)
        async for chunk in response:
            self._watch(decoder, chunk)
            self.begun = True
            if whole := frames.feed(chunk):
                yield whole
        self._watch(decoder, b"")
        if rest := frames.rest():
            yield rest

    def _watch(self, decoder: StreamDecoder, chunk: bytes) -> None:
        """Note what passes. Raises ProviderError for an error event, and when the answer was cut."""
        events: list[ModelEvent] = []
        try:
            events = decoder.feed(chunk) if chunk else decoder.finish()
        finally:
            self.usage, self.usage_known = decoder.usage, decoder.usage_known
        for event in events:
            self.output_characters += characters(event)
            self.ended = self.ended or isinstance(event, MessageEnded)

    async def _whole(self, response: Response) -> bytes:
        self.begun = True  # whoever answers at once has done all the work already
        body = await response.read_limited(MAX_STREAM_BYTES)
        try:
            answer = msgspec.json.decode(body, type=dict[str, object])
            usage = self._wire.usage(answer.get("usage"))
        except (ValueError, TypeError, AttributeError) as error:
            raise ProviderUnavailable("The provider sent an answer that cannot be read.") from error
        if usage is not None:
            self.usage, self.usage_known = usage, True
        else:
            written = [answer.get(name) for name in _WRITTEN]
            self.output_characters = len(msgspec.json.encode(written))
        self.ended = True
        return body


class Frames:
    """Cuts passing bytes where frames end."""

    def __init__(self, hide_usage: bool = False) -> None:
        self._hide_usage = hide_usage
        self._tail = b""

    def feed(self, chunk: bytes) -> bytes:
        """The frames that these bytes complete, as they came."""
        data = self._tail + chunk
        end = max(_behind_last(data, b"\n\n"), _behind_last(data, b"\r\n\r\n"))
        self._tail = data[end:]
        return self._shown(data[:end])

    def rest(self) -> bytes:
        """What came behind the last frame's end."""
        return self._shown(self._tail)

    def _shown(self, data: bytes) -> bytes:
        if not self._hide_usage or not _NO_CHOICES.search(data):
            return data
        frames = [match.group() for match in _FRAME.finditer(data)]
        frames.append(data[sum(map(len, frames)) :])
        return b"".join(frame for frame in frames if not _is_usage(frame))


def _behind_last(data: bytes, mark: bytes) -> int:
    at = data.rfind(mark)
    return at + len(mark) if at >= 0 else 0


def _is_usage(frame: bytes) -> bool:
    """Whether a frame is the chunk that holds nothing but usage."""
    line = next((line for line in frame.splitlines() if line.startswith(b"data:")), b"")
    try:
        chunk = msgspec.json.decode(line[5:])
    except msgspec.DecodeError:
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and bool(chunk.get("usage"))
