"""Deletes an end user: everything that names them or that they said, in every store.

A deletion is a row. Each part of it is a transaction that finds what is left, removes some and counts it, so
a process may die anywhere and another one goes on; doing a part again removes nothing twice. What happens
in the meantime goes, too: it ends in a transaction in which nothing is left, and forgets whom it was about.

Nobody writes afterwards. A turn's or job's worker is behind a fence whose row is gone, its events in Redis
behind one that outlives the log; a call of a revoked key is charged as nobody's (`unlink_usage_v1`).
"""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from qlaud_actors.conversation import log, mailbox
from qlaud_actors.conversation.closing import Wake, announce
from qlaud_actors.conversation.publisher import Publisher
from qlaud_actors.db.pool import Connection, ConnectionLost, Pool, Record, Rows
from qlaud_actors.deferred import queue
from qlaud_actors.errors import NotFound
from qlaud_actors.ids import new_uuid
from qlaud_actors.log import get_logger
from qlaud_actors.rights.export import QUERIES
from qlaud_actors.rights.model import Deletion, Receipt

CLAIM_SECONDS = 30.0
"""How long a deletion is left alone after the last sign of whoever carries it."""

AGAIN_SECONDS = 0.5
"""Until somebody looks again for what has not ended yet."""

THREADS_AT_ONCE = 20
ROWS_AT_ONCE = 2_000
HIDDEN_SECONDS = 60.0
"""A thread that was deleted has no text any more; so much later no row and no event in Redis, either."""

logger = get_logger(__name__)


async def begin(pool: Pool, account_id: uuid.UUID, end_user_id: str) -> uuid.UUID:
    """Note that an end user is to be deleted: the deletion, or the one that is under way."""
    while True:
        await pool.execute(QUERIES.insert_deletion, new_uuid(), account_id, end_user_id)
        found = await pool.fetchval(QUERIES.running_deletion, account_id, end_user_id)
        if found is not None:  # else one that was under way has just ended
            return uuid.UUID(str(found))


