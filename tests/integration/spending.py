"""Calls that are metered by the real meter, for tests of what comes of them."""

import uuid

from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Charge, Hold, Settlement
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.usage import Price, Rates, Usage, WorstCase

PRICE = Price(Rates(1_300, 5_000, 100, 1_250, 2_000), (), "t/m@2026-11-24")
"""Odd enough that markup is rounded."""


async def hold(pool: Pool, key: ApiKey, turn_id: uuid.UUID | None = None, tokens: int = 5_000) -> Hold:
    """Set the money of one call aside."""
    return await meter.hold(pool, key.id, turn_id, WorstCase(PRICE, tokens, 500, 700), 1)


async def spend(
    pool: Pool,
    key: ApiKey,
    usage: Usage | None = None,
    *,
    model: str = "m",
    provider: str = "p",
    end_user: str | None = None,
    turn: tuple[uuid.UUID, int] | None = None,
) -> Settlement:
    """One whole call."""
    turn_id, step = turn or (None, None)
    held = await hold(pool, key, turn_id)
    used = usage or Usage(input=101, output=7, cache_read=3)
    cost = Charge(key.account_id, key.id, turn_id, step, end_user, model, provider, used, PRICE, 700, 5, 200)
    async with pool.acquire() as connection, connection.transaction():
        settled = await meter.settle(connection, held.id, cost)
    assert settled is not None
    return settled
