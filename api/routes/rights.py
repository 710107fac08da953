"""What the people in the conversations may ask for: a copy of what is kept of them."""

from aiohttp import web

from api.bodies import path_end_user, path_uuid, query_text
from api.context import caller, services
from api.downloads import download
from api.middleware import require_admin
from qlaud_actors.conversation import threads
from qlaud_actors.rights import export
from qlaud_actors.rights.export import Cursor, Subject

routes = web.RouteTableDef()

JSON_LINES = "application/x-ndjson"


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


async def _send(request: web.Request, subject: Subject, name: str) -> web.StreamResponse:
    text = query_text(request, "after")
    after = Cursor.parse(text) if text else None
    return await download(request, name, JSON_LINES, export.lines(services(request).pool, subject, after))
