"""A thread may become as long as it likes: its model always gets what fits, and nothing else changes."""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, process, running_cluster, script

from qlaud_actors.db.pool import connect
from qlaud_actors.providers.catalog import Catalog

WINDOW = 8_192
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
        new = await rows(cluster, "SELECT role FROM messages WHERE seq > $1 ORDER BY seq", old)
        assert [row["role"] for row in new] == ["user", "assistant"] * 100
        await books_are_the_bill(cluster, bill)
        page = await user.get(f"/v1/threads/{thread}/messages?limit=1")
        assert page["data"][0]["content"] == old_turn(0)[0][1]
        assert page["compaction"]["summary"].startswith("They spoke of")
        assert page["compaction"]["summarized_through_seq"] > old
        usage = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
        assert usage["request_count"] == bill["requests"]


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
