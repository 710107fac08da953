"""A thread may become as long as it likes: its model always gets what fits, and nothing else changes."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, process, running_cluster, script
from redis.asyncio import Redis

from qlaud_actors.conversation.log import log_key
from qlaud_actors.db.pool import connect
from qlaud_actors.providers.catalog import Catalog

WINDOW = 8_192
MARK = ', "cache_control": {"type": "ephemeral"}'
TURNS = 2_000
OWN = """
slug = "{provider}"
[[models]]
slug = "{model}"
context_window = 8192
max_output_tokens = 4096
"""


@pytest.fixture
async def cluster(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """One front door without a worker, and models of 8k tokens on both wires."""
    for provider, model in (("anthropic", MODEL), ("openai", OPENAI_MODEL)):
        (tmp_path / f"{provider}.toml").write_text(OWN.format(provider=provider, model=model))
    environ = {"QLAUD_CATALOG_DIR": str(tmp_path), "QLAUD_LEASE_SECONDS": "1"}
    async with running_cluster(database_url, redis_url, workers=0, **environ) as cluster:
        catalog = Catalog.load({})
        cluster.scripted.windows = {catalog.resolve(m).upstream: WINDOW for m in (MODEL, OPENAI_MODEL)}
        yield cluster


def old_turn(n: int) -> list[tuple[str, Any]]:
    """A question, a call, its result and an answer; some calls were never answered."""
    call = {"type": "tool_use", "id": f"toolu_{n}", "name": "lookup", "input": {"n": n}}
    found = f"row {n}: " + "data " * (n % 150)
    result = {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": found}
    said = [("user", f"What is number {n}? " + "ä" * (n % 40)), ("assistant", [call])]
    if n % 97:
        said += [("user", [result]), ("assistant", [{"type": "text", "text": f"Number {n} is fine."}])]
    return said


async def fill(cluster: Cluster, thread: str, turns: int) -> int:
    """Let a thread have had so many turns; returns its last seq."""
    connection = await connect(cluster.database_url)
    try:
        said = [message for n in range(turns) for message in old_turn(n)]
        await connection.execute(
            "INSERT INTO messages (thread_id, seq, role, content, request_id)"
            " SELECT $1, n, role, content::json, 'old' FROM unnest($2::text[], $3::text[]) WITH ORDINALITY"
            " AS u(role, content, n)",
            *(uuid.UUID(thread), [role for role, _ in said], [json.dumps(content) for _, content in said]),
        )
        await connection.execute(
            "UPDATE threads SET last_seq = $2 WHERE id = $1", uuid.UUID(thread), len(said)
        )
    finally:
        await connection.close()
    return len(said)


async def rows(cluster: Cluster, query: str, *args: Any) -> list[Any]:
    """What is stored."""
    connection = await connect(cluster.database_url)
    try:
        return await connection.fetch(query, *args)
    finally:
        await connection.close()


async def more_turns(user: Api, thread: str, tool: str, model: str, numbers: range) -> list[dict]:
    """Turns with a tool call each; all of their events."""
    seen = []
    for n in numbers:
        asked = script(
            {"tools": [{"name": "lookup", "input": {"n": n, "text": "x" * 700}}]},
            {"text": f"Answer {n}. " + "word " * 60},
            say=f"Question {n}? " + "please " * 30,
        )
        seen += [e async for e in user.stream(thread, asked, model=model, tools=[tool])]
    return seen


async def test_two_thousand_turns_go_on_with_an_8k_model(cluster: Cluster) -> None:
    """Fifty more turns with tools: no refusal, rows alternate, the books are the provider's bill."""
    async with process("workers", {**cluster.environ, "QLAUD_LEASE_SECONDS": "10"}):
        tool = await cluster.webhook_tool()
        user, key_id = await cluster.key(max_spend_usd=100)
        thread = (await user.post("/v1/threads", {}))["id"]
        old = await fill(cluster, thread, TURNS)
        seen = await more_turns(user, thread, tool, MODEL, range(46))
        seen += await more_turns(user, thread, tool, OPENAI_MODEL, range(46, 50))
        ends = [e for e in seen if e["type"] == "qlaud.done"]
        assert [e["status"] for e in ends] == ["completed"] * 50
        bill = cluster.scripted.bill()
        assert bill["refusals"] == []
        compactions = [e for e in seen if e["type"] == "qlaud.compaction"]
        pieces = await rows(cluster, "SELECT * FROM compactions ORDER BY version")
        told = f"{len(compactions)} compactions, {len(pieces)} versions, {bill['requests']} calls upstream"
        sys.stdout.write(f"\n50 turns after 2,000: {told}\n")
        assert 2 <= len(compactions) <= 25
        assert new_beginnings(cluster) <= len(compactions) + 1  # and one where the model changes
        new = await rows(cluster, "SELECT role FROM messages WHERE seq > $1 ORDER BY seq", old)
        assert [row["role"] for row in new] == ["user", "assistant"] * 100
        await books_are_the_bill(cluster, bill)
        page = await user.get(f"/v1/threads/{thread}/messages?limit=1")
        assert page["data"][0]["content"] == old_turn(0)[0][1]
        assert page["compaction"]["summary"].startswith("They spoke of")
        assert page["compaction"]["summarized_through_seq"] > old
        usage = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
        assert usage["request_count"] == bill["requests"]


