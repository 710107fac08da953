"""Who lives: a process says so in Postgres, and what a dead one held for its calls is given back.

A call in flight is known to its process alone. When that dies its calls are over, nobody can tell what
they used, and their holds must not stay; while it lives they must.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from qlaud_actors.billing import meter
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.db.pool import ConnectionLost, Pool, Rows
from qlaud_actors.log import get_logger

RENEWALS = 3
"""Within one lease, so that one may be late."""

logger = get_logger(__name__)


@contextlib.asynccontextmanager
async def present(pool: Pool, process: uuid.UUID, lease_seconds: float) -> AsyncIterator[None]:
    """Be alive for as long as the block lasts. Close what holds money before its end.

    Who was silent for `lease_seconds` is taken for dead. If it lives after all, its calls are still charged
    as far as cap and wallet go (`settle_calls_v2`).
    """
    await pool.execute(QUERIES.stay_alive, process, lease_seconds)
    renewal = asyncio.create_task(_renew(pool, process, lease_seconds))
    try:
        yield
    finally:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        with contextlib.suppress(*ConnectionLost):
            await pool.execute(QUERIES.leave, process)


async def release_abandoned(rows: Rows) -> int:
    """Give back what dead processes held; returns how many holds that were."""
    await rows.execute(QUERIES.forget_the_dead)
    return await meter.release(rows, [row["id"] for row in await rows.fetch(QUERIES.abandoned_holds)])


async def _renew(pool: Pool, process: uuid.UUID, lease_seconds: float) -> None:
    while True:
        await asyncio.sleep(lease_seconds / RENEWALS)
        try:
            await pool.execute(QUERIES.stay_alive, process, lease_seconds)
        except ConnectionLost as error:
            logger.warning("presence_not_renewed", error=type(error).__name__)
