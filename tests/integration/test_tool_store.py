"""Registered tools in Postgres, and the toolsets that turns get of them."""

import uuid
from typing import Any

import pytest

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Keyring, Place, VaultError
from qlaud_actors.db.pool import Pool
from qlaud_actors.errors import Conflict, InvalidRequest, NotFound
from qlaud_actors.ids import new_tool_id, new_webhook_secret
from qlaud_actors.settings import Secret
from qlaud_actors.tools.meta import META_TOOLS, SEARCH
from qlaud_actors.tools.model import Tool
from qlaud_actors.tools.registry import reachable_tools, toolset_for
from qlaud_actors.tools.store import insert_tool, list_tools, revoke_tool

ACCOUNT = uuid.UUID("00000000-0000-7000-8000-000000000001")
OTHER = uuid.UUID("00000000-0000-7000-8000-000000000002")
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"enum": [1, None, "ü"]}}}


def tool(name: str = "web_search", **more: Any) -> Tool:
    """A tool that is about to be registered."""
    return Tool(
        id=new_tool_id(),
        name=name,
        description="Searches.",
        input_schema=SCHEMA,
        kind="webhook",
        webhook_url="https://example.com/hook",
        secret=Secret(new_webhook_secret()),
        **more,
    )


async def opened(stored: Tool) -> Secret:
    """The secret of a tool from the store."""
    assert stored.secret is not None
    assert not isinstance(stored.secret, Secret)
    return await stored.secret.open("test")


def client_tool(name: str) -> dict[str, Any]:
    """A caller's own tool as a request spells it."""
    return {"name": name, "description": "Asks.", "input_schema": {"type": "object"}}


@pytest.fixture
async def other_account(pool: Pool) -> uuid.UUID:
    """A second account."""
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", OTHER)
    return OTHER


async def test_a_tool_comes_back_as_it_was_registered(pool: Pool, vault: Vault) -> None:
    """Every field survives, the order of the schema's keys too, and the secret opens."""
    made = tool(effect="read", timeout_ms=1234, shared=False)
    await insert_tool(pool, vault, ACCOUNT, made)
    (found,) = await list_tools(pool, vault, ACCOUNT)
    for field in ("id", "name", "description", "kind", "effect", "timeout_ms", "webhook_url", "shared"):
        assert getattr(found, field) == getattr(made, field)
    assert list(found.input_schema["properties"]) == ["b", "a"]
    assert found.input_schema == SCHEMA
    assert isinstance(made.secret, Secret)
    assert (await opened(found)).reveal() == made.secret.reveal()
    assert made.secret.reveal() not in repr(found)
    assert found.created_at_ms > 1_700_000_000_000


async def test_a_name_is_unique_until_it_is_revoked(
    pool: Pool, vault: Vault, other_account: uuid.UUID
) -> None:
    """A second tool of a name is a Conflict; another account may have it, and revoking frees it."""
    first = await insert_tool(pool, vault, ACCOUNT, tool())
    with pytest.raises(Conflict, match="web_search"):
        await insert_tool(pool, vault, ACCOUNT, tool())
    await insert_tool(pool, vault, other_account, tool())
    assert await revoke_tool(pool, ACCOUNT, first.id)
    assert await list_tools(pool, vault, ACCOUNT) == []
    second = await insert_tool(pool, vault, ACCOUNT, tool())
    assert [found.id for found in await list_tools(pool, vault, ACCOUNT)] == [second.id]


async def test_only_an_own_living_tool_can_be_revoked(
    pool: Pool, vault: Vault, other_account: uuid.UUID
) -> None:
    """An unknown, a foreign and an already revoked tool are all simply not there."""
    made = await insert_tool(pool, vault, ACCOUNT, tool())
    assert not await revoke_tool(pool, ACCOUNT, "tool_unknown")
    assert not await revoke_tool(pool, other_account, made.id)
    assert await revoke_tool(pool, ACCOUNT, made.id)
    assert not await revoke_tool(pool, ACCOUNT, made.id)


async def test_the_row_holds_the_secret_only_sealed(pool: Pool, vault: Vault) -> None:
    """Neither the secret nor its hex is in the row; each seal is different."""
    first, second = tool("one"), tool("two")
    for made in (first, second):
        await insert_tool(pool, vault, ACCOUNT, made)
    rows = await pool.fetch("SELECT t::text AS row, secret FROM tools t ORDER BY name")
    assert isinstance(first.secret, Secret)
    plain = first.secret.reveal()
    assert plain.encode() not in rows[0]["secret"]
    assert plain not in rows[0]["row"]
    assert plain.encode().hex() not in rows[0]["row"]
    assert rows[0]["secret"] != rows[1]["secret"]


