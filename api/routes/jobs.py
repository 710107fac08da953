"""Jobs: a request to a model that is answered later, fetched or told by a webhook."""

from typing import Any

import msgspec
from aiohttp import web

from api.bodies import (
    idempotency_key,
    path_uuid,
    query_choice,
    query_int,
    query_uuid,
    read_json,
    webhook_url,
)
from api.context import REQUEST_ID, caller, services
from api.responses import json_response
from api.turn_body import fingerprint
from qlaud_actors.deferred import queue
from qlaud_actors.deferred.endpoints import KEPT_HEADERS, ask_from
from qlaud_actors.deferred.model import STATUSES, Job, shown
from qlaud_actors.deferred.queue import NewJob
from qlaud_actors.deliveries import store as webhooks
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import new_uuid

routes = web.RouteTableDef()


class JobBody(msgspec.Struct):
    """`POST /v1/jobs`."""

    endpoint: str
    body: dict[str, Any]
    webhook_url: str | None = None


@routes.post("/v1/jobs")
async def create_job(request: web.Request) -> web.Response:
    """Accept a request to a model; what could not run is refused now, with the status that it would get."""
    key, hub = caller(request), services(request)
    asked = await read_json(request, JobBody)
    headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
    new = NewJob(
        id=new_uuid(),
        account_id=key.account_id,
        key_id=key.id,
        endpoint=asked.endpoint,
        body=asked.body,
        headers=headers,
        request_id=request[REQUEST_ID],
        fingerprint=fingerprint(await request.read(), request.path),
        size=len(await request.read()),
        webhook_url=asked.webhook_url,
        idempotency_key=idempotency_key(request),
    )
    accepted = await queue.first_use(hub.pool, new)
    if accepted is None:
        ask = ask_from(new.endpoint, new.body, new.headers)
        hub.relay.admission.check(key, ask)
        await _check_address(request, asked.webhook_url)
        async with hub.limits.admit(key, hub.relay.admission.tokens(key, ask)):
            accepted = await queue.accept(hub.pool, new)
    if replayed := accepted != new.id:
        headers = {"idempotency-replayed": "true"}
    else:
        await hub.wake_jobs([accepted])
    job = shown(await queue.get(hub.pool, accepted))
    told = {name: job[name] for name in ("id", "object", "status", "endpoint", "created_at")}
    return json_response(told, status=202, headers=headers if replayed else None)


@routes.get("/v1/jobs")
async def list_jobs(request: web.Request) -> web.Response:
    """The key's jobs, an admin's account's, newest first; without responses."""
    key, limit = caller(request), query_int(request, "limit", 20, 1, 200)
    status = query_choice(request, "status", "", ("", *STATUSES)) or None
    key_id = None if key.scope == "admin" else key.id
    before = query_uuid(request, "before")
    found = await queue.list_jobs(services(request).pool, key.account_id, key_id, status, before, limit + 1)
    data = [shown(job) for job in found[:limit]]
    has_more = len(found) > limit
    next_before = data[-1]["id"] if has_more else None
    return json_response({"object": "list", "data": data, "has_more": has_more, "next_before": next_before})


@routes.get("/v1/jobs/{job_id}")
async def get_job(request: web.Request) -> web.Response:
    """One job, with the model's answer as it came once it has succeeded."""
    job = await _visible_job(request)
    answer = {"response": msgspec.Raw(job.response.encode())} if job.response is not None else {}
    return json_response({**shown(job), **answer})


@routes.post("/v1/jobs/{job_id}/cancel")
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel a job; also when its worker is dead. Cancelling one that has ended changes nothing."""
    hub, job = services(request), await _visible_job(request)
    if ended := await queue.cancel(hub.pool, job.id):
        await hub.wake_deliveries(ended.deliveries)
    return json_response(shown(await queue.get(hub.pool, job.id)))


async def _visible_job(request: web.Request) -> Job:
    """The job of the path, if this key may see it: its own, an admin all of the account. Raises NotFound."""
    key = caller(request)
    job = await queue.get(services(request).pool, path_uuid(request, "job_id"))
    if job.account_id != key.account_id or (key.scope != "admin" and job.key_id != key.id):
        raise NotFound("There is no such job.")
    return job


async def _check_address(request: web.Request, url: str | None) -> None:
    """Refuse an address that could not be told later."""
    if url is None:
        return
    hub = services(request)
    webhook_url("webhook_url", url, allow_private=hub.settings.allow_private_webhooks)
    if not await webhooks.can_tell_address(hub.pool, caller(request).account_id):
        raise InvalidRequest(
            "`webhook_url`: the account has no secret to sign with yet. "
            'An admin makes it with POST /v1/webhooks and `{"url": null}`.'
        )
