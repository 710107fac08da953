"""Webhooks that tell an account what happened, for admins."""

from typing import Annotated

import msgspec
from aiohttp import web

from api.bodies import path_uuid, query_int, read_json, webhook_url
from api.context import caller, services
from api.middleware import require_admin
from api.responses import json_response
from qlaud_actors.deliveries import store
from qlaud_actors.deliveries.model import DeliveryRecord, Event, Webhook
from qlaud_actors.errors import InvalidRequest

routes = web.RouteTableDef()

Events = Annotated[list[Event], msgspec.Meta(min_length=1, max_length=16)]


class WebhookBody(msgspec.Struct):
    """`POST /v1/webhooks`."""

    url: str | None
    """`null`: the account's own, whose secret signs what goes to the `webhook_url` of a job."""
    events: Events | None = None


@routes.post("/v1/webhooks")
@require_admin
async def create_webhook(request: web.Request) -> web.Response:
    """A new webhook; its signing secret is in this answer and nowhere else."""
    body, hub = await read_json(request, WebhookBody), services(request)
    events = _events(body)
    if body.url is not None:
        webhook_url("url", body.url, allow_private=hub.settings.allow_private_webhooks)
    account_id = caller(request).account_id
    webhook, secret = await store.insert_webhook(hub.pool, hub.vault, account_id, body.url, events)
    return json_response({**webhook_object(webhook), "secret": secret.reveal()}, status=201)


@routes.get("/v1/webhooks")
@require_admin
async def list_webhooks(request: web.Request) -> web.Response:
    """The account's webhooks, oldest first."""
    found = await store.list_webhooks(services(request).pool, caller(request).account_id)
    return json_response({"object": "list", "data": [webhook_object(webhook) for webhook in found]})


@routes.delete("/v1/webhooks/{webhook_id}")
@require_admin
async def delete_webhook(request: web.Request) -> web.Response:
    """End a webhook: nothing more is sent to it, and its secret is forgotten."""
    pool, account_id = services(request).pool, caller(request).account_id
    await store.delete_webhook(pool, account_id, path_uuid(request, "webhook_id"))
    return json_response({"ok": True})


@routes.post("/v1/webhooks/{webhook_id}/rotate")
@require_admin
async def rotate_webhook(request: web.Request) -> web.Response:
    """Another secret, from the next attempt on. What a receiver refuses meanwhile is tried again."""
    hub, account_id = services(request), caller(request).account_id
    webhook = await store.get_webhook(hub.pool, account_id, path_uuid(request, "webhook_id"))
    secret = await store.rotate_secret(hub.pool, hub.vault, account_id, webhook.id)
    return json_response({**webhook_object(webhook), "secret": secret.reveal()})


@routes.get("/v1/webhooks/{webhook_id}/deliveries")
@require_admin
async def list_deliveries(request: web.Request) -> web.Response:
    """What was sent to a webhook, or is on its way, newest first."""
    pool, limit = services(request).pool, query_int(request, "limit", 50, 1, 200)
    webhook = await store.get_webhook(pool, caller(request).account_id, path_uuid(request, "webhook_id"))
    found = await store.list_deliveries(pool, webhook.id, limit)
    return json_response({"object": "list", "data": [delivery_object(record) for record in found]})


@routes.post("/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
@require_admin
async def redeliver(request: web.Request) -> web.Response:
    """Deliver again, under the same id and with all attempts."""
    hub, delivery_id = services(request), path_uuid(request, "delivery_id")
    webhook = await store.get_webhook(hub.pool, caller(request).account_id, path_uuid(request, "webhook_id"))
    await store.redeliver(hub.pool, webhook.id, delivery_id)
    await hub.wake_deliveries([delivery_id])
    return json_response({"id": str(delivery_id), "object": "delivery", "status": "pending"}, status=202)


def _events(body: WebhookBody) -> list[Event]:
    events = list(dict.fromkeys(body.events or []))
    if body.url is not None:
        if not events:
            raise InvalidRequest("`events` is missing.")
        return events
    if events not in ([], ["job.completed"]):
        raise InvalidRequest("`events`: a webhook without a URL tells of jobs only, where they ask for it.")
    return ["job.completed"]


def webhook_object(webhook: Webhook) -> dict[str, object]:
    """A webhook as the API shows it, without its secret."""
    return {
        "id": str(webhook.id),
        "object": "webhook",
        "url": webhook.url,
        "events": webhook.events,
        "created_at": webhook.created_at_ms,
    }


def delivery_object(record: DeliveryRecord) -> dict[str, object]:
    """A delivery as the API shows it."""
    return {
        "id": str(record.id),
        "object": "delivery",
        "event": record.event,
        "url": record.url,
        "status": record.status,
        "attempts": record.attempts,
        "next_attempt_at": record.next_attempt_at_ms,
        "last_attempt_at": record.last_attempt_at_ms,
        "last_status": record.last_status,
        "last_error": record.last_error,
        "created_at": record.created_at_ms,
        "ended_at": record.ended_at_ms,
    }
