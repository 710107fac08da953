"""Writes what is to be told, in the transaction of the fact; `courier.py` delivers it.

A delivery says `{id, type, created_at, account_id, data}`. Its id is the same on every attempt.
"""

import time
import uuid
from typing import Any

import msgspec

from qlaud_actors.billing.report import event_row
from qlaud_actors.db.pool import Connection, Pool, Record
from qlaud_actors.deliveries.model import Event
from qlaud_actors.deliveries.store import QUERIES
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import nanos_to_micros

USAGE_ROWS = 100
"""Usage events in one delivery, at most."""


async def tell(
    connection: Connection, account_id: uuid.UUID, event: Event, data: dict[str, Any]
) -> list[uuid.UUID]:
    """Tell every webhook of an account that wants the event; the deliveries to wake after the commit."""
    wanted = await connection.fetch(QUERIES.webhooks_for, account_id, event)
    return [await _insert(connection, row["id"], account_id, event, row["url"], data) for row in wanted]


async def tell_address(
    connection: Connection, account_id: uuid.UUID, event: Event, url: str, data: dict[str, Any]
) -> list[uuid.UUID]:
    """Tell one address, signed with the secret of the account's webhook without a URL, while it has one."""
    webhook_id = await connection.fetchval(QUERIES.job_webhook, account_id)
    if webhook_id is None:
        return []
    return [await _insert(connection, webhook_id, account_id, event, url, data)]


async def tell_cap_exceeded(connection: Connection, key_id: uuid.UUID) -> list[uuid.UUID]:
    """Tell that a key's cap refused something: once per window, and again when the cap was changed."""
    if not await connection.fetchval(QUERIES.cap_untold, key_id):
        return []
    row = await connection.fetchrow(QUERIES.note_cap, key_id)
    if row is None:  # told in between
        return []
    return await tell(connection, row["account_id"], "key.cap_exceeded", _cap(row))


async def tell_first_refusal(pool: Pool, key_id: uuid.UUID) -> list[uuid.UUID]:
    """As `tell_cap_exceeded`, in a transaction of its own: for all refusals but the first it is one look."""
    if not await pool.fetchval(QUERIES.cap_untold, key_id):
        return []
    async with pool.acquire() as connection, connection.transaction():
        return await tell_cap_exceeded(connection, key_id)


async def tell_low_wallets(pool: Pool) -> list[uuid.UUID]:
    """Tell accounts whose balance has fallen below their threshold, once until it is up again."""
    await pool.execute(QUERIES.rearm_wallets)
    told: list[uuid.UUID] = []
    for row in await pool.fetch(QUERIES.low_wallets):
        async with pool.acquire() as connection, connection.transaction():
            low = await connection.fetchrow(QUERIES.note_low_wallet, row["account_id"])
            if low is not None:  # else somebody else has told it, or it is up again
                told += await tell(connection, low["account_id"], "wallet.low", _wallet(low))
    return told


async def tell_usage(pool: Pool) -> list[uuid.UUID]:
    """Tell all webhooks of the usage that they were not told of yet."""
    told: list[uuid.UUID] = []
    for row in await pool.fetch(QUERIES.webhooks_with_usage):
        if not row["alive"]:
            await pool.execute(QUERIES.drop_usage, row["webhook_id"])
            continue
        while (delivery_id := await _tell_batch(pool, row["webhook_id"])) is not None:
            told.append(delivery_id)
    return told


async def _tell_batch(pool: Pool, webhook_id: uuid.UUID) -> uuid.UUID | None:
    """One delivery of usage: its rows leave the queue in the transaction that writes it."""
    async with pool.acquire() as connection, connection.transaction():
        webhook = await connection.fetchrow(QUERIES.lock_webhook, webhook_id)
        if webhook is None:
            return None
        rows = await connection.fetch(QUERIES.take_usage, webhook_id, USAGE_ROWS)
        if not rows:
            return None
        sequence = await connection.fetchval(QUERIES.count_batch, webhook_id)
        usage = [{**event_row(row), "cost_nanos": row["cost_nanos"]} for row in rows]
        data = {"sequence": sequence, "usage": usage}
        account_id, url = webhook["account_id"], webhook["url"]
        return await _insert(connection, webhook_id, account_id, "usage.recorded", url, data)


async def _insert(
    connection: Connection,
    webhook_id: uuid.UUID,
    account_id: uuid.UUID,
    event: Event,
    url: str,
    data: dict[str, Any],
) -> uuid.UUID:
    delivery_id = new_uuid()
    body = {
        "id": str(delivery_id),
        "type": event,
        "created_at": round(time.time() * 1000),
        "account_id": str(account_id),
        "data": data,
    }
    text = msgspec.json.encode(body).decode()
    await connection.execute(QUERIES.insert_delivery, delivery_id, webhook_id, event, url, text)
    return delivery_id


def _cap(row: Record) -> dict[str, Any]:
    return {
        "key_id": str(row["id"]),
        "key_name": row["name"],
        "key_prefix": row["prefix"],
        "end_user_id": row["end_user_id"],
        "limit_micros": nanos_to_micros(row["limit_nanos"]),
        "spent_micros": nanos_to_micros(row["spent_nanos"]),
        "held_micros": nanos_to_micros(row["held_nanos"]),
        "cap_period": row["cap_period"],
        "resets_at": row["resets_at_ms"],
    }


def _wallet(row: Record) -> dict[str, Any]:
    return {
        "balance_micros": row["balance_nanos"] // 1_000,
        "held_micros": nanos_to_micros(row["held_nanos"]),
        "threshold_micros": nanos_to_micros(row["threshold_nanos"]),
    }
