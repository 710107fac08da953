"""What the calls of one turn have in common about money, whether they are steps or summaries."""

import time
from collections.abc import Awaitable, Callable, Sequence

from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge, Refused
from qlaud_actors.conversation.model import Step, Turn
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Connection
from qlaud_actors.errors import BudgetRefused, InvalidRequest, QlaudError
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.quote import Quote
from qlaud_actors.usage import Usage, WorstCase


async def first_held(candidates: Sequence[Model], hold: Callable[[Model], Awaitable[Step]]) -> Step:
    """The call as the first candidate takes it that there is money for. Raises the first refusal."""
    refused: QlaudError | None = None
    for model in candidates:
        try:
            return await hold(model)
        except (BudgetRefused, InvalidRequest) as refusal:
            refused = refused or refusal
    assert refused is not None
    raise refused


async def within_turn(connection: Connection, turn: Turn, offer: Quote) -> WorstCase:
    """The worst case, with fewer tokens where the turn may spend no more. Raises TurnBudgetReached."""
    limit = turn.request.max_nanos
    if limit is None:
        return offer.worst
    spent = await connection.fetchval(QUERIES.turn_cost, turn.id)
    worst = offer.worst.with_max_tokens(offer.worst.affordable_tokens(limit - spent))
    least = offer.worst.with_max_tokens(min(offer.floor_tokens, offer.worst.max_tokens)).nanos()
    if least > limit - spent:
        raise meter.refusal(Refused("turn", limit, spent, 0, None, least))
    return worst


async def release_stale(connection: Connection, turn: Turn) -> None:
    """Holds of a turn that are still there belong to owners that are gone."""
    stale = [row["id"] for row in await connection.fetch(QUERIES.holds_of_turn, turn.id)]
    if stale:
        await meter.release(connection, stale)


def charge_for(
    turn: Turn, step: Step, number: int | None, usage: Usage, markup_bps: int, opened_at: float
) -> Charge:
    """What a turn's call used, `opened_at` by the monotonic clock; only a step has a number."""
    return Charge(
        account_id=turn.account_id,
        key_id=turn.key_id,
        turn_id=turn.id,
        step=number,
        end_user_id=turn.end_user_id,
        model_slug=step.model.slug,
        provider_slug=step.model.provider.slug,
        usage=usage,
        price=step.model.price,
        markup_bps=markup_bps,
        latency_ms=round((time.monotonic() - opened_at) * 1000),
        status=200,
    )
