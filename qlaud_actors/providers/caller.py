"""Calls a model: encodes, sends, retries what may be retried, decodes, and keeps what billing needs."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import msgspec

from qlaud_actors.errors import ProviderError, ProviderNotConfigured, ProviderUnavailable
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.client import Client, OutboundError, OutboundTimeoutError, Response
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.bound import BYTES_PER_TOKEN, input_estimate
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model, ModelEvent, ModelRequest
from qlaud_actors.providers.wire import Wire
from qlaud_actors.providers.wires import WIRES
from qlaud_actors.settings import Secret
from qlaud_actors.usage import Usage

MAX_ERROR_BYTES = 64 * 1024

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes and as whom."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Caller:
    """Prepares calls; one for each process."""

    def __init__(
        self,
        client: Client,
        catalog: Catalog,
        attempts: int = 3,
        *,
        wires: Mapping[str, Wire] = WIRES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._policy = RetryPolicy(attempts)
        self._wires = wires
        self._sleep = sleep

    def check(self, model: Model) -> None:
        """Raises ProviderNotConfigured when there is no key for the model's provider."""
        provider = model.provider
        if not self._catalog.configured(provider):
            raise ProviderNotConfigured(
                f"No API key is set for {provider.display_name}: set {provider.api_key_env}."
            )

    def call(self, request: ModelRequest, model: Model) -> "Call":
        """Prepare one call; nothing is sent before its events are read.

        Raises ProviderNotConfigured.
        """
        self.check(model)
        provider = model.provider
        wire = self._wires[provider.wire]
        encoded = wire.encode(request, model)
        headers = {
            "content-type": "application/json",
            **encoded.headers,
            **_credentials(provider.auth_header, self._catalog.credentials(provider)),
        }
        target = Target(provider.base_url + encoded.path, headers, msgspec.json.encode(encoded.body))
        return Call(request, model, wire, target, self._client, self._policy, self._sleep)


def _credentials(header: str, key: Secret | None) -> dict[str, str]:
    if key is None:
        return {}
    return {header: key.reveal() if header == "x-api-key" else f"Bearer {key.reveal()}"}


@dataclass(slots=True)
class Call:
    """One call of a model: its events, and what is known of it when they break off."""

    request: ModelRequest = field(repr=False)
    model: Model
    _wire: Wire
    _target: Target
    _client: Client
    _policy: RetryPolicy
    _sleep: Callable[[float], Awaitable[None]]
    attempts: int = 0
    accepted: bool = False
    """The provider has answered 2xx and works on it: from here on it bills."""
    begun: bool = False
    """A part of the answer has come; from here on nothing is repeated."""
    usage: Usage = field(default_factory=Usage)
    """What the provider has reported so far."""
    usage_known: bool = False
    """`usage` is the provider's final figure."""

    async def events(self) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes; read once.

        Failures that may pass (overload, a lost connection) are retried, but only until the first byte
        of an answer. Raises ProviderError.
        """
        wait: float | None = 0.0
        while wait is not None:
            self.attempts += 1
            try:
                async with aclosing(self._attempt()) as events:
                    async for event in events:
                        yield event
                return
            except ProviderError as error:
                wait = self._policy.wait(self.attempts, error.retry_after, random.random)
                if wait is None or self.begun or not _may_pass(error):
                    raise
            await self._sleep(wait)

    def produced_usage(self, output_characters: int) -> Usage | None:
        """What to bill a call that broke off after so many characters; None when it never began.

        Figures that the provider did not get to tell are estimated from what was sent and received.
        """
        if not self.accepted:
            return None
        if self.usage_known:
            return self.usage
        fresh = 0 if self.usage.input_total else input_estimate(self.request, self.model)
        return replace(
            self.usage,
            input=self.usage.input + fresh,
            output=max(self.usage.output, -(-output_characters // BYTES_PER_TOKEN)),
            estimated=True,
        )

    async def _attempt(self) -> AsyncGenerator[ModelEvent, None]:
        line = _Line(self.model, self.attempts)
        try:
            async with self._client.stream_post(
                self._target.url, self._target.headers, self._target.body
            ) as response:
                line.answered(response.status)
                await self._check(response)
                async with aclosing(self._decode(response)) as events:
                    async for event in events:
                        yield event
            line.outcome = "complete"
        except (ProviderError, OutboundError) as error:
            line.failed(error)
            if not self.begun and not isinstance(error, OutboundTimeoutError):
                self.accepted = False  # a failure that came instead of an answer is not billed
            if isinstance(error, ProviderError):
                raise
            raise ProviderUnavailable(self._unavailable(error)) from error
        finally:
            line.write()

    async def _check(self, response: Response) -> None:
        if 200 <= response.status < 300:
            self.accepted = True
            return
        if response.status < 400:
            raise ProviderError(f"{self.model.provider.display_name} answered with a redirect.")
        body = await response.read_limited(MAX_ERROR_BYTES)
        raise self._wire.error(response.status, response.headers, body)

    async def _decode(self, response: Response) -> AsyncGenerator[ModelEvent, None]:
        decoder = self._wire.decoder(self.request, self.model)
        ended = False
        while not ended:
            chunk = await anext(response, b"")
            ended = not chunk
            try:
                events = decoder.finish() if ended else decoder.feed(chunk)
            finally:
                self.usage, self.usage_known = decoder.usage, decoder.usage_known
            # Set only now: an error event instead of an answer may still be retried.
            self.begun = True
            for event in events:
                yield event

    def _unavailable(self, error: OutboundError) -> str:
        name = self.model.provider.display_name
        if self.begun:
            return f"{name} broke off in the middle of its answer."
        if isinstance(error, OutboundTimeoutError):
            return f"{name} did not answer in time."
        return f"{name} could not be reached."


def _may_pass(error: ProviderError) -> bool:
    """Whether a second try may fare better: not where the provider refuses our key or account, nor
    where it took the call and fell silent, for it may be at work still.
    """
    refused = error.details.get("credentials") or error.details.get("billing")
    return error.transient and not refused and not isinstance(error.__cause__, OutboundTimeoutError)


class _Line:
    """The log line of one attempt: no bodies, no keys, no addresses."""

    def __init__(self, model: Model, attempt: int) -> None:
        self.outcome = "abandoned"
        self._model = model
        self._attempt = attempt
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
        """Log it."""
        logger.info(
            "provider_call",
            provider=self._model.provider.slug,
            model=self._model.slug,
            attempt=self._attempt,
            status=self._status,
            outcome=self.outcome,
            said=self._said,
            latency_ms=self._latency_ms,
            total_ms=self._elapsed_ms(),
        )

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._start) * 1000)
