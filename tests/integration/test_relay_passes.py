"""The relay between a front door and a provider that a test controls: what passes, unchanged, and when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiohttp import web
from front_door import Door, front_door
from provider_double import END, OVERLOADED, START, TEXT, Answer, Provider, refuse, running_provider, stream

from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.db.pool import Pool
from qlaud_actors.gateway import pipe
from qlaud_actors.gateway import relay as relay_module
from qlaud_actors.gateway.admission import Admission
from qlaud_actors.gateway.asks import AnthropicAsk
from qlaud_actors.gateway.relay import Relay, Whole
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.limits import Admitted
from qlaud_actors.outbound.client import open_client
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback

CLAUDE, GPT = "claude-haiku-4-5", "gpt-5.4-mini"
PATHS = {CLAUDE: "/v1/messages", GPT: "/v1/chat/completions"}
USAGE = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}


@dataclass
class Relayed:
    """A front door, the provider behind it, and the relay between them."""

    door: Door
    provider: Provider
    relay: Relay
    pool: Pool

    async def post(
        self, model: str, key: str | None = None, **fields: Any
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and raw body of one request."""
        body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}
        headers = {"x-api-key": key or self.door.master}
        async with self.door.client.post(PATHS[model], json=body, headers=headers) as response:
            told = {name.lower(): value for name, value in response.headers.items()}
            return response.status, told, await response.read()

    async def cost(self) -> tuple[int, int, int]:
        """Usage rows, their cost, and holds that are left."""
        row = await self.pool.fetchrow(
            "SELECT count(*) AS n, coalesce(sum(cost_nanos), 0)::bigint AS cost, "
            "(SELECT count(*) FROM holds) AS holds FROM usage_events"
        )
        assert row is not None
        return row["n"], row["cost"], row["holds"]

    async def settled(self, rows: int = 1) -> int:
        """The cost, once so many rows are written and no hold is left."""
        async with asyncio.timeout(10):
            while True:
                found = await self.cost()
                if found[::2] == (rows, 0):
                    return found[1]
                await asyncio.sleep(0.02)


class NoLimits:
    """Paces nobody."""

    def admit(self, key: object, tokens: int) -> contextlib.nullcontext[Admitted]:
        """Come in."""
        return contextlib.nullcontext(Admitted())


@pytest.fixture
async def relayed(pool: Pool) -> AsyncIterator[Relayed]:
    """Everything in this process."""
    async with running_provider() as provider, contextlib.AsyncExitStack() as stack:
        catalog = Catalog.load(
            {
                "ANTHROPIC_API_KEY": "sk-ant-x",
                "ANTHROPIC_BASE_URL": provider.url,
                "OPENAI_API_KEY": "sk-x",
                "OPENAI_BASE_URL": f"{provider.url}/v1",
            }
        )
        client = open_client()
        stack.push_async_callback(client.close)

        async def sleep(_: float) -> None:
            return

        fallback = Fallback(RetryPolicy(3), sleep=sleep)
        money, caller = GroupCommit(pool, new_uuid()), Caller(client, catalog)
        relay = Relay(Admission(money, catalog, caller, fallback, 700))
        stack.push_async_callback(relay.close)
        stack.callback(provider.released.set)
        door = await stack.enter_async_context(
            front_door(pool, catalog=catalog, relay=relay, limits=NoLimits())
        )
        yield Relayed(door, provider, relay, pool)


def chunk(**rest: Any) -> bytes:
    return b"data: " + msgspec.json.encode({"id": "c1", "object": "chat.completion.chunk", **rest}) + b"\n\n"


SAID = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hi", "odd": [1]}}])
STOPPED = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
COUNTED = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
MESSAGE = {
    "id": "m",
    "type": "message",
    "content": [],
    "usage": {"input_tokens": 12, "output_tokens": 4},
    "odd": 1,
}


def whole(body: Any) -> Answer:
    """A 200 with this JSON."""

    async def answer(request: web.Request) -> web.Response:  # noqa: ARG001 - as handlers are called
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    return answer


