"""Rows ↔ connections; each secret is sealed for its own row and field."""

import asyncio
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from qlaud_actors.connectors.connection import Connection, Given, Owner
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.connectors.vault import Place
from qlaud_actors.db import pool as db
from qlaud_actors.ids import new_uuid
from qlaud_actors.outbound.mcp import Listing
from qlaud_actors.settings import Secret


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential that its vendor has just accepted, to be kept."""

    owner: Owner
    connector: str
    scheme: int
    given: Given
    connected_as: str
    vendor_account_id: str
    access_expires_at: datetime | None = None
    listing: Listing | None = None
    """What a hosted MCP server listed for it."""


async def usable(rows: db.Rows, owner: Owner, connector: str | None = None) -> list[Connection]:
    """Those that the owner may use, by connector: its own, and the account's where it has none."""
    found = await rows.fetch(QUERIES.connections, owner.account_id, owner.end_user_id, connector)
    first: dict[str, Connection] = {}
    for row in found:
        first.setdefault(row["connector"], _connection_from(row))
    return list(first.values())


async def newest(rows: db.Rows, account_id: uuid.UUID, connector: str) -> list[Owner]:
    """Some whose connections work: the account itself, then those who connected last."""
    found = await rows.fetch(QUERIES.newest_connections, account_id, connector)
    return [Owner(account_id, row["end_user_id"]) for row in found]


async def replace(connection: db.Connection, vault: Vault, new: Verified) -> uuid.UUID:
    """Keep a connection in the place of the owner's older one. Within the caller's transaction."""
    owner = new.owner
    lock = f"{owner.account_id}|{new.connector}|{owner.end_user_id or ''}"
    await connection.execute(QUERIES.lock_owner, lock)
    await end(connection, owner, new.connector)
    connection_id = new_uuid()
    await connection.execute(
        QUERIES.insert_connection,
        connection_id,
        owner.account_id,
        owner.end_user_id,
        new.connector,
        new.scheme,
        dict(new.given.settings),
        new.connected_as,
        new.vendor_account_id,
        new.access_expires_at,
    )
    await put_secrets(connection, vault, owner, connection_id, new.given.secrets)
    return connection_id


async def put_secrets(
    connection: db.Connection,
    vault: Vault,
    owner: Owner,
    connection_id: uuid.UUID,
    secrets: Mapping[str, Secret],
) -> None:
    """Seal and keep secrets, each in the place of an older one."""
    for name, secret in secrets.items():
        sealed = await vault.seal(connection, place(owner, connection_id, name), secret.reveal())
        await connection.execute(QUERIES.put_connection_secret, connection_id, name, sealed)


async def open_secrets(
    rows: db.Rows, vault: Vault, connection: Connection, purpose: str, unless: Collection[str] = ()
) -> dict[str, Secret]:
    """The secrets of a connection, each opening on record before. Raises VaultError."""
    found = await rows.fetch(QUERIES.connection_secrets, connection.id)
    sealed = {row["field"]: row["sealed"] for row in found if row["field"] not in unless}
    places = [place(connection.owner, connection.id, name) for name in sealed]
    opened = await asyncio.gather(
        *(vault.open(at, data, purpose) for at, data in zip(places, sealed.values(), strict=True))
    )
    return dict(zip(sealed, opened, strict=True))


async def end(rows: db.Rows, owner: Owner, connector: str) -> bool:
    """End the owner's own connection and forget its secrets; False when there is none."""
    return (
        await rows.fetchval(QUERIES.end_connection, owner.account_id, owner.end_user_id, connector)
        is not None
    )


def place(owner: Owner, connection_id: uuid.UUID, field: str) -> Place:
    """Where a secret of a connection is kept."""
    return Place(owner.account_id, f"connection:{connection_id}", field)


def _connection_from(row: db.Record) -> Connection:
    return Connection(
        id=row["id"],
        owner=Owner(row["account_id"], row["end_user_id"]),
        connector=row["connector"],
        scheme=row["scheme"],
        settings=row["settings"],
        connected_as=row["connected_as"],
        vendor_account_id=row["vendor_account_id"],
        status=row["status"],
        generation=row["generation"],
        stale=bool(row["stale"]),
        access_expires_at_ms=row["access_expires_at_ms"],
        created_at_ms=row["created_at_ms"],
        verified_at_ms=row["verified_at_ms"],
        last_used_at_ms=row["last_used_at_ms"],
    )
