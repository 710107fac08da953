"""The life of a key: minted, verified, changed, revoked."""

import time
import uuid
from dataclasses import dataclass

from qlaud_actors.billing import meter
from qlaud_actors.billing.model import Remembered
from qlaud_actors.db.pool import Connection, Pool, Rows
from qlaud_actors.errors import Conflict, InvalidKey, NotFound
from qlaud_actors.ids import new_key_secret, new_uuid
from qlaud_actors.keys.model import (
    BOOTSTRAP_ACCOUNT,
    SECRET_PATTERN,
    UNLIMITED,
    ApiKey,
    CapPeriod,
    KeyLimits,
    Scope,
    ThreadAccess,
    hash_of,
    prefix_of,
)
from qlaud_actors.keys.store import QUERIES, key_from
from qlaud_actors.settings import Secret

MASTER_LOCK = 7_310_563_002


@dataclass(frozen=True, slots=True)
class NewKey:
    """What the caller says of a new key; a limit of None is no limit."""

    name: str
    scope: Scope = "standard"
    limit_nanos: int | None = None
    cap_period: CapPeriod = "lifetime"
    end_user_id: str | None = None
    thread_access: ThreadAccess = "own"
    limits: KeyLimits = UNLIMITED


async def mint(pool: Pool, account_id: uuid.UUID, new: NewKey) -> tuple[ApiKey, Secret]:
    """A new key and its secret, which is nowhere else: only its hash is stored."""
    async with pool.acquire() as connection, connection.transaction():
        return await mint_within(connection, account_id, new)


async def mint_within(connection: Connection, account_id: uuid.UUID, new: NewKey) -> tuple[ApiKey, Secret]:
    """As `mint`, in the caller's transaction."""
    secret = new_key_secret()
    key_id = await _insert(connection, account_id, new, secret, is_master=False)
    return await get_key(connection, account_id, key_id), Secret(secret)


async def verify(pool: Pool, secret: str) -> ApiKey:
    """The living key of a secret, with its budget as it is now. Raises InvalidKey.

    Nothing is cached, so a revocation in any process counts from the next request on.
    """
    key, _ = await look_up(pool, secret)
    return key


async def look_up(pool: Pool, secret: str) -> tuple[ApiKey, Remembered | None]:
    """As `verify`, and how a hold knows this key again, if its row stayed as it was read."""
    if not SECRET_PATTERN.match(secret):
        raise InvalidKey
    digest = hash_of(secret)
    row = await pool.fetchrow(QUERIES.key_by_hash, digest)
    if row is None:
        raise InvalidKey
    if row["expired"]:
        raise InvalidKey("This API key has expired.")
    if row["stale"]:
        await pool.execute(QUERIES.touch_key, row["id"])
        return key_from(row), None
    return key_from(row), Remembered(digest, row["version"])


async def list_keys(rows: Rows, account_id: uuid.UUID) -> list[ApiKey]:
    """All keys of an account, also revoked ones."""
    return [key_from(row) for row in await rows.fetch(QUERIES.list_keys, account_id, None)]


