"""Limits of keys: counted on a real Valkey, set and kept through the front door."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from front_door import Door, front_door
from redis.asyncio import Redis
from structlog.testing import capture_logs

from api.context import caller
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import Conflict, InvalidKey, RateLimited, ScopeMissing
from qlaud_actors.ids import new_key_secret, new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.limits import Limits, require_model
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT, ApiKey, KeyLimits
from qlaud_actors.settings import Secret

MINUTE = 60_000
START = 1_795_000_000_000 // MINUTE * MINUTE


def key_with(**limits: int | tuple[str, ...] | None) -> ApiKey:
    """A key that is nowhere stored."""
    budget = (None, "lifetime", 0, 0, None, None)
    who = (new_uuid(), BOOTSTRAP_ACCOUNT, "k", "standard", "p", None, "own", False, 0, None, False)
    return ApiKey(*who, *budget, KeyLimits(**limits))  # type: ignore[arg-type]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test's Valkey."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def admitted(limits: Limits, key: ApiKey, tokens: int = 0, now_ms: int = START) -> bool:
    """Whether one request is let in; it ends at once."""
    try:
        async with limits.admit(key, tokens, now_ms):
            return True
    except RateLimited:
        return False


async def test_of_a_hundred_at_once_ten_are_admitted(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through several front doors, at ten requests per minute: ten, never eleven."""
    monkeypatch.setattr("qlaud_actors.keys.limits.PATIENCE_SECONDS", 10)  # opens a hundred connections
    key = key_with(rpm=10)
    async with contextlib.AsyncExitStack() as stack:
        doors = [Limits(await stack.enter_async_context(Redis.from_url(redis_url))) for _ in range(4)]
        asked = [admitted(doors[number % 4], key) for number in range(100)]
        assert sum(await asyncio.gather(*asked)) == 10


async def test_a_minute_slides(redis: Redis) -> None:
    """At the turn of a minute the requests of the last one still count, as far as they reach."""
    limits, key = Limits(redis), key_with(rpm=10)
    assert sum([await admitted(limits, key, now_ms=START + 59_000) for _ in range(12)]) == 10
    assert not await admitted(limits, key, now_ms=START + MINUTE)
    assert sum([await admitted(limits, key, now_ms=START + MINUTE + 30_000) for _ in range(12)]) == 5
    with pytest.raises(RateLimited) as refused:
        async with limits.admit(key, 0, START + MINUTE + 30_000):
            pass
    assert refused.value.retry_after == pytest.approx(6)
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert await admitted(limits, key, now_ms=START + MINUTE + 36_000)


async def test_tokens_are_counted_as_bound_and_then_as_used(redis: Redis) -> None:
    """The worst case is set aside; what was not used is free for others at once."""
    limits, key = Limits(redis), key_with(tpm=1_000)
    async with limits.admit(key, 800, START) as admission:
        assert admission.headers["x-ratelimit-remaining-tokens"] == "200"
        assert not await admitted(limits, key, 300)
        admission.used = 100
    assert not await admitted(limits, key, 901)
    async with limits.admit(key, 900, START) as admission:
        admission.used = 5_000
    assert not await admitted(limits, key, 1)


async def test_a_request_larger_than_the_limit_needs_an_empty_minute(redis: Redis) -> None:
    """It is not refused for ever."""
    limits, key = Limits(redis), key_with(tpm=1_000)
    assert await admitted(limits, key, 50_000)
    assert not await admitted(limits, key, 50_000)
    assert await admitted(limits, key, 50_000, START + 2 * MINUTE)


async def test_places_are_taken_and_given_back(redis: Redis) -> None:
    """Two at a time; the refused third may come soon."""
    limits, key = Limits(redis), key_with(max_concurrent=2)
    async with limits.admit(key), limits.admit(key):
        with pytest.raises(RateLimited) as refused:
            async with limits.admit(key):
                pass
    assert (refused.value.retry_after, refused.value.details) == (1, {"scope": "concurrency", "limit": 2})
    assert await redis.zcard(f"qlaud:pace:{{{key.id}}}:running") == 0


async def test_a_place_is_kept_while_its_request_runs_and_no_longer(redis: Redis) -> None:
    """It is renewed beyond its lease; that of a process that died is free when the lease ends."""
    key = key_with(max_concurrent=1)
    limits = Limits(redis, lease_seconds=0.3)
    async with limits.admit(key):
        await asyncio.sleep(0.6)
        with pytest.raises(RateLimited):
            async with limits.admit(key):
                pass
    await redis.zadd(f"qlaud:pace:{{{key.id}}}:running", {"dead": round(time.time() * 1000) + 200})
    with pytest.raises(RateLimited):
        async with limits.admit(key):
            pass
    await asyncio.sleep(0.25)
    async with limits.admit(key):
        pass


