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
from qlaud_actors.rights.model import Rule

logger = get_logger(__name__)

AT_ONCE = 200
"""Threads deleted in one statement."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is kept no longer: threads, and of those that stay the first message that does."""

    threads: list[uuid.UUID]
    cuts: list[tuple[uuid.UUID, int]]
    messages: int
    """How many messages go from threads that stay."""


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


async def due(rows: Rows, account_id: uuid.UUID, rule: Rule) -> Due:
    """What would go now."""
    expired = await rows.fetch(QUERIES.expired_threads, account_id, rule.ttl_days, rule.keep_latest_threads)
    threads = [row["id"] for row in expired]
    long = await rows.fetch(QUERIES.long_threads, account_id, rule.keep_latest_messages, threads)
    cuts = [(row["id"], row["first"]) for row in long]
    return Due(threads, cuts, sum(row["messages"] for row in long))


async def enforce(pool: Pool) -> None:
    """Remove what is kept no longer, account by account."""
    for account in await pool.fetch(QUERIES.accounts_with_rules):
        account_id = account["account_id"]
        found = await due(pool, account_id, await rule_of(pool, account_id))
        for first in range(0, len(found.threads), AT_ONCE):
            await pool.execute(QUERIES.delete_threads, found.threads[first : first + AT_ONCE])
        for thread_id, seq in found.cuts:
            await _trim(pool, thread_id, seq)
        if found.threads or found.cuts:
            logger.info("retention_enforced", threads=len(found.threads), messages=found.messages)


async def _trim(pool: Pool, thread_id: uuid.UUID, first: int) -> None:
    """Remove the messages before a seq, unless somebody is talking again."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_quiet_thread, thread_id) is not None:
            await connection.execute(QUERIES.trim_messages, thread_id, first)
            await connection.execute(QUERIES.trim_summaries, thread_id)
            await connection.execute(QUERIES.trim_tool_calls, thread_id, first)
            await connection.execute(QUERIES.trim_turns, thread_id, first)
