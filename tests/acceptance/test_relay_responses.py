"""The official OpenAI SDK's Responses client: to a host of that dialect, over Chat Completions, to Claude."""

import base64
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script

from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.usage import Usage

CHAT_MODEL = "gpt-5.4-nano"
"""Its host does not offer this dialect, because an operator's file says so."""

WAYS = {MODEL: "/v1/messages", OPENAI_MODEL: "/v1/responses", CHAT_MODEL: "/v1/chat/completions"}
PIXEL = base64.b64encode(b"\x89PNG").decode()
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class City(pydantic.BaseModel):
    """What structured output is asked to be."""

    city: str


@pytest.fixture
async def cluster(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """One front door, no worker: the relay needs none."""
    own = f'slug = "openai"\n[[models]]\nslug = "{CHAT_MODEL}"\nsurfaces = []\n'
    (tmp_path / "openai.toml").write_text(own)
    async with running_cluster(
        database_url, redis_url, workers=0, QLAUD_CATALOG_DIR=str(tmp_path)
    ) as cluster:
        yield cluster


@pytest.fixture
async def gpt(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK with a key of its own."""
    user, _ = await cluster.key(max_spend_usd=5)
    async with openai.AsyncOpenAI(api_key=user.key, base_url=f"{user.base_url}/v1", max_retries=0) as client:
        yield client


def sent(cluster: Cluster) -> list[dict[str, Any]]:
    """The bodies that the provider was sent, all in the one dialect."""
    paths = {request["path"] for request in cluster.scripted.requests()}
    assert len(paths) == 1
    return [request["body"] for request in cluster.scripted.requests()]


async def read_into(events: list[Any], stream: AsyncIterator[Any]) -> None:
    """What came stays known when the stream raises."""
    async for event in stream:
        events += [event]


async def test_a_response_in_one_body(cluster: Cluster, gpt: Any) -> None:
    """Text, usage and its price; the provider is asked in the dialect that it knows, and stores nothing."""
    for model, way in WAYS.items():
        cluster.scripted.reset()
        raw = await gpt.responses.with_raw_response.create(
            model=model, input=script({"text": "Hello, Grüße."}), instructions="Be kind."
        )
        response = raw.parse()
        assert (response.output_text, response.status) == ("Hello, Grüße.", "completed")
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
        assert int(raw.headers["x-qlaud-cost-micros"]) > 0
        assert raw.headers["x-qlaud-resolved-model"] == model
        (request,) = cluster.scripted.requests()
        assert request["path"] == way
        assert request["body"].get("store", False) is False
        assert "Be kind." in json.dumps(request["body"])


async def test_a_response_streams(gpt: Any) -> None:
    """The SDK's helper reads text as it comes; events are numbered and the last one has the usage."""
    for model in WAYS:
        async with gpt.responses.stream(model=model, input=script({"text": "one two three"})) as stream:
            events = [event async for event in stream]
            response = await stream.get_final_response()
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == response.output_text == "one two three"
        assert len(deltas) > 1
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        assert response.usage.output_tokens > 0


async def test_tools_are_called_and_answered(gpt: Any) -> None:
    """Calls and a thought come as items; all of them go back with the results, and an answer comes."""
    for model, stream in itertools.product(WAYS, (True, False)):
        calls = [{"name": "weather", "input": {"city": "Köln"}}, {"name": "weather", "input": {}}]
        given: dict[str, Any] = {"model": model, "tools": [TOOL], "reasoning": {"effort": "low"}}
        said: list[Any] = [{"role": "user", "content": script({"tools": calls}, {"echo": True})}]
        if stream:
            async with gpt.responses.stream(input=said, **given) as answer:
                first = await answer.get_final_response()
        else:
            first = await gpt.responses.create(input=said, **given)
        asked = [item for item in first.output if item.type == "function_call"]
        assert [(item.name, json.loads(item.arguments)) for item in asked] == [
            ("weather", {"city": "Köln"}),
            ("weather", {}),
        ]
        results = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "12 °C"} for item in asked
        ]
        kept = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
        second = await gpt.responses.create(input=[*said, *kept, *results], **given)
        assert second.output_text.count("12 °C") == 2


async def test_thoughts_are_items(cluster: Cluster, gpt: Any) -> None:
    """Reasoning is told as a summary, streamed and not; Claude's goes back signed."""
    for model in WAYS:
        cluster.scripted.reset()
        asked = script({"thinking": "Hm, let me see.", "text": "Yes."}, {"echo": True})
        given: dict[str, Any] = {"model": model, "reasoning": {"effort": "low", "summary": "auto"}}
        plain = await gpt.responses.create(input=asked, **given)
        assert [item.type for item in plain.output] == ["reasoning", "message"]
        assert [part.text for part in plain.output[0].summary] == ["Hm, let me see."]
        async with gpt.responses.stream(input=asked, **given) as stream:
            deltas = [e.delta async for e in stream if e.type == "response.reasoning_summary_text.delta"]
        assert "".join(deltas) == "Hm, let me see."
        kept = [item.model_dump(exclude_none=True) for item in plain.output]
        more = [{"role": "user", "content": asked}, *kept, {"role": "user", "content": "And?"}]
        await gpt.responses.create(input=more, **given)
        if model == MODEL:
            block = sent(cluster)[-1]["messages"][1]["content"][0]
            assert (block["type"], block["thinking"]) == ("thinking", "Hm, let me see.")
            assert block["signature"]


