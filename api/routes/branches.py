"""Branches of threads: edit or ask again from some message, or copy the whole, and keep the old one."""

import uuid
from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import path_uuid, query_int, query_text, read_json
from api.context import caller, services
from api.responses import json_response
from api.routes.threads import MAX_PAGE, MAX_SEQ, check_metadata, check_text, message_object, thread_object
from qlaud_actors.conversation import branches
from qlaud_actors.conversation.threads import NewThread
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.ids import parse_uuid

routes = web.RouteTableDef()


class CopyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/threads/:id/copy`; what is absent is the parent's."""

    title: str | None = None
    metadata: dict[str, object] | None = None


class BranchBody(CopyBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/threads/:id/branches`."""

    from_seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]


@routes.post("/v1/threads/{thread_id}/branches")
async def create_branch(request: web.Request) -> web.Response:
    """A new thread up to a question. To edit it send another one, to ask again send `replaced.content`."""
    body = await read_json(request, BranchBody)
    return await _branch(request, body, body.from_seq)


@routes.post("/v1/threads/{thread_id}/copy")
async def copy_thread(request: web.Request) -> web.Response:
    """A new thread with all messages."""
    return await _branch(request, await read_json(request, CopyBody, allow_empty=True), None)


@routes.get("/v1/threads/{thread_id}/branches")
async def list_branches(request: web.Request) -> web.Response:
    """The branches and copies of a thread, newest first."""
    limit = query_int(request, "limit", 20, 1, MAX_PAGE)
    found = await branches.list_branches(
        services(request).pool,
        caller(request),
        path_uuid(request, "thread_id"),
        after_id=_cursor(request),
        limit=limit + 1,
    )
    data = [thread_object(thread) for thread in found[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(found) > limit})


async def _branch(request: web.Request, body: CopyBody, from_seq: int | None) -> web.Response:
    check_text("title", body.title)
    check_metadata(body.metadata)
    new = NewThread(title=body.title, metadata=body.metadata)
    thread_id = path_uuid(request, "thread_id")
    made = await branches.branch(services(request).pool, caller(request), thread_id, new, from_seq)
    replaced = message_object(made.replaced) if made.replaced else None
    return json_response({**thread_object(made.thread), "replaced": replaced}, status=201)


def _cursor(request: web.Request) -> uuid.UUID | None:
    after = query_text(request, "after")
    after_id = parse_uuid(after) if after is not None else None
    if after is not None and after_id is None:
        raise InvalidRequest("`after` must be the id of a thread.")
    return after_id
