"""A turn streams, remembers, uses tools, and is billed: the promises of the first page."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script
from fakes.mcp_double import TOKEN, listed, mcp_double

from qlaud_actors.db.pool import connect


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door, one worker."""
    async with running_cluster(database_url, redis_url) as cluster:
        yield cluster


def texts(events: list[dict]) -> str:
    return "".join(e["delta"]["text"] for e in events if e.get("delta", {}).get("type") == "text_delta")


async def test_a_turn_streams_and_is_remembered(cluster: Cluster) -> None:
    """The second turn knows the first; both are stored, billed and readable."""
    user, key_id = await cluster.key(max_spend_usd=1)
    thread = (await user.post("/v1/threads", {"metadata": {"a": 1}}))["id"]
    first = [e async for e in user.stream(thread, script({"text": "Hello, you."}))]
    assert texts(first) == "Hello, you."
    assert [e["_id"] for e in first] == list(range(1, len(first) + 1))
    done = first[-1]
    assert done["type"] == "qlaud.done"
    assert (done["iterations"], done["hit_max_iterations"], done["incomplete"]) == (1, False, False)
    assert done["seq"] == 2
    second = await user.turn(thread, script({"echo": True}))
    assert "Hello, you." in second["content"][0]["text"]
    rows = (await user.get(f"/v1/threads/{thread}/messages"))["data"]
    assert [(row["seq"], row["role"]) for row in rows] == [
        (1, "user"),
        (2, "assistant"),
        (3, "user"),
        (4, "assistant"),
    ]
    turn = await user.get(f"/v1/threads/{thread}/turns/{done['turn_id']}")
    assert turn["status"] == "completed"
    usage = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
    assert usage["request_count"] == 2
    assert usage["cost_micros"] > 0
    assert done["cost_micros"] == turn["cost_micros"] > 0


