"""The whole front door over real services: who gets in, who sees which thread, and what every answer has."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.app import make_app
from api.middleware import CONNECT_PATH, PUBLIC_PATHS
from api.routes import rights
from qlaud_actors.bootstrap import Services, open_services
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.ids import new_key_secret, new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT
from qlaud_actors.settings import Secret, Settings

NOWHERE = str(uuid.UUID(int=0))
ADMIN_ONLY = (
    *("/v1/keys", "/v1/usage", "/v1/tools", "/v1/accounts"),
    *("/v1/billing", "/v1/webhooks", "/v1/end-users", "/v1/prices", "/v1/mcp-servers/"),
    *("/v1/deletions", "/v1/retention"),
)
FOR_ALL = ("/v1/tools/search", "/v1/tools/schemas", "/v1/tools/execute", "/v1/billing/balance")


@dataclass
class House:
    """The front door, its services, and the keys of a test by name."""

    client: TestClient[web.Request, web.Application]
    services: Services
    keys: dict[str, str] = field(default_factory=dict, repr=False)

    async def ask(self, method: str, path: str, body: Any = None, key: str = "admin") -> tuple[int, Any]:
        """Status and JSON."""
        headers = {"x-api-key": self.keys[key]}
        async with self.client.request(method, path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type="application/json")

    async def mint(self, name: str, account: uuid.UUID = BOOTSTRAP_ACCOUNT, **fields: Any) -> None:
        """A key under a name."""
        _, secret = await lifecycle.mint(self.services.pool, account, NewKey(name, **fields))
        self.keys[name] = secret.reveal()

    async def thread(self, key: str = "admin", **fields: Any) -> str:
        """A new thread's id."""
        status, thread = await self.ask("POST", "/v1/threads", fields, key)
        assert status == 201, thread
        return str(thread["id"])

    async def ids(self, key: str, query: str = "") -> list[str]:
        """Ids of the threads that a key lists."""
        _, page = await self.ask("GET", f"/v1/threads{query}", key=key)
        return [thread["id"] for thread in page["data"]]


@pytest.fixture
async def house(database_url: str, redis_url: str) -> AsyncIterator[House]:
    """Everything real but providers; an admin key and a standard key."""
    master = new_key_secret()
    settings = Settings(
        database_url=database_url,
        redis_url=redis_url,
        keyring=Secret(Keyring.generate()),
        master_key=Secret(master),
        max_body_bytes=64 * 1024,
        environ={"ANTHROPIC_API_KEY": "sk-ant-test"},
    )
    async with open_services(settings) as services:
        await lifecycle.ensure_master_key(services.pool, Secret(master))
        async with TestClient(TestServer(make_app(services))) as client:
            house = House(client, services, {"admin": master})
            await house.mint("standard")
            yield house


def routes(house: House) -> list[tuple[str, str]]:
    """Method and path of every route, ids filled in with those of nobody."""
    found = set()
    for route in house.client.server.app.router.routes():  # type: ignore[attr-defined]
        assert route.resource is not None
        path = re.sub(r"\{[^}]+\}", NOWHERE, route.resource.canonical)
        if route.method != "HEAD" and not path.startswith(CONNECT_PATH):
            found.add((route.method, path))
    return sorted(found)


def is_for_admins(method: str, path: str) -> bool:
    if path == "/v1/mcp-servers":
        return method == "POST"  # any key may list them
    if path.endswith("/retention"):  # of a thread, too
        return True
    return path.startswith(ADMIN_ONLY) and path not in FOR_ALL


