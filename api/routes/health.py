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
from qlaud_actors.probe import http_status

routes = web.RouteTableDef()

CHECK_SECONDS = 2.0
REQUIRED = ("postgres", "redis")


@routes.get("/healthz")
async def healthz(_: web.Request) -> web.Response:
    """The process answers."""
    return json_response({"status": "ok"})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """Each dependency; 503 when one is away that a turn needs. Chroma serves search alone."""
    hub = services(request)
    probes: dict[str, Callable[[], Awaitable[str]]] = {
        "postgres": lambda: _postgres(hub.pool),
        "redis": lambda: _redis(hub.redis.ping()),
    }
    if (chroma_url := hub.settings.chroma_url) is not None:
        probes["chroma"] = lambda: _chroma(chroma_url)
    results = await asyncio.gather(*(_check(probe) for probe in probes.values()))
    checks = dict(zip(probes, results, strict=True))
    ready = all(checks[name]["ok"] for name in REQUIRED)
    degraded = not all(check["ok"] for check in checks.values())
    status = "unready" if not ready else "degraded" if degraded else "ready"
    return json_response({"status": status, "checks": checks}, status=200 if ready else 503)


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


async def _chroma(url: str) -> str:
    status = await http_status(f"{url}/api/v2/heartbeat")
    return "ok" if status == 200 else "not reachable"


async def _redis(ping: Any) -> str:
    await ping
    return "ok"
