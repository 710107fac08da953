"""Threads and their messages. `post_message` is where the product's main path begins."""

import uuid
from dataclasses import replace

import msgspec
from aiohttp import web

from api.bodies import (
    check_end_user,
    idempotency_key,
    no_nul,
    path_uuid,
    query_choice,
    query_int,
    query_text,
    read_json,
)
from api.compaction_fields import Threshold, check_model, compaction_object
from api.context import REQUEST_ID, caller, services
from api.responses import json_response
from api.routes.turns import answer_turn
from api.turn_body import ModelSlug, TurnBody, fingerprint, turn_request
from qlaud_actors.billing.meter import refusal
from qlaud_actors.billing.model import Refused
from qlaud_actors.conversation import compaction, mailbox, threads
from qlaud_actors.conversation.approval_rules import Approval
from qlaud_actors.conversation.closing import announce
from qlaud_actors.conversation.context import THRESHOLD, CompactionMode
from qlaud_actors.conversation.mailbox import NewTurn
from qlaud_actors.conversation.model import StoredMessage, Thread, TurnRequest
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import new_uuid, parse_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.providers.routing import candidates
from qlaud_actors.tools.registry import toolset_for

routes = web.RouteTableDef()

LIKELY_TOKENS = 4_096
"""What a key's pace counts for a turn while it runs, at most, beside what its steps have used."""

MAX_SEQ = 2**31 - 1
MAX_PAGE = 200


class ThreadBody(msgspec.Struct):
    """`POST /v1/threads`."""

    end_user_id: str | None = None
    metadata: dict[str, object] | None = None
    title: str | None = None
    workspace_id: str | None = None
    kind: str | None = None
    default_mode: str | None = None
    default_model: str | None = None
    approval: Approval | None = None
    compaction: CompactionMode = "auto"
    compaction_threshold: Threshold = THRESHOLD
    compaction_model: ModelSlug | None = None


class ThreadPatch(msgspec.Struct):
    """`PATCH /v1/threads/:id`; a field that is absent stays as it is."""

    metadata: dict[str, object] | msgspec.UnsetType = msgspec.UNSET
    title: str | msgspec.UnsetType | None = msgspec.UNSET
    approval: Approval | msgspec.UnsetType | None = msgspec.UNSET
    compaction: CompactionMode | None = None
    compaction_threshold: Threshold | None = None
    compaction_model: ModelSlug | msgspec.UnsetType | None = msgspec.UNSET


@routes.post("/v1/threads/{thread_id}/messages")
async def post_message(request: web.Request) -> web.StreamResponse:
    """Send the user's next message: check it, put it into the thread's mailbox, tell what comes of it.

    The turn's channel is followed before a worker can know of the turn, so no event is missed.
    """
    key, hub = caller(request), services(request)
    thread = await threads.get(hub.pool, key, path_uuid(request, "thread_id"))
    body = await read_json(request, TurnBody)
    new = NewTurn(
        id=new_uuid(),
        thread_id=thread.id,
        account_id=key.account_id,
        key_id=key.id,
        request=turn_request(body, thread.approval),
        content=body.content,
        request_id=request[REQUEST_ID],
        fingerprint=fingerprint(await request.read(), request.path),
        idempotency_key=idempotency_key(request),
    )
    if first := await mailbox.first_use(hub.pool, new):
        async with hub.bus.follow(first.turn_id) as reader:
            return await answer_turn(request, first, reader, stream=body.stream)
    new = replace(new, request=await _check_turn(request, new.request))
    limited = hub.limits.admit(key, min(body.max_tokens, LIKELY_TOKENS) if key.limits.tpm else 0)
    async with limited as admitted, hub.bus.follow(new.id) as reader:
        admitted.used = 0  # the worker counts each step
        accepted = await mailbox.accept(hub.pool, new)
        if accepted.turn_id != new.id:  # the same key was used at the same moment
            async with hub.bus.follow(accepted.turn_id) as other:
                return await answer_turn(request, accepted, other, stream=body.stream)
        await hub.wake([new.id])
        return await answer_turn(request, accepted, reader, stream=body.stream)


