"""One POST to a provider: sent once, and what is known of it when it breaks."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from qlaud_actors.errors import ProviderError, ProviderUnavailable
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.client import Client, OutboundError, OutboundTimeoutError, Response
from qlaud_actors.providers.bound import BYTES_PER_TOKEN, input_estimate
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.providers.wire import Surface
from qlaud_actors.usage import Usage

MAX_ERROR_BYTES = 64 * 1024

T = TypeVar("T")

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes and as whom."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Exchange(ABC, Generic[T]):
    """One call of a model, whose answer comes as a sequence of `T`."""

    request: ModelRequest = field(repr=False)
    model: Model
    _wire: Surface
    _target: Target
    _client: Client
    accepted: bool = False
    """The provider has answered 2xx and works on it: from here on it bills."""
    begun: bool = False
    """A part of the answer has come."""
    usage: Usage = field(default_factory=Usage)
    """What the provider has reported so far."""
    usage_known: bool = False
    """`usage` is the provider's final figure."""

    def produced_usage(self, output_characters: int) -> Usage | None:
        """What to bill a call that broke off after so many characters; None when it never began.

        Figures that the provider did not get to tell are estimated from what was sent and received; no
        answer is longer than it was allowed to be.
        """
        if not self.accepted:
            return None
        if self.usage_known:
            return self.usage
        fresh = 0 if self.usage.input_total else input_estimate(self.request, self.model)
        copies = self.request.params.get("n")
        most = self.request.max_tokens * (copies if isinstance(copies, int) else 1)
        written = min(-(-output_characters // BYTES_PER_TOKEN), most)
        return replace(
            self.usage,
            input=self.usage.input + fresh,
            output=max(self.usage.output, written),
            estimated=True,
        )

    async def events(self) -> AsyncGenerator[T, None]:
        """The answer as it comes; read once. Raises ProviderError."""
        entry = _LogLine(self.model)
        try:
            async with self._client.stream_post(
                self._target.url, self._target.headers, self._target.body
            ) as response:
                entry.answered(response.status)
                await self._check(response)
                async with aclosing(self._read(response)) as pieces:
                    async for piece in pieces:
                        yield piece
            entry.outcome = "complete"
        except (ProviderError, OutboundError) as error:
            entry.failed(error)
            if not self.begun and not isinstance(error, OutboundTimeoutError):
                self.accepted = False  # a failure that came instead of an answer is not billed
            if isinstance(error, ProviderError):
                raise
            raise ProviderUnavailable(self._unavailable(error)) from error
        finally:
            entry.write()

    @abstractmethod
    def _read(self, response: Response) -> AsyncGenerator[T, None]:
        """The answer that the provider has begun."""

    async def _check(self, response: Response) -> None:
        if 200 <= response.status < 300:
            self.accepted = True
            return
        if response.status < 400:
            raise ProviderError(f"{self.model.provider.display_name} answered with a redirect.")
        body = await response.read_limited(MAX_ERROR_BYTES)
        raise self._wire.error(response.status, response.headers, body)

    def _unavailable(self, error: OutboundError) -> str:
        name = self.model.provider.display_name
        if self.begun:
            return f"{name} broke off in the middle of its answer."
        if isinstance(error, OutboundTimeoutError):
            return f"{name} did not answer in time."
        return f"{name} could not be reached."


class _LogLine:
    """Its log line: no bodies, no keys, no addresses."""

    def __init__(self, model: Model) -> None:
        self.outcome = "abandoned"
        self._model = model
        self._status: int | None = None
        self._start = time.monotonic()
        self._latency_ms: int | None = None
        self._said: list[str] | None = None

    def answered(self, status: int) -> None:
        """Headers have come."""
        self._status = status
        self._latency_ms = self._elapsed_ms()

    def failed(self, error: Exception) -> None:
        """Its notes are what a provider said that only the operator may see."""
        self.outcome = type(error).__name__
        self._said = getattr(error, "__notes__", None)

    def write(self) -> None:
        """Log it; the request's own line tells of those that went well."""
        tell = logger.debug if self.outcome == "complete" else logger.info
        tell(
            "provider_call",
            provider=self._model.provider.slug,
            model=self._model.slug,
            status=self._status,
            outcome=self.outcome,
            said=self._said,
            latency_ms=self._latency_ms,
            total_ms=self._elapsed_ms(),
        )

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._start) * 1000)
