"""No byte of a deleted end user is left: not in a table, a key, a file or a log of a whole `qlaud up`.

What a search through files can promise: PostgreSQL keeps old versions of rows until VACUUM, index entries
and free space in pages until VACUUM FULL, and every change in its log until a checkpoint behind it; embedded
it then removes the old log files instead of using them again (`wal_recycle`). Valkey's append-only file
keeps what was written until it is rewritten. Blocks that a file system has freed are beyond this test.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cluster import MODEL, Api, script
from redis.asyncio import Redis

from qlaud_actors.db.pool import Connection, connect
from qlaud_actors.reconcile.books import check_books
from qlaud_actors.scripted.server import ScriptedServer

CANARY = 'kanarie"Vögelchen-7f3a91'
"""With characters that JSON, URLs and SQL spell in their own ways."""

USER = f"/v1/end-users/{quote(CANARY, safe='')}"

PART = "7f3a91"
"""What no spelling of it changes, but base64."""


def spellings(text: str = CANARY) -> list[bytes]:
    """The canary as it may stand in a file: its plain part, and its base64 at all three alignments."""
    raw = text.encode()
    coded = [base64.b64encode(b" " * shift + raw)[4:-4] for shift in range(3)]
    return [PART.encode(), *coded]


async def tables_with(connection: Connection, spelled: list[bytes]) -> dict[str, int]:
    """Every table, catalogue and statistic in which a row has it, with how many."""
    names = await connection.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
        " AND relnamespace <> 'information_schema'::regnamespace AND relname <> 'pg_largeobject'"
    )
    found = {}
    for (name,) in names:
        # Bytes of a bytea are printed in hex.
        looks = [t.decode() for t in spelled] + [t.hex() for t in spelled]
        rows = await connection.fetchval(
            f"SELECT count(*) FROM {name} t WHERE EXISTS (SELECT FROM unnest($1::text[]) s"
            " WHERE strpos(t::text, s) > 0)",
            looks,
        )
        if rows:
            found[name] = rows
    return found


async def redis_with(redis: Redis, spelled: list[bytes]) -> list[bytes]:
    """Every key that has it, in its name or in what it holds."""
    found = []
    async for key in redis.scan_iter(count=1000):
        dumped = await redis.dump(key) or b""
        whole = [key, dumped]
        if await redis.type(key) == b"stream":
            whole += [value for _, entry in await redis.xrange(key) for value in entry.values()]
        if any(one in text for one in spelled for text in whole):
            found.append(key)
    return found


def files_with(folder: Path, spelled: list[bytes]) -> list[str]:
    """Every file that has it, in its name or in its bytes."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if any(one in data or one in str(path).encode() for one in spelled):
                found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture
async def double() -> Any:
    """The provider."""
    server = ScriptedServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def hook() -> Any:
    """The developer's endpoint, for a tool and for webhooks: it says what it was told."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"output": {"echo": await request.json()}})

    app = web.Application()
    app.router.add_post("/hook", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/hook"))


async def live(admin: Api, hook: str) -> None:
    """All that an end user can leave behind, with the canary in every place that takes a text."""
    tool = {"name": "lookup", "description": "Looks.", "input_schema": {"type": "object"}}
    tool_id = (await admin.post("/v1/tools", {**tool, "webhook_url": hook}))["id"]
    events = ["job.completed", "usage.recorded", "key.cap_exceeded"]
    await admin.post("/v1/webhooks", {"url": hook, "events": events})
    made = await admin.post("/v1/keys", {"name": f"of {CANARY}", "end_user_id": CANARY})
    user = Api(admin.session, admin.base_url, made["secret"])
    body = {"end_user_id": CANARY, "title": CANARY, "metadata": {CANARY: CANARY}, "workspace_id": CANARY}
    for api in (admin, user):
        thread = (await api.post("/v1/threads", {**body, "kind": CANARY}))["id"]
        call = {"tools": [{"name": "lookup", "input": {CANARY: CANARY}}]}
        await api.turn(
            thread, script(call, {"text": CANARY}, say=CANARY), tools_mode="explicit", tools=[tool_id]
        )
        await api.post(f"/v1/threads/{thread}/messages", turn(f"again {CANARY}"), **{"idempotency-key": PART})
        await api.post(f"/v1/threads/{thread}/copy", {})
    gone = (await admin.post("/v1/threads", body))["id"]
    await admin.turn(gone, CANARY)
    assert (await admin.request("DELETE", f"/v1/threads/{gone}"))[0] == 200
    call = {"tool": "lookup", "args": {"x": CANARY}, "idempotency_key": PART}
    await user.post("/v1/tools/execute", {"calls": [call]})
    message = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": CANARY}]}
    await user.post("/v1/messages", message)
    job = await user.post("/v1/jobs", {"endpoint": "/v1/messages", "body": message})
    await until(lambda: ended(user, job["id"]))
    await user.post("/v1/connections", {"action": "connect", "tool": "qlaud-mcp/linear"})
    billing = {"stripe_customer_id": "cus_1"}
    assert (await admin.request("PUT", f"{USER}/billing", billing))[0] < 500
    capped = await admin.post(
        "/v1/keys", {"name": f"cap {CANARY}", "end_user_id": CANARY, "max_spend_usd": 0}
    )
    poor = Api(admin.session, admin.base_url, capped["secret"])
    assert (await poor.request("POST", "/v1/messages", message))[0] == 402
    assert (await admin.request("POST", "/v1/messages", {"model": CANARY}))[0] >= 400
    assert (await admin.request("GET", f"/v1/threads/{CANARY[:7]}{PART}?after={PART}"))[0] == 404


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(25):
        while not await holds():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.05)


async def ended(user: Api, job_id: str) -> bool:
    return (await user.get(f"/v1/jobs/{job_id}"))["status"] not in ("queued", "running")


async def rewritten(redis: Redis) -> bool:
    return not (await redis.info("persistence"))["aof_rewrite_in_progress"]


def turn(text: str) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 64, "content": text}


async def connected(connection: Connection) -> None:
    """A connection that is the end user's: what a vendor that is not here would have verified."""
    await connection.execute(
        "INSERT INTO connections (id, account_id, end_user_id, connector, scheme, settings, connected_as,"
        " vendor_account_id) SELECT gen_random_uuid(), id, $1, 'linear', 0, $2, $1, $1 FROM accounts LIMIT 1",
        *(CANARY, {"subdomain": CANARY}),
    )
    await connection.execute(
        "INSERT INTO connection_secrets SELECT id, 'token', $1 FROM connections", CANARY.encode()
    )


