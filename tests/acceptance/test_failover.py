"""Another model answers when one does not, is held for before it is asked, and is what the bill says.

Nobody listens where Anthropic should be; OpenAI is the scripted server.
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator

import pytest
from cluster import MODEL, OPENAI_MODEL, Cluster, free_port, running_cluster, script

from qlaud_actors.db.pool import Connection, connect

DEAR = "gpt-6-astra"


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door and one worker with short leases."""
    nobody = f"http://127.0.0.1:{free_port()}"
    async with running_cluster(
        database_url, redis_url, ANTHROPIC_BASE_URL=nobody, QLAUD_LEASE_SECONDS="1"
    ) as cluster:
        yield cluster


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Connection]:
    """A look at the rows."""
    connection = await connect(database_url)
    yield connection
    await connection.close()


def message(**fields: object) -> dict[str, object]:
    words = script({"text": "From somebody else."})
    return {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": words}], **fields}


async def attempts(database: Connection) -> list[tuple[str, str, int]]:
    rows = await database.fetch("SELECT provider_slug, model_slug, status FROM attempts ORDER BY number")
    return [tuple(row) for row in rows]


async def until_held(database: Connection, holds: int) -> None:
    async with asyncio.timeout(15):
        while True:
            if await database.fetchval("SELECT count(*) FROM holds") == holds:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_relayed_request_is_answered_by_the_next_model(
    cluster: Cluster, database: Connection, path: str, stream: bool
) -> None:
    """Both surfaces, streamed or not: the answer names who gave it, and so do bill and attempts."""
    user, _ = await cluster.key(max_spend_usd=1)
    body = message(models=[OPENAI_MODEL], stream=stream)
    async with user.session.post(
        user.base_url + path, json=body, headers={"x-api-key": user.key}
    ) as response:
        text = await response.text()
        assert response.status == 200, text
        assert response.headers["x-qlaud-resolved-model"] == OPENAI_MODEL
        assert response.headers["x-qlaud-provider"] == "openai"
    assert "somebody" in text
    assert "else." in text
    assert await attempts(database) == [("anthropic", MODEL, 502)]
    row = await database.fetchrow("SELECT id, model_slug, provider_slug, cost_nanos FROM usage_events")
    assert row is not None
    assert (row["model_slug"], row["provider_slug"]) == (OPENAI_MODEL, "openai")
    assert row["cost_nanos"] > 0
    assert await database.fetchval("SELECT call_id FROM attempts LIMIT 1") == row["id"]
    assert await database.fetchval("SELECT count(*) FROM holds") == 0
    assert "models" not in cluster.scripted.requests()[0]["body"]


async def test_a_turn_goes_on_with_the_next_model(cluster: Cluster, database: Connection) -> None:
    """Its step, its stream and its bill name the model that answered."""
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    events = [e async for e in user.stream(thread, script({"text": "Hello."}), models=[OPENAI_MODEL])]
    assert events[0]["message"]["model"] == OPENAI_MODEL
    assert events[-1]["type"] == "qlaud.done"
    assert events[-1]["cost_micros"] > 0
    turn_id = await database.fetchval("SELECT id FROM turns")
    turn = await user.get(f"/v1/threads/{thread}/turns/{turn_id}")
    assert [(s["model"], s["state"]) for s in turn["steps"]] == [(OPENAI_MODEL, "done")]
    row = await database.fetchrow("SELECT model_slug, step FROM usage_events")
    assert row is not None
    assert tuple(row) == (OPENAI_MODEL, 1)
    assert await attempts(database) == [("anthropic", MODEL, 502)]
    assert await database.fetchval("SELECT turn_id FROM attempts") == turn_id


async def test_a_fallback_that_is_too_dear_is_not_asked(cluster: Cluster, database: Connection) -> None:
    """The caller hears why the first one did not answer; nothing is held, nothing is charged."""
    user, _ = await cluster.key(max_spend_usd=0.004)
    status, answer = await user.request("POST", "/v1/messages", message(models=[DEAR], max_tokens=64))
    assert status == 502, answer
    assert cluster.scripted.requests() == []
    assert [row[2] for row in await attempts(database)][1:2] == [402]
    assert await database.fetchval("SELECT count(*) FROM holds") == 0
    thread = (await user.post("/v1/threads", {}))["id"]
    status, answer = await user.request(
        "POST",
        f"/v1/threads/{thread}/messages",
        {"model": MODEL, "max_tokens": 64, "content": "Hi", "models": [DEAR], "tools": []},
    )
    assert status == 502, answer
    assert await database.fetchval("SELECT count(*) FROM holds") == 0
    assert await database.fetchval("SELECT count(*) FROM usage_events") == 0


async def test_a_key_falls_back_only_to_what_it_may_use(cluster: Cluster) -> None:
    """A fallback that the key may not use is passed over; one that nobody knows is refused."""
    user, _ = await cluster.key(allowed_models=[MODEL])
    status, _ = await user.request("POST", "/v1/messages", message(models=[OPENAI_MODEL]))
    assert status == 502
    thread = (await user.post("/v1/threads", {}))["id"]
    turn = {"model": MODEL, "max_tokens": 64, "content": "Hi"}
    path = f"/v1/threads/{thread}/messages"
    assert (await user.request("POST", path, {**turn, "models": [OPENAI_MODEL]}))[0] == 502
    assert cluster.scripted.requests() == []
    assert (await user.request("POST", path, {**turn, "models": ["no-such"]}))[0] == 404
    assert (await user.request("POST", "/v1/messages", message(models=["no-such"])))[0] == 404


async def test_a_turn_stops_at_the_most_that_it_may_spend(cluster: Cluster, database: Connection) -> None:
    """Its steps together cost no more; a turn that cannot pay its first step is refused with figures."""
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    tool = await cluster.webhook_tool()
    steps = [{"tools": [{"name": "lookup"}], "text": "word " * 50}] * 8
    path, limit = f"/v1/threads/{thread}/messages", 0.004
    body = {"model": OPENAI_MODEL, "max_tokens": 256, "content": script(*steps), "tools": [tool]}
    status, answer = await cluster.admin.request("POST", path, {**body, "max_turn_usd": limit})
    assert (status, answer["error"]["code"]) == (402, "turn_budget_exceeded")
    assert answer["error"]["scope"] == "turn"
    spent = await database.fetchval("SELECT cost_nanos FROM turns")
    assert 0 < spent <= limit * 1e9
    assert spent == await database.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_events")
    for small in (0, 0.0000001):
        status, answer = await user.request("POST", path, {**body, "tools": [], "max_turn_usd": small})
        assert (status, answer["error"]["code"]) == (402, "turn_budget_exceeded")
    assert (await user.request("POST", path, {**body, "max_turn_usd": "1"}))[0] == 400


async def test_tokens_of_turns_and_answers_count_in_the_minute(cluster: Cluster) -> None:
    """Both paths of a key share its tokens per minute; the headers of an answer tell them."""
    user, _ = await cluster.key(tpm=2_000)
    thread = (await user.post("/v1/threads", {}))["id"]
    long = script({"text": "word " * 1_500})
    await user.turn(thread, long, model=OPENAI_MODEL, max_tokens=1_900)
    status, answer = await user.request("POST", "/v1/messages", message(model=OPENAI_MODEL))
    assert status == 429, answer
    assert answer["error"]["scope"] == "tokens"
    body = {"model": OPENAI_MODEL, "max_tokens": 1_900, "content": "Hi"}
    assert (await user.request("POST", f"/v1/threads/{thread}/messages", body))[0] == 429
    other, _ = await cluster.key(tpm=2_000)
    async with other.session.post(
        other.base_url + "/v1/messages",
        json=message(model=OPENAI_MODEL),
        headers={"x-api-key": other.key},
    ) as response:
        assert response.status == 200
        assert int(response.headers["x-ratelimit-remaining-tokens"]) < 2_000


async def test_a_killed_front_door_leaves_no_hold(cluster: Cluster, database: Connection) -> None:
    """What it held for calls in flight is given back within seconds, though nobody can settle them."""
    user, key_id = await cluster.key(max_spend_usd=1)
    words = [{"role": "user", "content": script({"first_byte_ms": 60_000})}]
    slow = message(model=OPENAI_MODEL, messages=words)
    calls = [asyncio.create_task(user.request("POST", "/v1/messages", slow)) for _ in range(5)]
    await until_held(database, len(calls))
    cluster.doors[0].send_signal(signal.SIGKILL)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    await until_held(database, 0)
    budget = await database.fetchrow("SELECT * FROM budgets WHERE key_id = $1", uuid.UUID(key_id))
    assert budget is not None
    assert (budget["held_nanos"], budget["spent_nanos"]) == (0, 0)
