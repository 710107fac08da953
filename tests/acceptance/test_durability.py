"""No turn is lost: workers are killed, Redis is emptied, front doors and workers are many."""

import asyncio
import signal

import redis.asyncio
from cluster import MODEL, Api, Cluster, running_cluster, script

from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.bound import input_bound
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import Message, ModelRequest
from qlaud_actors.usage import WorstCase


async def figures(cluster: Cluster, query: str) -> int:
    """One number from the database."""
    connection = await connect(cluster.database_url)
    try:
        return int(await connection.fetchval(query) or 0)
    finally:
        await connection.close()


async def test_a_killed_workers_turn_is_finished_by_another(database_url: str, redis_url: str) -> None:
    """In mid-turn, kill -9, a tool call running: the open stream goes on, no call twice, one charge."""
    async with running_cluster(database_url, redis_url, workers=1, QLAUD_LEASE_SECONDS="3") as cluster:
        tool = await cluster.webhook_tool()
        user, key_id = await cluster.key(max_spend_usd=1)
        thread = (await user.post("/v1/threads", {}))["id"]
        cluster.webhook.delay = 3.0
        lines = script(
            {"text": "let me see", "tools": [{"name": "lookup", "input": {"n": 1}}]}, {"text": "all done"}
        )
        events: list[dict] = []

        async def follow() -> None:
            events.extend([event async for event in user.stream(thread, lines, tools=[tool])])

        following = asyncio.create_task(follow())
        await asyncio.wait_for(cluster.webhook.arrived.wait(), 10)
        cluster.workers[0].kill()
        killed = asyncio.get_running_loop().time()
        async with running_cluster_worker(cluster):
            await asyncio.wait_for(following, 20)
        took = asyncio.get_running_loop().time() - killed
        assert took < 20
        assert events[-1]["type"] == "qlaud.done"
        assert events[-1]["status"] == "completed"
        rewinds = [e for e in events if e["type"] == "qlaud.rewind"]
        assert len(rewinds) == 1
        kept = [e for e in events if e["_id"] <= rewinds[0]["to_seq"] or e["_id"] > rewinds[0]["_id"]]
        said = "".join(e["delta"]["text"] for e in kept if e.get("delta", {}).get("type") == "text_delta")
        assert said == "let me seeall done"
        outcome = next(e for e in kept if e["type"] == "qlaud.tool_dispatch_done")
        assert outcome["is_error"] is True
        assert "unknown" in outcome["output"]
        assert set(cluster.webhook.calls.values()) == {1}
        usage = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
        assert usage["request_count"] == 2
        bill = cluster.scripted.bill()
        assert usage["output_tokens"] == bill["output"]
        assert await figures(cluster, "SELECT count(*) FROM holds") == 0


