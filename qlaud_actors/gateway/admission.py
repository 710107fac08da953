"""The one door to a provider: a call is had for money that was set aside, and from nowhere else.

`admit` holds the worst case of a request and gives a ticket; the ticket makes the call, changes its hold
when another model has to answer, and is settled exactly once with what the call used.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from qlaud_actors.billing import meter
from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.billing.model import Charge, Hold, KeyChanged, Settlement
from qlaud_actors.db.persist import persistently
from qlaud_actors.db.pool import Connection, ConnectionLost
from qlaud_actors.errors import ProviderUnavailable
from qlaud_actors.gateway.asks import AnthropicAsk, Ask
from qlaud_actors.gateway.translation import Translation
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.log import get_logger
from qlaud_actors.providers.bound import input_estimate
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback, FallbackCall
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.quote import Quote
from qlaud_actors.providers.routing import Hosts, candidates
from qlaud_actors.usage import Usage

SETTLE_SECONDS = 40.0
"""How long a settlement waits for a database that is away; then the hold stays, so no cap is passed."""

LIKELY_TOKENS = 4_096
"""What a key's pace counts for an answer before its length is known, at most."""

Transaction = Callable[[], AbstractAsyncContextManager[Connection]]

logger = get_logger(__name__)


class Answer(Protocol):
    """A call of one candidate (`Passage`, `MediaCall`, `Translation`)."""

    @property
    def accepted(self) -> bool:
        """The provider works on it, and bills."""

    @property
    def begun(self) -> bool:
        """A part of the answer has come."""

    @property
    def ended(self) -> bool:
        """The answer is complete with the bytes that come next."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in the caller's dialect. Raises ProviderError."""

    async def whole(self) -> bytes:
        """The same in one body."""

    def billable(self) -> Usage | None:
        """What to bill as things stand; None when the provider never began."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits requests; one for each process."""

    money: GroupCommit
    catalog: Catalog
    caller: Caller
    fallback: Fallback
    markup_bps: int

    async def admit(self, key: ApiKey, ask: Ask, call_id: uuid.UUID | None = None) -> "Ticket":
        """Set the worst case of a request aside, with fewer output tokens where the money affords no more.

        A `call_id` that is known before lets others give the hold back when this process dies.
        Raises BudgetRefused, UnknownModel, ScopeMissing, ProviderNotConfigured, InvalidRequest.
        """
        ticket = Ticket(self, key, ask, call_id or new_uuid())
        ticket.call = self.fallback.call(self._candidates(key, ask), ticket.prepare, ticket.hold_for)
        await ticket.call.begin()
        return ticket

    def check(self, key: ApiKey, ask: Ask) -> None:
        """Refuse at once what could not be admitted later. Raises what `admit` does."""
        ask.quote(self._candidates(key, ask)[0], self.markup_bps)

    async def count(self, key: ApiKey, ask: AnthropicAsk) -> int:
        """Input tokens of a request: counted by its provider where that costs nothing, else estimated."""
        model = self._candidates(key, ask)[0]
        if not ask.passes(model):
            return input_estimate(ask.counted(), model)

        def prepare(model: Model) -> Answer:
            return self.caller.pass_through(ask.raw_count(model), ask.counted(), model)

        async with aclosing(self.fallback.call([model], prepare).events()) as pieces:
            body = b"".join([piece async for piece in pieces])
        counted = msgspec.json.decode(body).get("input_tokens")
        if not isinstance(counted, int):
            raise ProviderUnavailable("The provider did not count.")
        return counted

    def tokens(self, key: ApiKey, ask: Ask) -> int:
        """A likely number of tokens in and out, for the key's pace; 0 when that is not limited."""
        if key.limits.tpm is None:
            return 0
        quote = ask.quote(self._candidates(key, ask)[0], self.markup_bps)
        return input_estimate(quote.request, quote.model) + min(quote.worst.max_tokens, LIKELY_TOKENS)

    def _candidates(self, key: ApiKey, ask: Ask) -> Hosts:
        if key.remembered is None:  # else these figures are old, and the hold knows better
            lifecycle.precheck(key)
        healthy, allowed = self.fallback.healthy, key.limits.allows
        found = candidates(
            self.catalog, ask.slug, healthy, ask.fallbacks, allowed, limited=key.limited, task=ask.task
        )
        self.catalog.require_configured(found[0])
        if key.remembered and not all(model.priced for model in found):
            raise KeyChanged  # its money may be limited by now, which no hold of nothing would tell
        return found


