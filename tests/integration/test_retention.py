"""Retention: what is kept no longer goes, what stays is whole, and a preview changes nothing."""

import uuid

from front_door import front_door
from test_branches import TALK, thread

from qlaud_actors.conversation import threads as conversations
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.rights import retention
from qlaud_actors.rights.model import Rule


async def aged(pool: Pool, thread_id: str, days: int) -> None:
    await pool.execute(
        "UPDATE threads SET last_active_at = now() - make_interval(days => $2) WHERE id = $1",
        *(uuid.UUID(thread_id), days),
    )


async def living(pool: Pool) -> set[str]:
    rows = await pool.fetch("SELECT id FROM threads WHERE deleted_at IS NULL")
    return {str(row["id"]) for row in rows}


async def test_old_threads_go_and_a_preview_only_counts(pool: Pool) -> None:
    """By the account's days, or by a thread's own; their text is purged as that of any deleted thread."""
    async with front_door(pool) as door:
        old, own, new, short = [await thread(door, pool, TALK) for _ in range(4)]
        for found in (old, own, short):
            await aged(pool, found, 40)
        await aged(pool, short, 3)
        own_rule = f"/v1/threads/{own}/retention"
        assert (await door.ask("PUT", own_rule, {"ttl_days": 90}))[0] == 200
        assert (await door.ask("PUT", f"/v1/threads/{short}/retention", {"ttl_days": 2}))[0] == 200
        status, told = await door.ask("POST", "/v1/retention/preview", {"ttl_days": 30})
        assert (status, told["would_remove"]["threads"]) == (200, 2)
        assert len(await living(pool)) == 4
        assert (await door.ask("PUT", "/v1/retention", {"ttl_days": 30}))[0] == 200
        assert (await door.ask("GET", "/v1/retention"))[1]["ttl_days"] == 30
        await retention.enforce(pool)
        assert await living(pool) == {own, new}
        await pool.execute("UPDATE threads SET deleted_at = deleted_at - interval '1 minute'")
        await conversations.purge_leftovers(pool)
        assert await pool.fetchval("SELECT count(*) FROM messages") == 2 * len(TALK)


async def test_only_the_latest_threads_of_each_end_user_stay(pool: Pool) -> None:
    """One in which something runs stays as well."""
    async with front_door(pool) as door:
        mine = [await thread(door, pool, TALK) for _ in range(3)]
        for days, found in enumerate(reversed(mine)):
            await aged(pool, found, days)
        other = (await door.ask("POST", "/v1/threads", {"end_user_id": "bob"}))[1]["id"]
        await retention.set_rule(pool, ACCOUNT, Rule(keep_latest_threads=1))
        await pool.execute(
            "INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,"
            " fingerprint) SELECT $1, id, account_id, key_id, 1, '{}', '\"x\"', 'r', '\\x00' FROM threads"
            " WHERE id = $2",
            *(new_uuid(), uuid.UUID(mine[0])),
        )
        await retention.enforce(pool)
        assert await living(pool) == {mine[0], mine[2], other}


async def test_what_stays_of_a_thread_begins_with_a_question(pool: Pool) -> None:
    """For every number of messages to keep: at least so many stay, and no result without its call."""
    async with front_door(pool) as door:
        questions = [
            seq
            for seq, (role, content) in enumerate(TALK, 1)
            if role == "user" and "tool_result" not in str(content)
        ]
        for keep in range(1, len(TALK) + 2):
            found = await thread(door, pool, TALK)
            path = f"/v1/threads/{found}/retention"
            assert (await door.ask("PUT", path, {"keep_latest_messages": keep}))[0] == 200
            await pool.execute(
                "INSERT INTO compactions (thread_id, version, summary, summarized_through_seq,"
                " trimmed_through_seq) VALUES ($1, 1, 's', 2, 0)",
                uuid.UUID(found),
            )
            before = await retention.due(pool, ACCOUNT, Rule())
            await retention.enforce(pool)
            await retention.enforce(pool)
            rows = await pool.fetch(
                "SELECT seq FROM messages WHERE thread_id = $1 ORDER BY seq", uuid.UUID(found)
            )
            first = max((seq for seq in questions if seq <= len(TALK) - keep + 1), default=1)
            assert [row["seq"] for row in rows] == list(range(first, len(TALK) + 1))
            assert before.messages == len(TALK) - len(rows)
            kept = await pool.fetchval(
                "SELECT count(*) FROM compactions WHERE thread_id = $1", uuid.UUID(found)
            )
            assert kept == (before.messages == 0), "a summary goes with what it stands for"
