"""Usage of end users, pushed to Stripe's Billing Meters, so that Stripe can bill each of them.

A trigger queues an event in the transaction of the usage event; here it is sent until Stripe has it. The
usage event's id is its identifier, by which Stripe counts it once within at least 24 hours.
"""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.stripe_client import StripeClient, StripeRefused, StripeUnanswered, open_stripe
from qlaud_actors.db.pool import Pool, Record, Rows
from qlaud_actors.errors import NotFound, QlaudError
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Settings

logger = get_logger(__name__)

Value: TypeAlias = Literal["cost_micros", "tokens"]

BATCH = 200
AT_ONCE = 8
"""Far below the thousand a second that Stripe takes."""


@dataclass(frozen=True, slots=True)
class Meter:
    """The event name of a meter in Stripe, and what an account counts with it."""

    event_name: str
    value: Value


async def set_meter(rows: Rows, account_id: uuid.UUID, meter: Meter) -> None:
    """Push an account's usage from now on. Raises NotFound when there is no such account."""
    if await rows.fetchval(QUERIES.set_stripe_meter, account_id, meter.event_name, meter.value) is None:
        raise NotFound("There is no such account.")


async def remove_meter(rows: Rows, account_id: uuid.UUID) -> None:
    """Push nothing new; what waits is still sent. Raises NotFound."""
    if await rows.fetchval(QUERIES.stop_stripe_meter, account_id) is None:
        raise NotFound("This account pushes no usage to Stripe.")


async def show_meter(rows: Rows, account_id: uuid.UUID) -> tuple[Record, list[Record]]:
    """What an account pushes and how much waits, and what Stripe refused lately. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.stripe_meter, account_id)
    if row is None:
        raise NotFound("This account pushes no usage to Stripe.")
    return row, await rows.fetch(QUERIES.failed_meter_events, account_id)


async def retry_failed(rows: Rows, account_id: uuid.UUID) -> int:
    """Queue again what Stripe refused; returns how many."""
    return int(await rows.fetchval(QUERIES.retry_meter_events, account_id))


async def map_end_user(rows: Rows, account_id: uuid.UUID, end_user_id: str, customer_id: str) -> None:
    """Bill a customer of Stripe for an end user, from now on."""
    await rows.execute(QUERIES.map_end_user, account_id, end_user_id, customer_id)


async def customer_of(rows: Rows, account_id: uuid.UUID, end_user_id: str) -> str:
    """The customer of Stripe who is billed for an end user. Raises NotFound."""
    customer_id: str | None = await rows.fetchval(QUERIES.end_user_billing, account_id, end_user_id)
    if customer_id is None:
        raise NotFound("Nobody is billed for this end user.")
    return customer_id


async def unmap_end_user(rows: Rows, account_id: uuid.UUID, end_user_id: str) -> None:
    """Bill nobody for an end user any more. Raises NotFound."""
    if await rows.fetchval(QUERIES.unmap_end_user, account_id, end_user_id) is None:
        raise NotFound("Nobody is billed for this end user.")


async def push(pool: Pool, settings: Settings) -> int:
    """Send what is due, batch by batch; returns how many events Stripe has now."""
    await pool.execute(QUERIES.give_up_meter_events)
    delivered = 0
    while claimed := await pool.fetch(QUERIES.claim_meter_events, BATCH):
        async with open_stripe(settings) as stripe:
            gate = asyncio.Semaphore(AT_ONCE)
            sent = await asyncio.gather(*(_send(pool, stripe, gate, row) for row in claimed))
        done = [row["usage_event_id"] for row, ok in zip(claimed, sent, strict=True) if ok]
        await pool.execute(QUERIES.meter_events_delivered, done)
        delivered += len(done)
        if len(done) < BATCH:
            break
    return delivered


async def _send(pool: Pool, stripe: StripeClient, gate: asyncio.Semaphore, row: Record) -> bool:
    """Whether Stripe has it. What it refuses waits for a person, what it did not answer for the next try."""
    try:
        async with gate:
            await stripe.count(_event(row))
    except StripeRefused as refused:
        logger.warning("meter_event_refused", usage_event=str(row["usage_event_id"]), reason=refused.message)
        await pool.execute(QUERIES.meter_event_refused, row["usage_event_id"], refused.message[:500])
        return False
    except StripeUnanswered as unanswered:
        if unanswered.turned_away and row["first"]:
            await pool.execute(QUERIES.meter_event_not_counted, row["usage_event_id"])
        return False
    except QlaudError as error:
        logger.warning("meter_event_unanswered", usage_event=str(row["usage_event_id"]), error=error.code)
        return False
    return True


def _event(row: Record) -> dict[str, Any]:
    return {
        "event_name": row["event_name"],
        "identifier": str(row["usage_event_id"]),
        "timestamp": row["occurred_s"],
        "payload": {"stripe_customer_id": row["stripe_customer_id"], "value": str(row["value"])},
    }
