"""The provider caller against a loopback server that speaks Anthropic's wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from aiohttp import web
from provider_double import (
    END,
    KEY,
    OVERLOADED,
    REQUEST,
    START,
    TEXT,
    Answer,
    Provider,
    calling,
    collect,
    frame,
    hang_up,
    refuse,
    running_provider,
    stream,
)
from structlog.testing import capture_logs

from qlaud_actors.errors import (
    ProviderError,
    ProviderNotConfigured,
    ProviderOverloaded,
    ProviderRejected,
    ProviderUnavailable,
)
from qlaud_actors.outbound.client import Timeouts, open_client
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.model import BlockDelta, Message, MessageEnded, ModelEvent, ModelRequest
from qlaud_actors.usage import Usage


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A running loopback provider."""
    async with running_provider() as running:
        yield running


async def test_an_answer_arrives_as_events(provider: Provider) -> None:
    """A call sends the encoded request with its key and yields the decoded answer and its usage."""
    provider.answers = [stream(START[:20], START[20:] + TEXT, END)]
    async with calling(provider.url) as (make, waits):
        call = make()
        events = await collect(call)
    assert [e.delta["text"] for e in events if isinstance(e, BlockDelta)] == ["Hello, world."]
    assert isinstance(events[-1], MessageEnded)
    assert call.last.usage == Usage(input=12, output=4)
    assert call.last.usage_known
    sent = msgspec.json.decode(provider.bodies[0])
    assert (sent["model"], sent["stream"]) == ("claude-haiku-4-5-20251001", True)
    headers = provider.requests[0].headers
    assert headers["x-api-key"] == KEY
    assert headers["content-type"] == "application/json"
    assert not waits


@pytest.mark.parametrize(
    "failing",
    [
        refuse(529),
        refuse(429, {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}),
        refuse(503, {}),
        hang_up,
        stream(),
        stream(cut=True),
        stream(frame("error", error=OVERLOADED["error"])),
    ],
    ids=["529", "429", "503", "hang-up", "empty", "cut-before-a-byte", "error-event-first"],
)
async def test_passing_failures_are_retried(provider: Provider, failing: Answer) -> None:
    """What may pass is tried again as long as no part of an answer has come."""
    provider.answers = [failing, failing, stream(START, TEXT, END)]
    async with calling(provider.url) as (make, waits):
        call = make()
        events = await collect(call)
    assert isinstance(events[-1], MessageEnded)
    assert call.attempts == len(provider.requests) == 3
    assert len(waits) == 2
    assert all(0 <= wait <= limit for wait, limit in zip(waits, (0.5, 1.0), strict=True))


async def test_the_last_failure_is_raised_as_it_is(provider: Provider) -> None:
    """Once all attempts are spent the provider's own status reaches the caller, and nothing is billed."""
    provider.answers = [refuse(529)]
    async with calling(provider.url, attempts=2) as (make, _):
        call = make()
        with pytest.raises(ProviderOverloaded) as raised:
            await collect(call)
    assert raised.value.status == 529
    assert len(provider.requests) == 2
    assert call.last.produced_usage(0) is None


async def test_a_refusal_is_not_repeated(provider: Provider) -> None:
    """A request that the provider finds wrong is wrong the second time, too."""
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too large"}}
    provider.answers = [refuse(400, error)]
    async with calling(provider.url) as (make, _):
        call = make()
        with pytest.raises(ProviderRejected, match="max_tokens: too large"):
            await collect(call)
    assert len(provider.requests) == 1
    assert call.last.produced_usage(0) is None


async def test_a_refused_key_is_not_sent_again(provider: Provider) -> None:
    """What the operator must mend is not retried; what the provider said is in the log alone."""
    error = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
    provider.answers = [refuse(401, error)]
    async with calling(provider.url) as (make, _):
        with capture_logs() as lines, pytest.raises(ProviderUnavailable) as raised:
            await collect(make())
    assert len(provider.requests) == 1
    assert "invalid" not in str(raised.value)
    assert lines[0]["said"] == ["invalid x-api-key"]


async def test_redirects_are_not_followed(provider: Provider) -> None:
    """A key goes to the configured host and nowhere else."""
    provider.answers = [refuse(307, location=f"{provider.url}/elsewhere")]
    async with calling(provider.url) as (make, _):
        with pytest.raises(ProviderError, match="redirect"):
            await collect(make())
    assert len(provider.requests) == 1


