"""What a tool's secret survives, and what the front door says of tools."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from front_door import Door, front_door

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring, VaultError
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import Conflict, InvalidRequest, NotFound
from qlaud_actors.ids import new_tool_id, new_webhook_secret
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT as ACCOUNT
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.settings import Secret
from qlaud_actors.tools import store
from qlaud_actors.tools.dispatch import Dispatcher
from qlaud_actors.tools.kept import KeptCalls
from qlaud_actors.tools.mcp import McpCaller
from qlaud_actors.tools.model import Tool
from qlaud_actors.tools.registry import toolset_for
from qlaud_actors.tools.webhook import WebhookCaller

URL = "https://example.com/hook"
BODY = {"name": "send_mail", "description": "Sends.", "input_schema": {"type": "object"}, "webhook_url": URL}
SHOWN = {
    *("id", "object", "name", "description", "input_schema", "webhook_url"),
    *("kind", "timeout_ms", "effect", "shared", "created_at"),
}


def new_tool(name: str = "lookup", **fields: Any) -> Tool:
    """A tool that is not stored yet."""
    made = Tool(new_tool_id(), name, "Looks up.", {"type": "object"}, "webhook", webhook_url=URL)
    return replace(made, **{"secret": Secret(new_webhook_secret()), **fields})


async def opened(tool: Tool) -> Secret:
    """The secret of a tool from the store."""
    assert tool.secret is not None
    assert not isinstance(tool.secret, Secret)
    return await tool.secret.open("test")


@pytest.fixture
async def door(pool: Pool, vault: Vault) -> AsyncIterator[Door]:
    """A front door that runs tools as in production: no private hosts."""
    async with open_guarded_session(allow_private=False) as session:
        mcp = McpCaller(McpClient(session, allow_private=False))
        callers = {"webhook": WebhookCaller(session, allow_private=False), "mcp": mcp}
        dispatcher = Dispatcher(callers, KeptCalls(pool))
        async with front_door(pool, vault=vault, dispatcher=dispatcher) as opened:
            yield opened


async def test_a_secret_opens_in_its_row_only(pool: Pool, vault: Vault) -> None:
    """A ciphertext copied to another row does not open there; the other tools still work."""
    a, b = [await store.insert_tool(pool, vault, ACCOUNT, new_tool(name)) for name in ("a", "b")]
    sealed = await pool.fetchval("SELECT secret FROM tools WHERE id = $1", a.id)
    await pool.execute("UPDATE tools SET secret = $1 WHERE id = $2", sealed, b.id)
    found = {tool.id: tool for tool in await store.list_tools(pool, vault, ACCOUNT)}
    assert await opened(found[a.id])
    with pytest.raises(VaultError, match="does not open here"):
        await opened(found[b.id])


async def test_a_lost_key_ring_loses_secrets_and_nothing_else(pool: Pool, vault: Vault) -> None:
    """With another key ring tools are still listed, so that they can be replaced."""
    await store.insert_tool(pool, vault, ACCOUNT, new_tool())
    (found,) = await store.list_tools(pool, Vault(Keyring.parse(Keyring.generate()), pool), ACCOUNT)
    assert found.name == "lookup"
    with pytest.raises(VaultError, match="not in the key ring"):
        await opened(found)


async def test_a_revoked_tool_leaves_no_secret(pool: Pool, vault: Vault) -> None:
    """The row stays for the record, its secret does not."""
    tool = await store.insert_tool(pool, vault, ACCOUNT, new_tool())
    assert await store.revoke_tool(pool, ACCOUNT, tool.id)
    assert await pool.fetchval("SELECT secret FROM tools") == b""
    assert await store.get_tools_by_ids(pool, vault, ACCOUNT, [tool.id]) == []


async def test_a_conflict_leaves_a_transaction_usable(pool: Pool, vault: Vault) -> None:
    """Registering inside a transaction may fail and the rest of it still commits."""
    async with pool.acquire() as connection, connection.transaction():
        await store.insert_tool(connection, vault, ACCOUNT, new_tool())
        with pytest.raises(Conflict):
            await store.insert_tool(connection, vault, ACCOUNT, new_tool())
        await store.insert_tool(connection, vault, ACCOUNT, new_tool("other"))
    assert len(await store.list_tools(pool, vault, ACCOUNT)) == 2


@pytest.mark.parametrize("tool_id", ["", "nope", "tool_\x00", "tool_" + "g" * 32])
async def test_an_odd_id_names_nothing(pool: Pool, vault: Vault, tool_id: str) -> None:
    """Odd ids, also with NUL, are unknown and no error of the database."""
    assert not await store.revoke_tool(pool, ACCOUNT, tool_id)
    with pytest.raises(NotFound):
        await toolset_for(pool, vault, ACCOUNT, "explicit", [tool_id], [])


@pytest.mark.parametrize(
    "schema", [{"required": 7}, {"anyOf": []}, {"properties": {"a": {"$ref": "http://127.0.0.1/x"}}}]
)
async def test_a_client_tool_with_a_broken_schema_is_named(
    pool: Pool, vault: Vault, schema: dict[str, Any]
) -> None:
    """What no model would take is refused before the turn is accepted."""
    tool = {"name": "read_file", "description": "", "input_schema": {"type": "object", **schema}}
    with pytest.raises(InvalidRequest, match="read_file"):
        await toolset_for(pool, vault, ACCOUNT, "dynamic", None, [tool])


async def test_a_tool_is_registered_listed_and_revoked(door: Door) -> None:
    """201 with the secret, which is in no other answer; the name is free again afterwards."""
    status, made = await door.ask("POST", "/v1/tools", BODY)
    assert status == 201
    assert set(made) == SHOWN | {"secret"}
    assert (made["timeout_ms"], made["effect"], made["shared"]) == (30_000, "write", True)
    assert (await door.ask("POST", "/v1/tools", BODY))[0] == 409
    status, listed = await door.ask("GET", "/v1/tools")
    assert status == 200
    assert listed == {"object": "list", "data": [{name: made[name] for name in SHOWN}]}
    path = f"/v1/tools/{made['id']}"
    assert await door.ask("DELETE", path) == (200, {"ok": True})
    assert (await door.ask("DELETE", path))[0] == 404
    assert (await door.ask("POST", "/v1/tools", BODY))[0] == 201


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"webhook_url": "http://example.com/"}, "https"),
        ({"webhook_url": "https://127.0.0.1/"}, "webhook_url"),
        ({"webhook_url": "https://metadata.google.internal/"}, "metadata"),
        ({"webhook_url": None}, "webhook_url"),
        ({"provider": "qlaud-builtin/web-search"}, "exclude each other"),
        ({"name": "qlaud_x"}, "reserved"),
        ({"description": "\x00"}, "description"),
        ({"input_schema": {"type": "array"}}, "object"),
        ({"timeout_ms": 120_001}, "timeout_ms"),
        ({"effect": "maybe"}, "effect"),
    ],
)
async def test_a_wrong_registration_is_told_by_field(door: Door, wrong: dict[str, Any], said: str) -> None:
    """400 that names what is wrong; nothing is stored."""
    status, told = await door.ask("POST", "/v1/tools", {**BODY, **wrong})
    assert status == 400
    assert said in told["error"]["message"]
    assert (await door.ask("GET", "/v1/tools"))[1]["data"] == []


async def test_the_meta_tools_answer_any_key(door: Door) -> None:
    """Search, schemas, execute and connections with a standard key; registering needs an admin."""
    await door.ask("POST", "/v1/tools", BODY)
    key = (await door.mint())["secret"]
    assert (await door.ask("POST", "/v1/tools", BODY, key=key))[0] == 403
    found = await door.ask("POST", "/v1/tools/search", {"intent": "send an email"}, key=key)
    assert found[1]["results"][0]["name"] == "send_mail"
    schemas = await door.ask("POST", "/v1/tools/schemas", {"tools": ["send_mail"]}, key=key)
    assert schemas[1]["schemas"][0]["input_schema"] == BODY["input_schema"]
    calls = [{"tool": "send_mial", "args": {}}]
    status, executed = await door.ask("POST", "/v1/tools/execute", {"calls": calls}, key=key)
    assert status == 200
    assert executed["results"][0]["is_error"] is True
    assert "Did you mean send_mail" in executed["results"][0]["output"]
    status, connection = await door.ask(
        "POST", "/v1/connections", {"action": "status", "tool": "send_mail"}, key=key
    )
    assert (status, connection["status"]) == (200, "connected")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tools/search", {}),
        ("/v1/tools/search", {"intent": "x" * 1001}),
        ("/v1/tools/search", {"intent": "x", "limit": 26}),
        ("/v1/tools/schemas", {}),
        ("/v1/tools/execute", {"calls": []}),
        ("/v1/tools/execute", {"calls": [{"tool": "x"}] * 51}),
        ("/v1/connections", {"action": "explode"}),
        ("/v1/connections", {"action": "status", "tool": "nothing"}),
    ],
)
async def test_wrong_arguments_of_a_meta_tool_are_a_400(door: Door, path: str, body: dict[str, Any]) -> None:
    """What a model would be told in words, a caller is told as an error."""
    status, told = await door.ask("POST", path, body)
    assert status == 400
    assert told["error"]["message"]
