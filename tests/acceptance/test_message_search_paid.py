"""Search from end to end: real processes, a turn, a worker that indexes it, and who pays for the vectors."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Api, running_cluster, script

from qlaud_actors import embedded, program
from qlaud_actors.db.pool import Pool
from qlaud_actors.probe import wait_until


@pytest.fixture
def chroma(servers_folder: Path) -> Iterator[program.Program]:
    """A Chroma of its own."""
    server = embedded.chroma(servers_folder / "end-to-end", program.free_port())
    process = program.start(server, servers_folder / "end-to-end.log")
    yield server
    program.stop(server, process)


async def until_found(api: Api, count: int, query: str) -> Any:
    """Search until that many messages are found."""
    async with asyncio.timeout(20):
        while True:
            status, answer = await api.request("GET", f"/v1/search?q={query}")
            if status == 200 and len(answer["data"]) >= count:
                return answer["data"]
            await asyncio.sleep(0.05)


async def test_a_turn_is_found_and_the_vectors_are_paid(
    database_url: str, redis_url: str, pool: Pool, chroma: program.Program
) -> None:
    """A worker indexes a turn at the operator's cost; a query costs its key, and a cap refuses it."""
    assert await wait_until(chroma.ready, 30)
    async with running_cluster(
        database_url, redis_url, CHROMA_URL=chroma.url, QLAUD_EMBEDDING_MODEL="text-embedding-3-small"
    ) as cluster:
        user, key_id = await cluster.key(end_user_id="ada", max_spend_usd=1)
        broke, _ = await cluster.key(max_spend_usd=0)
        thread = (await user.post("/v1/threads", {}))["id"]
        await user.turn(thread, script({"text": "The kettle is refunded."}, say="My kettle is broken"))
        found = await until_found(user, 2, "kettle")
        assert {(one["thread_id"], one["seq"]) for one in found} == {(thread, 1), (thread, 2)}
        status, answer = await broke.request("GET", "/v1/search?q=kettle")
        assert (status, answer["error"]["code"]) == (402, "key_cap_exceeded")
        status, answer = await broke.request("GET", "/v1/search?q=kettle&mode=text")
        assert (status, answer["data"]) == (200, [])
        charged = await pool.fetch(
            "SELECT k.is_master, k.id::text, sum(u.cost_nanos)::bigint AS cost FROM usage_events u"
            " JOIN keys k ON k.id = u.key_id WHERE u.model_slug = 'text-embedding-3-small' GROUP BY 1, 2"
        )
        assert {(row["is_master"], row["cost"] > 0) for row in charged} == {(True, True), (False, True)}
        assert key_id in {row["id"] for row in charged}
        status, _ = await user.request("DELETE", f"/v1/threads/{thread}")
        assert status == 200
        assert (await user.request("GET", "/v1/search?q=kettle"))[1]["data"] == []