async def test_every_route_takes_both_forms_of_a_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """`x-api-key` or bearer, for both scopes; without one 401, with a standard key 403 on admin routes."""
    monkeypatch.setattr(rights, "WAIT_SECONDS", 0.0)  # no worker is here to delete anybody
    everywhere = routes(house)
    assert len(everywhere) > 20
    for method, path in everywhere:
        if path in PUBLIC_PATHS:
            continue
        for scope in ("admin", "standard"):
            secret = house.keys[scope]
            for headers in ({"x-api-key": secret}, {"authorization": f"Bearer {secret}"}):
                async with house.client.request(method, path, headers=headers, data=b"[") as response:
                    refused = scope == "standard" and is_for_admins(method, path)
                    allowed = response.status in (200, 201, 202, 400, 404)
                    assert response.status == 403 if refused else allowed, (
                        method,
                        path,
                        scope,
                        response.status,
                    )
        for headers in ({}, {"x-api-key": new_key_secret()}, {"authorization": "Bearer x"}):
            async with house.client.request(method, path, headers=headers, data=b"[") as response:
                assert response.status == 401, (method, path)
                assert (await response.json())["error"]["type"] == "authentication_error"


async def test_no_route_reads_a_body_before_it_knows_the_key(house: House) -> None:
    """Only the head is sent; strangers hear 401, standard keys 403 on admin routes."""
    server = house.client.server
    standard = house.keys["standard"]
    for method, path in routes(house):
        if method not in ("POST", "PATCH") or path in PUBLIC_PATHS:
            continue
        cases = [("nonsense", b" 401 ")] + [(standard, b" 403 ")] * is_for_admins(method, path)
        for secret, status in cases:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\nx-api-key: {secret}\r\n\r\n"
            )
            writer.write(head.encode())
            async with asyncio.timeout(3):
                assert status in await reader.readline(), (method, path)
            writer.close()
            await writer.wait_closed()


async def test_public_routes_need_no_key(house: House) -> None:
    """Health, readiness (also without a provider) and figures."""
    for path in PUBLIC_PATHS:
        async with house.client.get(path) as response:
            # Stripe posts its events; that they are signed is what lets them in.
            assert response.status == (405 if path.endswith("/webhook") else 200), path
    async with house.client.get("/readyz") as response:
        checks = (await response.json())["checks"]
        assert {name: check["ok"] for name, check in checks.items()} == {"postgres": True, "redis": True}


async def test_figures_name_routes_not_ids(house: House) -> None:
    """Labels are patterns, so their number is bounded; secrets and ids are in none of them."""
    thread = await house.thread()
    await house.ask("GET", f"/v1/threads/{thread}?token=hush")
    await house.ask("GET", "/nowhere/at/all")
    async with house.client.get("/metrics") as response:
        text = await response.text()
        assert response.content_type == "text/plain"
    assert "/v1/threads/{thread_id}" in text
    assert all(word not in text for word in (thread, "hush", "/nowhere", house.keys["admin"]))


async def test_unknown_routes_and_methods_are_json(house: House) -> None:
    """404 and 405, with the methods that there are."""
    status, answer = await house.ask("GET", "/v1/nothing")
    assert (status, answer["error"]["type"]) == (404, "not_found_error")
    headers = {"x-api-key": house.keys["admin"]}
    async with house.client.put("/v1/threads", headers=headers) as response:
        assert response.status == 405
        assert (await response.json())["error"]["type"] == "invalid_request_error"
        assert set(response.headers["allow"].split(",")) >= {"GET", "POST"}


async def test_preflight_is_answered_on_every_route(house: House) -> None:
    """Without a key, and with all that browsers ask for."""
    asked = {"origin": "https://app.example", "access-control-request-method": "DELETE"}
    for _, path in routes(house):
        async with house.client.options(path, headers=asked) as response:
            assert response.status == 204
            assert response.headers["access-control-allow-origin"] == "*"
            assert "DELETE" in response.headers["access-control-allow-methods"]


async def test_a_thread_lives(house: House) -> None:
    """Made, read, changed, listed, deleted; JSON every time."""
    status, made = await house.ask("POST", "/v1/threads")
    assert status == 201
    assert (made["object"], made["metadata"], made["title"], made["end_user_id"]) == (
        "thread",
        None,
        None,
        None,
    )
    path = f"/v1/threads/{made['id']}"
    assert await house.ask("GET", path) == (200, made)
    assert await house.ids("admin") == [made["id"]]
    gone = {"ok": True, "id": made["id"], "object": "thread", "deleted": True}
    assert await house.ask("DELETE", path) == (200, gone)
    for method, end in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/messages")):
        assert (await house.ask(method, path + end, {}))[0] == 404
    assert await house.ids("admin") == []


