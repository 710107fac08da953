"""The one door to a provider: a call is had for money that was set aside, and from nowhere else.

`admit` holds the worst case of a request and gives a ticket; the ticket opens the call, and is settled
exactly once with what the call used.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from qlaud_actors import metrics
from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge, Hold
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.errors import InvalidRequest, ProviderUnavailable
from qlaud_actors.gateway.asks import AnthropicAsk, Ask
from qlaud_actors.gateway.translation import Translation
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.limits import require_model, require_price
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.log import get_logger
from qlaud_actors.money import nanos_to_usd
from qlaud_actors.providers.bound import input_bound, input_estimate
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.usage import Usage, WorstCase

FLOOR_TOKENS = 64
"""The shortest answer that is worth asking for; below it the money left is too little."""

SETTLE_WAITS = (0.1, 0.5, 2.0, 5.0, 10.0, 20.0)
"""Seconds between attempts to settle while the database is away."""

logger = get_logger(__name__)


class Answer(Protocol):
    """A call that was paid for in advance (`Passage`, `Translation`)."""

    @property
    def ended(self) -> bool:
        """The answer is complete with the bytes that come next."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in the caller's dialect. Raises ProviderError."""

    def billable(self) -> Usage | None:
        """What to bill as things stand; None when the provider never began."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits requests; one for each process."""

    pool: Pool
    catalog: Catalog
    caller: Caller
    markup_bps: int

    async def admit(self, key: ApiKey, ask: Ask) -> "Ticket":
        """Set the worst case of a request aside, with fewer output tokens where the money affords no more.

        Raises BudgetRefused, UnknownModel, ProviderNotConfigured, InvalidRequest.
        """
        model = self._model(key, ask)
        request = ask.request(model)
        worst = WorstCase(
            model.price, input_bound(request, model), request.max_tokens * ask.copies, self.markup_bps
        )
        floor = _floor(request, passes=model.provider.wire == ask.wire) * ask.copies
        hold = await meter.hold(self.pool, key.id, None, worst, floor)
        affordable = replace(request, max_tokens=hold.max_tokens // ask.copies)
        return Ticket(self, key, ask, model, affordable, hold)

    async def count(self, key: ApiKey, ask: AnthropicAsk) -> int:
        """Input tokens of a request: counted by its provider where that costs nothing, else estimated."""
        model = self._model(key, ask)
        if model.provider.wire != ask.wire:
            return input_estimate(ask.counted(), model)
        call = self.caller.pass_through(ask.raw_count(model), ask.counted(), model)
        async with aclosing(call.events()) as pieces:
            body = b"".join([piece async for piece in pieces])
        counted = msgspec.json.decode(body).get("input_tokens")
        if not isinstance(counted, int):
            raise ProviderUnavailable("The provider did not count.")
        return counted

    def _model(self, key: ApiKey, ask: Ask) -> Model:
        lifecycle.precheck(key)
        model = self.catalog.resolve(ask.slug)
        require_model(key, model.slug)
        require_price(key, model)
        self.catalog.require_configured(model)
        return model


@dataclass(slots=True)
class Ticket:
    """The right to one call, and the duty to settle it."""

    admission: Admission = field(repr=False)
    key: ApiKey
    ask: Ask = field(repr=False)
    model: Model
    request: ModelRequest = field(repr=False)
    hold: Hold
    charged_nanos: int = 0
    _settled: bool = False
    _start: float = field(default_factory=time.monotonic)

    @property
    def remaining_nanos(self) -> int | None:
        """What the key could spend when the request came, other requests' holds apart; None without a cap."""
        key = self.key
        return None if key.limit_nanos is None else max(0, key.limit_nanos - key.spent_nanos - key.held_nanos)

    def open(self) -> Answer:
        """The call, with bytes in the caller's dialect; nothing is sent before they are read."""
        ask, model, caller = self.ask, self.model, self.admission.caller
        if model.provider.wire == ask.wire:
            raw = ask.raw(model, self.request.max_tokens)
            return caller.pass_through(raw, self.request, model)
        return Translation(caller.call(self.request, model), ask.writer(model), ask.stream)

    async def settle(self, usage: Usage | None, status: int) -> None:
        """Charge what was used, or give the hold back when nothing was; the first time counts.

        A database that is away is waited for; when it stays away the hold stays, so no cap is passed.
        """
        for wait in SETTLE_WAITS:
            if self._settled:
                return
            try:
                await self._write(usage, status)
                self._settled = True
            except ConnectionLost as error:
                logger.warning("settlement_waits", hold=str(self.hold.id), error=type(error).__name__)
                await asyncio.sleep(wait)
        if not self._settled:
            logger.error("settlement_lost", hold=str(self.hold.id), model=self.model.slug)

    async def _write(self, usage: Usage | None, status: int) -> None:
        pool = self.admission.pool
        if usage is None:
            await meter.release(pool, [self.hold.id])
            return
        async with pool.acquire() as connection, connection.transaction():
            settled = await meter.settle(connection, self.hold.id, self._charge(usage, status))
        metrics.STEPS.labels(self.model.slug).inc()
        metrics.TOKENS.labels("input").inc(usage.input_total)
        metrics.TOKENS.labels("output").inc(usage.output)
        if settled:
            self.charged_nanos = settled.charged_nanos
            metrics.COST.inc(nanos_to_usd(settled.charged_nanos))
            metrics.OVERRUN.inc(nanos_to_usd(settled.overrun_nanos))

    def _charge(self, usage: Usage, status: int) -> Charge:
        key, model = self.key, self.model
        return Charge(
            account_id=key.account_id,
            key_id=key.id,
            turn_id=None,
            step=None,
            end_user_id=key.end_user_id,
            model_slug=model.slug,
            provider_slug=model.provider.slug,
            usage=usage,
            price=model.price,
            markup_bps=self.admission.markup_bps,
            latency_ms=round((time.monotonic() - self._start) * 1000),
            status=status,
        )


def _floor(request: ModelRequest, *, passes: bool) -> int:
    """The shortest answer worth holding for. A thinking budget comes on top where the body passes as it
    is: the provider refuses a limit below it. Raises InvalidRequest.
    """
    thinking = request.params.get("thinking")
    budget = thinking.get("budget_tokens") if passes and isinstance(thinking, dict) else 0
    if not isinstance(budget, int | None) or isinstance(budget, bool):
        raise InvalidRequest("`thinking.budget_tokens` must be a whole number.")
    return min(request.max_tokens, FLOOR_TOKENS + max(0, budget or 0))