@dataclass(slots=True)
class Ticket:
    """The right to one call, and the duty to settle it."""

    admission: Admission = field(repr=False)
    key: ApiKey
    ask: Ask = field(repr=False)
    call_id: uuid.UUID
    quote: Quote | None = None
    """Of the candidate that the present hold is for."""
    hold: Hold | None = None
    call: FallbackCall[Answer] = field(init=False)
    settlement: Settlement | None = None
    used: Usage | None = None
    _settled: bool = False
    _start: float = field(default_factory=time.monotonic)

    @property
    def model(self) -> Model:
        """Who answers, or is asked next."""
        return self.quoted.model

    @property
    def quoted(self) -> Quote:
        """The quote that money is held for."""
        assert self.quote is not None
        return self.quote

    @property
    def ended(self) -> bool:
        """The answer is complete with the bytes that come next."""
        return self.call.current is not None and self.call.current.ended

    @property
    def charged_nanos(self) -> int:
        """What was charged so far."""
        return self.settlement.charged_nanos if self.settlement else 0

    @property
    def remaining_nanos(self) -> int | None:
        """What the key may still spend, other requests' holds apart; None without a cap."""
        if self.hold is None or self.hold.left_nanos is None:
            return None
        return max(0, self.hold.left_nanos - self.charged_nanos)

    async def hold_for(self, model: Model) -> None:
        """Hold what this candidate costs, instead of what the one before did.

        Raises BudgetRefused, InvalidRequest for a request that this one cannot be asked; KeyChanged.
        """
        if self.hold and self.quoted.model is model:
            return
        quote = self.ask.quote(model, self.admission.markup_bps)
        money, key, worst, floor = self.admission.money, self.key, quote.worst, quote.floor_tokens
        if self.quote is None:
            place = money.hold(self.call_id, key.id, worst, floor, key.remembered)
        else:
            place = meter.change_hold(money.pool, self.call_id, key.id, None, worst, floor, owner=money.owner)
        self.hold = None  # a refusal leaves nothing held
        self.hold = await place
        self.quote = quote

    def prepare(self, model: Model) -> Answer:
        """The call of a candidate that money is held for; nothing is sent before its answer is read."""
        assert self.hold is not None
        request = self.quoted.clamped(self.hold.max_tokens)
        ask, caller, call_id = self.ask, self.admission.caller, str(self.call_id)
        if ask.passes(model):
            return caller.pass_through(ask.raw(model, request.max_tokens), request, model, call_id)
        return Translation(caller.call(request, model, call_id), ask.writer(model), ask.stream)

    async def settle(self, status: int, transaction: Transaction | None = None) -> None:
        """Charge what was used by now, or give the hold back when nothing was; the first time counts.

        A `transaction` of the caller's is where it is written, instead of one of its own.
        A database that is away is waited for; when it stays away the hold stays, so no cap is passed.
        """
        if self._settled:
            return
        self.used = self.call.current.billable() if self.call.current else None
        try:
            await persistently(lambda: self._write(status, transaction), SETTLE_SECONDS)
        except ConnectionLost:
            logger.error("settlement_lost", hold=str(self.call_id), model=self.model.slug)  # noqa: TRY400
        else:
            self._settled = True
        self.call.over()

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self.admission.money.pool.acquire() as connection, connection.transaction():
            yield connection

    async def _write(self, status: int, transaction: Transaction | None) -> None:
        charge = self._charge(self.used, status) if self.used else None
        failed = any(one.error for one in self.call.attempts)
        if charge and not failed and transaction is None:
            self.settlement = await self.admission.money.settle(self.call_id, charge)
        else:
            async with (transaction or self._transaction)() as connection:
                if charge:
                    self.settlement = await meter.settle(connection, self.call_id, charge)
                else:
                    await meter.release(connection, [self.call_id])
                await meter.note_attempts(connection, self.call_id, self.key.id, self.call.attempts)
        if charge:
            meter.count(charge, self.settlement)

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
