"""One POST to a provider: sent once, and what is known of it when it breaks."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

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
        with _Watch(self) as watch, await self._post() as response:
            await self._check(watch, response)
            async with aclosing(self._read(response)) as pieces:
                async for piece in pieces:
                    yield piece

    async def whole(self) -> T:
        """The answer in one piece, where it has such a form; read once. Raises ProviderError."""
        with _Watch(self) as watch, await self._post() as response:
            await self._check(watch, response)
            return await self._whole(response)

    async def _post(self) -> Response:
        return await self._client.post(self._target.url, self._target.headers, self._target.body)

    @abstractmethod
    def _read(self, response: Response) -> AsyncGenerator[T, None]:
        """The answer that the provider has begun."""

    async def _whole(self, response: Response) -> T:
        """The same in one piece."""
        raise NotImplementedError

    def failed(self, error: ProviderError | OutboundError) -> None:
        """It broke. Raises ProviderUnavailable for what the client met."""
        if not self.begun and not isinstance(error, OutboundTimeoutError):
            self.accepted = False  # a failure that came instead of an answer is not billed
        if isinstance(error, OutboundError):
            raise ProviderUnavailable(self._unavailable(error)) from error

    async def _check(self, watch: "_Watch", response: Response) -> None:
        watch.answered(response.status)
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


class _Watch:
    """Around one exchange: its log line (no bodies, no keys, no addresses), and what its failure means."""

    def __init__(self, exchange: Exchange[Any]) -> None:
        self._exchange = exchange
        self._model = exchange.model
        self._status: int | None = None
        self._start = time.monotonic()
        self._latency_ms: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ProviderError | OutboundError):
            # Its notes are what a provider said that only the operator may see.
            self._write(type(error).__name__, getattr(error, "__notes__", None))
            self._exchange.failed(error)
        else:
            self._write("abandoned" if kind else "complete", None)

    def answered(self, status: int) -> None:
        """Headers have come."""
        self._status = status
        self._latency_ms = self._elapsed_ms()

    def _write(self, outcome: str, said: list[str] | None) -> None:
        """Log it; the request's own line tells of those that went well."""
        tell = logger.debug if outcome == "complete" else logger.info
        tell(
            "provider_call",
            provider=self._model.provider.slug,
            model=self._model.slug,
            status=self._status,
            outcome=outcome,
            said=said,
            latency_ms=self._latency_ms,
            total_ms=self._elapsed_ms(),
        )

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._start) * 1000)
