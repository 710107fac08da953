"""Top-ups through Stripe: a Checkout page for the customer, signed events for us.

What an event changes is decided in `payment.py` and `intent.py`, and written in one transaction: the
event, the payment, the ledger, the saved payment method, the automatic top-up.
"""

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from qlaud_actors.billing import auto_topup, ledger, payment
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.payment import NANOS_PER_CENT, Payment
from qlaud_actors.billing.stripe_client import open_stripe
from qlaud_actors.db.pool import Connection, Pool
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Settings

logger = get_logger(__name__)

MIN_CENTS, MAX_CENTS = 50, 99_999_999
"""What Stripe takes in one payment in USD (docs.stripe.com/currencies#minimum-and-maximum-charge-amounts)."""


EVENT_DAYS = 40
"""How long events are remembered. Stripe delivers again for 3 days, and by hand for 30; whenever one comes,
the payment knows what it was told (`payment.merge`), and the ledger gets what it lacks."""


@dataclass(frozen=True, slots=True)
class Order:
    """A top-up that somebody wants to pay, and where their browser goes afterwards."""

    account_id: uuid.UUID
    amount_nanos: int
    success_url: str
    cancel_url: str
    idempotency_key: str | None = None
    save_payment_method: bool = False
    """Ask the customer that later top-ups may be charged while they are away."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page of Stripe where the top-up is paid."""

    id: str
    url: str


async def checkout(settings: Settings, order: Order) -> Checkout:
    """Open a Checkout page. The wallet is filled by an event, not by this.

    The same idempotency key gives the same page. Raises InvalidRequest, IdempotencyConflict,
    ServiceUnavailable.
    """
    about = {"account_id": str(order.account_id)}
    params: dict[str, Any] = {
        "mode": "payment",
        "line_items": [{"quantity": 1, "price_data": _price(order.amount_nanos)}],
        "client_reference_id": str(order.account_id),
        "metadata": about,
        "payment_intent_data": {"metadata": about},
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
    }
    if order.save_payment_method:
        # Always a new customer of Stripe: what is asked must not depend on what was paid meanwhile, or a
        # repeated idempotency key would be refused.
        params["payment_intent_data"]["setup_future_usage"] = "off_session"
        params["customer_creation"] = "always"
    key = f"topup:{order.account_id}:{order.idempotency_key}" if order.idempotency_key else None
    async with open_stripe(settings) as stripe:
        return Checkout(*await stripe.open_checkout(params, key))


async def record(pool: Pool, settings: Settings, event: dict[str, Any]) -> None:
    """Bring the ledger up to what an event tells, once, whatever came before it.

    A "thin" event (Stripe's API v2) carries no object and is only logged: it tells of no payment.
    """
    if event.get("object") != "event":
        logger.warning("stripe_event_ignored", kind=event.get("type"), stripe_id=event.get("id"))
        return
    about = event["data"]["object"]
    if payment.payment_of(about) is None and event["type"].startswith(("charge.dispute.", "refund.")):
        about["payment_intent"] = await _payment_of_charge(settings, about.get("charge"))
    told = payment.read_event(event)
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(QUERIES.note_event, event["id"], event["type"]):
            return
        if told:
            await _apply(connection, told, event["id"])
        await auto_topup.note_event(connection, event)


async def forget_events(pool: Pool) -> None:
    """Forget events of long ago: they keep work away, not money from being counted twice."""
    await pool.execute(QUERIES.prune_events, EVENT_DAYS)


async def _apply(connection: Connection, told: payment.Told, event_id: str) -> None:
    await connection.execute(QUERIES.begin_payment, told.payment_id, Payment())
    state = await connection.fetchval(QUERIES.lock_payment, told.payment_id)
    known = payment.merge(msgspec.convert(state, Payment), told.payment)
    await connection.execute(QUERIES.save_payment, told.payment_id, known)
    missing = payment.due(known, await ledger.posted_for(connection, told.payment_id))
    for kind, nanos in missing.items():
        assert known.account_id is not None
        once = f"topup:{told.payment_id}" if kind == "topup" else f"{kind}:{event_id}"
        entry = ledger.Entry(known.account_id, kind, nanos, once, told.payment_id)
        written = await ledger.post(connection, entry)
        logger.info("payment_posted", kind=kind, nanos=nanos, payment=told.payment_id, written=written)


async def _payment_of_charge(settings: Settings, charge_id: str | None) -> str | None:
    """Older events name only the charge."""
    if not charge_id:
        return None
    async with open_stripe(settings) as stripe:
        return payment.payment_of(await stripe.charge(charge_id))


def whole_cents(amount_nanos: int) -> int:
    """The cents that Stripe is asked for. Raises InvalidRequest when it would not take them."""
    cents, rest = divmod(amount_nanos, NANOS_PER_CENT)
    if rest or not MIN_CENTS <= cents <= MAX_CENTS:
        raise InvalidRequest("`amount_usd` must be from 0.50 to 999999.99, in whole cents.")
    return cents


def _price(amount_nanos: int) -> dict[str, Any]:
    cents = whole_cents(amount_nanos)
    return {"currency": "usd", "unit_amount": cents, "product_data": {"name": "Wallet top-up"}}
