"""Keys on a real Postgres: minted, verified without any cache, changed, revoked at once."""

import asyncio
import uuid

import pytest

from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import Conflict, InvalidKey, NotFound
from qlaud_actors.ids import new_key_secret, new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT, hash_of
from qlaud_actors.settings import Secret


async def test_a_minted_key_is_verified_with_its_budget(pool: Pool) -> None:
    """What was asked for is what the next request sees; the secret itself is nowhere in the database."""
    new = NewKey("user_1_a@b.example", limit_nanos=2_500_000_000, end_user_id="ada", thread_access="account")
    key, secret = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, new)
    assert (key.name, key.scope, key.end_user_id, key.thread_access) == (
        "user_1_a@b.example",
        "standard",
        "ada",
        "account",
    )
    assert (key.limit_nanos, key.spent_nanos, key.held_nanos, key.revoked) == (2_500_000_000, 0, 0, False)
    assert (await lifecycle.verify(pool, secret.reveal())).id == key.id
    stored = await pool.fetchval("SELECT string_agg(k::text || s::text, '') FROM keys k, key_secrets s")
    assert secret.reveal() not in stored
    assert secret.reveal()[13:-4] not in stored
    assert hash_of(secret.reveal()).hex() in stored


async def test_no_key_is_without_a_budget(pool: Pool) -> None:
    """Both rows are made in one transaction, so a failure leaves neither."""
    with pytest.raises(Exception, match="check"):
        await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k", limit_nanos=-1))
    assert await pool.fetchval("SELECT count(*) FROM keys") == 0


@pytest.mark.parametrize("secret", ["", "nonsense", "qlk_live_" + "g" * 64, "qlk_live_" + "a" * 63])
async def test_malformed_secrets_never_reach_the_database(pool: Pool, secret: str) -> None:
    """They are refused with the pool closed."""
    await pool.close()
    with pytest.raises(InvalidKey):
        await lifecycle.verify(pool, secret)


async def test_an_unknown_secret_is_refused(pool: Pool) -> None:
    """Well formed is not enough."""
    with pytest.raises(InvalidKey):
        await lifecycle.verify(pool, new_key_secret())


async def test_a_revoked_key_is_refused_from_the_next_request_on(pool: Pool) -> None:
    """For good; its row stays and says so."""
    admin, _ = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("admin", scope="admin"))
    key, secret = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k"))
    await lifecycle.verify(pool, secret.reveal())
    await lifecycle.revoke(pool, BOOTSTRAP_ACCOUNT, key.id, admin)
    with pytest.raises(InvalidKey):
        await lifecycle.verify(pool, secret.reveal())
    with pytest.raises(NotFound):
        await lifecycle.revoke(pool, BOOTSTRAP_ACCOUNT, key.id, admin)
    assert (await lifecycle.get_key(pool, BOOTSTRAP_ACCOUNT, key.id)).revoked


async def test_use_is_noted_at_most_once_a_minute(pool: Pool) -> None:
    """Requests do not write a row each."""
    key, secret = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k"))
    assert key.last_used_at_ms is None
    await lifecycle.verify(pool, secret.reveal())
    first = (await lifecycle.get_key(pool, BOOTSTRAP_ACCOUNT, key.id)).last_used_at_ms
    assert first is not None
    await lifecycle.verify(pool, secret.reveal())
    assert (await lifecycle.get_key(pool, BOOTSTRAP_ACCOUNT, key.id)).last_used_at_ms == first
    await pool.execute("UPDATE keys SET last_used_at = now() - interval '61 seconds'")
    await lifecycle.verify(pool, secret.reveal())
    last = (await lifecycle.get_key(pool, BOOTSTRAP_ACCOUNT, key.id)).last_used_at_ms
    assert last is not None
    assert last >= first


async def test_keys_of_another_account_do_not_exist(pool: Pool) -> None:
    """Neither to read nor to revoke."""
    stranger = new_uuid()
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", stranger)
    key, secret = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k"))
    other, _ = await lifecycle.mint(pool, stranger, NewKey("o", scope="admin"))
    with pytest.raises(NotFound):
        await lifecycle.get_key(pool, stranger, key.id)
    with pytest.raises(NotFound):
        await lifecycle.revoke(pool, stranger, key.id, other)
    assert [found.id for found in await lifecycle.list_keys(pool, stranger)] == [other.id]
    assert not (await lifecycle.verify(pool, secret.reveal())).revoked


async def masters(pool: Pool) -> list[uuid.UUID]:
    rows = await pool.fetch("SELECT id FROM keys WHERE is_master AND revoked_at IS NULL")
    return [row["id"] for row in rows]


async def test_the_master_key_is_made_once(pool: Pool) -> None:
    """By however many processes that start at the same time."""
    secret = Secret(new_key_secret())
    await asyncio.gather(*(lifecycle.ensure_master_key(pool, secret) for _ in range(8)))
    key = await lifecycle.verify(pool, secret.reveal())
    assert await masters(pool) == [key.id]
    assert (key.scope, key.account_id, key.limit_nanos) == ("admin", BOOTSTRAP_ACCOUNT, None)


async def test_another_master_key_replaces_the_first(pool: Pool) -> None:
    """The environment decides, also when it goes back to an earlier one; other keys stay."""
    first, second = Secret(new_key_secret()), Secret(new_key_secret())
    await lifecycle.ensure_master_key(pool, first)
    _, other = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k", scope="admin"))
    await lifecycle.ensure_master_key(pool, second)
    with pytest.raises(InvalidKey):
        await lifecycle.verify(pool, first.reveal())
    assert await masters(pool) == [(await lifecycle.verify(pool, second.reveal())).id]
    await lifecycle.verify(pool, other.reveal())
    await lifecycle.ensure_master_key(pool, first)
    assert await masters(pool) == [(await lifecycle.verify(pool, first.reveal())).id]


async def test_the_master_key_cannot_revoke_itself(pool: Pool) -> None:
    """Nobody locks themselves out with one request."""
    secret = Secret(new_key_secret())
    await lifecycle.ensure_master_key(pool, secret)
    key = await lifecycle.verify(pool, secret.reveal())
    with pytest.raises(Conflict, match="QLAUD_MASTER_KEY"):
        await lifecycle.revoke(pool, BOOTSTRAP_ACCOUNT, key.id, key)
    await lifecycle.verify(pool, secret.reveal())
