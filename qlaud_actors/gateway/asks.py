"""What a caller wants, in either dialect: read once, said again to any model's provider. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.priced import refuse_audio, require_own_context, require_priced
from qlaud_actors.providers import from_anthropic, from_openai
from qlaud_actors.providers.anthropic import API_VERSION
from qlaud_actors.providers.dialects import dialect_of, price_limit
from qlaud_actors.providers.from_anthropic import MessagesBody
from qlaud_actors.providers.from_openai import ChatBody
from qlaud_actors.providers.model import Model, ModelEvent, ModelReply, ModelRequest
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.quote import Quote, quote
from qlaud_actors.providers.routing import TEXT
from qlaud_actors.providers.to_anthropic import AnthropicWriter
from qlaud_actors.providers.to_openai import OpenAIWriter

T = TypeVar("T")

COUNT_PATH = "/v1/messages/count_tokens"

MAX_FALLBACKS = 8


class Writer(Protocol):
    """Writes one answer in the caller's dialect."""

    def frames(self, event: ModelEvent) -> bytes:
        """The frames of one event; none for some."""

    def whole(self, reply: ModelReply) -> bytes:
        """The answer in one body."""


class Ask(Protocol):
    """A request in the dialect of its caller."""

    @property
    def task(self) -> str:
        """What kind of model it is for, as the catalogue names them."""

    @property
    def wire(self) -> str:
        """The caller's dialect, by the name of the wire that it is."""

    @property
    def slug(self) -> str:
        """The model that is asked for."""

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it comes."""

    @property
    def fallbacks(self) -> Sequence[str] | None:
        """Models to ask when no host of the first answers; None leaves it to the catalogue."""

    def passes(self, model: Model) -> bool:
        """Whether the model's provider takes the caller's own bytes."""

    def quote(self, model: Model, markup_bps: int) -> Quote:
        """What this costs at most at a model, with its request in the neutral form: exact for a model of
        another wire, enough for a bound where bytes pass through. Raises InvalidRequest.
        """

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body for a model of the same wire; every field that is not ours stays."""

    def writer(self, model: Model) -> Writer:
        """Writes the answer of a model of another wire."""


@dataclass(frozen=True, slots=True)
class AnthropicAsk:
    """`POST /v1/messages`."""

    body: dict[str, Any]
    read: MessagesBody
    headers: Mapping[str, str]
    """`anthropic-version` and `anthropic-beta` as far as they were sent."""
    fallbacks: Sequence[str] | None = None
    wire: str = "anthropic"
    task: str = TEXT

    @classmethod
    def of(cls, body: dict[str, Any], version: str | None, betas: str | None) -> "AnthropicAsk":
        """Read a body. Raises InvalidRequest, also for what no hold covers."""
        body, fallbacks = take_fallbacks(body)
        read = typed(body, MessagesBody)
        require_priced(body, read.tools or [])
        headers = {"anthropic-version": version or API_VERSION}
        return cls(body, read, {**headers, "anthropic-beta": betas} if betas else headers, fallbacks)

    @property
    def slug(self) -> str:
        """The model that is asked for."""
        return self.read.model

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it comes."""
        return bool(self.read.stream)

    def passes(self, model: Model) -> bool:
        """Whether the model's provider takes the caller's own bytes."""
        return model.provider.wire == self.wire

    def quote(self, model: Model, markup_bps: int) -> Quote:
        """What this costs at most at a model."""
        if self.passes(model):
            require_own_context(self.headers.get("anthropic-beta", ""), model)
        else:
            from_anthropic.require_portable(self.read)
        if self.read.max_tokens is None:
            raise InvalidRequest("`max_tokens`: Field required.")
        request = from_anthropic.neutral(self.read, self.body, self.read.max_tokens)
        return quote(request, model, markup_bps)

    def counted(self) -> ModelRequest:
        """The neutral form where no answer is wanted."""
        return from_anthropic.neutral(self.read, self.body, 0)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body."""
        body = {**self.body, "model": model.upstream, "max_tokens": max_tokens}
        return RawRequest(msgspec.json.encode(body), self.headers, self.stream)

    def raw_count(self, model: Model) -> RawRequest:
        """The caller's own body for the token counter."""
        body = msgspec.json.encode({**self.body, "model": model.upstream})
        return RawRequest(body, self.headers, path=COUNT_PATH)

    def writer(self, model: Model) -> Writer:
        """Writes the answer of a model of another wire."""
        return AnthropicWriter(model.slug)


