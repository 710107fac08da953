"""The meter: hold the worst case, settle what was used, release what was not.

Authorise, then capture, as card payments do. Each function is one statement or part of the caller's
transaction; nothing here remembers anything, so a crash between any two lines leaves a hold in
Postgres that belongs to a turn and is settled or released with it, once.
"""

import uuid
from collections.abc import Sequence

from qlaud_actors.billing.model import Charge, Hold, Refused, Settlement
from qlaud_actors.db.pool import Connection, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import BudgetRefused, SpendCapReached, WalletEmpty
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos, format_usd, nanos_to_micros
from qlaud_actors.usage import WorstCase

QUERIES = load_queries("qlaud_actors.billing")
REFUSED = ("scope", "limit_nanos", "spent_nanos", "held_nanos", "resets_at_ms")


async def hold(
    rows: Rows, key_id: uuid.UUID, turn_id: uuid.UUID | None, worst: WorstCase, floor_tokens: int
) -> Hold:
    """Set the worst case of a call aside, or as much as is left, down to `floor_tokens` of output.

    The answer's `max_tokens` is what key and wallet afford. Raises SpendCapReached, WalletEmpty.
    """
    least = worst.with_max_tokens(min(floor_tokens, worst.max_tokens)).nanos()
    hold_id = new_uuid()
    row = await rows.fetchrow(QUERIES.place_hold, hold_id, key_id, turn_id, worst.nanos(), least)
    assert row is not None
    if row["granted"] is None:
        raise _refusal(Refused(needed_nanos=least, **{name: row[name] for name in REFUSED}))
    return Hold(hold_id, row["granted"], worst.affordable_tokens(row["granted"]))


async def settle(connection: Connection, hold_id: uuid.UUID, charge: Charge) -> Settlement | None:
    """Charge a call and write its ledger entry and usage event, in the caller's transaction.

    None when there is nothing to settle: the hold is gone, or the step was metered before.
    """
    picos, event_id = charge.price.cost_picos(charge.usage), new_uuid()
    if (
        await connection.fetchval(QUERIES.insert_usage_event, event_id, *_usage_columns(charge, picos))
        is None
    ):
        await release(connection, [hold_id])
        return None
    rated = charge_nanos(picos, charge.markup_bps)
    row = await connection.fetchrow(QUERIES.settle_hold, hold_id, rated, event_id)
    assert row is not None
    if row["charged"] is None:
        await connection.execute(QUERIES.forget_usage_event, event_id)
        return None
    await connection.execute(QUERIES.price_usage_event, event_id, row["charged"], row["overrun"])
    return Settlement(row["charged"], row["overrun"])


async def release(rows: Rows, hold_ids: Sequence[uuid.UUID]) -> int:
    """Give holds back; returns how many there still were."""
    return int(await rows.fetchval(QUERIES.release_holds, list(hold_ids)))


async def release_abandoned(rows: Rows) -> int:
    """Give back what front doors held that died: no relayed call lasts an hour."""
    return await release(rows, [row["id"] for row in await rows.fetch(QUERIES.abandoned_holds)])


def precheck(
    limit_nanos: int | None,
    spent_nanos: int,
    held_nanos: int,
    *,
    resets_at_ms: int | None = None,
    wallet_nanos: int | None = None,
) -> None:
    """Refuse at once what cannot succeed: the cap is spent, or the wallet (None: postpaid) is empty.

    Raises SpendCapReached, WalletEmpty.
    """
    if limit_nanos is not None and spent_nanos >= limit_nanos:
        raise _refusal(Refused("key", limit_nanos, spent_nanos, held_nanos, resets_at_ms, needed_nanos=1))
    if wallet_nanos is not None and wallet_nanos <= 0:
        raise _refusal(Refused("wallet", wallet_nanos, 0, 0, None, needed_nanos=1))


def _refusal(refused: Refused) -> BudgetRefused:
    """The 402 with its figures. It is worth a retry when only other calls' holds are in the way."""
    limit, spent, held, needed = (
        format_usd(nanos)
        for nanos in (refused.limit_nanos, refused.spent_nanos, refused.held_nanos, refused.needed_nanos)
    )
    tail = f"{held} is held for requests in flight, and this one needs {needed}."
    of_key = refused.scope == "key"
    said = f"this key may spend {limit}; {spent} is spent, " if of_key else f"the wallet has {limit}; "
    kind: type[BudgetRefused] = SpendCapReached if of_key else WalletEmpty
    return kind(
        f"{kind.code}: {said}{tail}",
        scope=refused.scope,
        limit_micros=nanos_to_micros(refused.limit_nanos),
        spent_micros=nanos_to_micros(refused.spent_nanos),
        held_micros=nanos_to_micros(refused.held_nanos),
        needed_micros=nanos_to_micros(refused.needed_nanos),
        resets_at=refused.resets_at_ms,
        retryable=refused.held_nanos > 0
        and refused.spent_nanos + refused.needed_nanos <= refused.limit_nanos,
    )


def _usage_columns(charge: Charge, picos: int) -> tuple[object, ...]:
    """The values of `insert_usage_event` after its id, in its order."""
    usage = charge.usage
    return (
        charge.account_id,
        charge.key_id,
        charge.turn_id,
        charge.step,
        charge.end_user_id,
        charge.model_slug,
        charge.provider_slug,
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        picos,
        charge.price.version,
        charge.markup_bps,
        usage.estimated,
        charge.latency_ms,
        charge.status,
    )
