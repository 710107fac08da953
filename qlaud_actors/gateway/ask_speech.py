"""`POST /v1/audio/speech`: what a caller wants to hear, and what that costs at most. Pure.

Two ways to bill: characters, which are counted before anything is sent; or tokens of sound, which nothing
of the text bounds (a voice may be told to pause at will), so that the most a call can make is held. The
bytes of sound tell no usage: where tokens are billed, the provider is asked for events, which do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from qlaud_actors.gateway.asks import typed
from qlaud_actors.gateway.media_ask import MediaAsk, MediaBody, byte_count, priced
from qlaud_actors.providers.bound import BYTES_PER_TOKEN
from qlaud_actors.providers.media_usage import read_usage
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.reading import Form, Reading, tells_nothing
from qlaud_actors.usage import Usage, WorstCase

TEXT_TOKENS = 64
"""What a provider adds to the text."""

LIKELY_TOKENS_PER_CHARACTER = 2
"""Of sound, for estimates: some 1.4 were measured (4,096 characters spoken in 268 s, at 20 a second)."""

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class SpeechBody(MediaBody, kw_only=True):
    """What is spoken, and how."""

    input: Annotated[str, Meta(min_length=1, max_length=32_000)]
    voice: str | dict[str, Any]
    instructions: Annotated[str, Meta(max_length=32_000)] | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    stream_format: Literal["sse", "audio"] | None = None


@dataclass(frozen=True, slots=True)
class SpeechAsk(MediaAsk):
    """One request."""

    task: ClassVar[str] = "tts"
    body: dict[str, Any]
    read: SpeechBody
    fallbacks: Sequence[str] | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> "SpeechAsk":
        """Read a body. Raises InvalidRequest."""
        body, fallbacks = priced(body)
        return cls(body, typed(body, SpeechBody), fallbacks)

    @property
    def stream(self) -> bool:
        """Always: it is heard while it is made."""
        return True

    @property
    def text(self) -> str:
        """What is spoken, and how."""
        return self.read.input + (self.read.instructions or "")

    @property
    def content_type(self) -> str:
        """Of the answer."""
        in_events = self.read.stream_format == "sse"
        return "text/event-stream" if in_events else CONTENT_TYPES[self.read.response_format or "mp3"]

    def worst_case(self, model: Model, markup_bps: int) -> WorstCase:
        """All characters, or the most sound that the model makes."""
        if "characters" in model.price.units:
            return WorstCase(model.price, 0, 0, markup_bps, {"characters": len(self.read.input)})
        bound = min(byte_count(self.text) + TEXT_TOKENS, model.context_window)
        return WorstCase(model.price, bound, 0, markup_bps, {"audio_output": model.media.audio_tokens})

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body; with events asked for where nothing else tells the usage."""
        body = {**self.body, "model": model.upstream}
        form: Form = "events" if self.read.stream_format == "sse" else "bytes"
        if "characters" in model.price.units:
            reading = Reading(form, Usage(units={"characters": len(self.read.input)}), tells_nothing)
        else:
            body["stream_format"] = "sse"
            form = "events" if form == "events" else "sound_of_events"
            reading = Reading(form, self._likely(model), lambda answer: read_usage(answer, model.price))
        return RawRequest(msgspec.json.encode(body), path="/audio/speech", reading=reading)

    def _likely(self, model: Model) -> Usage:
        spoken = min(len(self.read.input) * LIKELY_TOKENS_PER_CHARACTER, model.media.audio_tokens)
        read = byte_count(self.text) // BYTES_PER_TOKEN + 1
        return Usage(input=read, units={"audio_output": spoken}, estimated=True)
