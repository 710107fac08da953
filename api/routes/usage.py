"""Usage rollups, for admins."""

import time
from datetime import UTC, datetime

from aiohttp import web

from api.bodies import path_uuid, query_int
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.billing import report
from qlaud_actors.billing.report import Span
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.keys import lifecycle
from qlaud_actors.money import nanos_to_micros

routes = web.RouteTableDef()

MAX_MS = 4_102_444_800_000
"""The year 2100."""


@routes.get("/v1/usage")
@require_admin
async def account_usage(request: web.Request) -> web.Response:
    """The account's usage by key and by model; by default since the month began (UTC)."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    span = _span(request, int(month.timestamp() * 1000))
    return json_response(await report.account_usage(services(request).pool, caller(request).account_id, span))


@routes.get("/v1/keys/{key_id}/usage")
@require_admin
async def key_usage(request: web.Request) -> web.Response:
    """One key's usage; by default of its whole life, as its cap counts it."""
    pool, account_id = services(request).pool, caller(request).account_id
    key = await lifecycle.get_key(pool, account_id, path_uuid(request, "key_id"))
    usage = await report.key_usage(pool, account_id, key.id, _span(request, 0))
    about = {"key_id": str(key.id), "key_name": key.name, "key_prefix": key.prefix}
    cap = None if key.limit_nanos is None else nanos_to_micros(key.limit_nanos)
    return json_response({**about, "cap_micros": cap, **usage})


def _span(request: web.Request, default_from: int) -> Span:
    """`from_ms` and `to_ms`; the default end is just ahead, so that what ended now is in it."""
    soon = int(time.time() * 1000) + 60_000
    span = Span(
        query_int(request, "from_ms", default_from, 0, MAX_MS), query_int(request, "to_ms", soon, 0, MAX_MS)
    )
    if span.from_ms > span.to_ms:
        raise InvalidRequest("`from_ms` must not be after `to_ms`.")
    return span
