"""Calls under the caller's own keys, and large results: in a real Postgres, and through the front door."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from front_door import Door, front_door

from qlaud_actors.connectors.store import Vault
from qlaud_actors.conversation.threads import purge
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_call_id, new_uuid
from qlaud_actors.tools import kept
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.large import MAX_KEPT_BYTES
from qlaud_actors.tools.model import CallContext, Cut, Tool, ToolCall, ToolOutcome

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
INSERT_THREAD = "INSERT INTO threads (id, account_id, key_id) VALUES ($1, $2, $3)"
WRITE = Tool("t", "t", "d", {"type": "object"}, "webhook")
READ = replace(WRITE, effect="read")


async def new_key(pool: Pool) -> uuid.UUID:
    """A standard key."""
    key = new_uuid()
    await pool.execute(
        "INSERT INTO keys (id, account_id, name, scope, prefix) VALUES ($1, $2, 'k', 'standard', 'p')",
        key,
        ACCOUNT,
    )
    return key


@pytest.fixture
async def context(pool: Pool) -> CallContext:
    """A caller over REST."""
    return CallContext(ACCOUNT, "req_1", key_id=await new_key(pool))


def call(**arguments: Any) -> ToolCall:
    """A call with a fresh id."""
    call_id = new_call_id()
    return ToolCall(call_id, call_id, "t", arguments)


async def test_the_first_outcome_is_answered_again(pool: Pool, context: CallContext) -> None:
    """Same key and arguments: the first outcome; other arguments: refused; API keys and threads are apart."""
    calls = KeptCalls(pool)
    first = call(a=1, b=2)
    assert await calls.begin("k", first, WRITE, context) == first.id
    await calls.finish("k", first.id, ToolOutcome({"n": 1}), context)
    assert await calls.begin("k", call(b=2, a=1), WRITE, context) == ToolOutcome({"n": 1})
    other = await calls.begin("k", call(a=2), WRITE, context)
    assert isinstance(other, ToolOutcome)
    assert other.status == "refused"
    stranger = replace(context, key_id=await new_key(pool))
    mine = call(a=1, b=2)
    assert await calls.begin("k", mine, WRITE, stranger) == mine.id
    thread = new_uuid()
    await pool.execute(INSERT_THREAD, thread, ACCOUNT, context.key_id)
    inside = replace(context, thread_id=thread)
    assert await calls.begin("k", mine, WRITE, inside) == mine.id
    await calls.finish("k", mine.id, ToolOutcome({"n": 2}), inside)
    assert await calls.begin("k", mine, WRITE, inside) == ToolOutcome({"n": 2})


async def test_a_cut_outcome_says_again_where_the_rest_is(pool: Pool, context: CallContext) -> None:
    """The same call again has the same `result_id`, and the whole can be read on; a new day begins anew."""
    calls, first = KeptCalls(pool), call()
    outcome = ToolOutcome("the begin…", cut=Cut(first.id, 9, 30_000))
    await calls.begin("k", first, WRITE, context)
    await calls.finish("k", first.id, outcome, context)
    assert await calls.begin("k", call(), WRITE, context) == outcome
    await pool.execute("UPDATE keyed_calls SET started_at = now() - interval '25 hours'")
    again = call()
    await calls.begin("k", again, WRITE, context)
    await calls.finish("k", again.id, ToolOutcome("short"), context)
    assert await calls.begin("k", call(), WRITE, context) == ToolOutcome("short")


async def test_a_process_dies_between_begin_and_finish(pool: Pool, context: CallContext) -> None:
    """A write that was begun is unknown and not repeated; a read is repeated under the first call's id."""
    calls, first = KeptCalls(pool), call()
    assert await calls.begin("k", first, WRITE, context) == first.id
    again = await calls.begin("k", call(), WRITE, context)
    assert isinstance(again, ToolOutcome)
    assert again.status == "unknown"
    assert await calls.begin("k", call(), READ, context) == first.id


async def test_one_of_many_at_once_is_made(pool: Pool, context: CallContext) -> None:
    """Of writes under one key at the same moment one goes out."""
    begun = await asyncio.gather(*(KeptCalls(pool).begin("k", call(), WRITE, context) for _ in range(10)))
    assert len([one for one in begun if isinstance(one, str)]) == 1


async def test_a_call_that_was_not_made_frees_its_key(pool: Pool, context: CallContext) -> None:
    """Who connects the account and tries again with the same key is not answered with the refusal."""
    calls, first = KeptCalls(pool), call()
    await calls.begin("k", first, WRITE, context)
    await calls.finish("k", first.id, ToolOutcome("connect it", True, "not_connected"), context)
    second = call()
    assert await calls.begin("k", second, WRITE, context) == second.id


