"""What a caller of OpenAI's Responses API wants, as far as it needs no store. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.asks import Writer, take_fallbacks, typed
from qlaud_actors.gateway.priced import require_own_items, require_priced
from qlaud_actors.providers import from_responses
from qlaud_actors.providers.dialects import price_limit
from qlaud_actors.providers.from_responses import ResponsesBody
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.quote import Quote, quote
from qlaud_actors.providers.responses_items import native
from qlaud_actors.providers.routing import TEXT
from qlaud_actors.providers.to_responses import ResponsesWriter

STATEFUL = ("previous_response_id", "conversation", "prompt", "background", "store")
"""Fields that read what is stored, or ask for it."""


@dataclass(frozen=True, slots=True)
class ResponsesAsk:
    """`POST /v1/responses`."""

    body: dict[str, Any]
    read: ResponsesBody
    fallbacks: Sequence[str] | None = None
    wire: str = "responses"
    task: str = TEXT

    @classmethod
    def of(cls, body: dict[str, Any]) -> "ResponsesAsk":
        """Read a body. Raises InvalidRequest, also for what no hold covers and what would be stored."""
        for name in STATEFUL:
            if body.get(name):
                raise InvalidRequest(f"`{name}` is not supported: nothing is stored here; send all of it.")
        body, fallbacks = take_fallbacks(body)
        read = typed(body, ResponsesBody)
        require_priced(body, ())
        require_own_items(read.items, read.tools or [])
        return cls(body, read, fallbacks)

    @property
    def slug(self) -> str:
        """The model that is asked for."""
        return self.read.model

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it comes."""
        return bool(self.read.stream)

    @property
    def limit(self) -> int | None:
        """The output tokens asked for, if any."""
        return self.read.max_output_tokens

    def passes(self, model: Model) -> bool:
        """Whether the body goes to this model's provider as it is."""
        return self.wire in model.surfaces

    def quote(self, model: Model, markup_bps: int) -> Quote:
        """What this costs at most at a model."""
        max_tokens = self.limit or model.max_output_tokens
        if self.passes(model):
            request = from_responses.measured(self.read, self.body, max_tokens)
        else:
            request = from_responses.neutral(self.read, self.body, model, max_tokens)
        return quote(request, model, markup_bps)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body, not to be stored. Without a limit the model's own stands, unless money
        sets a lower one.
        """
        body = {**self.body, "model": model.upstream, "store": False, **price_limit(model)}
        if isinstance(self.read.input, list):
            body["input"] = native(self.read.input)
        if self.limit is not None or max_tokens < model.max_output_tokens:
            body["max_output_tokens"] = max_tokens
        return RawRequest(msgspec.json.encode(body), {}, self.stream, wire=self.wire)

    def writer(self, model: Model) -> Writer:
        """Writes the answer of a model that was not asked in this dialect."""
        return ResponsesWriter(model.slug, self.body)
