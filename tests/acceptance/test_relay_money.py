"""No route reaches a provider without money set aside, and no crowd spends more than there is."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from cluster import MODEL, OPENAI_MODEL, Api, Cluster, running_cluster, script

from api.routes import ROUTES
from qlaud_actors.db.pool import connect
from qlaud_actors.money import charge_nanos
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.usage import Usage

MODELS = {
    "/v1/embeddings": "text-embedding-3-small",
    "/v1/images/generations": "gpt-image-2",
    "/v1/images/edits": "gpt-image-2",
    "/v1/audio/speech": "tts-1",
    "/v1/audio/transcriptions": "whisper-1",
}
"""Where another kind of model is asked."""

REACH_A_PROVIDER = {"/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", *MODELS}
"""Routes that call a provider inside the front door. A route that is added here must be admitted first."""

CLIENTS = 300


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """One front door, no worker: what reaches the provider, the front door has sent."""
    async with running_cluster(database_url, redis_url, workers=0) as cluster:
        yield cluster


def paths() -> list[tuple[str, str]]:
    """Every route, with a name that nothing has for each of its parameters."""
    found = []
    for route in (route for table in ROUTES for route in table):
        path = "/".join(
            str(uuid.uuid4()) if part.startswith("{") else part
            for part in route.path.split("/")  # type: ignore[attr-defined]
        )
        found.append((route.method, path))  # type: ignore[attr-defined]
    return found


def body_for_all() -> dict[str, Any]:
    """Fields that every route which could call a model would understand."""
    return {
        "model": MODEL,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hi"}],
        "input": "Hi",
        "prompt": "Hi",
        "content": "Hi",
        "voice": "alloy",
        "image": "iVBORw0KGgo=",
        "name": "k",
        "endpoint": "/v1/messages",
        "body": {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]},
    }


def sent(method: str, path: str) -> dict[str, Any]:
    """A body that the route takes, if it is one that calls a model."""
    if method not in ("POST", "PUT", "PATCH"):
        return {}
    body = {**body_for_all(), **({"model": MODELS[path]} if path in MODELS else {})}
    if path == "/v1/images/edits":  # it leaves as a form, which has no objects and lists
        body = {name: value for name, value in body.items() if not isinstance(value, dict | list)}
    if path != "/v1/audio/transcriptions":
        return {"json": body}
    form = aiohttp.FormData({"model": body["model"]})
    form.add_field("file", bytes(1_000), filename="a.mp3")
    return {"data": form}


async def reached(cluster: Cluster, api: Api) -> set[str]:
    """The routes through which this caller reaches the provider."""
    through = set()
    for method, path in paths():
        cluster.scripted.reset()
        headers = {"x-api-key": api.key}
        async with api.session.request(
            method, api.base_url + path, headers=headers, **sent(method, path)
        ) as response:
            await response.read()
        if cluster.scripted.requests() or cluster.scripted.bill()["by_status"]:
            through.add(path)
    return through


async def test_no_route_reaches_a_provider_without_money(cluster: Cluster) -> None:
    """Walks the whole route table: who may spend nothing reaches no provider, whatever is asked."""
    rich, _ = await cluster.key(scope="admin")
    poor, _ = await cluster.key(scope="admin", max_spend_usd=0)
    assert await reached(cluster, poor) == set()
    assert await reached(cluster, rich) <= REACH_A_PROVIDER
    counts = {"/v1/messages/count_tokens"}  # the scripted server keeps no record of counts
    assert await reached(cluster, rich) | counts == REACH_A_PROVIDER


async def crowd(user: Api, seed: int) -> list[int]:
    """Many clients at once: both surfaces, both wires, streamed or not, some leave in the middle."""
    dice = random.Random(seed)

    async def one(number: int) -> int:
        path, model = (
            dice.choice(["/v1/messages", "/v1/chat/completions"]),
            dice.choice([MODEL, OPENAI_MODEL]),
        )
        leaves, stream = dice.random() < 0.15, dice.random() < 0.6
        words = {"text": f"word{number} " * dice.randint(1, 60), "delay_ms": dice.choice([0, 1, 2])}
        body = {
            "model": model,
            "max_tokens": dice.choice([50, 200, 400]),
            "stream": stream,
            "messages": [{"role": "user", "content": script(words)}],
        }
        try:
            async with user.session.post(
                user.base_url + path, json=body, headers={"x-api-key": user.key}
            ) as response:
                if leaves:
                    response.close()
                else:
                    await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    return await asyncio.gather(*(one(number) for number in range(CLIENTS)))


async def test_a_crowd_never_spends_more_than_the_cap(cluster: Cluster) -> None:
    """300 clients on a budget for a few: spend stays within it, equals the provider's own bill with markup
    to the nano-dollar, and no hold is left.
    """
    cap = 20_000_000
    user, key_id = await cluster.key(max_spend_usd=cap / 1e9)
    statuses = await crowd(user, seed=7)
    assert set(statuses) <= {0, 200, 402}
    assert statuses.count(200) > 5
    assert statuses.count(402) > 50
    connection = await connect(cluster.database_url)
    try:
        async with asyncio.timeout(30):
            while True:
                held = await connection.fetchval("SELECT count(*) FROM holds")
                if not held:
                    break
                await asyncio.sleep(0.1)
        budget = await connection.fetchrow("SELECT * FROM budgets WHERE key_id = $1", uuid.UUID(key_id))
        rows = await connection.fetch("SELECT cost_nanos, overrun_nanos, estimated FROM usage_events")
    finally:
        await connection.close()
    assert budget is not None
    assert budget["held_nanos"] == 0
    assert 0 < budget["spent_nanos"] <= cap
    assert budget["spent_nanos"] == sum(row["cost_nanos"] for row in rows)
    assert not any(row["estimated"] or row["overrun_nanos"] for row in rows)
    assert sorted(row["cost_nanos"] for row in rows) == sorted(upstream_bill(cluster))


def upstream_bill(cluster: Cluster) -> list[int]:
    """What the provider says it produced, at the catalogue's prices with markup, row by row."""
    catalog = Catalog.load({})
    prices = {model.upstream: model.price for model in map(catalog.resolve, (MODEL, OPENAI_MODEL))}
    return [
        charge_nanos(prices[row["model"]].cost_picos(Usage(row["input"], row["output"])), 700)
        for row in cluster.scripted.bill()["rows"]
    ]