def new_beginnings(cluster: Cluster) -> int:
    """How many requests of turns did not begin as the one before: what a provider keeps is lost."""
    said, count = "[", 0
    for asked in cluster.scripted.requests():
        if not asked["body"].get("tools"):
            continue
        before, said = said, json.dumps(asked["body"]["messages"])[:-1].replace(MARK, "")
        count += not said.startswith(before)
    return count


async def books_are_the_bill(cluster: Cluster, bill: dict[str, Any]) -> None:
    """What was charged is what the provider counted, summaries included."""
    (sums,) = await rows(
        cluster,
        "SELECT sum(input_tokens)::int AS input, sum(output_tokens)::int AS output,"
        " count(*) FILTER (WHERE purpose = 'compaction') AS summaries,"
        " (SELECT count(*) FROM compactions WHERE usage_event_id IS NOT NULL) AS written FROM usage_events",
    )
    assert (sums["input"], sums["output"]) == (bill["input"], bill["output"])
    assert sums["summaries"] == sums["written"] > 0


def worker(cluster: Cluster, **environ: str) -> Any:
    """A worker that takes over what is a second old."""
    return process("workers", {**cluster.environ, **environ})


async def long_thread(cluster: Cluster, **fields: Any) -> tuple[Api, str, str]:
    """A user, its key and its thread of sixty turns, which is more than the model holds."""
    user, key_id = await cluster.key(**fields)
    thread = (await user.post("/v1/threads", {}))["id"]
    await fill(cluster, thread, 60)
    return user, key_id, thread


POINTS = ("open_summary after 2", "settle_summary before 2")


async def test_a_dying_worker_pays_no_summary_twice(cluster: Cluster) -> None:
    """Killed around a summary, the next worker goes on behind the last one that was saved."""
    user, _, thread = await long_thread(cluster)
    for number, point in enumerate(POINTS):
        cluster.scripted.reset()
        if number:
            await rows(cluster, "DELETE FROM compactions RETURNING 1")
        async with process("workers", cluster.environ, dies_at=point) as dying:
            asking = asyncio.create_task(user.turn(thread, script({"text": "ok"})))
            assert await asyncio.wait_for(dying.wait(), 20) == 9
        async with worker(cluster):
            assert (await asyncio.wait_for(asking, 30))["content"][0]["text"] == "ok"
        versions = await rows(cluster, "SELECT * FROM compactions ORDER BY version")
        assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
        bill = cluster.scripted.bill()
        repeated = "settle_summary before" in point
        assert bill["requests"] == len(versions) + 1 + repeated, point
        charged = "SELECT 1 FROM usage_events WHERE purpose = 'compaction' AND id = ANY ($1)"
        ids = [row["usage_event_id"] for row in versions]
        assert len(await rows(cluster, charged, ids)) == len(set(ids)) == len(versions)
        assert await rows(cluster, "SELECT 1 FROM holds") == []


