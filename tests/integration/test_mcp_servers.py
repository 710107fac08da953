"""Registered MCP servers: what is stored, shown, refreshed and forgotten."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from fakes.mcp_double import TOKEN, McpDouble, listed, mcp_double
from front_door import Door, front_door
from mcp.types import ToolAnnotations

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.settings import Settings
from qlaud_actors.tools import mcp_store
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.registry import toolset_for
from qlaud_actors.tools.secrets import opened
from qlaud_actors.tools.store import list_tools
from qlaud_actors.tools.webhook import WebhookCaller

SERVERS = "/v1/mcp-servers"


@dataclass
class Office:
    """A front door, and an MCP server that it may call."""

    door: Door
    double: McpDouble

    def body(self, **fields: Any) -> dict[str, Any]:
        """A registration."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return {"name": "crm", "server_url": self.double.url, "auth_headers": headers, **fields}

    async def register(self, **fields: Any) -> Any:
        """Register the server: the answer."""
        status, made = await self.door.ask("POST", SERVERS, self.body(**fields))
        assert status == 201, made
        return made


@pytest.fixture
async def office(pool: Pool, vault: Vault) -> AsyncIterator[Office]:
    """Two tools at the server; loopback is allowed."""
    settings = Settings(allow_private_webhooks=True)
    tools = listed("find", annotations=ToolAnnotations(readOnlyHint=True)), listed("add")
    async with open_guarded_session(allow_private=True) as session, mcp_double(*tools) as double:
        mcp = McpCaller(McpClient(session, allow_private=True))
        callers = {"webhook": WebhookCaller(session, allow_private=True), "mcp": mcp}
        dispatcher = Dispatcher(callers, KeptCalls(pool))
        opened = front_door(pool, settings=settings, vault=vault, mcp=mcp, dispatcher=dispatcher)
        async with opened as door:
            yield Office(door, double)


def reasons(answer: Any) -> dict[str, str]:
    """What was left out, and why."""
    return {tool["name"]: tool["reason"] for tool in answer["unusable"]}


async def test_a_server_is_registered_with_its_tools(office: Office, pool: Pool, vault: Vault) -> None:
    """Its tools come with schemas and effects; its headers are sealed and shown to nobody."""
    made = await office.register()
    effects = {tool["name"]: tool["effect"] for tool in made["tools"]}
    assert effects == {"crm/find": "read", "crm/add": "write"}
    assert made["unusable"] == []
    status, answer = await office.door.ask("GET", SERVERS)
    (shown,) = answer["data"]
    assert status == 200
    assert {**shown, "tools": made["tools"], "unusable": []} == made
    assert (shown["tools_cached"], shown["has_auth_headers"]) == (2, True)
    assert shown["tools_cache_at"] >= shown["created_at"] > 1_700_000_000_000
    tools = await list_tools(pool, vault, ACCOUNT)
    assert [tool.kind for tool in tools] == ["mcp", "mcp"]
    assert tools[0].input_schema["properties"] == {"q": {"type": "string"}}
    _, tools_shown = await office.door.ask("GET", "/v1/tools")
    stored = await pool.fetch("SELECT to_jsonb(s)::text AS s FROM mcp_servers s")
    told = json.dumps([made, answer, tools_shown, [row["s"] for row in stored]])
    assert TOKEN not in told
    assert TOKEN.encode().hex() not in told


async def test_any_key_sees_servers_but_not_the_query_of_their_urls(office: Office) -> None:
    """Some servers take their key in the URL: that is for admins."""
    await office.register(server_url=f"{office.double.url}?key=k")
    user = await office.door.mint()
    _, admins = await office.door.ask("GET", SERVERS)
    status, users = await office.door.ask("GET", SERVERS, key=user["secret"])
    assert (status, users["data"][0]["server_url"]) == (200, office.double.url)
    assert admins["data"][0]["server_url"] == f"{office.double.url}?key=k"
    for method, path in (("POST", SERVERS), ("POST", f"{SERVERS}/x/refresh"), ("DELETE", f"{SERVERS}/x")):
        assert (await office.door.ask(method, path, office.body(), key=user["secret"]))[0] == 403