async def kept(connection: Connection) -> None:
    """Artifacts of the end user, of threads, of keys."""
    await connection.execute(
        "INSERT INTO artifacts (id, account_id, owner, thread_id, name, mime, content)"
        " SELECT gen_random_uuid(), account_id, o, t, $1, 'text/plain', $2 FROM ("
        " SELECT account_id, 'user:' || $1 AS o, NULL::uuid AS t FROM keys WHERE end_user_id = $1 UNION"
        " SELECT account_id, 'thread:' || id, id FROM threads WHERE end_user_id = $1 UNION"
        " SELECT account_id, 'key:' || id, NULL FROM keys WHERE end_user_id = $1) owners",
        *(CANARY, CANARY.encode()),
    )


async def clean(connection: Connection, redis: Redis) -> None:
    """What an operator does who wants freed space overwritten now instead of later."""
    await connection.execute("VACUUM (FULL, ANALYZE)")
    for _ in range(3):
        await connection.execute("SELECT pg_switch_wal()")
        await connection.execute("CHECKPOINT")
    await redis.bgrewriteaof()
    await until(lambda: rewritten(redis))


async def test_no_byte_of_a_deleted_end_user_is_left(
    start_stack: Callable[..., Any], double: ScriptedServer, hook: str
) -> None:
    """Tables, catalogues, keys of Redis, all files of the data directory and the output of the processes."""
    stack = await asyncio.to_thread(
        start_stack,
        ANTHROPIC_API_KEY="sk-ant-test",
        ANTHROPIC_BASE_URL=double.url,
        QLAUD_ALLOW_PRIVATE_WEBHOOKS="1",
        QLAUD_LOG_LEVEL="debug",
    )
    addresses = json.loads((stack.data_dir / "stack.json").read_text())
    connection, redis = await connect(addresses["database_url"]), Redis.from_url(addresses["redis_url"])
    async with aiohttp.ClientSession() as session:
        admin = Api(session, stack.base_url, stack.master_key)
        await live(admin, hook)
        await connected(connection)
        await kept(connection)
        spelled = spellings()
        before = await tables_with(connection, spelled)
        assert {"threads", "messages", "turns", "tool_calls", "keys", "connections"} <= before.keys(), before
        assert await redis_with(redis, spelled)
        assert files_with(stack.data_dir, spelled)

        began = time.monotonic()
        status, receipt = await admin.request("DELETE", USER)
        assert (status, receipt["status"]) == (200, "completed")
        assert time.monotonic() - began < 20
        assert await tables_with(connection, spelled) == {}
        assert await redis_with(redis, spelled) == []

        await clean(connection, redis)
        assert files_with(stack.data_dir, spelled) == []
        assert not any(one in stack.output.read_bytes() for one in spelled)
        assert [check.name async for check in check_books(connection) if check.wrong] == []
    await connection.close()
    await redis.aclose()
