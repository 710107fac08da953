"""The relay as both official SDKs see it in detail: headers, events, lists. Their matrix is `test_sdks`."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from cluster import MODEL, OPENAI_MODEL, Cluster, running_cluster, script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = pytest.mark.parametrize("model", [MODEL, OPENAI_MODEL])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(fresh_servers: Any) -> AsyncIterator[Cluster]:
    """One front door for all tests of a process, no worker: the relay needs none."""
    async with (
        fresh_servers() as (database_url, redis_url),
        running_cluster(database_url, redis_url, workers=0, QLAUD_HEARTBEAT_SECONDS="0.2") as cluster,
    ):
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def claude(cluster: Cluster) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's SDK with a key of its own."""
    user, _ = await cluster.key(max_spend_usd=5)
    async with anthropic.AsyncAnthropic(api_key=user.key, base_url=user.base_url, max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
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
    """The events come in Anthropic's order, with usage at both ends, whoever made the answer."""
    events = [
        event
        async for event in await claude.messages.create(
            model=model, max_tokens=200, messages=ask({"text": "one two", "delay_ms": 1}), stream=True
        )
    ]
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (events[0].message.role, events[0].message.content) == ("assistant", [])
    assert events[-2].usage.output_tokens > 0


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


async def test_tokens_are_counted_for_nothing(cluster: Cluster) -> None:
    """Claude's provider counts its own; for other models the count is an estimate. Neither is billed."""
    user, key_id = await cluster.key(max_spend_usd=5)
    async with anthropic.AsyncAnthropic(api_key=user.key, base_url=user.base_url, max_retries=0) as claude:
        for model in (MODEL, OPENAI_MODEL):
            counted = await claude.messages.count_tokens(
                model=model, messages=[{"role": "user", "content": "How many tokens are these?"}]
            )
            assert counted.input_tokens > 3
    assert (await cluster.admin.get(f"/v1/keys/{key_id}/usage"))["request_count"] == 0


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