async def test_who_reads_it_later_is_told_the_same(cluster: Cluster) -> None:
    """Redis has lost the stream: Postgres tells the compaction in its place; tokens agree with the cost."""
    user, key_id, thread = await long_thread(cluster, max_spend_usd=5)
    redis = Redis.from_url(cluster.redis_url)
    async with worker(cluster), redis:
        tool = await cluster.webhook_tool()
        asked = script({"tools": [{"name": "lookup", "input": {}}]}, {"text": "ok"})
        seen = [e async for e in user.stream(thread, asked, tools=[tool])]
        path = f"/v1/threads/{thread}/turns/{seen[-1]['turn_id']}"
        assert await redis.delete(log_key(uuid.UUID(seen[-1]["turn_id"])))
        again = [e async for e in user.events("GET", f"{path}/stream")]
    kinds = [[e["type"] for e in told if e["type"].startswith("qlaud.")] for told in (seen, again)]
    assert kinds[0][0] == kinds[1][0] == "qlaud.compaction"
    assert kinds[1] == [kind for number, kind in enumerate(kinds[0]) if kind != kinds[0][number - 1]]
    moves = [[e for e in told if e["type"] == "qlaud.compaction"] for told in (seen, again)]
    assert {**moves[0][-1], "cost_micros": 0, "_id": None} == {**moves[1][0], "cost_micros": 0}
    turn = await user.get(path)
    assert turn["usage"] == seen[-1]["usage"] == again[-1]["usage"]
    spent = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
    assert turn["cost_micros"] == spent["cost_micros"]
    counts = turn["usage"], turn["usage"]["compaction"]
    assert counts[1]["input_tokens"] > 0
    for name in ("output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
        assert sum(count[name] for count in counts) == spent[name]
    read = [sum(n for name, n in count.items() if name.endswith("input_tokens")) for count in counts]
    assert sum(read) == spent["input_tokens"]


async def test_without_money_for_a_summary_the_turn_goes_on(cluster: Cluster) -> None:
    """The oldest turns are left out, and everybody is told; the cap holds."""
    user, key_id, thread = await long_thread(cluster, max_spend_usd=0.013)
    async with worker(cluster):
        seen = [e async for e in user.stream(thread, script({"text": "ok"}), tools=[])]
    assert [e["omitted"] for e in seen if e["type"] == "qlaud.compaction"] == [True]
    assert seen[-1]["status"] == "completed"
    bill = cluster.scripted.bill()
    assert (bill["requests"], bill["refusals"]) == (1, [])
    told = (await user.get(f"/v1/threads/{thread}/messages?limit=1"))["compaction"]
    assert (told["omitted"], told["model"], told["cost_micros"], told["version"]) == (True, None, 0, 1)
    assert told["summary"] in json.dumps(cluster.scripted.requests()[0]["body"]["messages"])
    assert (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["cost_micros"] <= 13_000


async def test_what_cannot_fit_is_refused_and_costs_nothing(cluster: Cluster) -> None:
    """A long thread whose compaction is off, and a message that is longer than the window; both heal."""
    user, key_id, thread = await long_thread(cluster)
    asked = {"model": MODEL, "max_tokens": 256, "content": script({"text": "ok"})}
    long = {**asked, "content": "word " * 20_000}
    path = f"/v1/threads/{thread}"
    assert (await user.request("PATCH", path, {"compaction": "off"}))[1]["compaction"] == "off"
    async with worker(cluster):
        for setting, body in (("off", asked), ("auto", long)):
            assert (await user.request("PATCH", path, {"compaction": setting}))[0] == 200
            for stream in (False, True):
                status, refused = await user.request("POST", f"{path}/messages", {**body, "stream": stream})
                assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
        assert (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["request_count"] == 0
        assert (await user.post(f"{path}/messages", asked))["content"][0]["text"] == "ok"
    assert cluster.scripted.bill()["refusals"] == []


async def test_a_cheap_model_writes_the_summaries_where_one_is_named(cluster: Cluster) -> None:
    """By the operator for all, by a thread for itself; a branch keeps what was summarised."""
    user, _, thread = await long_thread(cluster)
    other = (await user.post("/v1/threads", {"compaction_model": OPENAI_MODEL}))["id"]
    await fill(cluster, other, 60)
    async with worker(cluster, QLAUD_COMPACTION_MODEL="gpt-5.4-nano"):
        for asked in (thread, other):
            await user.turn(asked, script({"text": "ok"}))
        found = await rows(cluster, "SELECT DISTINCT model FROM compactions ORDER BY model")
        assert [row["model"] for row in found] == [OPENAI_MODEL, "gpt-5.4-nano"]
        calls = cluster.scripted.bill()["requests"]
        branch = (await user.post(f"/v1/threads/{thread}/copy", {}))["id"]
        await user.turn(branch, script({"text": "ok"}))
        assert cluster.scripted.bill()["requests"] == calls + 1
    pages = [await user.get(f"/v1/threads/{one}/messages?limit=1") for one in (thread, branch)]
    assert pages[0]["compaction"]["summary"] == pages[1]["compaction"]["summary"]
    assert await user.request("DELETE", f"/v1/threads/{thread}")
    left = await rows(cluster, "SELECT DISTINCT thread_id::text AS id FROM compactions")
    assert {row["id"] for row in left} == {other, branch}
