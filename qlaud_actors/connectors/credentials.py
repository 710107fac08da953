"""Credentials at the moment of their use: opened on record, renewed in time, given up when they are dead.

An access token is renewed under a lock that all processes share, and the new one is committed before it
is used. A vendor that rotates refresh tokens takes each one once: whoever dies between its answer and our
commit has lost the connection, and its owner is asked to connect again. Nothing else loses one: not a
cancelled turn (the renewal goes on), not a database that restarts (it is written once it is back).
"""

import asyncio
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from qlaud_actors.connectors import connection_store
from qlaud_actors.connectors.connection import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    Connection,
    Refresher,
    RefreshFailed,
    RefreshRefused,
    Tokens,
)
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.request import Access
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.connectors.vault import VaultError
from qlaud_actors.db import pool as db
from qlaud_actors.db.persist import persistently
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret

REFRESH_SECONDS = 20.0
"""For a vendor's token endpoint; who waits for the lock waits a little longer."""

PATIENCE_SECONDS = 60.0
"""How long a new token waits for a database that is away."""

logger = get_logger(__name__)


class CredentialDead(Exception):
    """The credential is of no use any more: the account has to be connected again."""


@dataclass(frozen=True, slots=True)
class Held:
    """A credential that is open, and which one of its connection it is."""

    access: Access
    generation: int


