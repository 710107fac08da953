"""One-time links to the connect page: for one owner and one vendor, ten minutes, until a connection is made.

Only the SHA-256 of a link's token is stored. Looking at a link changes nothing, so that previews of chat
apps do not use it up; it is used in the transaction that saves the connection. Who dies before that has
changed nothing, and of two who come at once one is told that the link was used.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from redis.asyncio import Redis

from qlaud_actors.connectors.connections import Connection, Connections, Owner
from qlaud_actors.connectors.oauth import Leaving, code_challenge
from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.trail import QUERIES
from qlaud_actors.connectors.vault import Place
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import QlaudError

LIFETIME_MINUTES = 10
MAX_ATTEMPTS = 10
"""Credentials that may be tried with one link. Counted in Redis: without it nothing is tried."""

MAX_FORGOTTEN = 100
"""Old links deleted by each new one."""

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""32 random bytes."""

EXPIRED = "This link has expired: it worked for ten minutes."
USED = "This link was used already. If that was you, the connection is made and there is nothing left to do."
UNKNOWN = "This link is not complete, or it was never made here."
WORN = "Too many credentials were tried with this link."


class LinkOver(QlaudError):
    """This link no longer works."""

    code = "connect_link_over"
    status = 410


class SignInLost(QlaudError):
    """This sign-in was begun in another browser, was finished before, or took longer than ten minutes."""

    code = "sign_in_lost"
    status = 400


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link as it is given to whoever shall open it, and then forgotten here."""

    url: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link that still works, as the page knows it."""

    token_hash: bytes
    owner: Owner
    connector: str
    account_name: str


@dataclass(frozen=True, slots=True, repr=False)
class Return:
    """What was noted when somebody left for the vendor. The verifier is secret, so it has no repr."""

    scheme: int
    settings: Mapping[str, str]
    verifier: str


async def create(pool: Pool, owner: Owner, connector: str, base_url: str) -> NewLink:
    """A new link; `base_url` is where people reach this server."""
    token = secrets.token_urlsafe(32)
    await pool.execute(QUERIES.forget_links, MAX_FORGOTTEN)
    expires_at_ms = await pool.fetchval(
        QUERIES.insert_link,
        hashed(token),
        owner.account_id,
        owner.end_user_id,
        connector,
        LIFETIME_MINUTES,
    )
    return NewLink(f"{base_url}/connect/{token}", expires_at_ms)


async def find(pool: Pool, token: str) -> Link:
    """The link of a token. Raises LinkOver, by the database's clock."""
    row = await pool.fetchrow(QUERIES.link, hashed(token)) if TOKEN.fullmatch(token) else None
    if row is None:
        raise LinkOver(UNKNOWN)
    if row["used"] or row["expired"]:
        raise LinkOver(USED if row["used"] else EXPIRED)
    owner = Owner(row["account_id"], row["end_user_id"])
    return Link(row["token_hash"], owner, row["connector"], row["account_name"])


async def count_attempt(redis: Redis, link: Link) -> None:
    """Somebody is about to try a credential. Raises LinkOver when that was too often."""
    name = f"connect:{link.token_hash.hex()}"
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.incr(name)
        pipeline.expire(name, 2 * LIFETIME_MINUTES * 60)
        counted, _ = await pipeline.execute()
    if counted > MAX_ATTEMPTS:
        raise LinkOver(WORN)


async def connect(
    pool: Pool,
    connections: Connections,
    link: Link,
    scheme: int,
    values: Mapping[str, str],
    access_expires_at: datetime | None = None,
) -> Connection:
    """Verify, save, and with that use the link. Raises ConnectRefused, LinkOver.

    Whether the link has expired was judged when the request came; a slow vendor does not count against it.
    """
    verified = await connections.verify(link.owner, link.connector, scheme, values, access_expires_at)
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.use_link, link.token_hash) is None:
            raise LinkOver(USED)
        return await connections.save(connection, verified)


async def leave(pool: Pool, vault: Vault, link: Link, scheme: int, settings: Mapping[str, str]) -> Leaving:
    """Note that somebody goes to sign in at the vendor. Raises LinkOver."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    async with pool.acquire() as connection, connection.transaction():
        sealed = await vault.seal(connection, _place(link), verifier)
        noted = await connection.fetchval(
            QUERIES.begin_sign_in, link.token_hash, scheme, dict(settings), hashed(state), sealed
        )
        if noted is None:
            raise LinkOver(EXPIRED)
    return Leaving(state, code_challenge(verifier))


async def come_back(pool: Pool, vault: Vault, link: Link, state: str) -> Return:
    """What was noted for this state; it can be had once. Raises SignInLost."""
    row = await pool.fetchrow(QUERIES.end_sign_in, link.token_hash, hashed(state))
    if row is None:
        raise SignInLost
    verifier = await vault.open(_place(link), row["verifier"], "sign in at a vendor")
    return Return(row["scheme"], row["settings"], verifier.reveal())


def hashed(token: str) -> bytes:
    """What is stored of a token or state; both are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode()).digest()


def _place(link: Link) -> Place:
    return Place(link.owner.account_id, f"connect_link:{link.token_hash.hex()}", "verifier")