@dataclass(frozen=True, slots=True)
class OpenAIAsk:
    """`POST /v1/chat/completions`."""

    body: dict[str, Any]
    read: ChatBody
    fallbacks: Sequence[str] | None = None
    wire: str = "openai"
    task: str = TEXT

    @classmethod
    def of(cls, body: dict[str, Any]) -> "OpenAIAsk":
        """Read a body. Raises InvalidRequest, also for what no hold covers."""
        body, fallbacks = take_fallbacks(body)
        read = typed(body, ChatBody)
        require_priced(body, read.tools or [])
        refuse_audio(read.messages)
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
    def include_usage(self) -> bool:
        """Whether the caller wants the chunk that tells the usage."""
        return bool((self.read.stream_options or {}).get("include_usage"))

    @property
    def limit(self) -> int | None:
        """The output tokens asked for, if any."""
        return self.read.max_completion_tokens or self.read.max_tokens

    def passes(self, model: Model) -> bool:
        """Whether the model's provider takes the caller's own bytes."""
        return model.provider.wire == self.wire

    def quote(self, model: Model, markup_bps: int) -> Quote:
        """What this costs at most at a model; `n` answers may all be as long as the limit."""
        max_tokens = self.limit or model.max_output_tokens
        if self.passes(model):
            request = from_openai.measured(self.read, self.body, max_tokens)
        else:
            request = from_openai.neutral(self.read, self.body, model, max_tokens)
        return quote(request, model, markup_bps, self.read.n or 1)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body. Without a limit the model's own stands, where its host has the same that is
        held for, unless money sets a lower one.
        """
        dialect = dialect_of(model)
        body = {k: v for k, v in self.body.items() if k not in ("max_tokens", "max_completion_tokens")}
        body |= {"model": model.upstream, **price_limit(model)}
        if self.limit is not None or max_tokens < model.max_output_tokens or not dialect.own_limit:
            body[dialect.limit_field] = max_tokens
        forced = self.stream and dialect.takes_stream_options
        if forced:
            body["stream_options"] = {**(self.read.stream_options or {}), "include_usage": True}
        hide = forced and not self.include_usage
        return RawRequest(msgspec.json.encode(body), {}, self.stream, hide)

    def writer(self, model: Model) -> Writer:
        """Writes the answer of a model of another wire."""
        return OpenAIWriter(model.slug, include_usage=self.include_usage)


def take_fallbacks(body: dict[str, Any]) -> tuple[dict[str, Any], list[str] | None]:
    """`models`: whom to ask next. It is ours, so the body goes on without it. Raises InvalidRequest."""
    models = body.get("models")
    if models is None:
        return body, None
    right = isinstance(models, list) and all(isinstance(slug, str) and slug for slug in models)
    if not right or len(models) > MAX_FALLBACKS:
        raise InvalidRequest(f"`models` must be a list of at most {MAX_FALLBACKS} model slugs.")
    return {name: value for name, value in body.items() if name != "models"}, models


def typed(body: dict[str, Any], kind: type[T], *, strict: bool = True) -> T:
    """A body as a `kind`; not strict: numbers may be texts, as forms have them.

    Raises InvalidRequest that names the field.
    """
    try:
        return msgspec.convert(body, kind, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise InvalidRequest(f"`{where[:-1]}`: {problem}." if where else f"{problem}.") from None
