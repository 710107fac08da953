"""Jobs: accepted once, carried by whoever lives, charged once for the answer that is kept."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from front_door import Door, front_door
from provider_double import END, START, TEXT, Answer, Provider, refuse, running_provider, stream

from qlaud_actors.billing.group_commit import GroupCommit
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.deferred import queue
from qlaud_actors.deferred.endpoints import ask_from
from qlaud_actors.deferred.model import MAX_ATTEMPTS, Job
from qlaud_actors.deferred.runner import JobRunner
from qlaud_actors.deliveries import store as webhooks
from qlaud_actors.errors import LeaseLost
from qlaud_actors.gateway.admission import Admission
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.limits import Admitted
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.client import open_client
from qlaud_actors.outbound.retry import RetryPolicy
from qlaud_actors.providers.caller import Caller
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.fallback import Fallback
from qlaud_actors.settings import Settings

CLAUDE = "claude-haiku-4-5"
BODY = {"model": CLAUDE, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
ASKED = {"endpoint": "/v1/messages", "body": {**BODY, "stream": True}}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 12, "output_tokens": 4},
    "odd": [1, {"field": None}],
}


class NoLimits:
    """Paces nobody."""

    def admit(self, key: object, tokens: int) -> contextlib.nullcontext[Admitted]:
        """Come in."""
        return contextlib.nullcontext(Admitted())


def says(body: Any = MESSAGE, hold: asyncio.Event | None = None) -> Answer:
    """A whole answer, perhaps not before something has happened."""

    async def answer(_: web.Request) -> web.StreamResponse:
        if hold:
            await hold.wait()
        return web.json_response(body)

    return answer


@dataclass
class Office:
    """A front door, a provider, and as many workers as a test wants."""

    pool: Pool
    door: Door
    provider: Provider
    runner: Callable[..., JobRunner]
    woken: list[uuid.UUID] = field(default_factory=list)

    async def submit(self, key: str | None = None, **fields: Any) -> str:
        """The id of a new job."""
        status, made = await self.door.ask("POST", "/v1/jobs", {**ASKED, **fields}, key=key)
        assert status == 202, made
        return str(made["id"])

    async def job(self, job_id: str) -> Any:
        """A job as its admin sees it."""
        status, job = await self.door.ask("GET", f"/v1/jobs/{job_id}")
        assert status == 200
        return job

    async def work(self, runner: JobRunner | None = None) -> None:
        """One sweep, and all that it began."""
        runner = runner or self.runner()
        await runner.sweep()
        await done(runner)

    async def money(self) -> tuple[int, int, int]:
        """Usage rows, their cost, and what is still held."""
        row = await self.pool.fetchrow(
            "SELECT count(*) AS n, COALESCE(sum(cost_nanos), 0)::bigint AS cost,"
            " (SELECT count(*) FROM holds) AS holds FROM usage_events"
        )
        assert row is not None
        return row["n"], row["cost"], row["holds"]


async def done(runner: JobRunner) -> None:
    """Wait for all jobs of a worker."""
    while tasks := [one.task for one in runner.carrier.carried.values() if one.task]:
        await asyncio.gather(*tasks, return_exceptions=True)


async def called(provider: Provider, times: int = 1) -> None:
    """Wait until the provider was asked so often."""
    async with asyncio.timeout(5):
        while len(provider.requests) < times:  # noqa: ASYNC110 - the provider is not ours to wake
            await asyncio.sleep(0.005)


@pytest.fixture
async def office(pool: Pool, vault: Vault) -> AsyncIterator[Office]:
    """Everything in this process; workers do not renew by themselves."""
    async with running_provider() as provider, contextlib.AsyncExitStack() as stack:
        catalog = Catalog.load({"ANTHROPIC_API_KEY": "sk-ant-x", "ANTHROPIC_BASE_URL": provider.url})
        client = open_client()
        stack.push_async_callback(client.close)
        caller, woken = Caller(client, catalog), []
        settings = Settings(allow_private_webhooks=True, drain_seconds=0.0)

        async def wake(ids: list[uuid.UUID]) -> None:
            woken.extend(ids)

        def admission() -> Admission:
            money = GroupCommit(pool, new_uuid())
            return Admission(money, catalog, caller, Fallback(RetryPolicy(1)), 700)

        def runner(**changes: Any) -> JobRunner:
            made = JobRunner(replace(settings, **changes), pool, pool, admission(), wake)
            stack.push_async_callback(made.carrier.drain)
            return made

        services = {
            "catalog": catalog,
            "vault": vault,
            "relay": SimpleNamespace(admission=admission()),
            "limits": NoLimits(),
            "wake_jobs": wake,
            "wake_deliveries": wake,
        }
        door = await stack.enter_async_context(front_door(pool, settings=settings, **services))
        provider.answers = [says()]
        yield Office(pool, door, provider, runner, woken)


async def claimed(office: Office, job_id: str) -> Job:
    """The job as a worker has it that is about to die."""
    (job,) = await queue.claim(office.pool, uuid.UUID(job_id), 1, "dying", 10)
    return job


async def expire(pool: Pool) -> None:
    await pool.execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE status = 'running'")


async def test_a_job_is_answered_later(office: Office) -> None:
    """Accepted with an id, then the provider's answer verbatim, its cost, one usage row and no hold."""
    status, made = await office.door.ask("POST", "/v1/jobs", ASKED)
    assert status == 202
    told = {"object": "job", "status": "queued", "endpoint": "/v1/messages"}
    assert made == {**told, "id": made["id"], "created_at": made["created_at"]}
    assert office.woken == [uuid.UUID(made["id"])]
    waiting = await office.job(made["id"])
    assert [waiting[name] for name in ("model", "started_at", "completed_at", "cost_micros")] == [None] * 4
    assert "response" not in waiting
    await office.work()
    job = await office.job(made["id"])
    assert (job["status"], job["model"], job["error"]) == ("succeeded", CLAUDE, None)
    assert job["response"] == MESSAGE
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    rows, cost, holds = await office.money()
    assert (rows, holds) == (1, 0)
    assert job["cost_micros"] == -(-cost // 1000) > 0
    assert "stream" not in msgspec.json.decode(office.provider.bodies[0])
    assert await office.pool.fetchval("SELECT body FROM jobs") is None


async def test_a_job_in_another_dialect(office: Office) -> None:
    """A completion or response of a model that speaks Anthropic's wire is translated, as on the relay."""
    office.provider.answers = [stream(START, TEXT, END)]
    completion = await office.submit(endpoint="/v1/chat/completions", body=BODY)
    asked = {"model": CLAUDE, "input": "Hi", "max_output_tokens": 100, "stream": True}
    response = await office.submit(endpoint="/v1/responses", body=asked)
    await office.work()
    answer = (await office.job(completion))["response"]
    assert answer["choices"][0]["message"]["content"] == "Hello, world."
    answer = (await office.job(response))["response"]
    assert answer["output"][0]["content"][0]["text"] == "Hello, world."


async def test_the_same_idempotency_key_is_one_job(office: Office) -> None:
    """Sent ten times at once and again after its end: one job; with another body 409."""
    headers = {"Idempotency-Key": "once"}
    asks = (office.door.ask("POST", "/v1/jobs", ASKED, **headers) for _ in range(10))
    answers = await asyncio.gather(*asks)
    assert {status for status, _ in answers} == {202}
    assert len({made["id"] for _, made in answers}) == 1
    await office.work()
    again = await office.door.ask("POST", "/v1/jobs", ASKED, **headers)
    assert (again[0], again[1]["status"]) == (202, "succeeded")
    other = {**ASKED, "endpoint": "/v1/chat/completions"}
    assert (await office.door.ask("POST", "/v1/jobs", other, **headers))[0] == 409
    assert (await office.money())[0] == len(office.provider.requests) == 1


async def test_who_sees_which_job(office: Office) -> None:
    """A key its own, an admin those of the account, a stranger none; lists are pages, newest first."""
    ada, bob = [(await office.door.mint())["secret"] for _ in range(2)]
    await office.pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", other := new_uuid())
    _, stranger = await lifecycle.mint(office.pool, other, NewKey("k", scope="admin"))
    mine = [await office.submit(ada) for _ in range(3)]
    theirs = await office.submit(bob)
    await office.door.ask("POST", f"/v1/jobs/{mine[0]}/cancel", key=ada)
    for secret, found in ((ada, 200), (bob, 404), (None, 200), (stranger.reveal(), 404)):
        assert (await office.door.ask("GET", f"/v1/jobs/{mine[1]}", key=secret))[0] == found
    assert (await office.door.ask("POST", f"/v1/jobs/{mine[1]}/cancel", key=bob))[0] == 404

    async def listed(query: str = "", key: str | None = None) -> tuple[list[str], str | None]:
        status, page = await office.door.ask("GET", f"/v1/jobs{query}", key=key)
        assert status == 200
        return [job["id"] for job in page["data"]], page["next_before"]

    assert await listed(key=ada) == (mine[::-1], None)
    assert await listed(key=bob) == ([theirs], None)
    assert await listed(key=stranger.reveal()) == ([], None)
    first, cursor = await listed("?limit=3")
    assert (first, cursor) == ([theirs, mine[2], mine[1]], mine[1])
    assert await listed(f"?limit=3&before={cursor}") == ([mine[0]], None)
    assert await listed("?status=cancelled") == ([mine[0]], None)


async def test_the_key_is_looked_at_again(office: Office) -> None:
    """Revoked or out of budget since the job was accepted: it fails, and nothing was called or held."""
    revoked, broke = await office.door.mint(max_spend_usd=1), await office.door.mint(max_spend_usd=1)
    first, second = await office.submit(revoked["secret"]), await office.submit(broke["secret"])
    await office.door.ask("DELETE", f"/v1/keys/{revoked['id']}")
    await office.door.ask("PATCH", f"/v1/keys/{broke['id']}", {"max_spend_usd": 0.0000001})
    await office.work()
    job = await office.job(first)
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_api_key")
    assert job["error"]["type"] == "authentication_error"
    job = await office.job(second)
    assert (job["status"], job["error"]["code"]) == ("failed", "key_cap_exceeded")
    assert (job["error"]["type"], job["model"], job["cost_micros"]) == ("billing_error", CLAUDE, 0)
    assert await office.money() == (0, 0, 0)
    assert office.provider.requests == []


async def test_a_key_does_not_fill_the_queue(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waiting requests have a size together; one that is too much is 429, and fits once others ended."""
    monkeypatch.setattr(queue, "MAX_UNFINISHED_BYTES", 2 * len(msgspec.json.encode(ASKED)) + 50)
    for _ in range(2):
        await office.submit()
    status, answer = await office.door.ask("POST", "/v1/jobs", ASKED)
    assert (status, answer["error"]["code"]) == (429, "rate_limited")
    await office.work()
    await office.submit()


async def test_what_the_provider_refuses_fails_the_job(office: Office) -> None:
    """An error of the provider is the job's, and costs nothing."""
    office.provider.answers = [refuse(400, {"error": {"type": "x", "message": "No such image."}})]
    job_id = await office.submit()
    await office.work()
    job = await office.job(job_id)
    assert (job["status"], job["error"]["type"]) == ("failed", "invalid_request_error")
    assert "No such image." in job["error"]["message"]
    assert "response" not in job
    assert await office.money() == (0, 0, 0)


async def test_a_lost_worker_is_replaced(office: Office) -> None:
    """Its hold is given back, the call is made again, and the key pays once."""
    job_id = await office.submit((await office.door.mint(max_spend_usd=0.001))["secret"])
    lost = await claimed(office, job_id)
    call_id = await queue.open_call(office.pool, lost)
    key = await lifecycle.get_key(office.pool, ACCOUNT, lost.key_id)
    assert lost.body is not None
    await office.runner().admission.admit(key, ask_from(lost.endpoint, lost.body, {}), call_id)
    assert (await office.money())[2] == 1
    await office.work()
    assert (await office.job(job_id))["status"] == "running"
    await expire(office.pool)
    await office.work()
    assert (await office.job(job_id))["status"] == "succeeded"
    rows, _, holds = await office.money()
    assert (rows, holds) == (1, 0)
    assert await office.pool.fetchval("SELECT attempts FROM jobs") == 2
    with pytest.raises(LeaseLost):
        async with queue.fenced(office.pool, lost):
            pass


async def test_a_worker_that_was_only_asleep_charges_nothing(office: Office, vault: Vault) -> None:
    """Its answer comes when another worker has given one: one charge, one response, one delivery."""
    await webhooks.insert_webhook(office.pool, vault, ACCOUNT, "https://x.example", ["job.completed"])
    held = asyncio.Event()
    office.provider.answers = [says({**MESSAGE, "id": "late"}, held), says()]
    job_id = await office.submit()
    asleep, awake = office.runner(), office.runner()
    await asleep.start()
    await called(office.provider)
    await expire(office.pool)
    await office.work(awake)
    held.set()
    await done(asleep)
    assert (await office.job(job_id))["response"]["id"] == "m"
    assert [(await office.money())[n] for n in (0, 2)] == [1, 0]
    assert await office.pool.fetchval("SELECT count(*) FROM deliveries") == 1


async def test_three_lost_workers_are_enough(office: Office) -> None:
    """A job that kills workers fails; what the last one held is given back."""
    job_id = await office.submit()
    for _ in range(MAX_ATTEMPTS):
        lost = await claimed(office, job_id)
        call_id = await queue.open_call(office.pool, lost)
        await expire(office.pool)
    key = await lifecycle.get_key(office.pool, ACCOUNT, lost.key_id)
    await office.runner().admission.admit(key, ask_from(lost.endpoint, BODY, {}), call_id)
    await office.work()
    job = await office.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "job_abandoned")
    assert await office.money() == (0, 0, 0)
    assert office.provider.requests == []


async def test_keys_take_turns(office: Office) -> None:
    """A key with a crowd of jobs does not make another key's first job wait behind all of them."""
    crowd, other = [(await office.door.mint())["secret"] for _ in range(2)]
    many = [await office.submit(crowd) for _ in range(4)]
    one = await office.submit(other)
    batches = []
    for _ in range(2):
        batch = await queue.claim(office.pool, None, 2, "worker", 10)
        batches.append({str(job.id) for job in batch})
    assert batches == [{many[0], one}, {many[1], many[2]}]


async def test_a_waiting_job_is_cancelled_at_once(office: Office) -> None:
    """Also one whose worker is dead; one that has ended stays as it is."""
    waiting, lost, ended = [await office.submit() for _ in range(3)]
    runner = office.runner()
    await runner.start(uuid.UUID(ended))
    await done(runner)
    await claimed(office, lost)
    await expire(office.pool)
    statuses = []
    for job_id in (waiting, lost, ended):
        status, job = await office.door.ask("POST", f"/v1/jobs/{job_id}/cancel")
        assert status == 200
        statuses.append(job["status"])
    assert statuses == ["cancelled", "cancelled", "succeeded"]
    assert (await office.job(waiting))["error"]["code"] == "job_cancelled"
    await office.work()
    assert len(office.provider.requests) == 1


async def test_a_text_with_nul_holds_up_nobody(office: Office) -> None:
    """A job that says NUL is cancelled, or fails after three workers, as any other; the next one runs."""
    said = [{"role": "user", "content": "a\x00b \\u0000 \\"}]
    waiting, lost = [await office.submit(body={**BODY, "messages": said}) for _ in range(2)]
    other = await office.submit()
    assert (await office.door.ask("POST", f"/v1/jobs/{waiting}/cancel"))[0] == 200
    await office.pool.execute("UPDATE jobs SET attempts = $2 WHERE id = $1", uuid.UUID(lost), MAX_ATTEMPTS)
    await office.work()
    jobs = [await office.job(job_id) for job_id in (waiting, lost, other)]
    assert [job["status"] for job in jobs] == ["cancelled", "failed", "succeeded"]
    assert {job["model"] for job in jobs} == {CLAUDE}


async def test_a_running_job_is_stopped(office: Office) -> None:
    """Its worker hears of it with the next renewal; nothing stays held."""
    office.provider.answers = [says(hold=office.provider.released)]
    job_id = await office.submit()
    runner = office.runner()
    await runner.start()
    await called(office.provider)
    assert (await office.door.ask("POST", f"/v1/jobs/{job_id}/cancel"))[1]["status"] == "running"
    await runner.carrier.renew()
    await done(runner)
    assert (await office.job(job_id))["status"] == "cancelled"
    assert (await office.money())[2] == 0


async def test_a_worker_that_stops_hands_its_jobs_back(office: Office) -> None:
    """The next one makes the call again; it is no attempt, and nothing stays held meanwhile."""
    office.provider.answers = [says(hold=office.provider.released), says()]
    job_id = await office.submit()
    stopping = office.runner()
    await stopping.start()
    await called(office.provider)
    await stopping.carrier.drain()
    assert (await office.job(job_id))["status"] == "queued"
    assert await office.money() == (0, 0, 0)
    await office.work()
    assert (await office.job(job_id))["status"] == "succeeded"
    assert await office.pool.fetchval("SELECT attempts FROM jobs") == 1


async def test_leases_that_cannot_be_renewed_stop_the_work(office: Office) -> None:
    """A worker whose lease is gone stops its call and gives the hold back."""
    office.provider.answers = [says(hold=office.provider.released)]
    await office.submit()
    runner = office.runner()
    await runner.start()
    await called(office.provider)
    await office.pool.execute("UPDATE jobs SET epoch = epoch + 1")
    await runner.carrier.renew()
    await done(runner)
    assert await office.money() == (0, 0, 0)


async def test_settled_and_succeeded_are_one(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies behind the settlement and before the end has charged nothing."""
    end = queue.end

    async def dies(*args: Any) -> Any:
        assert (await args[0].fetchval("SELECT count(*) FROM usage_events")) == 1
        raise LeaseLost

    monkeypatch.setattr(queue, "end", dies)
    job_id = await office.submit()
    await office.work()
    assert await office.money() == (0, 0, 0)
    monkeypatch.setattr(queue, "end", end)
    await expire(office.pool)
    await office.work()
    assert (await office.job(job_id))["status"] == "succeeded"
    assert (await office.money())[0] == 1


async def test_an_answer_that_is_too_large_is_paid_and_not_kept(office: Office) -> None:
    """More than a megabyte fails the job, with its cost."""
    office.provider.answers = [says({**MESSAGE, "odd": "x" * 2**20})]
    job_id = await office.submit()
    await office.work()
    job = await office.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "response_too_large")
    assert job["cost_micros"] > 0
    assert [(await office.money())[n] for n in (0, 2)] == [1, 0]


async def test_the_end_of_a_job_is_told(office: Office, vault: Vault) -> None:
    """To the webhooks that want it and to the address of the job, without the response."""
    early = {**ASKED, "webhook_url": "https://x.example"}
    assert (await office.door.ask("POST", "/v1/jobs", early))[0] == 400
    for url in ("https://a.example", None):
        await webhooks.insert_webhook(office.pool, vault, ACCOUNT, url, ["job.completed"])
    job_id = await office.submit(webhook_url="https://b.example/done")
    await office.work()
    rows = await office.pool.fetch("SELECT id, url, body FROM deliveries ORDER BY url")
    assert [row["url"] for row in rows] == ["https://a.example", "https://b.example/done"]
    assert {row["id"] for row in rows} <= set(office.woken)
    job = await office.job(job_id)
    del job["response"]
    for row in rows:
        assert msgspec.json.decode(row["body"])["data"] == job


async def test_many_workers_make_each_call_once(office: Office) -> None:
    """Wake-ups and sweeps of four workers with five hands each: 30 jobs, 30 calls."""
    jobs = [await office.submit() for _ in range(30)]
    runners = [office.runner(jobs_per_worker=5) for _ in range(4)]
    async with asyncio.timeout(20):
        while await office.pool.fetchval("SELECT count(*) FROM jobs WHERE status <> 'succeeded'"):
            await asyncio.gather(*(runner.start() for runner in runners for _ in range(2)))
            assert all(len(runner.carrier.carried) <= 5 for runner in runners)
            await asyncio.gather(*map(done, runners))
    assert len(office.provider.requests) == len(jobs)
    assert [(await office.money())[n] for n in (0, 2)] == [30, 0]


async def test_old_jobs_are_forgotten(office: Office) -> None:
    """A week after its end a job is gone; one that waits stays."""
    ended, waiting = await office.submit(), await office.submit()
    runner = office.runner()
    await runner.start(uuid.UUID(ended))
    await done(runner)
    aged = "UPDATE jobs SET finished_at = now() - interval '8 days' WHERE id::text = $1"
    await office.pool.execute(aged, ended)
    await runner.delete_old()
    assert (await office.door.ask("GET", f"/v1/jobs/{ended}"))[0] == 404
    assert (await office.job(waiting))["status"] == "queued"


async def test_too_many_waiting_jobs_are_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key cannot fill the queue without end."""
    monkeypatch.setattr(queue, "MAX_UNFINISHED", 2)
    for _ in range(2):
        await office.submit()
    assert (await office.door.ask("POST", "/v1/jobs", ASKED))[0] == 429
