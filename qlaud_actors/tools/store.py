"""Rows ↔ webhook tools; their secrets are sealed, each for its own row."""

import uuid
from typing import Any

from qlaud_actors.connectors.vault import Vault
from qlaud_actors.db.pool import Record, Rows, UniqueViolation
from qlaud_actors.db.queries import load_queries
from qlaud_actors.errors import Conflict
from qlaud_actors.settings import Secret
from qlaud_actors.tools.model import Tool

QUERIES = load_queries("qlaud_actors.tools")


async def insert_tool(rows: Rows, vault: Vault, account_id: uuid.UUID, tool: Tool) -> Tool:
    """Register a tool. Raises Conflict when the account has one of this name."""
    assert tool.secret is not None
    sealed = vault.seal(tool.secret.reveal(), _place(account_id, tool.id))
    values: tuple[Any, ...] = (
        tool.id,
        account_id,
        tool.name,
        tool.description,
        tool.input_schema,
        tool.webhook_url,
        tool.timeout_ms,
        tool.effect,
        tool.shared,
        sealed,
    )
    try:
        row = await rows.fetchrow(QUERIES.insert_tool, *values)
    except UniqueViolation:
        raise Conflict(f"There is a tool named {tool.name!r} already.") from None
    assert row is not None
    return _tool_from(row, tool.secret)


async def list_tools(rows: Rows, vault: Vault, account_id: uuid.UUID) -> list[Tool]:
    """The living tools of an account, oldest first."""
    return [
        _tool_from(row, vault.open(row["secret"], _place(account_id, row["id"])))
        for row in await rows.fetch(QUERIES.list_tools, account_id)
    ]


async def revoke_tool(rows: Rows, account_id: uuid.UUID, tool_id: str) -> bool:
    """End a tool; False when there is none."""
    return await rows.fetchval(QUERIES.revoke_tool, account_id, tool_id) is not None


def _place(account_id: uuid.UUID, tool_id: str) -> str:
    return f"tool:{account_id}:{tool_id}"


def _tool_from(row: Record, secret: Secret) -> Tool:
    return Tool(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        input_schema=row["input_schema"],
        kind="webhook",
        effect=row["effect"],
        timeout_ms=row["timeout_ms"],
        webhook_url=row["webhook_url"],
        secret=secret,
        shared=row["shared"],
        created_at_ms=row["created_at_ms"],
    )
