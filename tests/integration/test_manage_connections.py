"""Connecting accounts and calling vendors through the front door: each key for its own end user."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from acme import KEY, OTHER_KEY, Bench, running_bench
from aiohttp import web
from front_door import Door, front_door

from qlaud_actors.connectors import links
from qlaud_actors.connectors.connections import Owner
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_tool_id, new_webhook_secret
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.settings import Secret
from qlaud_actors.tools import meta, store
from qlaud_actors.tools.connector import ConnectorCaller, connector_tools
from qlaud_actors.tools.dispatch import Dispatcher, NoJournal
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.manage import ConnectionDesk
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import CallContext, Tool, ToolCall
from qlaud_actors.tools.registry import reachable_tools
from qlaud_actors.tools.webhook import WebhookCaller

BASE = "https://qlaud.example"
TOOL = "qlaud-mcp/acme"


@pytest.fixture
async def bench(pool: Pool, vault: Vault) -> AsyncIterator[Bench]:
    """A vendor, and who calls it."""
    async with running_bench(pool, vault) as bench:
        yield bench


@pytest.fixture
async def dispatcher(bench: Bench) -> AsyncIterator[Dispatcher]:
    """Runs calls as in production."""

    async def make_link(owner: Owner, connector: str) -> links.NewLink:
        return await links.create(bench.pool, owner, connector, BASE)

    async with open_guarded_session(allow_private=False) as session:
        desk = ConnectionDesk(bench.catalog, bench.connections, make_link)
        webhooks = WebhookCaller(session, allow_private=False)
        mcp = McpCaller(McpClient(session, allow_private=False))
        callers = {"webhook": webhooks, "mcp": mcp, "connector": ConnectorCaller(bench.executor)}
        yield Dispatcher(callers, KeptCalls(bench.pool), desk)


@pytest.fixture
async def door(bench: Bench, dispatcher: Dispatcher) -> AsyncIterator[Door]:
    """A front door with the one connector."""
    services: dict[str, Any] = {"connectors": bench.catalog, "connections": bench.connections}
    services |= {"connector_tools": connector_tools(bench.catalog), "desk": dispatcher._desk}
    async with front_door(bench.pool, vault=bench.vault, dispatcher=dispatcher, **services) as opened:
        yield opened


async def manage(door: Door, key: str, action: str, tool: str = TOOL, **more: Any) -> tuple[int, Any]:
    return await door.ask("POST", "/v1/connections", {"action": action, "tool": tool, **more}, key=key)


async def execute(door: Door, key: str, tool: str = "acme/get_item", **args: str) -> Any:
    call = {"tool": tool, "args": args or {"id": "1"}}
    status, told = await door.ask("POST", "/v1/tools/execute", {"calls": [call]}, key=key)
    assert status == 200
    return told["results"][0]


async def key_of(door: Door, end_user_id: str | None) -> str:
    made = await door.mint(**({"end_user_id": end_user_id} if end_user_id else {}))
    return str(made["secret"])


async def test_from_not_connected_to_a_call_and_back(door: Door, bench: Bench) -> None:
    """The refusal names the tool to connect; with credentials it is connected; disconnecting forgets."""
    alice = await key_of(door, "alice")
    refused = await execute(door, alice)
    assert refused["is_error"]
    assert (refused["output"]["error"], refused["output"]["tool"]) == ("not_connected", TOOL)
    assert "qlaud_manage_connections" in refused["output"]["message"]
    told = (await manage(door, alice, "status"))[1]
    assert (told["status"], told["connected"], told["tool"]) == ("not_connected", False, TOOL)
    assert "`token` (API key)" in told["credentials_prompt"]
    status, told = await manage(door, alice, "connect", credentials={"token": KEY})
    assert (status, told["status"]) == (200, "connected")
    assert (told["connected_as"], told["whose"]) == ("Ada", "end_user")
    assert told["credentials_prompt"] is None
    assert (await execute(door, alice))["output"] == {"id": "1"}
    del bench.acme.people[KEY]
    assert (await execute(door, alice))["output"]["error"] == "connection_expired"
    assert (await manage(door, alice, "status"))[1]["status"] == "expired"
    assert (await manage(door, alice, "disconnect"))[1]["status"] == "not_connected"
    assert (await manage(door, alice, "disconnect"))[0] == 200
    assert await bench.pool.fetchval("SELECT count(*) FROM connection_secrets") == 0


@pytest.mark.parametrize("name", ["acme", "qlaud-mcp/acme", "acme/get_item"])
async def test_a_link_is_for_whoever_asked(door: Door, bench: Bench, name: str) -> None:
    """All spellings of a tool give a link for the key's end user, ten minutes, its token stored as a hash."""
    status, told = await manage(door, await key_of(door, "alice"), "connect", name)
    assert (status, set(told)) == (200, {"tool", "connect_url", "expires_at"})
    token = told["connect_url"].removeprefix(f"{BASE}/connect/")
    link = await links.find(bench.pool, token)
    assert (link.owner, link.connector) == (Owner(ACCOUNT, "alice"), "acme")
    assert token not in str(await bench.pool.fetch("SELECT * FROM connect_links"))


