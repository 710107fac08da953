"""A credential stays in the vault: after a full run nothing that can be read holds it."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import msgspec
import pytest
import redis.asyncio as redis
from canary import leaks, tables
from cluster import Api
from fakes.vendors.conversations import CONVERSATIONS, LINK, Conversation, calling
from fakes.vendors.github import GitHub
from fakes.vendors.server import Answer, VendorDouble, served
from talking import Turn, say

from api.pages.connect import FORM, WAY
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import connect
from qlaud_actors.scripted.server import ScriptedServer

LINEAR, GITHUB = CONVERSATIONS["linear"], CONVERSATIONS["github"]
WRONG = "lin_api_canary0Wrong0But0Well0Formed000000006"


class Visitor:
    """Somebody with a browser that runs no scripts; every answer is kept with its headers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.seen: list[bytes] = []

    async def request(self, method: str, url: str, **more: Any) -> tuple[int, str, str]:
        """Status, address to go on to, and text."""
        async with self._session.request(method, url, allow_redirects=False, **more) as response:
            body = await response.read()
            self.seen.append(repr(dict(response.headers)).encode() + body)
            return response.status, response.headers.get("Location", ""), body.decode()

    async def fill_in(self, link: str, way: int = 0, **fields: str) -> tuple[int, str]:
        """Open the page and send its form; status and text of the answer."""
        status, _, page = await self.request("GET", link)
        assert status == 200, page
        token = re.search(rf'name="{FORM}" value="([^"]+)"', page)
        assert token is not None
        status, _, answer = await self.request("POST", link, data={FORM: token[1], WAY: str(way), **fields})
        return status, answer


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    """One who keeps cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Visitor(session)


class Run:
    """The conversation of one user on a running stack, and all that came out of it."""

    def __init__(self, stack: Any, user: Api, visitor: Visitor, thread: str) -> None:
        self.stack = stack
        self.user = user
        self.visitor = visitor
        self.thread = thread
        self.streams: list[bytes] = []

    async def say(self, *steps: dict[str, Any]) -> Turn:
        """One turn."""
        last = {"text": "So it is: {quote}", "quote": ".+"}
        turn = await say(self.user, self.thread, "Please.", [*steps, last])
        self.streams.append(turn.raw)
        return turn

    async def link(self, talk: Conversation) -> str:
        """A fresh link to connect."""
        turn = await self.say(calling("qlaud_manage_connections", action="connect", tool=talk.tool))
        found = re.search(LINK, json.dumps(turn.outputs))
        assert found is not None, turn.outputs
        return found[0]

    async def execute(self, talk: Conversation) -> tuple[bool, str]:
        """Whether the call went well, and its result."""
        result = (await self.say(talk.executing())).outputs[0]["results"][0]
        return not result.get("is_error"), json.dumps(result)


async def test_no_credential_is_left_anywhere(start_stack: Callable[..., Any], visitor: Visitor) -> None:
    """Connect, run, fail, echo, rotate, expire, reconnect, disconnect, sign in: then look everywhere."""
    old, new = Keyring.generate(), Keyring.generate()
    async with AsyncExitStack() as resources:
        scripted = await resources.enter_async_context(ScriptedServer())
        linear = await resources.enter_async_context(served(LINEAR.double()))
        github = await resources.enter_async_context(served(GITHUB.double()))
        assert isinstance(github, GitHub)
        stack = await asyncio.to_thread(
            start_stack,
            QLAUD_KEYRING=f"{old},{new}",
            QLAUD_LOG_LEVEL="debug",
            ANTHROPIC_API_KEY="a",
            ANTHROPIC_BASE_URL=scripted.url,
            QLAUD_CONNECTOR_BASE_URL_LINEAR=linear.url,
            QLAUD_CONNECTOR_BASE_URL_GITHUB=github.url,
            QLAUD_OAUTH_GITHUB_CLIENT_ID=github.oauth.client_id,
            QLAUD_OAUTH_GITHUB_CLIENT_SECRET=github.oauth.client_secret,
        )
        session = await resources.enter_async_context(aiohttp.ClientSession())
        admin = Api(session, stack.base_url, stack.master_key)
        made = await admin.post("/v1/keys", {"name": "canary", "end_user_id": "ada"})
        user = Api(session, stack.base_url, made["secret"])
        thread = (await user.post("/v1/threads", {}))["id"]
        run = Run(stack, user, visitor, thread)

        await life_of_a_key(run, linear)
        await renewed_under_another_key(stack, f"{new},{old}")
        assert (await run.execute(LINEAR))[0]
        await signed_in(run, github)
        await run.say(calling("qlaud_manage_connections", action="disconnect", tool=LINEAR.tool))
        assert not (await run.execute(LINEAR))[0]

        places = {f"stream {number}": raw for number, raw in enumerate(run.streams)}
        places |= {f"answer {number}": raw for number, raw in enumerate(visitor.seen)}
        messages = f"/v1/threads/{thread}/messages"
        for path in (messages, f"/v1/threads/{thread}", "/v1/usage", "/metrics"):
            async with session.get(stack.base_url + path, headers={"x-api-key": user.key}) as response:
                places[path] = await response.read()
        listed = await user.post("/v1/connections", {"action": "list"})
        places["connections"] = json.dumps(listed).encode()
        places["what the model got"] = msgspec.json.encode(scripted.requests())
        places |= await dumped(stack.data_dir)
        places |= await redis_keys(stack.data_dir)
        await asyncio.to_thread(stack.stop)
        places["output"] = stack.output.read_bytes()
        places |= {
            str(path): path.read_bytes()
            for path in await asyncio.to_thread(lambda: list(stack.data_dir.rglob("*")))
            if path.is_file()
        }
    shown = {found.rpartition(": ")[0] for found in leaks(GITHUB.connected_as, places)}
    assert {"table connections", "connections"} <= shown  # here it may be, so whoever looks must find it
    assert any("/postgres/" in place for place in shown)
    assert any(place.endswith(".log") for place in places)
    assert places["table connection_secrets"]
    secrets = (LINEAR.credential, WRONG, github.credential, github.oauth.client_secret)
    assert [found for secret in secrets for found in leaks(secret, places)] == []
    assert (linear.mistakes, github.mistakes) == ([], [])


async def life_of_a_key(run: Run, linear: VendorDouble) -> None:
    """Refused, connected, used, told back by the vendor, revoked, connected anew."""
    link = await run.link(LINEAR)
    assert (await run.visitor.fill_in(link, api_key=WRONG))[0] == 422
    assert (await run.visitor.fill_in(link, api_key=LINEAR.credential))[0] == 200
    assert (await run.visitor.request("GET", link))[0] == 410
    assert (await run.execute(LINEAR))[0]
    told = f"Your key {LINEAR.credential} may not do this."
    refusal = {"message": told, "extensions": {"code": LINEAR.credential}}
    linear.faults.append(Answer(400, {"errors": [refusal]}))
    assert not (await run.execute(LINEAR))[0]
    linear.faults.append(Answer(200, {"data": {"issueCreate": {"issue": {"id": "1", "title": told}}}}))
    assert (await run.execute(LINEAR))[0]
    linear.revoked = True
    assert "Connect again" in (await run.execute(LINEAR))[1]
    link = await run.link(LINEAR)
    assert (await run.visitor.fill_in(link, api_key=LINEAR.credential))[0] == 422
    linear.revoked = False
    assert (await run.visitor.fill_in(link, api_key=LINEAR.credential))[0] == 200


async def renewed_under_another_key(stack: Any, ring: str) -> None:
    """`qlaud vault rotate` beside the running stack, whose processes know both keys."""
    stack.environ = {**stack.environ, "QLAUD_KEYRING": ring}
    rotated = await asyncio.to_thread(stack.run, "vault", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    printed = {"rotation": (rotated.stdout + rotated.stderr).encode()}
    assert leaks(LINEAR.credential, printed) == []


async def signed_in(run: Run, github: GitHub) -> None:
    """By OAuth: the page, the vendor's page, the way back; then the tool runs with the token."""
    status, leaving = await run.visitor.fill_in(await run.link(GITHUB), way=1)
    assert status == 200
    there = re.search(r'href="([^"]+/login/oauth/authorize[^"]+)"', leaving)
    assert there is not None, leaving
    asked = html.unescape(there[1])
    assert dict(parse_qsl(urlsplit(asked).query))["code_challenge_method"] == "S256"
    _, back, _ = await run.visitor.request("POST", asked)
    status, _, page = await run.visitor.request("GET", back)
    assert status == 200, page
    assert GITHUB.connected_as in page
    assert (await run.execute(GITHUB))[0]
    assert len(github.made) == 1


async def dumped(data_dir: Path) -> dict[str, bytes]:
    """The stack's tables."""
    connection = await connect(_address(data_dir, "database_url"))
    try:
        return await tables(connection)
    finally:
        await connection.close()


async def redis_keys(data_dir: Path) -> dict[str, bytes]:
    """Every key of the stack's Redis with its value."""
    found = {}
    async with redis.Redis.from_url(_address(data_dir, "redis_url")) as client:
        read: dict[bytes, Any] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": client.xrange,
        }
        async for key in client.scan_iter():
            kind = await client.type(key)
            if kind == b"none":
                continue  # it has expired since it was listed
            value = await read[kind](key)
            found[f"redis {key.decode(errors='replace')}"] = repr((key, value)).encode()
    return found


def _address(data_dir: Path, name: str) -> str:
    """Of a part of the running stack."""
    return str(json.loads((data_dir / "stack.json").read_text())[name])
