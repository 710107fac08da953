"""Accounts and what they have. A prepaid account has a wallet and spends only what is in it.

A postpaid account has none: its balance is computed (paid in, less charged) and may be negative, and
its keys share no row that their requests would queue for.
"""

import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qlaud_actors.billing import ledger
from qlaud_actors.billing.meter import QUERIES
from qlaud_actors.db.pool import Connection, Record, Rows
from qlaud_actors.errors import NotFound
from qlaud_actors.ids import new_uuid

Billing: TypeAlias = Literal["prepaid", "postpaid"]


@dataclass(frozen=True, slots=True)
class Account:
    """An account with its money in nano-USD; `held` is a part of `balance`. Times in ms."""

    id: uuid.UUID
    name: str
    billing: Billing
    balance_nanos: int
    held_nanos: int
    created_at_ms: int
    low_balance_nanos: int | None


async def open_account(connection: Connection, name: str, billing: Billing, credit_nanos: int) -> uuid.UUID:
    """A new account with its starter credit, in the caller's transaction."""
    account_id = new_uuid()
    await connection.execute(QUERIES.insert_account, account_id, name)
    await set_billing(connection, account_id, billing)
    if credit_nanos:
        key = f"starter:{account_id}"
        entry = ledger.Entry(account_id, "credit", credit_nanos, key, "starter credit")
        await ledger.post(connection, entry)
    return account_id


async def set_billing(rows: Rows, account_id: uuid.UUID, billing: Billing) -> None:
    """Prepaid or postpaid, from the next hold on; the balance stays what it is."""
    await rows.execute(QUERIES.set_billing, account_id, billing == "prepaid")


async def rename(rows: Rows, account_id: uuid.UUID, name: str) -> None:
    """Another name."""
    await rows.execute(QUERIES.rename_account, account_id, name)


async def set_low_balance(rows: Rows, account_id: uuid.UUID, nanos: int | None) -> None:
    """Below which balance webhooks are told; None: below the threshold of automatic top-ups, if there are."""
    await rows.execute(QUERIES.set_low_balance, account_id, nanos)


async def list_accounts(rows: Rows) -> list[Account]:
    """All accounts, oldest first."""
    return [_account(row) for row in await rows.fetch(QUERIES.accounts, None)]


async def get_account(rows: Rows, account_id: uuid.UUID) -> Account:
    """One account. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.accounts, account_id)
    if row is None:
        raise NotFound("There is no such account.")
    return _account(row)


def _account(row: Record) -> Account:
    return Account(
        id=row["id"],
        name=row["name"],
        billing="prepaid" if row["prepaid"] else "postpaid",
        balance_nanos=row["balance_nanos"],
        held_nanos=row["held_nanos"],
        created_at_ms=row["created_at_ms"],
        low_balance_nanos=row["low_balance_nanos"],
    )
