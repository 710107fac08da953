"""Asks one candidate after another until one answers: never after the first byte of an answer.

What is sent to a candidate is the business of its user (a neutral request, or a caller's own bytes):
this module decides who is asked next, tells the circuits, and keeps a record of every attempt.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from qlaud_actors.errors import BudgetRefused, ProviderError, ProviderRejected, QlaudError
from qlaud_actors.log import get_logger
from qlaud_actors.providers.circuit import Circuits
from qlaud_actors.providers.model import Model, ModelRequest

C = TypeVar("C", bound="HostCall")
C_co = TypeVar("C_co", bound="HostCall", covariant=True)

logger = get_logger(__name__)


class HostCall(Protocol):
    """One call of one host, not sent before its answer is read (`exchange.Exchange` is one)."""

    @property
    def accepted(self) -> bool:
        """Whether the host works on it, and bills."""

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has come."""

    def events(self) -> AsyncGenerator[Any, None]:
        """The answer as it comes; read once. Raises ProviderError."""


class Calls(Protocol[C_co]):
    """Prepares calls (`caller.Caller` does)."""

    def call(self, request: ModelRequest, model: Model) -> C_co:
        """Prepare one call; nothing is sent before its events are read."""


Opener = Callable[[Model, bool], C]
"""Prepares the call of a candidate. The flag: others can be asked after it, so it should not repeat
or wait by itself."""

BeforeAttempt = Callable[[Model], Awaitable[None]]
"""Awaited before each candidate, the first included: where the meter tops its hold up. Refuses the
candidate by raising BudgetRefused; any other error ends the call."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One candidate that was asked, or would have been."""

    provider: str
    model: str
    status: int
    """The HTTP status that it stands for; 200 when it answered."""
    ms: int
    """Until the first piece of the answer, or until it failed."""
    error: str | None = None
    """The code of what went wrong."""


async def nothing(model: Model) -> None:
    """Before an attempt that needs no preparation."""


@dataclass(slots=True)
class Fallback:
    """Makes calls that fail over; one for each process, because circuits are shared by all calls."""

    circuits: Circuits = field(default_factory=Circuits)
    clock: Callable[[], float] = time.monotonic

    def healthy(self, model: Model) -> bool:
        """Whether a call of this model should go to this host now (for `routing.candidates`)."""
        return self.circuits.healthy(model, self.clock())

    def call(
        self, candidates: Sequence[Model], opener: Opener[C], before_attempt: BeforeAttempt = nothing
    ) -> "FallbackCall[C]":
        """Prepare a call of at least one candidate, in order; nothing is sent before its answer is read."""
        return FallbackCall(tuple(candidates), opener, before_attempt, self.circuits, self.clock)


@dataclass(slots=True)
class FallbackCall(Generic[C]):
    """One call that may go through several hosts (itself a `HostCall`)."""

    candidates: tuple[Model, ...]
    _opener: Opener[C]
    _before: BeforeAttempt
    _circuits: Circuits
    _clock: Callable[[], float]
    attempts: list[Attempt] = field(default_factory=list)
    """Every candidate that was asked or refused, in order."""
    model: Model | None = None
    """Who was asked last: once the call has begun, who answers and is billed."""
    current: C | None = None
    """The call of that candidate, with whatever it knows of usage."""

    @property
    def accepted(self) -> bool:
        """Whether the current host works on it, and bills."""
        return self.current is not None and self.current.accepted

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has come."""
        return self.current is not None and self.current.begun

    async def events(self) -> AsyncGenerator[Any, None]:
        """The answer of the first candidate that gives one, piece by piece; read once.

        Raises the last ProviderError when none did; what `before_attempt` raised when it let none through.
        """
        failure: QlaudError | None = None
        for index, model in enumerate(self.candidates):
            start = self._clock()
            try:
                await self._before(model)
            except BudgetRefused as refusal:
                self._note(model, start, refusal)
                failure = failure or refusal
                continue
            self.model = model
            try:
                async with aclosing(
                    self._ask(model, start, others=index + 1 < len(self.candidates))
                ) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ProviderError as error:
                if self.begun or self.accepted or not another_may_answer(error):
                    raise
                failure = error
        assert failure is not None
        raise failure

    async def _ask(self, model: Model, start: float, *, others: bool) -> AsyncGenerator[Any, None]:
        self._circuits.tried(model, start)
        answered = False
        try:
            call = self.current = self._opener(model, others)
            async with aclosing(call.events()) as pieces:
                async for piece in pieces:
                    if not answered:
                        answered = True
                        self._circuits.succeeded(model)
                        self._note(model, start, None)
                    yield piece
            if not answered:
                self._note(model, start, None)
        except ProviderError as error:
            self._circuits.failed(model, error, self._clock())
            if not answered:
                self._note(model, start, error)
            raise

    def _note(self, model: Model, start: float, error: QlaudError | None) -> None:
        attempt = Attempt(
            model.provider.slug,
            model.slug,
            error.status if error else 200,
            round((self._clock() - start) * 1000),
            error.code if error else None,
        )
        self.attempts.append(attempt)
        if error or len(self.attempts) > 1:
            logger.info("provider_attempt", **{name: getattr(attempt, name) for name in Attempt.__slots__})


def through(caller: Calls[C], once: Calls[C], request_for: Callable[[Model], ModelRequest]) -> Opener[C]:
    """Asks candidates with a neutral request: `once` is a caller that makes one attempt, for candidates
    that have others behind them. `request_for` gives each its request, with the `max_tokens` it affords.
    """

    def opener(model: Model, others: bool) -> C:
        return (once if others else caller).call(request_for(model), model)

    return opener


def another_may_answer(error: ProviderError) -> bool:
    """Whether another host may do better: not where the request itself was refused. A model that is
    missing at one host (404) need not be at the next.
    """
    return not isinstance(error, ProviderRejected) or error.status == 404
