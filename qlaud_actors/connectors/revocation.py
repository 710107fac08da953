"""Tokens of connections that were ended, revoked at their vendor (RFC 7009).

A courtesy: after the connection is gone, beside what asked for it, and once. Who dies before has left a
token that nobody here knows any more; it ends by itself, or at the vendor.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import ACCESS_TOKEN, REFRESH_TOKEN, Connection, Owner
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.db import pool as db
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret

REVOKE_SECONDS = 10.0
"""For the vendor's answer, and so at most for the end of a process."""

logger = get_logger(__name__)


class Revoker(Protocol):
    """Tells a vendor that a token is needed no longer."""

    async def revoke(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], token: Secret
    ) -> int:
        """The status of its answer. Raises what sending raises."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A connection that is no more, and the sealed token that it had: the refresh token if there was one."""

    connection: Connection
    field: str
    sealed: bytes


class Revocations:
    """Ends connections that were made by OAuth, and revokes their tokens; one for each process."""

    def __init__(self, pool: db.Pool, vault: Vault, catalog: ConnectorCatalog, revoker: Revoker) -> None:
        self._pool = pool
        self._vault = vault
        self._catalog = catalog
        self._revoker = revoker
        self._running: set[asyncio.Task[None]] = set()

    async def end(self, owner: Owner, connector: str) -> bool:
        """End exactly this owner's connection and forget its secrets; False when there is none."""
        ways = self._ways(connector)
        if not ways:
            return await connection_store.end(self._pool, owner, connector)
        async with self._pool.acquire() as rows, rows.transaction():
            taken = await self._take(rows, owner, connector, ways)
            done = await connection_store.end(rows, owner, connector)
        if taken is not None and done:
            auth = ways[taken.connection.scheme]
            task = asyncio.create_task(self._revoke(taken, auth), name="revoke-token")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return done

    async def close(self) -> None:
        """Let what was begun come to its end."""
        if self._running:
            await asyncio.wait(self._running)

    def _ways(self, slug: str) -> dict[int, Auth]:
        """The ways of signing in whose tokens the vendor revokes."""
        connector = self._catalog.find(slug)
        every = enumerate(connector.auth) if connector else ()
        return {number: auth for number, auth in every if auth.oauth2 and auth.oauth2.revoke_url}

    async def _take(
        self, rows: db.Connection, owner: Owner, connector: str, ways: Mapping[int, Auth]
    ) -> _Ended | None:
        found = [one for one in await connection_store.usable(rows, owner, connector) if one.owner == owner]
        if not found or found[0].scheme not in ways:
            return None
        # A renewal that is under way is waited for: it has the only token that is still good.
        await rows.fetchrow(QUERIES.lock_connection, found[0].id)
        kept = await rows.fetch(QUERIES.connection_secrets, found[0].id)
        sealed = {row["field"]: row["sealed"] for row in kept}
        field = REFRESH_TOKEN if REFRESH_TOKEN in sealed else ACCESS_TOKEN
        return _Ended(found[0], field, sealed[field]) if field in sealed else None

    async def _revoke(self, ended: _Ended, auth: Auth) -> None:
        connection, connector = ended.connection, self._catalog.find(ended.connection.connector)
        assert connector is not None
        told: dict[str, object] = {"connection_id": str(connection.id), "connector": connector.slug}
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                # Some vendors then end all that this person has given the application.
                account = connection.vendor_account_id, connection.connected_as
                if await self._pool.fetchval(QUERIES.is_shared, connector.slug, *account):
                    return
                at = connection_store.place(connection.owner, connection.id, ended.field)
                token = await self._vault.open(at, ended.sealed, "revoke")
                status = await self._revoker.revoke(connector, auth, connection.settings, token)
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and nothing depends on it
            logger.warning("token_not_revoked", error=type(error).__name__, **told)
        else:
            logger.info("token_revoked" if status < 400 else "token_not_revoked", status=status, **told)