async def test_metadata_is_merged(house: House) -> None:
    """Shallow: named keys are replaced, null is a value, others stay, and so does the title."""
    thread = await house.thread(metadata={"a": 1, "b": {"x": 1}}, title="T")
    path = f"/v1/threads/{thread}"
    _, changed = await house.ask("PATCH", path, {"metadata": {"b": {"y": 2}, "c": None}})
    assert changed["metadata"] == {"a": 1, "b": {"y": 2}, "c": None}
    assert changed["title"] == "T"
    bare = await house.thread()
    _, changed = await house.ask("PATCH", f"/v1/threads/{bare}", {"metadata": {"ü": [1, "😀"]}})
    assert changed["metadata"] == {"ü": [1, "😀"]}
    assert (await house.ask("PATCH", path, {}))[1]["metadata"]["a"] == 1


async def test_numbers_of_metadata_come_back(house: House) -> None:
    """Also those that fit into no machine word, through Postgres' own numbers."""
    sent = {"big": 2**63, "huge": 10**30, "small": -1.5e-7, "negative": -(2**80)}
    thread = await house.thread(metadata=sent)
    status, read = await house.ask("GET", f"/v1/threads/{thread}")
    assert (status, read["metadata"]) == (200, sent)


@pytest.mark.parametrize("placeholder", ["New chat", "", "  ", " New chat "])
async def test_a_placeholder_is_no_title(house: House, placeholder: str) -> None:
    """Clients send one for a chat that has no name yet."""
    thread = await house.thread(title="Real")
    path = f"/v1/threads/{thread}"
    assert (await house.ask("PATCH", path, {"title": placeholder}))[1]["title"] is None
    assert (await house.ask("PATCH", path, {"title": "Again"}))[1]["title"] == "Again"
    assert (await house.ask("PATCH", path, {"title": None}))[1]["title"] is None


async def test_empty_threads_are_swept(house: House) -> None:
    """Those that are old enough, never had a message and belong to no workspace; of this key only."""
    old, talked, spaced, young = [await house.thread("standard") for _ in range(4)]
    bound = await house.thread("standard", metadata={"workspace_id": "w"})
    others = await house.thread("admin")
    pool = house.services.pool
    await pool.execute(
        "UPDATE threads SET created_at = now() - interval '2 minutes' WHERE id <> $1::uuid", young
    )
    await pool.execute("UPDATE threads SET last_turn = 1 WHERE id = $1::uuid", talked)
    await pool.execute("UPDATE threads SET workspace_id = 'w' WHERE id = $1::uuid", spaced)
    assert await house.ask("DELETE", "/v1/threads/empty", key="standard") == (200, {"deleted": 1})
    assert old not in await house.ids("admin")
    assert set(await house.ids("admin")) == {talked, spaced, young, bound, others}


async def test_who_sees_which_thread(house: House) -> None:
    """Own key, other key, bound end user, whole account, admin, and another account: one table."""
    stranger = new_uuid()
    await house.services.pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", stranger)
    await house.mint("other")
    await house.mint("ada", end_user_id="ada")
    await house.mint("ada's second", end_user_id="ada")
    await house.mint("bob", end_user_id="bob")
    await house.mint("support", thread_access="account")
    await house.mint("foreign", stranger, end_user_id="ada")
    await house.mint("foreign admin", stranger, scope="admin", thread_access="account")
    threads = {
        "own": await house.thread("standard"),
        "for ada": await house.thread("standard", end_user_id="ada"),
        "ada's": await house.thread("ada"),
        "foreign": await house.thread("foreign"),
    }
    sees = {
        "standard": {"own", "for ada"},
        "other": set(),
        "ada": {"for ada", "ada's"},
        "ada's second": {"for ada", "ada's"},
        "bob": set(),
        "support": {"own", "for ada", "ada's"},
        "admin": {"own", "for ada", "ada's"},
        "foreign": {"foreign"},
        "foreign admin": {"foreign"},
    }
    for key, visible in sees.items():
        assert set(await house.ids(key)) == {threads[name] for name in visible}, key
        for name, thread in threads.items():
            for method, end in (
                ("GET", ""),
                ("GET", "/messages"),
                ("PATCH", ""),
                ("POST", "/tool-results/x"),
                ("GET", f"/turns/{NOWHERE}"),
                ("POST", f"/turns/{NOWHERE}/cancel"),
            ):
                status, answer = await house.ask(method, f"/v1/threads/{thread}{end}", {}, key)
                missing = "tool-results" in end or "turns" in end
                assert status == (404 if name not in visible or missing else 200), (key, name, method, end)
                if name not in visible:
                    assert answer["error"]["message"] == "There is no such thread."
            if name not in visible:
                assert (await house.ask("DELETE", f"/v1/threads/{thread}", key=key))[0] == 404
    assert len(await house.ids("admin")) == 3


