"""One worker process: an event loop that carries turns, fed by a dramatiq worker's threads."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from dramatiq import Worker

from qlaud_actors import metrics
from qlaud_actors.billing import auto_topup, presence, stripe_meter, topup
from qlaud_actors.bootstrap import Services, open_services
from qlaud_actors.carrier import RENEW_EVERY
from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.log import get_logger
from qlaud_actors.rights import retention
from qlaud_actors.settings import Settings
from qlaud_actors.tools import kept
from workers.actors import actor_table, declare

logger = get_logger(__name__)

THREADS = 8
"""Wake-ups claimed at once; a turn itself occupies no thread."""

WAIT_MS = 500
"""How long an idle thread waits before it looks whether the worker ends."""

STOP_MS = 5_000
SWEEP_SECONDS = 2.0
HOLDS_SECONDS = 10.0
DELIVERIES_SECONDS = 1.0
DELETIONS_SECONDS = 1.0
INDEX_SECONDS = 1.0
TIDY_SECONDS = 60.0
RETENTION_SECONDS = 300.0
METRICS_SECONDS = 5.0


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then hand unfinished turns back."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with open_services(settings) as services:
        runner = services.runner()
        job_runner, courier = services.job_runner(), services.courier()
        indexer, deleter = services.indexer(), services.deleter()
        declare(actor_table(runner, job_runner, courier, indexer, deleter), services.broker, loop)
        worker = Worker(services.broker, worker_timeout=WAIT_MS, worker_threads=THREADS)
        lease = settings.lease_seconds
        renew_seconds, sweep_seconds = lease * RENEW_EVERY, min(SWEEP_SECONDS, lease)
        upkeep = (
            every(renew_seconds, runner.carrier.renew),
            every(renew_seconds, job_runner.carrier.renew),
            every(sweep_seconds, runner.sweep),
            every(sweep_seconds, job_runner.sweep),
            every(DELIVERIES_SECONDS, courier.sweep),
            every(DELETIONS_SECONDS, deleter.sweep),
            every(INDEX_SECONDS, indexer.sweep),
            every(min(HOLDS_SECONDS, lease), lambda: presence.release_abandoned(services.pool)),
            every(TIDY_SECONDS, job_runner.delete_old),
            every(TIDY_SECONDS, courier.delete_old),
            every(TIDY_SECONDS, deleter.erase_hidden),
            every(RETENTION_SECONDS, lambda: retention.enforce(services.pool)),
            every(TIDY_SECONDS, lambda: kept.delete_old(services.pool)),
            every(TIDY_SECONDS, lambda: topup.forget_events(services.pool)),
            every(TIDY_SECONDS, lambda: services.vault.trail.forget(settings.vault_audit_days)),
            every(METRICS_SECONDS, lambda: _share_metrics(services, runner.owner)),
            *_stripe_upkeep(services),
        )
        async with _repeating(*upkeep), _health_server(settings):
            await asyncio.to_thread(worker.start)
            logger.info("worker_started", owner=runner.owner, slots=settings.turns_per_worker)
            await stop.wait()
            logger.info("worker_stopping")
            runner.carrier.draining = job_runner.carrier.draining = True
            await asyncio.to_thread(worker.stop, STOP_MS)
            await asyncio.gather(runner.carrier.drain(), job_runner.carrier.drain())
            await asyncio.gather(courier.drain(), deleter.drain())
    logger.info("worker_stopped")


def every(seconds: float, action: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    """Do something again and again; a failure is logged and does not end it."""

    async def forever() -> None:
        while True:
            try:
                await action()
            except ConnectionLost as error:
                logger.warning("upkeep_interrupted", error=type(error).__name__)
            except Exception:
                logger.exception("upkeep_failed")
            await asyncio.sleep(seconds)

    return forever


def _stripe_upkeep(services: Services) -> list[Callable[[], Awaitable[None]]]:
    """What goes to Stripe. Two seconds behind a settlement is prompt enough to need no wake-up."""
    if services.settings.stripe_secret_key is None:
        return []
    return [
        every(SWEEP_SECONDS, lambda: auto_topup.sweep(services.pool, services.settings)),
        every(SWEEP_SECONDS, lambda: stripe_meter.push(services.pool, services.settings)),
    ]


@contextlib.asynccontextmanager
async def _repeating(*loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run loops beside the block and end them with it."""
    tasks = [asyncio.ensure_future(loop()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _share_metrics(services: Services, owner: str) -> None:
    """Leave this process's figures where the front door finds them for its `/metrics`."""
    await services.redis.set(metrics.WORKER_KEY + owner, metrics.render(), ex=int(METRICS_SECONDS * 3))


@contextlib.asynccontextmanager
async def _health_server(settings: Settings) -> AsyncIterator[None]:
    """`/healthz` and `/metrics` of this worker, when QLAUD_WORKER_PORT asks for them."""
    if not settings.worker_port:
        yield
        return

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def figures(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), content_type="text/plain")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", figures)])
    server = web.AppRunner(app)
    await server.setup()
    try:
        await web.TCPSite(server, settings.host, settings.worker_port).start()
        yield
    finally:
        await server.cleanup()
