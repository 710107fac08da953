"""Rows ↔ artifacts."""

import uuid

from qlaud_actors.artifacts.model import MAX_ARTIFACTS, MAX_OWNER_BYTES, Artifact, Brought, Origin
from qlaud_actors.db.pool import Connection, Pool, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.ids import new_uuid

QUERIES = load_queries("qlaud_actors.artifacts")

MAX_LISTED = 100


async def keep(
    pool: Pool,
    account_id: uuid.UUID,
    owner: str,
    name: str,
    mime: str,
    content: bytes,
    origin: Origin,
) -> Artifact | None:
    """Store under a name, in the place of what has it; None when the owner has as much as it may, or when the
    thread or the key of the call is gone: a call that was on its way leaves nothing behind a deletion.
    """
    async with pool.acquire() as connection, connection.transaction():
        if origin.key_id and await connection.fetchval(QUERIES.lock_key, origin.key_id) is None:
            return None
        await connection.execute(QUERIES.lock_owner, f"{account_id}|{owner}")
        limits = MAX_ARTIFACTS, MAX_OWNER_BYTES
        where = new_uuid(), account_id, owner, origin.thread_id
        row = await connection.fetchrow(QUERIES.store_artifact, *where, name, mime, content, *limits)
    return _artifact_from(row) if row else None


async def restore(
    connection: Connection, account_id: uuid.UUID, owner: str, thread_id: uuid.UUID, brought: list[Brought]
) -> bool:
    """Store what was kept elsewhere under the names that are free, in the caller's transaction.

    False when the owner has as much as it may; then the transaction must not be committed.
    """
    await connection.execute(QUERIES.lock_owner, f"{account_id}|{owner}")
    limits = MAX_ARTIFACTS, MAX_OWNER_BYTES
    for one in brought:
        where = new_uuid(), account_id, owner, thread_id
        what = one.name, one.mime, one.content, one.created_at_ms, one.updated_at_ms
        if await connection.fetchval(QUERIES.restore_artifact, *where, *what, *limits) is None:
            return False
    return True


async def find(rows: Rows, account_id: uuid.UUID, owner: str, name: str) -> Artifact | None:
    """The artifact of this name, with its content."""
    row = await rows.fetchrow(QUERIES.artifact, account_id, owner, name)
    return _artifact_from(row) if row else None


async def list_(rows: Rows, account_id: uuid.UUID, owner: str, prefix: str = "") -> list[Artifact]:
    """Those whose names begin so, newest first, MAX_LISTED at most."""
    found = await rows.fetch(QUERIES.artifacts, account_id, owner, prefix, MAX_LISTED)
    return [_artifact_from(row) for row in found]


async def list_of_thread(
    rows: Rows, account_id: uuid.UUID, thread_id: uuid.UUID, *, after_id: uuid.UUID | None, limit: int
) -> list[Artifact]:
    """What was last stored in a thread, newest first; `after_id` is the last one of the page before."""
    found = await rows.fetch(QUERIES.thread_artifacts, account_id, thread_id, after_id, limit)
    return [_artifact_from(row) for row in found]


async def find_in_thread(
    rows: Rows, account_id: uuid.UUID, thread_id: uuid.UUID, artifact_id: uuid.UUID
) -> Artifact | None:
    """One of them, with its content."""
    row = await rows.fetchrow(QUERIES.thread_artifact, account_id, thread_id, artifact_id)
    return _artifact_from(row) if row else None


async def visible(
    rows: Rows,
    artifact_id: uuid.UUID,
    account_id: uuid.UUID,
    *,
    key_id: uuid.UUID,
    end_user_id: str | None,
    whole_account: bool,
) -> Artifact | None:
    """An artifact by its id, if the key may see it."""
    row = await rows.fetchrow(
        QUERIES.visible_artifact, artifact_id, account_id, whole_account, key_id, end_user_id
    )
    return _artifact_from(row) if row else None


def _artifact_from(row: Record) -> Artifact:
    content = row.get("content")
    return Artifact(row["id"], row["name"], row["mime"], row["size"], row["updated_at_ms"], content)
