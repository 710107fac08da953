"""Overrides in Postgres: set, read by every process, told to auditors."""

from typing import Any

import msgspec

from qlaud_actors.db.pool import Connection, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import InvalidRequest
from qlaud_actors.prices.model import LEAD_SECONDS, Change, override, shown
from qlaud_actors.providers.price_rows import PriceRow
from qlaud_actors.providers.pricing import Override

QUERIES = load_queries("qlaud_actors.prices")
OVERRIDES_LOCK = 7_310_563_003


async def add(connection: Connection, change: Change) -> int:
    """Note a change, within the caller's transaction; its id. Raises InvalidRequest when it begins too soon.

    The moment is checked by the database's clock when no other writer can come between.
    """
    await connection.execute(QUERIES.lock_overrides, OVERRIDES_LOCK)
    price = change.override.price
    added = await connection.fetchval(
        QUERIES.insert_override,
        change.model.provider.slug,
        change.model.slug,
        change.begins_ms,
        shown(change.before),
        msgspec.to_builtins(change.row) if change.row else None,
        price.version if price else None,
        change.source,
        change.reason,
        change.made_by,
        LEAD_SECONDS,
    )
    if added is None:
        raise InvalidRequest(f"`effective_from` must be at least {LEAD_SECONDS:.0f} seconds ahead.")
    return int(added)


async def after(rows: Rows, last_id: int) -> list[tuple[int, Override]]:
    """Overrides behind an id, in the order in which they were made."""
    return [(row["id"], _override(row)) for row in await rows.fetch(QUERIES.overrides_after, last_id)]


async def audit(
    rows: Rows, provider: str | None, model: str | None, before: int | None, limit: int
) -> dict[str, Any]:
    """Changes, newest first; `next_before` is the cursor of the next page, if there is one."""
    found = await rows.fetch(QUERIES.audit, provider, model, before, limit + 1)
    changes = [_change_object(row) for row in found[:limit]]
    return {"changes": changes, "next_before": changes[-1]["id"] if len(found) > limit else None}


def _override(row: Record) -> Override:
    price = None if row["after"] is None else msgspec.convert(row["after"], PriceRow)
    begins = row["effective_from_ms"]
    return override(row["provider_slug"], row["model_slug"], begins, price, row["source"])


def _change_object(row: Record) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "price_change",
        "provider": row["provider_slug"],
        "model": row["model_slug"],
        "effective_from": row["effective_from_ms"],
        "before": row["before"],
        "after": row["after"],
        "version": row["version"],
        "source": row["source"],
        "reason": row["reason"],
        "made_by": {"key_id": str(row["made_by"]), "key_prefix": row["key_prefix"]},
        "created_at": row["created_at_ms"],
    }
