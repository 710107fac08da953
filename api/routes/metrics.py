"""`GET /metrics`: this front door's figures, the mailboxes', and those of every living worker."""

import contextlib
from typing import Any

from aiohttp import web
from redis.exceptions import RedisError

from api.context import services
from qlaud_actors import metrics
from qlaud_actors.bootstrap import Services
from qlaud_actors.conversation.store import queue_figures

routes = web.RouteTableDef()


@routes.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    """Prometheus text: one address shows the whole stack."""
    hub = services(request)
    figures = await queue_figures(hub.pool)
    metrics.QUEUE_TURNS.labels("queued").set(figures.queued)
    metrics.QUEUE_TURNS.labels("parked").set(figures.parked)
    metrics.QUEUE_TURNS.labels("running").set(figures.running)
    metrics.QUEUE_AGE.set(figures.oldest_seconds)
    body = metrics.merge(metrics.render(), await _workers(hub))
    return web.Response(body=body, content_type="text/plain", charset="utf-8")


async def _workers(hub: Services) -> dict[str, bytes]:
    """What each worker left in Redis, by its name; nothing when Redis is away."""
    found: dict[str, Any] = {}
    with contextlib.suppress(RedisError, OSError):
        async for key in hub.redis.scan_iter(match=metrics.WORKER_KEY + "*", count=1000):
            if figures := await hub.redis.get(key):
                found[key.decode().removeprefix(metrics.WORKER_KEY)] = figures
    return found
