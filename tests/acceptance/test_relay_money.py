"""No route reaches a provider without money set aside. What crowds spend is `test_race_proof`."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from cluster import MODEL, Api, Cluster, running_cluster

from api.routes import ROUTES
from qlaud_actors.db.pool import Pool

MODELS = {
    "/v1/embeddings": "text-embedding-3-small",
    "/v1/images/generations": "gpt-image-2",
    "/v1/images/edits": "gpt-image-2",
    "/v1/audio/speech": "tts-1",
    "/v1/audio/transcriptions": "whisper-1",
}
"""Where another kind of model is asked."""

REACH_A_PROVIDER = {"/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"}
REACH_A_PROVIDER |= {"/v1/responses", *MODELS}
"""Routes that call a provider inside the front door. A route that is added here must be admitted first."""


@pytest.fixture
async def cluster(database_url: str, redis_url: str, pool: Pool) -> AsyncIterator[Cluster]:
    """One front door, no worker: what reaches the provider, the front door has sent."""
    async with running_cluster(database_url, redis_url, workers=0) as cluster:
        completing = asyncio.create_task(complete_deletions(pool))
        yield cluster
        completing.cancel()


async def complete_deletions(pool: Pool) -> None:
    """What no worker is there to do, and the front door would wait 20 s for each time."""
    ended = "UPDATE deletions SET end_user_id = NULL, completed_at = now() WHERE completed_at IS NULL"
    while True:
        await pool.execute(ended)
        await asyncio.sleep(0.05)


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
    if path == "/v1/responses":
        del body["prompt"]  # there it names what is stored
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
