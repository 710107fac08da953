"""Threads that began elsewhere: a whole conversation is taken in at once, and once."""

import uuid
from dataclasses import dataclass, replace
from typing import Literal

from qlaud_actors.artifacts import store
from qlaud_actors.artifacts.model import Brought, owner_of
from qlaud_actors.conversation import threads
from qlaud_actors.conversation.model import Compaction, Thread
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.conversation.threads import NewThread, Viewer
from qlaud_actors.db.pool import Connection, Pool, UniqueViolation
from qlaud_actors.errors import Conflict, NotFound
from qlaud_actors.providers.model import Block


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message as it was said elsewhere; `created_at_ms` is None when nobody knows."""

    role: Literal["user", "assistant"]
    content: str | list[Block]
    created_at_ms: int | None = None


COMPACTION = tuple(name for name in Compaction.__dataclass_fields__ if name != "cost_nanos")
"""What is taken over of one; nothing is charged for it here."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a thread gets from elsewhere."""

    messages: list[ImportedMessage]
    compactions: list[Compaction]
    artifacts: list[Brought]


@dataclass(frozen=True, slots=True)
class Taken:
    """The thread, and whether it was made now or at an earlier import."""

    thread: Thread
    created: bool


async def take_in(
    pool: Pool,
    viewer: Viewer,
    new: NewThread,
    brought: Imported,
    *,
    external_id: str | None,
    request_id: str,
) -> Taken:
    """A thread with all of this; with an external id that is known, the one made before, with the artifacts
    whose names it lacks: so many may come in several requests.

    Raises ScopeMissing (another end user's), Conflict (the id is that of a thread that this key cannot see,
    or there is no room for the artifacts; then nothing is changed).
    """
    if external_id is not None and (known := await _known(pool, viewer, external_id)):
        return await _add_artifacts(pool, known, brought.artifacts)
    try:
        async with pool.acquire() as connection, connection.transaction():
            thread = await threads.create(connection, viewer, replace(new, own_words=False))
            await connection.executemany(
                QUERIES.import_message,
                [
                    (thread.id, seq, m.role, m.content, request_id, m.created_at_ms)
                    for seq, m in enumerate(brought.messages, 1)
                ],
            )
            await connection.executemany(
                QUERIES.import_compaction,
                [(thread.id, *(getattr(one, name) for name in COMPACTION)) for one in brought.compactions],
            )
            await _restore(connection, thread, brought.artifacts)
            await connection.execute(QUERIES.imported, thread.id, len(brought.messages), external_id)
            return Taken(await threads.get(connection, viewer, thread.id), created=True)
    except UniqueViolation:
        assert external_id is not None
        if known := await _known(pool, viewer, external_id):
            return await _add_artifacts(pool, known, brought.artifacts)
        raise


async def _add_artifacts(pool: Pool, thread: Thread, artifacts: list[Brought]) -> Taken:
    if artifacts:
        async with pool.acquire() as connection, connection.transaction():
            if await connection.fetchval(QUERIES.keep_thread, thread.id) is None:
                raise Conflict("The thread was deleted in this moment; import it again.")
            await _restore(connection, thread, artifacts)
    return Taken(thread, created=False)


async def _restore(connection: Connection, thread: Thread, artifacts: list[Brought]) -> None:
    if not artifacts:
        return
    owner = owner_of(thread.end_user_id, thread.id, None)
    if not await store.restore(connection, thread.account_id, owner, thread.id, artifacts):
        raise Conflict("There is no room for so many artifacts of one owner.")


async def _known(pool: Pool, viewer: Viewer, external_id: str) -> Thread | None:
    thread_id: uuid.UUID | None = await pool.fetchval(QUERIES.by_external_id, viewer.account_id, external_id)
    if thread_id is None:
        return None
    try:
        return await threads.get(pool, viewer, thread_id)
    except NotFound:
        raise Conflict("`external_id` is that of a thread that this key does not see.") from None