async def test_each_end_user_has_his_own(door: Door, bench: Bench) -> None:
    """What one connects no other uses or ends; the account's is for all, and only an admin key changes it."""
    keys = {name: await key_of(door, name) for name in ("alice", "bob", None)}
    assert (await manage(door, keys["alice"], "connect", credentials={"token": KEY}))[0] == 200
    assert (await execute(door, keys["bob"]))["output"]["error"] == "not_connected"
    assert (await execute(door, keys[None]))["output"]["error"] == "not_connected"
    assert (await execute(door, door.master))["output"]["error"] == "not_connected"
    assert (await manage(door, door.master, "connect", credentials={"token": OTHER_KEY}))[0] == 200
    for name, key in keys.items():
        told = (await manage(door, key, "status"))[1]
        assert told["whose"] == ("end_user" if name == "alice" else "account")
        assert (await execute(door, key))["output"] == {"id": "1"}
    sent = [headers["authorization"] for _, _, headers, _ in bench.acme.asked]
    assert sent == [f"Bearer {KEY}", f"Bearer {OTHER_KEY}", f"Bearer {OTHER_KEY}"]
    status, told = await manage(door, keys["bob"], "disconnect")
    assert (status, "only its operator" in told["error"]["message"]) == (400, True)
    assert (await manage(door, keys["alice"], "disconnect"))[1]["whose"] == "account"


async def test_a_standard_key_does_not_stand_for_the_account(door: Door) -> None:
    """Without end user it connects for itself: no other key sees it, and the account's stays as it was."""
    one, other = await key_of(door, None), await key_of(door, None)
    await manage(door, door.master, "connect", credentials={"token": OTHER_KEY})
    told = (await manage(door, one, "connect", credentials={"token": KEY}))[1]
    assert (told["connected_as"], told["whose"]) == ("Ada", "end_user")
    for key in (other, door.master):
        assert (await manage(door, key, "status"))[1]["connected_as"] == "Zoe"
    assert (await manage(door, one, "disconnect"))[1]["connected_as"] == "Zoe"
    assert (await manage(door, one, "disconnect"))[0] == 400


@pytest.mark.parametrize("path", ["/v1/threads", "/v1/threads/import", "/v1/keys"])
async def test_nobody_is_called_like_a_key(door: Door, path: str) -> None:
    """An end user named as a key's connections are would let one key use another's."""
    other = (await door.mint())["secret"]
    named = {"end_user_id": f"key:{(await door.mint())['id']}"}
    more = {"/v1/threads/import": {"messages": []}, "/v1/keys": {"name": "k"}}.get(path, {})
    key = door.master if path == "/v1/keys" else other
    status, told = await door.ask("POST", path, {**named, **more}, key=key)
    assert (status, "must not begin with `key:`" in told["error"]["message"]) == (400, True)


