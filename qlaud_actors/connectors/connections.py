"""Accounts at vendors: find, list, connect, disconnect.

Nothing is kept before the vendor has accepted it: a credential is verified live, then saved in one
transaction. Who dies in between has asked a question and changed nothing.
"""

import contextlib
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.answer import verdict
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import (
    Connection,
    ConnectRefused,
    Given,
    Owner,
    check_given,
)
from qlaud_actors.connectors.connection_store import Verified
from qlaud_actors.connectors.failure import Failure
from qlaud_actors.connectors.model import Connector
from qlaud_actors.connectors.request import Access, RequestProblem, verification
from qlaud_actors.connectors.revocation import Revocations
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.db import pool as db
from qlaud_actors.log import get_logger
from qlaud_actors.outbound.mcp import Listing

__all__ = ["ConnectRefused", "Connection", "Connections", "Owner", "SendFailed", "Sender", "Verified"]

DELETED = "End users were deleted while the vendor was asked, so nothing was saved. Try again."

logger = get_logger(__name__)


class McpServers(Protocol):
    """Vendors' own MCP servers; a connection to one is named as `HostedServer.connector`."""

    async def ask(self, connector: str, given: Given) -> Listing:
        """What the server lists for a credential. Raises ConnectRefused."""

    async def keep(
        self, rows: db.Connection, account_id: uuid.UUID, connector: str, listing: Listing
    ) -> None:
        """Take the listing where none is known yet, within the caller's transaction."""


class Connections:
    """The connections of all accounts; one for each process."""

    def __init__(
        self,
        pool: db.Pool,
        vault: Vault,
        catalog: ConnectorCatalog,
        sender: Sender,
        hosted: McpServers | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._catalog = catalog
        self._sender = sender
        self._hosted = hosted
        self._revocations = revocations

    async def find(self, owner: Owner, connector: str) -> Connection | None:
        """The connection that a call on this owner's behalf uses: its own, else the account's."""
        found = await connection_store.usable(self._pool, owner, connector)
        return found[0] if found else None

    async def list_(self, owner: Owner) -> list[Connection]:
        """All that calls on this owner's behalf use, by connector."""
        return await connection_store.usable(self._pool, owner)

    async def newest(self, account_id: uuid.UUID, connector: str) -> list[Owner]:
        """Some of an account whose connections work: the account itself, then those who connected last."""
        return await connection_store.newest(self._pool, account_id, connector)

    async def connect(
        self,
        owner: Owner,
        connector: str,
        scheme: int,
        values: Mapping[str, str],
        access_expires_at: datetime | None = None,
    ) -> Connection:
        """Verify and save; the owner's older connection to this vendor ends. Raises ConnectRefused.

        An end user who was deleted while the vendor was asked does not come back by this.
        """
        began = await self._pool.fetchval(QUERIES.clock)
        verified = await self.verify(owner, connector, scheme, values, access_expires_at)
        async with self._pool.acquire() as connection, connection.transaction():
            if owner.end_user_id is not None:
                whose = owner.account_id, owner.end_user_id
                if await connection.fetchval(QUERIES.deleted_since, *whose, began):
                    raise ConnectRefused(None, DELETED)
            return await self.save(connection, verified)

    async def verify(
        self,
        owner: Owner,
        connector: str,
        scheme: int,
        values: Mapping[str, str],
        access_expires_at: datetime | None = None,
    ) -> Verified:
        """Ask the vendor whose credential it is; nothing is kept. Raises ConnectRefused."""
        declared = self._catalog.find(connector)
        if declared is None:
            raise ConnectRefused(None, f"There is no connector {connector[:64]!r}.")
        given = check_given(declared, scheme, values)
        if self._hosted and self._catalog.hosted.of_connection(connector):
            listing = await self._hosted.ask(connector, given)
            return Verified(owner, connector, scheme, given, _shown(given), "", listing=listing)
        connected_as, account_id = await self._ask(declared, given)
        return Verified(owner, connector, scheme, given, connected_as, account_id, access_expires_at)

    async def save(self, connection: db.Connection, verified: Verified) -> Connection:
        """Keep what was verified, within the caller's transaction."""
        await connection_store.replace(connection, self._vault, verified)
        if self._hosted and verified.listing:
            account_id = verified.owner.account_id
            await self._hosted.keep(connection, account_id, verified.connector, verified.listing)
        found = await connection_store.usable(connection, verified.owner, verified.connector)
        logger.info("connected", connection_id=str(found[0].id), connector=verified.connector)
        return found[0]

    async def disconnect(self, owner: Owner, connector: str) -> bool:
        """End exactly this owner's connection and forget its secrets; False when there is none.

        A token that the vendor revokes is revoked after that, without being waited for.
        """
        if self._revocations is not None:
            return await self._revocations.end(owner, connector)
        return await connection_store.end(self._pool, owner, connector)

    async def is_living(self, connection: Connection) -> bool:
        """Whether it may still be used: nobody has ended it, and its vendor still takes it."""
        return bool(await self._pool.fetchval(QUERIES.is_connected, connection.id))

    async def touch(self, connection: Connection) -> None:
        """Note that a connection is used. Only a note: a database that is away does not fail the call."""
        with contextlib.suppress(*db.ConnectionLost):
            await self._pool.execute(QUERIES.touch_connection, connection.id)

    async def _ask(self, connector: Connector, given: Given) -> tuple[str, str]:
        access = Access(given.auth, given.settings, given.secrets)
        override = self._catalog.overrides.get(connector.slug)
        try:
            request = verification(connector, access, override)
            received = await self._sender.send(request, trusted=override is not None)
        except RequestProblem as problem:
            raise ConnectRefused(None, str(problem)) from None
        except SendFailed as failed:
            raise ConnectRefused(None, f"{connector.name} could not be asked: {failed}. Try again.") from None
        found = verdict(connector, received, access.spelled())
        if isinstance(found, Failure):
            raise ConnectRefused(None, _in_words(connector, found))
        return found


def _shown(given: Given) -> str:
    """A hosted MCP server does not say whose a credential is; what was given with it may."""
    return next(iter(given.settings.values()), "")


def _in_words(connector: Connector, failure: Failure) -> str:
    if failure.kind in ("rate_limited", "unavailable"):
        return f"{failure.message} Nothing was saved."
    return f"{connector.name} does not accept this: {failure.told}"