async def test_a_secret_is_of_no_use_to_another_account(
    pool: Pool, vault: Vault, other_account: uuid.UUID
) -> None:
    """Another account sees no tool of ours; a sealed secret moved into its row does not open."""
    made = await insert_tool(pool, vault, ACCOUNT, tool())
    assert await list_tools(pool, vault, other_account) == []
    sealed = await pool.fetchval("SELECT secret FROM tools WHERE id = $1", made.id)
    for place in (Place(other_account, f"tool:{made.id}"), Place(ACCOUNT, f"tool:{new_tool_id()}")):
        with pytest.raises(VaultError):
            await vault.open(place, sealed, "test")


async def test_explicit_mode_offers_exactly_the_chosen(pool: Pool, vault: Vault) -> None:
    """Ids are offered in their order, once each, shared or not; nothing else is reachable."""
    one, two, _ = [
        await insert_tool(pool, vault, ACCOUNT, made)
        for made in (tool("one", shared=False), tool("two"), tool("three"))
    ]
    toolset = await toolset_for(pool, vault, ACCOUNT, "explicit", [two.id, one.id, two.id], [])
    assert [offered.name for offered in toolset.offered] == ["two", "one"]
    assert toolset.reachable == ()
    assert (await toolset_for(pool, vault, ACCOUNT, "explicit", [], [])).offered == ()


async def test_an_id_that_is_not_mine_is_not_found(
    pool: Pool, vault: Vault, other_account: uuid.UUID
) -> None:
    """Unknown, foreign and revoked ids are NotFound, and so is a name in place of an id."""
    foreign = await insert_tool(pool, vault, other_account, tool())
    revoked = await insert_tool(pool, vault, ACCOUNT, tool())
    await revoke_tool(pool, ACCOUNT, revoked.id)
    await insert_tool(pool, vault, ACCOUNT, tool("named"))
    for unknown in ("tool_unknown", foreign.id, revoked.id, "named"):
        with pytest.raises(NotFound):
            await toolset_for(pool, vault, ACCOUNT, "explicit", [unknown], [])


async def test_tenant_mode_offers_what_is_shared(pool: Pool, vault: Vault) -> None:
    """Shared tools are attached, others are not, and there are no meta-tools."""
    for made in (tool("one"), tool("two", shared=False), tool("three")):
        await insert_tool(pool, vault, ACCOUNT, made)
    toolset = await toolset_for(pool, vault, ACCOUNT, "tenant", None, [client_tool("ask")])
    assert [offered.name for offered in toolset.offered] == ["one", "three", "ask"]
    assert toolset.reachable == ()


async def test_dynamic_mode_offers_the_meta_tools(pool: Pool, vault: Vault) -> None:
    """The model sees the four meta-tools; registered tools are reached through them, as over REST."""
    made = await insert_tool(pool, vault, ACCOUNT, tool())
    toolset = await toolset_for(pool, vault, ACCOUNT, "dynamic", None, [])
    assert toolset.offered == META_TOOLS
    assert [reached.id for reached in toolset.reachable] == [made.id]
    assert toolset.find(made.name) is None
    rest = await reachable_tools(pool, vault, ACCOUNT)
    assert [reached.id for reached in rest.reachable] == [made.id]


@pytest.mark.parametrize("names", [["web_search"], ["ask", "ask"]])
async def test_two_tools_of_one_name_are_refused(pool: Pool, vault: Vault, names: list[str]) -> None:
    """A client tool may not be named as an attached one, nor as another client tool."""
    await insert_tool(pool, vault, ACCOUNT, tool())
    with pytest.raises(InvalidRequest, match=names[0]):
        await toolset_for(pool, vault, ACCOUNT, "tenant", None, [client_tool(name) for name in names])


async def test_a_client_tool_cannot_pose_as_a_meta_tool(pool: Pool, vault: Vault) -> None:
    """In dynamic mode the names of the meta-tools are taken."""
    with pytest.raises(InvalidRequest):
        await toolset_for(pool, vault, ACCOUNT, "dynamic", None, [client_tool(SEARCH)])


async def test_a_lost_key_costs_one_tool_its_secret_only(pool: Pool, vault: Vault) -> None:
    """A row that does not open is listed and does not open; a tool that is registered now works."""
    await insert_tool(pool, Vault(Keyring.parse(Keyring.generate()), pool), ACCOUNT, tool("lost"))
    await insert_tool(pool, vault, ACCOUNT, tool("whole"))
    lost, whole = await list_tools(pool, vault, ACCOUNT)
    assert (lost.name, whole.name) == ("lost", "whole")
    assert await opened(whole)
    with pytest.raises(VaultError, match="not in the key ring"):
        await opened(lost)
