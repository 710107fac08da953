"""Top-ups through Stripe: a Checkout page for the customer, signed events for us.

The only importer of `stripe`, the official library. What an event changes is decided in `payment.py`
and written in one transaction: the event, the payment, the ledger.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import stripe

from qlaud_actors.billing import ledger, payment
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.billing.payment import NANOS_PER_CENT, Payment
from qlaud_actors.db.pool import Connection, Pool
from qlaud_actors.errors import IdempotencyConflict, InvalidRequest, ServiceUnavailable
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret, Settings

logger = get_logger(__name__)

TOLERANCE_SECONDS = 300
MIN_CENTS, MAX_CENTS = 50, 99_999_999
"""What Stripe takes in one payment in USD (docs.stripe.com/currencies#minimum-and-maximum-charge-amounts)."""


@dataclass(frozen=True, slots=True)
class Order:
    """A top-up that somebody wants to pay, and where their browser goes afterwards."""

    account_id: uuid.UUID
    amount_nanos: int
    success_url: str
    cancel_url: str
    idempotency_key: str | None = None


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
    params: Any = {
        "mode": "payment",
        "line_items": [{"quantity": 1, "price_data": _price(order.amount_nanos)}],
        "client_reference_id": str(order.account_id),
        "metadata": about,
        "payment_intent_data": {"metadata": about},
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
    }
    options: Any = {}
    if order.idempotency_key:
        options = {"idempotency_key": f"topup:{order.account_id}:{order.idempotency_key}"}
    async with _client(settings) as client:
        with _our_errors():
            session = await client.v1.checkout.sessions.create_async(params, options)
    return Checkout(session.id, session.url or "")


def verified(settings: Settings, payload: bytes, signature: str | None) -> dict[str, Any]:
    """The event in a webhook's body, if Stripe signed it within the last five minutes.

    Raises InvalidRequest, ServiceUnavailable when no secret is set.
    """
    secret = _secret(settings.stripe_webhook_secret, "STRIPE_WEBHOOK_SECRET").reveal()
    try:
        stripe.WebhookSignature.verify_header(payload, signature, secret, TOLERANCE_SECONDS)
        event: dict[str, Any] = msgspec.json.decode(payload, type=dict)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, msgspec.DecodeError):
        raise InvalidRequest("The signature of this event is not valid, or too old.") from None
    return event


async def record(pool: Pool, settings: Settings, event: dict[str, Any]) -> None:
    """Bring the ledger up to what an event tells, once, whatever came before it."""
    about = event["data"]["object"]
    if payment.payment_of(about) is None and event["type"].startswith(("charge.dispute.", "refund.")):
        about["payment_intent"] = await _payment_of_charge(settings, about.get("charge"))
    told = payment.read_event(event)
    async with pool.acquire() as connection, connection.transaction():
        seen_first = await connection.fetchval(QUERIES.note_event, event["id"], event["type"])
        if seen_first and told:
            await _apply(connection, told, event["id"])


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
    async with _client(settings) as client:
        with _our_errors():
            charge = await client.v1.charges.retrieve_async(charge_id)
    return payment.payment_of(charge.to_dict())


@contextlib.asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's client for one call: top-ups are rare, so nothing is kept open for them."""
    key = _secret(settings.stripe_secret_key, "STRIPE_SECRET_KEY").reveal()
    http = stripe.AIOHTTPClient(timeout=30)
    bases: Any = {"api": settings.stripe_api_base} if settings.stripe_api_base else None
    try:
        yield stripe.StripeClient(key, base_addresses=bases, http_client=http, max_network_retries=2)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except stripe.IdempotencyError:
        raise IdempotencyConflict from None
    except stripe.InvalidRequestError as error:
        raise InvalidRequest(f"Stripe: {error.user_message or 'the request was refused'}") from None
    except stripe.StripeError as error:
        logger.warning("stripe_failed", error=type(error).__name__, status=error.http_status)
        raise ServiceUnavailable("Stripe could not be reached or refused this server.") from None


def _price(amount_nanos: int) -> dict[str, Any]:
    cents, rest = divmod(amount_nanos, NANOS_PER_CENT)
    if rest or not MIN_CENTS <= cents <= MAX_CENTS:
        raise InvalidRequest("`amount_usd` must be from 0.50 to 999999.99, in whole cents.")
    return {"currency": "usd", "unit_amount": cents, "product_data": {"name": "Wallet top-up"}}


def _secret(value: Secret | None, name: str) -> Secret:
    if value is None:
        raise ServiceUnavailable(f"Stripe is not configured: {name} is not set.")
    return value