async def test_without_redis_requests_are_admitted_and_one_line_says_so() -> None:
    """These limits guard the neighbours, not the money, so they fail open."""
    async with Redis.from_url("unix:///nowhere/redis.sock") as away:
        limits, key = Limits(away), key_with(rpm=1, max_concurrent=1)
        with capture_logs() as logs:
            for _ in range(3):
                async with limits.admit(key) as admission:
                    assert admission.headers == {}
    assert [line["event"] for line in logs] == ["limits_not_counted"]


async def test_a_key_without_a_pace_asks_nobody() -> None:
    """Most keys have none: they cost no round trip."""
    async with Redis.from_url("unix:///nowhere/redis.sock") as away:
        with capture_logs() as logs:
            async with Limits(away).admit(key_with(allowed_models=("m",)), 10**9):
                pass
    assert logs == []


def test_a_key_may_use_the_models_on_its_list() -> None:
    """Without a list, all."""
    require_model(key_with(), "anything")
    require_model(key_with(allowed_models=("a", "b")), "b")
    with pytest.raises(ScopeMissing, match="'c'"):
        require_model(key_with(allowed_models=("a", "b")), "c")


@pytest.fixture
async def door(pool: Pool, redis: Redis) -> AsyncIterator[Door]:
    """A front door with a route that counts its requests."""
    limits = Limits(redis)

    async def counted(request: web.Request) -> web.Response:
        async with limits.admit(caller(request)) as admission:
            return web.json_response({}, headers=admission.headers)

    async with front_door(
        pool, web.get("/v1/models/counted", counted), web.get("/v1/counted", counted)
    ) as door:
        yield door


async def test_limits_are_set_and_lifted(door: Door) -> None:
    """`null` lifts a limit, an absent field leaves it; aliases become slugs."""
    end = round(time.time() * 1000) + 3_600_000
    asked = {"rpm": 60, "tpm": 1_000, "max_concurrent": 3, "expires_at": end}
    made = await door.mint(**asked, allowed_models=["claude-haiku-4-5-20251001", "CLAUDE-haiku-4-5", "gpt-5"])
    assert {name: made[name] for name in asked} == asked
    assert made["allowed_models"] == ["claude-haiku-4-5", "gpt-5"]
    path = f"/v1/keys/{made['id']}"
    _, changed = await door.ask("PATCH", path, {"rpm": None, "tpm": 5, "allowed_models": None})
    assert [changed[n] for n in (*asked, "allowed_models")] == [None, 5, 3, end, None]
    _, changed = await door.ask("PATCH", path, {"name": "n", "expires_at": None})
    assert [changed[n] for n in asked] == [None, 5, 3, None]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rpm": 0}, "rpm"),
        ({"rpm": 1.5}, "rpm"),
        ({"tpm": "many"}, "tpm"),
        ({"max_concurrent": -1}, "max_concurrent"),
        ({"allowed_models": []}, "allowed_models"),
        ({"allowed_models": ["no-such-model"]}, "no-such-model"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_at": 10**18}, "expires_at"),
    ],
)
async def test_malformed_limits_are_refused(door: Door, fields: dict[str, object], named: str) -> None:
    """400 with the field's name, for a new key and for an old one; nothing changes."""
    made = await door.mint()
    for method, path in (("POST", "/v1/keys"), ("PATCH", f"/v1/keys/{made['id']}")):
        status, answer = await door.ask(method, path, {"name": "other", **fields})
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert named in answer["error"]["message"]
    assert (await door.ask("GET", f"/v1/keys/{made['id']}"))[1]["name"] == "k"