async def test_raw_bytes_follow_the_rules(cluster: Cluster) -> None:
    """Reference 1.5, rules 1 to 7, on the bytes of a stream with a tool call and difficult text."""
    tool = await cluster.webhook_tool()
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    text = 'Grüße, "Welt" 😀\nund \\ Ende'
    steps = ({"tools": [{"name": "lookup", "input": {"q": "ü"}}]}, {"text": text})
    body = {"model": MODEL, "max_tokens": 500, "content": script(*steps), "tools": [tool], "stream": True}
    async with user.session.post(
        f"{user.base_url}/v1/threads/{thread}/messages", json=body, headers={"x-api-key": user.key}
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        raw = await response.read()
    assert b"\r" not in raw
    assert raw.endswith(b"\n\n")
    datas = []
    for frame in raw.split(b"\n\n")[:-1]:
        data = [line for line in frame.split(b"\n") if line.startswith(b"data:")]
        if not data:
            assert all(line.startswith(b":") for line in frame.split(b"\n"))
            continue
        assert len(data) == 1
        assert data[0].startswith(b'data: {"type":"')
        datas.append(data[0][6:])
    for data in datas:
        value = json.loads(data)
        assert json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() == data
    deltas = [d for d in datas if b'"text_delta"' in d]
    assert deltas
    assert all(b'"delta":{"type":"text_delta","text":"' in d and d.endswith(b'"}}') for d in deltas)
    assert "".join(json.loads(d)["delta"]["text"] for d in deltas) == text
    assert "Grüße".encode() in raw
    assert b"\\u" not in raw


async def test_events_come_in_the_specified_order(cluster: Cluster) -> None:
    """Reference 5.6: brackets per iteration, dispatch events between them, one `qlaud.done` at the end."""
    tool = await cluster.webhook_tool()
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    calls = [{"name": "lookup", "input": {"n": n}} for n in range(3)]
    events = [e async for e in user.stream(thread, script({"tools": calls}, {"text": "ok"}), tools=[tool])]
    kinds = [e["type"] for e in events]
    assert kinds.count("qlaud.done") == 1
    assert kinds[-1] == "qlaud.done"
    assert kinds.count("qlaud.iteration_start") == 1
    assert events[kinds.index("qlaud.iteration_start")]["iteration"] == 2
    first_stop = kinds.index("message_stop")
    second_start = kinds.index("message_start", 1)
    between = kinds[first_stop + 1 : second_start]
    assert between == ["qlaud.tool_dispatch_start"] * 3 + ["qlaud.tool_dispatch_done"] * 3 + [
        "qlaud.iteration_start"
    ]
    for kind in ("qlaud.tool_dispatch_start", "qlaud.tool_dispatch_done"):
        of_kind = [e for e in events if e["type"] == kind]
        assert all(e["iteration"] == 1 and e["name"] == "lookup" for e in of_kind)
    starts = [e for e in events if e["type"] == "content_block_start"]
    assert [e["index"] for e in starts] == [0, 1, 2, 0]
    assert all("input_tokens" in e["message"]["usage"] for e in events if e["type"] == "message_start")
    assert len(cluster.webhook.calls) == 3
    roles = [r["role"] for r in (await user.get(f"/v1/threads/{thread}/messages"))["data"]]
    assert roles == ["user", "assistant", "user", "assistant"]


async def test_a_thread_speaks_to_models_of_both_wires(cluster: Cluster) -> None:
    """Tools and memory work on either wire, also when the model changes between turns."""
    tool = await cluster.webhook_tool("my/lookup")
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    for model in (MODEL, OPENAI_MODEL, MODEL):
        content = script({"tools": [{"name": "my/lookup", "input": {"m": model}}]}, {"text": f"by {model}"})
        answer = await user.turn(thread, content, model=model, tools=[tool])
        assert answer["content"] == [{"type": "text", "text": f"by {model}"}]
        assert answer["model"] == model
    assert [b["name"] for b in cluster.webhook.bodies] == ["my/lookup"] * 3
    assert [b["input"]["m"] for b in cluster.webhook.bodies] == [MODEL, OPENAI_MODEL, MODEL]


async def test_dynamic_mode_finds_and_runs_a_tool(cluster: Cluster) -> None:
    """Without `tools` the model has the four meta-tools and reaches the webhook through them."""
    await cluster.webhook_tool("crm/find_customer", description="Finds a customer by name.")
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {"end_user_id": "u1"}))["id"]
    content = script(
        {"tools": [{"name": "qlaud_search_tools", "input": {"intent": "find a customer"}}]},
        {
            "tools": [
                {
                    "name": "qlaud_multi_execute",
                    "input": {"calls": [{"tool": "crm/find_customer", "args": {"name": "Ada"}}] * 2},
                }
            ]
        },
        {"text": "found"},
    )
    events = [e async for e in user.stream(thread, content)]
    outputs = [e["output"] for e in events if e["type"] == "qlaud.tool_dispatch_done"]
    assert "crm/find_customer" in [found["name"] for found in outputs[0]["results"]]
    assert [r["output"] for r in outputs[1]["results"]] == [{"echo": {"name": "Ada"}}] * 2
    assert set(cluster.webhook.calls.values()) == {1}
    assert len(cluster.webhook.calls) == 2
    assert cluster.webhook.bodies[0]["end_user_id"] == "u1"
    assert cluster.webhook.bodies[0]["thread_id"] == thread


async def test_a_turn_calls_the_tools_of_an_mcp_server(cluster: Cluster) -> None:
    """Named in explicit mode on either wire, and found, described and run in dynamic mode."""
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    async with mcp_double(listed("find_customer"), listed("broken")) as double:
        server = {"name": "crm", "server_url": double.url, "auth_headers": {"authorization": TOKEN}}
        made = await cluster.admin.post("/v1/mcp-servers", server)
        ids = [tool["id"] for tool in made["tools"]]
        for model in (MODEL, OPENAI_MODEL):
            calls = {"crm/find_customer": {"q": model}, "crm/broken": {}}
            asked = [{"name": name, "input": given} for name, given in calls.items()]
            steps = script({"tools": asked}, {"text": "done"})
            events = [e async for e in user.stream(thread, steps, model=model, tools=ids)]
            done = {e["name"]: e for e in events if e["type"] == "qlaud.tool_dispatch_done"}
            assert done["crm/find_customer"]["output"] == f"find_customer {{'q': '{model}'}}"
            assert done["crm/broken"]["is_error"]
        found = {"name": "qlaud_search_tools", "input": {"intent": "find a customer"}}
        call = {"tool": "crm/find_customer", "args": {"q": "Ada"}}
        run = {"name": "qlaud_multi_execute", "input": {"calls": [call]}}
        steps = script({"tools": [found]}, {"tools": [run]}, {"text": "done"})
        events = [e async for e in user.stream(thread, steps)]
    outputs = [e["output"] for e in events if e["type"] == "qlaud.tool_dispatch_done"]
    assert outputs[0]["results"][0]["kind"] == "mcp"
    result = {"tool": "crm/find_customer", "status": "ok", "output": "find_customer {'q': 'Ada'}"}
    assert outputs[1]["results"] == [result]
    keys = [meta["idempotencyKey"] for meta in double.metas]
    assert len(set(keys)) == len(keys) == 5
    assert all(headers["authorization"] == TOKEN for headers in double.call_headers)


