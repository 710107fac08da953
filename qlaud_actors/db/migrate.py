"""Applies `migrations/*.sql` in order, each once, under an advisory lock."""

import hashlib
from importlib.resources import files

from qlaud_actors.db.pool import Connection, connect
from qlaud_actors.db.queries import load_queries

QUERIES = load_queries("qlaud_actors.db")
LOCK_ID = 7_310_563_001


class MigrationError(Exception):
    """The database does not match the migrations of this version."""


def all_migrations() -> list[tuple[str, str]]:
    """(name, SQL) of each migration in the order of their names."""
    folder = files("qlaud_actors.db").joinpath("migrations")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(name, folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


async def migrate(url: str) -> list[str]:
    """Bring the database up to date; returns the names that were applied now.

    Safe to run from several processes at once. Raises MigrationError when an applied
    migration was edited afterwards.
    """
    connection = await connect(url)
    try:
        await connection.execute(QUERIES.lock_migrations, LOCK_ID)
        return await _apply_missing(connection)
    finally:
        await connection.close()


async def missing_migrations(connection: Connection) -> list[str]:
    """Names not yet applied; changes nothing."""
    if not await connection.fetchval(QUERIES.migrations_table_exists):
        return [name for name, _ in all_migrations()]
    applied = {row["name"] for row in await connection.fetch(QUERIES.applied_migrations)}
    return [name for name, _ in all_migrations() if name not in applied]


async def _apply_missing(connection: Connection) -> list[str]:
    await connection.execute(QUERIES.create_migrations_table)
    applied = {row["name"]: row["sha256"] for row in await connection.fetch(QUERIES.applied_migrations)}
    fresh: list[str] = []
    for name, sql in all_migrations():
        digest = hashlib.sha256(sql.encode()).hexdigest()
        if name in applied:
            if applied[name] != digest:
                raise MigrationError(f"{name} was changed after it had been applied")
            continue
        async with connection.transaction():
            await connection.execute(sql)
            await connection.execute(QUERIES.record_migration, name, digest)
        fresh.append(name)
    return fresh
