"""The model calls of a turn: candidates in order, each with money held for it before it is asked."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qlaud_actors.conversation.model import Step
from qlaud_actors.providers.caller import Call, Caller
from qlaud_actors.providers.fallback import Attempt, Fallback, FallbackCall
from qlaud_actors.providers.model import Model, ModelEvent
from qlaud_actors.usage import Usage


class Holds(Protocol):
    """Moves a step's hold to another candidate (`StepJournal`)."""

    async def hold_for(self, step: Step, model: Model) -> Step:
        """The step as this candidate would take it. Raises BudgetRefused, InvalidRequest; LeaseLost."""


@dataclass(frozen=True, slots=True)
class TurnModels:
    """Calls models for one turn (`loop.Models`)."""

    caller: Caller
    fallback: Fallback
    holds: Holds
    candidates: tuple[Model, ...]

    def call(self, step: Step) -> "TurnCall":
        """Prepare the call of a step whose money is held for one of the candidates."""
        return TurnCall(self, step)


@dataclass(slots=True)
class TurnCall:
    """The call of one step (`loop.StepCall`)."""

    _models: TurnModels = field(repr=False)
    step: Step
    """The step, with the model that answers, or was asked last."""
    _held: Model | None = field(init=False)
    _call: FallbackCall[Call] = field(init=False)

    def __post_init__(self) -> None:
        self._held = self.step.model
        models, first = self._models, self._models.candidates.index(self.step.model)
        self._call = models.fallback.call(models.candidates[first:], self._prepare, self._hold_for)

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Who was asked so far."""
        return self._call.attempts

    def events(self) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes. Raises ProviderError."""
        return self._call.events()

    def produced_usage(self, output_characters: int) -> Usage | None:
        """What to bill when it broke off after so many characters; None when it never began."""
        current = self._call.current
        return current.produced_usage(output_characters) if current else None

    def _prepare(self, model: Model) -> Call:
        return self._models.caller.call(self.step.request, model, str(self.step.call_id))

    async def _hold_for(self, model: Model) -> None:
        if model is not self._held:
            self._held = None  # a refusal leaves nothing held
            self.step = await self._models.holds.hold_for(self.step, model)
            self._held = model
