"""Rows ↔ tools; what is secret of them is sealed, each for its own row."""

import re
import uuid
from dataclasses import replace
from typing import Any

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import ClosedSecret, Place
from qlaud_actors.db.pool import Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import Conflict
from qlaud_actors.settings import Secret
from qlaud_actors.tools.mcp_store import mcp_tool_from, server_from
from qlaud_actors.tools.model import McpServer, Tool

QUERIES = load_queries("qlaud_actors.tools")

CONFIG = "config"
"""The field of a built-in's configuration."""

TOOL_ID = re.compile(r"tool_[0-9a-f]{32}")


async def insert_tool(rows: Rows, vault: Vault, account_id: uuid.UUID, tool: Tool) -> Tool:
    """Register a tool. Raises Conflict when the account has one of this name."""
    place = _place(account_id, tool.id)
    secret = await vault.seal(rows, place, tool.secret.reveal()) if isinstance(tool.secret, Secret) else b""
    place = replace(place, field=CONFIG)
    config = await vault.seal(rows, place, tool.config.reveal()) if isinstance(tool.config, Secret) else None
    row = await rows.fetchrow(
        QUERIES.insert_tool,
        tool.id,
        account_id,
        tool.name,
        tool.description,
        tool.input_schema,
        tool.webhook_url,
        tool.timeout_ms,
        tool.effect,
        tool.shared,
        secret,
        tool.provider,
        tool.auth_mode,
        config,
    )
    if row is None:
        raise Conflict(f"There is a tool named {tool.name!r} already.")
    return replace(_tool_from(vault, row), secret=tool.secret, config=tool.config)


async def list_tools(rows: Rows, vault: Vault, account_id: uuid.UUID) -> list[Tool]:
    """The living tools of an account, oldest first."""
    found = await rows.fetch(QUERIES.list_tools, account_id, None)
    return _tools_from(vault, found)


async def get_tools_by_ids(rows: Rows, vault: Vault, account_id: uuid.UUID, ids: list[str]) -> list[Tool]:
    """The living tools among these ids, in their order, each once; unknown ids are left out."""
    wanted = [tool_id for tool_id in dict.fromkeys(ids) if TOOL_ID.fullmatch(tool_id)]
    rows_found = await rows.fetch(QUERIES.list_tools, account_id, wanted)
    found = {tool.id: tool for tool in _tools_from(vault, rows_found)}
    return [found[name] for name in wanted if name in found]


async def revoke_tool(rows: Rows, account_id: uuid.UUID, tool_id: str) -> bool:
    """End a tool; False when there is none."""
    if not TOOL_ID.fullmatch(tool_id):
        return False
    return await rows.fetchval(QUERIES.revoke_tool, account_id, tool_id) is not None


async def session_metadata(
    rows: Rows, account_id: uuid.UUID, thread_id: uuid.UUID
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was said of a thread, and what of it an admin key said; empty when the thread is gone."""
    row = await rows.fetchrow(QUERIES.session_metadata, account_id, thread_id)
    if row is None:
        return {}, {}
    metadata = row["metadata"]
    return metadata, {name: metadata[name] for name in row["vouched"] if name in metadata}


def _place(account_id: uuid.UUID, tool_id: str) -> Place:
    return Place(account_id, f"tool:{tool_id}")


def _closed(vault: Vault, row: Record, field: str) -> ClosedSecret | None:
    """It is opened when the tool is called, not before."""
    place = replace(_place(row["account_id"], row["id"]), field=field)
    return vault.closed(place, row[field]) if row[field] else None


def _tools_from(vault: Vault, found: list[Record]) -> list[Tool]:
    """All tools of an MCP server have the one server."""
    servers: dict[uuid.UUID, McpServer] = {}
    tools = []
    for row in found:
        server_id = row["mcp_server_id"]
        if server_id is None:
            tools.append(_tool_from(vault, row))
            continue
        if server_id not in servers:
            servers[server_id] = server_from(row, vault)
        tools.append(mcp_tool_from(row, servers[server_id]))
    return tools


def _tool_from(vault: Vault, row: Record) -> Tool:
    return Tool(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        input_schema=row["input_schema"],
        kind="builtin" if row["provider"] else "webhook",
        effect=row["effect"],
        timeout_ms=row["timeout_ms"],
        webhook_url=row["webhook_url"],
        secret=_closed(vault, row, "secret"),
        provider=row["provider"],
        auth_mode=row["auth_mode"],
        config=_closed(vault, row, CONFIG),
        shared=row["shared"],
        created_at_ms=row["created_at_ms"],
    )
