"""The account's tools as an MCP server, asked by a client of the official library."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from fakes.mcp_double import listed, mcp_double
from front_door import Door, front_door

from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient, McpFailed, Peer
from qlaud_actors.settings import Settings
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.webhook import WebhookCaller

HOOK = {
    "name": "hook",
    "description": "d",
    "input_schema": {"type": "object"},
    "webhook_url": "http://127.0.0.1:1/x",
}


@pytest.fixture
async def client() -> AsyncIterator[McpClient]:
    """A client that may call loopback."""
    async with open_guarded_session(allow_private=True) as session:
        yield McpClient(session, allow_private=True)


@pytest.fixture
async def door(pool: Pool, vault: Vault, client: McpClient) -> AsyncIterator[Door]:
    """A front door with a tool of an MCP server, a shared webhook and one that is not."""
    settings, mcp = Settings(allow_private_webhooks=True), McpCaller(client)
    async with open_guarded_session(allow_private=True) as session, mcp_double(listed("find")) as double:
        callers = {"webhook": WebhookCaller(session, allow_private=True), "mcp": mcp}
        dispatcher = Dispatcher(callers, KeptCalls(pool))
        opened = front_door(pool, settings=settings, vault=vault, mcp=mcp, dispatcher=dispatcher)
        async with opened as door:
            await door.ask("POST", "/v1/mcp-servers", {"name": "crm", "server_url": double.url})
            await door.ask("POST", "/v1/tools", HOOK)
            await door.ask("POST", "/v1/tools", {**HOOK, "name": "hidden", "shared": False})
            yield door


async def peer(door: Door) -> Peer:
    """The front door as an MCP server, for a standard key."""
    key = (await door.mint(end_user_id="ada"))["secret"]
    return Peer(str(door.client.make_url("/mcp")), {"authorization": f"Bearer {key}"})


async def call(client: McpClient, at: Peer, name: str, arguments: dict[str, Any]) -> Any:
    """The result of a call."""
    return await client.call_tool(at, name, arguments, call_id="call_1", seconds=10)


async def test_tools_are_listed_and_called(door: Door, client: McpClient) -> None:
    """Shared tools and the meta-tools, under names that models accept; failures are results."""
    at = await peer(door)
    listing = await client.list_tools(at, 10)
    names = {tool["title"]: tool["name"] for tool in listing.tools}
    metas = {name for name in names if name.startswith("qlaud_")}
    assert set(names) - metas == {"crm/find", "hook"}
    assert len(metas) == 4
    assert "/" not in names["crm/find"]
    for name in (names["crm/find"], "crm/find"):
        told = await call(client, at, name, {"q": "x"})
        assert told["content"][0]["text"] == "find {'q': 'x'}"
    assert (await call(client, at, "hook", {}))["isError"]
    assert (await call(client, at, "hidden", {}))["isError"]
    wrong = await call(client, at, "crm/find", {"q": 5})
    assert wrong["isError"]
    assert "does not fit" in wrong["content"][0]["text"]
    inner = {"calls": [{"tool": "crm/find", "args": {"q": "y"}}]}
    ran = await call(client, at, "qlaud_multi_execute", inner)
    result = {"tool": "crm/find", "status": "ok", "output": "find {'q': 'y'}"}
    assert ran["structuredContent"] == {"results": [result]}
    assert msgspec.json.decode(ran["content"][0]["text"]) == ran["structuredContent"]


async def test_a_key_is_needed(door: Door, client: McpClient) -> None:
    """Without one it is 401, as HTTP."""
    with pytest.raises(McpFailed, match="status 401"):
        await client.list_tools(Peer(str(door.client.make_url("/mcp")), {}), 10)


async def test_what_is_not_served_is_an_error_of_the_protocol(door: Door) -> None:
    """Unknown methods, wrong parameters; notifications are taken, and there is no stream to open."""
    ask = {"jsonrpc": "2.0", "id": "a"}
    for message, code in (
        ({**ask, "method": "resources/list"}, -32601),
        ({**ask, "method": "tools/call", "params": {"name": 5}}, -32602),
        ({**ask, "method": "tools/call", "params": {"name": "hook", "arguments": []}}, -32602),
    ):
        status, answer = await door.ask("POST", "/mcp", message)
        assert (status, answer["error"]["code"], answer["id"]) == (200, code, "a")
    assert (await door.ask("POST", "/mcp", {**ask, "method": "ping"}))[1]["result"] == {}
    assert (await door.ask("GET", "/mcp"))[0] == 405
    asked = {**ask, "method": "initialize", "params": {"protocolVersion": "1999-01-01"}}
    assert (await door.ask("POST", "/mcp", asked))[1]["result"]["protocolVersion"] == "2025-11-25"
