"""The official SDKs as clients of the relay, on both surfaces and to models of both wires."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script

MODELS = pytest.mark.parametrize("model", [MODEL, OPENAI_MODEL])
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63"
        "f8cfc0f01f0005000 1ff56c72fdc0000000049454e44ae426082".replace(" ", "")
    )
).decode()
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door, no worker: the relay needs none."""
    async with running_cluster(database_url, redis_url, workers=0, QLAUD_HEARTBEAT_SECONDS="0.2") as cluster:
        yield cluster


@pytest.fixture
async def claude(cluster: Cluster) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's SDK with a key of its own."""
    user, _ = await cluster.key(max_spend_usd=5)
    async with anthropic.AsyncAnthropic(api_key=user.key, base_url=user.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def gpt(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK with a key of its own."""
    user, _ = await cluster.key(max_spend_usd=5)
    async with openai.AsyncOpenAI(api_key=user.key, base_url=f"{user.base_url}/v1", max_retries=0) as client:
        yield client


def ask(*steps: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": script(*steps)}]


@MODELS
async def test_anthropics_sdk_gets_a_message(claude: Any, model: str) -> None:
    """One message in one body, with usage, its price and the model in the headers."""
    raw = await claude.messages.with_raw_response.create(
        model=model, max_tokens=200, messages=ask({"text": "Hello, Grüße."})
    )
    message = await raw.parse()
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Hello, Grüße."
    assert (message.role, message.stop_reason) == ("assistant", "end_turn")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert raw.headers["x-qlaud-resolved-model"] == model
    assert int(raw.headers["x-qlaud-cost-micros"]) > 0
    left = int(raw.headers["x-qlaud-budget-remaining-micros"])
    assert left == 5_000_000 - int(raw.headers["x-qlaud-cost-micros"])
    assert raw.headers["request-id"]


@MODELS
async def test_openais_sdk_gets_a_completion(gpt: Any, model: str) -> None:
    """One completion in one body; without a limit the model's own applies."""
    raw = await gpt.chat.completions.with_raw_response.create(
        model=model, messages=ask({"text": "Hello, Grüße."})
    )
    completion = raw.parse()
    assert completion.object == "chat.completion"
    assert completion.choices[0].message.content == "Hello, Grüße."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (
        completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    assert int(raw.headers["x-qlaud-cost-micros"]) > 0


@MODELS
async def test_anthropics_sdk_streams(claude: Any, model: str) -> None:
    """The SDK's own stream helper reads text as it comes and builds the same message."""
    async with claude.messages.stream(
        model=model, max_tokens=200, messages=ask({"text": "one two three", "delay_ms": 5})
    ) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(pieces) == "one two three"
    assert len(pieces) > 1
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


@MODELS
@pytest.mark.parametrize("wanted", [True, False])
async def test_openais_sdk_streams(gpt: Any, model: str, wanted: bool) -> None:
    """Chunks with text, a reason, and the usage chunk for those alone who asked for it."""
    options: Any = {"stream_options": {"include_usage": True}} if wanted else {}
    stream = await gpt.chat.completions.create(
        model=model, messages=ask({"text": "one two three"}), stream=True, **options
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [chunk for chunk in chunks if not chunk.choices] == ([chunks[-1]] if wanted else [])
    assert len(usages) == int(wanted)


@MODELS
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropics_sdk_uses_tools(claude: Any, model: str, stream: bool) -> None:
    """A tool is called, its result goes back, an answer comes."""
    calls = [{"name": "weather", "input": {"city": "Köln"}}, {"name": "weather", "input": {}}]
    messages = ask({"text": "Let me see.", "tools": calls}, {"echo": True})
    given: dict[str, Any] = {
        "model": model,
        "max_tokens": 2_000,
        "tools": [{"name": "weather", "description": "The weather.", "input_schema": WEATHER}],
    }
    if stream:
        async with claude.messages.stream(messages=messages, **given) as answer:
            first = await answer.get_final_message()
    else:
        first = await claude.messages.create(messages=messages, **given)
    used = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert [(block.name, block.input) for block in used] == [("weather", {"city": "Köln"}), ("weather", {})]
    results = [{"type": "tool_result", "tool_use_id": b.id, "content": "12 °C"} for b in used]
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = await claude.messages.create(messages=messages, **given)
    assert second.content[0].type == "text"
    assert second.content[0].text.count("12 °C") == 2


@MODELS
@pytest.mark.parametrize("stream", [True, False])
async def test_openais_sdk_uses_tools(gpt: Any, model: str, stream: bool) -> None:
    """The same in OpenAI's words; a call without arguments is still a JSON object."""
    calls = [{"name": "weather", "input": {"city": "Köln"}}, {"name": "weather", "input": {}}]
    messages = ask({"tools": calls}, {"echo": True})
    function = {"name": "weather", "description": "The weather.", "parameters": WEATHER}
    given: dict[str, Any] = {"model": model, "tools": [{"type": "function", "function": function}]}
    if stream:
        async with gpt.chat.completions.stream(messages=messages, **given) as answer:
            first = (await answer.get_final_completion()).choices[0]
    else:
        first = (await gpt.chat.completions.create(messages=messages, **given)).choices[0]
    assert first.finish_reason == "tool_calls"
    asked = first.message.tool_calls
    assert [(c.function.name, json.loads(c.function.arguments)) for c in asked] == [
        ("weather", {"city": "Köln"}),
        ("weather", {}),
    ]
    calls_said = [
        {
            "id": c.id,
            "type": "function",
            "function": {"name": c.function.name, "arguments": c.function.arguments},
        }
        for c in asked
    ]
    said = {"role": "assistant", "content": None, "tool_calls": calls_said}
    results = [{"role": "tool", "tool_call_id": c.id, "content": "12 °C"} for c in asked]
    second = await gpt.chat.completions.create(messages=[*messages, said, *results], **given)
    assert (second.choices[0].message.content or "").count("12 °C") == 2


@MODELS
async def test_images_reach_both_wires(cluster: Cluster, claude: Any, gpt: Any, model: str) -> None:
    """A picture sent in either dialect arrives in the one that its model reads."""
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    blocks: list[Any] = [{"type": "text", "text": "See?"}, {"type": "image", "source": source}]
    await claude.messages.create(model=model, max_tokens=50, messages=[{"role": "user", "content": blocks}])
    url = f"data:image/png;base64,{PIXEL}"
    parts: list[Any] = [
        {"type": "text", "text": "See?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    await gpt.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    for sent in cluster.scripted.requests():
        assert sent["body"]["messages"][-1]["content"] == (blocks if model == MODEL else parts)


@MODELS
async def test_thinking_is_seen_on_both_surfaces(claude: Any, gpt: Any, model: str) -> None:
    """Anthropic's callers get thinking blocks, OpenAI's `reasoning_content`; either can be asked for."""
    messages = ask({"thinking": "Hm, let me see.", "text": "Yes."})
    thought = await claude.messages.create(
        model=model, max_tokens=4_000, messages=messages, thinking={"type": "enabled", "budget_tokens": 1_024}
    )
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert thought.content[0].thinking == "Hm, let me see."
    plain = await gpt.chat.completions.create(model=model, messages=messages, reasoning_effort="low")
    assert plain.choices[0].message.reasoning_content == "Hm, let me see."
    stream = await gpt.chat.completions.create(model=model, messages=messages, stream=True)
    deltas = [chunk.choices[0].delta.model_extra or {} async for chunk in stream if chunk.choices]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm, let me see."


@MODELS
async def test_structured_output_is_asked_for_in_the_models_own_words(
    cluster: Cluster, claude: Any, gpt: Any, model: str
) -> None:
    """A schema in either dialect reaches the provider as the field that it knows."""
    schema = {**WEATHER, "additionalProperties": False}
    messages = ask({"text": '{"city": "Köln"}'})
    await claude.messages.create(
        model=model,
        max_tokens=100,
        messages=messages,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    answer = await gpt.chat.completions.create(
        model=model,
        messages=messages,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": schema, "strict": True},
        },
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Köln"}
    for sent in cluster.scripted.requests():
        body = sent["body"]
        if model == MODEL:
            assert body["output_config"]["format"] == {"type": "json_schema", "schema": schema}
        else:
            assert body["response_format"]["json_schema"]["schema"] == schema


async def test_both_sdks_list_models(claude: Any, gpt: Any) -> None:
    """One shape for both; a model is also found by one of its other names, and none by a wrong one."""
    ours = [model.id async for model in gpt.models.list()]
    assert {MODEL, OPENAI_MODEL} <= set(ours)
    assert [model.id async for model in claude.models.list()] == ours
    one = await gpt.models.retrieve(MODEL)
    assert (one.id, one.object, one.owned_by) == (MODEL, "model", "Anthropic")
    assert (await claude.models.retrieve(MODEL)).display_name
    with pytest.raises(openai.NotFoundError):
        await gpt.models.retrieve("no-such-model")


async def test_the_catalogue_is_public(cluster: Cluster) -> None:
    """No key, cacheable, in the shape of reference 4.4, without what is ours alone."""
    async with cluster.admin.session.get(f"{cluster.admin.base_url}/v1/catalog") as response:
        assert response.status == 200
        assert "max-age=300" in response.headers["cache-control"]
        listing = await response.json()
    assert set(listing) == {"providers", "models", "markup_multiplier", "generated_at"}
    assert listing["markup_multiplier"] == 1.07
    claude = next(model for model in listing["models"] if model["slug"] == MODEL)
    assert claude["hosts"][0]["provider"] == "anthropic"
    assert (claude["hosts"][0]["input_per_mtok_usd"], claude["hosts"][0]["output_per_mtok_usd"]) == (1, 5)
    assert all(model["hosts"] for model in listing["models"])
    assert not any("reasoning_replay" in model["capabilities"] for model in listing["models"])


async def test_tokens_are_counted_for_nothing(cluster: Cluster, claude: Any) -> None:
    """Claude's provider counts its own; for other models the count is an estimate. Neither is billed."""
    for model in (MODEL, OPENAI_MODEL):
        counted = await claude.messages.count_tokens(
            model=model, messages=[{"role": "user", "content": "How many tokens are these?"}]
        )
        assert counted.input_tokens > 3
    assert (await cluster.admin.get("/v1/usage"))["request_count"] == 0


async def test_errors_are_the_sdks_own(cluster: Cluster) -> None:
    """Each status becomes the exception that each vendor's SDK has for it."""
    user, _ = await cluster.key()
    poor, _ = await cluster.key(max_spend_usd=0)
    cases: list[tuple[Api, dict[str, Any], str]] = [
        (Api(user.session, user.base_url, "qlk_live_" + "0" * 64), {}, "AuthenticationError"),
        (poor, {}, "APIStatusError"),
        (user, {"model": "no-such-model"}, "NotFoundError"),
        (user, {"service_tier": "priority"}, "BadRequestError"),
        (user, {"messages": ask({"status": 400})}, "BadRequestError"),
        (user, {"messages": ask({"status": 429, "retry_after": 60})}, "RateLimitError"),
        (user, {"messages": ask({"status": 500, "retry_after": 60})}, "InternalServerError"),
    ]
    for api, wrong, name in cases:
        for model in (MODEL, OPENAI_MODEL):
            body: dict[str, Any] = {"model": model, "max_tokens": 50, "messages": ask({}), **wrong}
            for stream in (False, True):
                claude = anthropic.AsyncAnthropic(api_key=api.key, base_url=api.base_url, max_retries=0)
                gpt = openai.AsyncOpenAI(api_key=api.key, base_url=f"{api.base_url}/v1", max_retries=0)
                async with claude, gpt:
                    with pytest.raises(getattr(anthropic, name)) as theirs:
                        await claude.messages.create(**body, stream=stream)
                    with pytest.raises(getattr(openai, name)) as others:
                        await gpt.chat.completions.create(**body, stream=stream)
                assert theirs.value.status_code == others.value.status_code
                if api is poor:
                    assert others.value.status_code == 402
                    assert others.value.code == "key_cap_exceeded"
                    assert "key_cap_exceeded" in str(theirs.value)
    assert (await cluster.admin.get("/v1/usage"))["request_count"] == 0


@MODELS
async def test_a_failure_in_the_middle_is_told_in_the_callers_dialect(
    cluster: Cluster, claude: Any, gpt: Any, model: str
) -> None:
    """A stream that its provider breaks off, or ends with an error, raises in both SDKs and is billed."""
    for fault in ({"cut_after": 3}, {"error_after": 3}):
        messages = ask({"text": "one two three four five six seven", "delay_ms": 1, **fault})
        with pytest.raises(anthropic.APIError):
            async for _ in await claude.messages.create(
                model=model, max_tokens=99, messages=messages, stream=True
            ):
                pass
        with pytest.raises(openai.APIError):
            async for _ in await gpt.chat.completions.create(model=model, messages=messages, stream=True):
                pass
    usage = await cluster.admin.get("/v1/usage")
    assert usage["request_count"] == 4
    assert usage["total_cost_micros"] > 0


async def test_a_silent_provider_is_bridged_by_heartbeats(cluster: Cluster) -> None:
    """Comments keep the connection alive, before the first byte and between bytes."""
    user, _ = await cluster.key()
    body = {
        "model": MODEL,
        "max_tokens": 50,
        "stream": True,
        "messages": ask({"text": "one two", "first_byte_ms": 500, "delay_ms": 500}),
    }
    async with user.session.post(
        f"{user.base_url}/v1/messages", json=body, headers={"x-api-key": user.key}
    ) as response:
        raw = await response.read()
    before, _, rest = raw.partition(b"event: message_start")
    assert before.count(b": keep-alive\n\n") >= 1
    assert rest.count(b": keep-alive\n\n") >= 1


async def test_a_client_that_leaves_is_billed(cluster: Cluster) -> None:
    """What the provider produces for a client who hung up is read to its end and charged, exactly."""
    for path, model in (("/v1/messages", MODEL), ("/v1/chat/completions", MODEL)):
        cluster.scripted.reset()
        user, key_id = await cluster.key(max_spend_usd=1)
        text = {"text": "word " * 40, "delay_ms": 10}
        body = {"model": model, "max_tokens": 200, "stream": True, "messages": ask(text)}
        async with user.session.post(
            user.base_url + path, json=body, headers={"x-api-key": user.key}
        ) as response:
            await response.content.readany()
            response.close()
        async with asyncio.timeout(20):
            while True:
                used = await cluster.admin.get(f"/v1/keys/{key_id}/usage")
                if used["request_count"]:
                    break
                await asyncio.sleep(0.05)
        (row,) = cluster.scripted.bill()["rows"]
        assert row["ended"] == "complete"
        assert (used["input_tokens"], used["output_tokens"]) == (row["input"], row["output"])
        assert not used["events"][0]["estimated"]
