"""What tests of money from Stripe share: orders, payments, events, and the balance."""

from typing import Any

from fakes.stripe_double import SECRET_KEY, WEBHOOK_SECRET, StripeDouble, signed
from front_door import Door

from qlaud_actors.settings import Secret, Settings

WEBHOOK = "/v1/billing/stripe/webhook"
USD = 1_000_000
"""Micros."""


def stripe_settings(stripe: StripeDouble) -> Settings:
    """Settings of a server that has the double for its Stripe."""
    return Settings(
        stripe_secret_key=Secret(SECRET_KEY),
        stripe_webhook_secret=Secret(WEBHOOK_SECRET),
        stripe_api_base=stripe.url,
    )


async def customer(door: Door, **fields: Any) -> str:
    """The admin key of a new prepaid account."""
    status, made = await door.ask("POST", "/v1/accounts", {"name": "acme", **fields})
    assert status == 201, made
    secret: str = made["secret"]
    return secret


async def order(door: Door, key: str, amount: Any = 20, *, save: bool = False, **headers: str) -> Any:
    body = {"amount_usd": amount, "save_payment_method": save}
    status, page = await door.ask("POST", "/v1/billing/topups", body, key=key, **headers)
    assert status == 201, page
    return page


async def send(door: Door, event: dict[str, Any], **how: Any) -> int:
    body, signature = signed(event, **how)
    async with door.client.post(WEBHOOK, data=body, headers={"stripe-signature": signature}) as response:
        await response.read()
        return response.status


async def balance(door: Door, key: str) -> int:
    """In micro-USD; whenever it is read, the ledger sums up to it."""
    status, wallet = await door.ask("GET", "/v1/billing/balance", key=key)
    assert status == 200
    _, page = await door.ask("GET", "/v1/billing/ledger?limit=500", key=key)
    assert sum(entry["amount_micros"] for entry in page["entries"]) == wallet["balance_micros"]
    assert wallet["balance_usd"] == wallet["balance_micros"] / USD
    micros: int = wallet["balance_micros"]
    return micros


async def paid(door: Door, stripe: StripeDouble, key: str, amount: int = 20) -> str:
    """A paid top-up; returns its payment."""
    event = stripe.pay((await order(door, key, amount))["id"])
    assert await send(door, event) == 200
    intent: str = event["data"]["object"]["payment_intent"]
    return intent