async def test_retry_after_is_honoured(provider: Provider) -> None:
    """The wait is at least what the provider asks for; when it asks for too much, it is not waited for."""
    limited = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}
    provider.answers = [
        refuse(429, limited, **{"retry-after": "7"}),
        stream(START, TEXT, END),
        refuse(429, limited, **{"retry-after": "120"}),
    ]
    async with calling(provider.url) as (make, waits):
        await collect(make())
        assert waits == [7.0]
        with pytest.raises(ProviderOverloaded) as raised:
            await collect(make())
    assert raised.value.retry_after == 120
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "broken",
    [
        stream(START, TEXT, cut=True),
        stream(START, TEXT),
        stream(START + TEXT, frame("error", error=OVERLOADED["error"])),
    ],
    ids=["cut", "ended-early", "error-event"],
)
async def test_nothing_is_repeated_after_the_first_byte(provider: Provider, broken: Answer) -> None:
    """An answer that breaks off is raised after its events; what it produced can be billed."""
    provider.answers = [broken, stream(START, TEXT, END)]
    seen: list[ModelEvent] = []
    async with calling(provider.url) as (make, waits):
        call = make()
        with pytest.raises((ProviderUnavailable, ProviderOverloaded)):
            await collect(call, seen)
    assert any(isinstance(event, BlockDelta) for event in seen)
    assert len(provider.requests) == 1
    assert not waits
    assert not call.last.usage_known
    assert call.last.produced_usage(13) == Usage(input=12, output=4, estimated=True)


async def test_a_refused_connection_is_retried_and_then_unavailable() -> None:
    """Where nobody listens, all attempts are made and the error names the provider, not its address."""
    async with calling("http://127.0.0.1:1") as (make, waits):
        call = make()
        with pytest.raises(ProviderUnavailable, match=r"^Anthropic could not be reached\.$"):
            await collect(call)
    assert (call.attempts, len(waits)) == (3, 2)
    assert call.last.produced_usage(0) is None


async def test_silence_is_not_asked_twice(provider: Provider) -> None:
    """A provider that took the call and stays silent may bill it: no second call, an estimate instead."""
    provider.answers = [stream(START, hold=provider.released)]
    async with calling(provider.url, timeouts=Timeouts(between_bytes=0.05)) as (make, _):
        call = make()
        with pytest.raises(ProviderUnavailable, match="broke off"):
            await collect(call)

    provider.answers = [stream(hold=provider.released)]
    async with calling(provider.url, timeouts=Timeouts(first_byte=0.05)) as (make, waits):
        call = make()
        with pytest.raises(ProviderUnavailable, match="did not answer in time"):
            await collect(call)
    assert len(provider.requests) == 2
    assert not waits
    produced = call.last.produced_usage(0)
    assert produced is not None
    assert produced.estimated
    assert produced.input > 0


async def test_an_abandoned_answer_closes_its_connection(provider: Provider) -> None:
    """A reader that stops leaves no stream running, and what was produced until then is known."""
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(START)
            while True:
                await response.write(b": more\n\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
        return response

    provider.answers = [endless]
    async with calling(provider.url) as (make, _):
        call = make()
        async with aclosing(call.events()) as events:
            await anext(events)
        await asyncio.wait_for(gone.wait(), 5)
    assert call.last.produced_usage(40) == Usage(input=12, output=10, estimated=True)


async def test_cancelling_stops_the_call(provider: Provider) -> None:
    """A cancelled task stops waiting at once; an accepted call is billed by estimate."""
    provider.answers = [stream(START, TEXT, hold=provider.released)]
    async with calling(provider.url) as (make, _):
        call = make()
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in call.events():
                begun.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert call.last.produced_usage(13) == Usage(input=12, output=4, estimated=True)


async def test_without_a_key_nothing_is_sent() -> None:
    """A model whose provider has no key is refused with the name of the variable to set."""
    catalog = Catalog.load({})
    client = open_client()
    try:
        with pytest.raises(ProviderNotConfigured, match="ANTHROPIC_API_KEY"):
            Caller(client, catalog).call(REQUEST, catalog.resolve("claude-haiku-4-5"))
    finally:
        await client.close()


async def test_each_attempt_is_one_log_line_without_secrets(provider: Provider) -> None:
    """The log tells provider, model, status and time of each attempt, and neither key nor text."""
    provider.answers = [refuse(529), stream(START, TEXT, END)]
    async with calling(provider.url) as (make, _):
        with capture_logs() as lines:
            await collect(make())
    assert [(line["status"], line["outcome"]) for line in lines] == [
        (529, "ProviderOverloaded"),
        (200, "complete"),
    ]
    assert all(line["provider"] == "anthropic" and line["latency_ms"] >= 0 for line in lines)
    for secret in (KEY, "question", "Hello"):
        assert secret not in repr(lines)
        assert secret not in repr(make())


async def test_a_large_request_goes_out_whole(provider: Provider) -> None:
    """Megabytes of pictures are sent without warnings or loss."""
    provider.answers = [stream(START, TEXT, END)]
    catalog = Catalog.load({"ANTHROPIC_BASE_URL": provider.url})
    request = ModelRequest("m", (Message("user", "x" * 5_000_000),), 100)
    client = open_client()
    try:
        await collect(Caller(client, catalog).call(request, catalog.resolve("claude-haiku-4-5")))
    finally:
        await client.close()
    assert len(provider.bodies[0]) > 5_000_000
    assert "x-api-key" not in provider.requests[0].headers
