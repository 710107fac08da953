"""The ledger: every movement of an account's money, append-only. The sum of the entries is the balance.

Usage is written by `settle_calls_v2` in the transaction of the settlement; all else comes through `post`.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.db.pool import Record, Rows
from qlaud_actors.ids import new_uuid
from qlaud_actors.money import nanos_to_micros

Kind: TypeAlias = Literal["topup", "usage", "refund", "dispute", "credit", "adjustment"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Money in (positive) or out, in nano-USD; written once per idempotency key."""

    account_id: uuid.UUID
    kind: Kind
    amount_nanos: int
    idempotency_key: str
    reference: str
    """The payment, or the reason in words."""


async def post(rows: Rows, entry: Entry) -> bool:
    """Write an entry and move the wallet, if there is one. False when it was written before."""
    return bool(
        await rows.fetchval(
            QUERIES.post_entry,
            new_uuid(),
            entry.account_id,
            entry.kind,
            entry.amount_nanos,
            entry.idempotency_key,
            entry.reference,
        )
    )


async def posted_for(rows: Rows, reference: str) -> dict[str, int]:
    """Nano-USD by kind that were posted with a reference."""
    return {row["kind"]: row["amount_nanos"] for row in await rows.fetch(QUERIES.posted_for, reference)}


async def page(rows: Rows, account_id: uuid.UUID, before: uuid.UUID | None, limit: int) -> dict[str, Any]:
    """Entries, newest first; `next_before` is the cursor of the next page, if there is one."""
    found = await rows.fetch(QUERIES.ledger_page, account_id, before, limit + 1)
    entries = [_entry(row) for row in found[:limit]]
    return {"entries": entries, "next_before": entries[-1]["id"] if len(found) > limit else None}


def _entry(row: Record) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "object": "ledger_entry",
        "kind": row["kind"],
        "amount_micros": nanos_to_micros(row["amount_nanos"]),
        "amount_nanos": row["amount_nanos"],
        "reference": row["reference"],
        "created_at": row["created_at_ms"],
    }