async def test_tools_that_cannot_be_used_are_named_and_left_out(office: Office) -> None:
    """A schema that models refuse, a name twice, a name that is taken by another tool."""
    hook = {"name": "crm/taken", "description": "d", "input_schema": {"type": "object"}}
    await office.door.ask("POST", "/v1/tools", {**hook, "webhook_url": "https://hooks.example/x"})
    office.double.tools += [
        listed("union", inputSchema={"type": "object", "anyOf": []}),
        listed("remote", inputSchema={"type": "object", "$ref": "https://x.example"}),
        listed("find"),
        listed("taken"),
        listed("silent", description=None, title="Silently."),
    ]
    made = await office.register(effect="idempotent")
    assert [tool["name"] for tool in made["tools"]] == ["crm/find", "crm/add", "crm/silent"]
    assert {tool["effect"] for tool in made["tools"]} == {"idempotent"}
    assert {name: text[:20] for name, text in reasons(made).items()} == {
        "crm/union": "`input_schema` must ",
        "crm/remote": "`input_schema` must ",
        "crm/find": "The server lists thi",
        "crm/taken": "The account has a to",
    }


async def test_a_taken_name_is_a_conflict_before_anything_is_called(office: Office) -> None:
    """The second registration of a name asks no server; after a deletion it may come."""
    made = await office.register()
    asked = len(office.double.requests)
    assert (await office.door.ask("POST", SERVERS, office.body()))[0] == 409
    assert len(office.double.requests) == asked
    assert (await office.door.ask("DELETE", f"{SERVERS}/{made['id']}"))[0] == 200
    await office.register()


@pytest.mark.parametrize(
    ("status", "expected", "words"), [(401, 400, "auth_headers"), (403, 400, "403"), (500, 502, "status 500")]
)
async def test_a_server_that_refuses_is_not_stored(
    office: Office, pool: Pool, status: int, expected: int, words: str
) -> None:
    """Wrong headers are the caller's mistake, all else is the server's."""
    office.double.status = status
    got, answer = await office.door.ask("POST", SERVERS, office.body())
    assert got == expected
    assert words in answer["error"]["message"]
    assert await pool.fetchval("SELECT count(*) FROM mcp_servers") == 0


async def test_a_refresh_adds_changes_and_revokes(office: Office, pool: Pool, vault: Vault) -> None:
    """What stays keeps its id, so that turns that name it go on."""
    made = await office.register()
    ids = {tool["name"]: tool["id"] for tool in made["tools"]}
    office.double.tools = [listed("add", description="Adds well."), listed("new")]
    status, after = await office.door.ask("POST", f"{SERVERS}/{made['id']}/refresh")
    assert status == 200
    assert after["tools_cache_at"] >= made["tools_cache_at"]
    assert [tool["name"] for tool in after["tools"]] == ["crm/add", "crm/new"]
    assert after["tools"][0]["id"] == ids["crm/add"]
    tools = {tool.name: tool.description for tool in await list_tools(pool, vault, ACCOUNT)}
    assert tools == {"crm/add": "Adds well.", "crm/new": "Does new."}


async def test_a_refresh_that_fails_changes_nothing(office: Office, pool: Pool, vault: Vault) -> None:
    """A server that is away for a while keeps its tools; without its headers it must be made anew."""
    made = await office.register()
    office.double.status = 503
    path = f"{SERVERS}/{made['id']}/refresh"
    assert (await office.door.ask("POST", path))[0] == 502
    assert len(await list_tools(pool, vault, ACCOUNT)) == 2
    await pool.execute("UPDATE mcp_servers SET auth_headers = 'x'")
    assert (await office.door.ask("POST", path))[0] == 409
    assert (await office.door.ask("GET", SERVERS))[0] == 200


