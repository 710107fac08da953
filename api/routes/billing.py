"""The wallet: what is left, what moved it, and how it is filled."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import query_int, query_text, read_at_most, read_json, usd_nanos
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from api.routes.accounts import balance_object
from qlaud_actors.billing import ledger, topup, wallet
from qlaud_actors.billing.stripe_client import verified
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import parse_uuid

routes = web.RouteTableDef()

Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[\x21-\x7e]+\Z", max_length=2048)]


MAX_EVENT_BYTES = 1024 * 1024
"""Far above any event."""


class TopupBody(msgspec.Struct):
    """`POST /v1/billing/topups`; the URLs are where Stripe sends the browser afterwards."""

    amount_usd: msgspec.Raw
    success_url: Url | None = None
    cancel_url: Url | None = None
    save_payment_method: bool = False


@routes.get("/v1/billing/balance")
async def balance(request: web.Request) -> web.Response:
    """What the account has, for any key of it. Never cached: a paid top-up counts at once."""
    account = await wallet.get_account(services(request).pool, caller(request).account_id)
    return json_response(balance_object(account), headers={"cache-control": "no-store"})


@routes.get("/v1/billing/ledger")
@require_admin
async def ledger_entries(request: web.Request) -> web.Response:
    """Every movement of the account's money, newest first; `?before=` continues a page."""
    text = query_text(request, "before")
    before = parse_uuid(text) if text else None
    if text and before is None:
        raise InvalidRequest("`before` must be the `next_before` of a page.")
    limit = query_int(request, "limit", 50, 1, 500)
    page = await ledger.page(services(request).pool, caller(request).account_id, before, limit)
    return json_response(page)


@routes.post("/v1/billing/topups")
@require_admin
async def create_topup(request: web.Request) -> web.Response:
    """A Stripe Checkout page for an amount; the wallet is filled when Stripe says that it is paid."""
    settings = services(request).settings
    body = await read_json(request, TopupBody)
    nanos = usd_nanos("amount_usd", body.amount_usd)
    if nanos is None:
        raise InvalidRequest("`amount_usd` must be a number.")
    done = f"{settings.base_url}/v1/billing/topups/done"
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise InvalidRequest("`Idempotency-Key` must be 1 to 200 printable ASCII characters.")
    order = topup.Order(
        caller(request).account_id,
        nanos,
        body.success_url or done,
        body.cancel_url or done,
        key,
        body.save_payment_method,
    )
    page = await topup.checkout(settings, order)
    return json_response({"id": page.id, "url": page.url}, status=201)


@routes.get("/v1/billing/topups/done")
async def topup_done(_request: web.Request) -> web.Response:
    """Where a browser arrives from Stripe if the developer named no page."""
    return web.Response(text="Back from Stripe. The balance follows as soon as the payment is confirmed.\n")


@routes.post("/v1/billing/stripe/webhook")
async def stripe_webhook(request: web.Request) -> web.Response:
    """An event of Stripe, verified by its signature; anything but 200 makes Stripe send it again."""
    hub = services(request)
    body = await read_at_most(request, MAX_EVENT_BYTES)
    event = verified(hub.settings, body, request.headers.get("stripe-signature"))
    await topup.record(hub.pool, hub.settings, event)
    return json_response({"received": True})
