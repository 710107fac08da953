"""Front doors and workers as real processes, on the session's Postgres and Valkey, with two fakes:
the scripted model server as the provider, and a webhook server that counts what it is asked.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from forked import Child, fork

from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import connect
from qlaud_actors.ids import new_key_secret
from qlaud_actors.reconcile.books import check_books
from qlaud_actors.scripted.server import ScriptedServer

MODEL = "claude-haiku-4-5"
OPENAI_MODEL = "gpt-5.4-mini"


def script(*steps: dict[str, Any], say: str = "please") -> str:
    """A user message that carries the model's lines."""
    return f"{say} <<script {json.dumps(list(steps))} >>"


@dataclass
class Webhook:
    """The developer's endpoint: answers every call, remembers each call id."""

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    delay: float = 0.0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        """One tool call."""
        body = await request.json()
        self.calls[request.headers["webhook-id"]] += 1
        self.bodies.append(body)
        self.arrived.set()
        await asyncio.sleep(self.delay)
        return web.json_response({"output": {"echo": body["input"]}})


class Api:
    """A client of one front door with one key."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str) -> None:
        self.session = session
        self.base_url = base_url
        self.key = key

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        sent = {"x-api-key": self.key, **headers}
        url = self.base_url + path
        async with self.session.request(method, url, json=body, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        """POST that must succeed."""
        status, answer = await self.request("POST", path, body, **headers)
        assert status < 300, (status, answer)
        return answer

    async def get(self, path: str) -> Any:
        """GET that must succeed."""
        status, answer = await self.request("GET", path)
        assert status == 200, (status, answer)
        return answer

    async def events(self, method: str, path: str, body: Any = None, **headers: str) -> AsyncIterator[dict]:
        """The events of a stream, each with its `id` under `_id`."""
        async with self.session.request(
            method, self.base_url + path, json=body, headers={"x-api-key": self.key, **headers}
        ) as response:
            assert response.status == 200, await response.text()
            event_id = None
            async for line in response.content:
                if line.startswith(b"id: "):
                    event_id = int(line[4:])
                if line.startswith(b"data: "):
                    yield {**json.loads(line[6:]), "_id": event_id}
                    event_id = None

    async def turn(self, thread_id: str, content: Any, **fields: Any) -> Any:
        """One turn, not streamed."""
        body = {"model": MODEL, "max_tokens": 256, "content": content, **fields}
        return await self.post(f"/v1/threads/{thread_id}/messages", body)

    def stream(self, thread_id: str, content: Any, **fields: Any) -> AsyncIterator[dict]:
        """One turn, streamed."""
        body = {"model": MODEL, "max_tokens": 256, "content": content, "stream": True, **fields}
        return self.events("POST", f"/v1/threads/{thread_id}/messages", body)


@dataclass
class Cluster:
    """The processes, and clients of them."""

    apis: list[Api]
    doors: list[Child]
    workers: list[Child]
    scripted: ScriptedServer
    webhook: Webhook
    redis_url: str
    database_url: str
    environ: dict[str, str]

    @property
    def admin(self) -> Api:
        """The first front door with the master key."""
        return self.apis[0]

    async def key(self, door: int = 0, **fields: Any) -> tuple[Api, str]:
        """A new key as a client of a front door, and its id."""
        made = await self.admin.post("/v1/keys", {"name": "test", **fields})
        api = self.apis[door]
        return Api(api.session, api.base_url, made["secret"]), made["id"]

    async def webhook_tool(self, name: str = "lookup", **fields: Any) -> str:
        """Register the webhook as a tool; its id."""
        tool = {
            "name": name,
            "description": "Looks something up.",
            "input_schema": {"type": "object"},
            "webhook_url": self.webhook.url,
            **fields,
        }
        return (await self.admin.post("/v1/tools", tool))["id"]


@contextlib.asynccontextmanager
async def running_cluster(
    database_url: str,
    redis_url: str,
    *,
    apis: int = 1,
    workers: int = 1,
    output: Path | None = None,
    **environ: str,
) -> AsyncIterator[Cluster]:
    """Start everything, wait until it is ready, stop it by its processes.

    `output` takes what the processes print; else that is the tests' own output.
    """
    async with contextlib.AsyncExitStack() as stack:
        scripted = ScriptedServer()
        await scripted.start()
        stack.push_async_callback(scripted.stop)
        webhook = await stack.enter_async_context(_webhook_server())
        base = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},  # noqa: TID251
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "QLAUD_PORT": str(free_port()),  # of the first front door; workers make links to it
            "QLAUD_MASTER_KEY": new_key_secret(),
            "QLAUD_KEYRING": Keyring.generate(),
            "QLAUD_ALLOW_PRIVATE_WEBHOOKS": "1",
            "QLAUD_LOG_LEVEL": "warning",
            "ANTHROPIC_API_KEY": "sk-ant-test",
            "ANTHROPIC_BASE_URL": scripted.url,
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": f"{scripted.url}/v1",
            **environ,
        }
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=120), connector=aiohttp.TCPConnector(limit=0)
        )
        stack.push_async_callback(session.close)
        clients, doors = [], []
        for number in range(apis):
            port = free_port() if number else int(base["QLAUD_PORT"])
            door = process("api", {**base, "QLAUD_PORT": str(port)}, output)
            doors.append(await stack.enter_async_context(door))
            clients.append(Api(session, f"http://127.0.0.1:{port}", base["QLAUD_MASTER_KEY"]))
        carriers = [await stack.enter_async_context(process("workers", base, output)) for _ in range(workers)]
        for client in clients:
            await until_ready(client)
        yield Cluster(clients, doors, carriers, scripted, webhook, redis_url, database_url, base)
        await books_agree(database_url)
        for child in (*doors, *carriers):  # they end at the same time
            child.send_signal(signal.SIGTERM)


async def books_agree(database_url: str) -> None:
    """Whatever a test did, what it used, what it was charged and what it holds agree at its end."""
    connection = await connect(database_url)
    try:
        checks = [check async for check in check_books(connection)]
    finally:
        await connection.close()
    assert [(check.name, check.offenders) for check in checks if check.wrong] == []


@contextlib.asynccontextmanager
async def process(
    module: str, environ: dict[str, str], output: Path | None = None, *, dies_at: str = ""
) -> AsyncIterator[Child]:
    """What `python -m module` runs, stopped at the end; see `forked.fork`."""
    child = fork(module, environ, output, dies_at)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), 15)
        except TimeoutError:
            child.kill()
            await child.wait()


async def until_ready(door: Api) -> None:
    """Wait for `/readyz`."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                if (await door.request("GET", "/readyz"))[0] == 200:
                    return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _webhook_server() -> AsyncIterator[Webhook]:
    webhook = Webhook()
    app = web.Application()
    app.router.add_post("/hook", webhook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    webhook.url = f"http://{host}:{port}/hook"
    try:
        yield webhook
    finally:
        await runner.cleanup()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
