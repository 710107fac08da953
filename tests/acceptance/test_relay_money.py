"""No route reaches a provider without money set aside. What crowds spend is `test_race_proof`."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import MODEL, Api, Cluster, running_cluster

from api.routes import ROUTES

REACH_A_PROVIDER = {"/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/responses"}
"""Routes that call a provider inside the front door. A route that is added here must be admitted first."""


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
        "name": "k",
        "endpoint": "/v1/messages",
        "body": {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]},
    }


async def reached(cluster: Cluster, api: Api) -> set[str]:
    """The routes through which this caller reaches the provider."""
    through = set()
    for method, path in paths():
        cluster.scripted.reset()
        body = body_for_all() if method in ("POST", "PUT", "PATCH") else None
        if body and path == "/v1/responses":
            del body["prompt"]  # there it names what is stored
        headers = {"x-api-key": api.key}
        async with api.session.request(method, api.base_url + path, json=body, headers=headers) as response:
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
