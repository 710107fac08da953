"""`qlaud demo`: the main job of the product, once, on a stack of its own, and what it cost.

It is an ordinary client: everything goes through the public API. Without a provider's key in the
environment the answers come from the scripted model server, which speaks a provider's real wire.
"""

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from qlaud_actors.ids import new_key_secret
from qlaud_actors.scripted.server import ScriptedServer
from qlaud_actors.settings import Settings

QUESTION = "Where is my order 1042, and when will it arrive?"
REAL_MODELS = (("ANTHROPIC_API_KEY", "claude-haiku-4-5"), ("OPENAI_API_KEY", "gpt-5.4-mini"))
START_SECONDS = 60


def main(settings: Settings) -> int:
    """Run the demo; 0 when every part of it was seen to work."""
    try:
        asyncio.run(_run(settings))
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


class DemoFailed(Exception):
    """A part of the demo did not do what it should."""


async def _run(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        model, extra = await _choose_model(settings, stack)
        _say(f"Model: {model}" + ("" if extra else "  (your provider key is used; this costs real money)"))
        _say("Starting Postgres, Valkey, Chroma, the API and a worker …")
        api = await stack.enter_async_context(_started_stack(extra))
        webhook = await stack.enter_async_context(_order_webhook())
        await _conversation(api, webhook, model)


async def _choose_model(settings: Settings, stack: AsyncExitStack) -> tuple[str, dict[str, str]]:
    """A real model when its key is set, else the scripted one, with the variables it needs."""
    for name, model in REAL_MODELS:
        if settings.environ.get(name):
            return model, {}
    server = ScriptedServer()
    await server.start()
    stack.push_async_callback(server.stop)
    return "scripted-claude", {"SCRIPTED_BASE_URL": server.url, "SCRIPTED_API_KEY": "scripted"}


async def _conversation(api: "Api", webhook: str, model: str) -> None:
    """A capped key, a tool, a thread, one streamed turn, and the bill."""
    key = await api.post("/v1/keys", {"name": "demo user", "max_spend_usd": 0.5})
    _say(f"\n1. A key for one user, capped at ${key['max_spend_usd']:.2f}: {key['prefix']}")
    tool = {
        "name": "order_status",
        "description": "Look up where a customer's order is and when it will arrive.",
        "input_schema": {
            "type": "object",
            "properties": {"question": {"type": "string", "description": "The customer's question."}},
            "required": ["question"],
        },
        "webhook_url": webhook,
        "effect": "read",
    }
    registered = await api.post("/v1/tools", tool)
    _say(f"2. A webhook tool, signed with its own secret: {registered['name']} ({registered['id'][:12]}…)")
    user = Api(api.session, api.base_url, key["secret"])
    thread = await user.post("/v1/threads", {"end_user_id": "user_42"})
    _say(f"3. A thread that remembers: {thread['id']}")
    _say(f"4. A turn, streamed. The user asks: {QUESTION}\n")
    body = {"model": model, "max_tokens": 1024, "content": QUESTION, "stream": True}
    done = await _stream(user, f"/v1/threads/{thread['id']}/messages", body)
    await _bill(api, user, key["id"], done)


async def _stream(user: "Api", path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Print a turn as it comes; returns its last event."""
    async for event in user.events(path, body):
        match event:
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}:
                print(text, end="", flush=True)
            case {"type": "qlaud.tool_dispatch_start", "name": name}:
                print(f"   → {name}", flush=True)
            case {"type": "qlaud.tool_dispatch_done", "name": name, "is_error": is_error, "output": output}:
                print(f"   ← {name} {'failed' if is_error else 'ok'}: {_short(output)}", flush=True)
            case {"type": "qlaud.error", "message": message}:
                raise DemoFailed(message)
            case {"type": "qlaud.done"}:
                print()
                return event
    raise DemoFailed("the stream ended without qlaud.done")


async def _bill(api: "Api", user: "Api", key_id: str, done: dict[str, Any]) -> None:
    turn = await user.get(f"/v1/threads/{done['thread_id']}/turns/{done['turn_id']}")
    called = [call["name"] for call in turn["tool_calls"]]
    _say("\n5. What it took:")
    for step in turn["steps"]:
        tokens = f"{step['input_tokens']:>6} in {step['output_tokens']:>5} out"
        cost = step["cost_micros"] / 1e6
        _say(f"   step {step['number']}  {tokens} tokens  ${cost:.6f}  {step['stop_reason']}")
    _say(f"   tools  {', '.join(called)}")
    _say(f"   cost   ${turn['cost_micros'] / 1e6:.6f}")
    if "order_status" not in called:
        raise DemoFailed("the model did not call the webhook tool")
    usage = await api.get(f"/v1/keys/{key_id}/usage")
    cap = usage["cap_micros"] / 1e6
    _say("6. The usage rollup of the key, from the rows that the turn wrote:")
    _say(f"   {usage['request_count']} requests  ${usage['cost_micros'] / 1e6:.6f} of ${cap:.2f}")
    if not 0 < usage["cost_micros"] < usage["cap_micros"]:
        raise DemoFailed("the turn was not billed")


class Api:
    """The public API with one key."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str) -> None:
        self.session = session
        self.base_url = base_url
        self._headers = {"authorization": f"Bearer {key}"}

    async def get(self, path: str) -> Any:
        """GET, as JSON."""
        async with self.session.get(self.base_url + path, headers=self._headers) as response:
            return await self._json(response)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON, answer as JSON."""
        async with self.session.post(self.base_url + path, json=body, headers=self._headers) as response:
            return await self._json(response)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """POST JSON, answer as events."""
        async with self.session.post(self.base_url + path, json=body, headers=self._headers) as response:
            if response.status != 200:
                await self._json(response)
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    @staticmethod
    async def _json(response: aiohttp.ClientResponse) -> Any:
        if response.status >= 400:
            raise DemoFailed(f"{response.status} from {response.url.path}: {(await response.text())[:500]}")
        return await response.json()


@asynccontextmanager
async def _started_stack(extra: dict[str, str]) -> AsyncIterator[Api]:
    """`qlaud up` in a directory of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="qlaud-demo-") as data_dir:
        port, master = _free_port(), new_key_secret()
        environ = dict(os.environ)  # noqa: TID251 - handed on to the child, not read
        environ |= {
            "QLAUD_DATA_DIR": data_dir,
            "QLAUD_HOST": "127.0.0.1",
            "QLAUD_PORT": str(port),
            "QLAUD_MASTER_KEY": master,
            "QLAUD_ALLOW_PRIVATE_WEBHOOKS": "1",
            **extra,
        }
        command = (sys.executable, "-m", "qlaud_actors.cli", "up", "--quiet")
        child = await asyncio.create_subprocess_exec(*command, env=environ)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
                api = Api(session, f"http://127.0.0.1:{port}", master)
                await _until_ready(api, child)
                yield api
        finally:
            if child.returncode is None:
                child.terminate()
            await child.wait()


async def _until_ready(api: Api, child: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS):
        while child.returncode is None:
            try:
                await api.get("/readyz")
                return
            except (aiohttp.ClientError, DemoFailed):
                await asyncio.sleep(0.1)
    raise DemoFailed("the stack did not start")


@asynccontextmanager
async def _order_webhook() -> AsyncIterator[str]:
    """The developer's own endpoint: what a tool call is sent to."""

    async def handle(request: web.Request) -> web.Response:
        call = await request.json()
        answer = {"order": "1042", "status": "out for delivery", "arrives": "today before 18:00"}
        return web.json_response({"output": {**answer, "asked": call["input"].get("question", "")[:80]}})

    app = web.Application()
    app.router.add_post("/order-status", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/order-status"
    finally:
        await runner.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _short(output: object) -> str:
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return text if len(text) <= 140 else text[:139] + "…"


def _say(line: str) -> None:
    print(line, flush=True)
