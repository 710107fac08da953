"""Jobs and their webhooks on real processes: workers that die, a receiver that fails, hangs and recovers."""

import asyncio
import hashlib
import hmac
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cluster import MODEL, Cluster, process, running_cluster, script

from qlaud_actors.db.pool import Pool


@dataclass
class Receiver:
    """The developer's endpoint; `trouble` is what it does before it is well again."""

    url: str = ""
    secret: str = ""
    trouble: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """One delivery, verified as the how-to says."""
        body, stamp = await request.read(), request.headers["x-qlaud-timestamp"]
        signed = hmac.new(self.secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(signed, request.headers["x-qlaud-signature"])
        trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "hangs":
            assert request.transport is not None
            await asyncio.sleep(0.3)
            request.transport.abort()
        if trouble:
            return web.Response(status=500)
        self.told.append(msgspec.json.decode(body))
        return web.Response(status=204)

    def of(self, event: str) -> list[dict[str, Any]]:
        """What was told of a kind of event."""
        return [one for one in self.told if one["type"] == event]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running endpoint."""
    endpoint = Receiver()
    app = web.Application()
    app.router.add_post("/hook", endpoint.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield endpoint
    await runner.cleanup()


@pytest.fixture
async def cluster(database_url: str, redis_url: str) -> AsyncIterator[Cluster]:
    """A front door without a worker; leases are short, so that takeovers are quick."""
    async with running_cluster(database_url, redis_url, workers=0, QLAUD_LEASE_SECONDS="1") as cluster:
        yield cluster


async def listen(cluster: Cluster, receiver: Receiver) -> None:
    """Register the receiver for everything."""
    events = ["job.completed", "usage.recorded", "key.cap_exceeded"]
    made = await cluster.admin.post("/v1/webhooks", {"url": receiver.url, "events": events})
    receiver.secret = made["secret"]


def asked(*lines: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "user", "content": script(*lines)}
    return {"endpoint": "/v1/messages", "body": {"model": MODEL, "max_tokens": 200, "messages": [message]}}


async def until(holds: Any, seconds: float = 25) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.03)


async def hurry(pool: Pool) -> None:
    """Retries that are far ahead are due now."""
    await pool.execute(
        "UPDATE deliveries SET next_attempt_at = now()"
        " WHERE status = 'pending' AND last_error IS NOT NULL AND next_attempt_at > now() + interval '2 s'"
    )


async def test_a_killed_worker_loses_nothing(cluster: Cluster, receiver: Receiver, pool: Pool) -> None:
    """`kill -9` with a job running: it ends on another worker, with one usage row and one webhook id;
    the receiver fails and hangs before it takes them, and is told of all usage exactly once.
    """
    await listen(cluster, receiver)
    receiver.trouble = ["fails", "hangs", "fails"]
    user, key_id = await cluster.key(max_spend_usd=1)
    text = " ".join(f"w{n}" for n in range(40))
    async with process("workers", cluster.environ) as victim:
        job_id = (await user.post("/v1/jobs", asked({"text": text, "delay_ms": 50})))["id"]

        async def running() -> bool:
            return bool(await pool.fetchval("SELECT count(*) FROM holds"))

        await until(running)
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
    async with process("workers", cluster.environ):
        cap, _ = await cluster.key(max_spend_usd=0)
        for _ in range(3):
            assert (await cap.request("POST", "/v1/jobs", asked({"text": "no"})))[0] == 402

        async def told() -> bool:
            await hurry(pool)
            return {one["type"] for one in receiver.told} == {
                "job.completed",
                "usage.recorded",
                "key.cap_exceeded",
            }

        await until(told)
    job = await user.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["response"]["content"][0]["text"]) == ("succeeded", text)
    usage = await pool.fetch("SELECT id, cost_nanos FROM usage_events WHERE key_id::text = $1", key_id)
    assert len(usage) == 1
    rows = [row for one in receiver.of("usage.recorded") for row in one["data"]["usage"]]
    assert [(row["id"], row["cost_nanos"]) for row in rows] == [(str(usage[0]["id"]), usage[0]["cost_nanos"])]
    assert {one["data"]["id"] for one in receiver.of("job.completed")} == {job_id}
    assert len({one["id"] for one in receiver.of("job.completed")}) == 1
    assert len({one["id"] for one in receiver.of("key.cap_exceeded")}) == 1
    budget = await pool.fetchrow("SELECT * FROM budgets WHERE key_id::text = $1", key_id)
    assert budget is not None
    assert (budget["held_nanos"], budget["spent_nanos"]) == (0, usage[0]["cost_nanos"])


async def test_no_line_loses_or_repeats_a_job(cluster: Cluster, receiver: Receiver, pool: Pool) -> None:
    """Killed behind the hold, before the commit, and behind a delivery: one charge, one id."""
    await listen(cluster, receiver)
    for point in ("admit after 1", "end_job after 1", "attempt after 1"):
        try:
            await survive(cluster, receiver, pool, point)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"killed at: {point}") from error


async def survive(cluster: Cluster, receiver: Receiver, pool: Pool, point: str) -> None:
    """One line."""
    user, key_id = await cluster.key(max_spend_usd=1)
    receiver.told.clear()
    async with process("workers", cluster.environ, dies_at=point) as dying:
        job_id = (await user.post("/v1/jobs", asked({"text": "said"})))["id"]
        assert await asyncio.wait_for(dying.wait(), 20) == 9
    await pool.execute("UPDATE deliveries SET next_attempt_at = now() WHERE status = 'pending'")
    async with process("workers", cluster.environ):

        async def told() -> bool:
            return {one["type"] for one in receiver.told} >= {"job.completed", "usage.recorded"} and not (
                await pool.fetchval("SELECT count(*) FROM deliveries WHERE status = 'pending'")
            )

        await until(told)
    assert (await user.get(f"/v1/jobs/{job_id}"))["status"] == "succeeded"
    assert len({one["id"] for one in receiver.of("job.completed")}) == 1
    rows = {row["id"] for one in receiver.of("usage.recorded") for row in one["data"]["usage"]}
    usage = await pool.fetch("SELECT id FROM usage_events WHERE key_id::text = $1", key_id)
    assert [rows] == [{str(row["id"])} for row in usage]
    assert await pool.fetchval("SELECT count(*) FROM holds") == 0
