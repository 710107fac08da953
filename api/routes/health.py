"""Whether this process lives (`/healthz`), and whether it can work (`/readyz`)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from api.context import services
from api.responses import json_response
from qlaud_actors.db.migrate import missing_migrations
from qlaud_actors.db.pool import Pool

routes = web.RouteTableDef()

CHECK_SECONDS = 2.0


@routes.get("/healthz")
async def healthz(_: web.Request) -> web.Response:
    """The process answers."""
    return json_response({"status": "ok"})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """Each dependency that a turn needs; 503 when one of them is away."""
    hub = services(request)
    names = ("postgres", "redis")
    results = await asyncio.gather(
        _check(lambda: _postgres(hub.pool)),
        _check(lambda: _redis(hub.redis.ping())),
    )
    ready = all(result["ok"] for result in results)
    checks = dict(zip(names, results, strict=True))
    status = {"status": "ready" if ready else "unready", "checks": checks}
    return json_response(status, status=200 if ready else 503)


async def _check(probe: Callable[[], Awaitable[str]]) -> dict[str, Any]:
    start = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            words, ok = await probe(), True
    except Exception as error:  # noqa: BLE001 - whatever is wrong is the answer
        words, ok = f"not reachable ({type(error).__name__})", False
    return {"ok": ok and words == "ok", "ms": round((time.monotonic() - start) * 1000), "message": words}


async def _postgres(pool: Pool) -> str:
    async with pool.acquire() as connection:
        missing = await missing_migrations(connection)
    return f"run `qlaud migrate`: {len(missing)} migrations are missing" if missing else "ok"


async def _redis(ping: Any) -> str:
    await ping
    return "ok"
