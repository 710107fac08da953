"""`POST /v1/audio/transcriptions`: what a caller wants to read, and what that costs at most. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import typed
from qlaud_actors.gateway.media_ask import MediaAsk, MediaBody, byte_count, form_values, priced
from qlaud_actors.providers.audio_bound import likely_ms, longest_seconds
from qlaud_actors.providers.form import Part, encode
from qlaud_actors.providers.media_usage import read_usage
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.reading import Form, Reading
from qlaud_actors.usage import Units, Usage, WorstCase

TEXT_TOKENS = 64
"""What a provider adds to the prompt."""

LIKELY_TOKENS_PER_SECOND = 4
"""Of text that is spoken, for estimates."""

NEVER = frozenset({"file_id", "file_url", "url", "known_speaker_references"})
"""Fields that bring in recordings whose length nobody knows here (Mistral, Groq; voices, OpenAI)."""

CONTENT_TYPES = {"text": "text/plain", "srt": "text/plain", "vtt": "text/plain"}
FORMS: dict[str, Form] = {"text": "text_of_json", "srt": "text", "vtt": "text"}
_CUE_END = re.compile(rb"--> *(?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})")


class TranscriptionBody(MediaBody, kw_only=True):
    """How a recording is written down."""

    prompt: Annotated[str, Meta(max_length=32_000)] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class TranscriptionAsk(MediaAsk):
    """One request."""

    task: ClassVar[str] = "stt"
    fields: tuple[Part, ...] = field(repr=False)
    read: TranscriptionBody
    file: Part = field(repr=False)
    fallbacks: Sequence[str] | None = None

    @classmethod
    def of(cls, parts: tuple[Part, ...]) -> "TranscriptionAsk":
        """Read a form. Raises InvalidRequest."""
        files = [part for part in parts if part.name == "file"]
        if len(files) != 1 or not files[0].data:
            raise InvalidRequest("`file` must be one recording that is not empty.")
        fields = tuple(part for part in parts if part.name != "file")
        values, _ = priced(form_values(fields))
        for name in values:
            if name.partition("[")[0] in NEVER:
                raise InvalidRequest(f"`{name}` is not supported: send the recording as `file`.")
        return cls(fields, typed(values, TranscriptionBody, strict=False), files[0])

    @property
    def stream(self) -> bool:
        """Whether the text is wanted as it comes."""
        return bool(self.read.stream)

    @property
    def content_type(self) -> str:
        """Of the answer."""
        if self.stream:
            return "text/event-stream"
        return CONTENT_TYPES.get(self.read.response_format or "json", "application/json")

    @property
    def text(self) -> str:
        """The prompt, if any."""
        return self.read.prompt or ""

    def worst_case(self, model: Model, markup_bps: int) -> WorstCase:
        """The longest that the recording can be, and the longest text that the model writes."""
        if self.stream and "streaming" not in model.capabilities:
            raise InvalidRequest(f"{model.slug} does not stream: leave `stream` out.")
        seconds = _capped(longest_seconds(self.file.data), model.media.audio_seconds)
        units = _listened(model, seconds * 1_000)
        if "audio_ms" in model.price.units:
            return WorstCase(model.price, 0, 0, markup_bps, units)
        prompt = min(byte_count(self.text) + TEXT_TOKENS, model.context_window)
        return WorstCase(model.price, prompt, model.max_output_tokens, markup_bps, units)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own form. A bare text tells no usage, its JSON does."""
        wanted = self.read.response_format or "json"
        form: Form = "events" if self.stream else FORMS.get(wanted, "json")
        own = {"model"} | ({"response_format"} if form == "text_of_json" else set())
        fields = [Part("model", model.upstream.encode()), *(p for p in self.fields if p.name not in own)]
        file = Part("file", self.file.data, self.file.filename or "audio", self.file.content_type)
        body, content_type = encode((*fields, file))
        length = likely_ms(self.file.data)
        words = 0 if "audio_ms" in model.price.units else LIKELY_TOKENS_PER_SECOND * length // 1_000
        sent = Usage(output=words, units=_listened(model, length), estimated=True)
        reading = Reading(
            form, sent, lambda answer: read_usage(answer, model.price), lambda text: _cued(text, model)
        )
        return RawRequest(body, {"content-type": content_type}, path="/audio/transcriptions", reading=reading)


def _listened(model: Model, milliseconds: int) -> Units:
    if "audio_ms" in model.price.units:
        return {"audio_ms": milliseconds}
    tokens = math.ceil(milliseconds * model.media.audio_tokens_per_second / 1_000)
    return {"audio_input": _capped(tokens, model.media.audio_tokens) or model.media.audio_tokens}


def _cued(text: bytes, model: Model) -> Usage | None:
    """Subtitles tell when their last one ends, which is about how long the recording is."""
    ends = _CUE_END.findall(text)
    if not ends or "audio_ms" not in model.price.units:
        return None
    hours, minutes, seconds, _ = (int(figure or 0) for figure in ends[-1])
    length = (hours * 60 + minutes) * 60 + seconds + 1
    return Usage(units={"audio_ms": length * 1_000}, estimated=True)


def _capped(value: int, limit: int) -> int:
    return min(value, limit) if limit else value