async def test_another_account_sees_nothing(door: Door) -> None:
    """The same end user's name at another account is somebody else."""
    await manage(door, await key_of(door, "alice"), "connect", credentials={"token": KEY})
    await manage(door, door.master, "connect", credentials={"token": OTHER_KEY})
    _, made = await door.ask("POST", "/v1/accounts", {"name": "other"})
    status, minted = await door.ask(
        "POST", "/v1/keys", {"name": "k", "end_user_id": "alice"}, key=made["secret"]
    )
    assert status == 201
    for key in (minted["secret"], made["secret"]):
        assert (await manage(door, key, "status"))[1]["status"] == "not_connected"
        assert (await execute(door, key))["output"]["error"] == "not_connected"
        assert (await manage(door, key, "disconnect"))[1]["status"] == "not_connected"


async def test_the_list_has_what_is_connected_and_what_can_be(door: Door) -> None:
    """Every connector with its state, for this end user."""
    alice = await key_of(door, "alice")
    told = (await door.ask("POST", "/v1/connections", {"action": "list"}, key=alice))[1]
    assert told == {"tools": [{"tool": TOOL, "name": "Acme", "status": "not_connected", "connected": False}]}
    await manage(door, alice, "connect", credentials={"token": KEY})
    (one,) = (await door.ask("POST", "/v1/connections", {"action": "list"}, key=alice))[1]["tools"]
    assert (one["tool"], one["status"], one["connected_as"]) == (TOOL, "connected", "Ada")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"action": "connect", "tool": TOOL, "credentials": {"token": "wrong"}}, "does not look like"),
        ({"action": "connect", "tool": TOOL, "credentials": {"token": "acme_nobody"}}, "does not accept"),
        ({"action": "connect", "tool": TOOL, "credentials": {"token": 7}}, "credentials"),
        ({"action": "connect", "tool": TOOL, "credentials": {"key": KEY}}, "do not fit Acme"),
        ({"action": "connect", "tool": TOOL, "credentials": {"token": KEY, "x": "y"}}, "do not fit Acme"),
        ({"action": "connect", "tool": TOOL, "credentials": KEY}, "credentials"),
        ({"action": "connect", "tool": "acme/no_such"}, "There is no tool"),
        ({"action": "connect", "tool": "qlaud-mcp/nobody"}, "There is no tool"),
        ({"action": "status", "tool": "x" * 200}, "tool"),
        ({"action": "connect"}, "`tool` is needed"),
        ({"action": "explode", "tool": TOOL}, "action"),
        ({}, "action"),
    ],
)
async def test_what_is_wrong_is_said_and_changes_nothing(
    door: Door, pool: Pool, body: dict[str, Any], words: str
) -> None:
    """A 400 in words, without the credential, and no row."""
    status, told = await door.ask("POST", "/v1/connections", body, key=await key_of(door, "alice"))
    assert (status, words in told["error"]["message"]) == (400, True), told
    assert KEY not in told["error"]["message"]
    assert await pool.fetchval("SELECT count(*) FROM connections") == 0
    assert await pool.fetchval("SELECT count(*) FROM connect_links") == 0


async def test_a_model_cannot_bring_credentials(bench: Bench, dispatcher: Dispatcher) -> None:
    """In a conversation they are refused, and it is said that they are exposed now; a link is given."""
    tools = await reachable_tools(bench.pool, bench.vault, ACCOUNT, connector_tools(bench.catalog))
    context = CallContext(ACCOUNT, "req_1", end_user_id="alice")

    async def ask(**arguments: Any) -> Any:
        call = ToolCall("call_1", "toolu_1", meta.CONNECTIONS, {"tool": "acme/ring", **arguments})
        return await dispatcher.run(call, tools, context, NoJournal())

    refused = await ask(action="connect", credentials={"token": KEY})
    assert refused.is_error
    assert "not taken in a conversation" in refused.output
    assert KEY not in refused.output
    assert await bench.connections.list_(Owner(ACCOUNT, "alice")) == []
    assert (await ask(action="connect")).output["connect_url"].startswith(f"{BASE}/connect/")
    assert (await ask(action="status")).output["credentials_prompt"] is None