async def receipt(rows: Rows, account_id: uuid.UUID, deletion_id: uuid.UUID) -> Receipt:
    """What a deletion has removed. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.get_deletion, deletion_id, account_id)
    if row is None:
        raise NotFound("There is no such deletion.")
    return Receipt(**row)


async def erase(connection: Connection, redis: Redis, thread_ids: list[uuid.UUID]) -> Counter[str]:
    """Remove threads that are locked and in which nothing runs, and count. Raises RedisError.

    Redis first: when it is away nothing has happened yet.
    """
    turns = await connection.fetch(QUERIES.turns_of_threads, thread_ids)
    await log.forget(redis, [row["id"] for row in turns if row["recent"]])
    turn_ids = [row["id"] for row in turns]
    removed: Counter[str] = Counter()
    for name, query, *values in (
        ("messages", QUERIES.erase_messages, thread_ids),
        ("tool_calls", QUERIES.erase_tool_calls, turn_ids),
        ("steps", QUERIES.erase_steps, turn_ids),
        ("kept_results", QUERIES.erase_results, thread_ids, []),
        ("kept_results", QUERIES.erase_keyed_calls, thread_ids, []),
        ("artifacts", QUERIES.erase_artifacts, thread_ids),
        ("turns", QUERIES.erase_turns, turn_ids),
        ("threads", QUERIES.erase_threads, thread_ids),
    ):
        removed[name] += len(await connection.fetch(query, *values))
    return removed


@dataclass(slots=True)
class Deleter:
    """The deletions that this process carries."""

    pool: Pool
    redis: Redis
    publisher: Publisher
    wake: Wake
    wake_deliveries: Wake
    _tasks: dict[uuid.UUID, asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, deletion_id: uuid.UUID) -> None:
        """Carry a deletion in the background, unless somebody else does."""
        row = await self.pool.fetchrow(QUERIES.claim_deletion, deletion_id, CLAIM_SECONDS)
        if row is not None and deletion_id not in self._tasks:
            task = asyncio.create_task(self._carry(Deletion(**row)), name=f"deletion-{deletion_id}")
            self._tasks[deletion_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(deletion_id, None))

    async def sweep(self) -> None:
        """Go on with what nobody carries."""
        for row in await self.pool.fetch(QUERIES.due_deletions):
            await self.start(row["id"])

    async def drain(self) -> None:
        """Stop; whatever is left is taken up by another process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, deletion: Deletion) -> None:
        done = False
        try:
            done = await self.advance(deletion)
        except (*ConnectionLost, RedisError) as error:
            logger.warning("deletion_interrupted", deletion=str(deletion.id), error=type(error).__name__)
        except Exception:
            logger.exception("deletion_failed", deletion=str(deletion.id))
        if not done:
            with contextlib.suppress(*ConnectionLost):
                await self.pool.execute(QUERIES.postpone_deletion, deletion.id, AGAIN_SECONDS)

    async def advance(self, deletion: Deletion) -> bool:
        """Remove what can be removed now; whether nothing is left."""
        whose = deletion.account_id, deletion.end_user_id
        await self._transact(deletion, self._cut_off)
        await self._stop_work(*whose)
        for some in (self._erase_threads, self._erase_jobs, self._unlink_usage):
            while await self._transact(deletion, some):
                pass
        return await self._transact(deletion, self._finish)

    async def _transact(
        self,
        deletion: Deletion,
        part: Callable[[Connection, Deletion, Counter[str]], Awaitable[bool]],
    ) -> bool:
        """A part and its count, together; whether there may be more of it (of the last part: all is gone)."""
        removed: Counter[str] = Counter()
        async with self.pool.acquire() as connection, connection.transaction():
            # Its own row last: it is what the receipt reads, and the claim that others respect.
            more = await part(connection, deletion, removed)
            await connection.execute(QUERIES.count_removed, deletion.id, dict(removed), CLAIM_SECONDS)
        return more

    async def _cut_off(self, connection: Connection, deletion: Deletion, removed: Counter[str]) -> bool:
        """Keys, connections, links: nothing more comes in for this end user. Their threads are not found."""
        whose = deletion.account_id, deletion.end_user_id
        keys = await _keys(connection, deletion)
        await connection.execute(QUERIES.revoke_keys, keys)
        await _take_away(connection, deletion, keys, removed)
        await connection.execute(QUERIES.hide_threads, *whose)
        return False

    async def _stop_work(self, account_id: uuid.UUID, end_user_id: str) -> None:
        """End what waits or has no living worker; ask what runs to stop."""
        for row in await self.pool.fetch(QUERIES.unfinished_turns, account_id, end_user_id):
            if finished := await mailbox.cancel(self.pool, row["id"]):
                await announce(self.publisher, finished, self.wake)
        for row in await self.pool.fetch(QUERIES.unfinished_jobs, account_id, end_user_id):
            if ended := await queue.cancel(self.pool, row["id"]):
                await self.wake_deliveries(ended.deliveries)

    async def _erase_threads(self, connection: Connection, deletion: Deletion, removed: Counter[str]) -> bool:
        whose = deletion.account_id, deletion.end_user_id
        found = await connection.fetch(QUERIES.erasable_threads, *whose, THREADS_AT_ONCE)
        if found:
            removed.update(await erase(connection, self.redis, [row["id"] for row in found]))
        return len(found) == THREADS_AT_ONCE

    async def _erase_jobs(self, connection: Connection, deletion: Deletion, removed: Counter[str]) -> bool:
        keys = await _keys(connection, deletion)
        gone = await connection.fetch(QUERIES.erase_jobs, deletion.account_id, keys, ROWS_AT_ONCE)
        removed["jobs"] += len(gone)
        return len(gone) == ROWS_AT_ONCE

    async def _unlink_usage(self, connection: Connection, deletion: Deletion, removed: Counter[str]) -> bool:
        whose = deletion.account_id, deletion.end_user_id
        unlinked = await connection.fetch(QUERIES.unlink_usage, *whose, ROWS_AT_ONCE)
        removed["usage_events_unlinked"] += len(unlinked)
        return len(unlinked) == ROWS_AT_ONCE

    async def _finish(self, connection: Connection, deletion: Deletion, removed: Counter[str]) -> bool:
        """The last one locks keys and webhooks: it sees who wrote before, and who writes after sees it."""
        whose = deletion.account_id, deletion.end_user_id
        keys = await _keys(connection, deletion)
        webhooks = [row["id"] for row in await connection.fetch(QUERIES.lock_webhooks, deletion.account_id)]
        if await connection.fetchval(QUERIES.has_threads, *whose):
            return False
        if await connection.fetchval(QUERIES.has_jobs, keys):
            return False
        while await self._unlink_usage(connection, deletion, removed):
            pass
        await _take_away(connection, deletion, keys, removed)
        names = list(map(str, keys))
        told = await connection.fetch(QUERIES.erase_cap_notices, webhooks, names)
        removed["deliveries"] += len(told)
        name = msgspec.json.encode(deletion.end_user_id).decode()
        await connection.execute(QUERIES.unlink_told_usage, webhooks, name)
        await connection.execute(QUERIES.erase_results, [], keys)
        await connection.execute(QUERIES.erase_keyed_calls, [], keys)
        removed["billing_links"] += len(await connection.fetch(QUERIES.delete_billing, *whose))
        await connection.execute(QUERIES.unlink_metered, *whose, f"deleted-{new_uuid()}")
        removed["keys"] += len(await connection.fetch(QUERIES.erase_keys, keys))
        await connection.execute(QUERIES.complete_deletion, deletion.id)
        logger.info("end_user_deleted", deletion=str(deletion.id))
        return True

    async def erase_hidden(self) -> None:
        """Remove the rows of threads that were deleted a while ago."""
        more = True
        while more:
            async with self.pool.acquire() as connection, connection.transaction():
                found: list[Record] = await connection.fetch(
                    QUERIES.long_deleted_threads, HIDDEN_SECONDS, THREADS_AT_ONCE
                )
                if found:
                    await erase(connection, self.redis, [row["id"] for row in found])
            more = len(found) == THREADS_AT_ONCE


async def _keys(connection: Connection, deletion: Deletion) -> list[uuid.UUID]:
    """The keys that are bound to the end user, locked."""
    rows = await connection.fetch(QUERIES.lock_keys, deletion.account_id, deletion.end_user_id)
    return [row["id"] for row in rows]


async def _take_away(
    connection: Connection, deletion: Deletion, keys: list[uuid.UUID], removed: Counter[str]
) -> None:
    """What belongs to the end user beside threads and jobs."""
    whose = deletion.account_id, deletion.end_user_id
    removed["artifacts"] += len(await connection.fetch(QUERIES.delete_artifacts, *whose, keys))
    removed["connect_links"] += len(await connection.fetch(QUERIES.delete_links, *whose))
    removed["connections"] += len(await connection.fetch(QUERIES.delete_connections, *whose))