async def test_a_deleted_server_takes_its_tools_and_headers_along(
    office: Office, pool: Pool, vault: Vault
) -> None:
    """Nothing of it can be used or refreshed any more."""
    made = await office.register()
    path = f"{SERVERS}/{made['id']}"
    assert await office.door.ask("DELETE", path) == (200, {"ok": True})
    assert await list_tools(pool, vault, ACCOUNT) == []
    assert await pool.fetchval("SELECT auth_headers FROM mcp_servers") == b""
    assert (await office.door.ask("DELETE", path))[0] == 404
    assert (await office.door.ask("POST", f"{path}/refresh"))[0] == 404
    assert await office.door.ask("GET", SERVERS) == (200, {"object": "list", "data": []})


async def test_a_server_deleted_during_a_refresh_stays_deleted(
    office: Office, pool: Pool, vault: Vault
) -> None:
    """Between the listing and its storing the server went: no tool comes back."""
    made = await office.register()
    (server,) = await mcp_store.list_servers(pool, vault, ACCOUNT)
    tools = await mcp_store.list_server_tools(pool, server)
    await office.door.ask("DELETE", f"{SERVERS}/{made['id']}")
    with pytest.raises(mcp_store.NotFound):
        await mcp_store.replace_tools(pool, ACCOUNT, server, tools)
    assert await list_tools(pool, vault, ACCOUNT) == []


async def test_headers_open_in_their_row_only(office: Office, pool: Pool, vault: Vault) -> None:
    """Neither under another key ring nor moved to another server."""
    await office.register()
    await office.register(name="other", auth_headers={"x-key": "k"})
    await pool.execute(
        "UPDATE mcp_servers SET auth_headers = (SELECT auth_headers FROM mcp_servers WHERE name = 'crm')"
    )
    servers = {server.name: server.headers for server in await mcp_store.list_servers(pool, vault, ACCOUNT)}
    assert await opened(servers["crm"], "test") is not None
    assert await opened(servers["other"], "test") is None
    lost = await mcp_store.list_servers(pool, Vault(Keyring.parse(Keyring.generate()), pool), ACCOUNT)
    assert [await opened(server.headers, "test") for server in lost] == [None, None]
    noted = "SELECT owner, field FROM vault_audit WHERE purpose = 'test' ORDER BY id LIMIT 1"
    row = await pool.fetchrow(noted)
    assert row is not None
    assert (row["owner"][:11], row["field"]) == ("mcp_server:", "headers")


async def test_the_number_of_servers_is_limited(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is a conflict that says so."""
    monkeypatch.setattr(mcp_store, "MAX_SERVERS", 1)
    await office.register()
    status, answer = await office.door.ask("POST", SERVERS, office.body(name="second"))
    assert status == 409
    assert "delete one" in answer["error"]["message"]


async def test_tools_are_found_described_and_run_over_rest(office: Office, pool: Pool, vault: Vault) -> None:
    """The meta-tools reach them as they reach webhooks, and tenant mode attaches them."""
    await office.register()
    _, found = await office.door.ask("POST", "/v1/tools/search", {"intent": "find"})
    assert (found["results"][0]["name"], found["results"][0]["kind"]) == ("crm/find", "mcp")
    _, described = await office.door.ask("POST", "/v1/tools/schemas", {"tools": ["crm/find"]})
    assert described["schemas"][0]["input_schema"]["properties"] == {"q": {"type": "string"}}
    calls = [{"tool": "crm/find", "args": {"q": "x"}}, {"tool": "crm/find", "args": {"q": 1}}]
    _, ran = await office.door.ask("POST", "/v1/tools/execute", {"calls": calls})
    assert ran["results"][0]["output"] == "find {'q': 'x'}"
    assert ran["results"][1]["is_error"]
    assert office.double.calls == [("find", {"q": "x"})]
    offered = (await toolset_for(pool, vault, ACCOUNT, "tenant", None, [])).offered
    assert [tool.name for tool in offered] == ["crm/find", "crm/add"]
