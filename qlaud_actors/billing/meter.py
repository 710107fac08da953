"""The meter: hold the worst case, settle what was used, release what was not.

Authorise, then capture, as card payments do. Each function is one statement or part of the caller's
transaction; nothing here remembers anything, so a crash between any two lines leaves a hold in
Postgres that belongs to a turn and is settled or released with it, once.
"""

import uuid
from collections.abc import Sequence

from qlaud_actors.billing.model import Charge, Hold, Settlement
from qlaud_actors.db.pool import Connection, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import SpendCapReached
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import charge_nanos, format_usd, nanos_to_micros
from qlaud_actors.usage import WorstCase

QUERIES = load_queries("qlaud_actors.billing")


async def hold(
    rows: Rows, key_id: uuid.UUID, turn_id: uuid.UUID | None, worst: WorstCase, floor_tokens: int
) -> Hold:
    """Set the worst case of a call aside, or as much as is left, down to `floor_tokens` of output.

    The answer's `max_tokens` is what the money affords. Raises SpendCapReached.
    """
    least = worst.with_max_tokens(min(floor_tokens, worst.max_tokens)).nanos()
    hold_id = new_uuid()
    row = await rows.fetchrow(QUERIES.place_hold, hold_id, key_id, turn_id, worst.nanos(), least)
    assert row is not None
    if row["granted"] is None:
        raise _cap_reached(row["limit_nanos"], row["spent_nanos"], row["held_nanos"], least)
    return Hold(hold_id, row["granted"], worst.affordable_tokens(row["granted"]))


async def settle(connection: Connection, hold_id: uuid.UUID, charge: Charge) -> Settlement | None:
    """Charge a call and write its usage event, in the caller's transaction.

    None when there is nothing to settle: the hold is gone, or the step was metered before.
    """
    picos = charge.price.cost_picos(charge.usage)
    row = await connection.fetchrow(QUERIES.settle_hold, hold_id, charge_nanos(picos, charge.markup_bps))
    assert row is not None
    if row["charged"] is None:
        return None
    if await connection.fetchval(QUERIES.insert_usage_event, *_usage_columns(charge, picos, row)) is None:
        # The step was metered before: this hold comes to no more than if it had been released.
        await connection.execute(QUERIES.take_back_spend, charge.key_id, row["charged"])
        return None
    return Settlement(row["charged"], row["overrun"])


async def release(rows: Rows, hold_ids: Sequence[uuid.UUID]) -> int:
    """Give holds back; returns how many there still were."""
    return int(await rows.fetchval(QUERIES.release_holds, list(hold_ids)))


def precheck(limit_nanos: int | None, spent_nanos: int, held_nanos: int) -> None:
    """Refuse at once what cannot succeed: the cap is spent. Raises SpendCapReached."""
    if limit_nanos is not None and spent_nanos >= limit_nanos:
        raise _cap_reached(limit_nanos, spent_nanos, held_nanos, 1)


def _cap_reached(limit: int, spent: int, held: int, needed: int) -> SpendCapReached:
    return SpendCapReached(
        f"key_cap_exceeded: this key may spend {format_usd(limit)}; {format_usd(spent)} is spent, "
        f"{format_usd(held)} is held for requests in flight, and this one needs {format_usd(needed)}.",
        scope="key",
        limit_micros=nanos_to_micros(limit),
        spent_micros=nanos_to_micros(spent),
        held_micros=nanos_to_micros(held),
        needed_micros=nanos_to_micros(needed),
        resets_at=None,
        retryable=held > 0 and spent + needed <= limit,
    )


def _usage_columns(charge: Charge, picos: int, settled: Record) -> tuple[object, ...]:
    """The values of `insert_usage_event`, in its order."""
    usage = charge.usage
    return (
        new_uuid(),
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
        settled["charged"],
        settled["overrun"],
        charge.price.version,
        charge.markup_bps,
        usage.estimated,
        charge.latency_ms,
        charge.status,
    )
