"""Approvals: the calls of a thread that wait for a person's word, and that word."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import no_nul, path_uuid, read_json
from api.context import caller, services
from api.responses import json_response
from qlaud_actors.conversation import threads
from qlaud_actors.conversation.approval_rules import Awaited, Decision
from qlaud_actors.conversation.approvals import awaited_approvals, decide
from qlaud_actors.conversation.events import approval_required
from qlaud_actors.errors import NotFound

routes = web.RouteTableDef()

MAX_REASON = 2000


class ApprovalBody(msgspec.Struct):
    """`POST …/approvals/:tool_use_id`."""

    approve: bool
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] | None = None


@routes.get("/v1/threads/{thread_id}/approvals")
async def list_approvals(request: web.Request) -> web.Response:
    """What waits for a person's word in a thread."""
    pool = services(request).pool
    thread = await threads.get(pool, caller(request), path_uuid(request, "thread_id"))
    waiting = await awaited_approvals(pool, thread.id)
    return json_response({"object": "list", "data": [approval_object(awaited) for awaited in waiting]})


@routes.post("/v1/threads/{thread_id}/approvals/{tool_use_id}")
async def post_approval(request: web.Request) -> web.Response:
    """Approve or decline a call, once; the turn goes on when no call of its step is left undecided."""
    key, hub = caller(request), services(request)
    thread = await threads.get(hub.pool, key, path_uuid(request, "thread_id"))
    body = await read_json(request, ApprovalBody)
    no_nul("reason", body.reason)
    tool_use_id = request.match_info["tool_use_id"]
    if not tool_use_id.isprintable():
        raise NotFound("No call of this thread waits for this approval.")
    decision = Decision(body.approve, key.id, body.reason)
    turn_id, resumed = await decide(hub.pool, thread.id, tool_use_id, decision)
    if resumed:
        await hub.wake([turn_id])
    return json_response({"tool_use_id": tool_use_id, "approved": body.approve, "turn_id": str(turn_id)})


def approval_object(awaited: Awaited) -> dict[str, object]:
    """What waits, as its event says it, with its turn."""
    shown = {name: value for name, value in approval_required(awaited).items() if name != "type"}
    return {**shown, "turn_id": str(awaited.turn_id)}
