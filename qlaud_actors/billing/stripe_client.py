"""Stripe's official library and what we ask of it. The only importer of `stripe`.

What Stripe refuses is `StripeRefused`: nothing happened. What it did not answer is `StripeUnanswered`:
anything may have happened, and only the same request with the same key may follow.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec
import stripe

from qlaud_actors.errors import IdempotencyConflict, InvalidRequest, ServiceUnavailable
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret, Settings

logger = get_logger(__name__)

TOLERANCE_SECONDS = 300
TURNED_AWAY = (401, 403, 429)
"""Statuses with which Stripe looked at a key or a rate, and at nothing else."""


class StripeRefused(InvalidRequest):
    """Stripe refused the request."""

    code = "stripe_refused"

    def __init__(self, error: stripe.StripeError) -> None:
        super().__init__(f"Stripe: {error.user_message or 'the request was refused'}")
        body = error.json_body if isinstance(error.json_body, dict) else {}
        self.error: Mapping[str, Any] = body.get("error") or {}
        self.by_bank = isinstance(error, stripe.CardError)


class StripeUnanswered(ServiceUnavailable):
    """Stripe could not be reached or refused this server."""

    code = "stripe_unavailable"

    def __init__(self, message: str | None = None, *, turned_away: bool = False) -> None:
        super().__init__(message)
        self.turned_away = turned_away
        """Nothing was done."""


class StripeClient:
    """An open client; every method is one request, retried twice with the same key."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._client = client

    async def open_checkout(self, params: Any, idempotency_key: str | None) -> tuple[str, str]:
        """Id and URL of a Checkout page."""
        options: Any = {"idempotency_key": idempotency_key} if idempotency_key else {}
        with _our_errors():
            session = await self._client.v1.checkout.sessions.create_async(params, options)
        return session.id, session.url or ""

    async def charge(self, charge_id: str) -> dict[str, Any]:
        """A charge."""
        with _our_errors():
            return (await self._client.v1.charges.retrieve_async(charge_id)).to_dict()

    async def pay(self, params: Any, idempotency_key: str) -> dict[str, Any]:
        """A payment intent that is confirmed at once."""
        with _our_errors():
            intent = await self._client.v1.payment_intents.create_async(
                params, {"idempotency_key": idempotency_key}
            )
            return intent.to_dict()

    async def find_payment(self, customer_id: str, since: int, **metadata: str) -> dict[str, Any] | None:
        """A customer's payment intent with these metadata, made since a time in seconds."""
        asked: Any = {"customer": customer_id, "created": {"gte": since}, "limit": 100}
        with _our_errors():
            found = await self._client.v1.payment_intents.list_async(asked)
            async for intent in found.auto_paging_iter():
                known: dict[str, Any] = intent.to_dict()
                if metadata.items() <= (known.get("metadata") or {}).items():
                    return known
        return None

    async def count(self, params: Any) -> None:
        """A meter event; one with an identifier that Stripe has seen is counted already.

        The identifier is what makes it count once. An idempotency key of ours would only repeat Stripe's
        refusal to a person who has put right what it was about.
        """
        try:
            with _our_errors():
                await self._client.v1.billing.meter_events.create_async(params)
        except StripeRefused as refused:
            if "already exists with identifier" not in refused.message:
                raise


@contextlib.asynccontextmanager
async def open_stripe(settings: Settings) -> AsyncIterator[StripeClient]:
    """A client for a few calls: they are rare, so nothing is kept open for them."""
    key = _secret(settings.stripe_secret_key, "STRIPE_SECRET_KEY").reveal()
    http = stripe.AIOHTTPClient(timeout=30)
    bases: Any = {"api": settings.stripe_api_base} if settings.stripe_api_base else None
    try:
        yield StripeClient(
            stripe.StripeClient(key, base_addresses=bases, http_client=http, max_network_retries=2)
        )
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]


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


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except stripe.IdempotencyError:
        raise IdempotencyConflict from None
    except (stripe.InvalidRequestError, stripe.CardError) as error:
        raise StripeRefused(error) from None
    except stripe.StripeError as error:
        logger.warning("stripe_failed", error=type(error).__name__, status=error.http_status)
        raise StripeUnanswered(turned_away=error.http_status in TURNED_AWAY) from None


def _secret(value: Secret | None, name: str) -> Secret:
    if value is None:
        raise ServiceUnavailable(f"Stripe is not configured: {name} is not set.")
    return value
