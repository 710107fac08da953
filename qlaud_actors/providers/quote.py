"""What a call of one candidate costs at most, and the least of it that is worth paying for. Pure."""

from dataclasses import dataclass, field, replace

from qlaud_actors.errors import InvalidRequest
from qlaud_actors.providers.bound import input_bound
from qlaud_actors.providers.model import Model, ModelRequest
from qlaud_actors.usage import WorstCase

FLOOR_TOKENS = 64
"""The shortest answer that is worth paying for; below it the money left is too little."""


@dataclass(frozen=True, slots=True)
class Quote:
    """One candidate's offer for a request; `floor_tokens` is of all copies together."""

    model: Model
    request: ModelRequest = field(repr=False)
    worst: WorstCase
    floor_tokens: int
    copies: int = 1
    """How many answers are wanted at once; each may be as long as the limit."""

    def clamped(self, max_tokens: int) -> ModelRequest:
        """The request with what was granted for all copies together."""
        if max_tokens == self.worst.max_tokens:
            return self.request
        return replace(self.request, max_tokens=max_tokens // self.copies)


def quote(request: ModelRequest, model: Model, markup_bps: int, copies: int = 1) -> Quote:
    """The offer of a model that writes text. Raises InvalidRequest for a budget that is no number."""
    if request.max_tokens > model.max_output_tokens:
        request = replace(request, max_tokens=model.max_output_tokens)
    worst = WorstCase(model.price, input_bound(request, model), request.max_tokens * copies, markup_bps)
    return Quote(model, request, worst, _floor(request, model) * copies, copies)


def _floor(request: ModelRequest, model: Model) -> int:
    """A thinking budget comes on top where the provider knows such budgets: it refuses a limit below it."""
    thinking = request.params.get("thinking")
    native = model.provider.wire == "anthropic"
    budget = thinking.get("budget_tokens") if native and isinstance(thinking, dict) else 0
    if not isinstance(budget, int | None) or isinstance(budget, bool):
        raise InvalidRequest("`thinking.budget_tokens` must be a whole number.")
    return min(request.max_tokens, FLOOR_TOKENS + max(0, budget or 0))
