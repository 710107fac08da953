"""Failing over between two hosts of a model, over HTTP, with a meter that watches."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import pytest
from provider_double import END, REQUEST, START, TEXT, Provider, refuse, running_provider, stream

from qlaud_actors.errors import ProviderOverloaded, ProviderRejected, ProviderUnavailable, SpendCapReached
from qlaud_actors.outbound.client import open_client
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.caller import Call, Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback, FallbackCall
from qlaud_actors.providers.model import Model
from qlaud_actors.providers.routing import candidates
from qlaud_actors.usage import Usage

HOST = """
slug = "{slug}"
display_name = "{slug}"
wire = "anthropic"
base_url = "https://{slug}.test"
auth_header = "x-api-key"
api_key_env = "{env}_API_KEY"
base_url_env = "{env}_BASE_URL"

[[models]]
slug = "m"
upstream = "{slug}-m"
display_name = "M"
context_window = 1_000
max_output_tokens = 500
capabilities = []
price = {{ input = {price}, output = {price} }}
source = "s"
checked = 2026-11-24
"""
UNPAID = {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}
ANSWER = stream(START, TEXT, END)


@dataclass
class World:
    """A cheap and a dear host of one model, and what the meter was asked."""

    cheap: Provider
    dear: Provider
    catalog: Catalog
    caller: Caller
    waits: list[float]
    fallback: Fallback
    held: list[str] = field(default_factory=list)
    refuses: bool = False

    def call(self) -> FallbackCall[Call]:
        """A call by the order of the day."""
        found = candidates(self.catalog, "m", self.fallback.healthy)
        return self.fallback.call(found, self._prepare, self._hold)

    async def ask(self) -> FallbackCall[Call]:
        """The same, read to its end."""
        call = self.call()
        async for _ in call.events():
            pass
        return call

    def _prepare(self, model: Model) -> Call:
        return self.caller.call(replace(REQUEST, max_tokens=model.max_output_tokens), model)

    async def _hold(self, model: Model) -> None:
        if self.refuses and model.provider.slug == "dear":
            raise SpendCapReached
        self.held.append(model.provider.slug)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Both hosts answer."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with AsyncExitStack() as stack:
        cheap = await stack.enter_async_context(running_provider())
        dear = await stack.enter_async_context(running_provider())
        cheap.answers, dear.answers = [ANSWER], [ANSWER]
        sources = {
            f"{slug}.toml": HOST.format(slug=slug, env=slug.upper(), price=price)
            for slug, price in (("cheap", 1), ("dear", 9))
        }
        catalog = Catalog.load({"CHEAP_BASE_URL": cheap.url, "DEAR_BASE_URL": dear.url}, sources)
        client = open_client()
        stack.push_async_callback(client.close)
        fallback = Fallback(RetryPolicy(2), sleep=sleep)
        yield World(cheap, dear, catalog, Caller(client, catalog), waits, fallback)


def told(call: FallbackCall[Call]) -> list[tuple[str, int, str | None]]:
    """The attempts that were recorded."""
    return [(attempt.provider, attempt.status, attempt.error) for attempt in call.attempts]


async def test_the_cheap_host_is_asked_first(world: World) -> None:
    """With its own name for the model; the other hears nothing."""
    call = await world.ask()
    assert told(call) == [("cheap", 200, None)]
    assert b'"model":"cheap-m"' in world.cheap.bodies[0]
    assert (world.held, world.dear.requests) == (["cheap"], [])
    assert call.current is not None
    assert call.current.usage == Usage(input=12, output=4)


async def test_a_billing_refusal_fails_over(world: World) -> None:
    """At once, with the meter asked before; the next call does not go to the unpaid host first."""
    world.cheap.answers = [refuse(400, UNPAID)]
    call = await world.ask()
    assert told(call) == [("cheap", 502, "provider_unavailable"), ("dear", 200, None)]
    assert call.model is not None
    assert call.model.price.version.startswith("dear/m@2026-11-24#")
    assert (world.held, world.waits) == (["cheap", "dear"], [])
    assert told(await world.ask()) == [("dear", 200, None)]


async def test_a_host_that_asks_for_patience_is_left_for_another(world: World) -> None:
    """Nobody waits while another host can answer, and none asks again before that time."""
    world.cheap.answers = [refuse(429, **{"retry-after": "20"})]
    assert told(await world.ask()) == [("cheap", 429, "provider_overloaded"), ("dear", 200, None)]
    assert world.waits == []
    assert told(await world.ask()) == [("dear", 200, None)]


async def test_a_host_is_waited_for_when_all_have_failed(world: World) -> None:
    """Each is asked once before any is asked again, and none before it wants."""
    world.cheap.answers = [refuse(401, UNPAID)]
    world.dear.answers = [refuse(529, **{"retry-after": "2"}), ANSWER]
    assert [status for _, status, _ in told(await world.ask())] == [502, 529, 200]
    assert len(world.waits) == 1
    assert 1.5 < world.waits[0] <= 2


async def test_a_refused_request_is_asked_of_nobody_else(world: World) -> None:
    """A 400 is about what was asked."""
    world.cheap.answers = [refuse(400, {"error": {"type": "invalid_request_error", "message": "No."}})]
    with pytest.raises(ProviderRejected):
        await world.ask()
    assert world.dear.requests == []


async def test_nothing_is_asked_again_after_the_first_byte(world: World) -> None:
    """A stream that breaks off is billed for what it said and repeated nowhere."""
    world.cheap.answers = [stream(START, TEXT, cut=True)]
    call = world.call()
    with pytest.raises(ProviderUnavailable):
        async for _ in call.events():
            pass
    assert world.dear.requests == []
    assert call.current is not None
    assert call.current.produced_usage(40) == Usage(input=12, output=10, estimated=True)


async def test_a_dear_host_that_cannot_be_paid_is_not_asked(world: World) -> None:
    """The caller hears why the cheap one did not answer."""
    world.refuses = True
    world.cheap.answers = [refuse(529)]
    call = world.call()
    with pytest.raises(ProviderOverloaded):
        async for _ in call.events():
            pass
    assert told(call)[1] == ("dear", 402, "key_cap_exceeded")
    assert world.dear.requests == []
