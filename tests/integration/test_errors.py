"""What goes wrong at the front door, over HTTP: one table, both dialects."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis.asyncio
import redis.exceptions
from aiohttp import web
from front_door import Door, front_door

from api.bodies import read_json
from qlaud_actors.db.pool import Pool, open_pool
from qlaud_actors.errors import ProviderOverloaded, SpendCapReached


class Echo(msgspec.Struct):
    """A body."""

    text: str = ""


async def broken(request: web.Request) -> web.StreamResponse:
    """Fails in the way that the query names."""
    match request.query["how"]:
        case "bug":
            raise KeyError("a-secret-detail")
        case "cap":
            raise SpendCapReached("key_cap_exceeded: no.", scope="key", retryable=False)
        case "busy":
            raise ProviderOverloaded("busy", upstream_status=529, retry_after=1.5)
        case "timeout":
            raise TimeoutError
        case "redis":
            await redis.asyncio.Redis.from_url("redis://127.0.0.1:1").ping()
    raise AssertionError


async def echo(request: web.Request) -> web.StreamResponse:
    """Says how long the text was."""
    return web.json_response({"length": len((await read_json(request, Echo)).text)})


async def half(request: web.Request) -> web.StreamResponse:
    """Breaks in the middle of an answer."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    raise KeyError("late")


EXTRA = [
    route
    for prefix in ("/v1/test", "/v1/chat/completions/test")
    for route in (
        web.get(f"{prefix}/broken", broken),
        web.post(f"{prefix}/echo", echo),
        web.get(f"{prefix}/half", half),
    )
]
PREFIXES = ["/v1/test", "/v1/chat/completions/test"]


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[Door]:
    """The front door with routes that fail."""
    async with front_door(pool, *EXTRA) as door:
        yield door


def check_shape(path: str, answer: Any) -> Any:
    """The error object, after a look at what is around it."""
    if path.startswith("/v1/chat/completions"):
        assert set(answer) == {"error"}
        assert "param" in answer["error"]
    else:
        assert set(answer) == {"type", "error", "request_id"}
        assert answer["type"] == "error"
    assert isinstance(answer["error"]["message"], str)
    return answer["error"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/broken?how=bug", 500, "api_error"),
        ("GET", "/broken?how=cap", 402, "billing_error"),
        ("GET", "/broken?how=busy", 529, "overloaded_error"),
        ("GET", "/broken?how=timeout", 503, "api_error"),
        ("GET", "/broken?how=redis", 503, "api_error"),
        ("GET", "/nowhere", 404, "not_found_error"),
        ("POST", "/nowhere", 404, "not_found_error"),
        ("DELETE", "/echo", 405, "invalid_request_error"),
    ],
)
async def test_errors_have_the_callers_shape(
    door: Door, prefix: str, method: str, path: str, status: int, kind: str
) -> None:
    """Status, type and JSON, whatever it was that failed."""
    answered, body = await door.ask(method, prefix + path)
    error = check_shape(prefix, body)
    assert (answered, error["type"]) == (status, kind)
    assert "a-secret-detail" not in json.dumps(body)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"{", 400),
        (b'{"text":1}', 400),
        (b'{"text":"\xff"}', 400),
        (b"[" * 2_000, 400),
        (b'"' + b"x" * 70_000 + b'"', 413),
    ],
)
async def test_bad_bodies_have_the_callers_shape(door: Door, prefix: str, raw: bytes, status: int) -> None:
    """400 for what is malformed, 413 for what is too long."""
    headers = {"x-api-key": door.master}
    async with door.client.post(f"{prefix}/echo", data=raw, headers=headers) as response:
        assert response.status == status
        error = check_shape(prefix, await response.json())
    assert error["type"] == ("request_too_large" if status == 413 else "invalid_request_error")


async def test_a_body_that_cannot_be_unpacked_is_the_callers_mistake(door: Door) -> None:
    """A wrong content-encoding is no failure of ours."""
    headers = {"x-api-key": door.master, "content-encoding": "gzip"}
    async with door.client.post("/v1/test/echo", data=b"not gzip", headers=headers) as response:
        assert response.status == 400