async def test_a_bound_key_makes_threads_of_its_end_user(house: House) -> None:
    """Without asking; another end user is refused, and makes no thread."""
    await house.mint("ada", end_user_id="ada")
    assert (await house.ask("POST", "/v1/threads", {}, "ada"))[1]["end_user_id"] == "ada"
    assert (await house.ask("POST", "/v1/threads", {"end_user_id": "ada"}, "ada"))[0] == 201
    assert (await house.ask("POST", "/v1/threads", {"end_user_id": "bob"}, "ada"))[0] == 403
    assert len(await house.ids("admin")) == 2


async def test_threads_are_paged_by_activity(house: House) -> None:
    """Every thread once, the most recently active first, also when many were active at the same moment."""
    made = [await house.thread(end_user_id="ada" if n % 2 else "bob") for n in range(7)]
    await house.services.pool.execute("UPDATE threads SET last_active_at = '2026-01-01'")
    await house.services.pool.execute(
        "UPDATE threads SET last_active_at = now() WHERE id = $1::uuid", made[0]
    )
    seen: list[str] = []
    query = "?limit=2"
    while True:
        _, page = await house.ask("GET", f"/v1/threads{query}")
        seen += [thread["id"] for thread in page["data"]]
        if not page["has_more"]:
            break
        query = f"?limit=2&after={seen[-1]}"
    assert seen == [made[0], *reversed(made[1:])]
    assert set(await house.ids("admin", "?end_user_id=ada")) == set(made[1::2])
    assert await house.ids("admin", "?end_user_id=nobody") == []


async def test_a_foreign_cursor_tells_nothing(house: House) -> None:
    """A thread that the key does not see is refused as one that does not exist, in the same words."""
    await house.thread("standard")
    other = await house.thread("admin")
    told = [
        await house.ask("GET", f"/v1/threads?after={after}", key="standard") for after in (other, NOWHERE)
    ]
    assert [status for status, _ in told] == [400, 400]
    assert told[0][1]["error"] == told[1][1]["error"]


async def fill(house: House, thread: str, count: int) -> None:
    """Messages 1 to `count` of one turn."""
    pool, turn = house.services.pool, new_uuid()
    await pool.execute(
        "INSERT INTO turns (id, thread_id, account_id, key_id, number, status, request, content, request_id,"
        " fingerprint) SELECT $1, id, account_id, key_id, 1, 'completed', '{}', '[]', 'r', '' FROM threads"
        " WHERE id = $2::uuid",
        turn,
        thread,
    )
    await pool.execute(
        "INSERT INTO messages (thread_id, seq, role, content, turn_id, request_id)"
        " SELECT $2::uuid, n, CASE WHEN n % 2 = 1 THEN 'user' ELSE 'assistant' END, '\"x\"', $1, 'r'"
        " FROM generate_series(1, $3::int) n",
        turn,
        thread,
        count,
    )


