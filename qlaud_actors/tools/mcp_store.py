"""Rows ↔ MCP servers and their tools; a server's headers are sealed for its own row."""

import uuid

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import ClosedSecret, Place
from qlaud_actors.db.pool import Connection, Pool, Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import Conflict, NotFound
from qlaud_actors.settings import Secret
from qlaud_actors.tools.mcp_listing import Unusable, compare
from qlaud_actors.tools.model import McpServer, Tool

QUERIES = load_queries("qlaud_actors.tools")

MAX_SERVERS = 100
"""Living ones of one account."""


async def insert_server(
    pool: Pool, vault: Vault, account_id: uuid.UUID, server: McpServer, tools: list[Tool]
) -> list[Unusable]:
    """Register a server with its tools, all or nothing. Gives the tools whose names were taken.

    Raises Conflict.
    """
    assert isinstance(server.headers, Secret)
    async with pool.acquire() as connection, connection.transaction():
        sealed = await vault.seal(connection, _place(account_id, server.id), server.headers.reveal())
        made = await connection.fetchval(
            QUERIES.insert_mcp_server,
            server.id,
            account_id,
            server.name,
            server.url,
            sealed if server.has_auth_headers else b"",
            server.timeout_ms,
            server.effect,
            MAX_SERVERS,
            server.catalog_slug,
            server.auth_mode,
            server.tools_cache_at_ms is not None,
        )
        if made is None:
            await check_room(connection, account_id, server.name)
            raise Conflict(f"An account may have {MAX_SERVERS} MCP servers: delete one.")
        return await _insert_tools(connection, account_id, server, tools)


async def check_room(rows: Rows, account_id: uuid.UUID, name: str) -> None:
    """Raises Conflict when the name is taken."""
    if await rows.fetch(QUERIES.mcp_servers, account_id, None, name):
        raise Conflict(f"There is an MCP server named {name!r} already.")


async def list_servers(rows: Rows, vault: Vault, account_id: uuid.UUID) -> list[McpServer]:
    """The living servers of an account, newest first."""
    found = await rows.fetch(QUERIES.mcp_servers, account_id, None, None)
    return [server_from(row, vault) for row in found]


async def get_server(rows: Rows, vault: Vault, account_id: uuid.UUID, server_id: uuid.UUID) -> McpServer:
    """One of them. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.mcp_servers, account_id, server_id, None)
    if row is None:
        raise NotFound("There is no such MCP server.")
    return server_from(row, vault)


async def list_server_tools(rows: Rows, server: McpServer) -> list[Tool]:
    """The living tools of a server, oldest first."""
    return [mcp_tool_from(row, server) for row in await rows.fetch(QUERIES.mcp_tools, server.id)]


async def replace_tools(
    pool: Pool, account_id: uuid.UUID, server: McpServer, listed: list[Tool]
) -> list[Unusable]:
    """Make a server's tools what it lists now, all or nothing: those that stay keep their ids.

    Gives the tools whose names were taken. Raises NotFound when the server was deleted meanwhile.
    """
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.lock_mcp_server, account_id, server.id) is None:
            raise NotFound("There is no such MCP server.")
        return await fill(connection, account_id, server, listed)


async def list_first(connection: Connection, account_id: uuid.UUID, catalog_slug: str) -> list[McpServer]:
    """Servers whose tools nobody knows yet; whoever gets them here stores their tools, with `fill`."""
    return [server_from(row) for row in await connection.fetch(QUERIES.list_first, account_id, catalog_slug)]


async def fill(
    connection: Connection, account_id: uuid.UUID, server: McpServer, listed: list[Tool]
) -> list[Unusable]:
    """Make a server's tools what it lists now, within the caller's transaction, which has the server's row.

    Gives the tools whose names were taken.
    """
    plan = compare(await list_server_tools(connection, server), listed)
    await connection.execute(QUERIES.revoke_mcp_tools, server.id, plan.revoke)
    for tool in plan.change:
        await connection.execute(
            QUERIES.change_mcp_tool,
            tool.id,
            tool.description,
            tool.input_schema,
            tool.timeout_ms,
            tool.effect,
        )
    return await _insert_tools(connection, account_id, server, plan.add)


async def revoke_server(pool: Pool, account_id: uuid.UUID, server_id: uuid.UUID) -> None:
    """End a server and its tools, and forget its headers. Raises NotFound."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(QUERIES.revoke_mcp_server, account_id, server_id) is None:
            raise NotFound("There is no such MCP server.")
        await connection.execute(QUERIES.revoke_mcp_tools, server_id, None)


async def _insert_tools(
    connection: Connection, account_id: uuid.UUID, server: McpServer, tools: list[Tool]
) -> list[Unusable]:
    taken = []
    for tool in tools:
        made = await connection.fetchval(
            QUERIES.insert_mcp_tool,
            tool.id,
            account_id,
            tool.name,
            tool.description,
            tool.input_schema,
            server.id,
            tool.timeout_ms,
            tool.effect,
            tool.shared,
        )
        if made is None:
            taken.append(Unusable(tool.name, "The account has a tool of this name already."))
    return taken


def server_from(row: Record, vault: Vault | None = None) -> McpServer:
    """A server, from its own row or from that of one of its tools."""
    return McpServer(
        id=row["mcp_server_id"],
        name=row["server_name"],
        url=row["server_url"],
        headers=_headers(vault, row),
        timeout_ms=row["server_timeout_ms"],
        effect=row["server_effect"],
        has_auth_headers=row["auth_headers"] != b"",
        catalog_slug=row["catalog_slug"],
        auth_mode=row["server_auth_mode"],
        tools_cached=row.get("tools_cached", 0),
        tools_cache_at_ms=row.get("tools_cache_at_ms", 0),
        created_at_ms=row.get("server_created_at_ms", 0),
    )


def mcp_tool_from(row: Record, server: McpServer) -> Tool:
    """A tool of a server."""
    return Tool(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        input_schema=row["input_schema"],
        kind="mcp",
        effect=row["effect"],
        timeout_ms=row["timeout_ms"],
        server=server,
        shared=row["shared"],
        created_at_ms=row["created_at_ms"],
    )


def _place(account_id: uuid.UUID, server_id: uuid.UUID) -> Place:
    return Place(account_id, f"mcp_server:{server_id}", "headers")


def _headers(vault: Vault | None, row: Record) -> Secret | ClosedSecret:
    """They are opened when the server is called, not before."""
    if vault is None or row["auth_headers"] == b"":
        return Secret("{}")
    return vault.closed(_place(row["account_id"], row["mcp_server_id"]), row["auth_headers"])
