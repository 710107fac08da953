"""What the people in the conversations may ask for: a copy of what is kept of them, and that it goes."""

import asyncio
import time

from aiohttp import web

from api.bodies import path_end_user, path_uuid, query_text
from api.context import caller, services
from api.downloads import download
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.conversation import threads
from qlaud_actors.rights import deletion, export
from qlaud_actors.rights.export import Cursor, Subject
from qlaud_actors.rights.model import receipt_object

routes = web.RouteTableDef()

JSON_LINES = "application/x-ndjson"

WAIT_SECONDS = 20.0
"""As long a deletion is waited for; then it is to be asked for."""

LOOK_SECONDS = 0.1


@routes.get("/v1/threads/{thread_id}/export", allow_head=False)
async def export_thread(request: web.Request) -> web.StreamResponse:
    """A thread with all that belongs to it, as JSON lines."""
    key, pool = caller(request), services(request).pool
    thread = await threads.get(pool, key, path_uuid(request, "thread_id"))
    return await _send(request, Subject(key.account_id, thread_id=thread.id), f"thread-{thread.id}.jsonl")


@routes.get("/v1/end-users/{end_user_id}/export", allow_head=False)
@require_admin
async def export_end_user(request: web.Request) -> web.StreamResponse:
    """All threads and connections of an end user; one of whom nothing is known has an empty copy."""
    subject = Subject(caller(request).account_id, end_user_id=path_end_user(request))
    return await _send(request, subject, "end-user.jsonl")


@routes.delete("/v1/end-users/{end_user_id}")
@require_admin
async def delete_end_user(request: web.Request) -> web.Response:
    """Delete an end user, known or not: 200 when all is gone, 202 when that takes longer."""
    hub, account_id = services(request), caller(request).account_id
    deletion_id = await deletion.begin(hub.pool, account_id, path_end_user(request))
    await hub.wake_deletion(deletion_id)
    until = time.monotonic() + WAIT_SECONDS
    while True:
        receipt = await deletion.receipt(hub.pool, account_id, deletion_id)
        if receipt.completed_at_ms is not None or time.monotonic() > until:
            status = 202 if receipt.completed_at_ms is None else 200
            return json_response(receipt_object(receipt), status=status)
        await asyncio.sleep(LOOK_SECONDS)


@routes.get("/v1/deletions/{deletion_id}")
@require_admin
async def get_deletion(request: web.Request) -> web.Response:
    """The receipt of a deletion."""
    hub, account_id = services(request), caller(request).account_id
    return json_response(
        receipt_object(await deletion.receipt(hub.pool, account_id, path_uuid(request, "deletion_id")))
    )


async def _send(request: web.Request, subject: Subject, name: str) -> web.StreamResponse:
    text = query_text(request, "after")
    after = Cursor.parse(text) if text else None
    return await download(request, name, JSON_LINES, export.lines(services(request).pool, subject, after))
