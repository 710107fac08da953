"""Keeps a process's price book in step with the overrides in Postgres.

Each process asks every few seconds for what is new. An override begins later than every process can
have asked (`LEAD_SECONDS`), so all of them change over at the same moment, by their own clocks. While
Postgres is away the last known prices stay; so do changes that were already known to come.
"""

import asyncio
import contextlib

from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.log import get_logger
from qlaud_actors.prices import store
from qlaud_actors.providers.book import PriceBook
from qlaud_actors.providers.pricing import Override

logger = get_logger(__name__)


class PriceFollower:
    """Reads overrides for one process."""

    def __init__(self, pool: Pool, book: PriceBook, seconds: float) -> None:
        self._pool = pool
        self._book = book
        self._seconds = seconds
        self._last_id = 0
        self._overrides: list[Override] = []
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Read what there is, then go on reading. Raises what the database does: no start without prices."""
        await self.read()
        self._task = asyncio.create_task(self._follow(), name="prices")

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def read(self) -> None:
        """Take over what was set since the last time."""
        async with self._turn:
            found = await store.after(self._pool, self._last_id)
            if not found:
                return
            overrides = [*self._overrides, *(one for _, one in found)]
            self._book.take(overrides)
            self._last_id, self._overrides = found[-1][0], overrides
        for one in overrides[-len(found) :]:
            version = one.price.version if one.price else None
            if self._book.timeline(one.provider, one.model) is None:
                logger.warning("price_override_of_no_model", provider=one.provider, model=one.model)
            logger.info("price_override", provider=one.provider, model=one.model, version=version)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.read()
            except ConnectionLost as error:
                logger.warning("prices_not_read", error=type(error).__name__)
            except Exception:
                logger.exception("prices_not_read")
