"""Waiting for a Postgres that is away: what was paid for is not thrown away over a restart."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from qlaud_actors.db.pool import ConnectionLost
from qlaud_actors.log import get_logger

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
"""How long a write waits, where nothing else is said."""

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two tries; doubled each time."""

logger = get_logger(__name__)


async def persistently(write: Callable[[], Awaitable[T]], seconds: float = PATIENCE_SECONDS) -> T:
    """Write, and again while Postgres is away, for so many seconds; then its error is raised.

    `write` must find out by itself whether an earlier try has landed: its answer may have been lost.
    """
    give_up, wait = time.monotonic() + seconds, FIRST_WAIT
    while True:
        try:
            return await write()
        except ConnectionLost as error:
            if time.monotonic() + wait > give_up:
                raise
            logger.warning("write_waits", error=type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