async def get_key(rows: Rows, account_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    """One key of an account. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.list_keys, account_id, key_id)
    if row is None:
        raise NotFound("There is no such key.")
    return key_from(row)


async def require_alive(rows: Rows, account_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    """A key as it is now, for work that waited. Raises InvalidKey when it was revoked or has expired."""
    key = await get_key(rows, account_id, key_id)
    expires_at_ms = key.limits.expires_at_ms
    if key.revoked or (expires_at_ms is not None and expires_at_ms <= time.time() * 1000):
        raise InvalidKey("The API key of this request was revoked or has expired.")
    return key


async def rename(rows: Rows, key: ApiKey, name: str) -> None:
    """Another name."""
    await rows.execute(QUERIES.rename_key, key.id, key.account_id, name)


async def set_limit(rows: Rows, key: ApiKey, limit_nanos: int | None) -> None:
    """Another cap; it counts from the next hold on."""
    await rows.execute(QUERIES.set_limit, key.id, limit_nanos)


async def set_cap_period(rows: Rows, key: ApiKey, period: CapPeriod) -> None:
    """Another period for the cap; what this key used in the present one counts as spent."""
    await rows.execute(QUERIES.set_cap_period, key.id, period)


async def set_limits(rows: Rows, key_id: uuid.UUID, limits: KeyLimits) -> None:
    """Another pace, other models, another end; they count from the next request on."""
    await rows.execute(
        QUERIES.set_limits,
        key_id,
        limits.rpm,
        limits.tpm,
        limits.max_concurrent,
        limits.allowed_models,
        limits.expires_at_ms,
    )


def precheck(key: ApiKey) -> None:
    """Refuse at once what cannot succeed. Raises SpendCapReached, WalletEmpty."""
    meter.precheck(
        key.limit_nanos,
        key.spent_nanos,
        key.held_nanos,
        resets_at_ms=key.resets_at_ms,
        wallet_nanos=key.wallet_nanos,
    )


async def revoke(rows: Rows, account_id: uuid.UUID, key_id: uuid.UUID, by: ApiKey) -> None:
    """End a key for good. Raises NotFound (also when it is revoked), Conflict for the master key."""
    if key_id == by.id and by.is_master:
        raise Conflict("The master key cannot revoke itself: set another QLAUD_MASTER_KEY instead.")
    if await rows.fetchval(QUERIES.revoke_key, key_id, account_id) is None:
        raise NotFound("There is no such key, or it is revoked.")


async def rotate(pool: Pool, key: ApiKey, grace_seconds: float) -> tuple[Secret, int]:
    """Another secret for the same key, and until when (ms since the epoch) the present one works too.

    The key keeps its id, budget, usage and threads. A secret that was replaced earlier and still works
    ends now, so that two are alive at most. Raises Conflict for the master key, NotFound when revoked.
    """
    if key.is_master:
        raise Conflict("The master key's secret is QLAUD_MASTER_KEY: set another one there.")
    secret = new_key_secret()
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_key, key.id) is None:
            raise NotFound("There is no such key, or it is revoked.")
        await connection.execute(QUERIES.end_replaced_secrets, key.id)
        ends_at_ms = await connection.fetchval(QUERIES.replace_secret, key.id, grace_seconds)
        await connection.execute(QUERIES.insert_secret, hash_of(secret), key.id)
        await connection.execute(QUERIES.set_prefix, key.id, prefix_of(secret))
    return Secret(secret), ends_at_ms


async def ensure_master_key(pool: Pool, secret: Secret) -> None:
    """Make the configured master key the only one. Safe from several processes at once."""
    digest = hash_of(secret.reveal())
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.lock_master, MASTER_LOCK)
        await connection.execute(QUERIES.revoke_other_masters, digest)
        if await connection.fetchval(QUERIES.hash_exists, digest):
            await connection.execute(QUERIES.revive_master, digest)
        else:
            new = NewKey("master", scope="admin", thread_access="account")
            await _insert(connection, BOOTSTRAP_ACCOUNT, new, secret.reveal(), is_master=True)


async def _insert(
    connection: Connection, account_id: uuid.UUID, new: NewKey, secret: str, *, is_master: bool
) -> uuid.UUID:
    key_id = new_uuid()
    await connection.execute(
        QUERIES.insert_key,
        key_id,
        account_id,
        new.name,
        new.scope,
        prefix_of(secret),
        new.end_user_id,
        new.thread_access,
        is_master,
    )
    await connection.execute(QUERIES.insert_secret, hash_of(secret), key_id)
    await set_limits(connection, key_id, new.limits)
    await connection.execute(QUERIES.insert_budget, key_id, new.limit_nanos, new.cap_period)
    return key_id
