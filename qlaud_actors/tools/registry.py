"""Which tools a turn has, by its mode (reference 5.1)."""

import uuid
from typing import Any

from qlaud_actors.connectors.vault import Vault
from qlaud_actors.db.pool import Rows
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.tools.meta import META_TOOLS
from qlaud_actors.tools.model import Tool, Toolset, ToolsMode
from qlaud_actors.tools.schema import check_schema
from qlaud_actors.tools.store import list_tools

CLIENT_TIMEOUT_MS = 60_000


async def toolset_for(
    rows: Rows,
    vault: Vault,
    account_id: uuid.UUID,
    mode: ToolsMode,
    tool_ids: list[str] | None,
    client_tools: list[dict[str, Any]],
) -> Toolset:
    """The toolset of a turn. Raises NotFound (unknown id), InvalidRequest (names clash)."""
    registered = tuple(await list_tools(rows, vault, account_id))
    match mode:
        case "explicit":
            offered = _chosen(registered, tool_ids or [])
        case "tenant":
            offered = tuple(tool for tool in registered if tool.shared)
        case "dynamic":
            offered = META_TOOLS
    clients = tuple(_client_tool(definition) for definition in client_tools)
    names = [tool.name for tool in (*offered, *clients)]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"There is more than one tool named {doubled!r}.")
    return Toolset((*offered, *clients), registered if mode == "dynamic" else ())


async def reachable_tools(rows: Rows, vault: Vault, account_id: uuid.UUID) -> Toolset:
    """What the meta-tools reach when they are called over REST."""
    return Toolset(META_TOOLS, tuple(await list_tools(rows, vault, account_id)))


def _chosen(registered: tuple[Tool, ...], tool_ids: list[str]) -> tuple[Tool, ...]:
    by_id = {tool.id: tool for tool in registered}
    for tool_id in tool_ids:
        if tool_id not in by_id:
            raise NotFound(f"There is no tool with the id {tool_id[:64]!r}.")
    return tuple(by_id[tool_id] for tool_id in dict.fromkeys(tool_ids))


def _client_tool(definition: dict[str, Any]) -> Tool:
    check_schema(definition["input_schema"])
    return Tool(
        id=definition["name"],
        name=definition["name"],
        description=definition["description"],
        input_schema=definition["input_schema"],
        kind="client",
        timeout_ms=CLIENT_TIMEOUT_MS,
    )
