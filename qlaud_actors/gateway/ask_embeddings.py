"""`POST /v1/embeddings`: what a caller wants to have embedded, and what that costs at most. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import typed
from qlaud_actors.gateway.media_ask import MediaAsk, MediaBody, byte_count, priced
from qlaud_actors.providers.bound import BYTES_PER_TOKEN
from qlaud_actors.providers.media_usage import read_usage
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.reading import Reading
from qlaud_actors.usage import Usage, WorstCase

MAX_ITEMS = 2_048
"""Texts in one request (OpenAI, create embeddings)."""

ITEM_TOKENS = 16
"""What a model adds to a text: marks of its beginning and end, a prefix of a few words."""

MAX_TOKENS = 300_000
"""Of all texts together, where tokens are sent (OpenAI, create embeddings)."""

MAX_TOKEN = 2**24
"""Above the number of any token; vocabularies have some 200,000."""


class EmbeddingsBody(MediaBody, kw_only=True):
    """What is embedded."""

    input: Any
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingsAsk(MediaAsk):
    """One request."""

    task: ClassVar[str] = "embeddings"
    body: dict[str, Any]
    read: EmbeddingsBody
    sizes: tuple[int, ...]
    """Of each text: its tokens where they were sent, else its bytes."""
    in_tokens: bool
    fallbacks: Sequence[str] | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> "EmbeddingsAsk":
        """Read a body. Raises InvalidRequest."""
        body, fallbacks = priced(body)
        read = typed(body, EmbeddingsBody)
        texts = _texts(read.input)
        return cls(body, read, tuple(map(_size, texts)), not isinstance(texts[0], str), fallbacks)

    @property
    def stream(self) -> bool:
        """Never."""
        return False

    @property
    def content_type(self) -> str:
        """Of the answer."""
        return "application/json"

    @property
    def text(self) -> str:
        """All that was sent as text."""
        texts = self.read.input if isinstance(self.read.input, list) else [self.read.input]
        return "" if self.in_tokens else "".join(texts)

    def worst_case(self, model: Model, markup_bps: int) -> WorstCase:
        """No text has more tokens than bytes, nor more than the model reads; nothing is put out."""
        bound = sum(min(size + ITEM_TOKENS, model.context_window) for size in self.sizes)
        return WorstCase(model.price, bound, 0, markup_bps)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body."""
        likely = sum(size if self.in_tokens else size // BYTES_PER_TOKEN + 1 for size in self.sizes)
        sent = Usage(input=likely, estimated=True)
        body = msgspec.json.encode({**self.body, "model": model.upstream})
        reading = Reading("json", sent, lambda answer: read_usage(answer, model.price))
        return RawRequest(body, path="/embeddings", reading=reading)


def _texts(value: Any) -> list[Any]:
    """The texts, each a string or a list of tokens, all alike. Raises InvalidRequest."""
    tokens = isinstance(value, list) and bool(value) and isinstance(value[0], int)
    texts = [value] if isinstance(value, str) or tokens else value
    if not isinstance(texts, list) or not texts:
        raise InvalidRequest("`input` must be a text, a list of texts, or tokens; and not empty.")
    if len(texts) > MAX_ITEMS:
        raise InvalidRequest(f"`input` must have at most {MAX_ITEMS:,} texts.")
    if sum(len(text) for text in texts if isinstance(text, list)) > MAX_TOKENS:
        raise InvalidRequest(f"`input` must have at most {MAX_TOKENS:,} tokens.")
    if not (all(map(_is_text, texts)) or all(map(_is_tokens, texts))):
        raise InvalidRequest("`input` must hold texts that are not empty, or lists of tokens, not both.")
    return texts


def _is_text(item: Any) -> bool:
    return isinstance(item, str) and bool(item)


def _is_tokens(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(type(n) is int and 0 <= n < MAX_TOKEN for n in item)


def _size(item: str | list[int]) -> int:
    return byte_count(item) if isinstance(item, str) else len(item)
