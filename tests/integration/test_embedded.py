"""The embedded stores: real servers that start from nothing, come back, and cannot be left behind."""

import redis
from qlaud_actors.db.pool import Pool


async def test_a_test_has_a_migrated_database(pool: Pool) -> None:
    """The template's tables are there, and it is PostgreSQL 18."""
    assert await pool.fetchval("SELECT count(*) FROM accounts") == 1
    assert (await pool.fetchval("SHOW server_version")).startswith("18.")


async def test_databases_do_not_share_rows(pool: Pool) -> None:
    """A second test sees nothing of the first one's database."""
    assert await pool.fetchval("SELECT current_database()") != "qlaud"


def test_valkey_keeps_everything(redis_url: str) -> None:
    """The test's Valkey never evicts a key."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
