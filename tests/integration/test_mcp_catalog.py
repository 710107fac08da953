"""The catalogue of MCP servers: what it lists, and servers that are registered from it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.mcp_double import McpDouble, listed, mcp_double
from front_door import Door, front_door

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Pool
from qlaud_actors.outbound.guard import open_guarded_session
from qlaud_actors.outbound.mcp import McpClient
from qlaud_actors.settings import Settings
from qlaud_actors.tools.mcp import McpCaller

SERVERS = "/v1/mcp-servers"
KEY = "lin_api_" + "a1B2c3D4e5" * 4
ORDER = {"name": "tracker", "catalog_slug": "linear", "config": {"api_key": KEY}}


@pytest.fixture
async def double() -> AsyncIterator[McpDouble]:
    """Stands in for Linear's server."""
    async with mcp_double(listed("list_issues")) as double:
        yield double


@pytest.fixture
async def door(pool: Pool, vault: Vault, double: McpDouble) -> AsyncIterator[Door]:
    """A front door whose Linear is the double; loopback is allowed."""
    catalog = ConnectorCatalog.load({"QLAUD_MCP_BASE_URL_LINEAR": double.url})
    settings = Settings(allow_private_webhooks=True)
    async with open_guarded_session(allow_private=True) as session:
        mcp = McpCaller(McpClient(session, allow_private=True))
        services: dict[str, Any] = {"connectors": catalog, "vault": vault, "mcp": mcp}
        async with front_door(pool, settings=settings, **services) as opened:
            yield opened


async def test_the_catalogue_is_public_and_has_every_vendor_once(door: Door) -> None:
    """Connectors and hosted servers, by slug; what is secret has the format `password`."""
    status, answer = await door.ask("GET", "/v1/mcp-catalog", key="")
    entries = {entry["slug"]: entry for entry in answer["data"]}
    assert (status, len(entries)) == (200, len(answer["data"]))
    linear, notion, axiom = entries["linear"], entries["notion"], entries["axiom"]
    assert (linear["kind"], linear["server_url"]) == ("mcp", "https://mcp.linear.app/mcp")
    assert linear["config_schema"]["properties"]["api_key"]["format"] == "password"
    assert linear["config_schema"]["required"] == ["api_key"]
    assert (linear["connect"], axiom["connect"]) == ("qlaud-mcp/linear", None)
    assert linear["auth_modes"] == notion["auth_modes"] == ["tenant", "per_user"]
    assert (notion["kind"], notion["server_url"]) == ("connector", None)
    assert notion["config_schema"]["properties"]["token"]["format"] == "password"
    assert "format" not in axiom["config_schema"]["properties"]["organization"]


async def test_a_server_of_the_catalogue_is_registered_with_the_accounts_credential(
    door: Door, double: McpDouble, pool: Pool
) -> None:
    """The entry's template makes headers of the configuration; they are sent, sealed, and shown to nobody."""
    status, made = await door.ask("POST", SERVERS, ORDER)
    assert status == 201, made
    assert [tool["name"] for tool in made["tools"]] == ["tracker/list_issues"]
    assert (made["catalog_slug"], made["has_auth_headers"]) == ("linear", True)
    assert {headers["authorization"] for _, headers in double.requests} == {f"Bearer {KEY}"}
    _, answer = await door.ask("GET", SERVERS)
    rows = await pool.fetch("SELECT to_jsonb(s)::text AS s FROM mcp_servers s")
    told = json.dumps([made, answer, [row["s"] for row in rows]])
    assert KEY not in told
    assert KEY.encode().hex() not in told
    assert answer["data"][0]["catalog_slug"] == "linear"
    status, again = await door.ask("POST", f"{SERVERS}/{made['id']}/refresh")
    assert (status, again["tools"]) == (200, made["tools"])


async def test_nothing_is_kept_when_the_vendor_refuses(door: Door, double: McpDouble, pool: Pool) -> None:
    """A credential that is not accepted is the caller's mistake, and named without being repeated."""
    double.status = 401
    status, refused = await door.ask("POST", SERVERS, ORDER)
    assert status == 400
    assert "status 401: check `config`" in refused["error"]["message"]
    assert KEY not in json.dumps(refused)
    assert await pool.fetchval("SELECT count(*) FROM mcp_servers") == 0


async def test_an_address_of_this_network_is_refused_like_any_other(pool: Pool, vault: Vault) -> None:
    """An override is no way around the guard: loopback needs the operator's word."""
    catalog = ConnectorCatalog.load({"QLAUD_MCP_BASE_URL_LINEAR": "http://127.0.0.1:9/mcp"})
    async with front_door(pool, vault=vault, connectors=catalog) as door:
        status, refused = await door.ask("POST", SERVERS, ORDER)
    assert status == 400
    assert "https" in refused["error"]["message"]


async def test_everybodys_own_credential_is_not_a_configuration(door: Door, double: McpDouble) -> None:
    """`per_user` with a `config` is refused with what to do instead, before the vendor is asked."""
    status, refused = await door.ask("POST", SERVERS, {**ORDER, "auth_mode": "per_user"})
    assert (status, "qlaud-mcp/mcp-linear" in refused["error"]["message"]) == (400, True)
    assert KEY not in json.dumps(refused)
    assert double.requests == []
