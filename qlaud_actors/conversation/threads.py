"""Threads: create, find, change, delete, and who may see which.

A standard key sees the threads that it made and those of the end user that it is bound to. A key
with `thread_access: account`, and every admin key, sees all threads of its account.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from qlaud_actors.conversation import mailbox, store
from qlaud_actors.conversation.approval_rules import Approval
from qlaud_actors.conversation.context import THRESHOLD, CompactionMode
from qlaud_actors.conversation.mailbox import Finished
from qlaud_actors.conversation.model import StoredMessage, Thread
from qlaud_actors.conversation.store import QUERIES, thread_from
from qlaud_actors.db.pool import Pool, Rows
from qlaud_actors.errors import InvalidKey, NotFound, ScopeMissing
from qlaud_actors.ids import new_uuid

PLACEHOLDER_TITLE = "New chat"


class Viewer(Protocol):
    """What of a key decides which threads it sees."""

    @property
    def id(self) -> uuid.UUID:
        """The key."""

    @property
    def account_id(self) -> uuid.UUID:
        """Its account."""

    @property
    def scope(self) -> str:
        """`standard` or `admin`."""

    @property
    def end_user_id(self) -> str | None:
        """The end user that it is bound to."""

    @property
    def thread_access(self) -> str:
        """`own` or `account`."""


@dataclass(frozen=True, slots=True)
class NewThread:
    """What a caller may say of a new thread."""

    end_user_id: str | None = None
    metadata: dict[str, Any] | None = None
    title: str | None = None
    workspace_id: str | None = None
    kind: str | None = None
    default_mode: str | None = None
    default_model: str | None = None
    approval: Approval | None = None
    compaction: CompactionMode = "auto"
    compaction_threshold: float = THRESHOLD
    compaction_model: str | None = None
    own_words: bool = True
    """Whether the metadata is what the caller says, and not what an imported document says."""


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """What to change of a thread: metadata is merged (shallow), the others are set when asked to."""

    metadata: dict[str, Any] | None = None
    title: str | None = None
    set_title: bool = False
    approval: Approval | None = None
    set_approval: bool = False
    compaction: CompactionMode | None = None
    compaction_threshold: float | None = None
    compaction_model: str | None = None
    set_compaction_model: bool = False


def sees_account(viewer: Viewer) -> bool:
    """Whether a key sees all threads of its account."""
    return viewer.scope == "admin" or viewer.thread_access == "account"


def vouches(viewer: Viewer) -> bool:
    """Whether locked inputs of tools rely on metadata that this key writes: on admins' words alone."""
    return viewer.scope == "admin"


async def create(rows: Rows, viewer: Viewer, new: NewThread) -> Thread:
    """A new, empty thread. A key bound to an end user makes threads of that end user only.

    Raises ScopeMissing, InvalidKey (the key was revoked meanwhile).
    """
    end_user_id = new.end_user_id or viewer.end_user_id
    if viewer.end_user_id is not None and end_user_id != viewer.end_user_id:
        raise ScopeMissing("This key is bound to another end user.")
    row = await rows.fetchrow(
        QUERIES.insert_thread,
        new_uuid(),
        viewer.account_id,
        viewer.id,
        end_user_id,
        new.metadata,
        normal_title(new.title),
        new.workspace_id,
        new.kind,
        new.default_mode,
        new.default_model,
        new.approval,
        new.compaction,
        new.compaction_threshold,
        new.compaction_model,
        new.own_words and vouches(viewer),
    )
    if row is None:
        raise InvalidKey
    return thread_from(row)


async def get(rows: Rows, viewer: Viewer, thread_id: uuid.UUID) -> Thread:
    """A thread that this key may see. Raises NotFound."""
    row = await rows.fetchrow(
        QUERIES.get_thread,
        thread_id,
        viewer.account_id,
        sees_account(viewer),
        viewer.id,
        viewer.end_user_id,
    )
    if row is None:
        raise NotFound("There is no such thread.")
    return thread_from(row)


async def list_threads(
    rows: Rows, viewer: Viewer, *, end_user_id: str | None, after_id: uuid.UUID | None, limit: int
) -> list[Thread]:
    """Threads by last activity, newest first; `after_id` is the last one of the page before."""
    found = await rows.fetch(
        QUERIES.list_threads,
        viewer.account_id,
        sees_account(viewer),
        viewer.id,
        viewer.end_user_id,
        end_user_id,
        after_id,
        limit,
    )
    return [thread_from(row) for row in found]


async def change(rows: Rows, viewer: Viewer, thread_id: uuid.UUID, change: ThreadChange) -> Thread:
    """Change a thread. Raises NotFound."""
    await get(rows, viewer, thread_id)
    row = await rows.fetchrow(
        QUERIES.patch_thread,
        thread_id,
        change.metadata,
        change.set_title,
        normal_title(change.title),
        change.set_approval,
        change.approval,
        change.compaction,
        change.compaction_threshold,
        change.set_compaction_model,
        change.compaction_model,
        vouches(viewer),
    )
    if row is None:
        raise NotFound("There is no such thread.")
    return thread_from(row)


async def delete(pool: Pool, viewer: Viewer, thread_id: uuid.UUID) -> list[Finished]:
    """Delete a thread: gone at once, its turns cancelled, its text removed. Raises NotFound."""
    await get(pool, viewer, thread_id)
    if await pool.fetchval(QUERIES.delete_thread, thread_id) is None:
        raise NotFound("There is no such thread.")
    return await purge(pool, thread_id)


async def purge(pool: Pool, thread_id: uuid.UUID) -> list[Finished]:
    """Cancel the turns of a deleted thread and remove its text.

    A turn that is running ends a little later and may still write; the sweeper purges again until no
    turn is left. So this may die anywhere, and may be done twice.
    """
    unfinished = await pool.fetch(QUERIES.unfinished_turns, thread_id)
    finished = [await mailbox.cancel(pool, row["id"]) for row in unfinished]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES.mark_purged, thread_id)
        await connection.execute(QUERIES.purge_messages, thread_id)
        await connection.execute(QUERIES.purge_compactions, thread_id)
        await connection.execute(QUERIES.purge_turn_texts, thread_id)
        await connection.execute(QUERIES.purge_tool_texts, thread_id)
        await connection.execute(QUERIES.purge_results, thread_id)
        await connection.execute(QUERIES.purge_keyed_calls, thread_id)
    return [f for f in finished if f]


async def purge_leftovers(pool: Pool) -> list[Finished]:
    """Purge the deleted threads that still need it."""
    finished: list[Finished] = []
    for row in await pool.fetch(QUERIES.unpurged_threads):
        finished += await purge(pool, row["id"])
    return finished


async def delete_empty(rows: Rows, viewer: Viewer) -> int:
    """Delete the threads that never had a message and are older than a minute; returns how many."""
    gone = await rows.fetch(
        QUERIES.delete_empty_threads,
        viewer.account_id,
        sees_account(viewer),
        viewer.id,
        viewer.end_user_id,
    )
    return len(gone)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of messages, in the order that was asked for, and whether there are more."""

    messages: list[StoredMessage]
    has_more: bool


async def page(
    rows: Rows, thread_id: uuid.UUID, *, after: int, before: int, limit: int, descending: bool
) -> Page:
    """Messages with `after < seq < before`."""
    found = await store.list_messages(
        rows, thread_id, after=after, before=before, limit=limit + 1, descending=descending
    )
    return Page(found[:limit], len(found) > limit)


def normal_title(title: str | None) -> str | None:
    """A title as stored: the clients' placeholder means none."""
    return None if title is None or title.strip() in ("", PLACEHOLDER_TITLE) else title
