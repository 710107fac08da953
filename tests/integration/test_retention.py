"""Retention: what is kept no longer goes, what stays is whole, and a preview changes nothing."""

import asyncio
import json
import time
import uuid

from click.testing import CliRunner, Result
from front_door import front_door
from test_branches import TALK, thread

from qlaud_actors.cli import main
from qlaud_actors.conversation import threads as conversations
from qlaud_actors.conversation.store import QUERIES
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.rights import retention
from qlaud_actors.rights.model import Rule

WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


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
        forty_days_ago = time.time() * 1000 - 40 * 86_400_000
        assert abs(told["would_remove"]["oldest_at"] - forty_days_ago) < 600_000
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
        assert (await door.ask("PUT", f"/v1/threads/{mine[1]}/retention", {"ttl_days": 30}))[0] == 200
        await retention.set_rule(pool, ACCOUNT, Rule(keep_latest_threads=1))
        await pool.execute(
            "INSERT INTO turns (id, thread_id, account_id, key_id, number, request, content, request_id,"
            " fingerprint) SELECT $1, id, account_id, key_id, 1, '{}', '\"x\"', 'r', '\\x00' FROM threads"
            " WHERE id = $2",
            *(new_uuid(), uuid.UUID(mine[0])),
        )
        (going,) = (await retention.due(pool, ACCOUNT, Rule(keep_latest_threads=1))).whole
        assert (str(going.thread_id), going.own) == (mine[1], False), "not by its own rule"
        await retention.enforce(pool)
        assert await living(pool) == {mine[0], mine[2], other}


async def test_a_thread_in_which_somebody_speaks_meanwhile_stays(pool: Pool) -> None:
    """A turn is accepted after it was seen what is due; another one just when that is removed."""
    async with front_door(pool) as door:
        mine = [uuid.UUID(await thread(door, pool, TALK)) for _ in range(3)]
        for found in mine:
            await aged(pool, str(found), 40)
        before = await retention.due(pool, ACCOUNT, Rule(ttl_days=30))
        assert {one.thread_id for one in before.whole} == set(mine)
        await pool.execute(QUERIES.next_turn_number, mine[0])
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(QUERIES.next_turn_number, mine[1])
            removal = asyncio.create_task(retention.remove(pool, before))
            async with asyncio.timeout(10):
                while not await pool.fetchval(WAITS):  # noqa: ASYNC110 - another connection waits
                    await asyncio.sleep(0.01)
        assert [one.thread_id for one in (await removal).whole] == [mine[2]]
        assert await living(pool) == {str(one) for one in mine[:2]}


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


async def run(database_url: str, *arguments: str) -> Result:
    """`qlaud retention`, in a thread: it has a loop of its own."""
    runner = CliRunner(env={"DATABASE_URL": database_url})
    return await asyncio.to_thread(runner.invoke, main, ["retention", *arguments])


async def test_the_command_shows_and_then_removes(pool: Pool, database_url: str) -> None:
    """A dry run changes nothing; then what it told goes, and a second run finds nothing."""
    assert (await run(database_url)).output == "no account and no thread has a rule: all is kept\n"
    async with front_door(pool) as door:
        old, own, short, new = [await thread(door, pool, TALK) for _ in range(4)]
        for found, days in ((old, 40), (own, 10), (short, 5)):
            await aged(pool, found, days)
        for found, rule in ((own, {"ttl_days": 7}), (short, {"keep_latest_messages": 2})):
            assert (await door.ask("PUT", f"/v1/threads/{found}/retention", rule))[0] == 200
        await retention.set_rule(pool, ACCOUNT, Rule(ttl_days=30))
        told = await run(database_url, "--dry-run")
        assert (told.exit_code, len(await living(pool))) == (0, 4)
        head, account, *rest, last = told.output.splitlines()
        assert head.split() == ["account", "rule", "threads", "trimmed", "messages", "oldest"]
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 40 * 86_400))
        assert account.split()[-6:] == ["30", "days", "1", "0", "0", day]
        assert sorted(line.split()[1:-1] for line in rest) == sorted(
            [f"{own}: 7 days 1 0 0".split(), f"{short}: latest 2 messages 0 1 4".split()]
        )
        assert last == "would remove 2 threads, and 4 messages of 1 threads that stay; nothing was changed"
        fewer = (await run(database_url, "--dry-run", "--show", "1")).output
        assert "and 1 more threads by their own rules" in fewer
        (listed,) = json.loads((await run(database_url, "--dry-run", "--json")).output)["accounts"]
        assert {one["thread_id"] for one in listed["threads"]} == {old, own}
        assert listed["trimmed_threads"][0]["first_kept_seq"] == 5
        done = await run(database_url, "--account", str(ACCOUNT))
        assert (done.exit_code, await living(pool)) == (0, {short, new})
        assert done.output.splitlines()[-1].startswith("removed 2 threads, and 4 messages of 1 threads")
        assert "removed 0 threads, and 0 messages" in (await run(database_url)).output


async def test_the_command_says_what_is_wrong(database_url: str) -> None:
    """As the other commands: 1 for what cannot be done, 2 for what was asked badly."""
    missing = await run(database_url, "--account", str(new_uuid()))
    assert (missing.exit_code, missing.stderr.startswith("qlaud: there is no account")) == (1, True)
    assert (await run(database_url, "--account", "x")).exit_code == 2
    refused = await run("postgresql://nobody@127.0.0.1:1/none", "--dry-run")
    assert (refused.exit_code, "Traceback" in refused.output) == (1, False)
    assert "--dry-run" in (await run(database_url, "--help")).output
