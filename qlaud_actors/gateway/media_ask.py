"""What the routes for vectors, pictures and sound have in common: OpenAI's dialect, which passes through.

Nothing can be made shorter to fit the money that is left: all of it is held, or it is refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import Writer, take_fallbacks
from qlaud_actors.gateway.priced import require_priced
from qlaud_actors.providers.form import Part
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.quote import Quote
from qlaud_actors.usage import WorstCase


class MediaBody(msgspec.Struct):
    """The fields that matter here; all others pass as they are."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]


class MediaAsk(ABC):
    """One request (an `asks.Ask`)."""

    wire = "openai"
    task: ClassVar[str]
    read: MediaBody
    fallbacks: Sequence[str] | None

    @property
    @abstractmethod
    def stream(self) -> bool:
        """Whether the answer is passed on as it comes."""

    @property
    @abstractmethod
    def content_type(self) -> str:
        """Of the answer."""

    @property
    def slug(self) -> str:
        """The model that is asked for."""
        return self.read.model

    @property
    @abstractmethod
    def text(self) -> str:
        """What the model reads, for estimates."""

    @abstractmethod
    def worst_case(self, model: Model, markup_bps: int) -> WorstCase:
        """What this costs at most at a model. Raises InvalidRequest."""

    @abstractmethod
    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body for the model's provider, and how its answer is read."""

    def passes(self, model: Model) -> bool:
        """Whether the model's provider takes the caller's own bytes."""
        return model.provider.wire == self.wire

    def quote(self, model: Model, markup_bps: int) -> Quote:
        """What this costs at most at a model, whole."""
        if not self.passes(model):
            raise InvalidRequest(f"{model.provider.display_name} does not speak this dialect.")
        worst = self.worst_case(model, markup_bps)
        request = ModelRequest(model.slug, (), worst.max_tokens, system=self.text)
        return Quote(model, request, worst, worst.max_tokens)

    def writer(self, model: Model) -> Writer:
        """Nothing is translated."""
        raise NotImplementedError


def priced(body: dict[str, Any]) -> tuple[dict[str, Any], list[str] | None]:
    """The body without `models`, and these. Raises InvalidRequest for what no hold covers."""
    body, fallbacks = take_fallbacks(body)
    require_priced(body, ())
    return body, fallbacks


def form_values(parts: Iterable[Part]) -> dict[str, Any]:
    """The texts of a form by name. Raises InvalidRequest for one that comes twice: which of them is meant?"""
    values: dict[str, Any] = {}
    for part in parts:
        if part.name in values and not part.name.endswith("[]"):
            raise InvalidRequest(f"`{part.name}` must come once.")
        values[part.name] = part.text
    return values


def byte_count(text: str) -> int:
    """No text has more tokens than bytes."""
    return len(text.encode("utf-8", "surrogatepass"))
