"""Usage pushed to Stripe's Billing Meters: the operator switches it on, accounts map their end users."""

import uuid
from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import path_end_user, query_text, read_json
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.billing import stripe_meter
from qlaud_actors.billing.stripe_meter import Meter, Value
from qlaud_actors.errors import NotFound, ScopeMissing
from qlaud_actors.ids import parse_uuid

routes = web.RouteTableDef()

METER = "/v1/billing/stripe-meter"
END_USER = "/v1/end-users/{end_user_id}/billing"


class MeterBody(msgspec.Struct):
    """`PUT /v1/billing/stripe-meter`; Stripe allows 100 characters."""

    event_name: Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,100}\Z")]
    value: Value = "cost_micros"


class EndUserBody(msgspec.Struct):
    """`PUT /v1/end-users/:id/billing`."""

    stripe_customer_id: Annotated[str, msgspec.Meta(pattern=r"^cus_[A-Za-z0-9_]{1,250}\Z")]


@routes.put(METER)
async def set_meter(request: web.Request) -> web.StreamResponse:
    """Push an account's usage; the meters are the operator's, so this needs the master key."""
    _check_operator(request)
    body = await read_json(request, MeterBody)
    meter = Meter(body.event_name, body.value)
    await stripe_meter.set_meter(services(request).pool, _account_id(request), meter)
    return await get_meter(request)


@routes.get(METER)
@require_admin
async def get_meter(request: web.Request) -> web.Response:
    """What is pushed, how much waits, and what Stripe refused."""
    row, failures = await stripe_meter.show_meter(services(request).pool, _account_id(request))
    return json_response(
        {
            "object": "stripe_meter",
            "event_name": row["event_name"],
            "value": row["value"],
            "queued": row["queued"],
            "oldest_queued_at": row["oldest_ms"],
            "failed": row["failed"],
            "failures": [
                {
                    "usage_event_id": str(failure["usage_event_id"]),
                    "end_user_id": failure["end_user_id"],
                    "stripe_customer_id": failure["stripe_customer_id"],
                    "reason": failure["reason"],
                    "failed_at": failure["failed_at_ms"],
                }
                for failure in failures
            ],
        }
    )


@routes.delete(METER)
async def delete_meter(request: web.Request) -> web.Response:
    """Push nothing new."""
    _check_operator(request)
    await stripe_meter.remove_meter(services(request).pool, _account_id(request))
    return json_response({"ok": True})


@routes.post(f"{METER}/retry")
@require_admin
async def retry_meter(request: web.Request) -> web.Response:
    """Send again what Stripe refused, to the customers that are mapped now."""
    retried = await stripe_meter.retry_failed(services(request).pool, _account_id(request))
    return json_response({"retried": retried})


@routes.put(END_USER)
@require_admin
async def map_end_user(request: web.Request) -> web.Response:
    """Bill a customer of Stripe for an end user."""
    body = await read_json(request, EndUserBody)
    end_user_id, customer_id = path_end_user(request), body.stripe_customer_id
    account_id = caller(request).account_id
    await stripe_meter.map_end_user(services(request).pool, account_id, end_user_id, customer_id)
    return json_response(_end_user_object(end_user_id, customer_id))


@routes.get(END_USER)
@require_admin
async def get_end_user(request: web.Request) -> web.Response:
    """Whom Stripe bills for an end user."""
    end_user_id, account_id = path_end_user(request), caller(request).account_id
    customer_id = await stripe_meter.customer_of(services(request).pool, account_id, end_user_id)
    return json_response(_end_user_object(end_user_id, customer_id))


@routes.delete(END_USER)
@require_admin
async def unmap_end_user(request: web.Request) -> web.Response:
    """Bill nobody for an end user any more."""
    account_id = caller(request).account_id
    await stripe_meter.unmap_end_user(services(request).pool, account_id, path_end_user(request))
    return json_response({"ok": True})


def _end_user_object(end_user_id: str, customer_id: str) -> dict[str, str]:
    return {"object": "end_user_billing", "end_user_id": end_user_id, "stripe_customer_id": customer_id}


def _account_id(request: web.Request) -> uuid.UUID:
    """The caller's account, or for the operator the one that `?account_id=` names."""
    text = query_text(request, "account_id")
    if text is None:
        return caller(request).account_id
    _check_operator(request)
    account_id = parse_uuid(text)
    if account_id is None:
        raise NotFound("There is no such account.")
    return account_id


def _check_operator(request: web.Request) -> None:
    if not caller(request).is_master:
        raise ScopeMissing("This is the operator's: it needs the master key.")
