"""What a caller wants, in either dialect: read once, said again to any model's provider. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.gateway.priced import refuse_audio, require_own_context, require_priced
from qlaud_actors.gateway.typed import typed
from qlaud_actors.providers import from_anthropic, from_openai
from qlaud_actors.providers.anthropic import API_VERSION
from qlaud_actors.providers.dialects import dialect_of, price_limit
from qlaud_actors.providers.from_anthropic import MessagesBody
from qlaud_actors.providers.from_openai import ChatBody
from qlaud_actors.providers.model import Model, ModelEvent, ModelReply, ModelRequest
from qlaud_actors.providers.passage import RawRequest
from qlaud_actors.providers.to_anthropic import AnthropicWriter
from qlaud_actors.providers.to_openai import OpenAIWriter

COUNT_PATH = "/v1/messages/count_tokens"


class Writer(Protocol):
    """Writes one answer in the caller's dialect."""

    def frames(self, event: ModelEvent) -> bytes:
        """The frames of one event; none for some."""

    def whole(self, reply: ModelReply) -> bytes:
        """The answer in one body."""


class Ask(Protocol):
    """A request for a text completion, in the dialect of its caller."""

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
    def copies(self) -> int:
        """How many answers are wanted at once; each may be as long as the limit."""

    def request(self, model: Model) -> ModelRequest:
        """The neutral form: exact for a model of another wire, enough for a bound where bytes pass through.

        Raises InvalidRequest.
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
    wire: str = "anthropic"
    copies: int = 1

    @classmethod
    def of(cls, body: dict[str, Any], version: str | None, betas: str | None) -> "AnthropicAsk":
        """Read a body. Raises InvalidRequest, also for what no hold covers."""
        read = typed(body, MessagesBody)
        require_priced(body, read.tools or [])
        headers = {"anthropic-version": version or API_VERSION}
        return cls(body, read, {**headers, "anthropic-beta": betas} if betas else headers)

    @property
    def slug(self) -> str:
        """The model that is asked for."""
        return self.read.model

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it comes."""
        return bool(self.read.stream)

    def request(self, model: Model) -> ModelRequest:
        """The neutral form."""
        if model.provider.wire == self.wire:
            require_own_context(self.headers.get("anthropic-beta", ""), model)
        else:
            from_anthropic.require_portable(self.read)
        if self.read.max_tokens is None:
            raise InvalidRequest("`max_tokens`: Field required.")
        return from_anthropic.neutral(self.read, self.body, self.read.max_tokens)

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
    wire: str = "openai"

    @classmethod
    def of(cls, body: dict[str, Any]) -> "OpenAIAsk":
        """Read a body. Raises InvalidRequest, also for what no hold covers."""
        read = typed(body, ChatBody)
        require_priced(body, read.tools or [])
        refuse_audio(read.messages)
        return cls(body, read)

    @property
    def slug(self) -> str:
        """The model that is asked for."""
        return self.read.model

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it comes."""
        return bool(self.read.stream)

    @property
    def copies(self) -> int:
        """`n`."""
        return self.read.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether the caller wants the chunk that tells the usage."""
        return bool((self.read.stream_options or {}).get("include_usage"))

    @property
    def limit(self) -> int | None:
        """The output tokens asked for, if any."""
        return self.read.max_completion_tokens or self.read.max_tokens

    def request(self, model: Model) -> ModelRequest:
        """The neutral form."""
        max_tokens = self.limit or model.max_output_tokens
        if model.provider.wire == self.wire:
            return from_openai.measured(self.read, self.body, max_tokens)
        return from_openai.neutral(self.read, self.body, model, max_tokens)

    def raw(self, model: Model, max_tokens: int) -> RawRequest:
        """The caller's own body. Without a limit the model's own stands, unless money sets a lower one."""
        dialect = dialect_of(model)
        body = {k: v for k, v in self.body.items() if k not in ("max_tokens", "max_completion_tokens")}
        body |= {"model": model.upstream, **price_limit(model)}
        if self.limit is not None or max_tokens < model.max_output_tokens:
            body[dialect.limit_field] = max_tokens
        forced = self.stream and dialect.takes_stream_options
        if forced:
            body["stream_options"] = {**(self.read.stream_options or {}), "include_usage": True}
        hide = forced and not self.include_usage
        return RawRequest(msgspec.json.encode(body), {}, self.stream, hide)

    def writer(self, model: Model) -> Writer:
        """Writes the answer of a model of another wire."""
        return OpenAIWriter(model.slug, include_usage=self.include_usage)

