"""Automatic top-ups: when a wallet runs low, a saved payment method is charged, up to a monthly ceiling.

A decision is a row before it is a request, and its id is the request's idempotency key: however often a
process dies, Stripe is asked for the same payment. Only Stripe's event puts money into the wallet
(`topup.record`), and until it has come the account gets no second one.
"""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from qlaud_actors.billing import intent
from qlaud_actors.billing.intent import Failure
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.payment import NANOS_PER_CENT
from qlaud_actors.billing.stripe_client import StripeRefused, open_stripe
from qlaud_actors.db.pool import Connection, Pool, Record, Rows
from qlaud_actors.errors import Conflict, NotFound, QlaudError
from qlaud_actors.ids import new_uuid
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Settings

logger = get_logger(__name__)

KEY_LIVES_SECONDS = 20 * 3600
"""Stripe forgets idempotency keys after 24 hours; past this a charge is looked for, not sent again."""
CLOCKS_DIFFER_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Rule:
    """Below `threshold` (nano-USD, what is held counts as gone) charge `amount`, `ceiling` a month."""

    threshold_nanos: int
    amount_nanos: int
    ceiling_nanos: int


@dataclass(frozen=True, slots=True)
class Open:
    """A top-up whose money has not arrived; `charged` when Stripe has taken it."""

    id: uuid.UUID
    amount_nanos: int
    charged: bool
    since_ms: int


@dataclass(frozen=True, slots=True)
class Status:
    """A rule and how it stands."""

    rule: Rule
    month_nanos: int
    declines: int
    disabled_reason: str | None
    payment_method_id: str | None
    next_at_ms: int
    open: Open | None


async def switch_on(rows: Rows, account_id: uuid.UUID, rule: Rule) -> None:
    """Set an account's rule, also after it was disabled. Raises Conflict for a postpaid account."""
    values = (rule.threshold_nanos, rule.amount_nanos, rule.ceiling_nanos)
    if await rows.fetchval(QUERIES.set_auto_topup, account_id, *values) is None:
        raise Conflict("A postpaid account has no wallet that could be topped up.")


async def switch_off(rows: Rows, account_id: uuid.UUID) -> None:
    """Remove an account's rule; what is on its way to Stripe still arrives. Raises NotFound."""
    if not await rows.fetchval(QUERIES.stop_auto_topup, account_id):
        raise NotFound("Automatic top-ups are off.")


async def status(rows: Rows, account_id: uuid.UUID) -> Status:
    """An account's rule and how it stands. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.auto_topup_status, account_id)
    if row is None:
        raise NotFound("Automatic top-ups are off.")
    pending = row["open_id"] and Open(
        row["open_id"], row["open_nanos"], row["open_state"] == "charged", row["open_since_ms"]
    )
    return Status(
        rule=Rule(row["threshold_nanos"], row["amount_nanos"], row["ceiling_nanos"]),
        month_nanos=row["month_nanos"],
        declines=row["declines"],
        disabled_reason=row["disabled_reason"],
        payment_method_id=row["payment_method_id"],
        next_at_ms=row["next_at_ms"],
        open=pending,
    )


async def sweep(pool: Pool, settings: Settings) -> None:
    """Decide for every account that is due, then send what is decided and not known to be done."""
    for row in await pool.fetch(QUERIES.accounts_to_top_up):
        if await pool.fetchval(QUERIES.open_auto_topup, row["account_id"], new_uuid()):
            logger.info("auto_topup_decided", account_id=str(row["account_id"]))
    claimed = await pool.fetch(QUERIES.claim_auto_topups)
    await asyncio.gather(*(_send(pool, settings, row) for row in claimed))


async def note_event(connection: Connection, event: dict[str, Any]) -> None:
    """Keep what an event tells of saved payment methods and automatic top-ups, in its transaction."""
    if saved := intent.saved_method(event):
        await connection.execute(
            QUERIES.save_payment_method,
            saved.account_id,
            saved.customer_id,
            saved.payment_method_id,
            saved.told_at,
        )
    told = intent.auto_topup_told(event)
    if told is None:
        return
    if told.failure is None:
        await connection.execute(QUERIES.credit_auto_topup, told.topup_id, told.account_id, told.payment_id)
    else:
        await _fail(connection, told.topup_id, told.payment_id, told.failure)


async def _send(pool: Pool, settings: Settings, row: Record) -> None:
    """Carry one decision as far as Stripe lets it; what stays unknown is left to the next try."""
    try:
        payment = await _pay(settings, row)
    except StripeRefused as refused:
        failure = (
            intent.failure_of(refused.error)
            if refused.by_bank
            else Failure(refused.error.get("code") or "refused by Stripe", declined=False, final=True)
        )
        paid = refused.error.get("payment_intent")
        await _fail(pool, row["id"], intent.name_of(paid), failure)
    except QlaudError as error:
        logger.warning("auto_topup_unanswered", topup=str(row["id"]), error=error.code)
    else:
        await _note_outcome(pool, row["id"], payment)


async def _pay(settings: Settings, row: Record) -> dict[str, Any] | None:
    """The payment of a decision; None when there is none and it is too late to ask for one."""
    about = {"account_id": str(row["account_id"]), "auto_topup_id": str(row["id"])}
    async with open_stripe(settings) as stripe:
        if row["attempts"] > 1:
            since = row["created_s"] - CLOCKS_DIFFER_SECONDS
            found = await stripe.find_payment(row["customer_id"], since, auto_topup_id=str(row["id"]))
            if found or row["age_s"] > KEY_LIVES_SECONDS:
                return found
        params = {
            "amount": row["amount_nanos"] // NANOS_PER_CENT,
            "currency": "usd",
            "customer": row["customer_id"],
            "payment_method": row["payment_method_id"],
            "off_session": True,
            "confirm": True,
            # Without this Stripe wants a page to send the customer back to, who is not here.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "description": "Automatic wallet top-up",
            "metadata": about,
        }
        return await stripe.pay(params, f"auto-topup:{row['id']}")


async def _note_outcome(pool: Pool, topup_id: uuid.UUID, payment: dict[str, Any] | None) -> None:
    if payment is None:
        unanswered = Failure("Stripe did not answer", declined=False)
        await _fail(pool, topup_id, None, unanswered)
        return
    failure = intent.outcome(payment)
    if failure is None:
        await pool.execute(QUERIES.note_charged, topup_id, payment["id"])
    else:
        await _fail(pool, topup_id, payment["id"], failure)


async def _fail(rows: Rows, topup_id: uuid.UUID, payment_id: str | None, failure: Failure) -> None:
    values = (payment_id, failure.reason, failure.declined, failure.final)
    if await rows.fetchval(QUERIES.fail_auto_topup, topup_id, *values):
        logger.warning("auto_topup_failed", topup=str(topup_id), reason=failure.reason, final=failure.final)
