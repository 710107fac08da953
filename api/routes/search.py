"""Search over the messages of threads. What was searched for is never logged: it is what somebody said."""

from dataclasses import replace

from aiohttp import web

from api.bodies import path_uuid, query_choice, query_int, query_text
from api.context import caller, services
from api.responses import json_response
from qlaud_actors.conversation import threads
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.search.find import Wanted
from qlaud_actors.search.model import Finding

routes = web.RouteTableDef()

MAX_QUERY = 2_000
MAX_LIMIT = 50
MAX_OFFSET = 450
MAX_MS = 253_402_300_799_999
"""The end of the year 9999."""


@routes.get("/v1/search")
async def search(request: web.Request) -> web.Response:
    """In all threads that the key sees, or those of one end user."""
    return await _answer(request, replace(_wanted(request), end_user_id=query_text(request, "end_user_id")))


@routes.get("/v1/threads/{thread_id}/search")
async def search_thread(request: web.Request) -> web.Response:
    """In one thread."""
    wanted = _wanted(request)
    thread = await threads.get(services(request).pool, caller(request), path_uuid(request, "thread_id"))
    return await _answer(request, replace(wanted, thread_id=thread.id))


async def _answer(request: web.Request, wanted: Wanted) -> web.Response:
    hub, key = services(request), caller(request)
    async with hub.limits.admit(key) as admitted:
        page = await hub.searcher.find(key, wanted)
        admitted.used = 0
    body = {
        "object": "list",
        "query": wanted.query,
        "mode": wanted.mode,
        "data": [finding_object(finding) for finding in page.findings],
        "has_more": page.has_more,
        "next_offset": wanted.offset + wanted.limit if page.has_more else None,
    }
    return json_response(body, headers=admitted.headers)


def _wanted(request: web.Request) -> Wanted:
    """The search of a request's query. Raises InvalidRequest."""
    query = (query_text(request, "q", MAX_QUERY) or "").strip()
    if not query:
        raise InvalidRequest("`q` must not be empty: it says what is searched for.")
    return Wanted(
        query=query,
        mode=query_choice(request, "mode", "semantic", ("semantic", "text", "hybrid")),  # type: ignore[arg-type]
        limit=min(query_int(request, "limit", 10, 1, MAX_MS), MAX_LIMIT),
        offset=query_int(request, "offset", 0, 0, MAX_OFFSET),
        role=query_choice(request, "role", "", ("", "user", "assistant")) or None,  # type: ignore[arg-type]
        after_ms=_moment(request, "after"),
        before_ms=_moment(request, "before"),
    )


def _moment(request: web.Request, name: str) -> int | None:
    """A time in ms since the epoch, as the API tells all times."""
    return query_int(request, name, 0, 0, MAX_MS) if request.query.get(name) else None


def finding_object(finding: Finding) -> dict[str, object]:
    """A finding as the API shows it."""
    return {
        "thread_id": str(finding.thread_id),
        "seq": finding.seq,
        "role": finding.role,
        "score": finding.score,
        "snippet": finding.snippet,
        "created_at": finding.created_at_ms,
        "end_user_id": finding.end_user_id,
    }