async def test_too_many_requests_hear_when_to_come_again(door: Door) -> None:
    """429 in the caller's dialect, with `retry-after` and the headers that SDKs read."""
    key = (await door.mint(rpm=1))["secret"]
    async with door.client.get("/v1/counted", headers={"x-api-key": key}) as response:
        assert response.status == 200
        assert response.headers["x-ratelimit-limit-requests"] == "1"
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
    for path, kind in (("/v1/counted", "anthropic"), ("/v1/models/counted", "openai")):
        async with door.client.get(path, headers={"x-api-key": key}) as response:
            answer = await response.json()
            assert response.status == 429
            assert 1 <= int(response.headers["retry-after"]) <= 120
            assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert ("request_id" in answer) == (kind == "anthropic")
        error = answer["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
        assert (error["scope"], error["limit"]) == ("requests", 1)


async def test_an_expired_key_is_refused(door: Door, pool: Pool) -> None:
    """401 that says why; a later end revives it, and its budget was never gone."""
    made = await door.mint(max_spend_usd=3)
    await pool.execute("UPDATE keys SET expires_at = now() WHERE id = $1::uuid", made["id"])
    status, answer = await door.ask("GET", "/v1/account", key=made["secret"])
    assert (status, answer["error"]["type"]) == (401, "authentication_error")
    assert "expired" in answer["error"]["message"]
    end = round(time.time() * 1000) + 60_000
    assert (await door.ask("PATCH", f"/v1/keys/{made['id']}", {"expires_at": end}))[1]["max_spend_usd"] == 3
    assert (await door.ask("GET", "/v1/account", key=made["secret"]))[0] == 200


async def test_a_rotated_key_has_two_secrets_for_a_while(door: Door, pool: Pool) -> None:
    """Both open the same key until the grace ends; what is shown is the new one's prefix."""
    made = await door.mint(max_spend_usd=3)
    path = f"/v1/keys/{made['id']}/rotate"
    status, first = await door.ask("POST", path, {"grace_seconds": 60})
    assert status == 200
    assert (first["id"], first["max_spend_usd"]) == (made["id"], 3)
    assert first["prefix"] == first["secret"][:13] + "…" + first["secret"][-4:]
    assert 50_000 < first["previous_expires_at"] - time.time() * 1000 <= 61_000
    for secret in (made["secret"], first["secret"]):
        assert (await lifecycle.verify(pool, secret)).id.hex == made["id"].replace("-", "")
    await pool.execute("UPDATE key_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert (await door.ask("GET", "/v1/account", key=made["secret"]))[0] == 401
    assert (await door.ask("GET", "/v1/account", key=first["secret"]))[0] == 200


async def test_two_secrets_are_alive_at_most(door: Door) -> None:
    """A second rotation ends the first secret at once; without grace only the newest works."""
    made = await door.mint()
    path = f"/v1/keys/{made['id']}/rotate"
    secrets = [made["secret"]]
    for body in ({"grace_seconds": 60}, None, {"grace_seconds": 0}):
        secrets.append((await door.ask("POST", path, body))[1]["secret"])
        if body is None:
            works = [(await door.ask("GET", "/v1/account", key=one))[0] for one in secrets]
            assert works == [401, 200, 200]
    assert [(await door.ask("GET", "/v1/account", key=one))[0] for one in secrets] == [401, 401, 401, 200]


async def test_rotations_at_the_same_time_leave_two(door: Door, pool: Pool) -> None:
    """Whoever is last has the current secret, the one before the secret in grace."""
    made = await door.mint()
    path = f"/v1/keys/{made['id']}/rotate"
    done = await asyncio.gather(*(door.ask("POST", path) for _ in range(8)))
    assert {status for status, _ in done} == {200}
    alive = [(await door.ask("GET", "/v1/account", key=answer["secret"]))[0] for _, answer in done]
    assert sorted(alive) == [200, 200, *[401] * 6]
    assert await pool.fetchval("SELECT count(*) FROM key_secrets WHERE key_id = $1::uuid", made["id"]) == 2


async def test_a_revoked_key_has_no_living_secret(door: Door) -> None:
    """Revoking ends both; a dead key and an unknown one are not rotated."""
    made = await door.mint()
    path = f"/v1/keys/{made['id']}"
    _, first = await door.ask("POST", f"{path}/rotate", {"grace_seconds": 60})
    await door.ask("DELETE", path)
    for secret in (made["secret"], first["secret"]):
        assert (await door.ask("GET", "/v1/account", key=secret))[0] == 401
    assert (await door.ask("POST", f"{path}/rotate"))[0] == 404
    assert (await door.ask("POST", f"/v1/keys/{new_uuid()}/rotate"))[0] == 404
    assert (await door.ask("POST", f"{path}/rotate", key=(await door.mint())["secret"]))[0] == 403
    assert (await door.ask("POST", f"{path}/rotate", {"grace_seconds": -1}))[0] == 400


async def test_the_master_key_is_rotated_in_its_setting(pool: Pool, door: Door) -> None:
    """409 for its secret and for an end; a rotated key does not stand in its way."""
    master = await lifecycle.verify(pool, door.master)
    assert (await door.ask("POST", f"/v1/keys/{master.id}/rotate"))[0] == 409
    end = round(time.time() * 1000) + 60_000
    assert (await door.ask("PATCH", f"/v1/keys/{master.id}", {"expires_at": end}))[0] == 409
    with pytest.raises(Conflict):
        await lifecycle.rotate(pool, master, 0)
    key, _ = await lifecycle.mint(pool, BOOTSTRAP_ACCOUNT, NewKey("k", scope="admin"))
    secret, _ = await lifecycle.rotate(pool, key, 60)
    other = Secret(new_key_secret())
    await lifecycle.ensure_master_key(pool, other)
    assert (await lifecycle.verify(pool, secret.reveal())).id == key.id
    with pytest.raises(InvalidKey):
        await lifecycle.verify(pool, door.master)
