"""Calls whose answer is no chat: vectors, pictures, sound, transcripts. Their bytes pass through.

The last bytes are given only when the usage is known, so that it can be written down before they leave.
"""

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.outbound.client import MAX_STREAM_BYTES, Response
from qlaud_actors.providers import failure
from qlaud_actors.providers.exchange import Exchange
from qlaud_actors.providers.reading import Reading
from qlaud_actors.providers.sse import SseFrame, SseParser
from qlaud_actors.usage import Usage

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A large picture in base64."""

WHOLE = ("json", "text_of_json", "text")
"""Forms of an answer in one body."""

UNREADABLE = "The provider sent an answer that cannot be read."


@dataclass(slots=True)
class MediaCall(Exchange[bytes]):
    """One such call (`gateway.admission.Answer` is what its user sees of it)."""

    reading: Reading = field(kw_only=True)
    ended: bool = False
    """The answer is complete with the bytes that come next."""

    def billable(self) -> Usage | None:
        """What to bill as things stand; None when the provider never began."""
        if not self.accepted:
            return None
        return self.usage if self.usage_known else self.reading.sent

    async def _read(self, response: Response) -> AsyncGenerator[bytes, None]:
        if self.reading.form in WHOLE:
            yield await self._whole(response)
            return
        pieces = response if self.reading.form == "bytes" else self._events(response)
        held = b""
        async for piece in pieces:
            self.begun = True
            if held:
                yield held
            held = piece
        if not self.begun:
            raise ProviderUnavailable("The provider sent an empty answer.")
        self.ended = True
        yield held

    async def _whole(self, response: Response) -> bytes:
        if self.reading.form not in WHOLE:
            return b"".join([piece async for piece in self._read(response)])
        self.begun = True  # whoever answers at once has done all the work already
        body = await response.read_limited(MAX_STREAM_BYTES)
        if self.reading.form == "text":
            self._note(self.reading.read_text(body))
        else:
            answer = _object(body)
            self._read_usage(answer)
            if self.reading.form == "text_of_json":
                body = str(answer.get("text") or "").encode() + b"\n"
        self.ended = True
        return body

    async def _events(self, response: Response) -> AsyncIterator[bytes]:
        parser = SseParser(MAX_FRAME_BYTES)
        async for chunk in response:
            for frame in parser.feed(chunk):
                if piece := self._event(frame):
                    yield piece

    def _event(self, frame: SseFrame) -> bytes:
        """What the caller gets of one event. Raises ProviderError for one that tells of a failure."""
        event = {} if frame.data.strip() == "[DONE]" else _object(frame.data.encode())
        if event.get("error") or event.get("type") == "error":
            raise failure.from_event(event.get("error") or event)
        if event.get("usage"):
            self._read_usage(event)
        if self.reading.form == "sound_of_events":
            return _sound(event)
        name = b"event: %s\n" % frame.event.encode() if frame.event else b""
        return name + b"".join(b"data: %s\n" % line.encode() for line in frame.data.split("\n")) + b"\n"

    def _read_usage(self, answer: dict[str, Any]) -> None:
        try:
            self._note(self.reading.read(answer))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise ProviderUnavailable(UNREADABLE) from None

    def _note(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage, self.usage_known = self.usage + usage, True


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ProviderUnavailable(UNREADABLE) from None


def _sound(event: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(event.get("audio") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ProviderUnavailable(UNREADABLE) from None
