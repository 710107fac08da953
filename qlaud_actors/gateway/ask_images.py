"""`POST /v1/images/generations` and `/edits`: which pictures a caller wants, what they cost at most. Pure.

Edits come as a form, as OpenAI takes them, or as JSON with the pictures in base64; both leave as a form.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import typed
from qlaud_actors.gateway.media_ask import MediaAsk, MediaBody, byte_count, form_values, priced
from qlaud_actors.providers.bound import BYTES_PER_TOKEN
from qlaud_actors.providers.form import Part, encode
from qlaud_actors.providers.image_bound import PARTIAL_TOKENS, image_tokens, image_unit
from qlaud_actors.providers.media_usage import read_usage
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.reading import Reading
from qlaud_actors.usage import Units, Usage, WorstCase

MAX_IMAGES = 16
"""Pictures to edit in one request (OpenAI, create image edit)."""

TEXT_TOKENS = 256
"""What a provider adds to the prompt; 32 were seen for an edit."""

NEVER: Mapping[str, str] = {
    "complexity": "what is planned before a picture is billed beside it",
    "frame_count": "every frame is billed",
    "images": "send them as `image`",
    "prompt_rewriter": "another model is billed beside the picture",
    "svg": "its author is another model, billed beside the picture",
}
"""Fields that are billed beside the pictures, or bring some in that nobody counts."""

FORMATS = ("png", "jpeg", "webp")
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
FILES = frozenset({"image", "image[]", "mask", "markup"})


class ImagesBody(MediaBody, kw_only=True):
    """What is drawn."""

    prompt: Annotated[str, Meta(min_length=1, max_length=32_000)]
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: Annotated[str, Meta(max_length=20)] | None = None
    quality: Annotated[str, Meta(max_length=20)] | None = None
    output_format: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None


@dataclass(frozen=True, slots=True)
class ImagesAsk(MediaAsk):
    """One request; with pictures it is an edit."""

    task: ClassVar[str] = "image-generation"
    body: dict[str, Any]
    read: ImagesBody
    pictures: tuple[Part, ...] = field(default=(), repr=False)
    fallbacks: Sequence[str] | None = None

    @classmethod
    def generation(cls, body: dict[str, Any]) -> "ImagesAsk":
        """Read a JSON body. Raises InvalidRequest, also for what no hold covers."""
        body, fallbacks = priced(body)
        return cls(body, _checked(body, strict=True), fallbacks=fallbacks)

    @classmethod
    def json_edit(cls, body: dict[str, Any]) -> "ImagesAsk":
        """Read a JSON body with its pictures in base64 (or as data URLs). Raises InvalidRequest."""
        fields, fallbacks = priced({name: value for name, value in body.items() if name not in FILES})
        sources = body.get("image") or []
        sources = sources if isinstance(sources, list) else [sources]
        name = "image" if len(sources) == 1 else "image[]"
        pictures = [_picture(name, source) for source in sources]
        pictures += [_picture(other, body[other]) for other in ("mask", "markup") if body.get(other)]
        return cls(fields, _checked(fields, strict=True), _edited(tuple(pictures)), fallbacks)

    @classmethod
    def form_edit(cls, parts: tuple[Part, ...]) -> "ImagesAsk":
        """Read a form. Raises InvalidRequest."""
        fields, _ = priced(form_values(part for part in parts if part.name not in FILES))
        pictures = tuple(part for part in parts if part.name in FILES)
        return cls(fields, _checked(fields, strict=False), _edited(pictures))

    @property
    def stream(self) -> bool:
        """Whether pictures are wanted as they come."""
        return bool(self.read.stream)

    @property
    def content_type(self) -> str:
        """Of the answer."""
        return "text/event-stream" if self.stream else "application/json"

    @property
    def text(self) -> str:
        """The prompt."""
        return self.read.prompt

    def worst_case(self, model: Model, markup_bps: int) -> WorstCase:
        """The dearest pictures that this can mean; each is billed as a call of its own, prompt included."""
        count, prompt = self.read.n or 1, min(byte_count(self.text) + TEXT_TOKENS, model.context_window)
        words = count * model.max_output_tokens
        return WorstCase(model.price, count * prompt, words, markup_bps, self._units(model))

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body."""
        units = self._units(model)
        prompt = 0 if _is_flat(model) else byte_count(self.text) // BYTES_PER_TOKEN + 1
        sent = Usage(input=prompt, units=units, estimated=True)
        fields = {**self.body, "model": model.upstream}
        if self.pictures:
            path = "/images/edits"
            body, content_type = encode((*_parts(fields), *self.pictures))
        else:
            path, content_type = "/images/generations", "application/json"
            body = msgspec.json.encode(fields)

        def read(answer: dict[str, Any]) -> Usage | None:
            return _drawn(answer, next(iter(units))) if _is_flat(model) else read_usage(answer, model.price)

        reading = Reading("events" if self.stream else "json", sent, read)
        return RawRequest(body, {"content-type": content_type}, path=path, reading=reading)

    def _units(self, model: Model) -> Units:
        count = self.read.n or 1
        if _is_flat(model):
            if self.pictures:
                raise InvalidRequest(f"{model.slug} does not edit pictures here.")
            return {image_unit(model, self.read.quality, self.read.size): count}
        per_picture = image_tokens(model, self.read.quality, self.read.size)
        per_picture += (self.read.partial_images or 0) * PARTIAL_TOKENS
        seen = count * len(self.pictures) * (model.image_tokens or model.provider.image_tokens)
        return {"image_output": count * per_picture, **({"image_input": seen} if seen else {})}