@pytest.mark.parametrize(("order", "cursor"), [("asc", "after_seq"), ("desc", "before_seq")])
@pytest.mark.parametrize("limit", [1, 3, 7, 10])
async def test_messages_are_paged_in_both_directions(
    house: House, order: str, cursor: str, limit: int
) -> None:
    """The cursor of each page leads to the next one, without a gap or a repetition, and ends as null."""
    thread = await house.thread()
    await fill(house, thread, 7)
    seen: list[int] = []
    query = f"?order={order}&limit={limit}"
    for _ in range(10):
        _, page = await house.ask("GET", f"/v1/threads/{thread}/messages{query}")
        seen += [message["seq"] for message in page["data"]]
        other = "next_before_seq" if cursor == "after_seq" else "next_after_seq"
        assert page[other] is None
        assert page["has_more"] is (page[f"next_{cursor}"] is not None)
        if not page["has_more"]:
            break
        query = f"?order={order}&limit={limit}&{cursor}={page[f'next_{cursor}']}"
    assert seen == sorted(range(1, 8), reverse=order == "desc")


async def test_bounds_of_messages_are_exclusive(house: House) -> None:
    """Both may be given; an empty span is an empty page."""
    thread = await house.thread()
    await fill(house, thread, 7)

    async def seqs(query: str) -> list[int]:
        _, page = await house.ask("GET", f"/v1/threads/{thread}/messages{query}")
        return [message["seq"] for message in page["data"]]

    assert await seqs("?after_seq=2&before_seq=5") == [3, 4]
    assert await seqs("?after_seq=2&before_seq=5&order=desc") == [4, 3]
    assert await seqs("?after_seq=7") == []
    assert await seqs("?before_seq=1") == []
    assert await seqs("?after_seq=2147483647") == []


@pytest.mark.parametrize("path", ["/v1/tools/%00", "/v1/tools/%FF", "/v1/tools/%ED%A0%80"])
async def test_odd_tool_ids_are_404(house: House, path: str) -> None:
    """Characters that Postgres cannot hold name nothing; they are no failure of ours."""
    assert (await house.ask("DELETE", path))[0] == 404


@pytest.mark.parametrize("tool_use_id", ["%00", "%FF", "%ED%A0%80", "x" * 2_000])
async def test_odd_tool_use_ids_are_404(house: House, tool_use_id: str) -> None:
    """Nobody waits for them."""
    thread = await house.thread()
    status, _ = await house.ask("POST", f"/v1/threads/{thread}/tool-results/{tool_use_id}", {"output": 1})
    assert status == 404


@pytest.mark.parametrize("query", ["end_user_id=%FF", "end_user_id=%ED%A0%80", "after=%FF"])
async def test_odd_queries_are_no_failure(house: House, query: str) -> None:
    """Bytes that are no text are refused or find nothing."""
    status, answer = await house.ask("GET", f"/v1/threads?{query}")
    assert status in (200, 400), answer


async def raw(house: House, head: bytes, body: bytes = b"") -> bytes:
    """The first line of the answer to a request that no client library would send."""
    server = house.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    size = str(len(body)).encode()
    writer.write(head + b"\r\nhost: x\r\nconnection: close\r\ncontent-length: " + size + b"\r\n\r\n" + body)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "name", [b"x-api-key", b"authorization", b"x-request-id", b"origin", b"last-event-id"]
)
async def test_headers_that_are_no_text_are_no_failure(house: House, name: bytes) -> None:
    """Bytes outside UTF-8 in a header are never a 500."""
    key = b"\r\nx-api-key: " + house.keys["admin"].encode() if name != b"x-api-key" else b""
    answer = await raw(house, b"GET /v1/account HTTP/1.1" + key + b"\r\n" + name + b": \xff\xfe")
    assert b" 500 " not in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xed\xa0\x80", b"", b"x" * 256])
async def test_an_idempotency_key_is_text(house: House, value: bytes) -> None:
    """400, and no turn, for one that could not be stored."""
    thread = await house.thread()
    head = f"POST /v1/threads/{thread}/messages HTTP/1.1\r\nx-api-key: {house.keys['admin']}"
    body = b'{"model":"claude-haiku-4-5","max_tokens":10,"content":"x"}'
    answer = await raw(house, head.encode() + b"\r\nidempotency-key: " + value, body)
    assert b" 400 " in answer.split(b"\r\n")[0], answer[:600]
    assert await house.services.pool.fetchval("SELECT count(*) FROM turns") == 0
