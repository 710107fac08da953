"""How long conversations are kept."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import path_uuid, read_json
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.conversation import threads
from qlaud_actors.rights import retention
from qlaud_actors.rights.model import Rule

routes = web.RouteTableDef()

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]
Number = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class RuleBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /v1/retention` and its preview; what is absent or null is kept for ever."""

    ttl_days: Days | None = None
    keep_latest_threads: Number | None = None
    keep_latest_messages: Number | None = None


class ThreadRuleBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /v1/threads/:id/retention`; what is absent or null is as the account says."""

    ttl_days: Days | None = None
    keep_latest_messages: Number | None = None


@routes.get("/v1/retention")
@require_admin
async def get_retention(request: web.Request) -> web.Response:
    """The account's rule."""
    return json_response(_shown(await retention.rule_of(services(request).pool, caller(request).account_id)))


@routes.put("/v1/retention")
@require_admin
async def put_retention(request: web.Request) -> web.Response:
    """Another rule; it is enforced within minutes, so preview it first."""
    rule = Rule(**msgspec.structs.asdict(await read_json(request, RuleBody)))
    await retention.set_rule(services(request).pool, caller(request).account_id, rule)
    return json_response(_shown(rule))


@routes.post("/v1/retention/preview")
@require_admin
async def preview_retention(request: web.Request) -> web.Response:
    """What would go now under a rule, or under the present one when there is no body. Nothing changes."""
    pool, account_id = services(request).pool, caller(request).account_id
    if await request.read():
        rule = Rule(**msgspec.structs.asdict(await read_json(request, RuleBody)))
    else:
        rule = await retention.rule_of(pool, account_id)
    found = await retention.due(pool, account_id, rule)
    would = {
        "threads": len(found.whole),
        "messages": found.messages,
        "trimmed_threads": len(found.trimmed),
        "oldest_at": found.oldest_ms,
    }
    return json_response({"object": "retention.preview", "rule": _shown(rule), "would_remove": would})


@routes.put("/v1/threads/{thread_id}/retention")
@require_admin
async def put_thread_retention(request: web.Request) -> web.Response:
    """A thread's own rule. For admins: a key must not keep longer what the account wants gone."""
    body = await read_json(request, ThreadRuleBody)
    pool = services(request).pool
    thread = await threads.get(pool, caller(request), path_uuid(request, "thread_id"))
    await retention.set_thread_rule(pool, thread.id, body.ttl_days, body.keep_latest_messages)
    return json_response({"object": "thread.retention", "id": str(thread.id), **msgspec.structs.asdict(body)})


def _shown(rule: Rule) -> dict[str, object]:
    return {
        "object": "retention",
        "ttl_days": rule.ttl_days,
        "keep_latest_threads": rule.keep_latest_threads,
        "keep_latest_messages": rule.keep_latest_messages,
    }