async def test_pictures_reach_all_wires(cluster: Cluster, gpt: Any) -> None:
    """A picture arrives in the form that its model's provider reads."""
    for model in WAYS:
        cluster.scripted.reset()
        url = f"data:image/png;base64,{PIXEL}"
        part = {"type": "input_image", "image_url": url, "detail": "auto"}
        await gpt.responses.create(
            model=model, input=[{"role": "user", "content": [{"type": "input_text", "text": "See?"}, part]}]
        )
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        expected = {
            MODEL: {"type": "image", "source": source},
            CHAT_MODEL: {"type": "image_url", "image_url": {"url": url}},
            OPENAI_MODEL: part,
        }
        (body,) = sent(cluster)
        assert (body.get("messages") or body["input"])[-1]["content"][-1] == expected[model]


async def test_structured_output_is_parsed(cluster: Cluster, gpt: Any) -> None:
    """`responses.parse` gets its object, and the schema reaches the provider in the field that it knows."""
    for model in WAYS:
        cluster.scripted.reset()
        asked = script({"text": '{"city": "Köln"}'})
        answer = await gpt.responses.parse(model=model, input=asked, text_format=City)
        assert answer.output_parsed == City(city="Köln")
        (body,) = sent(cluster)
        if model == MODEL:
            schema = body["output_config"]["format"]["schema"]
        elif model == OPENAI_MODEL:
            schema = body["text"]["format"]["schema"]
        else:
            schema = body["response_format"]["json_schema"]["schema"]
        assert schema["required"] == ["city"]


async def test_a_cut_answer_is_incomplete(gpt: Any) -> None:
    """The limit that was asked for ends the answer, and it says so."""
    for model in WAYS:
        asked = script({"text": "word " * 90})
        answer = await gpt.responses.create(model=model, input=asked, max_output_tokens=16)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert answer.usage.output_tokens == 16


async def test_errors_are_the_sdks_own(cluster: Cluster) -> None:
    """Each status becomes the exception that the SDK has for it, streamed or not, on every way."""
    user, _ = await cluster.key()
    poor, _ = await cluster.key(max_spend_usd=0)
    cases: list[tuple[Api, dict[str, Any], type[openai.APIStatusError]]] = [
        (Api(user.session, user.base_url, "qlk_live_" + "0" * 64), {}, openai.AuthenticationError),
        (poor, {}, openai.APIStatusError),
        (user, {"model": "no-such-model"}, openai.NotFoundError),
        (user, {"tools": [{"type": "web_search"}]}, openai.BadRequestError),
        (user, {"previous_response_id": "resp_1"}, openai.BadRequestError),
        (user, {"input": script({"status": 400})}, openai.BadRequestError),
        (user, {"input": script({"status": 429, "retry_after": 60})}, openai.RateLimitError),
        (user, {"input": script({"status": 500, "retry_after": 60})}, openai.InternalServerError),
    ]
    for api, wrong, kind in cases:
        async with openai.AsyncOpenAI(
            api_key=api.key, base_url=f"{api.base_url}/v1", max_retries=0
        ) as client:
            for model in WAYS:
                for stream in (False, True):
                    body: dict[str, Any] = {"model": model, "input": "Hi", "stream": stream, **wrong}
                    with pytest.raises(kind) as raised:
                        await client.responses.create(**body)
                    assert (raised.value.status_code == 402) is (api is poor)
    assert (await cluster.admin.get("/v1/usage"))["request_count"] == 0


async def test_a_failure_in_the_middle_is_told_and_billed(cluster: Cluster, gpt: Any) -> None:
    """A stream that its provider breaks off, or ends with an error, raises in the SDK and is estimated."""
    for model in WAYS:
        for fault in ({"cut_after": 3}, {"error_after": 3}):
            asked = script({"text": "one two three four five six seven", "delay_ms": 1, **fault})
            events: list[Any] = []
            with pytest.raises(openai.APIError) as raised:
                await read_into(events, await gpt.responses.create(model=model, input=asked, stream=True))
            assert str(raised.value.code).startswith("provider_")
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert len(events) > 4
    usage = await cluster.admin.get("/v1/usage")
    assert (usage["request_count"], usage["total_cost_micros"] > 0) == (6, True)


async def test_the_bill_is_the_providers_own(cluster: Cluster, gpt: Any) -> None:
    """Cached and reasoned tokens included, each in one bucket: charged is what was billed, with markup."""
    counts = {"input": 700, "output": 90, "cache_read": 1_024}
    for model, usage in itertools.product(WAYS, (counts, {})):
        asked = script({"thinking": "Hm.", "text": "one two three", "usage": usage})
        given: dict[str, Any] = {"model": model, "input": asked, "reasoning": {"effort": "low"}}
        plain = await gpt.responses.create(**given)
        async with gpt.responses.stream(**given) as stream:
            streamed = await stream.get_final_response()
        assert plain.usage == streamed.usage
        if usage:
            assert plain.usage.input_tokens == 1_724
            assert plain.usage.input_tokens_details.cached_tokens == 1_024
    price = {model.upstream: model.price for model in map(Catalog.load({}).resolve, WAYS)}
    billed = [
        charge_nanos(
            price[row["model"]].cost_picos(Usage(row["input"], row["output"], row["cache_read"])), 700
        )
        for row in cluster.scripted.bill()["rows"]
    ]
    connection = await connect(cluster.database_url)
    try:
        charged = await connection.fetch("SELECT cost_nanos, estimated FROM usage_events")
    finally:
        await connection.close()
    assert len(billed) == 4 * len(WAYS)
    assert sorted(row["cost_nanos"] for row in charged) == sorted(billed)
    assert not any(row["estimated"] for row in charged)
