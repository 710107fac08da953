"""Both official SDKs, to models of both wires, streamed and not: one table of cells under each promise."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest
import pytest_asyncio
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script
from sdks import CELLS, Cell, Claude, Gpt, Sdk

from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.usage import Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63"
        "f8cfc0f01f00050001ff56c72fdc0000000049454e44ae426082"
    )
).decode()
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


EACH = pytest.mark.parametrize("cell", CELLS, ids=str)
STREAMED = pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.stream], ids=str)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(fresh_servers: Any) -> AsyncIterator[Cluster]:
    """One front door for all tests of a process; the relay needs no worker."""
    async with (
        fresh_servers() as (database_url, redis_url),
        running_cluster(database_url, redis_url, workers=0) as cluster,
    ):
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The same with a new bill."""
    running.scripted.reset()
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def key(cluster: Cluster) -> tuple[Api, str]:
    """A key of the test's own, and its id."""
    return await cluster.key(max_spend_usd=5)


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(cell: Cell, key: tuple[Api, str]) -> AsyncIterator[Any]:
    """The cell's SDK with that key."""
    client = cell.sdk(key[0].base_url, key[0].key)
    yield client
    await client.close()


def sent(cluster: Cluster) -> Any:
    """The last body that the provider got."""
    return cluster.scripted.requests()[-1]["body"]


async def charged(cluster: Cluster, key_id: str) -> list[Any]:
    """The key's usage rows."""
    connection = await connect(cluster.database_url)
    try:
        query = "SELECT * FROM usage_events WHERE key_id = $1 ORDER BY created_at"
        return await connection.fetch(query, uuid.UUID(key_id))
    finally:
        await connection.close()


@EACH
async def test_text(cluster: Cluster, key: tuple[Api, str], sdk: Sdk, cell: Cell) -> None:
    """Words, reason and usage come as the provider gave them, and are charged to the nano-dollar."""
    answer = await sdk.ask(cell.model, sdk.user(script({"text": "Hello, Grüße 🏔️."})), stream=cell.stream)
    assert (answer.text, answer.calls) == ("Hello, Grüße 🏔️.", ())
    assert answer.stop in ("end_turn", "stop")
    (row,) = cluster.scripted.bill()["rows"]
    assert (answer.usage.input, answer.usage.output) == (row["input"], row["output"])
    (event,) = await charged(cluster, key[1])
    price = Catalog.load({}).resolve(cell.model).price
    assert event["cost_nanos"] == charge_nanos(price.cost_picos(Usage(row["input"], row["output"])), 700)


@STREAMED
async def test_text_comes_as_it_is_made(sdk: Sdk, cell: Cell) -> None:
    """The SDK's reader of text gets more than one piece, and nothing of them is lost."""
    said = sdk.user(script({"text": "one two three", "delay_ms": 5}))
    pieces = [piece async for piece in sdk.deltas(cell.model, said)]
    assert "".join(pieces) == "one two three"
    assert len(pieces) > 1


@EACH
async def test_an_answer_ends_for_its_reason(sdk: Sdk, cell: Cell) -> None:
    """A limit and a stop sequence are heard of in the caller's words."""
    words, name = {"text": "one two three STOP four"}, "stop_sequences" if cell.sdk is Claude else "stop"
    for fields, reasons in (
        ({"max_tokens": 2}, ("max_tokens", "length")),
        ({name: ["STOP"]}, ("stop_sequence", "end_turn", "stop")),
    ):
        given: Any = fields
        if cell.stream and cell.sdk is Gpt and "max_tokens" in fields:
            with pytest.raises(sdk.errors.LengthFinishReasonError):  # what OpenAI's stream helper makes of it
                await sdk.ask(cell.model, sdk.user(script(words)), stream=True, **given)
            continue
        answer = await sdk.ask(cell.model, sdk.user(script(words)), stream=cell.stream, **given)
        assert answer.stop in reasons
        assert "four" not in answer.text


@EACH
@pytest.mark.parametrize("forced", [False, True])
async def test_tools(sdk: Sdk, cell: Cell, forced: bool) -> None:
    """Parallel calls come with their input, results go back to the call that each answers."""
    calls = [{"name": "weather", "input": {"city": "Köln"}}, {"name": "weather", "input": {}}]
    steps = [{"text": "Let me see.", "tools": calls}, {"echo": True}]
    messages = sdk.user(script(*steps))
    given: dict[str, Any] = {"tools": [sdk.tool("weather", WEATHER)]}
    choice = {"tool_choice": sdk.choice("weather")} if forced else {}
    first = await sdk.ask(cell.model, messages, stream=cell.stream, **given, **choice)
    assert first.stop in ("tool_use", "tool_calls")
    assert first.text == "Let me see."
    assert [(call.name, call.input) for call in first.calls] == [(c["name"], c["input"]) for c in calls]
    messages += sdk.results(first, "12 °C")
    second = await sdk.ask(cell.model, messages, stream=cell.stream, **given)
    seen = json.loads(second.text)["messages"]
    assert seen[-1]["blocks"][0]["text"] == "12 °C"
    assert "12 °C" in seen[-1]["blocks"][1]["text"]
    assert [block["input"] for block in seen[-2]["blocks"] if block["type"] == "tool_use"] == [
        {"city": "Köln"},
        {},
    ]