@pytest.mark.parametrize("model", PATHS)
async def test_unknown_fields_pass_both_ways(relayed: Relayed, model: str) -> None:
    """What this version does not know reaches the provider, and its answer comes back as it is."""
    answer = MESSAGE if model == CLAUDE else {"choices": [], "usage": USAGE, "odd": {"a": [1.5]}}
    relayed.provider.answers = [whole(answer)]
    status, headers, raw = await relayed.post(
        model, brand_new={"deep": [1, {"x": None}]}, metadata={"user_id": "ü"}, temperature=0.1
    )
    assert (status, raw) == (200, msgspec.json.encode(answer))
    sent = msgspec.json.decode(relayed.provider.bodies[0])
    assert sent == {
        "model": {CLAUDE: "claude-haiku-4-5-20251001", GPT: "gpt-5.4-mini"}[model],
        "max_tokens" if model == CLAUDE else "max_completion_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        "brand_new": {"deep": [1, {"x": None}]},
        "metadata": {"user_id": "ü"},
        "temperature": 0.1,
    }
    cost = await relayed.settled()
    assert headers["x-qlaud-cost-micros"] == str(-(-cost // 1000))


async def test_versions_and_betas_are_the_callers(relayed: Relayed) -> None:
    """Anthropic's own headers go through; a context beyond the catalogue's is refused."""
    relayed.provider.answers = [whole(MESSAGE)]
    body = {"model": CLAUDE, "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "files-api-2025-04-14"}
    assert (await relayed.door.ask("POST", "/v1/messages", body, **headers))[0] == 200
    sent = relayed.provider.requests[0].headers
    assert {name: sent[name] for name in headers} == headers
    assert sent["x-api-key"] == "sk-ant-x"
    assert "authorization" not in sent
    wide = {"anthropic-beta": "context-1m-2025-08-07"}
    assert (await relayed.door.ask("POST", "/v1/messages", body, **wide))[0] == 400
    assert len(relayed.provider.requests) == 1


@pytest.mark.parametrize("cut", [1, 7, 50, 10_000])
async def test_streamed_bytes_are_the_providers_own(relayed: Relayed, cut: int) -> None:
    """In whatever pieces they come: pings, comments, CRLF and unknown events included."""
    extra = b': hello\r\n\r\nevent: brand_new\r\ndata: {"type":"brand_new"}\r\n\r\n'
    told = START + extra + TEXT + END
    parts = [told[n : n + cut] for n in range(0, len(told), cut)]
    relayed.provider.answers = [stream(*parts)]
    status, headers, raw = await relayed.post(CLAUDE, stream=True)
    assert (status, raw) == (200, told)
    assert headers["content-type"].startswith("text/event-stream")
    assert await relayed.settled() == -(-(12 * 1_000_000 + 4 * 5_000_000) * 107 // 100_000)


@pytest.mark.parametrize("asked", [True, False])
async def test_the_usage_chunk_is_for_those_who_asked(relayed: Relayed, asked: bool) -> None:
    """It is always asked for upstream, for the bill, and hidden from a caller who did not want it."""
    relayed.provider.answers = [stream(SAID, STOPPED + COUNTED, DONE)]
    options: Any = {"stream_options": {"include_usage": True, "odd": 1}} if asked else {}
    _, _, raw = await relayed.post(GPT, stream=True, **options)
    assert raw == SAID + STOPPED + (COUNTED if asked else b"") + DONE
    sent = msgspec.json.decode(relayed.provider.bodies[0])["stream_options"]
    assert sent == {"include_usage": True} | ({"odd": 1} if asked else {})
    assert await relayed.settled() > 0


async def test_a_limit_is_clamped_to_the_money(relayed: Relayed) -> None:
    """With little left the provider is asked for less; with less than a word's worth the answer is 402."""
    relayed.provider.answers = [whole(MESSAGE)]
    made = await relayed.door.mint(max_spend_usd=0.003)
    status, _, _ = await relayed.post(CLAUDE, made["secret"], max_tokens=50_000)
    assert status == 200
    granted = msgspec.json.decode(relayed.provider.bodies[0])["max_tokens"]
    assert 64 <= granted < 600
    made = await relayed.door.mint(max_spend_usd=0.0003)
    assert (await relayed.post(CLAUDE, made["secret"], max_tokens=50_000))[0] == 402
    assert len(relayed.provider.requests) == 1


async def test_copies_multiply_the_hold(relayed: Relayed) -> None:
    """`n` answers may each be as long as the limit: all of them must be affordable."""
    relayed.provider.answers = [whole({"choices": [], "usage": USAGE})]
    made = await relayed.door.mint(max_spend_usd=0.01)
    assert (await relayed.post(GPT, made["secret"], max_tokens=50_000, n=8))[0] == 200
    assert 64 <= msgspec.json.decode(relayed.provider.bodies[0])["max_completion_tokens"] < 280
    made = await relayed.door.mint(max_spend_usd=0.002)
    assert (await relayed.post(GPT, made["secret"], max_tokens=100, n=64))[0] == 402


async def test_without_a_limit_the_models_own_stands(relayed: Relayed) -> None:
    """A caller of OpenAI who names none gets none sent, while the money reaches for the longest answer."""
    relayed.provider.answers = [whole({"choices": [], "usage": USAGE})]
    body = {"model": GPT, "messages": [{"role": "user", "content": "Hi"}]}
    assert (await relayed.door.ask("POST", PATHS[GPT], body))[0] == 200
    assert "max_completion_tokens" not in msgspec.json.decode(relayed.provider.bodies[0])
    made = await relayed.door.mint(max_spend_usd=0.01)
    assert (await relayed.door.ask("POST", PATHS[GPT], body, key=made["secret"]))[0] == 200
    assert msgspec.json.decode(relayed.provider.bodies[1])["max_completion_tokens"] < 3_000


@pytest.mark.parametrize("streamed", [True, False])
async def test_retries_come_before_the_first_byte_only(relayed: Relayed, streamed: bool) -> None:
    """An overload is tried again, also one inside a stream that had not begun; a cut answer is not."""
    good = stream(START, TEXT, END) if streamed else whole(MESSAGE)
    inside = stream(b"event: error\ndata: " + msgspec.json.encode(OVERLOADED) + b"\n\n")
    relayed.provider.answers = [refuse(529), inside if streamed else refuse(500), good]
    status, _, raw = await relayed.post(CLAUDE, stream=streamed)
    assert status == 200
    assert raw == (START + TEXT + END if streamed else msgspec.json.encode(MESSAGE))
    assert len(relayed.provider.requests) == 3
    assert await relayed.settled() > 0


async def test_a_refusal_costs_nothing(relayed: Relayed) -> None:
    """A provider's 400 and 429 reach the caller as such, and the hold goes back."""
    for status in (400, 429):
        relayed.provider.answers = [refuse(status, {"error": {"type": "x", "message": "No."}})]
        for model in PATHS:
            for streamed in (True, False):
                got, headers, raw = await relayed.post(model, stream=streamed)
                assert got == status
                assert headers["content-type"].startswith("application/json")
                assert msgspec.json.decode(raw)["error"]["message"] == "No."
    assert await relayed.cost() == (0, 0, 0)


async def test_a_cut_stream_ends_with_an_error_and_is_estimated(relayed: Relayed) -> None:
    """Whole frames came, half a frame did not; then the caller hears what happened, and is billed."""
    relayed.provider.answers = [stream(START, TEXT, b'event: message_delta\ndata: {"type', cut=True)]
    status, _, raw = await relayed.post(CLAUDE, stream=True)
    assert status == 200
    assert raw.startswith(START + TEXT + b"event: error\ndata: ")
    told = msgspec.json.decode(raw.rsplit(b"data: ", 1)[1])
    assert (told["type"], told["error"]["type"]) == ("error", "api_error")
    await relayed.settled()
    row = await relayed.pool.fetchrow("SELECT * FROM usage_events")
    assert row is not None
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (12, 4, True)
    assert row["status"] == 502


async def test_the_bill_is_written_before_the_last_bytes(relayed: Relayed) -> None:
    """Who has read the end of an answer finds it in the usage, also when the connection stays open."""
    relayed.provider.answers = [stream(START, TEXT, END, hold=relayed.provider.released)]
    body = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"x-api-key": relayed.door.master}
    async with relayed.door.client.post("/v1/messages", json=body, headers=headers) as response:
        raw = b""
        while not raw.endswith(END):
            raw += await response.content.readany()
        assert (await relayed.cost())[::2] == (1, 0)


async def test_who_left_is_read_for_a_while_only(relayed: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that never ends is given up some time after its reader has left, and billed."""
    monkeypatch.setattr(relay_module, "DETACHED_SECONDS", 0.2)
    relayed.provider.answers = [stream(START, TEXT, hold=relayed.provider.released)]
    body = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"x-api-key": relayed.door.master}
    async with relayed.door.client.post("/v1/messages", json=body, headers=headers) as response:
        await response.content.readany()
    assert await relayed.settled() > 0


async def test_closing_settles_what_is_on_its_way(relayed: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends breaks off what does not end by itself; its reader is told, its cost estimated."""
    monkeypatch.setattr(relay_module, "CLOSING_SECONDS", 0.2)
    relayed.provider.answers = [stream(START, TEXT, hold=relayed.provider.released)]
    asking = asyncio.create_task(relayed.post(CLAUDE, stream=True))
    await asyncio.sleep(0.5)
    await relayed.relay.close()
    assert (await relayed.cost())[::2] == (1, 0)
    status, _, raw = await asking
    assert status == 200
    assert b"restarting" in raw
    assert (await relayed.post(CLAUDE))[0] == 503


async def test_closing_waits_for_handlers_that_were_broken_off(relayed: Relayed) -> None:
    """A server does not wait for handlers that it cancels: what they settle is in Postgres all the same."""
    relayed.provider.answers = [stream(START, hold=relayed.provider.released)]
    key = await lifecycle.verify(relayed.pool, relayed.door.master)
    body = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    whole = Whole(key, AnthropicAsk.of(body, None, None))
    handler = asyncio.create_task(relayed.relay.whole(whole))
    async with asyncio.timeout(5):
        while not (whole.ticket and whole.ticket.call.accepted):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    async with relayed.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM budgets FOR UPDATE")
        handler.cancel()
        closing = asyncio.create_task(relayed.relay.close())
        await asyncio.wait({closing}, timeout=0.1)
        assert not closing.done()
    await closing
    assert (await relayed.cost())[::2] == (1, 0)
    await asyncio.gather(handler, return_exceptions=True)


async def test_a_slow_reader_holds_the_provider_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in between is bounded; a reader that stops reading altogether counts as gone."""
    monkeypatch.setattr(pipe, "MAX_BYTES", 10)
    monkeypatch.setattr(pipe, "STALL_SECONDS", 0.2)
    left = asyncio.Event()
    between = pipe.Pipe(left.set)
    await between.put(b"x" * 8)
    putting = asyncio.create_task(between.put(b"y" * 8))
    await asyncio.sleep(0.05)
    assert not putting.done()
    reading = between.read(1)
    assert await anext(reading) == b"x" * 8 + b"y" * 8
    await putting
    await between.put(b"z" * 11)
    assert left.is_set()
    await between.put(b"dropped")
    assert [data async for data in reading] == []


RESPONSES = "/v1/responses"
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [],
    "usage": {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 4},
    "odd": 1,
}


def told(number: int, kind: str, **fields: Any) -> bytes:
    """A frame of a Responses stream."""
    event = {"type": f"response.{kind}", "sequence_number": number, **fields}
    return b"event: response.%s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(event))


CREATED = told(0, "created", response={**RESPONSE, "status": "in_progress", "usage": None})
DELTA = told(1, "output_text.delta", output_index=0, content_index=0, delta="Hi there", odd=[1])
COMPLETED = told(2, "completed", response=RESPONSE)


async def test_a_responses_body_passes_but_for_what_is_stored(relayed: Relayed) -> None:
    """Unknown fields and items go both ways; nothing is stored upstream, nothing of ours is sent there."""
    relayed.provider.answers = [whole(RESPONSE)]
    item = {"type": "brand_new_item", "deep": [1, {"x": None}]}
    ours = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "qlaud1:e30="}
    said = {"role": "user", "content": "Hi"}
    body = {"model": GPT, "input": [said, ours, item], "brand_new": {"a": 1}, "metadata": {"b": "c"}}
    status, answer = await relayed.door.ask("POST", RESPONSES, body)
    assert (status, answer) == (200, RESPONSE)
    (request,) = relayed.provider.requests
    assert request.path == RESPONSES
    assert msgspec.json.decode(relayed.provider.bodies[0]) == {
        "model": "gpt-5.4-mini",
        "input": [said, item],
        "brand_new": {"a": 1},
        "metadata": {"b": "c"},
        "store": False,
    }
    fresh, cached, output = 8 * 750_000, 4 * 75_000, 4 * 4_500_000
    assert await relayed.settled() == -(-(fresh + cached + output) * 107 // 100_000)


@pytest.mark.parametrize("cut", [1, 50, 10_000])
async def test_a_responses_stream_is_the_providers_own(relayed: Relayed, cut: int) -> None:
    """In whatever pieces it comes; a cut one is estimated, and its error has the next number."""
    stream_of = CREATED + DELTA + COMPLETED
    relayed.provider.answers = [
        stream(*(stream_of[n : n + cut] for n in range(0, len(stream_of), cut))),
        stream(CREATED, DELTA, b'event: response.completed\ndata: {"type', cut=True),
    ]
    body, headers = {"model": GPT, "input": "Hi", "stream": True}, {"x-api-key": relayed.door.master}
    async with relayed.door.client.post(RESPONSES, json=body, headers=headers) as response:
        assert (response.status, await response.read()) == (200, stream_of)
    async with relayed.door.client.post(RESPONSES, json=body, headers=headers) as response:
        raw = await response.read()
    assert raw.startswith(CREATED + DELTA + b"event: error\ndata: ")
    event = msgspec.json.decode(raw.rsplit(b"data: ", 1)[1])
    assert (event["type"], event["sequence_number"]) == ("error", 2)
    assert event["code"] == event["error"]["code"] == "provider_unavailable"
    await relayed.settled(2)
    rows = await relayed.pool.fetch(
        "SELECT output_tokens, estimated, status FROM usage_events ORDER BY estimated"
    )
    assert [tuple(row) for row in rows] == [(4, False, 200), (2, True, 502)]


async def test_a_responses_limit_is_clamped_to_the_money(relayed: Relayed) -> None:
    """Named or not, the limit that goes upstream is what the key affords; below the floor it is 402."""
    relayed.provider.answers = [whole(RESPONSE)]
    made = await relayed.door.mint(max_spend_usd=0.003)
    for limit in ({"max_output_tokens": 50_000}, {}):
        body = {"model": GPT, "input": "Hi", **limit}
        assert (await relayed.door.ask("POST", RESPONSES, body, key=made["secret"]))[0] == 200
    for sent in relayed.provider.bodies:
        assert 64 <= msgspec.json.decode(sent)["max_output_tokens"] < 650
    poor = await relayed.door.mint(max_spend_usd=0.0003)
    status, answer = await relayed.door.ask("POST", RESPONSES, body, key=poor["secret"])
    assert (status, answer["error"]["code"]) == (402, "key_cap_exceeded")


async def test_a_change_of_a_key_counts_from_its_next_request(relayed: Relayed) -> None:
    """Also for a key that was verified a moment ago and is remembered: its cap, its models, its end."""
    relayed.provider.answers += [whole(MESSAGE)] * 9
    made = await relayed.door.mint(max_spend_usd=5)
    path = f"/v1/keys/{made['id']}"

    async def status() -> int:
        return (await relayed.post(CLAUDE, made["secret"]))[0]

    async def patch(**fields: Any) -> None:
        assert (await relayed.door.ask("PATCH", path, fields))[0] == 200

    assert [await status() for _ in range(3)] == [200] * 3
    await patch(max_spend_usd=0)
    assert await status() == 402
    await patch(max_spend_usd=5)
    assert await status() == 200
    await patch(allowed_models=[GPT])
    assert await status() == 403
    await patch(allowed_models=None)
    assert [await status() for _ in range(3)] == [200] * 3
    assert (await relayed.door.ask("DELETE", path))[0] in (200, 204)
    assert await status() == 401
    await relayed.settled(rows=7)
