"""Asks one candidate after another until one answers: never after the first byte of an answer.

What is sent to a candidate is the business of its user (a neutral request, or a caller's own bytes):
this module decides who is asked next and when, tells the circuits, and keeps a record of every attempt.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from qlaud_actors.errors import (
    BudgetRefused,
    InvalidRequest,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
    QlaudError,
)
from qlaud_actors.outbound.client import OutboundTimeoutError
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.circuit import Circuits
from qlaud_actors.providers.model import Model

C = TypeVar("C", bound="HostCall")
R = TypeVar("R")


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


Opener = Callable[[Model], C]
"""Prepares the call of a candidate."""

BeforeAttempt = Callable[[Model], Awaitable[None]]
"""Awaited before each attempt, the first included: where the meter changes its hold. Refuses the
candidate by raising one of REFUSALS; any other error ends the call."""

REFUSALS = (BudgetRefused, InvalidRequest)
"""There is not enough money for it, or it cannot be asked such a thing."""


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

    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(1))
    circuits: Circuits = field(default_factory=Circuits)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def healthy(self, model: Model) -> bool:
        """Whether a call of this model should go to this host now (for `routing.candidates`)."""
        return self.circuits.healthy(model, self.clock())

    def call(
        self, candidates: Sequence[Model], opener: Opener[C], before_attempt: BeforeAttempt = nothing
    ) -> "FallbackCall[C]":
        """Prepare a call of at least one candidate, in order; nothing is sent before its answer is read."""
        return FallbackCall(self, tuple(candidates), opener, before_attempt)


@dataclass(slots=True)
class _Line:
    """Who is asked when, of one call."""

    hopeful: list[tuple[Model, float]]
    """With the moment before which it is not asked; grows by those that are asked again."""
    most: int
    at: int = 0
    failure: QlaudError | None = None


@dataclass(slots=True)
class FallbackCall(Generic[C]):
    """One call that may go through several hosts (itself a `HostCall`)."""

    _fallback: Fallback
    candidates: tuple[Model, ...]
    _opener: Opener[C] | None
    _before: BeforeAttempt
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

        Each is asked once before any is asked again; those whose failure may pass are, after a while,
        until as many attempts were made as there are candidates, and no fewer than the policy has.
        Raises the last ProviderError when none answered; the first refusal when none was asked.
        """
        line = self._line()
        while True:
            model, start = await self._next(line)
            try:
                async with aclosing(self._ask(model, start)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ProviderError as error:
                self._line_up_again(line, model, error)

    async def whole(self, read: Callable[[C], Awaitable[R]]) -> R:
        """The same where `read` has an answer of a candidate's call in one piece."""
        line = self._line()
        while True:
            model, start = await self._next(line)
            try:
                return await self._ask_whole(model, start, read)
            except ProviderError as error:
                self._line_up_again(line, model, error)

    def over(self) -> None:
        """Nobody else will be asked. The methods of its user are let go of: user and call would be a cycle
        that waits for the garbage collector, which took a tenth of the CPU under load.
        """
        self._opener, self._before = None, nothing

    def _line(self) -> "_Line":
        most = len(self.candidates) + self._fallback.policy.attempts - 1
        return _Line([(model, 0.0) for model in self.candidates], most)

    async def _next(self, line: "_Line") -> tuple[Model, float]:
        """Who is asked next, and the time. Raises the failure when nobody is left."""
        while line.at < len(line.hopeful):
            model, not_before = line.hopeful[line.at]
            line.at += 1
            await self._sleep_until(not_before)
            refusal = await self._refused(model)
            if refusal is None:
                self.model = model
                return model, self._fallback.clock()
            line.failure = line.failure or refusal
        assert line.failure is not None
        raise line.failure

    def _line_up_again(self, line: "_Line", model: Model, error: ProviderError) -> None:
        """Who failed may be asked again. Raises the error when nobody else may answer."""
        if self.begun or self.accepted or not another_may_answer(error):
            raise error
        line.failure = error
        again = self._again(model, error) if len(line.hopeful) < line.most else None
        if again is not None:
            line.hopeful.append((model, again))

    async def begin(self) -> None:
        """Let `before_attempt` choose the first candidate now, not with the first read.

        Those that it refuses are asked no more. Raises the first refusal when all are.
        """
        first: QlaudError | None = None
        for index, model in enumerate(self.candidates):
            refusal = await self._refused(model)
            if refusal is None:
                self.candidates = self.candidates[index:]
                return
            first = first or refusal
        assert first is not None
        raise first

    async def _refused(self, model: Model) -> QlaudError | None:
        start = self._fallback.clock()
        try:
            await self._before(model)
        except REFUSALS as refusal:
            self._note(model, start, refusal)
            return refusal
        return None

    def _again(self, model: Model, error: ProviderError) -> float | None:
        """When this candidate may be asked again; None when it should not be."""
        if not may_pass(error):
            return None
        asked = sum(1 for one in self.attempts if (one.provider, one.model) == _name(model))
        wait = self._fallback.policy.wait(asked, error.retry_after, random.random)
        return None if wait is None else self._fallback.clock() + wait

    async def _sleep_until(self, moment: float) -> None:
        if (wait := moment - self._fallback.clock()) > 0 and moment:
            await self._fallback.sleep(wait)

    async def _ask(self, model: Model, start: float) -> AsyncGenerator[Any, None]:
        circuits = self._fallback.circuits
        circuits.tried(model, start)
        answered = False
        try:
            call = self.current = self._open(model)
            async with aclosing(call.events()) as pieces:
                async for piece in pieces:
                    if not answered:
                        answered = True
                        circuits.succeeded(model)
                        self._note(model, start, None)
                    yield piece
            if not answered:
                self._note(model, start, None)
        except ProviderError as error:
            circuits.failed(model, error, self._fallback.clock())
            if not answered:
                self._note(model, start, error)
            raise

    async def _ask_whole(self, model: Model, start: float, read: Callable[[C], Awaitable[R]]) -> R:
        circuits = self._fallback.circuits
        circuits.tried(model, start)
        try:
            call = self.current = self._open(model)
            answer = await read(call)
        except ProviderError as error:
            circuits.failed(model, error, self._fallback.clock())
            self._note(model, start, error)
            raise
        circuits.succeeded(model)
        self._note(model, start, None)
        return answer

    def _open(self, model: Model) -> C:
        assert self._opener is not None
        return self._opener(model)

    def _note(self, model: Model, start: float, error: QlaudError | None) -> None:
        ms = round((self._fallback.clock() - start) * 1000)
        status, code = (error.status, error.code) if error else (200, None)
        self.attempts.append(Attempt(*_name(model), status, ms, code))


def another_may_answer(error: ProviderError) -> bool:
    """Whether another host may do better: not where the request itself was refused. A model that is
    missing at one host (404) need not be at the next.
    """
    return not isinstance(error, ProviderRejected) or error.status == 404


def may_pass(error: ProviderError) -> bool:
    """Whether the same host may do better later: not where it refuses our key or account, nor where it
    took the call and fell silent, for it may be at work still.
    """
    refused = isinstance(error, ProviderUnavailable) and (error.credentials or error.billing)
    return error.transient and not refused and not isinstance(error.__cause__, OutboundTimeoutError)


def _name(model: Model) -> tuple[str, str]:
    return model.provider.slug, model.slug
