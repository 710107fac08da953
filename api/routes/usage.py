"""Usage: rollups and the export of every row, for admins."""

import time
from datetime import UTC, datetime

from aiohttp import web

from api.bodies import path_uuid, query_choice, query_int, query_text, query_uuid
from api.context import caller, services
from api.downloads import download
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.billing import export, grouping, report
from qlaud_actors.billing.report import END_OF_TIME_MS, Selection, Span
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.keys import lifecycle
from qlaud_actors.money import nanos_to_micros

routes = web.RouteTableDef()

CONTENT_TYPES: dict[export.Format, str] = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


@routes.get("/v1/usage")
@require_admin
async def account_usage(request: web.Request) -> web.Response:
    """The account's usage by key and by model, or as `group_by` says; by default since the month began."""
    pool, chosen = services(request).pool, _selection(request, _month_began())
    text = query_text(request, "group_by")
    if text is None:
        return json_response(await report.account_usage(pool, chosen))
    dimensions = grouping.parse_dimensions(text)
    cursor = query_text(request, "after", grouping.MAX_CURSOR)
    after = None if cursor is None else grouping.parse_cursor(cursor)
    limit = query_int(request, "limit", 1_000, 1, grouping.MAX_GROUPS)
    return json_response(await grouping.grouped_usage(pool, chosen, dimensions, after, limit))


@routes.get("/v1/usage/export", allow_head=False)
@require_admin
async def usage_export(request: web.Request) -> web.StreamResponse:
    """Every row with every column, streamed; `after` continues behind the last row that arrived."""
    pool, chosen = services(request).pool, _selection(request, _month_began())
    named = query_choice(request, "format", "csv", tuple(CONTENT_TYPES))
    form: export.Format = "jsonl" if named == "jsonl" else "csv"
    after = query_uuid(request, "after")
    columns = await export.begin(pool, chosen, after)
    pieces = export.pages(pool, chosen, columns, form, after)
    return await download(request, f"usage.{form}", CONTENT_TYPES[form], pieces)


@routes.get("/v1/keys/{key_id}/usage")
@require_admin
async def key_usage(request: web.Request) -> web.Response:
    """One key's usage; by default of its whole life, as its cap counts it."""
    pool, account_id = services(request).pool, caller(request).account_id
    key = await lifecycle.get_key(pool, account_id, path_uuid(request, "key_id"))
    usage = await report.key_usage(pool, Selection(account_id, _span(request, 0), key.id))
    about = {"key_id": str(key.id), "key_name": key.name, "key_prefix": key.prefix}
    cap = None if key.limit_nanos is None else nanos_to_micros(key.limit_nanos)
    return json_response({**about, "cap_micros": cap, **usage})


def _selection(request: web.Request, default_from: int) -> Selection:
    return Selection(
        caller(request).account_id,
        _span(request, default_from),
        query_uuid(request, "key_id"),
        query_text(request, "model"),
        query_text(request, "end_user_id"),
    )


def _span(request: web.Request, default_from: int) -> Span:
    """`from_ms` and `to_ms`; the default end is just ahead, so that what ended now is in it."""
    soon = int(time.time() * 1000) + 60_000
    span = Span(
        query_int(request, "from_ms", default_from, 0, END_OF_TIME_MS),
        query_int(request, "to_ms", soon, 0, END_OF_TIME_MS),
    )
    if span.from_ms > span.to_ms:
        raise InvalidRequest("`from_ms` must not be after `to_ms`.")
    return span


def _month_began() -> int:
    """In ms; months are those of UTC."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(month.timestamp() * 1000)
