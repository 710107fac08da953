"""Branches: a new thread that begins with the messages of another one, up to a point.

Rows are copied, not shared: a branch then is a thread like any other, for the model's history, search,
deletion and export, and the death of its parent takes nothing from it.
"""

import uuid
from dataclasses import dataclass

from qlaud_actors.conversation import store, threads
from qlaud_actors.conversation.model import StoredMessage, Thread, is_question
from qlaud_actors.conversation.store import QUERIES, thread_from
from qlaud_actors.conversation.threads import NewThread, Viewer
from qlaud_actors.db.pool import Connection, Pool, Rows
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.ids import new_uuid

PAGE = 200
MAX_SEQ = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Branch:
    """A new thread, and the question of its parent before which it was cut off."""

    thread: Thread
    replaced: StoredMessage | None = None


async def branch(
    pool: Pool, viewer: Viewer, thread_id: uuid.UUID, new: NewThread, from_seq: int | None
) -> Branch:
    """A new thread with what comes before the question that `from_seq` is, or answers.

    With `from_seq` None it gets everything. Whoever sees the parent sees the branch. Messages of a turn
    that is not finished stay behind. Raises NotFound; InvalidRequest (no such message).
    """
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.keep_thread, thread_id) is None:
            raise NotFound("There is no such thread.")
        parent = await threads.get(connection, viewer, thread_id)
        replaced = None if from_seq is None else await _question(connection, thread_id, from_seq)
        end = await connection.fetchval(
            QUERIES.settled_before, thread_id, replaced.seq if replaced else MAX_SEQ
        )
        title, vouched = threads.normal_title(new.title), threads.vouches(viewer)
        row = await connection.fetchrow(
            QUERIES.insert_branch, new_uuid(), parent.id, end, new.metadata, title, vouched
        )
        assert row is not None
        await connection.execute(QUERIES.copy_messages, parent.id, row["id"], end)
        await connection.execute(QUERIES.copy_compactions, parent.id, row["id"], end)
    return Branch(thread_from(row), replaced)


async def list_branches(
    rows: Rows, viewer: Viewer, thread_id: uuid.UUID, *, after_id: uuid.UUID | None, limit: int
) -> list[Thread]:
    """The threads that began as copies of this one, the newest first. Raises NotFound."""
    await threads.get(rows, viewer, thread_id)
    found = await rows.fetch(
        QUERIES.list_branches,
        viewer.account_id,
        threads.sees_account(viewer),
        viewer.id,
        viewer.end_user_id,
        thread_id,
        after_id,
        limit,
    )
    return [thread_from(row) for row in found]


async def _question(connection: Connection, thread_id: uuid.UUID, seq: int) -> StoredMessage:
    """The question at or before a seq; results of tools are no question."""
    before = seq + 1
    while True:
        page = await store.list_messages(
            connection, thread_id, after=0, before=before, limit=PAGE, descending=True
        )
        if not page or (before == seq + 1 and page[0].seq != seq):
            raise InvalidRequest(f"`from_seq`: the thread has no message {seq}.")
        for message in page:
            if is_question(message):
                return message
        before = page[-1].seq
