"""A turn waits for a person's word: parked, approved, declined, expired, cancelled; and killed in between."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from cluster import MODEL, Api, Cluster, process, running_cluster, script
from test_crash_points import after_rewinds

from qlaud_actors.conversation.approval_rules import Decision
from qlaud_actors.conversation.approvals import decide
from qlaud_actors.db.pool import connect, open_pool
from qlaud_actors.ids import parse_uuid

ASK = {"qlaud_runtime": {"approval": "writes"}}
CALL = {"text": "first", "tools": [{"name": "lookup", "input": {"n": 1}}]}
LINES = script(CALL, {"text": "second"})


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """Two front doors, one worker with one slot: whoever parks must free it."""
    environ = {"QLAUD_TURNS_PER_WORKER": "1"}
    async with running_cluster(database_url, redis_url, apis=2, **environ) as cluster:
        yield cluster


class Following:
    """A stream that is read in the background."""

    def __init__(self, events: AsyncIterator[dict]) -> None:
        self.events: list[dict] = []
        self._source = events
        self._came = asyncio.Condition()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self._source:
            async with self._came:
                self.events.append(event)
                self._came.notify_all()

    async def until(self, kind: str) -> dict:
        """The first event of a kind."""
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: any(e["type"] == kind for e in self.events))
        return next(e for e in self.events if e["type"] == kind)

    async def end(self) -> list[dict]:
        """All events."""
        await asyncio.wait_for(self.task, 20)
        return self.events


def said(events: list[dict]) -> str:
    return "".join(e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta")


async def new_thread(user: Api, **fields: Any) -> str:
    return (await user.post("/v1/threads", fields))["id"]


async def parked(user: Api, thread: str, turn_id: str) -> dict:
    """The turn, once it is parked: the event is told a moment before."""
    for _ in range(1000):
        turn: dict = await user.get(f"/v1/threads/{thread}/turns/{turn_id}")
        if turn["status"] == "parked":
            return turn
    raise AssertionError(turn["status"])


async def test_an_approved_call_is_made_once_and_the_stream_goes_on(cluster: Cluster) -> None:
    """Parked, no slot is taken and nothing is held; approved at another door, the same stream ends."""
    tool = await cluster.webhook_tool()
    user, key_id = await cluster.key(max_spend_usd=1)
    thread = await new_thread(user, approval="writes")
    following = Following(user.stream(thread, LINES, tools=[tool]))
    asked = await following.until("qlaud.approval_required")
    assert (asked["name"], asked["input"], asked["iteration"]) == ("lookup", {"n": 1}, 1)
    assert not cluster.webhook.calls
    waiting = (await user.get(f"/v1/threads/{thread}/approvals"))["data"]
    assert [w["tool_use_id"] for w in waiting] == [asked["tool_use_id"]]
    turn = await parked(user, thread, waiting[0]["turn_id"])
    assert [call["state"] for call in turn["tool_calls"]] == ["awaiting_approval"]
    assert (await cluster.admin.get(f"/v1/keys/{key_id}"))["held_micros"] == 0
    other = await new_thread(user)
    assert (await user.turn(other, script({"text": "not in the way"})))["stop_reason"] == "end_turn"
    path = f"/v1/threads/{thread}/approvals/{asked['tool_use_id']}"
    door = Api(user.session, cluster.apis[1].base_url, user.key)
    assert (await door.request("POST", path, {"approve": True}))[0] == 200
    events = await following.end()
    assert said(events) == "firstsecond"
    assert [e["_id"] for e in events] == list(range(1, len(events) + 1))
    assert "qlaud.rewind" not in {e["type"] for e in events}
    assert (events[-1]["status"], events[-1]["incomplete"]) == ("completed", False)
    assert list(cluster.webhook.calls.values()) == [1]
    turn = await user.get(f"/v1/threads/{thread}/turns/{turn['id']}")
    assert (turn["attempts"], turn["tool_calls"][0]["approved"]) == (1, True)
    assert (await user.request("POST", path, {"approve": True}))[0] == 200
    assert (await user.request("POST", path, {"approve": False}))[0] == 409
    assert (await user.get(f"/v1/threads/{thread}/approvals"))["data"] == []


async def test_a_declined_call_is_not_made(cluster: Cluster) -> None:
    """The JSON answer comes at once with 202; of two words the first counts; the model hears the reason."""
    await cluster.webhook_tool()
    user, _ = await cluster.key()
    thread = await new_thread(user)
    inner = {"calls": [{"tool": "lookup", "args": {"n": 1}}, {"tool": "lookup", "args": {"n": 2}}]}
    lines = script({"tools": [{"name": "qlaud_multi_execute", "input": inner}]}, {"text": "I see"})
    body = {"model": MODEL, "max_tokens": 256, "content": lines, **ASK}
    send = f"/v1/threads/{thread}/messages"
    status, answer = await user.request("POST", send, body, **{"idempotency-key": "once"})
    assert (status, answer["status"], answer["incomplete"]) == (202, "approval_required", True)
    assert answer["stop_reason"] == "tool_use"
    (asked,) = answer["approvals"]
    assert asked["calls"] == inner["calls"]
    path = f"/v1/threads/{thread}/approvals/{asked['tool_use_id']}"
    doors = [Api(user.session, door.base_url, user.key) for door in cluster.apis]
    decisions = [(door, reason) for door in doors for reason in ("not now", "never")]
    words = [door.request("POST", path, {"approve": False, "reason": r}) for door, r in decisions]
    assert [status for status, _ in await asyncio.gather(*words)] == [200] * 4
    assert (await user.request("POST", path, {"approve": True}))[0] == 409
    status, answer = await user.request("POST", send, body, **{"idempotency-key": "once"})
    assert (status, answer["content"][0]["text"]) == (200, "I see")
    rows = (await user.get(send))["data"]
    assert "declined this call" in str(rows[2]["content"])
    assert rows[2]["content"][0]["is_error"] is True
    assert not cluster.webhook.calls


async def test_nobody_answers_or_the_user_gives_up(cluster: Cluster) -> None:
    """What expires is declined; cancelling a parked turn frees its thread; later words are 409."""
    tool = await cluster.webhook_tool(effect="read")
    user, _ = await cluster.key()
    thread = await new_thread(user)
    asking = {"tools": [tool], "qlaud_runtime": {"approval": "always", "approval_timeout_s": 1}}
    expiring = Following(user.stream(thread, LINES, **asking))
    late = await expiring.until("qlaud.approval_required")
    rows = await expiring.end()
    outcome = next(e for e in rows if e["type"] == "qlaud.tool_dispatch_done")
    assert "nobody approved it in time" in outcome["output"]
    path = f"/v1/threads/{thread}/approvals"
    assert (await user.request("POST", f"{path}/{late['tool_use_id']}", {"approve": True}))[0] == 409

    asking["qlaud_runtime"]["approval_timeout_s"] = 600
    leaving = Following(user.stream(thread, LINES, **asking))
    asked = await leaving.until("qlaud.approval_required")
    behind = asyncio.create_task(user.turn(thread, script({"text": "my turn"})))
    turn_id = (await user.get(path))["data"][0]["turn_id"]
    await parked(user, thread, turn_id)
    assert not behind.done()
    assert (await user.post(f"/v1/threads/{thread}/turns/{turn_id}/cancel", {}))["status"] == "cancelled"
    assert (await leaving.end())[-1]["status"] == "cancelled"
    assert (await behind)["content"][0]["text"] == "my turn"
    assert (await user.request("POST", f"{path}/{asked['tool_use_id']}", {"approve": True}))[0] == 409
    assert not cluster.webhook.calls


async def test_redis_is_emptied_while_a_turn_is_parked(cluster: Cluster) -> None:
    """A new reader hears from Postgres what is waited for, and after the approval how it went on."""
    tool = await cluster.webhook_tool()
    user, _ = await cluster.key()
    thread = await new_thread(user)
    first = Following(user.stream(thread, LINES, tools=[tool], **ASK))
    await first.until("qlaud.approval_required")
    turn_id = (await user.get(f"/v1/threads/{thread}/approvals"))["data"][0]["turn_id"]
    await parked(user, thread, turn_id)
    client = redis.asyncio.from_url(cluster.redis_url)
    await client.flushdb()
    await client.aclose()
    later = Following(user.events("GET", f"/v1/threads/{thread}/turns/{turn_id}/stream"))
    asked = await later.until("qlaud.approval_required")
    assert asked["_id"] is None
    await user.post(f"/v1/threads/{thread}/approvals/{asked['tool_use_id']}", {"approve": True})
    for following in (first, later):
        events = await following.end()
        assert events[-1]["status"] == "completed"
        assert said(after_rewinds(events) or events).endswith("second")


async def test_a_worker_dies_around_parking(database_url: str, redis_url: str) -> None:
    """Killed between marking, telling and parking, the call is asked for, approved and made exactly once.

    The approval reaches the database and its wake-up gets lost: the sweep sends it.
    """
    async with running_cluster(database_url, redis_url, workers=0, QLAUD_LEASE_SECONDS="1") as cluster:
        tool = await cluster.webhook_tool()
        for point in ("park before 1", "park after 1", "open before 2"):
            try:
                await survive(cluster, tool, point)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed at: {point}") from error


async def survive(cluster: Cluster, tool: str, point: str) -> None:
    """One point."""
    cluster.webhook.calls.clear()
    user, key_id = await cluster.key(max_spend_usd=1)
    thread = await new_thread(user)
    following = Following(user.stream(thread, LINES, tools=[tool], **ASK))
    async with process("workers", cluster.environ, dies_at=point) as dying:
        if point.startswith("open"):
            asked = await following.until("qlaud.approval_required")
            await approve_without_a_wake_up(cluster, thread, asked)
        assert await asyncio.wait_for(dying.wait(), 45) == 9
    async with process("workers", cluster.environ):
        if not point.startswith("open"):
            asked = await following.until("qlaud.approval_required")
            await approve_without_a_wake_up(cluster, thread, asked)
        events = await following.end()
    assert events[-1]["status"] == "completed"
    assert said(after_rewinds(events)) == "firstsecond"
    assert list(cluster.webhook.calls.values()) == [1]
    connection = await connect(cluster.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT state, approved FROM tool_calls c JOIN turns t ON t.id = c.turn_id WHERE thread_id = $1",
            parse_uuid(thread),
        )
        assert row is not None
        assert tuple(row) == ("done", True)
        charged = "SELECT count(*) FROM usage_events WHERE key_id::text = $1"
        assert await connection.fetchval(charged, key_id) == 2
    finally:
        await connection.close()


async def approve_without_a_wake_up(cluster: Cluster, thread: str, asked: dict) -> None:
    """What a front door does that dies behind the commit."""
    thread_id = parse_uuid(thread)
    assert thread_id is not None
    pool = await open_pool(cluster.database_url)
    try:
        key = await pool.fetchval("SELECT id FROM keys WHERE is_master")
        await decide(pool, thread_id, asked["tool_use_id"], Decision(approve=True, key_id=key))
    finally:
        await pool.close()