async def test_a_client_tool_waits_for_its_result(cluster: Cluster) -> None:
    """The turn parks until the caller posts the result; an unknown one is 404."""
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    tools = [{"name": "read_file", "description": "Reads.", "input_schema": {"type": "object"}}]
    content = script({"tools": [{"name": "read_file", "input": {"path": "a"}}]}, {"text": "thanks"})
    seen = []
    async for event in user.stream(thread, content, client_tools=tools):
        seen.append(event)
        if event["type"] == "qlaud.tool_dispatch_start":
            path = f"/v1/threads/{thread}/tool-results/"
            assert (await user.request("POST", path + "nobody", {"output": 1}))[0] == 404
            await until_taken(user, path + event["tool_use_id"], {"output": {"text": "x"}})
    done = next(e for e in seen if e["type"] == "qlaud.tool_dispatch_done")
    assert done["output"] == {"text": "x"}
    assert texts(seen) == "thanks"


async def test_the_loop_stops_at_its_limit(cluster: Cluster) -> None:
    """`max_iterations` ends the turn, says so, and leaves a thread that goes on."""
    tool = await cluster.webhook_tool()
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    endless = script({"text": "again", "tools": [{"name": "lookup", "input": {}}]})
    runtime = {"max_iterations": 2}
    events = [e async for e in user.stream(thread, endless, tools=[tool], qlaud_runtime=runtime)]
    assert events[-1]["hit_max_iterations"] is True
    assert events[-1]["iterations"] == 2
    assert (await user.turn(thread, script({"text": "fine"})))["content"][0]["text"] == "fine"


async def test_an_upstream_failure_reaches_the_caller_as_such(cluster: Cluster) -> None:
    """429 and 5xx come through once retries are spent; a failure in mid-stream is an event."""
    user, _ = await cluster.key(max_spend_usd=1)
    for status in (429, 529, 500):
        body = {"model": MODEL, "max_tokens": 50, "content": script({"status": status, "retry_after": 0})}
        for stream in (False, True):
            thread = (await user.post("/v1/threads", {}))["id"]
            path = f"/v1/threads/{thread}/messages"
            answered, error = await user.request("POST", path, {**body, "stream": stream})
            assert answered == status, error
            assert error["type"] == "error"
    thread = (await user.post("/v1/threads", {}))["id"]
    transient = await user.turn(thread, script({"status": 529, "times": 1, "text": "at last"}))
    assert transient["content"][0]["text"] == "at last"
    broken = [e async for e in user.stream(thread, script({"text": "one two three four", "cut_after": 2}))]
    assert [e["type"] for e in broken[-2:]] == ["qlaud.error", "qlaud.done"]
    assert broken[-1]["incomplete"] is True
    assert broken[-1]["cost_micros"] > 0


async def test_a_stream_resumes_where_it_was_left(cluster: Cluster) -> None:
    """`Last-Event-ID` gives the rest, no more and no less; without it the whole turn."""
    user, _ = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    whole = [e async for e in user.stream(thread, script({"text": "a b c d e f", "delay_ms": 40}))]
    path = f"/v1/threads/{thread}/turns/{whole[-1]['turn_id']}/stream"
    again = [e async for e in user.events("GET", path)]
    assert again == whole
    rest = [e async for e in user.events("GET", path, **{"last-event-id": "3"})]
    assert rest == whole[3:]


async def test_a_turn_is_cancelled(cluster: Cluster) -> None:
    """Cancel stops a running turn, bills what was produced, and the thread goes on."""
    user, _ = await cluster.key(max_spend_usd=1)
    thread = (await user.post("/v1/threads", {}))["id"]
    events = []
    async for event in user.stream(thread, script({"text": "word " * 200, "delay_ms": 50})):
        events.append(event)
        if event["type"] == "content_block_delta" and len(events) < 6:
            turn_id = (await user.get(f"/v1/threads/{thread}/messages"))["data"][0] and await latest(cluster)
            await user.post(f"/v1/threads/{thread}/turns/{turn_id}/cancel", {})
    assert events[-1]["type"] == "qlaud.done"
    assert events[-1]["status"] == "cancelled"
    assert events[-1]["cost_micros"] > 0
    assert (await user.turn(thread, script({"text": "next"})))["content"][0]["text"] == "next"


