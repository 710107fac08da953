"""Threads that began elsewhere: a whole conversation is taken in at once, and once."""

import uuid
from dataclasses import dataclass, replace
from typing import Literal

from qlaud_actors.conversation import threads
from qlaud_actors.conversation.model import Thread
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.conversation.threads import NewThread, Viewer
from qlaud_actors.db.pool import Pool, UniqueViolation
from qlaud_actors.errors import Conflict, NotFound
from qlaud_actors.providers.model import Block


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message as it was said elsewhere; `created_at_ms` is None when nobody knows."""

    role: Literal["user", "assistant"]
    content: str | list[Block]
    created_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The thread, and whether it was made now or at an earlier import."""

    thread: Thread
    created: bool


async def take_in(
    pool: Pool,
    viewer: Viewer,
    new: NewThread,
    messages: list[ImportedMessage],
    *,
    external_id: str | None,
    request_id: str,
) -> Taken:
    """A thread with these messages; with an external id that is known, the one made before.

    Raises ScopeMissing (another end user's), Conflict (the id is that of a thread that this key cannot see).
    """
    if external_id is not None and (known := await _known(pool, viewer, external_id)):
        return Taken(known, created=False)
    try:
        async with pool.acquire() as connection, connection.transaction():
            thread = await threads.create(connection, viewer, replace(new, own_words=False))
            await connection.executemany(
                QUERIES.import_message,
                [
                    (thread.id, seq, m.role, m.content, request_id, m.created_at_ms)
                    for seq, m in enumerate(messages, 1)
                ],
            )
            await connection.execute(QUERIES.imported, thread.id, len(messages), external_id)
            return Taken(await threads.get(connection, viewer, thread.id), created=True)
    except UniqueViolation:
        assert external_id is not None
        if known := await _known(pool, viewer, external_id):
            return Taken(known, created=False)
        raise


async def _known(pool: Pool, viewer: Viewer, external_id: str) -> Thread | None:
    thread_id: uuid.UUID | None = await pool.fetchval(QUERIES.by_external_id, viewer.account_id, external_id)
    if thread_id is None:
        return None
    try:
        return await threads.get(pool, viewer, thread_id)
    except NotFound:
        raise Conflict("`external_id` is that of a thread that this key does not see.") from None