async def _check_turn(request: web.Request, asked: TurnRequest) -> TurnRequest:
    """Refuse now, with a plain status, what could not run: model, tools, money.

    The turn keeps the fallbacks that its key may use.
    """
    key, hub = caller(request), services(request)
    found = candidates(
        hub.catalog,
        asked.model,
        hub.fallback.healthy,
        asked.fallbacks,
        key.limits.allows,
        limited=key.limited,
    )
    hub.catalog.require_configured(found[0])
    await toolset_for(hub.pool, hub.vault, key.account_id, asked.tools_mode, asked.tools, asked.client_tools)
    lifecycle.precheck(key)
    if asked.max_nanos == 0:
        raise refusal(Refused("turn", 0, 0, 0, None, needed_nanos=1))
    first = hub.catalog.resolve(asked.model).slug
    return replace(asked, fallbacks=list(dict.fromkeys(m.slug for m in found if m.slug != first)))


@routes.post("/v1/threads")
async def create_thread(request: web.Request) -> web.Response:
    """A new thread."""
    body = await read_json(request, ThreadBody, allow_empty=True)
    new = threads.NewThread(**msgspec.structs.asdict(body))
    check_new(request, new)
    thread = await threads.create(services(request).pool, caller(request), new)
    return json_response(thread_object(thread), status=201)


@routes.get("/v1/threads")
async def list_threads(request: web.Request) -> web.Response:
    """Threads, the most recently active first."""
    limit = min(query_int(request, "limit", 20, 1, MAX_SEQ), MAX_PAGE)
    after_id = await _cursor(request)
    found = await threads.list_threads(
        services(request).pool,
        caller(request),
        end_user_id=query_text(request, "end_user_id"),
        after_id=after_id,
        limit=limit + 1,
    )
    data = [thread_object(thread) for thread in found[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(found) > limit})


@routes.delete("/v1/threads/empty")
async def delete_empty(request: web.Request) -> web.Response:
    """Delete threads that never had a message."""
    return json_response({"deleted": await threads.delete_empty(services(request).pool, caller(request))})


@routes.get("/v1/threads/{thread_id}")
async def get_thread(request: web.Request) -> web.Response:
    """One thread."""
    thread = await threads.get(services(request).pool, caller(request), path_uuid(request, "thread_id"))
    return json_response(thread_object(thread))


@routes.patch("/v1/threads/{thread_id}")
async def patch_thread(request: web.Request) -> web.Response:
    """Merge metadata, set the title and the approval policy."""
    body = await read_json(request, ThreadPatch)
    metadata = None if body.metadata is msgspec.UNSET else body.metadata
    title = None if body.title is msgspec.UNSET else body.title
    check_metadata(metadata)
    check_text("title", title)
    change = threads.ThreadChange(
        metadata=metadata,
        title=title,
        set_title=body.title is not msgspec.UNSET,
        approval=None if body.approval is msgspec.UNSET else body.approval,
        set_approval=body.approval is not msgspec.UNSET,
        compaction=body.compaction,
        compaction_threshold=body.compaction_threshold,
        compaction_model=None if body.compaction_model is msgspec.UNSET else body.compaction_model,
        set_compaction_model=body.compaction_model is not msgspec.UNSET,
    )
    check_model(request, change.compaction_model)
    hub, thread_id = services(request), path_uuid(request, "thread_id")
    return json_response(thread_object(await threads.change(hub.pool, caller(request), thread_id, change)))


@routes.delete("/v1/threads/{thread_id}")
async def delete_thread(request: web.Request) -> web.Response:
    """Delete a thread and its text."""
    hub, thread_id = services(request), path_uuid(request, "thread_id")
    for finished in await threads.delete(hub.pool, caller(request), thread_id):
        await announce(hub.publisher, finished, hub.wake)
    return json_response({"ok": True, "id": str(thread_id), "object": "thread", "deleted": True})


