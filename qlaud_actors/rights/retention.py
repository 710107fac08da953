"""How long conversations are kept: a rule of the account, for which a thread may have its own.

Enforced by the workers, now and then; a preview counts what would go and changes nothing. A thread that is
kept no longer is deleted as by hand. Doing it again, or dying in between, is harmless.
"""

import uuid
from dataclasses import dataclass

from qlaud_actors.db.pool import Pool, Rows
from qlaud_actors.errors import NotFound
from qlaud_actors.log import get_logger
from qlaud_actors.rights.export import QUERIES
from qlaud_actors.rights.model import Due, Going, Rule

logger = get_logger(__name__)

AT_ONCE = 200
"""Threads deleted in one statement."""


@dataclass(frozen=True, slots=True)
class Account:
    """One in which something is not kept for ever."""

    id: uuid.UUID
    name: str


async def rule_of(rows: Rows, account_id: uuid.UUID) -> Rule:
    """An account's rule; without one everything is kept."""
    row = await rows.fetchrow(QUERIES.get_retention, account_id)
    return Rule(**row) if row else Rule()


async def set_rule(rows: Rows, account_id: uuid.UUID, rule: Rule) -> None:
    """Another rule for an account."""
    await rows.execute(
        QUERIES.put_retention,
        account_id,
        rule.ttl_days,
        rule.keep_latest_threads,
        rule.keep_latest_messages,
    )


async def set_thread_rule(
    rows: Rows, thread_id: uuid.UUID, ttl_days: int | None, keep_latest_messages: int | None
) -> None:
    """A thread's own rule; None is the account's. Raises NotFound."""
    values = thread_id, ttl_days, keep_latest_messages
    if await rows.fetchval(QUERIES.put_thread_retention, *values) is None:
        raise NotFound("There is no such thread.")


async def accounts(rows: Rows, account_id: uuid.UUID | None = None) -> list[Account]:
    """Those with a rule of any kind, or the one that is named if it has one. Raises NotFound."""
    if account_id is not None and not await rows.fetchval(QUERIES.account_is_there, account_id):
        raise NotFound("There is no such account.")
    return [Account(**row) for row in await rows.fetch(QUERIES.accounts_with_rules, account_id)]


async def due(rows: Rows, account_id: uuid.UUID, rule: Rule) -> Due:
    """What would go now."""
    expired = await rows.fetch(QUERIES.expired_threads, account_id, rule.ttl_days, rule.keep_latest_threads)
    whole = [Going(**row) for row in expired]
    ids = [one.thread_id for one in whole]
    long = await rows.fetch(QUERIES.long_threads, account_id, rule.keep_latest_messages, ids)
    return Due(whole, [Going(**row) for row in long])


async def enforce(pool: Pool) -> None:
    """Remove what is kept no longer, account by account."""
    for account in await accounts(pool):
        await remove(pool, await due(pool, account.id, await rule_of(pool, account.id)))


async def remove(pool: Pool, found: Due) -> Due:
    """Remove what is due; what somebody was using in this moment stays, and is not in what is returned."""
    gone: set[uuid.UUID] = set()
    for first in range(0, len(found.whole), AT_ONCE):
        some = found.whole[first : first + AT_ONCE]
        columns = [one.thread_id for one in some], [one.oldest_ms for one in some]
        gone |= {row["id"] for row in await pool.fetch(QUERIES.delete_threads, *columns)}
    trimmed = [one for one in found.trimmed if await _trim(pool, one)]
    done = Due([one for one in found.whole if one.thread_id in gone], trimmed)
    if done.whole or done.trimmed:
        logger.info("retention_enforced", threads=len(done.whole), messages=done.messages)
    return done


async def _trim(pool: Pool, going: Going) -> bool:
    """Remove the messages before a seq, unless somebody is talking again."""
    thread_id, first = going.thread_id, going.first
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_quiet_thread, thread_id) is None:
            return False
        await connection.execute(QUERIES.trim_messages, thread_id, first)
        await connection.execute(QUERIES.trim_compactions, thread_id)
        await connection.execute(QUERIES.trim_tool_calls, thread_id, first)
        await connection.execute(QUERIES.trim_turns, thread_id, first)
        return True
