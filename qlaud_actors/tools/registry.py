"""Which tools a turn has, by its mode (reference 5.1)."""

import uuid
from collections import Counter
from typing import Any

from qlaud_actors.connectors.store import Vault
from qlaud_actors.db.pool import Rows
from qlaud_actors.errors import InvalidRequest, NotFound
from qlaud_actors.tools.meta import META_TOOLS
from qlaud_actors.tools.model import Tool, Toolset, ToolsMode
from qlaud_actors.tools.schema import check_schema
from qlaud_actors.tools.store import get_tools_by_ids, list_tools

CLIENT_TIMEOUT_MS = 60_000


async def toolset_for(
    rows: Rows,
    vault: Vault,
    account_id: uuid.UUID,
    mode: ToolsMode,
    tool_ids: list[str] | None,
    client_tools: list[dict[str, Any]],
    connectors: tuple[Tool, ...] = (),
) -> Toolset:
    """The toolset of a turn. Raises NotFound (unknown id), InvalidRequest (names clash, bad schema).

    `connectors` are the actions that can be reached in dynamic mode; a registered tool of the same name
    stands before one.
    """
    reachable: tuple[Tool, ...] = ()
    match mode:
        case "explicit":
            offered = await _chosen(rows, vault, account_id, tool_ids or [])
        case "tenant":
            offered = tuple(tool for tool in await list_tools(rows, vault, account_id) if tool.shared)
        case "dynamic":
            registered = await list_tools(rows, vault, account_id)
            names = {tool.name for tool in registered}
            offered = META_TOOLS
            reachable = (*registered, *(tool for tool in connectors if tool.name not in names))
    offered = (*offered, *(_client_tool(definition) for definition in client_tools))
    doubled = [name for name, count in Counter(tool.name for tool in offered).items() if count > 1]
    if doubled:
        raise InvalidRequest(f"There is more than one tool named {doubled[0]!r}.")
    return Toolset(offered, reachable)


async def reachable_tools(
    rows: Rows, vault: Vault, account_id: uuid.UUID, connectors: tuple[Tool, ...] = ()
) -> Toolset:
    """What the meta-tools reach when they are called over REST."""
    return await toolset_for(rows, vault, account_id, "dynamic", None, [], connectors)


async def _chosen(rows: Rows, vault: Vault, account_id: uuid.UUID, tool_ids: list[str]) -> tuple[Tool, ...]:
    if not tool_ids:
        return ()
    found = await get_tools_by_ids(rows, vault, account_id, tool_ids)
    unknown = set(tool_ids).difference(tool.id for tool in found)
    for tool_id in tool_ids:
        if tool_id in unknown:
            raise NotFound(f"There is no tool with the id {tool_id[:64]!r}.")
    return tuple(found)


def _client_tool(definition: dict[str, Any]) -> Tool:
    try:
        check_schema(definition["input_schema"])
    except InvalidRequest as error:
        raise InvalidRequest(f"client_tools, {definition['name']!r}: {error.message}") from None
    return Tool(
        id=f"client/{definition['name']}",
        name=definition["name"],
        description=definition.get("description") or "",
        input_schema=definition["input_schema"],
        kind="client",
        timeout_ms=CLIENT_TIMEOUT_MS,
    )