async def test_actions_are_found_read_and_checked_like_tools(door: Door) -> None:
    """Search calls them `mcp`; their schemas are whole; input that does not fit is not sent."""
    alice = await key_of(door, "alice")
    found = (await door.ask("POST", "/v1/tools/search", {"intent": "ring the bell"}, key=alice))[1]["results"]
    assert (found[0]["name"], found[0]["kind"]) == ("acme/ring", "mcp")
    (schema,) = (await door.ask("POST", "/v1/tools/schemas", {"tools": ["acme/get_item"]}, key=alice))[1][
        "schemas"
    ]
    assert schema["input_schema"]["required"] == ["id"]
    assert schema["input_schema"]["additionalProperties"] is False
    assert "does not fit" in (await execute(door, alice, "acme/get_item", other="x"))["output"]


async def test_a_registered_tool_stands_before_an_action(door: Door, bench: Bench) -> None:
    """A webhook named like an action is what is meant by the name; it needs no connection."""
    own = Tool(new_tool_id(), "acme/ring", "Mine.", {"type": "object"}, "webhook", webhook_url="https://e.x/")
    own = replace(own, secret=Secret(new_webhook_secret()))
    await store.insert_tool(bench.pool, bench.vault, ACCOUNT, own)
    tools = await reachable_tools(bench.pool, bench.vault, ACCOUNT, connector_tools(bench.catalog))
    assert [one.kind for one in tools.reachable if one.name == "acme/ring"] == ["webhook"]
    alice = await key_of(door, "alice")
    for action in ("status", "connect", "disconnect"):
        told = (await manage(door, alice, action, "acme/ring"))[1]
        assert (told["tool"], told["status"], told["connected"]) == ("acme/ring", "connected", True)
        assert told["credentials_prompt"] is None


async def test_an_mcp_client_sees_what_is_connected(door: Door) -> None:
    """The meta-tools always, a connector's actions once it is connected, and they can be called."""
    alice = await key_of(door, "alice")

    async def rpc(method: str, **params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return (await door.ask("POST", "/mcp", message, key=alice))[1]["result"]

    before = [tool["title"] for tool in (await rpc("tools/list"))["tools"]]
    assert before == [tool.name for tool in meta.META_TOOLS]
    await manage(door, alice, "connect", credentials={"token": KEY})
    after = [tool["title"] for tool in (await rpc("tools/list"))["tools"]]
    assert after[len(before) :] == ["acme/get_item", "acme/set_item", "acme/create_item", "acme/ring"]
    called = await rpc("tools/call", name="acme/get_item", arguments={"id": "1"})
    assert called["structuredContent"] == {"id": "1"}


async def test_a_call_may_be_given_less_time(door: Door, bench: Bench) -> None:
    """`timeout_ms` of a multi-execute ends a vendor's slow answer, and says that nobody knows."""
    alice, over = await key_of(door, "alice"), asyncio.Event()
    await manage(door, alice, "connect", credentials={"token": KEY})

    async def wait(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.json_response({})

    bench.acme.answers = [wait]
    started = time.monotonic()
    calls = [{"tool": "acme/ring", "timeout_ms": 200}]
    _, told = await door.ask("POST", "/v1/tools/execute", {"calls": calls}, key=alice)
    over.set()
    (result,) = told["results"]
    assert (result["status"], result["output"]["error"]) == ("unknown", "unavailable")
    assert time.monotonic() - started < 25  # the sender's own patience is 30 s, the tool's 60 s