@EACH
@pytest.mark.parametrize("image", [f"data:image/png;base64,{PIXEL}", "https://pictures.example/1.png"])
async def test_images(cluster: Cluster, sdk: Sdk, cell: Cell, image: str) -> None:
    """A picture, inline or by URL, reaches the model in the words of its own provider."""
    await sdk.ask(cell.model, sdk.user("See?", image=image), stream=cell.stream, max_tokens=50)
    other = Claude if cell.model == MODEL else Gpt
    assert sent(cluster)["messages"][-1]["content"] == other.user(None, "See?", image=image)[0]["content"]  # type: ignore[arg-type]


@EACH
async def test_thinking(cluster: Cluster, sdk: Sdk, cell: Cell) -> None:
    """Thinking is asked for in the model's words, shown, and survives a round of tools."""
    steps = [
        {"thinking": "Hm, let me see.", "text": "I look.", "tools": [{"name": "weather", "input": {}}]},
        {"thinking": "Ah.", "text": "Yes."},
    ]
    messages = sdk.user(script(*steps))
    given: dict[str, Any] = {"tools": [sdk.tool("weather", WEATHER)], **sdk.think()}
    first = await sdk.ask(cell.model, messages, stream=cell.stream, **given)
    assert (first.thinking, first.text) == ("Hm, let me see.", "I look.")
    body = sent(cluster)
    if cell.model == MODEL:
        assert body["thinking"]["type"] == "enabled"
    else:
        assert body["reasoning_effort"] == "low"
    second = await sdk.ask(cell.model, messages + sdk.results(first, "12 °C"), stream=cell.stream, **given)
    assert (second.thinking, second.text) == ("Ah.", "Yes.")


class Place(pydantic.BaseModel):
    """Where somebody is: with an optional field and a bound, which each vendor treats in its own way."""

    city: str
    degrees: int = pydantic.Field(ge=1, le=40)
    note: str | None = None


@EACH
async def test_structured_output(cluster: Cluster, sdk: Sdk, cell: Cell) -> None:
    """The SDK's own parser gets JSON of its type, whichever vendor's rules for schemas apply."""
    for step in ({}, {"text": '{"city": "Köln", "degrees": 12, "note": null}'}):
        answer = await sdk.ask(
            cell.model, sdk.user(script(step)), stream=cell.stream, max_tokens=500, output_format=Place
        )
        assert isinstance(answer.parsed, Place)
    assert answer.parsed == Place(city="Köln", degrees=12)
    body = sent(cluster)
    wanted = body.get("output_config", {}).get("format") or body["response_format"]["json_schema"]
    assert set(wanted["schema"]["properties"]) == {"city", "degrees", "note"}


@EACH
async def test_cached_tokens(cluster: Cluster, key: tuple[Api, str], sdk: Sdk, cell: Cell) -> None:
    """Cached tokens are told in the caller's words and priced in disjoint buckets."""
    counts = {"input": 100, "output": 40, "cache_read": 1_920, "cache_write": 500, "cache_write_1h": 300}
    answer = await sdk.ask(
        cell.model, sdk.user(script({"text": "one two", "usage": counts})), stream=cell.stream
    )
    assert answer.usage.input == 100 + 1_920 + 800
    assert (answer.usage.cached, answer.usage.written, answer.usage.output) == (1_920, 800, 40)
    (event,) = await charged(cluster, key[1])
    told = Usage(100, 40, 1_920, 500, 300) if cell.model == MODEL else Usage(100, 40, 1_920, 800)
    assert event["cost_nanos"] == charge_nanos(
        Catalog.load({}).resolve(cell.model).price.cost_picos(told), 700
    )
    assert (event["input_tokens"], event["cache_read_tokens"]) == (100, 1_920)


@EACH
async def test_cache_markers(cluster: Cluster, sdk: Sdk, cell: Cell) -> None:
    """A marker reaches the model that knows markers, from either SDK, and no other one."""
    if cell.sdk is Gpt and cell.model == OPENAI_MODEL:
        await sdk.ask(cell.model, sdk.user("Hi"), stream=cell.stream, prompt_cache_key="one")
        assert sent(cluster)["prompt_cache_key"] == "one"
        return
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "Be brief.", "cache_control": mark}]
    messages = sdk.user("Hi", cached=True)
    given: dict[str, Any] = {"system": system} if cell.sdk is Claude else {}
    head = [] if cell.sdk is Claude else [{"role": "system", "content": system}]
    await sdk.ask(cell.model, head + messages, stream=cell.stream, **given)
    body = sent(cluster)
    if cell.model == MODEL:
        assert body["system"] == system
        assert body["messages"][0]["content"][0] == {"type": "text", "text": "Hi", "cache_control": mark}
    else:
        assert [message["content"] for message in body["messages"]] == ["Be brief.", "Hi"]