def _checked(fields: dict[str, Any], *, strict: bool) -> ImagesBody:
    read = typed(fields, ImagesBody, strict=strict)
    for name in fields:
        if why := NEVER.get(name.partition("[")[0]):
            raise InvalidRequest(f"`{name}` is not supported: {why}.")
    if read.output_format not in (None, *FORMATS):
        raise InvalidRequest(f"`output_format` must be one of {', '.join(FORMATS)}: others are billed apart.")
    if read.stream and (read.n or 1) > 1:
        raise InvalidRequest("`stream` is supported for one picture: leave `n` out.")
    return read


def _edited(pictures: tuple[Part, ...]) -> tuple[Part, ...]:
    if not any(part.name in ("image", "image[]") for part in pictures):
        raise InvalidRequest("`image` is missing: the picture to edit, as a file or in base64.")
    if len(pictures) > MAX_IMAGES:
        raise InvalidRequest(f"There must be at most {MAX_IMAGES} pictures.")
    return tuple(_image(part) for part in pictures)


def _picture(name: str, source: Any) -> Part:
    """A picture of a JSON body."""
    if not isinstance(source, str):
        raise InvalidRequest(f"`{name}` must be a picture in base64.")
    encoded = source.partition(",")[2] if source.startswith("data:") else source
    try:
        return Part(name, base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"`{name}` is not valid base64.") from None


def _image(part: Part) -> Part:
    """The same with the type that its bytes show."""
    found = next((kind for start, kind in SIGNATURES.items() if part.data.startswith(start)), None)
    if found is None:
        raise InvalidRequest(f"`{part.name}` must be a PNG, JPEG or WebP picture.")
    return Part(part.name, part.data, part.filename or f"picture.{found.partition('/')[2]}", found)


def _parts(fields: dict[str, Any]) -> list[Part]:
    """Plain fields of a form. Raises InvalidRequest for one that a form cannot hold."""
    parts = []
    for name, value in fields.items():
        if isinstance(value, dict | list):
            raise InvalidRequest(f"`{name}` is not supported: a form has only texts and numbers.")
        if value is not None:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            parts.append(Part(name, text.encode("utf-8", "replace")))
    return parts


def _is_flat(model: Model) -> bool:
    """Whether whole pictures are billed, not tokens."""
    return any(name.startswith("images") for name in model.price.units)


def _drawn(answer: dict[str, Any], unit: str) -> Usage | None:
    """Whole pictures, counted in the answer."""
    pictures = answer.get("data")
    return Usage(units={unit: len(pictures)}) if isinstance(pictures, list) and pictures else None