@routes.get("/v1/threads/{thread_id}/messages")
async def list_messages(request: web.Request) -> web.Response:
    """Messages by seq, in either direction, with exclusive bounds."""
    limit = min(query_int(request, "limit", 50, 1, MAX_SEQ), MAX_PAGE)
    descending = query_choice(request, "order", "asc", ("asc", "desc")) == "desc"
    after = query_int(request, "after_seq", 0, 0, MAX_SEQ)
    before = query_int(request, "before_seq", MAX_SEQ, 0, MAX_SEQ)
    hub = services(request)
    thread = await threads.get(hub.pool, caller(request), path_uuid(request, "thread_id"))
    page = await threads.page(
        hub.pool, thread.id, after=after, before=before, limit=limit, descending=descending
    )
    last = page.messages[-1].seq if page.messages and page.has_more else None
    return json_response(
        {
            "object": "list",
            "data": [message_object(message) for message in page.messages],
            "has_more": page.has_more,
            "next_after_seq": None if descending else last,
            "next_before_seq": last if descending else None,
            "compaction": compaction_object(await compaction.latest(hub.pool, thread.id)),
        }
    )


def thread_object(thread: Thread) -> dict[str, object]:
    """A thread as the API shows it."""
    return {
        "id": str(thread.id),
        "object": "thread",
        "end_user_id": thread.end_user_id,
        "metadata": thread.metadata,
        "title": thread.title,
        "workspace_id": thread.workspace_id,
        "default_mode": thread.default_mode,
        "default_model": thread.default_model,
        "approval": thread.approval,
        "compaction": thread.compaction,
        "compaction_threshold": thread.compaction_threshold,
        "compaction_model": thread.compaction_model,
        "latest_claude_sid": None,
        "parent_thread_id": str(thread.parent_thread_id) if thread.parent_thread_id else None,
        "branched_at_seq": thread.branched_at_seq,
        "created_at": thread.created_at_ms,
        "last_active_at": thread.last_active_at_ms,
    }


def message_object(message: StoredMessage) -> dict[str, object]:
    """A message as the API shows it."""
    return {
        "seq": message.seq,
        "role": message.role,
        "content": message.content,
        "request_id": message.request_id,
        "created_at": message.created_at_ms,
    }


async def _cursor(request: web.Request) -> uuid.UUID | None:
    """`?after=`: a thread that this key sees; of others not even their existence is told."""
    after = query_text(request, "after")
    if after is None:
        return None
    try:
        if after_id := parse_uuid(after):
            return (await threads.get(services(request).pool, caller(request), after_id)).id
    except NotFound:
        pass
    raise InvalidRequest("`after` must be the id of a thread that this key sees.")


def check_new(request: web.Request, new: threads.NewThread) -> None:
    """Raise InvalidRequest, UnknownModel or ScopeMissing for what no new thread may have."""
    for name in ("end_user_id", "title", "workspace_id", "kind", "default_mode", "default_model"):
        check_text(name, getattr(new, name))
    check_end_user(new.end_user_id)
    check_metadata(new.metadata)
    check_model(request, new.compaction_model)


def check_text(name: str, value: str | None, limit: int = 512) -> None:
    """Raise InvalidRequest for a text that is too long or holds NUL."""
    if value is not None and len(value) > limit:
        raise InvalidRequest(f"`{name}` must have at most {limit} characters.")
    no_nul(name, value)


def check_metadata(metadata: dict[str, object] | None, limit: int = 16 * 1024) -> None:
    """Raise InvalidRequest for metadata that is too large or holds NUL."""
    if metadata is not None and len(msgspec.json.encode(metadata)) > limit:
        raise InvalidRequest(f"`metadata` must have at most {limit} bytes.")
    no_nul("metadata", metadata)