class Credentials:
    """Opens and renews the credentials of connections; one for each process."""

    def __init__(self, pool: db.Pool, vault: Vault, refresher: Refresher | None) -> None:
        self._pool = pool
        self._vault = vault
        self._refresher = refresher
        self._renewing: dict[uuid.UUID, asyncio.Task[int]] = {}
        # Each renewal keeps a database connection while the vendor thinks; the others are left to work.
        self._slots = asyncio.Semaphore(max(1, pool.get_max_size() // 4))

    async def open(self, connection: Connection, connector: Connector, purpose: str) -> Held:
        """The credential for a call, renewed if its time is up. Raises CredentialDead, ConnectionLost."""
        auth, generation = _auth(connection, connector), connection.generation
        if connection.stale and self._renewable(auth):
            try:
                generation = await self._renewed(connection, connector, generation)
            except RefreshFailed as failed:
                # It may still hold for its last seconds; the vendor will say.
                logger.warning("refresh_failed", connection_id=str(connection.id), reason=str(failed))
        return await self._opened(connection, auth, generation, purpose)

    async def after_refusal(
        self, connection: Connection, connector: Connector, refused: Held, purpose: str
    ) -> Held:
        """Another credential than the one that the vendor has just refused.

        Raises CredentialDead (it is noted then), RefreshFailed, ConnectionLost.
        """
        auth = _auth(connection, connector)
        if not self._renewable(auth):
            await self.give_up(connection, refused)
            raise CredentialDead
        generation = await self._renewed(connection, connector, refused.generation)
        return await self._opened(connection, auth, generation, purpose)

    async def give_up(self, connection: Connection, refused: Held) -> None:
        """Note that the vendor no longer takes this credential, unless there is a newer one already."""
        done = await self._pool.fetchval(QUERIES.expire_connection, connection.id, refused.generation)
        if done is not None:
            _log("connection_expired", connection)

    async def close(self) -> None:
        """Let renewals come to their end."""
        while self._renewing:
            await asyncio.wait(self._renewing.values())

    def _renewable(self, auth: Auth) -> bool:
        return self._refresher is not None and auth.oauth2 is not None and auth.oauth2.refresh != "none"

    async def _opened(self, connection: Connection, auth: Auth, generation: int, purpose: str) -> Held:
        # What the form asks for and the request needs; a refresh token goes to nobody but its issuer.
        secrets = await self._open(self._pool, connection, purpose, unless={REFRESH_TOKEN})
        return Held(Access(auth, connection.settings, secrets), generation)

    async def _open(
        self, rows: db.Rows, connection: Connection, purpose: str, *, unless: Collection[str]
    ) -> dict[str, Secret]:
        try:
            secrets = await connection_store.open_secrets(rows, self._vault, connection, purpose, unless)
        except VaultError as error:
            logger.error("connection_secret_lost", reason=str(error), connection_id=str(connection.id))  # noqa: TRY400 - no trace needed
            raise CredentialDead from None
        return secrets

    async def _renewed(self, connection: Connection, connector: Connector, old: int) -> int:
        """The generation after `old`. Those who ask at the same time share one renewal.

        It goes on when who asked for it is cancelled: the vendor may have taken the old token already.
        """
        task = self._renewing.get(connection.id)
        if task is None:
            task = asyncio.create_task(self._renew(connection, connector, old), name="renew-token")
            self._renewing[connection.id] = task
            task.add_done_callback(lambda done: self._forget(connection.id, done))
        return await asyncio.shield(task)

    def _forget(self, connection_id: uuid.UUID, task: "asyncio.Task[int]") -> None:
        del self._renewing[connection_id]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _renew(self, connection: Connection, connector: Connector, old: int) -> int:
        tokens: Tokens | None = None
        try:
            async with self._slots, self._pool.acquire() as rows, rows.transaction():
                await rows.execute(QUERIES.wait_for_refresh)
                row = await rows.fetchrow(QUERIES.lock_connection, connection.id)
                if row is None or row["status"] != "connected":
                    raise CredentialDead
                if row["generation"] > old:
                    return int(row["generation"])  # somebody else has done it
                tokens = await self._ask(rows, connection, connector)
                if tokens is not None:
                    return await self._keep(rows, connection, old, tokens)
                await rows.execute(QUERIES.expire_connection, connection.id, old)
        except db.ConnectionLost as error:
            if tokens is None:
                raise RefreshFailed(type(error).__name__) from error
            new = tokens
            return await persistently(lambda: self._keep_late(connection, old, new), PATIENCE_SECONDS)
        _log("connection_expired", connection)
        raise CredentialDead

    async def _ask(self, rows: db.Rows, connection: Connection, connector: Connector) -> Tokens | None:
        """New tokens; None when the vendor refuses for good."""
        assert self._refresher is not None
        found = await self._open(rows, connection, "refresh", unless={ACCESS_TOKEN})
        token = found.get(REFRESH_TOKEN)
        if token is None:
            return None
        auth = _auth(connection, connector)
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                return await self._refresher.refresh(connector, auth, connection.settings, token)
        except RefreshRefused:
            return None
        except TimeoutError:
            raise RefreshFailed("no answer in time") from None

    async def _keep(self, rows: db.Connection, connection: Connection, old: int, tokens: Tokens) -> int:
        secrets = {ACCESS_TOKEN: tokens.access}
        if tokens.refresh is not None:
            secrets[REFRESH_TOKEN] = tokens.refresh
        new = await rows.fetchval(QUERIES.renew_connection, connection.id, old, tokens.expires_at)
        if new is None:
            raise CredentialDead  # disconnected meanwhile
        await connection_store.put_secrets(rows, self._vault, connection.owner, connection.id, secrets)
        _log("token_renewed", connection)
        return int(new)

    async def _keep_late(self, connection: Connection, old: int, tokens: Tokens) -> int:
        """The same, once the database is back; what was committed after all is found to be there."""
        async with self._pool.acquire() as rows, rows.transaction():
            row = await rows.fetchrow(QUERIES.lock_connection, connection.id)
            if row is not None and row["generation"] > old:
                return int(row["generation"])
            return await self._keep(rows, connection, old, tokens)


def _auth(connection: Connection, connector: Connector) -> Auth:
    """How it signs in. A connector file that has changed since may not know it any more."""
    if not 0 <= connection.scheme < len(connector.auth):
        raise CredentialDead
    return connector.auth[connection.scheme]


def _log(event: str, connection: Connection) -> None:
    logger.info(event, connection_id=str(connection.id), connector=connection.connector)