async def test_retry_after_is_passed_on(door: Door) -> None:
    """In whole seconds."""
    async with door.client.get("/v1/test/broken?how=busy", headers={"x-api-key": door.master}) as response:
        assert response.headers["retry-after"] == "2"


async def test_a_key_is_checked_before_the_body_is_read(door: Door) -> None:
    """A stranger's upload is answered before it is sent."""
    server = door.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        head = (
            "POST /v1/test/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\nx-api-key: nonsense\r\n\r\n"
        )
        writer.write(head.encode())
        async with asyncio.timeout(3):
            assert b" 401 " in await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_an_answer_that_breaks_is_not_glued_to_an_error(door: Door) -> None:
    """After the first byte nothing can be said any more: the connection ends."""
    server = door.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        head = f"GET /v1/test/half HTTP/1.1\r\nhost: x\r\nx-api-key: {door.master}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(5):
            raw = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert raw.count(b"HTTP/1.1") == 1
    assert b'"error"' not in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_every_answer_carries_its_request_id(door: Door) -> None:
    """The caller's when it is sane, else ours; the same in headers and error."""
    headers = {"x-api-key": door.master, "x-request-id": "trace.1-a_b"}
    async with door.client.get("/v1/account", headers=headers) as response:
        assert response.headers["x-request-id"] == response.headers["request-id"] == "trace.1-a_b"
    for bad in ("", "a b", "x" * 65, "ü", "a/b"):
        async with door.client.get("/nowhere", headers={**headers, "x-request-id": bad}) as response:
            given = response.headers["x-request-id"]
            assert given not in ("", bad)
            assert (await response.json())["request_id"] == given


async def test_browsers_may_call(door: Door) -> None:
    """Preflight needs no key; answers and errors name the origin that may read them."""
    origin = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    async with door.client.options("/v1/threads", headers={**origin, **asked}) as response:
        assert response.status in (200, 204)
        allowed = {name.strip() for name in response.headers["access-control-allow-headers"].split(",")}
        assert allowed >= {"x-api-key", "authorization", "content-type", "accept", "last-event-id"}
        methods = {name.strip() for name in response.headers["access-control-allow-methods"].split(",")}
        assert methods >= {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    for path in ("/v1/account", "/nowhere"):
        async with door.client.get(path, headers=origin) as response:
            assert response.headers["access-control-allow-origin"] in ("*", origin["origin"])
            assert "access-control-allow-credentials" not in response.headers
            assert "x-qlaud-thread-id" in response.headers["access-control-expose-headers"]


async def test_without_the_database_nothing_is_let_through(database_url: str) -> None:
    """Fail closed: 503, never an answer without a verified key."""
    own = await open_pool(database_url, max_size=2)
    async with front_door(own) as door:
        await own.close()
        status, answer = await door.ask("GET", "/v1/account")
        assert (status, answer["error"]["type"]) == (503, "api_error")


class FakeRedis(SimpleNamespace):
    """Answers a ping, or does not."""

    async def ping(self) -> bool:
        """PONG."""
        if self.away:
            raise redis.exceptions.ConnectionError("redis://secret@host")
        return True


@pytest.mark.parametrize(("away", "status"), [(False, 200), (True, 503)])
async def test_readiness_names_each_dependency(pool: Pool, away: bool, status: int) -> None:
    """200 when all is there, no provider needed; else 503 that says what is missing, without addresses."""
    async with front_door(pool, redis=FakeRedis(away=away)) as door:
        answered, body = await door.ask("GET", "/readyz", key="")
        assert answered == status
        assert body["checks"]["postgres"]["ok"] is True
        assert body["checks"]["redis"]["ok"] is not away
        assert "secret" not in json.dumps(body)
        assert (await door.ask("GET", "/healthz", key=""))[0] == 200


async def test_a_database_that_was_not_migrated_is_not_ready(pool: Pool) -> None:
    """And the answer tells which command is missing."""
    async with front_door(pool, redis=FakeRedis(away=False)) as door:
        await pool.execute("DELETE FROM migrations")
        status, body = await door.ask("GET", "/readyz", key="")
        assert status == 503
        assert "qlaud migrate" in json.dumps(body)
