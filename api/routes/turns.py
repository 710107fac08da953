"""Turns: the answer to a message, the turn resource, its stream, cancel, and client tool results."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from api.bodies import path_uuid, query_int, read_json
from api.context import caller, services
from api.responses import json_response
from api.routes.approvals import approval_object
from api.sse import relay
from qlaud_actors.conversation import mailbox, store, threads
from qlaud_actors.conversation.approval_rules import Awaited
from qlaud_actors.conversation.approvals import awaited_approvals
from qlaud_actors.conversation.bus import Subscription
from qlaud_actors.conversation.closing import announce
from qlaud_actors.conversation.events import APPROVAL_PREFIX, ERROR_PREFIX, usage_object
from qlaud_actors.conversation.follow import follow_turn
from qlaud_actors.conversation.log import Entry
from qlaud_actors.conversation.mailbox import Accepted
from qlaud_actors.conversation.model import StepRecord, ToolCallRecord, Turn
from qlaud_actors.conversation.snapshot import TurnRecord, answer, load_record
from qlaud_actors.errors import InvalidRequest, NotFound, TurnFailed
from qlaud_actors.money import nanos_to_micros

routes = web.RouteTableDef()

MAX_EVENT_SEQ = 2**53


class ToolResultBody(msgspec.Struct):
    """`POST …/tool-results/:tool_use_id`."""

    output: Any = None
    is_error: bool = False


async def answer_turn(
    request: web.Request, accepted: Accepted, reader: Subscription, *, stream: bool
) -> web.StreamResponse:
    """Tell the caller what comes of a turn: as a stream, or as one answer when it has ended.

    A turn that fails before its first event is a plain HTTP error in both forms. Where a person has to
    approve calls a stream stays open; the one answer says so with 202.
    """
    hub = services(request)
    entries = follow_turn(hub.pool, reader, hub.settings.heartbeat_seconds)
    headers = {"x-qlaud-thread-id": str(accepted.thread_id), "x-qlaud-turn-id": str(accepted.turn_id)}
    if accepted.replayed:
        headers["idempotency-replayed"] = "true"
    if stream:
        first = await anext(entries)
        if first is not None and first.data.startswith(ERROR_PREFIX):
            raise await _failure(request, accepted)
        return await relay(request, _with_first(first, entries), headers)
    async for entry in entries:
        asks = entry is not None and entry.data.startswith(APPROVAL_PREFIX)
        if asks and (waiting := await awaited_approvals(hub.pool, accepted.thread_id, accepted.turn_id)):
            return await _not_yet(request, accepted, waiting, headers)
    record = await _record(request, accepted)
    if record.turn.status != "completed":
        raise await _failure(request, accepted)
    headers["x-qlaud-assistant-seq"] = str(record.turn.final_seq)
    headers["x-qlaud-resolved-model"] = record.steps[-1].model
    return json_response(answer(record), headers=headers)


async def _not_yet(
    request: web.Request, accepted: Accepted, waiting: list[Awaited], headers: dict[str, str]
) -> web.Response:
    """The answer so far, in the form of the final one, and what it waits for."""
    said = answer(await _record(request, accepted))
    body = {
        **said,
        "turn_id": str(accepted.turn_id),
        "status": "approval_required",
        "incomplete": True,
        "approvals": [approval_object(awaited) for awaited in waiting],
    }
    return json_response(body, status=202, headers=headers)


@routes.get("/v1/threads/{thread_id}/turns/{turn_id}")
async def get_turn(request: web.Request) -> web.Response:
    """A turn with its steps, tool calls, usage and cost."""
    turn = await _visible_turn(request)
    return json_response(turn_object(await load_record(services(request).pool, turn)))


@routes.get("/v1/threads/{thread_id}/turns/{turn_id}/stream")
async def stream_turn(request: web.Request) -> web.StreamResponse:
    """A turn's events, from the beginning or behind `Last-Event-ID` / `?after=`."""
    turn, hub = await _visible_turn(request), services(request)
    async with hub.bus.follow(turn.id, _after(request)) as reader:
        entries = follow_turn(hub.pool, reader, hub.settings.heartbeat_seconds)
        headers = {"x-qlaud-thread-id": str(turn.thread_id), "x-qlaud-turn-id": str(turn.id)}
        return await relay(request, entries, headers)


@routes.post("/v1/threads/{thread_id}/turns/{turn_id}/cancel")
async def cancel_turn(request: web.Request) -> web.Response:
    """Cancel a turn; also when its worker is dead. Cancelling a finished turn changes nothing."""
    turn, hub = await _visible_turn(request), services(request)
    if finished := await mailbox.cancel(hub.pool, turn.id):
        await announce(hub.publisher, finished, hub.wake)
    latest = await store.get_turn(hub.pool, turn.id)
    assert latest is not None
    return json_response({"id": str(turn.id), "object": "turn", "status": latest.status, "cancelling": True})


