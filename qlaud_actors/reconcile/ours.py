"""Our side of the comparison with a provider."""

import uuid
from collections.abc import Collection
from datetime import date

from qlaud_actors.db.pool import Connection
from qlaud_actors.reconcile.books import QUERIES
from qlaud_actors.reconcile.exports import BUCKETS, COST, Line


async def our_usage(
    connection: Connection, provider: str, since: date, until: date, account_id: uuid.UUID | None = None
) -> tuple[list[Line], int]:
    """What went to a provider from one day until before another (UTC); and how many calls are estimated."""
    rows = await connection.fetch(QUERIES.our_usage, provider, since, until, account_id)
    names: Collection[str] = (*BUCKETS, "requests")
    lines = [
        Line(
            row["day"],
            row["model_slug"],
            {**{name: row[name] for name in names}, COST: int(row["cost_picos"])},
        )
        for row in rows
    ]
    return lines, sum(row["estimated"] for row in rows)
