"""Automatic top-ups of the caller's account."""

import msgspec
from aiohttp import web

from api.bodies import read_json, usd_nanos
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.billing import auto_topup
from qlaud_actors.billing.auto_topup import Rule, Status
from qlaud_actors.billing.topup import whole_cents
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.money import nanos_to_micros, nanos_to_usd

routes = web.RouteTableDef()

PATH = "/v1/billing/auto-topup"


class RuleBody(msgspec.Struct):
    """`PUT /v1/billing/auto-topup`."""

    threshold_usd: msgspec.Raw
    amount_usd: msgspec.Raw
    monthly_ceiling_usd: msgspec.Raw


@routes.put(PATH)
@require_admin
async def set_auto_topup(request: web.Request) -> web.StreamResponse:
    """Switch on, change, or switch on again after it was disabled."""
    body = await read_json(request, RuleBody)
    rule = Rule(
        _amount("threshold_usd", body.threshold_usd),
        _amount("amount_usd", body.amount_usd),
        _amount("monthly_ceiling_usd", body.monthly_ceiling_usd),
    )
    whole_cents(rule.amount_nanos)
    if rule.ceiling_nanos < rule.amount_nanos:
        raise InvalidRequest("`monthly_ceiling_usd` must be at least `amount_usd`.")
    await auto_topup.switch_on(services(request).pool, caller(request).account_id, rule)
    return await get_auto_topup(request)


@routes.get(PATH)
@require_admin
async def get_auto_topup(request: web.Request) -> web.Response:
    """The rule, what the month has seen, and why it is disabled, if it is."""
    status = await auto_topup.status(services(request).pool, caller(request).account_id)
    return json_response(_object(status))


@routes.delete(PATH)
@require_admin
async def delete_auto_topup(request: web.Request) -> web.Response:
    """Switch off."""
    await auto_topup.switch_off(services(request).pool, caller(request).account_id)
    return json_response({"ok": True})


def _amount(name: str, written: msgspec.Raw) -> int:
    nanos = usd_nanos(name, written)
    if nanos is None:
        raise InvalidRequest(f"`{name}` must be a number.")
    return nanos


def _object(status: Status) -> dict[str, object]:
    rule, pending = status.rule, status.open
    return {
        "object": "auto_topup",
        "enabled": status.disabled_reason is None,
        "disabled_reason": status.disabled_reason,
        "threshold_usd": nanos_to_usd(rule.threshold_nanos),
        "amount_usd": nanos_to_usd(rule.amount_nanos),
        "monthly_ceiling_usd": nanos_to_usd(rule.ceiling_nanos),
        "month_micros": nanos_to_micros(status.month_nanos),
        "payment_method_id": status.payment_method_id,
        "declines": status.declines,
        "next_attempt_at": status.next_at_ms if status.disabled_reason is None else None,
        "pending": pending
        and {
            "id": str(pending.id),
            "amount_micros": nanos_to_micros(pending.amount_nanos),
            "charged": pending.charged,
            "created_at": pending.since_ms,
        },
    }