async def test_a_revoked_key_spends_nothing_more(cluster: Cluster) -> None:
    """Neither does a turn of it that was waiting in line; one that had begun is carried to its end."""
    user, key_id = await cluster.key()
    thread = (await user.post("/v1/threads", {}))["id"]
    path = f"/v1/threads/{thread}/messages"
    first = user.stream(thread, script({"text": "word " * 20, "delay_ms": 50}))
    begun = [await anext(first)]
    second = asyncio.create_task(
        user.request("POST", path, {"model": MODEL, "max_tokens": 64, "content": "And then?"})
    )
    await until_queued(cluster, 2)
    assert (await cluster.admin.request("DELETE", f"/v1/keys/{key_id}"))[0] == 200
    begun += [event async for event in first]
    assert begun[-1]["status"] == "completed"
    status, answer = await second
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert len(cluster.scripted.requests()) == 1


async def until_queued(cluster: Cluster, turns: int) -> None:
    connection = await connect(cluster.database_url)
    try:
        async with asyncio.timeout(5):
            while await connection.fetchval("SELECT count(*) FROM turns") < turns:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def until_taken(user: Api, path: str, result: dict) -> None:
    """Post a client tool's result as soon as the turn waits for it."""
    async with asyncio.timeout(5):
        while (await user.request("POST", path, result))[0] == 404:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def latest(cluster: Cluster) -> str:
    """The id of the newest turn, from the database."""
    from qlaud_actors.db.pool import connect

    connection = await connect(cluster.database_url)
    try:
        return str(await connection.fetchval("SELECT id FROM turns ORDER BY created_at DESC LIMIT 1"))
    finally:
        await connection.close()


async def test_a_repeated_request_gets_its_first_answer(cluster: Cluster) -> None:
    """The same Idempotency-Key is the same turn, also when the cap has been spent since."""
    user, key_id = await cluster.key(max_spend_usd=1)
    thread = (await user.post("/v1/threads", {}))["id"]
    path = f"/v1/threads/{thread}/messages"
    body = {"model": MODEL, "max_tokens": 50, "content": "Hello", "tools": []}
    first = await user.post(path, body, **{"idempotency-key": "k1"})
    await cluster.admin.request("PATCH", f"/v1/keys/{key_id}", {"max_spend_usd": 0})
    assert (await user.request("POST", path, body))[0] == 402
    assert await user.post(path, body, **{"idempotency-key": "k1"}) == first
    other = {**body, "content": "Something else"}
    assert (await user.request("POST", path, other, **{"idempotency-key": "k1"}))[0] == 409
    assert cluster.scripted.bill()["requests"] == 1


async def test_a_provider_that_tells_no_usage_is_not_free(cluster: Cluster) -> None:
    """What it did is estimated, and marked so, on both wires."""
    for model in (MODEL, OPENAI_MODEL):
        user, key_id = await cluster.key(max_spend_usd=1)
        thread = (await user.post("/v1/threads", {}))["id"]
        await user.turn(thread, script({"text": "word " * 100, "omit_usage": True}), model=model, tools=[])
        (event,) = (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["events"]
        (row,) = [row for row in cluster.scripted.bill()["rows"] if row["model"].startswith(model)]
        assert event["estimated"]
        assert (event["output_tokens"], event["cost_micros"] > 0) == (row["output"], True)


async def test_a_heartbeat_comes_while_the_provider_thinks(database_url: str, redis_url: str) -> None:
    """Silence is filled with comments, and the first byte may be long in coming."""
    async with running_cluster(database_url, redis_url, QLAUD_HEARTBEAT_SECONDS="0.3") as cluster:
        user, _ = await cluster.key()
        thread = (await user.post("/v1/threads", {}))["id"]
        body = {"model": MODEL, "max_tokens": 50, "stream": True}
        body["content"] = script({"text": "at last", "first_byte_ms": 1500})
        url = f"{user.base_url}/v1/threads/{thread}/messages"
        async with user.session.post(url, json=body, headers={"x-api-key": user.key}) as response:
            raw = await response.read()
        assert raw.count(b": keep-alive\n\n") >= 3
        assert b"at last" in raw