async def test_a_step_that_was_lost_is_charged_once(database_url: str, redis_url: str) -> None:
    """A kill -9 in the middle of an answer: the step is taken again, the client is told to rewind."""
    async with running_cluster(database_url, redis_url, workers=2, QLAUD_LEASE_SECONDS="3") as cluster:
        user, key_id = await cluster.key(max_spend_usd=1)
        thread = (await user.post("/v1/threads", {}))["id"]
        text = " ".join(f"w{n}" for n in range(40))
        events = []
        async for event in user.stream(thread, script({"text": text, "delay_ms": 50})):
            events.append(event)
            if len(events) == 8:
                owner = await owner_index(cluster)
                cluster.workers[owner].kill()
        assert events[-1]["status"] == "completed"
        rewind = next(e for e in events if e["type"] == "qlaud.rewind")
        assert rewind["to_seq"] == 0
        after = [e for e in events if e["_id"] > rewind["_id"]]
        assert (
            "".join(e["delta"]["text"] for e in after if e.get("delta", {}).get("type") == "text_delta")
            == text
        )
        assert (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["request_count"] == 1
        assert await figures(cluster, "SELECT held_nanos FROM budgets WHERE limit_nanos IS NOT NULL") == 0


async def owner_index(cluster: Cluster) -> int:
    """Which worker holds the only connection-owning turn: stop one, see whether events go on."""
    client = redis.asyncio.Redis.from_url(cluster.redis_url)
    try:
        for index, worker in enumerate(cluster.workers):
            worker.send_signal(signal.SIGSTOP)
            key = (await client.keys("qlaud:turn:*:log"))[0]
            before = await client.xlen(key)
            await asyncio.sleep(0.4)
            moved = await client.xlen(key) != before
            worker.send_signal(signal.SIGCONT)
            if not moved:
                return index
        raise AssertionError("no worker carries the turn")
    finally:
        await client.aclose()


def running_cluster_worker(cluster: Cluster):
    """One more worker for a cluster."""
    from cluster import process

    return process("workers", cluster.environ)


async def test_redis_emptied_in_mid_turn_loses_nothing(database_url: str, redis_url: str) -> None:
    """The open stream goes on, the turn completes, and who comes later reads all of it."""
    async with running_cluster(database_url, redis_url) as cluster:
        user, _ = await cluster.key()
        thread = (await user.post("/v1/threads", {}))["id"]
        text = " ".join(f"w{n}" for n in range(40))
        client = redis.asyncio.Redis.from_url(redis_url)
        events = []
        async for event in user.stream(thread, script({"text": text, "delay_ms": 30})):
            events.append(event)
            if len(events) == 8:
                await client.flushdb()
        await client.aclose()
        assert events[-1]["status"] == "completed"
        said = "".join(e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta")
        assert said == text
        path = f"/v1/threads/{thread}/turns/{events[-1]['turn_id']}/stream"
        told = [e async for e in user.events("GET", path)]
        said = "".join(e["delta"]["text"] for e in told if e.get("delta", {}).get("type") == "text_delta")
        assert said == text
        rows = (await user.get(f"/v1/threads/{thread}/messages"))["data"]
        assert rows[-1]["content"] == [{"type": "text", "text": text}]


async def test_a_worker_that_stops_hands_its_turns_over(database_url: str, redis_url: str) -> None:
    """SIGTERM in mid-turn: another worker goes on at once, and it does not count as a failure."""
    environ = {"QLAUD_DRAIN_SECONDS": "0"}
    async with running_cluster(database_url, redis_url, workers=1, **environ) as cluster:
        user, key_id = await cluster.key(max_spend_usd=1)
        thread = (await user.post("/v1/threads", {}))["id"]
        text = " ".join(f"w{n}" for n in range(60))
        events = []
        async with running_cluster_worker(cluster):
            async for event in user.stream(thread, script({"text": text, "delay_ms": 30})):
                events.append(event)
                if len(events) == 8:
                    cluster.workers[0].send_signal(signal.SIGTERM)
        assert events[-1]["status"] == "completed"
        turn = await user.get(f"/v1/threads/{thread}/turns/{events[-1]['turn_id']}")
        assert turn["attempts"] == 1
        assert (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["request_count"] == 1


async def test_many_threads_over_two_doors_and_two_workers(database_url: str, redis_url: str) -> None:
    """200 threads × 5 turns: order kept per thread, every figure agrees with the upstream's own."""
    async with running_cluster(database_url, redis_url, apis=2, workers=2) as cluster:
        users = [await cluster.key(door) for door in (0, 1)]

        async def converse(number: int) -> None:
            user, other = users[number % 2][0], users[(number + 1) % 2][0]
            user = type(user)(user.session, other.base_url, user.key) if number % 3 == 0 else user
            thread = (await user.post("/v1/threads", {}))["id"]
            await asyncio.gather(*(send(user, thread, turn) for turn in range(5)))
            rows = (await user.get(f"/v1/threads/{thread}/messages"))["data"]
            assert [row["role"] for row in rows] == ["user", "assistant"] * 5
            for asked, answered in zip(rows[::2], rows[1::2], strict=True):
                assert f"answer {asked['content'].split()[0]}" == answered["content"][0]["text"]

        async def send(user, thread: str, turn: int) -> None:
            content = script({"text": f"answer t{turn}"}, say=f"t{turn}")
            if turn % 2:
                answer = await user.turn(thread, content, max_tokens=32)
                assert answer["content"][0]["text"] == f"answer t{turn}"
            else:
                events = [e async for e in user.stream(thread, content, max_tokens=32)]
                assert events[-1]["status"] == "completed"

        slots = asyncio.Semaphore(40)

        async def bounded(number: int) -> None:
            async with slots:
                await converse(number)

        await asyncio.gather(*(bounded(number) for number in range(200)))
        bill = cluster.scripted.bill()
        assert bill["requests"] == 1000
        assert await figures(cluster, "SELECT count(*) FROM usage_events") == 1000
        assert await figures(cluster, "SELECT count(*) FROM steps WHERE state = 'done'") == 1000
        assert await figures(cluster, "SELECT sum(input_tokens) FROM usage_events") == bill["input"]
        assert await figures(cluster, "SELECT sum(output_tokens) FROM usage_events") == bill["output"]
        assert await figures(cluster, "SELECT count(*) FROM holds") == 0
        total = 0
        for _, key_id in users:
            total += (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["request_count"]
        assert total == 1000


def worst_case(content: str, max_tokens: int) -> int:
    """What one turn of this content holds, in nano-USD."""
    model = Catalog.load({"ANTHROPIC_API_KEY": "x"}).resolve(MODEL)
    request = ModelRequest(MODEL, (Message("user", content),), max_tokens)
    return WorstCase(model.price, input_bound(request, model), max_tokens, 700).nanos()


async def test_a_cap_is_never_passed(database_url: str, redis_url: str) -> None:
    """500 requests at once on a key with room for 10 worst cases: judged by the upstream's own count."""
    async with running_cluster(database_url, redis_url, apis=2, workers=2) as cluster:
        content = script({"text": "word " * 100})
        limit = 10 * worst_case(content, 100)
        user, key_id = await cluster.key(max_spend_usd=limit / 1e9)
        threads = [(await user.post("/v1/threads", {}))["id"] for _ in range(500)]

        async def ask(number: int) -> int:
            door = cluster.apis[number % 2]
            asker = Api(user.session, door.base_url, user.key)
            body = {"model": MODEL, "max_tokens": 100, "content": content, "tools": []}
            status, answer = await asker.request("POST", f"/v1/threads/{threads[number]}/messages", body)
            assert status in (200, 402), answer
            if status == 402:
                assert answer["error"]["code"] == "key_cap_exceeded"
                assert "key_cap_exceeded" in answer["error"]["message"]
            return status

        statuses = await asyncio.gather(*(ask(number) for number in range(500)))
        bill = cluster.scripted.bill()
        assert statuses.count(200) == bill["requests"] >= 10
        assert statuses.count(402) == 500 - bill["requests"]
        key = await cluster.admin.get(f"/v1/keys/{key_id}")
        assert key["held_micros"] == 0
        spent = await figures(cluster, "SELECT spent_nanos FROM budgets WHERE limit_nanos IS NOT NULL")
        assert 0 < spent <= limit
        picos = [row["input"] * 1_000_000 + row["output"] * 5_000_000 for row in bill["rows"]]
        assert spent == sum(charge_nanos(cost, 700) for cost in picos)