async def test_keys_and_results_are_forgotten(pool: Pool, context: CallContext) -> None:
    """After a day a key begins anew, after a week a result is gone; the upkeep deletes both."""
    calls, first = KeptCalls(pool), call()
    await calls.begin("k", first, WRITE, context)
    await calls.keep("r", "text", context)
    await pool.execute("UPDATE keyed_calls SET started_at = now() - interval '25 hours'")
    await pool.execute("UPDATE tool_results SET expires_at = now() - interval '1 second'")
    assert await calls.read("r", context) is None
    second = call(other=True)
    assert await calls.begin("k", second, WRITE, context) == second.id
    await pool.execute("UPDATE keyed_calls SET started_at = now() - interval '25 hours'")
    await kept.delete_old(pool)
    assert await pool.fetchval("SELECT count(*) FROM keyed_calls") == 0
    assert await pool.fetchval("SELECT count(*) FROM tool_results") == 0


async def test_a_result_is_read_where_it_belongs(pool: Pool, context: CallContext) -> None:
    """A thread reads its own results, outside of threads a key its own; they go with the thread."""
    assert context.key_id is not None
    threads = [new_uuid(), new_uuid()]
    for thread in threads:
        await pool.execute(INSERT_THREAD, thread, ACCOUNT, context.key_id)
    inside, other = (replace(context, thread_id=thread) for thread in threads)
    calls = KeptCalls(pool)
    await calls.keep("in", "ü\x00", inside)
    await calls.keep("out", "x" * (MAX_KEPT_BYTES + 10), context)
    assert await calls.read("in", inside) == "ü\x00"
    assert await calls.read("in", other) is None
    assert await calls.read("in", context) == "ü\x00"
    assert await calls.read("out", inside) is None
    assert len(await calls.read("out", context) or "") == MAX_KEPT_BYTES
    assert await calls.read("in", replace(context, key_id=await new_key(pool))) is None
    await calls.begin("k", call(), WRITE, inside)
    await purge(pool, threads[0])
    assert await calls.read("in", context) is None
    assert await pool.fetchval("SELECT count(*) FROM keyed_calls") == 0


class Webhooks:
    """Answers with a lot, and counts."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """As `WebhookCaller.call`."""
        self.ids.append(call.id)
        return ToolOutcome("x" * 150_000 if call.input.get("much") else "done")


HOOK = {
    "name": "t",
    "description": "d",
    "input_schema": {"type": "object"},
    "webhook_url": "https://hooks.example/x",
}


@pytest.fixture
async def door(pool: Pool, vault: Vault) -> AsyncIterator[tuple[Door, Webhooks]]:
    """A front door with one tool."""
    webhooks = Webhooks()
    made = Dispatcher({"webhook": webhooks, "mcp": webhooks}, KeptCalls(pool))
    async with front_door(pool, vault=vault, dispatcher=made) as opened:
        await opened.ask("POST", "/v1/tools", HOOK)
        yield opened, webhooks


async def execute(door: Door, **made: Any) -> dict[str, Any]:
    """One call over REST."""
    status, answer = await door.ask("POST", "/v1/tools/execute", {"calls": [{"tool": "t", **made}]})
    assert status == 200
    return cast("dict[str, Any]", answer["results"][0])


async def test_rest_repeats_safely_and_reads_on(door: tuple[Door, Webhooks]) -> None:
    """Over REST a key makes a call once, and a cut result is read to its end."""
    opened, webhooks = door
    answers = [await execute(opened, args={"n": 1}, idempotency_key="once") for _ in range(2)]
    assert answers == [{"tool": "t", "status": "ok", "output": "done"}] * 2
    assert len(webhooks.ids) == 1
    refused = await execute(opened, args={"n": 2}, idempotency_key="once")
    assert (refused["status"], refused["is_error"]) == ("refused", True)
    large = await execute(opened, args={"much": True})
    args = {"result_id": large["result_id"], "offset": large["next_offset"]}
    page = await execute(opened, tool="qlaud/read_result", args=args)
    assert page["status"] == "ok"
    assert page["output"]["offset"] + len(page["output"]["text"]) == 150_000
    assert page["output"]["next_offset"] is None
    for result_id in ("call_x", "\x00"):
        gone = await execute(opened, tool="qlaud/read_result", args={"result_id": result_id})
        assert gone["status"] == "error"
    assert (await execute(opened, idempotency_key="a\x00b"))["status"] == "refused"