@routes.post("/v1/threads/{thread_id}/tool-results/{tool_use_id}")
async def post_tool_result(request: web.Request) -> web.Response:
    """The caller's answer to a client tool that a turn waits for; 404 when nobody waits."""
    hub = services(request)
    thread = await threads.get(hub.pool, caller(request), path_uuid(request, "thread_id"))
    body = await read_json(request, ToolResultBody)
    tool_use_id = request.match_info["tool_use_id"]
    taken = tool_use_id.isprintable() and await mailbox.answer_client_call(
        hub.pool, thread.id, tool_use_id, body.output, is_error=body.is_error
    )
    if not taken:
        raise NotFound("No turn of this thread waits for this tool result.")
    return json_response({"ok": True})


def turn_object(record: TurnRecord) -> dict[str, object]:
    """A turn as the API shows it."""
    turn = record.turn
    return {
        "id": str(turn.id),
        "object": "turn",
        "thread_id": str(turn.thread_id),
        "status": turn.status,
        "model": turn.request.model,
        "user_seq": turn.user_seq,
        "seq": turn.final_seq,
        "iterations": turn.iterations,
        "hit_max_iterations": turn.hit_max_iterations,
        "attempts": turn.attempts,
        "cost_micros": nanos_to_micros(turn.cost_nanos),
        "usage": usage_object(turn),
        "steps": [_step_object(step) for step in record.steps],
        "tool_calls": [_call_object(call) for call in record.calls],
        "error": turn.error,
        "request_id": turn.request_id,
        "created_at": turn.created_at_ms,
        "started_at": turn.started_at_ms,
        "finished_at": turn.finished_at_ms,
    }


def _step_object(step: StepRecord) -> dict[str, object]:
    return {
        "number": step.number,
        "state": step.state,
        "model": step.model,
        "seq": step.message_seq,
        "stop_reason": step.stop_reason,
        "input_tokens": step.input_tokens,
        "output_tokens": step.output_tokens,
        "cache_read_input_tokens": step.cache_read_tokens,
        "cache_creation_input_tokens": step.cache_write_tokens,
        "cost_micros": nanos_to_micros(step.cost_nanos),
        "started_at": step.started_at_ms,
        "finished_at": step.finished_at_ms,
    }


def _call_object(call: ToolCallRecord) -> dict[str, object]:
    return {
        "id": call.id,
        "step": call.step,
        "tool_use_id": call.tool_use_id,
        "name": call.name,
        "kind": call.kind,
        "effect": call.effect,
        "state": call.state,
        "input": call.input,
        "output": call.output,
        "is_error": call.is_error,
        "approved": call.approved,
        "approval_expires_at": call.approval_expires_at_ms,
        "started_at": call.started_at_ms,
        "finished_at": call.finished_at_ms,
    }


async def _visible_turn(request: web.Request) -> Turn:
    """The turn of the path, if this key may see its thread. Raises NotFound."""
    pool = services(request).pool
    thread = await threads.get(pool, caller(request), path_uuid(request, "thread_id"))
    turn = await store.get_turn(pool, path_uuid(request, "turn_id"))
    if turn is None or turn.thread_id != thread.id:
        raise NotFound("There is no such turn.")
    return turn


async def _record(request: web.Request, accepted: Accepted) -> TurnRecord:
    pool = services(request).pool
    turn = await store.get_turn(pool, accepted.turn_id)
    assert turn is not None
    return await load_record(pool, turn)


async def _failure(request: web.Request, accepted: Accepted) -> TurnFailed:
    """The error that a turn ended with, as the error of this request."""
    error = (await _record(request, accepted)).turn.error or {}
    return TurnFailed(
        error.get("message", "The turn failed."),
        code=error.get("code", "turn_failed"),
        status=error.get("status", 500),
        **error.get("details", {}),
    )


async def _with_first(first: Entry | None, rest: AsyncIterator[Entry | None]) -> AsyncIterator[Entry | None]:
    yield first
    async for entry in rest:
        yield entry


def _after(request: web.Request) -> int:
    """Where a reader was: `Last-Event-ID` of a reconnecting EventSource, else `?after=`."""
    header = request.headers.get("last-event-id")
    if header is None:
        return query_int(request, "after", 0, 0, MAX_EVENT_SEQ)
    if not header.isascii() or not header.isdigit() or int(header) > MAX_EVENT_SEQ:
        raise InvalidRequest("Last-Event-ID must be the id of an event of this stream.")
    return int(header)
