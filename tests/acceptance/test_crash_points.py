"""What if the worker dies between these two lines? A table of lines, each tried."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from cluster import Cluster, process, running_cluster, script

from qlaud_actors.db.pool import Connection, connect

# function, side, which call; and whether the tool's call may have happened without a known result
POINTS = [
    ("claim after 1", False),
    ("open before 1", False),
    ("open after 1", False),
    ("settle before 1", False),
    ("settle after 1", False),
    ("begin before 1", False),
    ("begin after 1", True),
    ("webhook after 1", True),
    ("finish_call before 1", True),
    ("finish_call after 1", False),
    ("save_results before 1", False),
    ("save_results after 1", False),
    ("open after 2", False),
    ("settle before 2", False),
    ("settle after 2", False),
    ("finish_turn before 1", False),
    ("finish_turn after 1", False),
    ("append after 3", False),
]


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """A front door without a worker; leases are short, so that takeovers are quick."""
    environ = {"QLAUD_LEASE_SECONDS": "1", "QLAUD_HEARTBEAT_SECONDS": "1"}
    async with running_cluster(database_url, redis_url, workers=0, **environ) as cluster:
        yield cluster


@pytest.mark.parametrize(("point", "maybe_unknown"), POINTS)
async def test_no_line_loses_or_repeats_anything(cluster: Cluster, point: str, maybe_unknown: bool) -> None:
    """Killed at any line, a turn ends well: one charge per step, no call twice, no hold, a whole stream."""
    tool = await cluster.webhook_tool()
    connection = await connect(cluster.database_url)
    try:
        await survive(cluster, connection, tool, point, maybe_unknown=maybe_unknown)
    finally:
        await connection.close()


async def survive(
    cluster: Cluster, connection: Connection, tool: str, point: str, *, maybe_unknown: bool
) -> None:
    """One row of the table."""
    user, key_id = await cluster.key(max_spend_usd=1)
    thread = (await user.post("/v1/threads", {}))["id"]
    lines = script({"text": "first", "tools": [{"name": "lookup", "input": {}}]}, {"text": "second"})

    async def follow() -> list[dict]:
        return [event async for event in user.stream(thread, lines, tools=[tool])]

    async with process("workers", cluster.environ, dies_at=point) as dying:
        following = asyncio.create_task(follow())
        assert await asyncio.wait_for(dying.wait(), 15) == 9
    async with process("workers", cluster.environ):
        events = await asyncio.wait_for(following, 25)

    assert [e["type"] for e in events].count("qlaud.done") == 1
    assert events[-1]["status"] == "completed"
    kept = after_rewinds(events)
    said = "".join(e["delta"]["text"] for e in kept if e.get("delta", {}).get("type") == "text_delta")
    assert said == "firstsecond"
    rows = (await user.get(f"/v1/threads/{thread}/messages"))["data"]
    assert [row["role"] for row in rows] == ["user", "assistant", "user", "assistant"]
    unknown = "unknown" in str(rows[2]["content"])
    assert unknown == maybe_unknown
    assert all(count == 1 for count in cluster.webhook.calls.values())
    assert len(cluster.webhook.calls) == 1 or maybe_unknown
    usage = await connection.fetch(
        "SELECT step, cost_nanos FROM usage_events WHERE key_id::text = $1", key_id
    )
    assert sorted(row["step"] for row in usage) == [1, 2]
    budget = await connection.fetchrow("SELECT * FROM budgets WHERE key_id::text = $1", key_id)
    assert budget is not None
    assert budget["held_nanos"] == 0
    assert budget["spent_nanos"] == sum(row["cost_nanos"] for row in usage)
    assert await connection.fetchval("SELECT count(*) FROM holds") == 0


def after_rewinds(events: list[dict]) -> list[dict]:
    """What a client keeps: at each rewind it forgets what came after `to_seq`."""
    kept: list[dict] = []
    for event in events:
        if event["type"] == "qlaud.rewind":
            kept = [e for e in kept if (e["_id"] or 0) <= event["to_seq"] and e["_id"]]
        else:
            kept.append(event)
    return kept
